"""Every connection that this agent opens; it opens no port for anyone.

Each purpose has connections of its own: one stream for control, several for pulls, a fresh one for each update, and
Reach, which is asked without a certificate. A certificate cannot change on a connection that is open: a new one is
opened with the new certificate, and the old one goes when its last call ends.

This module and the chunk source that it feeds (`node_agent.fetch`) are where gRPC calls out of this package. Only
`node_agent.border`, the session and Reach's client use it, and all that they send went through `Customs`.
"""

from __future__ import annotations

import asyncio
import secrets
import ssl
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import grpc

from node_agent.charters import host_of
from node_agent.customs import Customs
from node_agent.fetch import FetchCall, FrameStream, fetch_call
from node_agent.outbound import Leaving
from treaty.errors import ResourceExhausted, Unavailable
from treaty.wire.credentials import ClientIdentity, mutual_channel, plain_channel
from treaty.wire.limits import UNARY_DEADLINE_SECONDS, UPDATE_DEADLINE_SECONDS
from treaty.wire.status import translated
from treaty.wire.v1 import session_pb2, transfer_pb2

PEER = "the coordinator"
BULK_CONNECTIONS = 8
"""At 230 ms round trip eight ranges on eight connections fill 1 Gbit/s; one fills a seventh of it."""

_SESSION = "/treaty.wire.v1.Session/Connect"
_UPDATES = "/treaty.wire.v1.Updates/Send"
_REACH = "/treaty.wire.v1.Reach/"
_CERTIFICATE_SECONDS = 10.0
_HANDSHAKE_SECONDS = 10.0
_LISTENING_SECONDS = 5.0


class SessionStream:
    """The live control stream."""

    def __init__(
        self, call: grpc.aio.StreamStreamCall[bytes, session_pb2.CoordinatorMessage], customs: Customs
    ) -> None:
        self._call = call
        self._customs = customs
        self._reading: asyncio.Future[object] | None = None

    async def send(self, message: session_pb2.AgentMessage) -> None:
        """Raises: Unavailable: the stream has ended. PolicyDenied, LimitExceeded: the message may not leave."""
        data = self._customs.clear(message)
        async with translated(PEER):
            try:
                await self._call.write(data)
            except asyncio.InvalidStateError as err:
                raise Unavailable("the stream to the coordinator has ended") from err

    async def receive(self) -> session_pb2.CoordinatorMessage | None:
        """The coordinator's next message; None once it ended the stream in order. Raises: as its status says.

        Whoever is cancelled while waiting leaves the stream as it is: gRPC ends a call whose read is cancelled, so the
        read goes on and the next `receive` has what it brings.
        """
        if self._reading is None:
            self._reading = asyncio.ensure_future(self._call.read())
        reading = self._reading
        try:
            async with translated(PEER):
                message = await asyncio.shield(reading)
        finally:
            if reading.done():
                self._reading = None
        return message if isinstance(message, session_pb2.CoordinatorMessage) else None  # else: gRPC's EOF

    def end(self) -> None:
        """Let go of the call, and of a read that nobody waits for. Idempotent."""
        if self._reading is not None and not self._reading.cancel() and not self._reading.cancelled():
            self._reading.exception()  # it ended while nobody listened: that is not news
        self._call.cancel()


class UpdateStream:
    """One update on its way."""

    def __init__(self, call: grpc.aio.StreamUnaryCall[bytes, transfer_pb2.UpdateAccepted], customs: Customs) -> None:
        self._call = call
        self._customs = customs
        self.is_cut = False

    async def send(self, frame: transfer_pb2.UpdateFrame) -> None:
        data = self._customs.clear(frame)
        async with _transferred():
            try:
                await self._call.write(data)
            except asyncio.InvalidStateError:
                await self._call  # it was refused before the end: this raises why
                raise Unavailable("the coordinator ended the update early") from None

    async def accepted(self) -> transfer_pb2.UpdateAccepted:
        async with _transferred():
            await self._call.done_writing()
            return await self._call

    def cut(self) -> None:
        self.is_cut = True
        self._call.cancel()


@asynccontextmanager
async def _transferred() -> AsyncIterator[None]:
    """As `translated`. What the coordinator has no room for now, or still takes from before, may come again later."""
    try:
        async with translated(PEER):
            yield
    except ResourceExhausted as err:
        raise Unavailable("the coordinator has no room for this update now", code=err.code) from err


