"""Takes one update from the wire into the spool: verified as it arrives, visible only when it is whole.

The header is checked against the plan and the certificate's nation before a byte of disk is taken; then the file is
allocated at its final size under a partial name, each chunk is verified and written, and `commit` fsyncs and renames.
An update that is refused, or whose sender goes away, leaves nothing.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Self

from controlplane.federation.spool_reader import LENGTH_BYTES
from treaty.errors import Corrupt, FoedusError, ResourceExhausted
from treaty.names import Digest, PartyCode
from treaty.update import UpdateHeader, UpdateSpec, parse_header, validate_header, validate_sender
from treaty.update_values import Buffer, UpdateVerifier

PARTIAL_SUFFIX = ".partial"


class SpoolWriter:
    """One update on its way in; a context manager that discards what was not committed."""

    def __init__(self, path: Path, encoded_header: bytes, spec: UpdateSpec, *, nation: PartyCode) -> None:
        """Check the header and take the disk space for the whole update.

        Raises:
            InvalidInput: the header is malformed or does not answer the plan (UPD-001 to UPD-006).
            TrustError: it speaks for another nation than `nation` (UPD-014).
            ResourceExhausted: the disk cannot hold it.
        """
        self.header: UpdateHeader = parse_header(encoded_header)
        validate_sender(self.header, nation)
        validate_header(self.header, spec)
        self._path = path
        self._partial = path.with_name(path.name + PARTIAL_SUFFIX)
        self._verifier = UpdateVerifier(self.header, spec)
        self._start = LENGTH_BYTES + len(encoded_header)
        self._is_committed = False
        try:
            self._file = os.open(self._partial, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        except OSError as err:
            raise translated(err, "spool an update") from err
        try:
            os.posix_fallocate(self._file, 0, self._start + self.header.value_bytes)
            self._write(len(encoded_header).to_bytes(LENGTH_BYTES, "little") + encoded_header, 0)
        except OSError as err:
            self._discard()
            raise translated(err, "spool an update") from err
        except FoedusError:
            self._discard()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_reason: object) -> None:
        if not self._is_committed:
            self._discard()

    @property
    def next_index(self) -> int:
        """The chunk that is due."""
        return self._verifier.next_index

    def write_chunk(self, index: int, data: Buffer) -> None:
        """Verify the next chunk and write it. Raises InvalidInput (UPD-007 to UPD-010), ResourceExhausted."""
        self._verifier.accept(index, data)
        self._write(data, self._start + index * self.header.chunk_bytes)

    def commit(self) -> Digest:
        """Make the update durable and visible; returns its digest. Raises InvalidInput (UPD-015)."""
        self._verifier.finish()
        try:
            os.fsync(self._file)
            self._partial.rename(self._path)
            fsync_directory(self._path.parent)
        except OSError as err:
            raise translated(err, "spool an update") from err
        self._is_committed = True
        os.close(self._file)
        return self.header.digest

    def _write(self, data: Buffer, offset: int) -> None:
        view = memoryview(data)
        try:
            while view:
                count = os.pwrite(self._file, view, offset)
                view, offset = view[count:], offset + count
        except OSError as err:
            raise translated(err, "spool an update") from err

    def _discard(self) -> None:
        os.close(self._file)
        self._partial.unlink(missing_ok=True)


def fsync_directory(folder: Path) -> None:
    """Make a rename in `folder` durable."""
    file = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def translated(err: OSError, act: str) -> FoedusError:
    """What a failed write means to the caller."""
    if err.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return ResourceExhausted(f"no disk space to {act}", remedy="free space on the coordinator's volume and retry")
    return Corrupt(f"the coordinator's disk failed to {act}")
