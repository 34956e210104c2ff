"""A version while it is being pulled: files at their full size, and a journal of the chunks that are in them.

Rules:
1. disk space is taken before the first byte is asked for (`fallocate`), so a disk that is too small is known at once;
2. a chunk is hashed, its numbers are looked at, it is written to every place it belongs to, then it is journaled;
3. a journal only says where to look: what an earlier attempt wrote is hashed again before it counts, since after a
   power cut a journal may be ahead of the data;
4. the whole is checked against its manifest (headers, configuration, sizes), synced, and only then may move.

Whole-file digests are not computed again: the chunks, their order and their sizes determine every byte.
All of it blocks: `pull` calls it from its worker threads.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from node_agent.finite import check_values
from node_agent.shelf import FILES_FOLDER, JOURNAL_SUFFIX, MANIFEST_FILE, ChunkPlace
from treaty.durable import disk_errors, sync_directory, write_all, write_whole
from treaty.errors import ConflictError, InvalidInput, TrustError
from treaty.manifest import Manifest, ModelFile
from treaty.model_files import WEIGHTS_SUFFIX, check_configuration
from treaty.names import Digest, digest_of
from treaty.safetensors_header import read_header

Frames = Sequence[bytes]
"""A chunk's bytes in the pieces in which they came."""

_RECORD = struct.Struct("<I")


@dataclass(frozen=True, slots=True)
class _Target:
    """One place a chunk belongs to. `dtype` is empty where there is no tensor."""

    descriptor: int
    offset: int
    dtype: str


class Staging:
    """One pull's folder, held by one pull at a time between `open` and `close`."""

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self._folder = folder
        self._manifest = manifest
        self._chunks = tuple(manifest.chunk_bytes)
        self._index = {chunk: index for index, chunk in enumerate(self._chunks)}
        self._targets: dict[Digest, list[_Target]] = {chunk: [] for chunk in self._chunks}
        self._descriptors: list[int] = []
        self._journal = -1

    def open(self) -> None:
        """Take the lock and the disk space. Raises: ConflictError: another pull has it. ResourceExhausted."""
        with disk_errors("preparing a pull"):
            self._open()

    def close(self) -> None:
        """Release the lock; what was written stays. Idempotent; no call may be running in a thread."""
        for descriptor in (*self._descriptors, *([self._journal] if self._journal >= 0 else [])):
            os.close(descriptor)
        self._descriptors, self._journal = [], -1

    def journaled(self) -> tuple[Digest, ...]:
        """The chunks that an earlier attempt says it wrote; `recheck` each before counting it."""
        size = os.fstat(self._journal).st_size
        records = os.pread(self._journal, size - size % _RECORD.size, 0)
        indices = dict.fromkeys(index for (index,) in _RECORD.iter_unpack(records) if index < len(self._chunks))
        return tuple(self._chunks[index] for index in indices)

    def recheck(self, chunk: Digest) -> bool:
        """True if every place of `chunk` holds its bytes."""
        size = self._manifest.chunk_bytes[chunk]
        with disk_errors("reading an unfinished pull"):
            return all(
                digest_of(os.pread(target.descriptor, size, target.offset)) == chunk for target in self._targets[chunk]
            )

    def store(self, chunk: Digest, frames: Frames) -> None:
        """Verify a chunk, write it wherever it belongs and journal it.

        Raises: TrustError: not the chunk's bytes. InvalidInput: NaN or infinity. ResourceExhausted: disk full.
        """
        if sum(map(len, frames)) != self._manifest.chunk_bytes[chunk] or _digest(frames) != chunk:
            raise TrustError("a chunk's bytes do not have its digest")
        for dtype in {target.dtype for target in self._targets[chunk]}:
            for elements in _whole_elements(frames):
                check_values(elements, dtype)
        with disk_errors("writing a chunk"):
            for target in self._targets[chunk]:
                offset = target.offset
                for frame in frames:
                    write_all(target.descriptor, frame, offset)
                    offset += len(frame)
                # Despite its name this only begins to write back what is dirty: by the time the last chunk is here the
                # disk has most of the rest, and `finish` waits for nothing. No durability is taken from it.
                os.posix_fadvise(target.descriptor, target.offset, offset - target.offset, os.POSIX_FADV_DONTNEED)
            # O_APPEND and one small write: records of two threads never mix.
            os.write(self._journal, _RECORD.pack(self._index[chunk]))

    def copy(self, chunk: Digest, place: ChunkPlace) -> bool:
        """Take a chunk from another version on the shelf; False if it is no longer what it was there.

        A real copy: pieces start where tensors do, so no file system could share the blocks.
        """
        try:
            with place.path.open("rb", buffering=0) as file:
                self.store(chunk, [os.pread(file.fileno(), place.bytes, place.offset)])
        except (TrustError, FileNotFoundError):
            return False
        return True

    def finish(self) -> None:
        """Check the whole against its manifest and put it on the disk. Raises: InvalidInput: it contradicts it."""
        for file in self._manifest.files:
            self._check(file)
        with disk_errors("syncing a pull"):
            for descriptor in self._descriptors:
                os.fsync(descriptor)
            files = self._folder / FILES_FOLDER
            for folder in (*(path for path in files.rglob("*") if path.is_dir()), files, self._folder):
                sync_directory(folder)

    def _open(self) -> None:
        files = self._folder / FILES_FOLDER
        files.mkdir(parents=True, exist_ok=True)
        self._journal = os.open(self._folder.with_suffix(JOURNAL_SUFFIX), os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            fcntl.flock(self._journal, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConflictError("this version is already being pulled") from None
        write_whole(self._folder / MANIFEST_FILE, self._manifest.encoded)
        for file in self._manifest.files:
            path = files / file.path
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
            self._descriptors.append(descriptor)
            os.ftruncate(descriptor, file.bytes)
            if file.bytes:
                os.posix_fallocate(descriptor, 0, file.bytes)
            for chunk, offset, dtype in _pieces(file):
                self._targets[chunk].append(_Target(descriptor, offset, dtype))

    def _check(self, file: ModelFile) -> None:
        path = self._folder / FILES_FOLDER / file.path
        if path.name == "config.json":
            check_configuration(path.read_bytes())
        if not file.path.endswith(WEIGHTS_SUFFIX):
            return
        header = read_header(path)
        if (header.header_bytes, header.tensors) != (file.header_bytes, file.tensors):
            raise InvalidInput(f"the header of {file.path!r} names other tensors than the manifest")


def _digest(frames: Frames) -> Digest:
    hasher = hashlib.sha256()
    for frame in frames:
        hasher.update(frame)
    return Digest(f"sha256:{hasher.hexdigest()}")


def _whole_elements(frames: Frames) -> Frames:
    """`frames` if each ends where a number of any dtype may end, otherwise all of them in one."""
    return frames if all(len(frame) % 8 == 0 for frame in frames[:-1]) else [b"".join(frames)]


def _pieces(file: ModelFile) -> Iterator[tuple[Digest, int, str]]:
    """Each chunk of the file with its offset and the dtype of the tensor it is a piece of."""
    ends: list[tuple[int, str]] = [(file.header_bytes, "")]
    for tensor in file.tensors:
        ends.append((ends[-1][0] + tensor.bytes, tensor.dtype))
    remaining = iter(ends if file.tensors else [(file.bytes, "")])
    end, dtype = next(remaining)
    for chunk, piece in zip(file.chunks, file.pieces(), strict=True):
        while piece.offset >= end:
            end, dtype = next(remaining)
        yield chunk, piece.offset, dtype
