"""Chunks as the raw frames of an answer. Who may have them was decided by the caller.

The next chunk is read in a thread while the present one is sent, so neither the disk nor the line waits for the other;
memory is two chunks for each answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from functools import cache

from controlplane.artifacts.store import ChunkStore
from treaty.names import Digest
from treaty.wire.limits import FRAME_BYTES

_KEPT_BYTES = 16 * 2**20
"""glibc gives a freed block above its threshold back to the kernel, which zeroes it page by page when the next frame
wants it: a fifth of the time that a chunk takes here. Freeing one large untouched block raises the threshold to its
size, for good; elsewhere it does nothing. Once: the second block of that size would be zeroed."""


@cache
def _keep_freed_blocks() -> None:
    bytes(_KEPT_BYTES)


async def frames(store: ChunkStore, chunks: Sequence[Digest]) -> AsyncGenerator[bytes, None]:
    """The bytes of `chunks`, one after the other, in frames that end where a chunk ends.

    Raises: NotFound: the store lacks one.
    """
    if not chunks:
        return
    _keep_freed_blocks()
    ahead = asyncio.create_task(asyncio.to_thread(_read, store, chunks[0]), name="read-chunk")
    try:
        for following in (*chunks[1:], None):
            ready = await ahead
            if following is not None:
                ahead = asyncio.create_task(asyncio.to_thread(_read, store, following), name="read-chunk")
            for frame in ready:
                yield frame
    finally:
        ahead.cancel()


def _read(store: ChunkStore, chunk: Digest) -> list[bytes]:
    """The chunk in frames. Each is read by itself: to cut them from the whole would copy every byte once more."""
    size = store.size(chunk)
    return [store.read(chunk, offset, FRAME_BYTES) for offset in range(0, size, FRAME_BYTES)]
