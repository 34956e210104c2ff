"""The Session: one bidirectional stream per agent, from its hello to its end.

Order of a stream: hello, checked and compared with what we know; welcome with the nonce echoed and the log's newest
checkpoint proved from the agent's own; then the directives that it lacks; then both sides speak as they need to.

Rules:
1. the first message is a hello, within its deadline, and a hello comes once;
2. an agent is silent for at most one lease; a stream that says nothing is ended, one that says too much is read late;
3. a peer that does not take what is written to it is ended, too;
4. an end has a code, and what was being asked when it came did not happen.

What the agent's messages mean is in `inbox`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final, NoReturn, TypeAlias

import grpc
import structlog

from controlplane.api import messages_in, messages_out
from controlplane.api.calls import Call, current_call
from controlplane.api.inbox import Inbox, SessionParts
from controlplane.api.metrics import CONNECTED
from controlplane.api.pace import Pace
from controlplane.domain.directives import Directive
from controlplane.services.connections import Connection
from controlplane.services.fleet import AGENT_AHEAD
from controlplane.services.record import Head
from treaty.errors import Expired, FoedusError, InvalidInput, PreconditionFailed, Unavailable
from treaty.names import AgentId
from treaty.wire.limits import HEARTBEAT_SECONDS, LEASE_SECONDS
from treaty.wire.peer import peer_leaf
from treaty.wire.v1 import session_pb2, session_pb2_grpc

log = structlog.get_logger(__name__)

PROTOCOL: Final = 1
HELLO_SECONDS: Final = 10
WRITE_SECONDS: Final = 30

Context: TypeAlias = Any
"""gRPC's context of this method; its stub type does not know that messages may be read and written one by one."""


