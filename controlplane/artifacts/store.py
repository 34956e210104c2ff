"""The port behind which chunks lie, addressed by the digest of their bytes, and an in-memory fake of it.

Rules every store keeps, and the contract tests check: a chunk is stored only under its own digest; it is there whole
or not at all; storing it twice is storing it once; a full disk is `ResourceExhausted` and leaves nothing behind.

Calls block: from a coroutine, use a thread. Who may read a chunk is decided before a store is asked.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Protocol

from treaty.errors import LimitExceeded, NotFound, ResourceExhausted, TrustError
from treaty.names import Digest, digest_of

MAX_CHUNK_BYTES = 4 * 2**20


class ChunkStore(Protocol):
    """Content-addressed chunks."""

    def put(self, digest: Digest, data: bytes, *, now: datetime) -> None:
        """Store `data`, durable on return. Idempotent; renews the time that `stored` reports.

        Raises: TrustError: the bytes are not of that digest. LimitExceeded: more than a chunk.
            ResourceExhausted: no room; nothing was stored.
        """

    def has(self, digest: Digest) -> bool:
        """True if the whole chunk is there."""

    def size(self, digest: Digest) -> int:
        """Bytes of the chunk. Raises: NotFound."""

    def read(self, digest: Digest, offset: int = 0, length: int | None = None) -> bytes:
        """A range of the chunk, cut at its end; all of it by default. Raises: NotFound."""

    def delete(self, digest: Digest) -> None:
        """Remove the chunk. Idempotent."""

    def stored(self) -> Iterator[tuple[Digest, datetime]]:
        """Every chunk and when it was last put, in no order."""


def check_chunk(digest: Digest, data: bytes) -> None:
    """Raise unless `data` may be stored under `digest`."""
    if len(data) > MAX_CHUNK_BYTES:
        raise LimitExceeded(f"a chunk of {len(data)} bytes is larger than {MAX_CHUNK_BYTES}")
    if digest_of(data) != digest:
        raise TrustError("a chunk's bytes do not have its digest")


def unknown_chunk(digest: Digest) -> NotFound:
    return NotFound(f"there is no chunk {digest}")


class MemoryStore:
    """A `ChunkStore` for tests of what uses one. `capacity_bytes` makes a disk that fills."""

    def __init__(self, capacity_bytes: int = 2**30) -> None:
        self._capacity_bytes = capacity_bytes
        self._chunks: dict[Digest, tuple[bytes, datetime]] = {}

    def put(self, digest: Digest, data: bytes, *, now: datetime) -> None:
        check_chunk(digest, data)
        held = sum(len(chunk) for chunk, _ in self._chunks.values())
        if digest not in self._chunks and held + len(data) > self._capacity_bytes:
            raise ResourceExhausted("no space left while storing a chunk", remedy="free some disk space, then retry")
        self._chunks[digest] = (bytes(data), now)

    def has(self, digest: Digest) -> bool:
        return digest in self._chunks

    def size(self, digest: Digest) -> int:
        return len(self.read(digest))

    def read(self, digest: Digest, offset: int = 0, length: int | None = None) -> bytes:
        if digest not in self._chunks:
            raise unknown_chunk(digest)
        data = self._chunks[digest][0]
        return data[offset:] if length is None else data[offset : offset + length]

    def delete(self, digest: Digest) -> None:
        self._chunks.pop(digest, None)

    def stored(self) -> Iterator[tuple[Digest, datetime]]:
        return iter([(digest, when) for digest, (_, when) in self._chunks.items()])
