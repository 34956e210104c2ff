"""Frames join to the chunks that were asked for, in order, and never run over a chunk."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from controlplane.artifacts.serving import frames
from controlplane.artifacts.store import MemoryStore
from treaty.errors import NotFound
from treaty.names import Digest, digest_of
from treaty.wire.limits import FRAME_BYTES

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)


async def test_frames_are_bounded_and_end_where_chunks_end() -> None:
    store = MemoryStore()
    first, second = b"a" * (2 * FRAME_BYTES + 1), b"b" * 3
    for data in (first, second):
        store.put(digest_of(data), data, now=NOON)
    sent = [frame async for frame in frames(store, [digest_of(first), digest_of(second), digest_of(first)])]
    assert [len(frame) for frame in sent] == [FRAME_BYTES, FRAME_BYTES, 1, 3, FRAME_BYTES, FRAME_BYTES, 1]
    assert b"".join(sent) == first + second + first


async def test_nothing_asked_is_nothing_sent_and_a_missing_chunk_is_not_found() -> None:
    assert [frame async for frame in frames(MemoryStore(), [])] == []
    with pytest.raises(NotFound, match="there is no chunk"):
        await anext(frames(MemoryStore(), [Digest("sha256:" + "0" * 64)]))
