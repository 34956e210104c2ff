"""Whom the coordinator believes right now: the charter in force, what is revoked, which keys nations delegated.

Rules:
1. the first charter is the one that the coordinator's operator loaded at this machine; each later one follows TUF's
   rules from it, and is verified again when it is read back from the store;
2. an identity is its certificate's, checked at every call: the charter's CA for that authority issued the leaf, and
   neither the id nor that CA is revoked;
3. a revocation is final, durable before it is answered, and names an id or a CA, never a serial.

Held in memory, replaced whole, so that the TLS fetcher may read it from its own thread.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from cryptography import x509

from controlplane.services.ports import Clock
from controlplane.store import Store
from controlplane.store.ports.trust import Revocation, RevocationKind, StoredCharter
from treaty import names, statement
from treaty.charter import Charter, parse_charter, verify_first, verify_successor
from treaty.delegation import Delegation, verify_delegation
from treaty.errors import (
    Corrupt,
    FoedusError,
    IdentityRefused,
    NotFound,
    PreconditionFailed,
    ResourceExhausted,
)
from treaty.names import Digest, KeyId, PartyCode, SpiffeId
from treaty.wire.certificates import ca_digest, check_leaf

MAX_CHARTERS = 64
MAX_DELEGATIONS = 256
"""Delegations in force of one nation: its agents and its persons, several times over."""


@dataclass(frozen=True, slots=True)
class Anchor:
    """The charter in force with its predecessors' envelopes, and the digest of each authority's CA."""

    charter: Charter
    envelopes: tuple[bytes, ...]
    ca_digests: dict[str, Digest]


class Trust:
    """The charter, revocations and delegations. `changed` is called after any of them did."""

    def __init__(self, store: Store, clock: Clock, *, changed: Callable[[], None]) -> None:
        self._store = store
        self._clock = clock
        self._changed = changed
        self._anchor: Anchor | None = None
        self._revoked: frozenset[str] = frozenset()
        self._delegations: dict[PartyCode, dict[KeyId, Delegation]] = {}

    async def load(self) -> None:
        """Read charter and revocations back. Raises: Corrupt: what is stored does not verify."""
        await self._read_charters()
        await self._read_revocations()

    async def refresh(self) -> None:
        """Notice what another process wrote: a charter loaded, an id revoked."""
        before = (self._anchor, self._revoked)
        if (await self._store.trust.charter()).version != self.charter.version:
            await self._read_charters()
        await self._read_revocations()
        if before != (self._anchor, self._revoked):
            self._changed()

    @property
    def charter(self) -> Charter:
        return self._current.charter

    @property
    def charter_envelopes(self) -> tuple[bytes, ...]:
        """Every version from the first, oldest first."""
        return self._current.envelopes

    @property
    def revoked(self) -> frozenset[str]:
        """Every SPIFFE id and CA digest that is out."""
        return self._revoked

    @property
    def client_cas(self) -> Sequence[bytes]:
        """PEM of the CAs whose clients may begin to speak: the coordinator's and every nation's, but the revoked."""
        charter = self.charter
        cas = [charter.coordinator.ca_pem, *(nation.ca_pem for nation in charter.nations.values())]
        return [pem.encode("ascii") for pem in cas if ca_digest(pem) not in self._revoked]

    def identify(self, leaf: x509.Certificate) -> SpiffeId:
        """Who holds this certificate (rule 2).

        Raises: IdentityRefused with the codes of `check_leaf`, or REVOKED.
        """
        identity = check_leaf(leaf, self.charter, self._clock())
        self.check_standing(identity)
        return identity

    def is_revoked(self, identity: SpiffeId) -> bool:
        """By its id, or with the CA that the charter names for its authority."""
        return str(identity) in self._revoked or self._current.ca_digests.get(identity.authority) in self._revoked

    def check_standing(self, identity: SpiffeId) -> None:
        """Raises: IdentityRefused: revoked, by id or with its CA, or no longer a party."""
        ca = self._current.ca_digests.get(identity.authority)
        if ca is None:
            raise IdentityRefused(f"{identity} is not of this charter", code="NOT_A_PARTY")
        if self.is_revoked(identity):
            raise IdentityRefused(f"{identity} is revoked", code="REVOKED")

    def check_current(self) -> None:
        """Raises: PreconditionFailed: the charter has expired, and anchors nothing new."""
        if self._clock() >= self.charter.expires_at:
            raise PreconditionFailed("the charter has expired", remedy="the founders sign a new version")

    async def publish(self, envelope: bytes, *, judged_at: datetime | None = None) -> Charter:
        """Put a charter version in force. The one in force again changes nothing.

        Args:
            judged_at: the moment at which it must not have expired; now, where nothing else is said. One that was in
                force before and is only taken up again is judged as at its issue.

        Raises: TrustError, BadSignature, Expired, RollbackRefused as `treaty.charter` says.
        """
        claimed = statement.unverified(envelope)
        moment = judged_at or self._clock()
        if self._anchor is None:
            charter = verify_first(envelope, claimed.subject_digest, moment)  # 1: at this machine, by its operator
        elif claimed.subject_digest == self.charter.digest:
            return self.charter
        else:
            charter = verify_successor(self.charter, envelope, moment)
        earlier = () if self._anchor is None else self._anchor.envelopes
        if len(earlier) >= MAX_CHARTERS:
            raise PreconditionFailed(f"a treaty keeps at most {MAX_CHARTERS} charter versions")
        await self._store.trust.add_charter(charter.version, charter.digest, envelope)
        self._anchor = _anchor(charter, (*earlier, envelope))
        self._changed()
        return charter

    async def revoke(self, subject: str, *, reason: str, by: str) -> RevocationKind:
        """Revoke a SPIFFE id or, by its digest, a CA of the charter. Idempotent.

        Raises: InvalidInput: neither. NotFound: no CA of this charter. PreconditionFailed: the coordinator's own CA.
        """
        if subject.startswith("sha256:"):
            kind, authority = RevocationKind.CA, self._authority_of(names.digest(subject))
            if authority == names.COORDINATOR_HOST:
                raise PreconditionFailed(
                    "the coordinator's own CA is replaced by a new charter",
                    remedy="publish a charter that names another",
                )
        else:
            kind = RevocationKind.AGENT
            names.spiffe_id(subject, self.charter.domain)
        await self._store.trust.revoke(kind, subject, reason=reason, revoked_by=by)
        self._revoked |= {subject}
        self._changed()
        return kind

    def check_party(self, subject: str) -> None:
        """Check that a SPIFFE id, or the digest of a CA, is one that this charter knows an authority for.

        Raises: NotFound: of another treaty, or of a nation that is no party. InvalidInput: no SPIFFE id at all.
        """
        remedy = "see 'foedus get agents' and 'foedus charter show'"
        if subject.startswith("sha256:"):
            self._authority_of(names.digest(subject))
            return
        domain = self.charter.domain
        if not subject.removeprefix("spiffe://").partition("/")[0].endswith(f".{domain}"):
            raise NotFound(f"{subject[:255]} is not an id of {domain}, the domain of this treaty", remedy=remedy)
        identity = names.spiffe_id(subject, domain)
        if identity.authority not in self._current.ca_digests:
            raise NotFound(f"{identity.authority.upper()} is no party of this treaty", remedy=remedy)

    async def revocations(self) -> Sequence[Revocation]:
        """All that are stored, oldest first, each with who asked for it, why and when."""
        return await self._store.trust.revocations()

    def ca_digest(self, nation: PartyCode) -> Digest:
        """Digest of the CA that the charter names for `nation`. Raises IdentityRefused: not a party."""
        self.charter.nation(nation)
        return self._current.ca_digests[nation.lower()]

    def check_own(self, subject: str, nation: PartyCode) -> None:
        """Check that `subject` is an id or the CA of `nation`.

        Raises: IdentityRefused: it is somebody else's. InvalidInput: it is neither.
        """
        if subject.startswith("sha256:"):
            is_own = subject == self.ca_digest(nation)
        else:
            is_own = names.spiffe_id(subject, self.charter.domain).authority == nation.lower()
        if not is_own:
            raise IdentityRefused(f"{nation} may revoke its own agents and CA only", code="FOREIGN_NATION")

    def delegations(self, nation: PartyCode) -> Sequence[Delegation]:
        return list(self._delegations.get(nation, {}).values())

    def learn_delegation(self, envelope: bytes, *, nation: PartyCode) -> Delegation:
        """Believe a delegation of `nation`'s root; of one key the later begun counts, in whatever order they come.

        Raises: IdentityRefused: of another nation. ResourceExhausted: it has too many. Others as `verify_delegation`.
        """
        delegation = verify_delegation(self.charter, envelope, self._clock())
        if delegation.nation != nation:
            raise IdentityRefused(f"a delegation of {delegation.nation} was sent by {nation}", code="NOT_A_PARTY")
        # By nation: another one that delegates the same key takes nothing away from this one's word.
        own = self._delegations.setdefault(nation, {})
        key_id = delegation.key.key_id
        if key_id not in own and len(own) >= MAX_DELEGATIONS:
            self._forget_expired(own)
            if len(own) >= MAX_DELEGATIONS:
                raise ResourceExhausted(f"{nation} has {MAX_DELEGATIONS} delegations in force already")
        if key_id not in own or own[key_id].issued_at < delegation.issued_at:
            own[key_id] = delegation
        return delegation

    def _forget_expired(self, own: dict[KeyId, Delegation]) -> None:
        now = self._clock()
        for key_id in [key_id for key_id, delegation in own.items() if delegation.expires_at <= now]:
            del own[key_id]

    def recall_delegation(self, envelope: bytes) -> None:
        """Believe a delegation that was recorded earlier, if it still holds under the charter of today."""
        try:
            nation = names.nation_code(str(statement.unverified(envelope).predicate.get("nation")))
            self.learn_delegation(envelope, nation=nation)
        except FoedusError:
            return  # expired, or of a root that a later charter replaced: it no longer speaks for anyone

    @property
    def _current(self) -> Anchor:
        if self._anchor is None:
            raise PreconditionFailed(
                "the coordinator has no charter", remedy="load one with 'foedus-coordinator charter --home DIR FILE'"
            )
        return self._anchor

    def _authority_of(self, digest: Digest) -> str:
        for authority, known in self._current.ca_digests.items():
            if known == digest:
                return authority
        raise NotFound(f"no CA of this charter has the digest {digest}")

    async def _read_charters(self) -> None:
        try:
            latest = await self._store.trust.charter()
        except NotFound:
            return
        stored = [await self._store.trust.charter(version) for version in range(1, latest.version + 1)]
        self._anchor = _anchor(_replayed(stored), tuple(version.envelope for version in stored))

    async def _read_revocations(self) -> None:
        self._revoked = frozenset(revocation.subject for revocation in await self._store.trust.revocations())


def _anchor(charter: Charter, envelopes: tuple[bytes, ...]) -> Anchor:
    digests = {code.lower(): ca_digest(nation.ca_pem) for code, nation in charter.nations.items()}
    digests[names.COORDINATOR_HOST] = ca_digest(charter.coordinator.ca_pem)
    return Anchor(charter, envelopes, digests)


def _replayed(stored: Sequence[StoredCharter]) -> Charter:
    """Verify the chain again from what was stored; each version is judged at the moment that it was issued."""
    charter: Charter | None = None
    try:
        for version in stored:
            issued_at = parse_charter(statement.unverified(version.envelope).predicate).issued_at
            if charter is None:
                charter = verify_first(version.envelope, version.digest, issued_at)
            else:
                charter = verify_successor(charter, version.envelope, issued_at)
    except FoedusError as err:
        raise Corrupt("the stored charter does not verify", remedy="restore the coordinator's store") from err
    if charter is None:
        raise Corrupt("the store lost its first charter", remedy="restore the coordinator's store")
    return charter
