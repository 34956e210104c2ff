"""Translates the database's failures into ours: what the caller should do, not what the driver said.

The driver's text can hold values of a statement; it stays in the cause and never becomes our message.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import URL, Engine, exc

from treaty.errors import ConflictError, Corrupt, FoedusError, InvalidInput, ResourceExhausted, Unavailable

_DISK_REMEDY = "free space where the database lies, then retry"
_UNAVAILABLE_REMEDY = "is it up, and reached from here? it is store_url of settings.yaml"
_RECOVER_REMEDY = "stop the coordinator and restore the database from a backup"

# The low byte is the primary result code. Source: https://sqlite.org/rescode.html
_SQLITE_EXHAUSTED = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_NOMEM}
_SQLITE_CORRUPT = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_SCHEMA}


@contextmanager
def translated(engine: Engine) -> Iterator[None]:
    """Let nothing of the driver or of SQLAlchemy past; which database did not answer is said, by its place."""
    try:
        yield
    except exc.SQLAlchemyError as err:
        found = meaning(err)
        if isinstance(found, Unavailable):
            raise Unavailable(f"{found.message}: {place(engine.url)}", remedy=_UNAVAILABLE_REMEDY) from err
        raise found from err


def place(url: URL) -> str:
    """Where a database is, without the user and the password."""
    if url.get_backend_name() == "sqlite":
        return f"SQLite in {url.database or 'memory'}"
    host = url.host or url.query.get("host") or "this machine"
    named = host if isinstance(host, str) else ", ".join(host)
    return f"PostgreSQL at {named}:{url.port or url.query.get('port') or 5432}, database {url.database}"


def meaning(err: exc.SQLAlchemyError) -> FoedusError:
    """The error of ours that says what `err` asks of the caller."""
    if isinstance(err, exc.TimeoutError):
        return Unavailable("no connection to the database was free in time")
    if not isinstance(err, exc.DBAPIError):
        return Corrupt("the database and this program do not fit together", remedy=_RECOVER_REMEDY)
    if isinstance(err, exc.IntegrityError):
        return ConflictError("another change got there first")
    if isinstance(err, exc.DataError):
        return InvalidInput("a value does not fit the database's column")
    if isinstance(err.orig, sqlite3.Error):
        return _sqlite_meaning(err.orig)
    return _postgresql_meaning(getattr(err.orig, "sqlstate", None) or "")


def _sqlite_meaning(err: sqlite3.Error) -> FoedusError:
    code = getattr(err, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
    if code in _SQLITE_EXHAUSTED:
        return ResourceExhausted("the disk is full or the database is at its limit", remedy=_DISK_REMEDY)
    if code in _SQLITE_CORRUPT:
        return Corrupt("the database file is damaged or is not a database", remedy=_RECOVER_REMEDY)
    if code == sqlite3.SQLITE_ERROR:
        return Corrupt("the database lacks a table or column that it should have", remedy=_RECOVER_REMEDY)
    return Unavailable("the database could not be used now")


def _postgresql_meaning(state: str) -> FoedusError:
    """Source: PostgreSQL 15, appendix A; the first two characters are the class."""
    match state[:2]:
        case "53":
            return ResourceExhausted("the database is out of disk, memory or connections", remedy=_DISK_REMEDY)
        case "XX":
            return Corrupt("the database reports damage", remedy=_RECOVER_REMEDY)
        case "42":
            return Corrupt("the database lacks a table or column that it should have", remedy=_RECOVER_REMEDY)
        case _:
            # Connection lost, serialization failure, deadlock, shutdown, read-only standby: all pass with time.
            return Unavailable("the database could not be used now")
