"""What a nation's offline root hands on: its persons and its agents, each for what the delegation says.

A delegation is signed by the threshold of the nation's root in the charter, names one key, what that key may do and
until when. Persons are key ids on the wire; their names stay at home. An agent's key signs receipts, tallies and the
consents that the nation's policy answers; it can never sign a person's consent, break glass or an overlay.

A descriptor is what a nation (or the coordinator) offers the founders: its root, its CA, signed by that same root.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from treaty import names, statement
from treaty.charter import MAX_PEM_CHARS, Charter, Coordinator, Nation, Role, parse_role
from treaty.errors import BadSignature, Expired, IdentityRefused, InvalidInput
from treaty.fields import Fields, timestamp_text
from treaty.keys import SigningKey, VerificationKey, parse_verification_key
from treaty.names import Digest, KeyId, PartyCode
from treaty.statement import Statement, StatementKind, Verified
from treaty.strict_json import JsonObject


class Power(StrEnum):
    """What a delegated key may sign."""

    CONSENT = "consent"
    BREAK_GLASS = "break-glass"
    OVERLAY = "overlay"
    REVOKE = "revoke"
    RECEIPT = "receipt"
    POLICY_CONSENT = "policy-consent"


PERSON_POWERS = frozenset({Power.CONSENT, Power.BREAK_GLASS, Power.OVERLAY, Power.REVOKE})
AGENT_POWERS = frozenset({Power.RECEIPT, Power.POLICY_CONSENT})


@dataclass(frozen=True, slots=True)
class Delegation:
    """One key of a nation. `agent` is the SPIFFE id's last label for an agent's key, None for a person's."""

    nation: PartyCode
    key: VerificationKey
    powers: frozenset[Power]
    agent: str | None
    issued_at: datetime
    expires_at: datetime

    def statement(self) -> Statement:
        predicate: JsonObject = {
            "nation": self.nation,
            "key": self.key.pem(),
            "powers": [str(power) for power in sorted(self.powers)],
            "issued_at": timestamp_text(self.issued_at),
            "expires_at": timestamp_text(self.expires_at),
        }
        if self.agent is not None:
            predicate["agent"] = self.agent
        return Statement(StatementKind.DELEGATION, self.nation, Digest(self.key.key_id), predicate)


def verify_delegation(charter: Charter, envelope: bytes, now: datetime) -> Delegation:
    """Believe a delegation because the charter's root for that nation signed it.

    Raises: IdentityRefused: not a party. BadSignature, Expired, InvalidInput as they say.
    """
    claimed = statement.unverified(envelope)
    nation = charter.nation(names.nation_code(str(claimed.predicate.get("nation"))))
    verified = nation.root.verify(envelope, StatementKind.DELEGATION)
    delegation = parse_delegation(verified.statement)
    if now < delegation.issued_at:
        raise Expired(
            f"the delegation of key {delegation.key.key_id} begins at {timestamp_text(delegation.issued_at)}",
            remedy="set both clocks by NTP",
        )
    if now >= delegation.expires_at:
        raise Expired(
            f"the delegation of key {delegation.key.key_id} ended at {timestamp_text(delegation.expires_at)}",
            remedy="delegate again with 'foedus-agent delegate'",
        )
    return delegation


def parse_delegation(verified: Statement) -> Delegation:
    """Read what a delegation says, whenever it holds. Its signature was checked."""
    fields = Fields(verified.predicate, "delegation")
    key = parse_verification_key(fields.text("key", MAX_PEM_CHARS))
    agent = fields.optional_text("agent", 63)
    delegation = Delegation(
        nation=names.nation_code(fields.text("nation", 2)),
        key=key,
        powers=frozenset(_power(text) for text in fields.texts("powers", max_items=8, max_chars=32, min_items=1)),
        agent=None if agent is None else names.resource_name(agent),
        issued_at=fields.timestamp("issued_at"),
        expires_at=fields.timestamp("expires_at"),
    )
    fields.done()
    if verified.subject_digest != Digest(key.key_id):
        raise InvalidInput("the delegation's subject is not the key it names")
    allowed = PERSON_POWERS if agent is None else AGENT_POWERS
    if not delegation.powers <= allowed:
        raise InvalidInput("the delegation gives powers that this kind of key may not hold")
    return delegation


