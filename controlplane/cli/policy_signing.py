"""A policy on its way to being signed: built from its folder by a real OPA, or taken as it was built."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from treaty import statement
from treaty.errors import InvalidInput
from treaty.files import about, read_file
from treaty.keys import SigningKey
from treaty.policy import author
from treaty.policy import bundle as bundles
from treaty.policy.bundle import Bundle
from treaty.policy.engine import TREATY
from treaty.statement import StatementKind

MAX_DAYS = 3650


@dataclass(frozen=True, slots=True)
class Request:
    """What is to be signed: a folder, or a bundle that `is_built`. `revision` 0 leaves a built bundle's own."""

    source: Path
    is_built: bool
    authority: str
    revision: int
    libraries: tuple[Path, ...]
    opa: str


def bundle_of(request: Request) -> tuple[bytes, Bundle]:
    """The packed bundle and what it says.

    Raises: InvalidInput: another authority's or revision's than was asked for. NotFound: no OPA, no policy there.
    """
    packed = read_file(request.source, "bundle") if request.is_built else _build(request)
    with about(request.source):
        found = bundles.read_bundle(packed)
    if found.authority != request.authority:
        raise InvalidInput(
            f"this is the bundle of {found.authority}, not of {request.authority}",
            remedy=f"pass --authority {found.authority} if that is meant",
        )
    if request.revision not in (0, found.revision):
        raise InvalidInput(
            f"the bundle says revision {found.revision}, not {request.revision}",
            remedy="build it from its folder to give it another revision",
        )
    return packed, found


def envelope_of(packed: bytes, keys: Sequence[SigningKey], valid_days: int) -> bytes:
    if not 1 <= valid_days <= MAX_DAYS:
        raise InvalidInput(f"a bundle is valid 1 to {MAX_DAYS} days")
    now = datetime.now(UTC).replace(microsecond=0)
    # Begun an hour ago: a nation's clock may be behind this one.
    return bundles.sign(packed, keys, not_before=now - timedelta(hours=1), not_after=now + timedelta(days=valid_days))


def with_signatures(envelope: bytes, keys: Sequence[SigningKey]) -> bytes:
    require_envelope(envelope)
    for key in keys:
        envelope = statement.add_signature(envelope, key)
    return envelope


def require_envelope(envelope: bytes) -> None:
    """Raises: InvalidInput: it is no envelope, or of something else than a policy bundle."""
    claimed = statement.unverified(envelope)
    if claimed.kind is not StatementKind.POLICY_BUNDLE:
        raise InvalidInput(f"this is the envelope of a {claimed.kind}, not of a policy bundle")


def _build(request: Request) -> bytes:
    import policies

    if request.revision < 1:
        raise InvalidInput("a bundle that is built needs a revision", remedy="pass --revision N, one above the last")
    libraries = request.libraries
    if not libraries and request.authority != TREATY:
        libraries = (policies.OVERLAY_LIBRARY,)
    return author.build(request.source, request.revision, opa=author.find_opa(request.opa), libraries=libraries)
