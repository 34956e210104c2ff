"""Is it recorded, durably, and can that be proven?

The coordinator's log in one directory:

    lock          held by the one process that writes
    segments/     records: leaf data, salt, statement (`framing`); for this process alone
    public/       checkpoint, tiles and entry bundles (`tile_files`); hashes only, for anyone
    forgetting    the index of a leaf whose forgetting was begun, so that a crash cannot leave it half done

Rules:

1. An index is returned only after its record is on disk. What a crash cut short is cut off at the next opening, and was
   never acknowledged.
2. The log on disk reaches at least to its last signed checkpoint and has that checkpoint's root. Otherwise it does not
   open: a log that went backwards must not sign again.
3. A checkpoint is signed only for durable leaves of this tree, after their tiles are written.
4. Forgetting removes salt and statement; leaf data, hashes and proofs stay.

One writer: `append`, `publish` and `forget` take turns under a lock and block on the disk, so an event loop calls them
in a thread (`group_commit`). Questions may be asked from any thread. Memory: 72 bytes a leaf, read back at opening.
"""

from __future__ import annotations

import fcntl
import os
import threading
from bisect import bisect_right
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from controlplane.record.disk import disk_errors, replace_file, sync_directory
from controlplane.record.segment import Segment, segment_name
from controlplane.record.tile_files import TileFiles
from treaty.errors import Corrupt, FoedusError, InvalidInput, NotFound, PreconditionFailed
from treaty.log import (
    HASH_BYTES,
    Checkpoint,
    Entry,
    Leaf,
    SignedCheckpoint,
    Tree,
    check_origin,
    leaf_hash,
    sign_checkpoint,
    verify_checkpoint,
)
from treaty.log.tiles import TILE_WIDTH

SEGMENT_BYTES = 64 * 1024 * 1024
"""A segment is read whole at opening, so this bounds the memory of that; a new one costs three syncs."""

MAX_GROUP_BYTES = 16 * 1024 * 1024
"""Most statement bytes in one append: a group is one buffer and one write."""

RESTORE = "restore the log from a backup, then run 'foedus-coordinator recover --record' with an export of it"


