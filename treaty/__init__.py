"""What both sides of the treaty agree on: formats, rules of trust and the words on the wire.

This package imports neither `controlplane` nor `node_agent`; a nation that audits what runs on its soil
reads this package, `node_agent` and `policies`, and nothing else.
"""