def _power(text: str) -> Power:
    try:
        return Power(text)
    except ValueError:
        raise InvalidInput("the delegation gives a power that this version does not know") from None


def verify_by_power(
    envelope: bytes,
    kind: StatementKind,
    delegations: Iterable[Delegation],
    *,
    nation: PartyCode,
    powers: Sequence[Power],
    now: datetime,
) -> tuple[Verified, Delegation]:
    """Check a statement signed by one of `nation`'s delegated keys that holds any of `powers` now.

    Returns: the statement, and the delegation whose key signed it.
    Raises: BadSignature: no such key signed it.
    """
    for delegation in delegations:
        entitled = delegation.nation == nation and any(power in delegation.powers for power in powers)
        if not entitled or not delegation.issued_at <= now < delegation.expires_at:
            continue
        if delegation.key.key_id in statement.claimed_signers(envelope):
            return statement.verify(envelope, kind, [delegation.key], 1), delegation
    raise BadSignature(f"no key that {nation} delegated for this signed the {kind}")


@dataclass(frozen=True, slots=True)
class Descriptor:
    """What a party offers the founders for the charter."""

    nation: Nation | None
    coordinator: Coordinator | None


def nation_descriptor(code: PartyCode, root_keys: Sequence[SigningKey], threshold: int, ca_pem: str) -> bytes:
    """A nation's descriptor, signed by its own root."""
    root = Role(tuple(key.verification for key in root_keys), threshold)
    predicate: JsonObject = {"nation": code, "root": root.to_json(), "ca": ca_pem}
    return statement.sign(statement.document(StatementKind.DESCRIPTOR, code, predicate), root_keys)


def coordinator_descriptor(coordinator: Coordinator, log_key: SigningKey) -> bytes:
    """The coordinator's descriptor, signed by its log key."""
    predicate: JsonObject = {
        "party": coordinator.party,
        "host": coordinator.host,
        "ca": coordinator.ca_pem,
        "dns_names": list(coordinator.dns_names),
        "log": coordinator.log.to_json(),
    }
    return statement.sign(statement.document(StatementKind.DESCRIPTOR, "coordinator", predicate), [log_key])


def parse_descriptor(envelope: bytes) -> Descriptor:
    """Read a descriptor and check that it is signed by the very keys it offers.

    It says who holds the keys, not that they are the nation: that is what the founders check before they sign.
    """
    predicate = statement.unverified(envelope).predicate
    fields = Fields(predicate, "descriptor")
    if fields.has("nation"):
        code = names.nation_code(fields.text("nation", 2))
        nation = Nation(code, parse_role(fields.value("root")), fields.text("ca", MAX_PEM_CHARS))
        fields.done()
        nation.root.verify(envelope, StatementKind.DESCRIPTOR)
        return Descriptor(nation, None)
    coordinator = Coordinator(
        party=names.party_code(fields.text("party", 8)),
        host=names.nation_code(fields.text("host", 2)),
        ca_pem=fields.text("ca", MAX_PEM_CHARS),
        dns_names=fields.texts("dns_names", max_items=16, max_chars=253, min_items=1),
        log=parse_role(fields.value("log")),
    )
    fields.done()
    coordinator.log.verify(envelope, StatementKind.DESCRIPTOR)
    return Descriptor(None, coordinator)


def agent_key(delegations: Iterable[Delegation], nation: PartyCode, agent: str) -> KeyId:
    """The key id that `nation`'s root delegated to `agent`. Raises: IdentityRefused: none."""
    for delegation in delegations:
        if (delegation.nation, delegation.agent) == (nation, agent):
            return delegation.key.key_id
    raise IdentityRefused(f"{nation} has delegated no key to its agent {agent}", code="NOT_DELEGATED")
