"""Chunks in a directory: `chunks/ab/ab…` by their hexadecimal digest, unfinished ones in `incoming/`.

A chunk's name appears by rename after its bytes are on the disk, so a name is a promise. The modification time is when
it was last put; the garbage sweep reads it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from controlplane.artifacts.store import check_chunk, unknown_chunk
from treaty.durable import disk_errors, remove_partials, sync_directory, write_whole
from treaty.names import Digest

_HEX = re.compile(r"[0-9a-f]{64}\Z")


class DirectoryStore:
    """A `ChunkStore` under `root`, which it creates. One process writes; any number of threads may."""

    def __init__(self, root: Path) -> None:
        self._chunks = root / "chunks"
        self._incoming = root / "incoming"
        with disk_errors("opening the chunk store"):
            for directory in (self._chunks, self._incoming):
                directory.mkdir(parents=True, exist_ok=True)
            remove_partials(self._incoming)

    def put(self, digest: Digest, data: bytes, *, now: datetime) -> None:
        check_chunk(digest, data)
        path = self._path(digest)
        with disk_errors("storing a chunk"):
            if not path.exists():
                self._make_folder(path.parent)
                write_whole(path, data, staging=self._incoming)
            os.utime(path, (now.timestamp(), now.timestamp()))

    def has(self, digest: Digest) -> bool:
        with disk_errors("looking for a chunk"):
            return self._path(digest).is_file()

    def size(self, digest: Digest) -> int:
        with disk_errors("looking for a chunk"):
            try:
                return self._path(digest).stat().st_size
            except FileNotFoundError:
                raise unknown_chunk(digest) from None

    def read(self, digest: Digest, offset: int = 0, length: int | None = None) -> bytes:
        with disk_errors("reading a chunk"):
            try:
                with self._path(digest).open("rb", buffering=0) as file:
                    wanted = os.fstat(file.fileno()).st_size - offset if length is None else length
                    return os.pread(file.fileno(), max(0, wanted), offset)
            except FileNotFoundError:
                raise unknown_chunk(digest) from None

    def delete(self, digest: Digest) -> None:
        with disk_errors("deleting a chunk"):
            self._path(digest).unlink(missing_ok=True)

    def stored(self) -> Iterator[tuple[Digest, datetime]]:
        with disk_errors("listing the chunks"):
            for path in self._chunks.glob("??/*"):
                if _HEX.match(path.name):
                    when = datetime.fromtimestamp(path.stat().st_mtime, UTC)
                    yield Digest("sha256:" + path.name), when

    def _path(self, digest: Digest) -> Path:
        name = digest.removeprefix("sha256:")
        return self._chunks / name[:2] / name

    def _make_folder(self, folder: Path) -> None:
        if not folder.exists():
            folder.mkdir(exist_ok=True)
            sync_directory(self._chunks)
