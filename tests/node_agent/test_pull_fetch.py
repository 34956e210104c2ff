"""Raw frames become whole chunks; a stream that lies about sizes or ends early is refused. Real gRPC on loopback."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest

from node_agent.fetch import FETCH_METHOD, GrpcChunkSource, fetch_call
from node_agent.pull import PullSettings, pull
from tests.node_agent.pulling import FolderSource, shelf_in, tiny_version
from treaty.errors import NotFound, TrustError, Unavailable
from treaty.names import Digest
from treaty.wire.v1.transfer_pb2 import FetchRequest

Answer = Callable[[FetchRequest, grpc.aio.ServicerContext[FetchRequest, bytes]], AsyncIterator[bytes]]
PATIENCE = PullSettings(streams=2, attempts=1)


@asynccontextmanager
async def source_of(answer: Answer, connections: int = 2) -> AsyncIterator[GrpcChunkSource]:
    """A source over `connections` channels to a real server that answers with `answer`."""
    server = grpc.aio.server()
    _, service, method = FETCH_METHOD.split("/")
    handler: grpc.RpcMethodHandler[FetchRequest, bytes] = grpc.unary_stream_rpc_method_handler(
        answer, request_deserializer=FetchRequest.FromString
    )
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {method: handler}),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    channels = [grpc.aio.insecure_channel(f"127.0.0.1:{port}") for _ in range(connections)]
    try:
        yield GrpcChunkSource([fetch_call(channel) for channel in channels])
    finally:
        for channel in channels:
            await channel.close()
        await server.stop(None)


def frames_of(source: FolderSource, frame_bytes: int = 100) -> Answer:
    async def answer(request: FetchRequest, _context: object) -> AsyncIterator[bytes]:
        for chunk in request.chunk_digests:
            source.served.append(Digest(chunk))
            data = source.chunks[Digest(chunk)]
            for offset in range(0, len(data), frame_bytes):
                yield data[offset : offset + frame_bytes]

    return answer


async def test_a_version_comes_over_several_connections_in_frames(tmp_path: Path) -> None:
    manifest, published = tiny_version(tmp_path)
    shelf = shelf_in(tmp_path)
    async with source_of(frames_of(published)) as source:
        report = await pull(manifest, source, shelf)
    assert shelf.has(manifest.digest)
    assert report.fetched_bytes == sum(manifest.chunk_bytes.values())
    assert sorted(published.served) == sorted(manifest.chunk_bytes)


async def test_frames_that_run_over_a_chunk_are_refused(tmp_path: Path) -> None:
    manifest, published = tiny_version(tmp_path)
    shelf = shelf_in(tmp_path)

    async def too_much(request: FetchRequest, _context: object) -> AsyncIterator[bytes]:
        yield published.chunks[Digest(request.chunk_digests[0])] + b"x"

    async with source_of(too_much) as source:
        with pytest.raises(TrustError, match="frames do not fit the manifest"):
            await pull(manifest, source, shelf, settings=PATIENCE)
    assert shelf.versions() == ()


async def test_an_answer_that_ends_early_is_unavailable(tmp_path: Path) -> None:
    manifest, published = tiny_version(tmp_path)
    shelf = shelf_in(tmp_path)

    async def too_little(request: FetchRequest, _context: object) -> AsyncIterator[bytes]:
        yield published.chunks[Digest(request.chunk_digests[0])][:-1]

    async with source_of(too_little) as source:
        with pytest.raises(Unavailable, match="answer ended early"):
            await pull(manifest, source, shelf, settings=PATIENCE)
    assert shelf.versions() == ()


async def test_a_version_that_was_not_released_to_this_nation_is_not_found(tmp_path: Path) -> None:
    manifest, _ = tiny_version(tmp_path)
    shelf = shelf_in(tmp_path)

    async def refuse(
        _request: FetchRequest, context: grpc.aio.ServicerContext[FetchRequest, bytes]
    ) -> AsyncIterator[bytes]:
        for nothing in list[bytes]():
            yield nothing
        await context.abort(grpc.StatusCode.NOT_FOUND, "NOT_FOUND")

    async with source_of(refuse) as source:
        with pytest.raises(NotFound, match="the coordinator refused: NOT_FOUND"):
            await pull(manifest, source, shelf, settings=PATIENCE)
    assert shelf.versions() == ()
