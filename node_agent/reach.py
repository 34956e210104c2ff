"""What an agent can find out before mutual TLS lets it speak: the clock, the charter, and why it is refused.

Reach is believed for nothing: the charter is held against the pinned digest, the clock is only shown, and a diagnosis
is a hint for a person. A failed handshake says "cannot be reached" and nothing else, which is why it is asked at all.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TypeVar

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from google.protobuf.message import DecodeError, Message

from node_agent.connections import ReachLine
from treaty import names
from treaty.errors import FoedusError, IdentityRefused, InvalidInput, PolicyDenied, PreconditionFailed
from treaty.names import AgentId, Digest
from treaty.wire.certificates import Issued
from treaty.wire.v1 import reach_pb2

M = TypeVar("M", bound=Message)

PROOF_PREFIX = b"foedus reach v1\n"
ACCEPTED = "ACCEPTED"
MAX_SKEW = timedelta(minutes=5)
"""A leaf is dated two hours back; five minutes is when a person should hear of it."""


@dataclass(frozen=True, slots=True)
class Greeting:
    server_time: datetime
    charter_digest: Digest
    nonce: bytes


async def greet(line: ReachLine) -> Greeting:
    answer = _parsed(reach_pb2.GreetResponse, await line.call("Greet", reach_pb2.GreetRequest()))
    if len(answer.nonce) > 64:
        raise InvalidInput("Reach's nonce has more than 64 bytes")
    try:
        moment = answer.server_time.ToDatetime(tzinfo=UTC)
    except (ValueError, OverflowError) as err:
        raise InvalidInput("Reach's clock shows a time that no clock shows") from err
    return Greeting(moment, names.digest(answer.charter_digest), answer.nonce)


async def fetch_charter(line: ReachLine) -> list[bytes]:
    """Every version of the charter as signed, oldest first. Nothing is believed yet."""
    answer = await line.call("FetchCharter", reach_pb2.FetchCharterRequest())
    return list(_parsed(reach_pb2.FetchCharterResponse, answer).envelopes)


async def diagnose(line: ReachLine, leaf: Issued) -> str:
    """The code by which mutual TLS would refuse `leaf`, or ACCEPTED."""
    greeting = await greet(line)
    signature = leaf.key.sign(PROOF_PREFIX + greeting.nonce, ec.ECDSA(hashes.SHA256()))
    request = reach_pb2.DiagnoseRequest(
        certificate=leaf.certificate.public_bytes(serialization.Encoding.DER),
        nonce=greeting.nonce,
        signature=signature,
    )
    code = _parsed(reach_pb2.DiagnoseResponse, await line.call("Diagnose", request)).code
    return code if code.isascii() and code.isprintable() and len(code) <= 64 else "UNKNOWN"


def skew(greeting: Greeting, now: datetime) -> timedelta:
    """How far the coordinator's clock is ahead of ours."""
    return greeting.server_time - now


def refusal(code: str, agent: AgentId) -> FoedusError:
    """What a diagnosis means, in one line, with the next step."""
    text, remedy = _MEANING.get(
        code, (f"the coordinator refuses this agent ({code})", "ask the coordinator's operator")
    )
    if code == PolicyDenied.code:
        return PolicyDenied(text.format(agent=agent), remedy=remedy)
    kind = PreconditionFailed if code == "NOT_ACCEPTED" else IdentityRefused
    return kind(text.format(agent=agent), remedy=remedy.format(agent=agent), code=code)


def explained(error: FoedusError, agent: AgentId) -> FoedusError:
    """`error` in our words where the coordinator itself said why it refuses this agent."""
    if isinstance(error, PolicyDenied) and error.codes:
        return error  # its codes say more
    return refusal(error.code, agent) if error.code in _MEANING else error


_MEANING = {
    "NOT_ACCEPTED": ("an operator must accept {agent}", "the operator runs: foedus agent accept {agent}"),
    "POLICY_DENIED": (
        "the treaty's policy does not let {agent} connect",
        "ask the coordinator's operator for the condition EnrolmentDecided of this agent",
    ),
    "REVOKED": ("{agent}, or this nation's CA, was revoked", "ask the coordinator's operator, or your founders"),
    "NOT_YET_VALID": ("the coordinator's clock is behind this agent's certificate", "set both clocks by NTP"),
    "EXPIRED": ("for the coordinator this agent's certificate has expired", "set both clocks by NTP"),
    "FOREIGN_CA": (
        "the charter names another CA for this nation than the one in this home",
        "have the founders put this agent's descriptor into the charter",
    ),
    "NOT_A_PARTY": ("this nation is not in the coordinator's charter", "send descriptor.json to the founders"),
    "MALFORMED_ID": ("the certificate's name is not of this treaty", "run 'foedus-agent init' with the right --domain"),
    "BAD_PROOF": ("the coordinator did not believe the proof of the certificate's key", "try again"),
}


def _parsed(kind: type[M], data: bytes) -> M:
    try:
        return kind.FromString(data)
    except DecodeError as err:
        raise InvalidInput("Reach's answer is malformed") from err
