"""Updates on the coordinator's disk: one file each, believed again whenever it is read.

    8 bytes   length of the header, little-endian
    header    canonical JSON, `treaty.update.UpdateHeader`
    chunks    raw, back to back

Reading verifies the file's size against the header before anything is allocated, and each chunk against its digest
and the bound on its values. What the plan allows is checked by whoever has the plan. `controlplane.artifacts.spool`
writes these files.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from treaty.errors import Corrupt, InvalidInput, NotFound
from treaty.update import MAX_HEADER_BYTES, UpdateHeader, parse_header
from treaty.update_values import dequantise, validate_chunk

LENGTH_BYTES = 8
_REMEDY = "remove the file; its nation sends the update again while the round is open"


class SpoolReader:
    """One spooled update, open for reading by several threads; a context manager."""

    def __init__(self, path: Path) -> None:
        """Open `path` and read its header.

        Raises:
            NotFound: there is no such file.
            Corrupt: the file is not one whole update.
        """
        self.path = path
        try:
            self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise NotFound(f"no spooled update {path.name}") from None
        except OSError as err:
            raise Corrupt(f"the spooled update {path.name} cannot be opened") from err
        try:
            self.header, self._start = self._read_header()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_reason: object) -> None:
        self.close()

    def close(self) -> None:
        os.close(self._file)

    def read_chunk(self, index: int, buffer: bytearray) -> NDArray[np.int32]:
        """Read chunk `index` into `buffer`, of at least a chunk's length, and verify it.

        Returns: its values, a view of `buffer` that the next read into it overwrites.
        Raises: Corrupt: the bytes on disk are not those that were accepted.
        """
        length = self.header.chunk_length(index)
        view = memoryview(buffer)[:length]
        self._read_into(view, self._start + index * self.header.chunk_bytes)
        try:
            return validate_chunk(index, view, self.header, self.header)
        except InvalidInput as err:
            raise self._corrupt("does not verify") from err

    def read_delta(self) -> dict[str, NDArray[np.float32]]:
        """The whole update as float32 arrays by tensor name, for a strategy that compares updates. Raises Corrupt."""
        buffer = bytearray(self.header.chunk_length(0))
        chunks = (self.read_chunk(index, buffer) for index in range(self.header.chunk_count))
        return dequantise(chunks, self.header)

    def _read_header(self) -> tuple[UpdateHeader, int]:
        size = os.fstat(self._file).st_size
        prefix = bytearray(LENGTH_BYTES)
        self._read_into(memoryview(prefix), 0)
        length = int.from_bytes(prefix, "little")
        if length > min(MAX_HEADER_BYTES, size - LENGTH_BYTES):
            raise self._corrupt("has a header of an impossible length")
        encoded = bytearray(length)
        self._read_into(memoryview(encoded), LENGTH_BYTES)
        try:
            header = parse_header(bytes(encoded))
        except InvalidInput as err:
            raise self._corrupt("has a malformed header") from err
        if size != LENGTH_BYTES + length + header.value_bytes:
            raise self._corrupt("is not as long as its header says")
        return header, LENGTH_BYTES + length

    def _read_into(self, view: memoryview, offset: int) -> None:
        """Fill `view` from `offset`; positioned reads, so threads do not disturb each other."""
        done = 0
        while done < len(view):
            try:
                count = os.preadv(self._file, [view[done:]], offset + done)
            except OSError as err:
                raise self._corrupt("cannot be read") from err
            if count == 0:
                raise self._corrupt("ends too early")
            done += count

    def _corrupt(self, what: str) -> Corrupt:
        return Corrupt(f"the spooled update {self.path.name} {what}", remedy=_REMEDY)
