"""Updates as they arrive: a store of their own, which no pull can reach.

An update of a nation in a round is one file, `runs/<run>/<round>/<NATION>.update`: eight bytes little-endian header
length, the header, then the chunks in the header's order. While it arrives it lies in `incoming/`; its name appears
only when it is whole and on the disk, and never twice. It is deleted with its round or run, by the retention rule.

Whether header and chunks are what the plan allows is checked by the caller (treaty/update.py) before `append`.
"""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from treaty.durable import PARTIAL_SUFFIX, disk_errors, remove_partials, sync_directory, write_all
from treaty.errors import ConflictError, InvalidInput, LimitExceeded, NotFound
from treaty.names import PartyCode, RunId, nation_code, run_id

LENGTH_BYTES = 8
MAX_HEADER_BYTES = 2**20
_SUFFIX = ".update"


@dataclass(frozen=True, slots=True)
class UpdateKey:
    """Whose contribution to what. `round` counts from 1."""

    run: RunId
    round: int
    nation: PartyCode

    def __post_init__(self) -> None:
        run_id(self.run)
        nation_code(self.nation)
        if not 1 <= self.round <= 10**6:
            raise InvalidInput("a round is a number from 1 to 1000000")


class UpdateWriter:
    """One arriving update. Use as a context manager: without `commit` nothing of it stays."""

    def __init__(self, partial: Path, target: Path) -> None:
        self._partial = partial
        self._target = target
        with disk_errors("opening an update"):
            self._file = partial.open("xb", buffering=0)

    def __enter__(self) -> UpdateWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        with suppress(OSError):
            self._partial.unlink(missing_ok=True)

    def append(self, data: bytes) -> None:
        """Add the next bytes. Raises: ResourceExhausted: the disk is full."""
        with disk_errors("spooling an update"):
            write_all(self._file.fileno(), data)

    def commit(self) -> None:
        """Make the update visible, durable on return. Raises: ConflictError: another was first."""
        with disk_errors("committing an update"):
            os.fsync(self._file.fileno())
            try:
                # A hard link and not a rename, which would replace an update that was already counted.
                os.link(self._partial, self._target)
            except FileExistsError:
                raise ConflictError("this nation's update of this round was already accepted") from None
            sync_directory(self._target.parent)


class UpdateSpool:
    """Updates under `root`, which it creates; what a crash left unfinished is removed at the start."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._incoming = root / "incoming"
        with disk_errors("opening the update spool"):
            self._incoming.mkdir(parents=True, exist_ok=True)
            remove_partials(self._incoming)

    def begin(self, key: UpdateKey, header: bytes) -> UpdateWriter:
        """Start to take an update. Raises: ConflictError: one was already accepted for `key`."""
        if len(header) > MAX_HEADER_BYTES:
            raise LimitExceeded(f"an update's header is larger than {MAX_HEADER_BYTES} bytes")
        target = self._target(key)
        with disk_errors("opening an update"):
            if target.exists():
                raise ConflictError("this nation's update of this round was already accepted")
            target.parent.mkdir(parents=True, exist_ok=True)
            for directory in (target.parent.parent, self._root / "runs", self._root):
                sync_directory(directory)
        writer = UpdateWriter(self._incoming / f"{uuid4().hex}{PARTIAL_SUFFIX}", target)
        try:
            writer.append(len(header).to_bytes(LENGTH_BYTES, "little") + header)
        except BaseException:
            writer.__exit__()
            raise
        return writer

    def path(self, key: UpdateKey) -> Path:
        """The file of an accepted update. Raises: NotFound."""
        path = self._target(key)
        with disk_errors("looking for an update"):
            if not path.is_file():
                raise NotFound(f"there is no update of {key.nation} for round {key.round} of {key.run}")
        return path

    def accepted(self, run: RunId, round_number: int) -> tuple[PartyCode, ...]:
        """The nations whose update of the round is whole, sorted."""
        with disk_errors("listing updates"):
            found = self._round(run, round_number).glob(f"*{_SUFFIX}")
            return tuple(sorted(PartyCode(path.name.removesuffix(_SUFFIX)) for path in found))

    def discard(self, key: UpdateKey) -> None:
        """Remove one nation's update, which nobody has counted. Idempotent."""
        target = self._target(key)
        with disk_errors("discarding an update"):
            target.unlink(missing_ok=True)
            if target.parent.exists():
                sync_directory(target.parent)

    def delete_round(self, run: RunId, round_number: int) -> None:
        """Remove a round's updates. Idempotent."""
        self._remove(self._round(run, round_number))

    def delete_run(self, run: RunId) -> None:
        """Remove all updates of a run. Idempotent."""
        self._remove(self._run(run))

    def runs(self) -> tuple[RunId, ...]:
        """The runs that have updates, for the retention sweep."""
        with disk_errors("listing updates"):
            return tuple(sorted(run_id(path.name) for path in (self._root / "runs").glob("*")))

    def _remove(self, directory: Path) -> None:
        with disk_errors("deleting updates"):
            if directory.exists():
                shutil.rmtree(directory)
                sync_directory(directory.parent)

    def _run(self, run: RunId) -> Path:
        return self._root / "runs" / run_id(run)

    def _round(self, run: RunId, round_number: int) -> Path:
        return self._run(run) / str(round_number)

    def _target(self, key: UpdateKey) -> Path:
        return self._round(key.run, key.round) / f"{key.nation}{_SUFFIX}"
