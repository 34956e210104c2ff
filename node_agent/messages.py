"""From the agent's values to the messages that leave: hello, status, progress, answer, acknowledgement.

Everything that crosses is a digest, a number, a state or a code; no text of ours, no path, no name of a person.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime

from google.protobuf.timestamp_pb2 import Timestamp

from node_agent.directives import number_message
from node_agent.ports import NationAnswer, ProgressReport, RolloutReport
from treaty.log import Checkpoint
from treaty.names import Digest, DirectiveNumber
from treaty.wire.v1 import session_pb2, types_pb2

PROTOCOL_MIN, PROTOCOL_MAX = 1, 1
MAX_CODES = 16
_CODE = re.compile(r"[A-Z][A-Z0-9_-]{0,63}\Z")


def timestamp(moment: datetime) -> Timestamp:
    message = Timestamp()
    message.FromDatetime(moment)
    return message


def codes_only(codes: Sequence[str], most: int = MAX_CODES) -> list[str]:
    """Whatever is not a code becomes one: a text must not slip out under that name."""
    return [code if _CODE.match(code) else "INTERNAL" for code in codes[:most]]


def refusal(codes: Sequence[str]) -> types_pb2.Refusal:
    """At least one code; the first in front."""
    first, *rest = codes_only(codes, 64) or ["REFUSED"]
    return types_pb2.Refusal(code=first, details=sorted(rest))


def acknowledgement(number: DirectiveNumber, codes: Sequence[str] = ()) -> session_pb2.AgentMessage:
    message = session_pb2.Acknowledgement(number=number_message(number))
    if codes:
        message.refusal.CopyFrom(refusal(codes))
    return session_pb2.AgentMessage(acknowledgement=message)


def hello(
    *,
    nonce: bytes,
    version: str,
    charter_digest: Digest,
    highest: DirectiveNumber,
    open_numbers: Sequence[DirectiveNumber],
    checkpoint: Checkpoint | None,
    note: bytes,
    treaty_revision: int,
    delegations: Sequence[bytes],
    status_sequence: int,
) -> session_pb2.AgentMessage:
    """What the agent has, so that only the difference flows. `note` is the signed one behind `checkpoint`."""
    message = session_pb2.Hello(
        protocol_min=PROTOCOL_MIN,
        protocol_max=PROTOCOL_MAX,
        agent_version=version,
        charter_digest=charter_digest,
        open=[number_message(number) for number in open_numbers],
        log_size=checkpoint.size if checkpoint else 0,
        log_root=checkpoint.root if checkpoint else b"",
        treaty_policy_revision=treaty_revision,
        delegations=delegations,
        nonce=nonce,
        status_sequence=status_sequence,
        log_checkpoint_note=note,
    )
    if highest > DirectiveNumber(0, 0):
        message.highest_accepted.CopyFrom(number_message(highest))
    return session_pb2.AgentMessage(hello=message)


def rollout_status(report: RolloutReport) -> session_pb2.RolloutStatus:
    """A verdict by state and codes. What the gates measured stays at home: no decision and no receipt covers it."""
    return session_pb2.RolloutStatus(
        rollout=report.rollout,
        number=number_message(report.number),
        state=session_pb2.RolloutState.Value(f"ROLLOUT_STATE_{report.state}"),
        codes=codes_only(report.codes),
        manifest_digest=report.manifest_digest,
        pulled_bytes=report.pulled_bytes,
        total_bytes=report.total_bytes,
        since=timestamp(report.since),
    )


def progress(report: ProgressReport) -> session_pb2.AgentMessage:
    return session_pb2.AgentMessage(
        progress=session_pb2.Progress(
            run=report.run,
            round=report.round,
            stage=session_pb2.RoundStage.Value(f"ROUND_STAGE_{report.stage}"),
            steps_done=report.steps_done,
            steps_total=report.steps_total,
        )
    )


def answer(question_id: str, given: NationAnswer) -> session_pb2.AgentMessage:
    return session_pb2.AgentMessage(
        answer=session_pb2.Answer(
            question_id=question_id,
            verdict=given.verdict,
            codes=sorted(codes_only(given.codes, 64)),
            ask_digest=given.ask_digest,
            decision_digest=given.decision_digest,
            treaty_revision=given.treaty_revision,
            overlay_revision=given.overlay_revision,
            estimated_bytes_out=given.estimated_bytes_out,
        )
    )


def heartbeat(epoch: int, now: datetime) -> session_pb2.AgentMessage:
    return session_pb2.AgentMessage(heartbeat=session_pb2.Heartbeat(epoch=epoch, sent_at=timestamp(now)))
