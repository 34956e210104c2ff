"""Bytes that are either on the disk, whole, or not there at all.

Both sides keep state by the same rule: write beside, fsync, move into place, fsync the folder. What the operating
system says about a disk becomes one of two errors: it is full (free some, retry) or it cannot be relied on (stop).
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from treaty.errors import Corrupt, ResourceExhausted

PARTIAL_SUFFIX = ".partial"

# EFBIG is what a file-size limit of the process answers.
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.ENOMEM, errno.EMFILE, errno.ENFILE}


@contextmanager
def disk_errors(doing: str) -> Iterator[None]:
    """Translate what the disk says while `doing` (for example `storing a chunk`).

    Raises:
        ResourceExhausted: no space, quota or file handle is left.
        Corrupt: any other failure of the disk or of its permissions.
    """
    try:
        yield
    except OSError as err:
        if err.errno in _FULL:
            raise ResourceExhausted(f"no space left while {doing}", remedy="free some disk space, then retry") from err
        reason = errno.errorcode.get(err.errno or 0, "unknown")
        raise Corrupt(f"the disk failed while {doing} ({reason})", remedy="check the disk and its permissions") from err


def sync_directory(directory: Path) -> None:
    """Make names in `directory` durable: renames into it, links, removals."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_whole(path: Path, data: bytes, *, staging: Path | None = None) -> None:
    """Put `data` at `path`, replacing what is there; after a crash it is the old content or the new.

    `staging` is a folder of the same file system for the unfinished file; by default that of `path`.
    """
    partial = (staging or path.parent) / f"{path.name}.{uuid4().hex}{PARTIAL_SUFFIX}"
    try:
        with partial.open("xb", buffering=0) as file:
            write_all(file.fileno(), data)
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def write_all(descriptor: int, data: bytes | memoryview, offset: int | None = None) -> None:
    """Write every byte: at `offset` if given, else at the file's position."""
    view = memoryview(data)
    while view:
        written = os.write(descriptor, view) if offset is None else os.pwrite(descriptor, view, offset)
        view = view[written:]
        offset = None if offset is None else offset + written


def remove_partials(directory: Path) -> int:
    """Delete what a crash left unfinished in `directory`; returns how many files."""
    left = list(directory.glob(f"*{PARTIAL_SUFFIX}"))
    for path in left:
        path.unlink(missing_ok=True)
    return len(left)
