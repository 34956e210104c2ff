"""The journal's file: SQLite in WAL mode, opened, migrated, and written in whole transactions.

Rules:
1. a durable write is on disk (synchronous=FULL) when `writing` returns; counters may be written with `durable=False`,
   which survives a killed process but not a power cut, and costs a hundredth;
2. one connection per process behind one lock, so any thread may call; another process (the CLI) may write at any time
   and is noticed by `PRAGMA data_version`;
3. a file of an earlier version is brought forward in one transaction; one of a later version is refused;
4. SQLite's errors stop here: a full disk is ResourceExhausted, a lock held too long Unavailable, the rest Corrupt.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from treaty.errors import Corrupt, FoedusError, PreconditionFailed, ResourceExhausted, Unavailable

SCHEMA_VERSION = 2
BUSY_SECONDS = 5

_SCHEMA = """
CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
CREATE TABLE documents (
    kind TEXT NOT NULL, name TEXT NOT NULL, body BLOB NOT NULL, generation INTEGER NOT NULL, updated_at TEXT NOT NULL,
    PRIMARY KEY (kind, name)) STRICT;
CREATE TABLE entries (
    series TEXT NOT NULL, sequence INTEGER NOT NULL, body BLOB NOT NULL, at TEXT NOT NULL,
    PRIMARY KEY (series, sequence)) STRICT;
CREATE TABLE directives (
    epoch INTEGER NOT NULL, counter INTEGER NOT NULL, subject TEXT NOT NULL, content_digest TEXT NOT NULL,
    message BLOB NOT NULL, state TEXT NOT NULL, codes TEXT NOT NULL, accepted_at TEXT NOT NULL,
    PRIMARY KEY (epoch, counter)) STRICT;
CREATE TABLE receipts (
    digest TEXT PRIMARY KEY, crossing TEXT NOT NULL, subject TEXT NOT NULL, run TEXT NOT NULL, round INTEGER NOT NULL,
    size_bytes INTEGER NOT NULL, envelope BLOB NOT NULL, issued_at TEXT NOT NULL, log_index INTEGER) STRICT;
CREATE INDEX receipts_by_subject ON receipts (subject);
CREATE TABLE counts (class TEXT PRIMARY KEY, messages INTEGER NOT NULL, bytes INTEGER NOT NULL,
    tallied_messages INTEGER NOT NULL, tallied_bytes INTEGER NOT NULL) STRICT;
CREATE TABLE tallies (sequence INTEGER PRIMARY KEY, envelope BLOB NOT NULL, until TEXT NOT NULL) STRICT;
CREATE TABLE outbox (
    position INTEGER PRIMARY KEY AUTOINCREMENT, digest TEXT NOT NULL UNIQUE, subject TEXT NOT NULL,
    message BLOB NOT NULL, log_index INTEGER, refusal TEXT NOT NULL) STRICT;
"""
_OWED = """
CREATE TABLE owed (
    digest TEXT PRIMARY KEY, log_index INTEGER NOT NULL, leaf_hash BLOB NOT NULL, waits INTEGER NOT NULL,
    growths INTEGER NOT NULL, failure TEXT NOT NULL) STRICT
"""
_STEPS = (_SCHEMA, _OWED)
"""What leads from each version to the next; the first from an empty file."""


class Database:
    """One open journal file."""

    def __init__(self, path: Path) -> None:
        self._lock = threading.RLock()
        with translated():
            path.touch(mode=0o600, exist_ok=True)
            self._connection = sqlite3.connect(
                path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
            )
            self._connection.execute("PRAGMA journal_mode=WAL")
            self._connection.execute("PRAGMA synchronous=FULL")
            self._migrate()
            self._seen = self._data_version()

    def _migrate(self) -> None:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            (version,) = self._connection.execute("PRAGMA user_version").fetchone()
            if not 0 <= version <= SCHEMA_VERSION:
                raise PreconditionFailed(
                    f"the journal is of version {version}; this program knows {SCHEMA_VERSION}",
                    remedy="install the agent version that wrote it, or a later one",
                )
            for step in _STEPS[version:]:
                for command in step.split(";"):
                    self._connection.execute(command)
            if version < SCHEMA_VERSION:
                self._connection.execute(f"PRAGMA user_version={SCHEMA_VERSION}")
        except BaseException:
            self._connection.execute("ROLLBACK")
            raise
        self._connection.execute("COMMIT")

    @contextmanager
    def writing(self, *, durable: bool = True) -> Iterator[sqlite3.Connection]:
        """One transaction: all of the body or nothing, on disk when it ends."""
        with self._lock, translated():
            if not durable:
                self._connection.execute("PRAGMA synchronous=NORMAL")
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                try:
                    yield self._connection
                except BaseException:
                    self._connection.execute("ROLLBACK")
                    raise
                self._connection.execute("COMMIT")
            finally:
                if not durable:
                    self._connection.execute("PRAGMA synchronous=FULL")

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        with self._lock, translated():
            yield self._connection

    def is_changed_elsewhere(self) -> bool:
        """Whether another connection wrote since the last time this was asked."""
        with self._lock, translated():
            version = self._data_version()
            is_changed, self._seen = version != self._seen, version
            return is_changed

    def _data_version(self) -> int:
        (version,) = self._connection.execute("PRAGMA data_version").fetchone()
        return int(version)

    def close(self) -> None:
        with self._lock, translated():
            self._connection.close()


@contextmanager
def translated() -> Iterator[None]:
    """SQLite's and the file system's failures as ours."""
    try:
        yield
    except FoedusError:
        raise
    except sqlite3.OperationalError as err:
        raise _operational(err) from err
    except sqlite3.Error as err:
        raise Corrupt("the agent's journal cannot be read or written", remedy="restore it from a backup") from err


def _operational(err: sqlite3.OperationalError) -> FoedusError:
    match getattr(err, "sqlite_errorname", ""):
        case "SQLITE_FULL" | "SQLITE_IOERR_WRITE" | "SQLITE_IOERR_FSYNC":
            return ResourceExhausted("no room to write the agent's journal", remedy="free disk space")
        case "SQLITE_BUSY" | "SQLITE_LOCKED":
            return Unavailable(f"the agent's journal was locked for more than {BUSY_SECONDS} s")
        case "SQLITE_CANTOPEN" | "SQLITE_READONLY":
            return PreconditionFailed("the agent's journal cannot be opened for writing", remedy="check --home")
    return Corrupt("the agent's journal cannot be read or written", remedy="restore it from a backup")
