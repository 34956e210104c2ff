"""Takes fields out of a JSON object strictly: each by its type and bound, and nothing may be left over.

    fields = Fields(parse_object(data, max_bytes=4096), "consent")
    nation = fields.text("nation", 2)
    until = fields.timestamp("until")
    fields.done()

A missing field, a field of another type (`true` is not an integer), one beyond its bound and an unknown one are
each refused by name. An absent optional field and an explicit `null` read as None.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from enum import StrEnum
from typing import TypeVar

from treaty import names
from treaty.errors import InvalidInput, LimitExceeded
from treaty.names import Digest
from treaty.strict_json import MAX_INTEGER, JsonObject, JsonValue

T = TypeVar("T")
E = TypeVar("E", bound=StrEnum)

_TIMESTAMP = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}Z\Z", re.ASCII)


def timestamp_text(moment: datetime) -> str:
    """RFC 3339 with `Z`, whole seconds. `moment` is aware."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def parse_timestamp(text: str) -> datetime:
    """Read what `timestamp_text` writes, and nothing else, as an aware UTC moment."""
    if not _TIMESTAMP.match(text):
        raise InvalidInput("not a timestamp like 2026-11-23T18:00:00Z")
    try:
        return datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    except ValueError:
        raise InvalidInput("not a timestamp like 2026-11-23T18:00:00Z") from None


class Fields:
    """The members of one object, taken out one by one; `done` refuses what nobody asked for."""

    def __init__(self, value: JsonValue, what: str) -> None:
        if not isinstance(value, dict):
            raise InvalidInput(f"{what} is not an object")
        self._members: JsonObject = dict(value)
        self._what = what

    def has(self, name: str) -> bool:
        """True while `name` is present, not null and not yet taken."""
        return self._members.get(name) is not None

    def value(self, name: str) -> JsonValue:
        """Take `name` whatever its type; the caller checks it."""
        try:
            return self._members.pop(name)
        except KeyError:
            raise InvalidInput(f"{self._what} lacks {name!r}") from None

    def text(self, name: str, max_chars: int) -> str:
        value = self.value(name)
        if not isinstance(value, str):
            raise self._wrong(name, "a text")
        if len(value) > max_chars:
            raise LimitExceeded(f"{self._what}: {name!r} is longer than {max_chars} characters")
        return value

    def integer(self, name: str, low: int = 0, high: int = MAX_INTEGER) -> int:
        value = self.value(name)
        if not isinstance(value, int) or isinstance(value, bool):
            raise self._wrong(name, "an integer")
        if not low <= value <= high:
            raise InvalidInput(f"{self._what}: {name!r} is not between {low} and {high}")
        return value

    def boolean(self, name: str) -> bool:
        value = self.value(name)
        if not isinstance(value, bool):
            raise self._wrong(name, "true or false")
        return value

    def digest(self, name: str) -> Digest:
        return names.digest(self.text(name, 71))

    def timestamp(self, name: str) -> datetime:
        return parse_timestamp(self.text(name, 20))

    def choice(self, name: str, kind: type[E]) -> E:
        text = self.text(name, 64)
        try:
            return kind(text)
        except ValueError:
            raise self._wrong(name, "one of " + ", ".join(kind)) from None

    def mapping(self, name: str) -> Fields:
        """The object `name`; the caller calls its `done` too."""
        return Fields(self.value(name), f"{self._what}.{name}")

    def list_of(
        self, name: str, read: Callable[[JsonValue], T], *, max_items: int, min_items: int = 0
    ) -> tuple[T, ...]:
        """The list `name`, each member through `read`, which raises InvalidInput for what it refuses."""
        value = self.value(name)
        if not isinstance(value, list):
            raise self._wrong(name, "a list")
        if len(value) > max_items:
            raise LimitExceeded(f"{self._what}: {name!r} has more than {max_items} entries")
        if len(value) < min_items:
            raise InvalidInput(f"{self._what}: {name!r} has fewer than {min_items} entries")
        return tuple(read(member) for member in value)

    def texts(self, name: str, *, max_items: int, max_chars: int, min_items: int = 0) -> tuple[str, ...]:
        def read(value: JsonValue) -> str:
            if not isinstance(value, str) or len(value) > max_chars:
                raise self._wrong(name, f"a list of texts of at most {max_chars} characters")
            return value

        return self.list_of(name, read, max_items=max_items, min_items=min_items)

    def optional_text(self, name: str, max_chars: int) -> str | None:
        return self.text(name, max_chars) if self._present(name) else None

    def optional_integer(self, name: str, low: int = 0, high: int = MAX_INTEGER) -> int | None:
        return self.integer(name, low, high) if self._present(name) else None

    def optional_digest(self, name: str) -> Digest | None:
        return self.digest(name) if self._present(name) else None

    def optional_timestamp(self, name: str) -> datetime | None:
        return self.timestamp(name) if self._present(name) else None

    def optional_mapping(self, name: str) -> Fields | None:
        return self.mapping(name) if self._present(name) else None

    def done(self) -> None:
        """Refuse whatever was not taken."""
        if self._members:
            unknown = min(self._members)
            shown = repr(unknown) if unknown.isprintable() and len(unknown) <= 64 else "one with an unprintable name"
            raise InvalidInput(f"{self._what} has an unknown field: {shown}")

    def _present(self, name: str) -> bool:
        if self._members.get(name) is not None:
            return True
        self._members.pop(name, None)
        return False

    def _wrong(self, name: str, expected: str) -> InvalidInput:
        return InvalidInput(f"{self._what}: {name!r} is not {expected}")
