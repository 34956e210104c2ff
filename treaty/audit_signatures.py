"""Who was entitled to say each thing that the record holds.

| kind | believed by |
|---|---|
| charter | its own founders, and in a chain with the believed one |
| delegation | the nation's root in a charter of the chain |
| manifest, policy bundle | the charter's publishers, its treaty policy |
| plan, round, rollout step | the coordinator's log key |
| revocation | a person with the power to revoke, or the coordinator's log key |
| consent | a person's or an agent's delegated key, as it states |
| receipt, tally | the very agent that it names |
| dataset, decision | an agent of the nation that it names |

A statement is judged as of the time that it states, by every charter of the chain: a delegation that has ended since,
or a publisher that has been replaced, said what it said. What states no time is judged as of its delegation.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from treaty import charter as charters
from treaty import statement
from treaty.charter import Charter, Role
from treaty.consent import verify_consent
from treaty.dataset import verify_notice
from treaty.delegation import Delegation, Power, verify_by_power, verify_delegation
from treaty.errors import BadSignature, FoedusError, InvalidInput, TrustError
from treaty.fields import parse_timestamp
from treaty.names import Digest
from treaty.receipt import Receipt, Tally, parse_receipt, parse_tally, verify_receipt, verify_tally
from treaty.statement import Statement, StatementKind, Verified

_TIMES = ("issued_at", "until", "registered_at", "decided_at", "at")


@dataclass(frozen=True, slots=True)
class Finding:
    """Something in the record that does not hold. `index` is the entry's."""

    index: int
    kind: str
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class SignedEntry:
    """A statement of the record, believed."""

    index: int
    verified: Verified

    @property
    def statement(self) -> Statement:
        return self.verified.statement

    @property
    def digest(self) -> Digest:
        return self.verified.digest

    def receipt(self) -> Receipt:
        return parse_receipt(self.statement)

    def tally(self) -> Tally:
        return parse_tally(self.statement)


@dataclass(frozen=True, slots=True)
class Entitled:
    """Whose word counts: the chain of charters, and the delegations that its nations' roots signed."""

    charters: tuple[Charter, ...]
    delegations: tuple[Delegation, ...]


def entitled(believed: Charter, entries: Sequence[tuple[bytes, Statement]]) -> Entitled:
    """The chain around the believed charter, and every delegation that holds under it."""
    of_kind = {
        kind: [(envelope, claimed) for envelope, claimed in entries if claimed.kind is kind]
        for kind in (StatementKind.CHARTER, StatementKind.DELEGATION)
    }
    chain = charter_chain(believed, [envelope for envelope, _ in of_kind[StatementKind.CHARTER]])
    delegations = []
    for envelope, claimed in of_kind[StatementKind.DELEGATION]:
        try:
            delegations.append(_delegation(envelope, claimed, chain))
        except FoedusError:
            continue  # `believe` tells of it
    return Entitled(chain, tuple(delegations))


def charter_chain(believed: Charter, envelopes: Iterable[bytes]) -> tuple[Charter, ...]:
    """The charters in `envelopes` that lead to the believed one or follow it, by the founders' thresholds, in order."""
    found = {charter.version: (charter, envelope) for charter, envelope in map(_self_signed, envelopes) if charter}
    chain = [believed]
    if found.get(believed.version, (None, b""))[0] != believed:
        return (believed,)
    while (before := found.get(chain[0].version - 1)) and _follows(before[0], found[chain[0].version]):
        chain.insert(0, before[0])
    while (after := found.get(chain[-1].version + 1)) and _follows(chain[-1], after):
        chain.append(after[0])
    return tuple(chain)


def believe(envelope: bytes, claimed: Statement, trusted: Entitled) -> Verified:
    """Check one statement by the table. Raises: BadSignature, TrustError, InvalidInput as its kind's check says."""
    at = _stated_time(claimed)
    match claimed.kind:
        case StatementKind.CHARTER:
            return _charter(envelope, claimed, trusted.charters)
        case StatementKind.DELEGATION:
            return _delegated(envelope, claimed, trusted.charters)
        case StatementKind.MANIFEST:
            return _by_role(envelope, claimed, [charter.publishers for charter in trusted.charters])
        case StatementKind.POLICY_BUNDLE:
            return _by_role(envelope, claimed, [charter.treaty_policy for charter in trusted.charters])
        case StatementKind.PLAN | StatementKind.ROUND | StatementKind.ROLLOUT_STEP:
            return _by_role(envelope, claimed, _log_roles(trusted))
        case StatementKind.REVOCATION:
            try:
                return _by_role(envelope, claimed, _log_roles(trusted))
            except BadSignature:
                return _by_nation(envelope, claimed, trusted, Power.REVOKE, at)
        case StatementKind.CONSENT:
            verify_consent(envelope, trusted.delegations, _signed_at(envelope, claimed, trusted))
            return _by_nation(envelope, claimed, trusted, None, at)
        case StatementKind.RECEIPT:
            return verify_receipt(envelope, trusted.delegations, _signed_at(envelope, claimed, trusted))[1]
        case StatementKind.TALLY:
            return verify_tally(envelope, trusted.delegations, _signed_at(envelope, claimed, trusted))[1]
        case StatementKind.DATASET:
            return verify_notice(envelope, trusted.delegations, _signed_at(envelope, claimed, trusted))[1]
        case StatementKind.DECISION:
            return _by_nation(envelope, claimed, trusted, Power.RECEIPT, at)
        case StatementKind.DESCRIPTOR:
            raise TrustError("a descriptor does not belong into the record", code="KIND_NOT_ALLOWED")


