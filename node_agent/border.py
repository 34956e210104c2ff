"""The only way out of the country: under which conditions something may be sent at all.

Rules:
1. what may leave, and how much of it, is the table in `node_agent.outbound`; every message passes `Customs`, which
   counts it before it goes; connections are opened by `node_agent.connections`, for this module;
2. an update leaves only with an allow from both policies for `egress.update`, the brake off, and a receipt that is
   signed by this agent and on disk before the first byte; an evaluation's result likewise, under `dataset.use`;
3. the brake cuts an update that is on its way; an update never carries more bytes than its receipt says;
4. once the coordinator's log contradicted itself, neither leaves any more (`halt`), until a person looks; while the
   coordinator is behind, or shows no log at all to an agent that followed one, both wait (`hold_back`);
5. statements, results and refusals go through the outbox: written first, sent until confirmed; what is confirmed, an
   update as well, is to be proved afterwards (`node_agent.inclusion`).

Codes: BRAKE_ON, NO_PERMIT, RECEIPT_MISMATCH, RECEIPT_MISSING, LOG_INCONSISTENT, COORDINATOR_BEHIND, BORDER_UNLISTED.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Final

import structlog

from node_agent import messages, outbound
from node_agent.connections import Connections, UpdateStream
from node_agent.directives import number_message
from node_agent.fetch import FetchCall
from node_agent.inclusion import recorded_leaf
from node_agent.journal import SqliteJournal
from node_agent.outbox import ROUNDS
from node_agent.ports import Brake, Nation, Permit, UpdateAccepted, UpdateOpening
from treaty import statement
from treaty.errors import FoedusError, InvalidInput, PolicyDenied, ResourceExhausted, TrustError, Unavailable
from treaty.names import Digest, DirectiveNumber, RunId, digest_of
from treaty.receipt import Crossing, Receipt, parse_receipt, sign_receipt
from treaty.strict_json import MAX_INTEGER
from treaty.wire.v1 import session_pb2, transfer_pb2

log = structlog.get_logger(__name__)

EGRESS: Final = "egress.update"
DATASET_USE: Final = "dataset.use"
BRAKE_ON: Final = "BRAKE_ON"
BEHIND: Final = "COORDINATOR_BEHIND"


class GrpcBorder:
    """`ports.Border`. `outbox_grew` is set whenever the outbox has something new for the session to send."""

    def __init__(self, connections: Connections, journal: SqliteJournal, nation: Nation, brake: Brake) -> None:
        self._connections = connections
        self._journal = journal
        self._nation = nation
        self._brake = brake
        self._halted = ""
        self._is_held_back = False
        self._live: set[UpdateStream] = set()
        self._confirmations = asyncio.Condition()
        self.outbox_grew = asyncio.Event()

    def halt(self, code: str) -> None:
        """Let nothing out that needs a receipt; `code` says why. Only a new start lifts it."""
        self._halted = code

    def hold_back(self, *, is_behind: bool) -> None:
        """Whether the coordinator is behind: then what needs a receipt waits, and what is on its way is ended."""
        self._is_held_back = is_behind
        if is_behind:
            self.cut()

    def let(self, message: session_pb2.AgentMessage) -> None:
        """What the outbox kept may have been written before the brake was pulled: look again when it is to leave.

        Raises: PolicyDenied: it needs a receipt, and nothing that does leaves now; or the table does not let it out.
        LimitExceeded.
        """
        if outbound.clear(message).receipt and (stopped := self._stopped()):
            raise PolicyDenied("what needs a receipt does not leave now", codes=_codes(stopped))

    def cut(self) -> None:
        """The brake was pulled: end every update that is on its way."""
        for stream in tuple(self._live):
            stream.cut()

    # what needs a receipt -----------------------------------------------------------------------------------------

    async def send_update(
        self,
        opening: UpdateOpening,
        receipt: Receipt,
        permit: Permit,
        chunks: Iterable[bytes] | AsyncIterator[bytes],
    ) -> UpdateAccepted:
        self._check(receipt, permit, EGRESS, digest_of(opening.header))
        envelope, _ = await asyncio.to_thread(self._journal_receipt, receipt)
        frame = transfer_pb2.UpdateFrame(
            opening=transfer_pb2.UpdateOpening(
                run=opening.run,
                round=opening.round,
                number=number_message(opening.number),
                header=opening.header,
                receipt=envelope,
                metrics=opening.metrics,
            )
        )
        async with self._connections.update(opening.trace_id) as stream, self._cut_by_brake(stream):
            answer = await self._send(stream, frame, chunks, receipt.size_bytes)
        if answer.update_digest != receipt.digest:
            raise Unavailable("the coordinator confirmed another update than the one it was sent")
        accepted = UpdateAccepted(receipt.digest, _log_index(answer.log_index), answer.was_known)
        statement_digest, leaf = self._leaf(envelope, answer.salt, answer.receipt)
        if answer.receipt and parse_receipt(statement.unverified(answer.receipt)).digest != receipt.digest:
            raise TrustError("the coordinator shows a receipt of another update", code="RECEIPT_MISMATCH")
        self._journal.owed.add(statement_digest, accepted.log_index, leaf)
        self._journal.crossings.recorded(statement_digest, accepted.log_index)
        return accepted

    async def send_result(
        self,
        run: RunId,
        round_number: int,
        number: DirectiveNumber,
        metrics: bytes,
        receipt: Receipt,
        permit: Permit,
    ) -> int:
        self._check(receipt, permit, DATASET_USE, digest_of(metrics))
        envelope, statement_digest = await asyncio.to_thread(self._journal_receipt, receipt)
        result = session_pb2.RoundResult(
            run=run, round=round_number, number=number_message(number), metrics=metrics, receipt=envelope
        )
        # Nothing answers a result by itself: its receipt is submitted beside it and answered by its place in the log.
        submission = session_pb2.AgentMessage(submission=session_pb2.Submission(envelope=envelope))
        result_key = digest_of(f"{run}/{round_number}/{number}".encode())
        self._journal.outbox.put(result_key, moved_on(run), session_pb2.AgentMessage(round_result=result))
        log_index = await self._confirmed(statement_digest, "record", submission)
        self._journal.crossings.recorded(statement_digest, log_index)
        return log_index

    def _check(self, receipt: Receipt, permit: Permit, point: str, content: Digest) -> None:
        if stopped := self._stopped():
            raise stopped
        if permit.point != point or not permit.is_allowed:
            raise PolicyDenied(f"no decision of {point} lets this leave", codes=["NO_PERMIT"])
        expected = (
            receipt.digest == content,
            receipt.crossing is (Crossing.UPDATE if point == EGRESS else Crossing.EVALUATION),
            (receipt.nation, receipt.agent) == (self._nation.code, self._nation.agent_id.name),
            (receipt.decision_digest, receipt.ask_digest) == (permit.decision_digest, permit.ask_digest),
        )
        if not all(expected):
            raise PolicyDenied("the receipt does not say what is about to leave", codes=["RECEIPT_MISMATCH"])

    def _stopped(self) -> FoedusError | None:
        """Why nothing that needs a receipt may leave now."""
        if self._halted:
            return PolicyDenied("the coordinator's log contradicted itself: nothing leaves", codes=[self._halted])
        if self._brake.is_on:
            return PolicyDenied("the brake is on: nothing leaves", codes=[BRAKE_ON])
        if self._is_held_back:
            return Unavailable("the coordinator is behind: nothing leaves until it has recovered", code=BEHIND)
        return None

    def _journal_receipt(self, receipt: Receipt) -> tuple[bytes, Digest]:
        """Sign and keep `receipt`; on disk when this returns.

        The same transfer, to the same party and on the same ask, keeps the receipt that it had.
        """
        transfer = (receipt.digest, receipt.crossing, receipt.run, receipt.round)
        for known in self._journal.crossings.receipts_for(*transfer):
            said = parse_receipt(statement.unverified(known.envelope))
            if (said.destination, said.ask_digest) == (receipt.destination, receipt.ask_digest):
                return known.envelope, known.digest
        envelope = sign_receipt(receipt, self._nation.key)
        statement_digest = digest_of(receipt.statement().payload())
        self._journal.crossings.write_receipt(statement_digest, receipt, envelope)
        return envelope, statement_digest

    async def _send(
        self,
        stream: UpdateStream,
        opening: transfer_pb2.UpdateFrame,
        chunks: Iterable[bytes] | AsyncIterator[bytes],
        size_bytes: int,
    ) -> transfer_pb2.UpdateAccepted:
        await stream.send(opening)
        left = size_bytes
        async for chunk in _each(chunks):
            left -= len(chunk)
            if left < 0:
                raise PolicyDenied("the update is larger than its receipt says", codes=["RECEIPT_MISMATCH"])
            await stream.send(transfer_pb2.UpdateFrame(chunk=chunk))
        return await stream.accepted()

    @asynccontextmanager
    async def _cut_by_brake(self, stream: UpdateStream) -> AsyncIterator[None]:
        self._live.add(stream)
        try:
            if stopped := self._stopped():  # it may have come while the receipt was written or the line opened
                raise stopped
            yield
        except (asyncio.CancelledError, Unavailable):
            task = asyncio.current_task()
            if stream.is_cut and not (task and task.cancelling()):
                cut = PolicyDenied("the brake was pulled: the update was cut", codes=[BRAKE_ON])
                raise (self._stopped() or cut) from None
            raise
        finally:
            self._live.discard(stream)

    # what goes through the outbox ---------------------------------------------------------------------------------

    def refuse_round(self, run: RunId, round_number: int, number: DirectiveNumber, codes: Sequence[str]) -> None:
        result = session_pb2.RoundResult(
            run=run, round=round_number, number=number_message(number), refusal=messages.refusal(codes)
        )
        told_apart_by = digest_of(f"{run}/{round_number}/{number}/refusal".encode())
        message = session_pb2.AgentMessage(round_result=result)
        self._journal.outbox.drop(moved_on(run))  # a result that waits must not leave after its refusal
        self._journal.outbox.put(told_apart_by, moved_on(run), message)
        self.outbox_grew.set()

    async def submit(self, envelope: bytes) -> int:
        statement_digest = digest_of(statement.unverified(envelope).payload())
        message = session_pb2.AgentMessage(submission=session_pb2.Submission(envelope=envelope))
        return await self._confirmed(statement_digest, "record", message)

    def submit_later(self, envelope: bytes) -> None:
        """As `submit`, without waiting: the outbox sees to it. Where it has no room, the statement stays at home."""
        statement_digest = digest_of(statement.unverified(envelope).payload())
        message = session_pb2.AgentMessage(submission=session_pb2.Submission(envelope=envelope))
        try:
            self._journal.outbox.put(statement_digest, "record", message)
        except ResourceExhausted as err:
            log.exception("statement not handed in", code=err.code)
        self.outbox_grew.set()

    async def _confirmed(self, digest: Digest, subject: str, message: session_pb2.AgentMessage) -> int:
        await asyncio.to_thread(self._journal.outbox.put, digest, subject, message)
        self.outbox_grew.set()
        async with self._confirmations:
            while (answer := self._journal.outbox.confirmed(digest)) is None:
                await self._confirmations.wait()
        if answer.refusal:
            raise FoedusError("the coordinator did not record this statement", code=answer.refusal)
        return answer.log_index

    async def recorded(
        self, digest: Digest, log_index: int, refusal: str, *, salt: bytes = b"", shown: bytes = b""
    ) -> None:
        """The coordinator's word on one statement arrived; it owes the proof from now on (`node_agent.inclusion`).

        Raises: InvalidInput: an index that no log has, or no leaf. TrustError: it shows somebody else's statement.
        """
        index, code = _log_index(log_index), messages.codes_only([refusal])[0] if refusal else ""
        if not code:
            handed_in = self._journal.outbox.submission(digest)
            if handed_in is None:
                return  # nobody waits for it
            standing, leaf = self._leaf(handed_in, salt, shown)
            if standing != digest:
                raise TrustError("the coordinator shows another statement than it says it recorded", code="NOT_IT")
            await asyncio.to_thread(self._journal.owed.add, digest, index, leaf)
        await asyncio.to_thread(self._journal.outbox.confirm, digest, index, code)
        async with self._confirmations:
            self._confirmations.notify_all()

    def _leaf(self, handed_in: bytes, salt: bytes, shown: bytes) -> tuple[Digest, bytes]:
        return recorded_leaf(handed_in, salt, shown, self._nation)

    def fetch_calls(self) -> Sequence[FetchCall]:
        return self._connections.fetch_calls()


def moved_on(run: RunId) -> str:
    """Outbox subject of what need not be said once the run has moved on."""
    return f"{ROUNDS}{run}"


def _log_index(index: int) -> int:
    if not 0 <= index <= MAX_INTEGER:
        raise InvalidInput("the coordinator named an index that no log has")
    return index


def _codes(error: FoedusError) -> tuple[str, ...]:
    return error.codes if isinstance(error, PolicyDenied) else (error.code,)


async def _each(chunks: Iterable[bytes] | AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    if isinstance(chunks, AsyncIterator):
        async for chunk in chunks:
            yield chunk
    else:
        for chunk in chunks:
            yield chunk