class LogFiles:
    """An open log. Use `LogFiles.open`; close it, or leave the `with` block, to let another process have it."""

    def __init__(self, directory: Path, origin: str, key: Ed25519PrivateKey, *, segment_bytes: int) -> None:
        self._directory = directory
        self._origin = origin
        self._key = key
        self._segment_bytes = segment_bytes
        self._writing = threading.Lock()
        self._tree = Tree()
        self._segments: list[Segment] = []
        self._tiles = TileFiles(directory / "public")
        self._tiled = 0  # leaves whose tiles are full and written; a multiple of 256
        self._untiled = bytearray()  # leaf data from there on
        self._signed: SignedCheckpoint | None = None
        self._lock_fd = _lock(directory / "lock")

    @classmethod
    def open(
        cls, directory: Path, origin: str, key: Ed25519PrivateKey, *, segment_bytes: int = SEGMENT_BYTES
    ) -> LogFiles:
        """Open the log of `origin`, made where there is none, and cut off what a crash left unfinished.

        Raises:
            Corrupt: a durable record is damaged or missing, or the stored checkpoint is not of this log and key.
            PreconditionFailed: another process has it, or the directory is not ours to write.
        """
        check_origin(origin)
        with disk_errors("open the log"):
            (directory / "segments").mkdir(mode=0o700, parents=True, exist_ok=True)
        log = cls(directory, origin, key, segment_bytes=segment_bytes)
        try:
            log._recover()
        except BaseException:
            log.close()
            raise
        return log

    def close(self) -> None:
        with self._writing:
            for segment in self._segments:
                segment.close()
            self._segments = []
            if self._lock_fd >= 0:
                os.close(self._lock_fd)
                self._lock_fd = -1

    def __enter__(self) -> LogFiles:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, err: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def size(self) -> int:
        """Durable leaves."""
        return self._tree.size

    @property
    def origin(self) -> str:
        return self._origin

    @property
    def public_key(self) -> Ed25519PublicKey:
        """By which this log's checkpoints are signed."""
        return self._key.public_key()

    @property
    def public_directory(self) -> Path:
        """Where checkpoint, tiles and bundles lie; a piece is at `tile_path` below it once a checkpoint needs it."""
        return self._tiles.directory

    def append(self, entries: Sequence[Entry]) -> list[int]:
        """Record a group of statements with one sync; returns their indices, all durable.

        Raises: ResourceExhausted, Corrupt: none of them is recorded (see `Segment.append`).
        """
        if sum(len(entry.statement) for entry in entries) > MAX_GROUP_BYTES:
            raise InvalidInput(f"a group holds at most {MAX_GROUP_BYTES} bytes of statements")
        with self._writing:
            first = self._tree.size
            if entries:
                leaves = self._last_segment().append(entries)
                self._untiled += b"".join(leaves)
                self._tree.extend(leaf_hash(data) for data in leaves)
            return list(range(first, self._tree.size))

    def publish(self) -> SignedCheckpoint:
        """Sign and store a checkpoint of everything durable, its tiles first. The last one where nothing is new."""
        with self._writing:
            return self._publish()

    def checkpoint(self) -> SignedCheckpoint:
        """The last published checkpoint."""
        if self._signed is None:
            raise PreconditionFailed("the log has published no checkpoint")
        return self._signed

    def root(self, size: int) -> bytes:
        return self._tree.root(size)

    def inclusion(self, index: int, size: int) -> list[bytes]:
        """Proof that leaf `index` is in the tree of `size`. Raises InvalidInput beyond the log."""
        return self._tree.inclusion_proof(index, size)

    def consistency(self, old: int, new: int) -> list[bytes]:
        """Proof that the tree of `new` extends the tree of `old`. Raises InvalidInput beyond the log."""
        return self._tree.consistency_proof(old, new)

    def entry(self, index: int) -> Leaf:
        """Leaf `index` with its statement, or without where it was forgotten; checked as it is read.

        Raises: NotFound: no such leaf. Corrupt: it is not what was written.
        """
        segment = self._segment_of(index)
        try:
            return segment.read(index)
        except Corrupt:
            with self._writing:  # it may have been read in the middle of being forgotten
                return segment.read(index)

    def index_of(self, entry: Entry) -> int:
        """Where this very entry (salt and statement) was recorded: makes offering it again after a crash idempotent.

        Raises: NotFound: it was not.
        """
        return self._tree.find(leaf_hash(entry.data))

    def forget(self, index: int) -> None:
        """Delete salt and statement of a leaf from this disk. Idempotent; proofs are as before.

        The file system may keep old blocks until it reuses them; the operator's copies are the operator's to rewrite.
        """
        with self._writing:
            segment = self._segment_of(index)
            with disk_errors("begin to forget a statement"):
                replace_file(self._intent, b"%d\n" % index, mode=0o600, is_durable=True)
            self._finish_forgetting(segment, index)

    @property
    def _intent(self) -> Path:
        return self._directory / "forgetting"

    def _finish_forgetting(self, segment: Segment, index: int) -> None:
        segment.forget(index)
        with disk_errors("finish forgetting a statement"):
            self._intent.unlink()
            sync_directory(self._directory)

    def _last_segment(self) -> Segment:
        self._check_open()
        if not self._segments or self._segments[-1].end >= self._segment_bytes:
            self._segments.append(Segment.create(self._directory / "segments", self._tree.size))
        return self._segments[-1]

    def _segment_of(self, index: int) -> Segment:
        self._check_open()
        if not 0 <= index < self._tree.size:
            raise NotFound(f"the log has no leaf {index}")
        return self._segments[bisect_right(self._segments, index, key=lambda segment: segment.first_index) - 1]

    def _check_open(self) -> None:
        if self._lock_fd < 0:
            raise PreconditionFailed("the log is closed")

    def _publish(self) -> SignedCheckpoint:
        self._check_open()
        size = self._tree.size
        if self._signed is not None and self._signed.checkpoint.size == size:
            return self._signed
        self._tiles.write(self._tree, self._tiled, size, bytes(self._untiled))
        signed = sign_checkpoint(Checkpoint(self._origin, size, self._tree.root(size)), self._key)
        self._tiles.store_checkpoint(signed.note)
        self._signed = signed
        full = size // TILE_WIDTH * TILE_WIDTH
        del self._untiled[: (full - self._tiled) * HASH_BYTES]
        self._tiled = full
        return signed

    def _recover(self) -> None:
        unfinished = self._unfinished()
        data = self._read_segments(unfinished)
        self._tree.extend(leaf_hash(leaf) for leaf in data)
        self._signed = self._stored_checkpoint()
        if unfinished is not None and unfinished >= self._tree.size:
            raise Corrupt(f"leaf {unfinished} was being forgotten and the disk does not hold it", remedy=RESTORE)
        if unfinished is not None:
            self._finish_forgetting(self._segment_of(unfinished), unfinished)
        self._tiled = self._tiles.full_until(self._tree.size)
        self._untiled = bytearray(b"".join(data[self._tiled :]))
        self._publish()

    def _read_segments(self, unfinished: int | None) -> list[bytes]:
        paths = sorted((self._directory / "segments").glob("*.segment"))
        data: list[bytes] = []
        for path in paths:
            if path.name != segment_name(len(data)):
                raise Corrupt(f"the segment of the log that begins with leaf {len(data)} is missing", remedy=RESTORE)
            segment, leaves = Segment.open(path, len(data), is_last=path is paths[-1], unfinished=unfinished)
            self._segments.append(segment)
            data += leaves
        return data

    def _unfinished(self) -> int | None:
        with disk_errors("read what was being forgotten"):
            text = self._intent.read_text() if self._intent.exists() else ""
        if text and not (text[:-1].isdecimal() and text.isascii() and text.endswith("\n")):
            raise Corrupt("the note of what was being forgotten is damaged", remedy="see which statement was to go")
        return int(text) if text else None

    def _stored_checkpoint(self) -> SignedCheckpoint | None:
        """The checkpoint on disk, verified and held against the tree (rule 2)."""
        note = self._tiles.stored_checkpoint()
        if note is None:
            return None
        try:
            stored = verify_checkpoint(note, self._origin, self._key.public_key())
        except FoedusError as err:
            raise Corrupt(f"the stored checkpoint is not one of log {self._origin} by its key", remedy=RESTORE) from err
        if stored.size > self._tree.size:
            raise Corrupt(
                f"a checkpoint of {stored.size} leaves was signed and the disk holds {self._tree.size}", remedy=RESTORE
            )
        if stored.root != self._tree.root(stored.size):
            raise Corrupt(f"the first {stored.size} leaves are not those that were signed", remedy=RESTORE)
        return SignedCheckpoint(stored, note)


def _lock(path: Path) -> int:
    with disk_errors("lock the log"):
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as err:
        os.close(fd)
        raise PreconditionFailed("another process has the log open", remedy="stop the other coordinator") from err
    return fd
