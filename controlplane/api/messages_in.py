"""From an agent's messages to domain values: every field bounded and typed, or the message is refused.

Nothing here says who sent it: the identity is the certificate's, and no field of any message is read as one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final, TypeVar

from google.protobuf.timestamp_pb2 import Timestamp

from controlplane.domain.agents import (
    AgentStatus,
    NationAnswer,
    ProgressReport,
    RolloutReport,
    RolloutState,
    RoundReport,
    RoundStage,
    UpdateOpening,
    Verdict,
)
from controlplane.services.fleet import Position
from treaty import names
from treaty.errors import InvalidInput, LimitExceeded
from treaty.names import Digest, DirectiveNumber
from treaty.strict_json import MAX_INTEGER, canonical, parse_object
from treaty.wire.limits import MAX_DELEGATIONS, MAX_HEADER_BYTES, MAX_METRICS_BYTES
from treaty.wire.v1 import session_pb2, transfer_pb2, types_pb2

MAX_CODES: Final = 64
MAX_ROLLOUTS: Final = 256
MAX_HELD: Final = 64
MAX_OPEN: Final = 1024
MAX_RECEIPT_BYTES: Final = 64 * 1024
MAX_DELEGATION_BYTES: Final = 16 * 1024
MAX_ROUND: Final = 10_000
MAX_METRICS: Final = 64
MAX_CHECKPOINT_NOTE_BYTES: Final = 4096
NONCE_BYTES: Final = 32

_CODE = re.compile(r"[A-Z][A-Z0-9_-]{0,63}\Z")
_METRIC = re.compile(r"[a-z][a-z0-9_]{0,63}\Z")
_E = TypeVar("_E", bound=StrEnum)
_W = TypeVar("_W")


@dataclass(frozen=True, slots=True)
class Hello:
    """What an agent says first. `delegations` are envelopes, not verified yet."""

    protocol_min: int
    protocol_max: int
    agent_version: str
    charter_digest: str
    position: Position
    delegations: tuple[bytes, ...]
    nonce: bytes
    status_sequence: int
    treaty_policy_revision: int


def number(message: types_pb2.DirectiveNumber) -> DirectiveNumber:
    return DirectiveNumber(message.epoch, message.counter)


def codes(refusal: types_pb2.Refusal) -> tuple[str, ...]:
    """The codes of a refusal, the first leading."""
    return _codes([refusal.code, *refusal.details])


def hello(message: session_pb2.Hello) -> Hello:
    """Raises: InvalidInput: a field is missing, malformed or beyond its bound."""
    if len(message.nonce) != NONCE_BYTES:
        raise InvalidInput(f"a hello's nonce has {NONCE_BYTES} bytes")
    _bounded(message.delegations, MAX_DELEGATIONS, "delegations")
    _bounded(message.open, MAX_OPEN, "open directives")
    if any(len(envelope) > MAX_DELEGATION_BYTES for envelope in message.delegations):
        raise LimitExceeded(f"a delegation has at most {MAX_DELEGATION_BYTES} bytes")
    if len(message.log_checkpoint_note) > MAX_CHECKPOINT_NOTE_BYTES:
        raise LimitExceeded(f"a hello's checkpoint has at most {MAX_CHECKPOINT_NOTE_BYTES} bytes")
    if len(message.log_root) != (32 if message.log_size else 0):
        raise InvalidInput("a log's root has 32 bytes, and none where the log was never verified")
    highest = number(message.highest_accepted) if message.HasField("highest_accepted") else None
    return Hello(
        protocol_min=message.protocol_min,
        protocol_max=message.protocol_max,
        agent_version=names.semantic_version(message.agent_version),
        charter_digest=names.digest(message.charter_digest),
        position=Position(
            highest_accepted=None if highest == DirectiveNumber(0, 0) else highest,
            open=frozenset(number(entry) for entry in message.open),
            log_size=_within(message.log_size, 2**62, "log size"),
            log_root=message.log_root,
            log_note=message.log_checkpoint_note,
        ),
        delegations=tuple(message.delegations),
        nonce=message.nonce,
        status_sequence=_within(message.status_sequence, 2**53 - 1, "status sequence"),
        treaty_policy_revision=_within(message.treaty_policy_revision, 2**53 - 1, "policy revision"),
    )


def status(message: session_pb2.Status) -> AgentStatus:
    _bounded(message.rollouts, MAX_ROLLOUTS, "rollouts")
    _bounded(message.held_digests, MAX_HELD, "held versions")
    return AgentStatus(
        sequence=_within(message.sequence, 2**53 - 1, "status sequence"),
        is_full=message.is_full,
        serving_digest=names.digest(message.serving_digest) if message.serving_digest else None,
        rollouts=tuple(_rollout(entry) for entry in message.rollouts),
        brake_on=message.brake_on,
        treaty_policy_revision=_within(message.treaty_policy_revision, 2**53 - 1, "policy revision"),
        overlay_revision=_within(message.overlay_revision, 2**53 - 1, "policy revision"),
        held_digests=tuple(names.digest(text) for text in message.held_digests),
    )


def _rollout(message: session_pb2.RolloutStatus) -> RolloutReport:
    _bounded(message.codes, 16, "codes")
    return RolloutReport(
        rollout=names.resource_name(message.rollout),
        number=number(message.number),
        state=_member(RolloutState, session_pb2.RolloutState.Name, message.state),
        codes=_codes(message.codes),
        manifest_digest=names.digest(message.manifest_digest) if message.manifest_digest else None,
        pulled_bytes=_within(message.pulled_bytes, 2**53 - 1, "byte count"),
        total_bytes=_within(message.total_bytes, 2**53 - 1, "byte count"),
        since=_moment(message.since) if message.HasField("since") else None,
        heldout_loss_micro_before=_within(message.heldout_loss_micro_before, 10**12, "loss"),
        heldout_loss_micro_after=_within(message.heldout_loss_micro_after, 10**12, "loss"),
    )


def proof_request(message: session_pb2.ProofRequest) -> tuple[Digest, int]:
    """The statement to prove, and the size of the tree to prove it in."""
    size = _within(message.log_size, MAX_INTEGER, "a log's size")
    return names.digest(message.statement_digest), size


def answer(message: session_pb2.Answer) -> NationAnswer:
    try:
        verdict = Verdict(message.verdict)
    except ValueError:
        raise InvalidInput("an answer's verdict is allow, deny or needs_approval") from None
    return NationAnswer(
        verdict=verdict,
        codes=_codes(message.codes),
        ask_digest=names.digest(message.ask_digest),
        decision_digest=names.digest(message.decision_digest),
        treaty_revision=_within(message.treaty_revision, 2**53 - 1, "policy revision"),
        overlay_revision=_within(message.overlay_revision, 2**53 - 1, "policy revision"),
        estimated_bytes_out=_within(message.estimated_bytes_out, 2**53 - 1, "byte count"),
    )


def progress(message: session_pb2.Progress) -> ProgressReport:
    return ProgressReport(
        run=names.run_id(message.run),
        round=_within(message.round, MAX_ROUND, "round"),
        stage=_member(RoundStage, session_pb2.RoundStage.Name, message.stage),
        steps_done=message.steps_done,
        steps_total=message.steps_total,
    )


def round_report(message: session_pb2.RoundResult) -> RoundReport:
    """A result with its receipt, or a refusal; never both, never neither."""
    is_refused = message.HasField("refusal")
    if is_refused == bool(message.metrics) or is_refused == bool(message.receipt):
        raise InvalidInput("a round ends with metrics and their receipt, or with a refusal")
    if len(message.receipt) > MAX_RECEIPT_BYTES:
        raise LimitExceeded(f"a receipt has at most {MAX_RECEIPT_BYTES} bytes")
    return RoundReport(
        run=names.run_id(message.run),
        round=_within(message.round, MAX_ROUND, "round"),
        number=number(message.number),
        codes=codes(message.refusal) if is_refused else (),
        metrics=message.metrics,
        values={} if is_refused else metric_values(message.metrics),
        receipt=message.receipt,
    )


def metric_values(data: bytes) -> Mapping[str, int]:
    """Integer metrics out of canonical JSON; whether the plan allows them is the run's question.

    Raises: InvalidInput: not canonical, not integers, or names that are no metric's.
    """
    members = parse_object(data, max_bytes=MAX_METRICS_BYTES, max_depth=1)
    if canonical(members) != data:
        raise InvalidInput("the metrics are not in canonical form")
    if len(members) > MAX_METRICS:
        raise LimitExceeded(f"a round has at most {MAX_METRICS} metrics")
    values: dict[str, int] = {}
    for name, value in members.items():
        if not _METRIC.match(name) or not isinstance(value, int) or isinstance(value, bool):
            raise InvalidInput("a metric is a short lower-case name and an integer")
        values[name] = value
    return values


def update_opening(message: transfer_pb2.UpdateOpening) -> UpdateOpening:
    for data, bound, what in (
        (message.header, MAX_HEADER_BYTES, "header"),
        (message.receipt, MAX_RECEIPT_BYTES, "receipt"),
        (message.metrics, MAX_METRICS_BYTES, "metrics"),
    ):
        if not 0 < len(data) <= bound:
            raise LimitExceeded(f"an update's {what} has 1 to {bound} bytes")
    return UpdateOpening(
        run=names.run_id(message.run),
        round=_within(message.round, MAX_ROUND, "round"),
        number=number(message.number),
        header=message.header,
        receipt=message.receipt,
        metrics=message.metrics,
    )


def _member(kind: type[_E], name_of: Callable[[_W], str], value: _W) -> _E:
    """The member of `kind` for an enum on the wire: ROUND_STAGE_DONE is RoundStage.DONE."""
    prefix = re.sub(r"(?<!^)(?=[A-Z])", "_", kind.__name__).upper() + "_"
    try:
        return kind[name_of(value).removeprefix(prefix)]
    except (KeyError, ValueError):
        raise InvalidInput(f"{value} is not a {kind.__name__}") from None


def _moment(message: Timestamp) -> datetime:
    try:
        return message.ToDatetime(tzinfo=UTC)
    except (ValueError, OverflowError):
        raise InvalidInput("a timestamp is out of range") from None


def _codes(values: Iterable[str]) -> tuple[str, ...]:
    found = tuple(values)
    if len(found) > MAX_CODES or not all(_CODE.match(code) for code in found):
        raise InvalidInput(f"codes are at most {MAX_CODES} short upper-case words")
    return found


def _within(value: int, high: int, what: str) -> int:
    if value > high:
        raise InvalidInput(f"a {what} is out of bounds")
    return value


def _bounded(values: Iterable[object], most: int, what: str) -> None:
    if len(tuple(values)) > most:
        raise LimitExceeded(f"more than {most} {what}")
