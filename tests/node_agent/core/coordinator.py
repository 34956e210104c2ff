"""A coordinator of a few lines: real mutual TLS, real gRPC, and nothing behind it but what a test says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import grpc

from tests.builders.ports import free_port
from tests.node_agent.core.nation import Joined
from treaty.log import Tree
from treaty.names import digest_of
from treaty.wire import credentials
from treaty.wire.certificates import issue_server
from treaty.wire.v1 import session_pb2, session_pb2_grpc, transfer_pb2, transfer_pb2_grpc, types_pb2

SALT = b"s" * 32


@dataclass
class Stream:
    """One agent's stream, as the test drives it."""

    context: Any
    hello: session_pb2.Hello
    certificate: bytes
    received: asyncio.Queue[session_pb2.AgentMessage] = field(default_factory=asyncio.Queue)
    lost: asyncio.Event = field(default_factory=asyncio.Event)
    """Set by a test to end the stream."""

    async def say(self, **body: Any) -> None:
        await self.context.write(session_pb2.CoordinatorMessage(**body))

    async def next(self, body: str) -> Any:
        """The next message of this kind, others left out."""
        async with asyncio.timeout(5):
            while True:
                message = await self.received.get()
                if message.WhichOneof("body") == body:
                    return getattr(message, body)


class Coordinator(session_pb2_grpc.SessionServicer, transfer_pb2_grpc.UpdatesServicer):
    def __init__(self, joined: Joined) -> None:
        self.joined = joined
        self.streams: asyncio.Queue[Stream] = asyncio.Queue()
        self.frames: list[transfer_pb2.UpdateFrame] = []
        self.checkpoint = types_pb2.Checkpoint()
        self.tree: Tree | None = None
        """The log, where it proves what it recorded."""
        self.is_behind = False
        self.epoch = 1
        self.confirms = ""
        """The update that it says it has; empty: the one that came."""
        self.log_index = 3
        self.salt = SALT
        self.counted = b""
        """The receipt that it says it counted instead of the one that came."""
        self.hold_updates = asyncio.Event()
        self.hold_updates.set()
        self.on_opening: Callable[[], None] = lambda: None
        self.wrong_nonce = False
        self.is_full = False
        """Whether it has no room for an update."""

    async def stream(self) -> Stream:
        async with asyncio.timeout(10):
            return await self.streams.get()

    async def Connect(self, request_iterator: Any, context: Any) -> None:  # type: ignore[override]  # noqa: N802
        first = await context.read()
        # Read now: asking an ended call for its peer crashes gRPC.
        stream = Stream(context, first.hello, bytes(context.auth_context()["x509_pem_cert"][0]))
        welcome = session_pb2.Welcome(
            nonce=b"?" if self.wrong_nonce else first.hello.nonce,
            protocol=1,
            epoch=self.epoch,
            charter_digest=self.joined.charter.digest,
            heartbeat_seconds=5,
            checkpoint=self.checkpoint,
            is_behind=self.is_behind,
        )
        await stream.say(welcome=welcome)
        await self.streams.put(stream)
        reading = asyncio.ensure_future(self.read(stream))
        losing = asyncio.ensure_future(stream.lost.wait())
        await asyncio.wait([reading, losing], return_when=asyncio.FIRST_COMPLETED)
        reading.cancel()
        losing.cancel()

    async def read(self, stream: Stream) -> None:
        while (message := await stream.context.read()) is not grpc.aio.EOF:
            await stream.received.put(message)
            if message.WhichOneof("body") == "submission":
                await self.record(stream, message.submission.envelope)
            if message.WhichOneof("body") == "proof_request" and self.tree is not None:
                await self.prove(stream, message.proof_request)

    async def record(self, stream: Stream, envelope: bytes) -> None:
        from treaty import statement

        digest = digest_of(statement.unverified(envelope).payload())
        await stream.say(recorded=session_pb2.Recorded(statement_digest=digest, log_index=7, salt=SALT))

    async def prove(self, stream: Stream, asked: session_pb2.ProofRequest) -> None:
        assert self.tree is not None
        proof = self.tree.inclusion_proof(7, asked.log_size)
        answer = session_pb2.Inclusion(statement_digest=asked.statement_digest, log_size=asked.log_size, proof=proof)
        await stream.say(inclusion=answer)

    async def Send(self, request_iterator: Any, context: Any) -> transfer_pb2.UpdateAccepted:  # noqa: N802
        async for frame in request_iterator:
            self.frames.append(frame)
            if frame.WhichOneof("body") == "opening":
                self.on_opening()
                await self.hold_updates.wait()
        if self.is_full:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "RESOURCE_EXHAUSTED")
        header = self.frames[0].opening.header
        return transfer_pb2.UpdateAccepted(
            update_digest=self.confirms or digest_of(header),
            log_index=self.log_index,
            salt=self.salt,
            receipt=self.counted,
        )


@asynccontextmanager
async def coordinator(joined: Joined, port: int = 0) -> AsyncIterator[tuple[Coordinator, int]]:
    """Serve on loopback; the port is given."""
    servicer = Coordinator(joined)
    issued = issue_server(joined.world.coordinator_ca, ["localhost"], datetime.now(UTC))

    def identity() -> credentials.ServerIdentity:
        cas = tuple(nation.ca_pem.encode() for nation in joined.charter.nations.values())
        return credentials.ServerIdentity(issued.key_pem(), issued.certificate_pem(), cas)

    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    session_pb2_grpc.add_SessionServicer_to_server(servicer, server)  # type: ignore[no-untyped-call,unused-ignore]
    transfer_pb2_grpc.add_UpdatesServicer_to_server(servicer, server)  # type: ignore[no-untyped-call,unused-ignore]
    bound = server.add_secure_port(f"localhost:{port or free_port()}", credentials.mutual_server_credentials(identity))
    await server.start()
    try:
        yield servicer, bound
    finally:
        await server.stop(None)
