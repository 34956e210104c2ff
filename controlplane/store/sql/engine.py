"""Opens a database so that a commit is durable and a reader sees one moment.

SQLite: write-ahead log, `synchronous=FULL` (a commit is on disk when it returns), foreign keys, five seconds of
patience with another process. The driver's own transaction guessing is off: a writer begins IMMEDIATE, so it never
finds out half way that somebody else writes. PostgreSQL: psycopg 3, `synchronous_commit=on`, time limits on
statements and locks; a writer first takes one advisory lock, which gives several coordinators the same rule that
SQLite gives several processes, and a reader reads one snapshot.
"""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.pool import ConnectionPoolEntry, StaticPool

from treaty.errors import InvalidInput, Unavailable

BUSY_TIMEOUT_MS = 5_000
"""Longer than any of our transactions; a backup tool may hold the lock for a moment."""

STATEMENT_TIMEOUT_MS = 30_000
CONNECT_TIMEOUT_SECONDS = 10
READERS = 4
WRITER_LOCK = 0x666F6564_7573
"""Key of the advisory lock that a writing transaction holds: any number that nobody else in this database uses."""


def database_url(text: str) -> URL:
    """Parse a store's URL and fix its driver."""
    try:
        url = make_url(text)
    except ArgumentError:
        raise InvalidInput("not a database URL", remedy="use sqlite:////path or postgresql://user@host/name") from None
    match url.get_backend_name():
        case "sqlite":
            return url.set(drivername="sqlite")
        case "postgresql":
            return url.set(drivername="postgresql+psycopg")
        case _:
            raise InvalidInput("not a supported database", remedy="use sqlite:////path or postgresql://user@host/name")


def is_in_memory(url: URL) -> bool:
    return url.get_backend_name() == "sqlite" and url.database in (None, "", ":memory:")


def open_engine(url: URL) -> Engine:
    """An engine on `url`; nothing is connected yet."""
    if url.get_backend_name() == "postgresql":
        settings = f"-c statement_timeout={STATEMENT_TIMEOUT_MS} -c lock_timeout={BUSY_TIMEOUT_MS}"
        arguments = {
            "connect_timeout": CONNECT_TIMEOUT_SECONDS,
            "application_name": "foedus-coordinator",
            "options": f"{settings} -c synchronous_commit=on -c timezone=UTC",
        }
        engine = create_engine(url, connect_args=arguments, pool_size=READERS + 1, pool_pre_ping=True, pool_timeout=10)
        event.listen(engine, "begin", _begin_postgresql)
        return engine
    if is_in_memory(url):
        engine = create_engine(url, poolclass=StaticPool, connect_args={"check_same_thread": False})
    else:
        _make_private(Path(url.database or ""))
        engine = create_engine(url, pool_size=READERS + 1, connect_args={"check_same_thread": False})
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _make_private(file: Path) -> None:
    """Create the file for its owner alone; SQLite gives its write-ahead log the same mode."""
    try:
        file.touch(mode=0o600, exist_ok=True)
    except FileNotFoundError:
        raise Unavailable("the database's folder does not exist", remedy=f"create {file.parent}") from None
    except OSError as err:
        raise Unavailable("the database's file cannot be opened", remedy=f"check the permissions of {file}") from err


def reading(engine: Engine) -> Engine:
    """`engine` for transactions that only read, each in one snapshot."""
    if engine.dialect.name == "postgresql":
        return engine.execution_options(is_reader=True, isolation_level="REPEATABLE READ", postgresql_readonly=True)
    return engine.execution_options(is_reader=True)


def _begin_postgresql(connection: Connection) -> None:
    if not connection.get_execution_options().get("is_reader", False):
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({WRITER_LOCK})")


def _prepare_sqlite(connection: object, _entry: ConnectionPoolEntry) -> None:
    connection.isolation_level = None  # type: ignore[attr-defined]
    cursor = connection.cursor()  # type: ignore[attr-defined]
    for pragma in (
        f"busy_timeout={BUSY_TIMEOUT_MS}",
        "journal_mode=WAL",
        "synchronous=FULL",
        "foreign_keys=ON",
    ):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    is_reader = connection.get_execution_options().get("is_reader", False)
    connection.exec_driver_sql("BEGIN" if is_reader else "BEGIN IMMEDIATE")
