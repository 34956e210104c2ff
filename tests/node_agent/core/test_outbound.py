"""What the border's table lets out, and what it does not."""

from __future__ import annotations

from pathlib import Path

import pytest
from google.protobuf import empty_pb2

from node_agent import messages
from node_agent.outbound import TABLE, clear
from treaty import border
from treaty.errors import LimitExceeded, PolicyDenied
from treaty.names import DirectiveNumber
from treaty.wire.v1 import session_pb2, transfer_pb2

ROOM = Path(__file__).resolve().parents[3] / "node_agent"


def test_the_documentation_lists_exactly_what_the_table_does() -> None:
    text = (ROOM / "outbound.py").read_text()
    rows = [line.split("|")[1].strip() for line in text.splitlines() if line.startswith("| ")]
    documented = set(rows) - {"class"}
    assert documented == set(TABLE) == border.CLASSES


def test_every_message_of_the_stream_has_a_class() -> None:
    for field in session_pb2.AgentMessage.DESCRIPTOR.oneofs_by_name["body"].fields:
        if field.name == "round_result":
            continue
        message = session_pb2.AgentMessage()
        getattr(message, field.name).SetInParent()
        assert clear(message).name == field.name.replace("_", "-")


def test_a_message_of_no_class_does_not_leave() -> None:
    for message in (session_pb2.AgentMessage(), transfer_pb2.UpdateFrame(), empty_pb2.Empty()):
        with pytest.raises(PolicyDenied, match="not in the border's table") as refused:
            clear(message)  # type: ignore[arg-type]
        assert refused.value.codes == ("BORDER_UNLISTED",)


def test_a_field_that_nobody_declared_does_not_leave() -> None:
    message = session_pb2.AgentMessage(heartbeat=session_pb2.Heartbeat(epoch=1))
    message.heartbeat.MergeFromString(b"\xfa\x3f\x05hello")  # field 1023
    with pytest.raises(PolicyDenied, match="fields nobody knows"):
        clear(message)


def test_a_message_larger_than_its_class_allows_does_not_leave() -> None:
    chatty = session_pb2.Status(held_digests=["sha256:" + "0" * 64] * 2000)
    with pytest.raises(LimitExceeded, match="class status has 1"):
        clear(session_pb2.AgentMessage(status=chatty))


def test_a_result_without_a_receipt_does_not_leave() -> None:
    result = session_pb2.AgentMessage(round_result=session_pb2.RoundResult(run="r", metrics=b"{}"))
    with pytest.raises(PolicyDenied, match="carries no receipt") as refused:
        clear(result)
    assert refused.value.codes == ("RECEIPT_MISSING",)


def test_a_refusal_of_a_round_needs_no_receipt() -> None:
    refusal = session_pb2.RoundResult(run="r", refusal=messages.refusal(["BRAKE_ON"]))
    assert clear(session_pb2.AgentMessage(round_result=refusal)).name == "round-refusal"


def test_a_text_cannot_pass_for_a_code() -> None:
    message = messages.acknowledgement(DirectiveNumber(1, 1), ["a sentence of the data", "PLC-001"])
    assert message.acknowledgement.refusal.code == "INTERNAL"
    assert list(message.acknowledgement.refusal.details) == ["PLC-001"]


def test_only_the_border_s_rooms_import_grpc() -> None:
    importers = {path.name for path in ROOM.glob("*.py") if "\nimport grpc" in path.read_text()}
    assert importers <= {"connections.py", "fetch.py", "health.py"}
