"""What an agent's messages do, one at a time in their order: its own flow control is our back-pressure.

Rules:
1. a status is taken if its sequence is the next one; an older one is dropped, and a gap asks for a full report;
2. a directive's answer is journaled before any service hears of it;
3. a submission is answered by its digest, recorded with its leaf's salt or refused by code; a refused one does not end
   the stream; one that was recorded and could not be acted on now does, unanswered, so that the agent hands it in
   again; a request for a proof is answered likewise;
4. what cannot be read at all ends the stream.
"""

from __future__ import annotations

from dataclasses import dataclass

import structlog

from controlplane.api import messages_in
from controlplane.services.connections import Connection, Connections, Recorded, ReportRequest
from controlplane.services.enrolment import Enrolment
from controlplane.services.fleet import AgentFleet
from controlplane.services.nations import Nations
from controlplane.services.ports import Clock, Listener
from controlplane.services.proofs import Proofs
from controlplane.services.record import COORDINATOR_BEHIND, FORGOTTEN, StatementRecord, statement_digest
from controlplane.services.submissions import Submissions, check_size
from controlplane.services.trust import Trust
from controlplane.store import Store
from treaty.errors import FoedusError, InvalidInput
from treaty.wire.v1 import session_pb2

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class SessionParts:
    """What a stream works with."""

    store: Store
    trust: Trust
    nations: Nations
    fleet: AgentFleet
    connections: Connections
    record: StatementRecord
    submissions: Submissions
    proofs: Proofs
    enrolment: Enrolment
    listener: Listener
    clock: Clock


class Inbox:
    """The listening half of one stream."""

    def __init__(self, parts: SessionParts, connection: Connection, first_sequence: int) -> None:
        self._parts = parts
        self._connection = connection
        self._agent = connection.agent
        self._next_sequence = first_sequence
        self._is_complete = False

    async def take(self, message: session_pb2.AgentMessage) -> None:
        """Handle one message. Raises: InvalidInput: it cannot be read, or may not come now."""
        match message.WhichOneof("body"):
            case "heartbeat":
                return  # that it came is all it says; the lease was renewed by reading it
            case "status":
                await self._status(message.status)
            case "acknowledgement":
                await self._acknowledgement(message.acknowledgement)
            case "answer":
                answer = messages_in.answer(message.answer)
                self._connection.answered(message.answer.question_id, answer)
            case "submission":
                await self._submission(message.submission.envelope)
            case "progress":
                await self._parts.listener.progress(self._agent, messages_in.progress(message.progress))
            case "round_result":
                await self._parts.listener.round_result(self._agent, messages_in.round_report(message.round_result))
            case "proof_request":
                digest, log_size = messages_in.proof_request(message.proof_request)
                self._connection.say(await self._parts.proofs.prove(self._agent, digest, log_size))
            case "hello":
                raise InvalidInput("a session has one hello", code="SECOND_HELLO")
            case None:
                raise InvalidInput(
                    "a message of this session says nothing that this version knows", code="UNKNOWN_MESSAGE"
                )

    async def _status(self, message: session_pb2.Status) -> None:
        status = messages_in.status(message)
        if status.sequence < self._next_sequence:
            return  # 1: something newer is known
        is_gap = status.sequence > self._next_sequence
        self._next_sequence = status.sequence + 1
        if status.is_full:
            self._is_complete = True
        elif is_gap or not self._is_complete:
            self._is_complete = False
            self._connection.say(ReportRequest())
        self._connection.status = status
        self._parts.fleet.note_status(self._agent, status)
        await self._parts.nations.reported(self._agent, status)
        await self._parts.listener.status(self._agent, status)

    async def _acknowledgement(self, message: session_pb2.Acknowledgement) -> None:
        number = messages_in.number(message.number)
        codes = messages_in.codes(message.refusal) if message.HasField("refusal") else ()
        await self._parts.fleet.acknowledged(self._agent, number, codes)  # 2
        await self._parts.listener.acknowledged(self._agent, number, codes)

    async def _submission(self, envelope: bytes) -> None:
        check_size(envelope)  # 4: before a byte of it is parsed
        digest = statement_digest(envelope)  # 4: without a digest there is nothing to answer by
        try:
            _, index = await self._parts.submissions.submit(self._agent, envelope)
        except FoedusError as err:
            log.warning(
                "submission refused", agent=str(self._agent), statement=digest, code=err.code, reason=err.message
            )
            if err.code != COORDINATOR_BEHIND:  # no answer then: it is handed in again on the next stream
                self._connection.say(Recorded(digest, codes=(err.code,)))
            return
        await self._parts.listener.submitted(self._agent, envelope, digest, index)
        leaf = await self._parts.record.leaf(index)
        if leaf.salt is None or leaf.statement is None:
            self._connection.say(Recorded(digest, codes=(FORGOTTEN,)))
            return
        other = b"" if leaf.statement == envelope else leaf.statement
        self._connection.say(Recorded(digest, index, salt=leaf.salt, envelope=other))
