"""The one stream to the coordinator: dial out, say what we have, listen, dial again.

Rules:
1. the agent dials; it opens no port. It never gives up: pauses grow with jitter up to the admin's bound, and a
   connection that held resets them, so an outage of any length ends without a person;
2. a stream begins with hello and welcome, with our nonce in it, within a deadline; directives count only after that;
3. at half of a certificate's life a new stream is opened with the next one, and the old one goes when the handshake
   has held;
4. what cannot be read is answered by code; a message that the border does not let out is dropped and logged, and the
   stream goes on;
5. before every connect this nation's own policies are asked whether the agent may (`node_agent.enrolment`);
6. when the handshake is refused, which says nothing, Reach is asked why, and the answer is shown to the admin.

What anything means is decided in `node_agent.state`; here messages become events and queued messages leave.
"""

from __future__ import annotations

import asyncio
import random
import secrets
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Final, TypeVar

import structlog

from node_agent import events, messages
from node_agent.border import GrpcBorder
from node_agent.connections import Connections, SessionStream
from node_agent.directives import parse_directive, parse_number, parse_question
from node_agent.events import Event
from node_agent.identity import NationIdentity
from node_agent.inclusion import LOOK_SECONDS, InclusionWatch
from node_agent.log_thread import LogThread
from node_agent.logwatch import LogWatch
from node_agent.outbox import Outbox
from node_agent.ports import Clock
from treaty import names
from treaty.errors import FoedusError, InvalidInput, LimitExceeded, PolicyDenied, TrustError, Unavailable
from treaty.names import DirectiveNumber
from treaty.wire.v1 import session_pb2, types_pb2

log = structlog.get_logger(__name__)

WELCOME_SECONDS: Final = 10.0
FIRST_PAUSE_SECONDS: Final = 0.1
MAX_QUEUED: Final = 256

T = TypeVar("T")
Emit = Callable[[Event], Awaitable[None]]
Explain = Callable[[FoedusError], Awaitable[None]]
"""Finds out and notes why the coordinator refused us. Never raises."""


@dataclass(frozen=True, slots=True)
class SessionParts:
    """What a session is built from."""

    connections: Connections
    border: GrpcBorder
    outbox: Outbox
    nation: NationIdentity
    logwatch: LogWatch
    inclusion: InclusionWatch
    clock: Clock
    hello: Callable[[bytes], session_pb2.AgentMessage]
    """Says what we have, with this nonce."""
    emit: Emit
    explain: Explain
    enrol: Callable[[], Awaitable[None]]
    """Asks whether this agent may connect. Raises PolicyDenied: it may not."""
    pause_max_seconds: float


class Ended(StrEnum):
    """Why a conversation was over without an error."""

    OVER = "over"
    RENEW = "renew"


