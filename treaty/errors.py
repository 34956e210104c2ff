"""Every error this project raises on purpose, split by what the caller should do about it.

FoedusError                 carries a code, one line for a person and, where there is one, the next step
├── InvalidInput            the request or the bytes are malformed; change them
│   └── LimitExceeded       larger, deeper or longer than the stated bound
├── TrustError              bytes or a peer could not be believed; stop
│   ├── BadSignature        fewer valid signatures than the threshold
│   ├── Expired             outside the validity that its signers gave it
│   ├── RollbackRefused     older than what was already accepted
│   └── IdentityRefused     a certificate or an identity that the charter does not support
├── PolicyDenied            a rule said no; carries the codes; change the request
├── PermissionRefused       this identity may not call this; use another role
├── NotFound                there is no such thing, or it is not for this caller
├── ConflictError           somebody moved first; re-read and plan again
│   └── InvalidTransition   the state machine has no such move
├── PreconditionFailed      the state does not allow it now; do the named step first
├── ResourceExhausted       disk, memory, budget or rate is spent; free some, then retry
├── Corrupt                 our own durable state does not verify; stop and recover
└── Unavailable             the other side did not answer in time; the only one that is retried

A message names its own failure in lower case without a full stop. `remedy` is the next command or step for the reader.
Adapters translate foreign exceptions at the edge (`raise … from err`) and let nothing foreign past.
"""

from __future__ import annotations

from collections.abc import Sequence


class FoedusError(Exception):
    """Base of the tree. `code` is stable and may cross a border; `message` may not."""

    code = "INTERNAL"

    def __init__(self, message: str, *, remedy: str = "", code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy
        if code is not None:
            self.code = code

    def __str__(self) -> str:
        return f"{self.message}; {self.remedy}" if self.remedy else self.message


class InvalidInput(FoedusError):
    code = "INVALID_INPUT"


class LimitExceeded(InvalidInput):
    code = "LIMIT_EXCEEDED"


class TrustError(FoedusError):
    code = "UNTRUSTED"


class BadSignature(TrustError):
    code = "BAD_SIGNATURE"


class Expired(TrustError):
    code = "EXPIRED"


class RollbackRefused(TrustError):
    code = "ROLLBACK_REFUSED"


class IdentityRefused(TrustError):
    code = "IDENTITY_REFUSED"


class PolicyDenied(FoedusError):
    """A decision said no. `codes` are the failing checks, sorted."""

    code = "POLICY_DENIED"

    def __init__(self, message: str, *, codes: Sequence[str] = (), remedy: str = "") -> None:
        super().__init__(message, remedy=remedy)
        self.codes = tuple(codes)


class PermissionRefused(FoedusError):
    code = "PERMISSION_REFUSED"


class NotFound(FoedusError):
    code = "NOT_FOUND"


class ConflictError(FoedusError):
    code = "CONFLICT"


class InvalidTransition(ConflictError):
    code = "INVALID_TRANSITION"

    def __init__(self, state: object, event: object) -> None:
        name = getattr(event, "__name__", None) or str(event)
        super().__init__(f"no transition from {state} on {name}")
        self.state = state
        self.event = event


class PreconditionFailed(FoedusError):
    code = "PRECONDITION_FAILED"


class ResourceExhausted(FoedusError):
    code = "RESOURCE_EXHAUSTED"


class Corrupt(FoedusError):
    code = "CORRUPT"


class Unavailable(FoedusError):
    code = "UNAVAILABLE"
