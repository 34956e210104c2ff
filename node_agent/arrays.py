"""The global arrays of a round: pulled like a version, kept apart from the versions, read as what the plan says.

They are bytes from the coordinator, which chooses them; the manifest that its directive carries is held to the plan's
tensors before anything is pulled, so there is no room for anything else. What the values are is not judged: a
coordinator may choose them (docs: threat model).
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
from treaty.errors import InvalidInput
from treaty.manifest import Manifest
from treaty.names import Digest
from treaty.plan import RunPlan

MAX_ARRAYS_BYTES = 2 * 2**30
_KEPT = 2
"""Those of this round and of the one before, which a repeated directive may name again."""


class GlobalArrays:
    """A small shelf of its own."""

    def __init__(self, root: Path) -> None:
        self._shelf = Shelf(root / "shelf", root / "staging")
        self._recent: list[Digest] = []

    async def pulled(self, manifest: Manifest, border: Border) -> dict[str, NDArray[np.float32]]:
        """The arrays of `manifest`, which was checked against its plan. Raises: as `pull`; InvalidInput."""
        return await self.pulled_from(manifest, GrpcChunkSource(border.fetch_calls()))

    async def pulled_from(self, manifest: Manifest, source: ChunkSource) -> dict[str, NDArray[np.float32]]:
        await pull(manifest, source, self._shelf)
        arrays = await asyncio.to_thread(self._read, manifest.digest)
        await asyncio.to_thread(self._forget_old, manifest.digest)
        return arrays

    def clear(self) -> None:
        """Forget all of them."""
        for version in self._shelf.versions():
            self._shelf.remove(version)
        self._recent.clear()

    def _read(self, digest: Digest) -> dict[str, NDArray[np.float32]]:
        with disk_errors("reading a round's arrays"):
            data = (self._shelf.files(digest) / ARRAYS_FILE).read_bytes()
        return decode_arrays(data)

    def _forget_old(self, newest: Digest) -> None:
        self._recent = [*(known for known in self._recent if known != newest), newest][-_KEPT:]
        for version in self._shelf.versions():
            if version not in self._recent:
                self._shelf.remove(version)


def check_arrays_manifest(manifest: Manifest, plan: RunPlan) -> None:
    """Refuse arrays that are anything but one file of float32 tensors, exactly the plan's where it names them.

    Raises: InvalidInput (ARRAYS_MISMATCH).
    """
    files = manifest.files
    is_plain = len(files) == 1 and files[0].path == ARRAYS_FILE and files[0].bytes <= MAX_ARRAYS_BYTES
    tensors = files[0].tensors if is_plain else ()
    if not tensors or any(tensor.dtype != "F32" for tensor in tensors):
        raise InvalidInput("the arrays' manifest is not of one file of float32 tensors", code="ARRAYS_MISMATCH")
    found = sorted((tensor.name, tuple(tensor.shape)) for tensor in tensors)
    if plan.tensors and found != sorted((tensor.name, tensor.shape) for tensor in plan.tensors):
        raise InvalidInput("the arrays' tensors are not exactly the plan's", code="ARRAYS_MISMATCH")