class Connections:
    """`leaf` is asked for the certificate to show whenever a connection is opened."""

    def __init__(
        self, coordinator: str, ca_pem: Callable[[], str], leaf: Callable[[], ClientIdentity], customs: Customs
    ) -> None:
        self._target = coordinator
        self._ca_pem = ca_pem
        self._leaf = leaf
        self._customs = customs
        self._bulk: list[tuple[ClientIdentity, grpc.aio.Channel] | None] = [None] * BULK_CONNECTIONS

    def _channel(self, identity: ClientIdentity) -> grpc.aio.Channel:
        return mutual_channel(self._target, self._ca_pem().encode("ascii"), identity)

    @asynccontextmanager
    async def session(self) -> AsyncIterator[SessionStream]:
        """Dial the control stream, on a connection of its own, and shake hands.

        Raises: Unavailable: nobody there, or the handshake was refused; TLS does not say which.
        """
        async with self._channel(self._leaf()) as channel:
            await _ready(channel)
            method: grpc.aio.StreamStreamMultiCallable[bytes, session_pb2.CoordinatorMessage] = channel.stream_stream(
                _SESSION,
                request_serializer=None,
                response_deserializer=session_pb2.CoordinatorMessage.FromString,
            )
            stream = SessionStream(method(), self._customs)
            try:
                yield stream
            finally:
                stream.end()

    @asynccontextmanager
    async def update(self, trace_id: str) -> AsyncIterator[UpdateStream]:
        """A connection and a call for one update. `trace_id` may be empty."""
        metadata = (("traceparent", f"00-{trace_id}-{secrets.token_hex(8)}-01"),) if trace_id else ()
        async with self._channel(self._leaf()) as channel:
            method: grpc.aio.StreamUnaryMultiCallable[bytes, transfer_pb2.UpdateAccepted] = channel.stream_unary(
                _UPDATES, request_serializer=None, response_deserializer=transfer_pb2.UpdateAccepted.FromString
            )
            call = method(timeout=UPDATE_DEADLINE_SECONDS, metadata=metadata)
            try:
                yield UpdateStream(call, self._customs)
            finally:
                call.cancel()

    def fetch_calls(self) -> Sequence[FetchCall]:
        """`Artifacts.Fetch` on each of the bulk connections, which are opened at first use."""
        return [self._fetch_on(position) for position in range(BULK_CONNECTIONS)]

    def _fetch_on(self, position: int) -> FetchCall:
        def call(request: transfer_pb2.FetchRequest) -> FrameStream:
            return fetch_call(self._bulk_channel(position), self._customs.clear)(request)

        return call

    def _bulk_channel(self, position: int) -> grpc.aio.Channel:
        identity, kept = self._leaf(), self._bulk[position]
        if kept is not None and kept[0] == identity:
            return kept[1]
        # The old channel is dropped, not closed: calls that still run on it hold it until they end.
        channel = self._channel(identity)
        self._bulk[position] = (identity, channel)
        return channel

    async def close(self) -> None:
        for kept in self._bulk:
            if kept is not None:
                await kept[1].close(None)
        self._bulk = [None] * BULK_CONNECTIONS


async def _ready(channel: grpc.aio.Channel) -> None:
    """Wait for the handshake, and no longer than for its first failure."""
    try:
        async with asyncio.timeout(_HANDSHAKE_SECONDS):
            state = channel.get_state(try_to_connect=True)
            while state is not grpc.ChannelConnectivity.READY:
                if state in (grpc.ChannelConnectivity.TRANSIENT_FAILURE, grpc.ChannelConnectivity.SHUTDOWN):
                    raise Unavailable(
                        f"{PEER} cannot be reached, or refused the handshake", remedy="run 'foedus-agent check'"
                    )
                await channel.wait_for_state_change(state)
                state = channel.get_state(try_to_connect=True)
    except TimeoutError as err:
        raise Unavailable(f"{PEER} did not finish the handshake in {_HANDSHAKE_SECONDS:g} s") from err


class ReachLine:
    """A connection to Reach, which asks for no certificate. `ca_pem` is what the server must chain to."""

    def __init__(self, channel: grpc.aio.Channel, customs: Customs) -> None:
        self._channel = channel
        self._customs = customs

    async def call(self, method: str, request: Leaving) -> bytes:
        """One unary call; the raw answer."""
        async with translated("the coordinator's Reach"):
            call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = self._channel.unary_unary(_REACH + method)
            return await call(self._customs.clear(request), timeout=UNARY_DEADLINE_SECONDS)


@asynccontextmanager
async def reach_line(address: str, ca_pem: str, customs: Customs) -> AsyncIterator[ReachLine]:
    async with plain_channel(address, ca_pem.encode("ascii")) as channel:
        yield ReachLine(channel, customs)


async def shown_certificate(address: str) -> str:
    """The certificate (PEM) that Reach at `address` shows, unverified: the first look before a charter is known.

    Raises: Unavailable: nobody speaks TLS there.
    """
    host, port = host_of(address), int(address.rpartition(":")[2])
    try:
        return await asyncio.to_thread(ssl.get_server_certificate, (host, port), timeout=_CERTIFICATE_SECONDS)
    except (OSError, ssl.SSLError) as err:
        raise Unavailable(
            f"no TLS server answers at {address}, the Reach port", remedy="check the address, the network and any proxy"
        ) from err


async def is_listening(address: str) -> bool:
    """Whether anything accepts connections at `address`."""
    host, port = host_of(address), int(address.rpartition(":")[2])
    try:
        async with asyncio.timeout(_LISTENING_SECONDS):
            _, writer = await asyncio.open_connection(host, port)
    except (OSError, TimeoutError):
        return False
    writer.close()
    return True
