"""Chunks as the raw frames of an answer. Who may have them was decided by the caller.

The next chunk is read in a thread while the present one is sent, so neither the disk nor the line waits for the other;
memory is two chunks for each answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence

from controlplane.artifacts.store import ChunkStore
from treaty.names import Digest
from treaty.wire.limits import FRAME_BYTES


async def frames(store: ChunkStore, chunks: Sequence[Digest]) -> AsyncGenerator[bytes, None]:
    """The bytes of `chunks`, one after the other, in frames that end where a chunk ends.

    Raises: NotFound: the store lacks one.
    """
    if not chunks:
        return
    ahead = asyncio.create_task(asyncio.to_thread(store.read, chunks[0]), name="read-chunk")
    try:
        for following in (*chunks[1:], None):
            data = await ahead
            if following is not None:
                ahead = asyncio.create_task(asyncio.to_thread(store.read, following), name="read-chunk")
            for offset in range(0, len(data), FRAME_BYTES):
                yield data[offset : offset + FRAME_BYTES]
    finally:
        ahead.cancel()
