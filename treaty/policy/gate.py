"""Many may ask at once, one may change, and never both: what a swap in an engine outside this process needs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Gate:
    """A lock of two kinds for one event loop. A waiting change goes before new questions, so it is never starved."""

    def __init__(self) -> None:
        self._turn = asyncio.Lock()
        self._asking = 0
        self._quiet = asyncio.Event()
        self._quiet.set()

    @asynccontextmanager
    async def asking(self) -> AsyncIterator[None]:
        async with self._turn:
            self._asking += 1
            self._quiet.clear()
        try:
            yield
        finally:
            self._asking -= 1
            if self._asking == 0:
                self._quiet.set()

    @asynccontextmanager
    async def changing(self) -> AsyncIterator[None]:
        async with self._turn:
            await self._quiet.wait()
            yield
