"""Bulk bytes over real mutual TLS: artifacts under a grant and not otherwise, updates bounded."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import grpc
import pytest

from controlplane.api.calls import Call, LiveCalls
from controlplane.api.updates import UpdatesServicer, _chunks
from controlplane.domain.directives import EndRun, Round
from controlplane.store.ports.artifacts import ChunkReference
from tests.controlplane.api.world import DE, World, agent, failure, now, person, world
from treaty.errors import InvalidInput, LimitExceeded
from treaty.names import Digest, RunId, SpiffeId, SpiffeRole, digest_of
from treaty.wire.limits import FRAME_BYTES
from treaty.wire.v1 import transfer_pb2, transfer_pb2_grpc

PAR, BER = agent(), agent(DE, "ber-1")
TRACE = "ab" * 16
CHUNKS = [bytes([number]) * (FRAME_BYTES + number) for number in range(3)]
MANIFEST = Digest("sha256:" + "aa" * 32)


@pytest.fixture
async def there(tmp_path: Path) -> AsyncIterator[World]:
    async with world(tmp_path) as started:
        for who in (PAR, BER):
            await started.accept(who)
            await started.connect(who)
        await stored(started, MANIFEST, CHUNKS)
        yield started


async def stored(there: World, manifest: Digest, chunks: Sequence[bytes]) -> None:
    references = []
    for chunk in chunks:
        there.coordinator.services.chunks.put(digest_of(chunk), chunk, now=now())
        references.append(ChunkReference(digest_of(chunk), len(chunk)))
    await there.coordinator.core.store.artifacts.add_manifest(
        manifest, manifest.encode(), owner="test", chunks=references, is_ready=True
    )


def round_of(manifest: Digest) -> Round:
    return Round(RunId("r1"), 1, b"plan", manifest, b"{}", 60)


def fetch(there: World, who: SpiffeId, manifest: Digest, chunks: Sequence[bytes]) -> Any:
    method: Any = there.channel(who).unary_stream(
        "/treaty.wire.v1.Artifacts/Fetch",
        request_serializer=transfer_pb2.FetchRequest.SerializeToString,
        response_deserializer=None,
    )
    digests = [digest_of(chunk) for chunk in chunks]
    return method(transfer_pb2.FetchRequest(manifest_digest=manifest, chunk_digests=digests))


async def test_a_live_directive_lets_its_agent_and_no_other_pull_in_raw_frames(there: World) -> None:
    fleet = there.coordinator.core.fleet
    await fleet.direct(PAR, round_of(MANIFEST), TRACE)
    frames = [frame async for frame in fetch(there, PAR, MANIFEST, CHUNKS)]
    assert b"".join(frames) == b"".join(CHUNKS)
    assert max(len(frame) for frame in frames) <= FRAME_BYTES
    refused = await failure(fetch(there, BER, MANIFEST, CHUNKS).read())
    assert (refused.code(), refused.details()) == (grpc.StatusCode.NOT_FOUND, "NOT_FOUND")


async def test_a_grant_ends_with_its_directive(there: World) -> None:
    fleet = there.coordinator.core.fleet
    await fleet.direct(PAR, round_of(MANIFEST), TRACE)
    await fleet.direct(PAR, EndRun(RunId("r1")), TRACE)  # of the same subject: the round is superseded
    assert (await failure(fetch(there, PAR, MANIFEST, CHUNKS).read())).details() == "NOT_FOUND"
    number = await fleet.direct(PAR, round_of(MANIFEST), TRACE)
    assert await fetch(there, PAR, MANIFEST, CHUNKS[:1]).read()
    await fleet.settle(PAR, number)
    assert (await failure(fetch(there, PAR, MANIFEST, CHUNKS).read())).details() == "NOT_FOUND"


async def test_a_refused_directive_grants_nothing(there: World) -> None:
    fleet = there.coordinator.core.fleet
    number = await fleet.direct(PAR, round_of(MANIFEST), TRACE)
    await fleet.acknowledged(PAR, number, ("RUN_REFUSED",))
    assert (await failure(fetch(there, PAR, MANIFEST, CHUNKS).read())).details() == "NOT_FOUND"


async def test_a_chunk_of_another_manifest_looks_as_if_it_did_not_exist(there: World) -> None:
    other = Digest("sha256:" + "bb" * 32)
    await stored(there, other, [b"secret"])
    await there.coordinator.core.fleet.direct(PAR, round_of(MANIFEST), TRACE)
    existing = await failure(fetch(there, PAR, MANIFEST, [b"secret"]).read())
    absent = await failure(fetch(there, PAR, MANIFEST, [b"never stored"]).read())
    assert (existing.code(), existing.details()) == (absent.code(), absent.details())


@pytest.mark.parametrize("count", [0, 65])
async def test_a_fetch_asks_for_some_chunks_and_not_for_too_many(there: World, count: int) -> None:
    refused = await failure(fetch(there, PAR, MANIFEST, [b"x"] * count).read())
    assert refused.details() == "INVALID_INPUT"


async def test_chunks_come_up_from_publishers_only(there: World) -> None:
    request = transfer_pb2.PutChunkRequest(manifest_digest=MANIFEST, chunk_digest=MANIFEST, data=b"x")
    for who in (PAR, person(SpiffeRole.OPERATOR)):
        refused = await failure(transfer_pb2_grpc.ArtifactsStub(there.channel(who)).PutChunk(request))
        assert refused.code() is grpc.StatusCode.PERMISSION_DENIED


async def test_an_update_begins_with_an_opening_of_a_run_that_is_open(there: World) -> None:
    stub: Any = transfer_pb2_grpc.UpdatesStub(there.channel(PAR))
    chunk_first = await failure(stub.Send(iter([transfer_pb2.UpdateFrame(chunk=b"x")])))
    assert chunk_first.details() == "INVALID_INPUT"
    opening = transfer_pb2.UpdateOpening(run="nobodys", round=1, header=b"{}", receipt=b"{}", metrics=b"{}")
    unknown = await failure(stub.Send(iter([transfer_pb2.UpdateFrame(opening=opening)])))
    assert unknown.code() is grpc.StatusCode.NOT_FOUND


class Frames:
    """The reading half of a context."""

    def __init__(self, *frames: transfer_pb2.UpdateFrame) -> None:
        self._frames = iter((*frames, grpc.aio.EOF))

    async def read(self) -> object:
        return next(self._frames)


async def test_chunks_are_bounded_and_nothing_else_follows_the_opening() -> None:
    empty = Frames(transfer_pb2.UpdateFrame(chunk=b""))
    with pytest.raises(LimitExceeded, match="a chunk has 1 to 4194304 bytes"):
        [chunk async for chunk in _chunks(empty, PAR)]
    second = Frames(
        transfer_pb2.UpdateFrame(chunk=b"x"), transfer_pb2.UpdateFrame(opening=transfer_pb2.UpdateOpening())
    )
    with pytest.raises(InvalidInput, match="after its opening an update has chunks only"):
        [chunk async for chunk in _chunks(second, PAR)]


async def test_an_agent_sends_one_update_at_a_time() -> None:
    servicer = UpdatesServicer(None)  # type: ignore[arg-type]
    servicer._sending.add(PAR)
    calls = LiveCalls()
    with calls.entered(Call(PAR, "Updates/Send", TRACE, now())):
        with pytest.raises(Exception, match="an agent sends one update at a time"):
            await servicer.Send(None, Frames())
