"""The global arrays of a round: pulled like a version, kept apart from the versions, read as what the plan says.

They are bytes from the coordinator, which chooses them; the manifest that its directive carries is held to the recipe's
tensors before anything is pulled (`node_agent.assignments`), so there is no room for anything else. What the values are
is not judged: a coordinator may choose them (docs: threat model). Each run has its own, and one run's end takes nothing
from another.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from node_agent.fetch import GrpcChunkSource
from node_agent.ports import Border
from node_agent.pull import ChunkSource, pull
from node_agent.shelf import Shelf
from treaty.adapter import ARRAYS_FILE, decode_arrays
from treaty.durable import disk_errors
from treaty.manifest import Manifest
from treaty.names import Digest, RunId

_KEPT = 2
"""Of a run: those of this round and of the one before, which a repeated directive may name again."""


class GlobalArrays:
    """A small shelf of its own. One thing at a time: nothing is forgotten between a pull and its reading."""

    def __init__(self, root: Path) -> None:
        self._shelf = Shelf(root / "shelf", root / "staging")
        self._recent: dict[RunId, list[Digest]] = {}
        self._turn = asyncio.Lock()

    async def pulled(self, run: RunId, manifest: Manifest, border: Border) -> dict[str, NDArray[np.float32]]:
        """The arrays of `manifest`, which was checked against its plan. Raises: as `pull`; InvalidInput."""
        return await self.pulled_from(run, manifest, GrpcChunkSource(border.fetch_calls()))

    async def pulled_from(self, run: RunId, manifest: Manifest, source: ChunkSource) -> dict[str, NDArray[np.float32]]:
        async with self._turn:
            await pull(manifest, source, self._shelf)
            arrays = await asyncio.to_thread(self._read, manifest.digest)
            known = [digest for digest in self._recent.get(run, []) if digest != manifest.digest]
            self._recent[run] = [*known, manifest.digest][-_KEPT:]
            await asyncio.to_thread(self._forget)
        return arrays

    async def clear(self, run: RunId) -> None:
        """Forget those of `run`, and what no run of this process pulled. Idempotent."""
        async with self._turn:
            self._recent.pop(run, None)
            await asyncio.to_thread(self._forget)

    def _read(self, digest: Digest) -> dict[str, NDArray[np.float32]]:
        with disk_errors("reading a round's arrays"):
            data = (self._shelf.files(digest) / ARRAYS_FILE).read_bytes()
        return decode_arrays(data)

    def _forget(self) -> None:
        kept = {digest for recent in self._recent.values() for digest in recent}
        for version in self._shelf.versions():
            if version not in kept:
                self._shelf.remove(version)
