"""What may leave this country, and how much of it: the border's one table.

| class | carried by | at most | condition |
|---|---|---|---|
| hello | Session | 512 KiB | – |
| acknowledgement | Session | 4 KiB | codes only |
| status | Session | 64 KiB | digests, states and codes only |
| heartbeat | Session | 128 B | – |
| answer | Session | 8 KiB | verdict, codes and digests only |
| submission | Session | 256 KiB | a statement signed by this nation's keys |
| progress | Session | 256 B | step counts only |
| round-refusal | Session | 4 KiB | codes only |
| proof-request | Session | 128 B | the digest of a statement of this nation |
| round-result | Session | 64 KiB | journaled receipt; decision `dataset.use` |
| fetch | Artifacts | 8 KiB | digests only |
| update-opening | Updates | 1.25 MiB | journaled receipt; decision `egress.update`; brake off |
| update-chunk | Updates | 4 MiB + 16 B | after its opening, within the receipt's size |
| greet | Reach | 0 B | – |
| fetch-charter | Reach | 0 B | – |
| diagnose | Reach | 9 KiB | the agent's own certificate |

What is not listed does not leave. A message with a field that this version does not know is not sent either. This
module is pure: it names the class of a message and refuses; `node_agent.border` counts, taps and sends.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, TypeAlias

from google.protobuf.message import Message

from treaty.border import ROUND_RESULT, UPDATE_CHUNK, UPDATE_OPENING
from treaty.errors import LimitExceeded, PolicyDenied
from treaty.wire.v1 import reach_pb2, session_pb2, transfer_pb2

KIB: Final = 1024


@dataclass(frozen=True, slots=True)
class Rule:
    cap_bytes: int
    needs_receipt: bool = False


TABLE: Final[Mapping[str, Rule]] = MappingProxyType(
    {
        "hello": Rule(512 * KIB),
        "acknowledgement": Rule(4 * KIB),
        "status": Rule(64 * KIB),
        "heartbeat": Rule(128),
        "answer": Rule(8 * KIB),
        "submission": Rule(256 * KIB),
        "progress": Rule(256),
        "proof-request": Rule(128),
        "round-refusal": Rule(4 * KIB),
        ROUND_RESULT: Rule(64 * KIB, needs_receipt=True),
        "fetch": Rule(8 * KIB),
        UPDATE_OPENING: Rule(1280 * KIB, needs_receipt=True),
        UPDATE_CHUNK: Rule(4096 * KIB + 16),
        "greet": Rule(0),
        "fetch-charter": Rule(0),
        "diagnose": Rule(9 * KIB),
    }
)

Leaving: TypeAlias = (
    session_pb2.AgentMessage
    | transfer_pb2.FetchRequest
    | transfer_pb2.UpdateFrame
    | reach_pb2.GreetRequest
    | reach_pb2.FetchCharterRequest
    | reach_pb2.DiagnoseRequest
)


@dataclass(frozen=True, slots=True)
class Cleared:
    """A message that the table lets out: its class and its exact bytes."""

    name: str
    data: bytes
    receipt: bytes
    """The receipt that must be in the journal before `data` leaves; empty where the class needs none."""


def clear(message: Leaving) -> Cleared:
    """Find the message's class and hold it to its rule.

    Raises: PolicyDenied: not listed (code BORDER_UNLISTED) or without its receipt (RECEIPT_MISSING).
    LimitExceeded: larger than its class allows.
    """
    name = _class_of(message)
    rule = TABLE.get(name)
    if rule is None:
        raise PolicyDenied("this message is not in the border's table", codes=["BORDER_UNLISTED"])
    data = message.SerializeToString()
    if len(data) > rule.cap_bytes:
        raise LimitExceeded(f"a message of class {name} has {len(data)} bytes, more than {rule.cap_bytes}")
    if _has_unknown_fields(message):
        raise PolicyDenied(f"a message of class {name} has fields nobody knows", codes=["BORDER_UNLISTED"])
    receipt = _receipt(message) if rule.needs_receipt else b""
    if rule.needs_receipt and not receipt:
        raise PolicyDenied(f"a message of class {name} carries no receipt", codes=["RECEIPT_MISSING"])
    return Cleared(name, data, receipt)


def _class_of(message: Leaving) -> str:
    match message:
        case session_pb2.AgentMessage():
            body = message.WhichOneof("body") or ""
            if body == "round_result":
                return ROUND_RESULT if message.round_result.metrics else "round-refusal"
            return "proof-request" if body == "proof_request" else body
        case transfer_pb2.UpdateFrame():
            return f"update-{message.WhichOneof('body')}"
        case transfer_pb2.FetchRequest():
            return "fetch"
        case reach_pb2.GreetRequest():
            return "greet"
        case reach_pb2.FetchCharterRequest():
            return "fetch-charter"
        case reach_pb2.DiagnoseRequest():
            return "diagnose"
    return ""  # type: ignore[unreachable]  # a caller without types


def _receipt(message: Leaving) -> bytes:
    if isinstance(message, session_pb2.AgentMessage):
        return message.round_result.receipt
    if isinstance(message, transfer_pb2.UpdateFrame):
        return message.opening.receipt
    return b""


def _has_unknown_fields(message: Message) -> bool:
    """A field that the schema does not name survives parsing and would be sent on: a channel nobody declared."""
    bare = type(message)()
    bare.CopyFrom(message)
    bare.DiscardUnknownFields()  # type: ignore[attr-defined]  # missing in the stubs
    return bare.ByteSize() != message.ByteSize()
