"""The coordinator's Artifacts service as a `ChunkSource`: raw frames in, the frames of each chunk out.

Bulk bytes have connections of their own; a fetch takes the one that carries the fewest. A frame is the bytes
themselves and not a message (protobuf around bulk bytes costs a tenth of the throughput), so this adapter cuts the
stream by the sizes that the manifest states. Frames are handed on as they came: joining them would copy every byte
once more. It verifies nothing else: `pull` hashes.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from typing import Protocol, TypeAlias

import grpc

from node_agent.staging import Frames
from treaty.errors import TrustError, Unavailable
from treaty.manifest import Manifest
from treaty.names import Digest
from treaty.wire.limits import FETCH_DEADLINE_SECONDS
from treaty.wire.status import translated
from treaty.wire.v1 import transfer_pb2

PEER = "the coordinator"
FETCH_METHOD = "/treaty.wire.v1.Artifacts/Fetch"


class FrameStream(Protocol):
    """The raw frames of one answer, in order; a gRPC call is one."""

    def __aiter__(self) -> AsyncIterator[bytes]: ...

    def cancel(self) -> bool:
        """Stop the other side; harmless after the end."""


FetchCall: TypeAlias = Callable[[transfer_pb2.FetchRequest], FrameStream]
"""Asks for chunks on one connection."""


def fetch_call(
    channel: grpc.aio.Channel,
    serialize: Callable[[transfer_pb2.FetchRequest], bytes] = transfer_pb2.FetchRequest.SerializeToString,
) -> FetchCall:
    """The call on `channel`; `serialize` is where the border looks at what leaves."""
    method: grpc.aio.UnaryStreamMultiCallable[transfer_pb2.FetchRequest, bytes] = channel.unary_stream(
        FETCH_METHOD, request_serializer=serialize, response_deserializer=None
    )

    def call(request: transfer_pb2.FetchRequest) -> FrameStream:
        return method(request, timeout=FETCH_DEADLINE_SECONDS)

    return call


class GrpcChunkSource:
    """A `ChunkSource` over `calls`, one for each connection."""

    def __init__(self, calls: Sequence[FetchCall]) -> None:
        self._calls = tuple(calls)
        self._running = [0] * len(self._calls)

    async def fetch(self, manifest: Manifest, chunks: Sequence[Digest]) -> AsyncGenerator[tuple[Digest, Frames], None]:
        request = transfer_pb2.FetchRequest(manifest_digest=manifest.digest, chunk_digests=chunks)
        connection = self._running.index(min(self._running))
        self._running[connection] += 1
        answer = self._calls[connection](request)
        try:
            frames = aiter(answer)
            for chunk in chunks:
                async with translated(PEER):
                    data = await _gather(frames, manifest.chunk_bytes[chunk])
                yield chunk, data
        finally:
            answer.cancel()
            self._running[connection] -= 1


async def _gather(frames: AsyncIterator[bytes], size: int) -> Frames:
    """The frames of the next `size` bytes, which end where a frame ends."""
    parts: list[bytes] = []
    missing = size
    while missing:
        try:
            frame = await anext(frames)
        except StopAsyncIteration:
            raise Unavailable("the coordinator's answer ended early") from None
        if not 0 < len(frame) <= missing:
            raise TrustError("the coordinator's frames do not fit the manifest")
        parts.append(frame)
        missing -= len(frame)
    return parts
