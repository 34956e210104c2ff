"""How does the record write to a disk, and which error is it when the disk says no?

Two idioms used by every file of this room: replace a small file so that a reader or a crash sees the old one or the new
one, never half; and make a directory's names durable. `disk_errors` turns what the kernel says into the project's tree.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from treaty.errors import Corrupt, PreconditionFailed, ResourceExhausted

_SPENT = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EMFILE, errno.ENFILE})
_NOT_OURS = frozenset({errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.ENOTDIR, errno.EISDIR})


@contextmanager
def disk_errors(doing: str) -> Iterator[None]:
    """Raise ResourceExhausted, PreconditionFailed or Corrupt in place of an OSError met while `doing` something."""
    try:
        yield
    except OSError as err:
        if err.errno in _SPENT:
            raise ResourceExhausted(f"no room left to {doing}", remedy="free some disk space, then retry") from err
        if err.errno in _NOT_OURS:
            raise PreconditionFailed(f"not able to {doing}", remedy="check the directory and its owner") from err
        raise Corrupt(f"the disk failed to {doing}", remedy="check the disk, then restart") from err


def write_all(fd: int, data: bytes, offset: int) -> None:
    """Write every byte at `offset`; a short write is continued until the kernel takes all or says why not."""
    view = memoryview(data)
    while view:
        written = os.pwrite(fd, view, offset)
        view, offset = view[written:], offset + written


def sync_directory(directory: Path) -> None:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def replace_file(path: Path, data: bytes, *, mode: int, is_durable: bool) -> None:
    """Put `data` at `path` at once. Durable: it and its name survive a power cut before this returns."""
    temporary = path.with_name(path.name + ".new")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
    try:
        write_all(fd, data, 0)
        if is_durable:
            os.fsync(fd)
    finally:
        os.close(fd)
    temporary.replace(path)
    if is_durable:
        sync_directory(path.parent)
