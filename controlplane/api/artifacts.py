"""Artifacts: chunks down to agents under a live grant, a publisher's chunks up.

Rules:
1. an agent gets a chunk only under a live directive for a manifest that contains it;
2. everything else is NOT_FOUND, in one form, whether it exists or not, and is logged: nothing here says whether a
   chunk lies anywhere;
3. frames are raw bytes of at most 1 MiB and do not span chunks; both sides use identity serialisers.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, Final

import grpc
import structlog

from controlplane.api.calls import current_call
from controlplane.api.metrics import SERVED_BYTES
from controlplane.artifacts.serving import frames
from controlplane.artifacts.store import ChunkStore
from controlplane.services.ports import ModelVersions
from controlplane.store import Store
from treaty import names
from treaty.errors import InvalidInput, LimitExceeded, NotFound, Unavailable
from treaty.names import AgentId, Digest
from treaty.wire.limits import CHUNK_BYTES, FETCH_DEADLINE_SECONDS, MAX_CHUNKS_PER_FETCH
from treaty.wire.v1 import transfer_pb2

log = structlog.get_logger(__name__)

SERVICE: Final = "treaty.wire.v1.Artifacts"
_MANIFESTS_REMEMBERED: Final = 64


class ArtifactsServicer:
    """Serves what is granted. A manifest's chunks never change, so they are remembered."""

    def __init__(self, store: Store, chunks: ChunkStore, models: ModelVersions) -> None:
        self._store = store
        self._chunks = chunks
        self._models = models
        self._remembered: OrderedDict[Digest, frozenset[Digest]] = OrderedDict()

    async def fetch(self, request: transfer_pb2.FetchRequest, context: Any) -> AsyncGenerator[bytes, None]:
        del context
        agent = current_call().caller
        manifest, wanted = _wanted(request)
        await self._check_granted(agent, manifest, wanted)
        try:
            async with asyncio.timeout(FETCH_DEADLINE_SECONDS), aclosing(frames(self._chunks, wanted)) as answer:
                async for frame in answer:
                    yield frame
                    SERVED_BYTES.labels(agent.nation).inc(len(frame))
        except TimeoutError as err:
            raise Unavailable(f"the fetch took longer than {FETCH_DEADLINE_SECONDS} s") from err

    async def missing(self, request: transfer_pb2.MissingRequest, context: Any) -> transfer_pb2.MissingResponse:
        del context
        missing = await self._models.missing(names.digest(request.manifest_digest))
        return transfer_pb2.MissingResponse(chunk_digests=missing)

    async def put_chunk(self, request: transfer_pb2.PutChunkRequest, context: Any) -> transfer_pb2.PutChunkResponse:
        del context
        if len(request.data) > CHUNK_BYTES:
            raise LimitExceeded(f"a chunk has at most {CHUNK_BYTES} bytes")
        manifest, chunk = names.digest(request.manifest_digest), names.digest(request.chunk_digest)
        await self._models.put_chunk(manifest, chunk, request.data)
        return transfer_pb2.PutChunkResponse()

    async def _check_granted(self, agent: AgentId, manifest: Digest, wanted: list[Digest]) -> None:
        """Rules 1 and 2."""
        is_granted = await self._store.artifacts.may_pull(str(agent), manifest)
        if not is_granted or not await self._chunks_of(manifest) >= set(wanted):
            log.warning("artifact refused", agent=str(agent), manifest=manifest, is_granted=is_granted)
            raise NotFound("there is no such artifact for this agent")

    async def _chunks_of(self, manifest: Digest) -> frozenset[Digest]:
        known = self._remembered.pop(manifest, None)
        if known is None:
            known = frozenset(chunk.digest for chunk in await self._store.artifacts.chunks(manifest))
        self._remembered[manifest] = known
        if len(self._remembered) > _MANIFESTS_REMEMBERED:
            self._remembered.popitem(last=False)
        return known

    def handler(self) -> grpc.GenericRpcHandler:
        """The service's methods; written by hand because Fetch answers in raw bytes."""
        return grpc.method_handlers_generic_handler(
            SERVICE,
            {
                "Fetch": grpc.unary_stream_rpc_method_handler(
                    self.fetch, request_deserializer=transfer_pb2.FetchRequest.FromString, response_serializer=_identity
                ),
                "Missing": grpc.unary_unary_rpc_method_handler(
                    self.missing,
                    request_deserializer=transfer_pb2.MissingRequest.FromString,
                    response_serializer=transfer_pb2.MissingResponse.SerializeToString,
                ),
                "PutChunk": grpc.unary_unary_rpc_method_handler(
                    self.put_chunk,
                    request_deserializer=transfer_pb2.PutChunkRequest.FromString,
                    response_serializer=transfer_pb2.PutChunkResponse.SerializeToString,
                ),
            },
        )


def _wanted(request: transfer_pb2.FetchRequest) -> tuple[Digest, list[Digest]]:
    if not 1 <= len(request.chunk_digests) <= MAX_CHUNKS_PER_FETCH:
        raise InvalidInput(f"a fetch asks for 1 to {MAX_CHUNKS_PER_FETCH} chunks")
    return names.digest(request.manifest_digest), [names.digest(text) for text in request.chunk_digests]


def _identity(data: bytes) -> bytes:
    return data
