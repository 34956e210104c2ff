"""What is said where a program meets a library that its installation leaves out.

An operator's laptop has neither torch nor a store; what each machine needs beyond it is an extra of the distribution.
"""

from __future__ import annotations

from treaty.errors import PreconditionFailed

OURS = frozenset({"controlplane", "node_agent", "policies", "treaty"})


def not_installed(error: ModuleNotFoundError, extra: str) -> PreconditionFailed:
    """The refusal in place of `error`. Raises: `error` itself, where it is one of our own modules that is missing."""
    name = (error.name or "").partition(".")[0]
    if not name or name in OURS:
        raise error
    return PreconditionFailed(f"{name} is not installed here", remedy=f"pip install 'foedus[{extra}]'")