class SessionServicer(session_pb2_grpc.SessionServicer):
    """Serves every agent's stream."""

    def __init__(self, parts: SessionParts) -> None:
        self._parts = parts

    async def Connect(self, request_iterator: Any, context: Context) -> None:  # type: ignore[override]  # noqa: N802
        """The generated name. Runs until the agent leaves, is silent, or is cut."""
        call = current_call()
        agent = call.caller
        hello = messages_in.hello(await _first(context))
        if not hello.protocol_min <= PROTOCOL <= hello.protocol_max:
            raise PreconditionFailed(
                f"the agent speaks protocols {hello.protocol_min} to {hello.protocol_max}, this coordinator {PROTOCOL}",
                code="PROTOCOL_UNSUPPORTED",
            )
        leaf = peer_leaf({name: tuple(values) for name, values in context.auth_context().items()})
        shown = self._parts.enrolment.shown(agent, leaf, peer=context.peer(), version=hello.agent_version)
        await self._parts.enrolment.admit(agent, shown)
        # First of all: a coordinator that is behind must not add to its record what this agent brings.
        await self._parts.fleet.compare(agent, hello.position)
        await self._learn(agent, hello.delegations)
        # The agent lets go of its older stream once it is welcomed: by then this one must be the agent's.
        async with self._open(agent, call, hello) as connection:
            connection.log_size = await self._welcome(agent, hello, context)
            await self._parts.fleet.resend(connection, hello.position)
            await self._parts.listener.connected(agent)
            await self._converse(connection, hello, context)

    async def _learn(self, agent: AgentId, delegations: tuple[bytes, ...]) -> None:
        """Believe the nation's delegations; one that is not in force is passed over, a forged one ends the stream."""
        for envelope in delegations:
            try:
                self._parts.trust.learn_delegation(envelope, nation=agent.nation)
            except Expired as err:
                log.warning("delegation is not in force", agent=str(agent), reason=err.message)
                continue
            if not self._parts.record.is_frozen:
                await self._parts.record.append(envelope)  # what it signs must be verifiable from the record alone

    async def _welcome(self, agent: AgentId, hello: messages_in.Hello, context: Context) -> int:
        """Greet; the size of the log that the agent stands at afterwards, where the next proof starts."""
        epoch = await self._parts.store.epochs.current()
        head = self._head(hello.position.log_size)
        message = session_pb2.Welcome(
            nonce=hello.nonce,
            protocol=PROTOCOL,
            epoch=epoch.number,
            charter_digest=self._parts.trust.charter.digest,
            heartbeat_seconds=HEARTBEAT_SECONDS,
            is_behind=bool(epoch.halted_because) or self._parts.fleet.is_ahead(agent),
        )
        if head is not None:
            message.checkpoint.CopyFrom(messages_out.checkpoint_message(head))
        await _write(context, session_pb2.CoordinatorMessage(welcome=message))
        if self._parts.fleet.is_ahead(agent):
            refusal = messages_out.refusal_message((AGENT_AHEAD,))
            await _write(context, session_pb2.CoordinatorMessage(refusal=refusal))
        known = min(hello.position.log_size, self._parts.record.size)
        return known if head is None else head.checkpoint.checkpoint.size

    def _head(self, from_size: int) -> Head | None:
        """The newest checkpoint for an agent at `from_size`; None where the agent is ahead of us."""
        try:
            return self._parts.record.head(from_size)
        except InvalidInput:
            return None

    @asynccontextmanager
    async def _open(self, agent: AgentId, call: Call, hello: messages_in.Hello) -> AsyncIterator[Connection]:
        """Keep the stream as the agent's for the length of the body, in memory and in its resource."""
        parts = self._parts

        def cut(code: str) -> None:
            call.cut(Unavailable("the coordinator ended the stream", code=code))

        connection = Connection(agent, cut)
        parts.connections.add(connection)
        highest = hello.position.highest_accepted
        CONNECTED.labels(agent.nation).inc()
        try:
            await parts.nations.connected(agent, hello.agent_version, call.not_after, highest)
            log.info("agent connected", agent=str(agent), version=hello.agent_version)
            yield connection
        finally:
            CONNECTED.labels(agent.nation).dec()
            if parts.connections.remove(connection):
                await asyncio.shield(self._closed(agent))

    async def _closed(self, agent: AgentId) -> None:
        log.info("agent disconnected", agent=str(agent))
        try:
            await self._parts.nations.disconnected(agent, "StreamEnded")
        except FoedusError as err:
            log.warning("agent's status not stored", agent=str(agent), code=err.code)
        await self._parts.listener.disconnected(agent)

    async def _converse(self, connection: Connection, hello: messages_in.Hello, context: Context) -> None:
        """Speak and listen until one of both ends. Raises why, where it was not the agent that left."""
        inbox = Inbox(self._parts, connection, hello.status_sequence)
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._listen(inbox, context), name="listen")
                tasks.create_task(self._speak(connection, context), name="speak")
        except ExceptionGroup as group:
            _raise_first(group)

    async def _listen(self, inbox: Inbox, context: Context) -> None:
        loop, pace = asyncio.get_running_loop(), Pace()
        while True:
            await asyncio.sleep(pace.delay(loop.time()))
            try:
                async with asyncio.timeout(LEASE_SECONDS):
                    message = await context.read()
            except TimeoutError as err:
                raise Unavailable("the agent was silent for a lease", code="LEASE_EXPIRED") from err
            if message is grpc.aio.EOF:
                raise _AgentLeft
            await inbox.take(message)

    async def _speak(self, connection: Connection, context: Context) -> None:
        """Write what is queued, and a heartbeat whenever nothing else was due for its time."""
        loop = asyncio.get_running_loop()
        heartbeat_at = loop.time()
        while True:
            if loop.time() >= heartbeat_at:
                await self._beat(connection, context)
                heartbeat_at = loop.time() + HEARTBEAT_SECONDS
            try:
                async with asyncio.timeout_at(heartbeat_at):
                    said = await connection.queue.get()
            except TimeoutError:
                continue
            await _write(context, messages_out.said_message(said))
            if isinstance(said, Directive):
                await self._parts.fleet.sent(connection.agent, said.number)

    async def _beat(self, connection: Connection, context: Context) -> None:
        epoch = await self._parts.store.epochs.current()
        beat = session_pb2.Heartbeat(epoch=epoch.number, sent_at=messages_out.timestamp(self._parts.clock()))
        head = self._head(connection.log_size)
        if head is not None and head.checkpoint.checkpoint.size > connection.log_size:
            beat.checkpoint.CopyFrom(messages_out.checkpoint_message(head))
            # The agent verifies it before its next message or ends the stream, so the next proof starts there.
            connection.log_size = head.checkpoint.checkpoint.size
        await _write(context, session_pb2.CoordinatorMessage(heartbeat=beat))


class _AgentLeft(Exception):
    """The agent closed its side: an end, not an error."""


async def _first(context: Context) -> session_pb2.Hello:
    try:
        async with asyncio.timeout(HELLO_SECONDS):
            message = await context.read()
    except TimeoutError as err:
        raise InvalidInput(f"no hello came within {HELLO_SECONDS} s", code="NO_HELLO") from err
    if message is grpc.aio.EOF or message.WhichOneof("body") != "hello":
        raise InvalidInput("the first message of a session is a hello", code="NO_HELLO")
    hello: session_pb2.Hello = message.hello
    return hello


async def _write(context: Context, message: session_pb2.CoordinatorMessage) -> None:
    try:
        async with asyncio.timeout(WRITE_SECONDS):
            await context.write(message)
    except TimeoutError as err:
        raise Unavailable("the agent does not take what is written to it", code="TOO_SLOW") from err


def _raise_first(group: ExceptionGroup[Exception]) -> None:
    """Our own error out of a group of tasks; nothing where the agent just left. Anything else goes on as it is."""
    ours, other = group.split(FoedusError)
    if ours is not None:
        raise _leaf(ours)
    left, other = group.split(_AgentLeft)
    if other is not None:
        raise other
    del left


def _leaf(group: BaseException) -> NoReturn:
    while isinstance(group, BaseExceptionGroup):
        group = group.exceptions[0]
    raise group
