"""Serving a version inside the nation: a local child process behind the same sandbox and pipes as the trainer.

`local` is the agent's side: start a candidate, believe the digest that the child computed over the files it loaded,
try it, make it the live one. `server` is the child's: verify, load, generate, measure. Which version may be served, and
under which consent and policy, is decided before; the gateway for a nation's users is not here yet.
"""
