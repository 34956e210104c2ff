"""What runs in a nation: one agent per cluster, answerable to that nation alone.

The agent dials out, verifies everything it is sent, asks both policies before it acts, serves the versions that its
nation consented to, trains on data that stays where it is, and lets out what the border's one table allows.

Rooms: `training` (fine-tuning in a confined child process) and `runtime` (serving a version in another) are the only
ones that start programs; torch is imported in those children and nowhere else. A nation that audits what runs on its
soil reads this package, `treaty` and `policies`, and nothing more: `controlplane` is never imported here.
"""
