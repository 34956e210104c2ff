"""A run's global arrays: files of the run's own folder, described by a manifest, pulled like any version.

Arrays are granted per agent by a live Round directive and by nothing else; they are not a model version, carry no
publisher's signature and cannot be rolled out. Their label is the base's, so what is derived stays as narrow.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

from controlplane.artifacts.store import ChunkStore
from controlplane.services.ports import Clock
from controlplane.store import Store
from controlplane.store.ports.artifacts import ChunkReference
from controlplane.store.ports.rounds import StoredRound
from treaty.errors import PreconditionFailed
from treaty.lineage import Lineage
from treaty.manifest import Description, Manifest
from treaty.manifest_build import build, chunks_of
from treaty.names import RunId

ARCHITECTURE = "FederatedArrays"
OWNER = "coordinator"
PIECE_BYTES = 1024 * 1024


class RunArrays:
    """Where a run's arrays lie, and how they become something that can be pulled."""

    def __init__(self, runs: Path, store: Store, chunks: ChunkStore, clock: Clock) -> None:
        self._runs = runs
        self._store = store
        self._chunks = chunks
        self._clock = clock
        self._manifests: dict[tuple[RunId, int], Manifest] = {}

    def folder(self, run: RunId, number: int) -> Path:
        """Arrays after round `number`; 0 is before the first."""
        return self._runs / run / "arrays" / str(number)

    def sum_file(self, run: RunId, number: int) -> Path:
        return self._runs / run / f"sum-{number}.bin"

    def state_file(self, run: RunId, number: int) -> Path:
        return self._runs / run / f"state-{number}.npz"

    def has_first(self, run: RunId) -> bool:
        return self.folder(run, 0).is_dir()

    def manifest(self, run: RunId, number: int, base: Manifest) -> Manifest:
        """The manifest of the arrays after round `number`; the same arrays give the same one. Blocks on the disk."""
        known = self._manifests.get((run, number))
        if known is not None:
            return known
        about = Description(
            name=run,
            version=f"0.{number}.0",
            base=None,
            architecture=ARCHITECTURE,
            licence=base.about.licence,
            label=base.about.label,
            lineage=Lineage(parents=(base.digest,), run=run),
        )
        self._manifests[run, number] = manifest = build(self.folder(run, number), about)
        return manifest

    async def of_round(self, run: RunId, stored: StoredRound, base: Manifest, *, last: int) -> Manifest:
        """The arrays that a round starts from: those after the round before, or after `last`, which trained last.

        Raises: PreconditionFailed: they are not the ones that it began with.
        """
        manifest = await asyncio.to_thread(self.manifest, run, min(stored.round - 1, last), base)
        if manifest.digest != stored.arrays_digest:
            raise PreconditionFailed(f"the arrays of round {stored.round} of {run} are not the ones it began with")
        return manifest

    async def offer(self, run: RunId, number: int, base: Manifest) -> Manifest:
        """Make the arrays after round `number` pullable under a grant. Idempotent."""
        manifest = await asyncio.to_thread(self.manifest, run, number, base)
        await asyncio.to_thread(self._put, self.folder(run, number), manifest)
        references = [ChunkReference(chunk, size) for chunk, size in manifest.chunk_bytes.items()]
        await self._store.artifacts.add_manifest(
            manifest.digest, manifest.encoded, owner=OWNER, chunks=references, is_ready=True
        )
        return manifest

    def forget(self, run: RunId) -> None:
        """Drop what is remembered of an ended run."""
        self._manifests = {key: manifest for key, manifest in self._manifests.items() if key[0] != run}

    def _put(self, folder: Path, manifest: Manifest) -> None:
        for digest, data in chunks_of(folder, manifest):
            self._chunks.put(digest, data, now=self._clock())


def pieces(folder: Path) -> Iterator[tuple[str, bytes]]:
    """The files of `folder` as (path, piece of at most 1 MiB); the path is empty on all but a file's first piece."""
    for path in sorted(folder.iterdir()):
        name = path.name
        with path.open("rb") as file:
            while (piece := file.read(PIECE_BYTES)) or name:
                yield name, piece
                name = ""
