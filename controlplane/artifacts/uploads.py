"""A draft's chunks coming up, and chunks that nothing refers to going away.

A publisher sends a manifest first; the coordinator says which of its chunks it lacks; each chunk is then taken only if
the manifest lists it with that size. What no manifest refers to is swept, but never what was put lately: an upload's
manifest may not be stored yet.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime

from controlplane.artifacts.store import ChunkStore
from treaty.errors import InvalidInput, PreconditionFailed
from treaty.manifest import Manifest
from treaty.names import Digest


class Upload:
    """The chunks of one manifest on their way into `store`. Stateless but for that: a restart loses nothing."""

    def __init__(self, manifest: Manifest, store: ChunkStore) -> None:
        self._manifest = manifest
        self._store = store

    def missing(self) -> tuple[Digest, ...]:
        """The chunks still to be sent, in file order."""
        return tuple(chunk for chunk in self._manifest.chunk_bytes if not self._store.has(chunk))

    def take(self, digest: Digest, data: bytes, *, now: datetime) -> None:
        """Store one chunk. Idempotent.

        Raises: InvalidInput: the manifest has no such chunk. TrustError, ResourceExhausted: as the store says.
        """
        expected = self._manifest.chunk_bytes.get(digest)
        if expected is None:
            raise InvalidInput("the manifest does not list this chunk")
        if len(data) != expected:
            raise InvalidInput(f"a chunk has {len(data)} bytes where the manifest says {expected}")
        self._store.put(digest, data, now=now)

    def finish(self) -> None:
        """Confirm that every chunk is there. Raises: PreconditionFailed: some are not."""
        missing = len(self.missing())
        if missing:
            raise PreconditionFailed(f"{missing} chunks of {self._manifest.ref} are missing", remedy="send them first")


def sweep(store: ChunkStore, doomed: Collection[Digest], *, put_before: datetime) -> int:
    """Delete those of `doomed` that were last put before `put_before`; returns how many.

    Who chose them may have done so a while ago: one that was put again since is spared.
    """
    late = [digest for digest, when in store.stored() if digest in doomed and when < put_before]
    for digest in late:
        store.delete(digest)
    return len(late)
