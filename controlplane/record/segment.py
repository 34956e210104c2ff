"""One file of the log: created durable, appended to in groups, read by leaf, overwritten only to forget.

A group is on disk when `append` returns and not at all in the log when it raises: what was written of it is cut off
again. Only where the kernel fails to sync is the truth unknown; the segment then refuses to go on until it is reopened
and read anew, since a second sync may report success for pages that the first one dropped.

One writer at a time; readers in other threads are safe.
"""

from __future__ import annotations

import os
from array import array
from collections.abc import Sequence
from pathlib import Path

from controlplane.record.disk import disk_errors, replace_file, write_all
from controlplane.record.framing import (
    RECORD_HEAD_BYTES,
    SEGMENT_HEADER_BYTES,
    check_torn,
    encode_group,
    forgotten_body,
    new_marker,
    read_leaf,
    read_segment_header,
    scan,
    segment_header,
)
from treaty.errors import Corrupt, NotFound
from treaty.log import Entry, Leaf

_MODE = 0o600  # statements lie here; who may read them is decided above, not by the file system


def segment_name(first_index: int) -> str:
    return f"{first_index:020d}.segment"


class Segment:
    """Leaves `first_index` onwards. `end` is the file's length up to the last durable record."""

    def __init__(self, fd: int, first_index: int, marker: bytes, *, offsets: array[int], end: int) -> None:
        self._fd = fd
        self.first_index = first_index
        self._marker = marker
        self._offsets = offsets
        self.end = end
        self._is_broken = False

    @classmethod
    def create(cls, directory: Path, first_index: int) -> Segment:
        """Begin a file for leaves from `first_index` on; a leftover of an interrupted creation is replaced."""
        path = directory / segment_name(first_index)
        marker = new_marker()
        with disk_errors("begin a segment of the log"):
            replace_file(path, segment_header(marker, first_index), mode=_MODE, is_durable=True)
            fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        return cls(fd, first_index, marker, offsets=array("Q"), end=SEGMENT_HEADER_BYTES)

    @classmethod
    def open(
        cls, path: Path, first_index: int, *, is_last: bool, unfinished: int | None
    ) -> tuple[Segment, list[bytes]]:
        """Read a segment back, with the data of its leaves. The last one may have a torn tail, which is cut off here.

        Raises: Corrupt: bytes that were durable once are not what was written.
        """
        with disk_errors("read a segment of the log"):
            content = path.read_bytes()
        marker, claimed = read_segment_header(content)
        if claimed != first_index:
            raise Corrupt(f"the segment that should begin with leaf {first_index} begins with leaf {claimed}")
        found = scan(content, first_index, marker, unfinished=unfinished)
        is_cut = found.end < len(content)
        if is_cut and not is_last:
            raise Corrupt(f"leaf {first_index + len(found.leaves)} of the log is damaged and later ones are not")
        if is_cut:
            check_torn(content, found.end, first_index + len(found.leaves), marker)
        with disk_errors("open a segment of the log"):
            fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            if is_cut:
                os.ftruncate(fd, found.end)
                os.fsync(fd)
        return cls(fd, first_index, marker, offsets=found.offsets, end=found.end), found.leaves

    def __len__(self) -> int:
        return len(self._offsets)

    def append(self, entries: Sequence[Entry]) -> list[bytes]:
        """Write a group and wait for the disk: one write, one sync. Returns the data of the new leaves.

        Raises:
            ResourceExhausted: no room; nothing was appended and the segment can be used again.
            Corrupt: the disk failed; what it holds is known only after the log is opened again.
        """
        self._check()
        content, lengths, leaves = encode_group(self._marker, self.first_index + len(self), entries)
        with disk_errors("append to the log"):
            try:
                write_all(self._fd, content, self.end)
            except OSError:
                self._cut_back()
                raise
            self._sync()
        for length in lengths:
            self._offsets.append(self.end)
            self.end += length
        return leaves

    def read(self, index: int) -> Leaf:
        """Raises: NotFound: no such leaf here. Corrupt: it does not read back as it was written."""
        offset, length = self._place(index)
        with disk_errors("read a leaf of the log"):
            return read_leaf(os.pread(self._fd, length, offset), self._marker, index)

    def forget(self, index: int) -> None:
        """Overwrite salt and statement where they lie, durably. Idempotent; a crash may leave the body half done."""
        self._check()
        offset, length = self._place(index)
        with disk_errors("overwrite a statement of the log"):
            write_all(self._fd, forgotten_body(length - RECORD_HEAD_BYTES), offset + RECORD_HEAD_BYTES)
            self._sync()

    def close(self) -> None:
        os.close(self._fd)

    def _place(self, index: int) -> tuple[int, int]:
        at = index - self.first_index
        if not 0 <= at < len(self):
            raise NotFound(f"the log has no leaf {index}")
        offset = self._offsets[at]
        end = self._offsets[at + 1] if at + 1 < len(self) else self.end
        return offset, end - offset

    def _check(self) -> None:
        if self._is_broken:
            raise Corrupt("the log stopped after a disk error", remedy="check the disk, then restart")

    def _sync(self) -> None:
        try:
            os.fdatasync(self._fd)
        except OSError:
            self._is_broken = True
            raise

    def _cut_back(self) -> None:
        try:
            os.ftruncate(self._fd, self.end)
        except OSError:
            self._is_broken = True
