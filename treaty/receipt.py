"""What crossed a border: proof of one transfer, and the signed tally of everything else.

A receipt is journaled by the nation before the first byte leaves and travels with the bytes; the coordinator logs it
before it counts them. It names the digest, shape and size of what left, both parties, the decision behind it and what
the agent did to it (clip, sandbox layers). Raw data has no class here: `raw_records` is 0 or the receipt is malformed.

A tally counts the messages and bytes of every class that need no receipt of their own (control, status, requests).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType

from treaty import names, statement
from treaty.delegation import Delegation, Power, verify_by_power
from treaty.errors import InvalidInput
from treaty.fields import Fields, timestamp_text
from treaty.keys import SigningKey
from treaty.names import Digest, PartyCode, digest_of
from treaty.statement import Statement, StatementKind, Verified
from treaty.strict_json import JsonObject, JsonValue, canonical
from treaty.update_layout import TensorSpec

MAX_CLASSES = 64


class Crossing(StrEnum):
    """Classes of transfer that carry a receipt of their own."""

    UPDATE = "update"
    EVALUATION = "evaluation"


@dataclass(frozen=True, slots=True)
class Receipt:
    """`digest` is the update's header digest, or the digest of an evaluation's canonical metrics.

    `shape_digest` covers tensors and metrics (`shape_digest` below); `size_bytes` is what left: header and values of an
    update with its metrics, or the metrics alone.
    """

    nation: PartyCode
    agent: str
    crossing: Crossing
    digest: Digest
    shape_digest: Digest
    size_bytes: int
    destination: PartyCode
    run: str
    round: int
    examples: int
    decision_digest: Digest
    ask_digest: Digest
    clip_norm_micro: int
    sandbox: tuple[str, ...]
    trace_id: str
    issued_at: datetime

    def statement(self) -> Statement:
        predicate: JsonObject = {
            "nation": self.nation,
            "agent": self.agent,
            "crossing": self.crossing,
            "shape": self.shape_digest,
            "size_bytes": self.size_bytes,
            "destination": self.destination,
            "run": self.run,
            "round": self.round,
            "examples": self.examples,
            "decision": self.decision_digest,
            "ask": self.ask_digest,
            "clip_norm_micro": self.clip_norm_micro,
            "sandbox": list(self.sandbox),
            "raw_records": 0,
            "trace_id": self.trace_id,
            "issued_at": timestamp_text(self.issued_at),
        }
        return Statement(StatementKind.RECEIPT, f"{self.run}/{self.round}", self.digest, predicate)


@dataclass(frozen=True, slots=True)
class Tally:
    """Messages and bytes that left an agent since `since`, by class; `sequence` counts tallies from 1 without gaps."""

    nation: PartyCode
    agent: str
    sequence: int
    since: datetime
    until: datetime
    classes: Mapping[str, tuple[int, int]]

    def statement(self) -> Statement:
        classes: JsonObject = {
            name: {"messages": messages, "bytes": size} for name, (messages, size) in self.classes.items()
        }
        predicate: JsonObject = {
            "nation": self.nation,
            "agent": self.agent,
            "sequence": self.sequence,
            "since": timestamp_text(self.since),
            "until": timestamp_text(self.until),
            "classes": classes,
        }
        return statement.document(StatementKind.TALLY, f"{self.nation}/{self.agent}/{self.sequence}", predicate)


def shape_digest(tensors: Iterable[TensorSpec], metrics: Mapping[str, int]) -> Digest:
    """What a receipt says of a transfer's shape: tensors in order, and every metric that travels with them."""
    return digest_of(canonical({"tensors": [tensor.to_json() for tensor in tensors], "metrics": dict(metrics)}))


def sign_receipt(receipt: Receipt, key: SigningKey) -> bytes:
    return statement.sign(receipt.statement(), [key])


def sign_tally(tally: Tally, key: SigningKey) -> bytes:
    return statement.sign(tally.statement(), [key])


def verify_receipt(envelope: bytes, delegations: Iterable[Delegation], now: datetime) -> tuple[Receipt, Verified]:
    """Believe a receipt of the nation it names, signed by the agent it names.

    Raises: BadSignature: not that agent's key.
    """
    receipt = parse_receipt(statement.unverified(envelope))
    verified = _by_agent(envelope, StatementKind.RECEIPT, delegations, receipt.nation, receipt.agent, now)
    return receipt, verified


def verify_tally(envelope: bytes, delegations: Iterable[Delegation], now: datetime) -> tuple[Tally, Verified]:
    tally = parse_tally(statement.unverified(envelope))
    return tally, _by_agent(envelope, StatementKind.TALLY, delegations, tally.nation, tally.agent, now)


def _by_agent(
    envelope: bytes,
    kind: StatementKind,
    delegations: Iterable[Delegation],
    nation: PartyCode,
    agent: str,
    now: datetime,
) -> Verified:
    own = [delegation for delegation in delegations if delegation.agent == agent]
    verified, _ = verify_by_power(envelope, kind, own, nation=nation, powers=[Power.RECEIPT], now=now)
    return verified


def parse_receipt(claimed: Statement) -> Receipt:
    if claimed.kind is not StatementKind.RECEIPT:
        raise InvalidInput(f"expected a receipt, got a {claimed.kind}")
    fields = Fields(claimed.predicate, "receipt")
    receipt = Receipt(
        nation=names.nation_code(fields.text("nation", 2)),
        agent=names.resource_name(fields.text("agent", 63)),
        crossing=fields.choice("crossing", Crossing),
        digest=claimed.subject_digest,
        shape_digest=fields.digest("shape"),
        size_bytes=fields.integer("size_bytes"),
        destination=names.party_code(fields.text("destination", 8)),
        run=names.resource_name(fields.text("run", 63)),
        round=fields.integer("round", 0, 10_000),
        examples=fields.integer("examples"),
        decision_digest=fields.digest("decision"),
        ask_digest=fields.digest("ask"),
        clip_norm_micro=fields.integer("clip_norm_micro"),
        sandbox=fields.texts("sandbox", max_items=16, max_chars=32),
        trace_id=fields.text("trace_id", 32),
        issued_at=fields.timestamp("issued_at"),
    )
    fields.integer("raw_records", 0, 0)
    fields.done()
    return receipt


def parse_tally(claimed: Statement) -> Tally:
    if claimed.kind is not StatementKind.TALLY:
        raise InvalidInput(f"expected a tally, got a {claimed.kind}")
    fields = Fields(claimed.predicate, "tally")
    tally = Tally(
        nation=names.nation_code(fields.text("nation", 2)),
        agent=names.resource_name(fields.text("agent", 63)),
        sequence=fields.integer("sequence", 1),
        since=fields.timestamp("since"),
        until=fields.timestamp("until"),
        classes=MappingProxyType(_classes(fields.value("classes"))),
    )
    fields.done()
    return tally


def _classes(value: JsonValue) -> dict[str, tuple[int, int]]:
    if not isinstance(value, dict) or len(value) > MAX_CLASSES:
        raise InvalidInput(f"the tally's classes are not an object of at most {MAX_CLASSES}")
    classes = {}
    for name, entry in value.items():
        fields = Fields(entry, f"class {names.resource_name(name)}")
        classes[name] = (fields.integer("messages"), fields.integer("bytes"))
        fields.done()
    return classes