class Session:
    """Dials until cancelled. `say` queues a control message for the live stream; without one it is dropped."""

    def __init__(self, parts: SessionParts) -> None:
        self._parts = parts
        self._queue: asyncio.Queue[session_pb2.AgentMessage] = asyncio.Queue(MAX_QUEUED)
        self._stream: SessionStream | None = None
        self._sent: set[str] = set()
        self._hung_up = asyncio.Event()
        self._log_thread = LogThread()
        self._is_behind = False

    def say(self, message: session_pb2.AgentMessage) -> None:
        if self._stream is None:
            return
        try:
            self._queue.put_nowait(message)
        except asyncio.QueueFull:
            log.warning("the coordinator does not take what is said, hanging up")
            self._hung_up.set()

    def hang_up(self) -> None:
        """End the stream; the next is dialled after a pause."""
        self._hung_up.set()

    async def run(self) -> None:
        """Dial, converse, dial again (rules 1 and 3). Runs until cancelled."""
        pause = FIRST_PAUSE_SECONDS
        async with aclosing(self._log_thread), AsyncExitStack() as live:
            while True:
                failure: FoedusError | None = None
                try:
                    await self._open(live)
                    pause = FIRST_PAUSE_SECONDS
                    if await self._converse() is Ended.RENEW:
                        continue
                except FoedusError as err:
                    log.debug("no stream to the coordinator", code=err.code)
                    failure = err
                except Exception:  # the boundary of one stream: whatever was said on it, the agent dials again
                    log.exception("the stream ended by a fault of this program")
                    failure = Unavailable("the stream to the coordinator ended by a fault of this program")
                await live.aclose()
                self._stream = None
                await self._parts.emit(events.Disconnected())
                if failure is not None:
                    await self._parts.explain(failure)
                await asyncio.sleep(random.uniform(pause / 2, pause))  # noqa: S311  jitter, not a secret
                pause = min(2 * pause, self._parts.pause_max_seconds)

    async def _open(self, live: AsyncExitStack) -> None:
        """Shake hands and greet on a new stream, and only then let go of the one in `live`, to which nobody listens."""
        await self._parts.enrol()
        async with AsyncExitStack() as fresh:
            stream = await fresh.enter_async_context(self._parts.connections.session())
            welcome = await self._greet(stream)
            # At once, for what the outbox holds leaves before the state has read the welcome.
            self._parts.border.hold_back(is_behind=welcome.is_behind)
            await live.aclose()
            self._queue = asyncio.Queue(MAX_QUEUED)
            self._sent.clear()
            self._hung_up.clear()
            self._stream = stream
            live.push_async_callback(fresh.pop_all().aclose)
        await self._parts.emit(welcome)

    async def _greet(self, stream: SessionStream) -> events.Connected:
        nonce = secrets.token_bytes(32)
        await stream.send(self._parts.hello(nonce))
        try:
            async with asyncio.timeout(WELCOME_SECONDS):
                first = await stream.receive()
        except TimeoutError as err:
            raise Unavailable("the coordinator did not answer the hello in time") from err
        if first is None or first.WhichOneof("body") != "welcome" or first.welcome.nonce != nonce:
            raise TrustError("the coordinator's first message does not welcome this hello", code="NO_WELCOME")
        welcome = first.welcome
        if not messages.PROTOCOL_MIN <= welcome.protocol <= messages.PROTOCOL_MAX:
            raise InvalidInput(f"the coordinator speaks protocol {welcome.protocol}", code="PROTOCOL_UNSUPPORTED")
        await self._observe(welcome.checkpoint, is_behind=welcome.is_behind)
        is_silent = not welcome.checkpoint.note and self._parts.logwatch.last() is not None
        self._is_behind = welcome.is_behind or is_silent
        if self._is_behind:
            log.warning("the coordinator is behind: nothing leaves", is_said=welcome.is_behind, is_shown=not is_silent)
        log.info("connected", epoch=welcome.epoch, protocol=welcome.protocol)
        return events.Connected(
            epoch=DirectiveNumber(welcome.epoch, 0).epoch,  # bounded as directives' epochs are
            charter_digest=names.digest(welcome.charter_digest),
            heartbeat=timedelta(seconds=min(max(welcome.heartbeat_seconds, 1), 60)),
            is_behind=self._is_behind,
        )

    async def _converse(self) -> Ended:
        """Listen and speak until the coordinator ends, we hang up, or the certificate is half through."""
        stream = self._stream
        if stream is None:
            return Ended.OVER
        left = (self._parts.nation.leaf().renew_at - self._parts.clock.now()).total_seconds()
        try:
            async with asyncio.TaskGroup() as tasks:
                renewal = tasks.create_task(asyncio.sleep(max(left, 0)), name="renewal")
                watched = [renewal, tasks.create_task(self._hung_up.wait(), name="hang-up")]
                watched.append(tasks.create_task(self._listen(stream), name="listen"))
                working = [tasks.create_task(each) for each in (self._speak(stream), self._post(), self._prove())]
                await asyncio.wait([*watched, *working], return_when=asyncio.FIRST_COMPLETED)
                for task in (*watched, *working):
                    task.cancel()
        except ExceptionGroup as group:
            raise first_error(group) from group
        return Ended.RENEW if not renewal.cancelled() else Ended.OVER

    async def _speak(self, stream: SessionStream) -> None:
        while True:
            message = await self._queue.get()
            try:
                self._parts.border.let(message)
                await stream.send(message)
            except (PolicyDenied, LimitExceeded) as err:
                log.exception("message kept at home", kind=message.WhichOneof("body"), code=err.code)

    async def _post(self) -> None:
        """Send what the outbox holds, each once per stream, whenever it grows."""
        border = self._parts.border
        while True:
            border.outbox_grew.clear()
            for waiting in await asyncio.to_thread(self._parts.outbox.waiting):
                if waiting.digest not in self._sent:
                    self._sent.add(waiting.digest)
                    await self._queue.put(waiting.message)
            await border.outbox_grew.wait()

    async def _prove(self) -> None:
        """Ask for the proof of what was said to be recorded, as long as the stream lasts."""
        watch = self._parts.inclusion
        await self._hold_to(watch.begin)
        while True:
            if not self._is_behind:
                for message in await self._hold_to(watch.look) or ():
                    await self._queue.put(message)
                if watch.is_stalled:
                    log.warning("the log does not reach what was said to be recorded: nothing leaves until it does")
                self._parts.border.hold_back(is_behind=watch.is_stalled)
            await asyncio.sleep(LOOK_SECONDS)

    async def _hold_to(self, check: Callable[[], T]) -> T | None:
        """What `check` finds, on the log's thread; nothing where the log contradicts itself, which is said."""
        try:
            return await self._log_thread.run(check)
        except TrustError as err:
            log.exception("the coordinator's log contradicts itself", code=err.code)
            await self._parts.emit(events.LogContradicted())
            return None

    async def _listen(self, stream: SessionStream) -> None:
        while (message := await stream.receive()) is not None:
            await self._hear(message)

    async def _hear(self, message: session_pb2.CoordinatorMessage) -> None:
        match message.WhichOneof("body"):
            case "directive":
                await self._parts.emit(_directive_event(message.directive))
            case "question":
                await self._parts.emit(events.QuestionReceived(parse_question(message.question)))
            case "report_request":
                await self._parts.emit(events.FullReportAsked())
            case "recorded":
                recorded = message.recorded
                code = recorded.refusal.code if recorded.HasField("refusal") else ""
                digest = names.digest(recorded.statement_digest)
                standing = {"salt": recorded.salt, "shown": recorded.envelope}
                await self._parts.border.recorded(digest, recorded.log_index, code, **standing)
            case "inclusion":
                await self._hold_to(lambda: self._parts.inclusion.hear(message.inclusion))
            case "heartbeat":
                await self._observe(message.heartbeat.checkpoint, is_behind=self._is_behind)
            case "refusal":
                log.warning("the coordinator refused a message", code=messages.codes_only([message.refusal.code])[0])
            case "welcome":
                raise TrustError("the coordinator welcomed twice", code="NO_WELCOME")
            case None:
                log.info("a message of the coordinator says nothing that this version knows")
        await self._parts.emit(events.Heard())

    async def _observe(self, checkpoint: types_pb2.Checkpoint, *, is_behind: bool) -> None:
        if not checkpoint.note or self._parts.logwatch.alarm:
            return
        await self._hold_to(lambda: self._parts.logwatch.observe(checkpoint, is_behind=is_behind))


def _directive_event(message: session_pb2.Directive) -> Event:
    try:
        return events.DirectiveReceived(parse_directive(message))
    except InvalidInput as err:
        log.warning("directive cannot be read", code=err.code, exc_info=err)
        return events.DirectiveUnreadable(parse_number(message.number), err.code)


def first_error(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The first of ours in a task group's failure; what is not ours goes before, for it is a bug."""
    flat = [first_error(error) if isinstance(error, BaseExceptionGroup) else error for error in group.exceptions]
    foreign = [error for error in flat if not isinstance(error, FoedusError)]
    return (foreign or flat)[0]
