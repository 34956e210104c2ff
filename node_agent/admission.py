"""May these manifests come in at all? What can be said without asking anyone: signatures, digests, age, release.

1. each manifest is signed by the threshold of the charter's publishers, and parses;
2. the first is the version that the directive names, the second its base, which stands alone;
3. it is releasable to this nation, by name or by a body of the charter that it belongs to;
4. it is newer than what runs and than all that ever served under its name, unless it is what runs, the newest of all
   that served, or the fallback that the nation consented to;
5. its fallback is nothing, what is to be served now, or the fallback of that: versions that were decided on here.

Policy is asked afterwards (`node_agent.deploy`).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from node_agent.directives import Deploy
from node_agent.ports import Nation
from treaty.charter import Charter
from treaty.errors import Expired, InvalidInput, PermissionRefused, PreconditionFailed, TrustError
from treaty.fields import timestamp_text
from treaty.manifest import Manifest, check_newer, parse_manifest
from treaty.names import Digest
from treaty.statement import StatementKind
from treaty.strict_json import canonical


@dataclass(frozen=True, slots=True)
class Offered:
    """A version and, where it is an adapter, its base: both signed by the publishers."""

    version: Manifest
    base: Manifest | None

    @property
    def all(self) -> tuple[Manifest, ...]:
        """In the order in which they must be on the shelf."""
        return (self.version,) if self.base is None else (self.base, self.version)


def require_current(charter: Charter, now: datetime) -> None:
    """Nobody may direct anything new by a charter that has ended. Raises: Expired (CHARTER_EXPIRED)."""
    if now >= charter.expires_at:
        raise Expired(
            f"charter version {charter.version} ended at {timestamp_text(charter.expires_at)}",
            code="CHARTER_EXPIRED",
            remedy="the founders sign the next version",
        )


def believed(action: Deploy, nation: Nation) -> Offered:
    """Raises: BadSignature, TrustError, InvalidInput; PermissionRefused (NOT_RELEASABLE)."""
    publishers = nation.charter().publishers
    manifests = []
    for envelope in action.manifests:  # 1
        verified = publishers.verify(envelope, StatementKind.MANIFEST)
        manifest = parse_manifest(canonical(verified.statement.predicate))
        if manifest.digest != verified.statement.subject_digest:
            raise TrustError("a manifest is not the one that its signatures are about")
        manifests.append(manifest)
    version, bases = manifests[0], manifests[1:]  # 2
    if version.digest != action.manifest_digest:
        raise TrustError("the directive names another version than its manifest is", code="DIGEST_MISMATCH")
    if [manifest.digest for manifest in bases] != ([version.about.base] if version.about.base else []):
        raise InvalidInput("the directive does not carry exactly the version's base", code="BASE_MISSING")
    if bases and bases[0].about.base is not None:
        raise InvalidInput("the version's base is an adapter itself", code="BASE_NOT_WHOLE")
    members = {code: body.members for code, body in nation.charter().bodies.items()}
    for manifest in manifests:  # 3
        if not manifest.about.label.is_releasable_to(nation.code, members):
            raise PermissionRefused(f"{manifest.ref} is not releasable to {nation.code}", code="NOT_RELEASABLE")
    return Offered(version, bases[0] if bases else None)


@dataclass(frozen=True, slots=True)
class Standing:
    """What this nation serves and served, as the journal has it."""

    running: Manifest | None
    fallback: Digest | None
    """Of what runs."""
    newest: tuple[str, Digest] | None
    """Version and digest of the newest that ever served under the offered name."""


def check_age(offered: Manifest, standing: Standing) -> None:
    """Rule 4. Raises: RollbackRefused."""
    running, newest = standing.running, standing.newest
    if offered.digest in (running.digest if running else None, standing.fallback, newest[1] if newest else None):
        return
    if running is not None and running.about.name == offered.about.name:
        check_newer(running.about.version, offered.about.version)
    if newest is not None:
        check_newer(newest[0], offered.about.version)


def check_fallback(fallback: Digest | None, wanted: Digest | None, wanted_fallback: Digest | None) -> None:
    """Rule 5. Raises: PreconditionFailed (FALLBACK_NOT_SERVED)."""
    if fallback is not None and fallback not in (wanted, wanted_fallback):
        raise PreconditionFailed(
            "the rollout's fallback is neither what is served here nor the fallback of that", code="FALLBACK_NOT_SERVED"
        )