def _log_roles(trusted: Entitled) -> list[Role]:
    return [charter.coordinator.log for charter in trusted.charters]


def _by_role(envelope: bytes, claimed: Statement, roles: Sequence[Role]) -> Verified:
    """By any of these roles; the refusal is that of the newest."""
    for role in roles[:-1]:
        try:
            return role.verify(envelope, claimed.kind)
        except BadSignature:
            continue
    return roles[-1].verify(envelope, claimed.kind)


def _by_nation(
    envelope: bytes, claimed: Statement, trusted: Entitled, power: Power | None, at: datetime | None
) -> Verified:
    """By a key that a nation delegated for it (`power` None: any); a nation that the statement names is that one."""
    signers = statement.claimed_signers(envelope)
    named = claimed.predicate.get("nation")
    stranger: Delegation | None = None
    for delegation in trusted.delegations:
        if delegation.key.key_id not in signers:
            continue
        if named is not None and named != delegation.nation:
            # Any nation can delegate any public key, another nation's too: that says nothing about this statement.
            stranger = delegation
            continue
        verified, _ = verify_by_power(
            envelope,
            claimed.kind,
            [delegation],
            nation=delegation.nation,
            powers=[power] if power is not None else list(Power),
            now=max(at or delegation.issued_at, delegation.issued_at),
        )
        return verified
    if stranger is not None:
        raise TrustError(f"a key of {stranger.nation} speaks for another nation", code="FOREIGN_NATION")
    raise BadSignature(f"no key delegated in the record signed this {claimed.kind}")


def _charter(envelope: bytes, claimed: Statement, chain: Sequence[Charter]) -> Verified:
    if claimed.subject_digest not in {charter.digest for charter in chain}:
        raise TrustError("a charter in the record is not in a chain with the believed one", code="CHARTER_CHAIN")
    return charters.parse_charter(claimed.predicate).founders.verify(envelope, StatementKind.CHARTER)


def _delegated(envelope: bytes, claimed: Statement, chain: Sequence[Charter]) -> Verified:
    delegation = _delegation(envelope, claimed, chain)
    roots = [charter.nations[delegation.nation].root for charter in chain if delegation.nation in charter.nations]
    return _by_role(envelope, claimed, roots)


def _delegation(envelope: bytes, claimed: Statement, chain: Sequence[Charter]) -> Delegation:
    at = _require(_stated_time(claimed), claimed)
    for charter in chain[:-1]:
        try:
            return verify_delegation(charter, envelope, at)
        except TrustError:
            continue
    return verify_delegation(chain[-1], envelope, at)


def _self_signed(envelope: bytes) -> tuple[Charter | None, bytes]:
    try:
        charter = charters.parse_charter(statement.unverified(envelope).predicate)
        charter.founders.verify(envelope, StatementKind.CHARTER)
    except FoedusError:
        return None, envelope
    return charter, envelope


def _follows(current: Charter, following: tuple[Charter, bytes]) -> bool:
    try:
        charters.verify_successor(current, following[1], following[0].issued_at)
    except FoedusError:
        return False
    return True


def _stated_time(claimed: Statement) -> datetime | None:
    for name in _TIMES:
        text = claimed.predicate.get(name)
        if isinstance(text, str):
            try:
                return parse_timestamp(text)
            except InvalidInput:
                return None
    return None


def _signed_at(envelope: bytes, claimed: Statement, trusted: Entitled) -> datetime:
    """When a nation's statement was signed at the earliest: the time it states, but not before its key was delegated.

    A notice states when a dataset was registered, and is signed again by the agent's next key.
    """
    at = _require(_stated_time(claimed), claimed)
    signers = statement.claimed_signers(envelope)
    since = [delegation.issued_at for delegation in trusted.delegations if delegation.key.key_id in signers]
    return max(at, min(since, default=at))


def _require(at: datetime | None, claimed: Statement) -> datetime:
    if at is None:
        raise InvalidInput(f"this {claimed.kind} states no time")
    return at
