"""How values stand in columns: moments as microseconds, small structures as canonical JSON; and inserting once."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from sqlalchemy import Connection, Table, literal
from sqlalchemy.dialects import postgresql, sqlite

from treaty.errors import Corrupt, InvalidInput
from treaty.strict_json import JsonLike, JsonValue, canonical, parse

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_MAX_STRUCTURE_BYTES = 1024 * 1024


def micros(moment: datetime) -> int:
    return (moment - _EPOCH) // _MICROSECOND


def moment(value: int) -> datetime:
    return _EPOCH + timedelta(microseconds=value)


def micros_or_none(value: datetime | None) -> int | None:
    return None if value is None else micros(value)


def moment_or_none(value: int | None) -> datetime | None:
    return None if value is None else moment(value)


def packed(value: JsonLike) -> bytes:
    return canonical(value)


def unpacked(data: bytes) -> JsonValue:
    """Raises Corrupt: what we wrote does not read."""
    try:
        return parse(bytes(data), max_bytes=_MAX_STRUCTURE_BYTES)
    except InvalidInput as err:
        raise Corrupt("a stored structure does not read") from err


def insert_new(connection: Connection, table: Table, values: Mapping[str, object]) -> bool:
    """Insert a row unless its key is taken; whether it was inserted. Unlike a failed insert, it spoils nothing."""
    insert = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
    inserted = insert(table).values(dict(values)).on_conflict_do_nothing().returning(literal(1))
    return connection.execute(inserted).first() is not None
