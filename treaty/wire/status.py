"""Our errors as gRPC status, and back.

Codes cross borders; a text is shown only between an operator and its own coordinator. `details` is `CODE` or
`CODE: message`. A peer's status that we did not make (no known code) becomes `Unavailable` when gRPC says the peer did
not answer, and a refusal otherwise.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc

from treaty import errors
from treaty.errors import FoedusError

_STATUS: dict[type[FoedusError], grpc.StatusCode] = {
    errors.LimitExceeded: grpc.StatusCode.INVALID_ARGUMENT,
    errors.InvalidInput: grpc.StatusCode.INVALID_ARGUMENT,
    errors.IdentityRefused: grpc.StatusCode.UNAUTHENTICATED,
    errors.TrustError: grpc.StatusCode.PERMISSION_DENIED,
    errors.PolicyDenied: grpc.StatusCode.PERMISSION_DENIED,
    errors.PermissionRefused: grpc.StatusCode.PERMISSION_DENIED,
    errors.NotFound: grpc.StatusCode.NOT_FOUND,
    errors.ConflictError: grpc.StatusCode.ABORTED,
    errors.PreconditionFailed: grpc.StatusCode.FAILED_PRECONDITION,
    errors.ResourceExhausted: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.Corrupt: grpc.StatusCode.DATA_LOSS,
    errors.Unavailable: grpc.StatusCode.UNAVAILABLE,
}

_ERRORS: dict[grpc.StatusCode, type[FoedusError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: errors.InvalidInput,
    grpc.StatusCode.OUT_OF_RANGE: errors.InvalidInput,
    grpc.StatusCode.UNAUTHENTICATED: errors.IdentityRefused,
    grpc.StatusCode.PERMISSION_DENIED: errors.PermissionRefused,
    grpc.StatusCode.NOT_FOUND: errors.NotFound,
    grpc.StatusCode.ABORTED: errors.ConflictError,
    grpc.StatusCode.ALREADY_EXISTS: errors.ConflictError,
    grpc.StatusCode.FAILED_PRECONDITION: errors.PreconditionFailed,
    grpc.StatusCode.RESOURCE_EXHAUSTED: errors.ResourceExhausted,
    grpc.StatusCode.DATA_LOSS: errors.Corrupt,
    grpc.StatusCode.UNIMPLEMENTED: errors.InvalidInput,
}

_BY_CODE: dict[str, type[FoedusError]] = {
    kind.code: kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, FoedusError) and "code" in vars(kind)
}
"""Each error by its own code, those too that share a status with a wider one: a bad signature stays one."""
_PLAIN_CODE = re.compile(r"[A-Z][A-Z0-9_-]{1,63}\Z")
_CODE = re.compile(r"([A-Z][A-Z0-9_-]{1,63})(?:: (.*))?\Z", re.DOTALL)


def grpc_status(error: FoedusError) -> tuple[grpc.StatusCode, str]:
    """Status and details for `error`: for a peer that may read the message."""
    status = _status_of(type(error))
    return (grpc.StatusCode.INTERNAL, error.code) if status is None else (status, f"{error.code}: {error}")


def _status_of(kind: type[FoedusError]) -> grpc.StatusCode | None:
    """Of the nearest ancestor that has one."""
    return next((_STATUS[above] for above in kind.__mro__ if above in _STATUS), None)


def grpc_status_code_only(error: FoedusError) -> tuple[grpc.StatusCode, str]:
    """Status and code for a peer across a border, with a policy's codes: no text."""
    codes = error.codes if isinstance(error, errors.PolicyDenied) else ()
    return grpc_status(error)[0], f"{error.code}: {' '.join(codes)}" if codes else error.code


def error_from(failure: grpc.RpcError, *, peer: str) -> FoedusError:
    """What a failed call means to us. `peer` names the other side for the reader."""
    status = failure.code() if hasattr(failure, "code") else None
    details = (failure.details() or "") if hasattr(failure, "details") else ""
    found = _CODE.match(details)
    if found is None:
        return _unexplained(status, peer)
    code, text = found.group(1), found.group(2) or f"{peer} refused: {found.group(1)}"
    kind = _BY_CODE.get(code)
    if kind is None or _status_of(kind) is not status:  # the code of another error, as an identity that is EXPIRED
        kind = _ERRORS.get(status or grpc.StatusCode.UNKNOWN, errors.Unavailable)
    if kind is errors.PolicyDenied:
        codes = tuple(text.split())
        if not all(_PLAIN_CODE.match(part) for part in codes):
            return errors.PolicyDenied(text)  # a sentence for a person
        return errors.PolicyDenied(f"{peer}'s policy refused ({', '.join(codes)})", codes=codes)
    return kind(text, code=code)


def _unexplained(status: grpc.StatusCode | None, peer: str) -> FoedusError:
    if status is not None and status in _ERRORS:
        return _ERRORS[status](f"{peer} refused the call ({status.name.lower()})")
    if status is grpc.StatusCode.DEADLINE_EXCEEDED:
        return errors.Unavailable(f"{peer} did not answer in time")
    return errors.Unavailable(f"{peer} cannot be reached, or refused the handshake")


@asynccontextmanager
async def translated(peer: str) -> AsyncIterator[None]:
    """Turn gRPC's failures in the body into ours."""
    try:
        yield
    except grpc.RpcError as err:
        raise error_from(err, peer=peer) from err
