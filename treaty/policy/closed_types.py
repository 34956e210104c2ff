"""Reads closed, typed JSON into frozen dataclasses whose every field may be absent, and writes them back.

The dataclass is the schema: its annotations are `str`, `int`, `bool`, a dataclass of the same kind, or a tuple of
one of these, each `| None`. Refusals carry INP-001 (not an object), INP-002 (unknown field), INP-003 (another type)
or INP-004 (beyond the bound) and name the path.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from treaty.errors import InvalidInput, LimitExceeded
from treaty.policy.exact_json import MAX_INT64
from treaty.strict_json import JsonObject, JsonValue

T = TypeVar("T")
Reader = Callable[[JsonValue, str], object]

MAX_TEXT_CHARS = 512
MAX_ITEMS = 4096


def read(kind: type[T], value: JsonValue, path: str) -> T:
    """One object of dataclass `kind`. Raises InvalidInput as the module's docstring says."""
    if not isinstance(value, Mapping):
        raise InvalidInput(f"{path} is not an object", code="INP-001")
    readers = _readers(kind)  # type: ignore[arg-type]  # a class is hashable
    members: dict[str, object] = {}
    for name, member in value.items():
        reader = readers.get(name)
        if reader is None:
            shown = name if isinstance(name, str) and name.isprintable() and len(name) <= 64 else "<unprintable>"
            raise InvalidInput(f"{path} has an unknown field {shown!r}", code="INP-002")
        members[name] = reader(member, f"{path}.{name}")
    return kind(**members)


def written(value: object) -> JsonObject:
    """The JSON of a dataclass, absent fields left out."""
    members: JsonObject = {}
    for field in fields(value):  # type: ignore[arg-type]  # every caller passes a dataclass
        member = getattr(value, field.name)
        if member is not None:
            members[field.name] = _written(member)
    return members


def _written(value: Any) -> JsonValue:
    if is_dataclass(value):
        return written(value)
    if isinstance(value, tuple):
        return [_written(member) for member in value]
    return str(value) if isinstance(value, str) else value  # a StrEnum is written as its text


@cache
def _readers(kind: type) -> Mapping[str, Reader]:
    return {name: _reader(_without_none(hint)) for name, hint in get_type_hints(kind).items()}


def _without_none(hint: Any) -> Any:
    if get_origin(hint) is not types.UnionType:
        return hint
    (kind,) = (member for member in get_args(hint) if member is not types.NoneType)
    return kind


def _reader(hint: Any) -> Reader:
    if hint is str:
        return _text
    if hint is bool:
        return _boolean
    if hint is int:
        return _integer
    if get_origin(hint) is tuple:
        item = _reader(get_args(hint)[0])
        return lambda value, path: _items(item, value, path)
    return lambda value, path: read(hint, value, path)


def _text(value: JsonValue, path: str) -> str:
    if not isinstance(value, str):
        raise InvalidInput(f"{path} is not a text", code="INP-003")
    if len(value) > MAX_TEXT_CHARS:
        raise LimitExceeded(f"{path} is longer than {MAX_TEXT_CHARS} characters", code="INP-004")
    if not value.isascii():
        try:
            value.encode("utf-8")
        except UnicodeEncodeError:
            raise InvalidInput(f"{path} has a lone surrogate", code="INP-003") from None
    return value


def _boolean(value: JsonValue, path: str) -> bool:
    if not isinstance(value, bool):
        raise InvalidInput(f"{path} is not true or false", code="INP-003")
    return value


def _integer(value: JsonValue, path: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise InvalidInput(f"{path} is not an integer", code="INP-003")
    if abs(value) > MAX_INT64:
        raise LimitExceeded(f"{path} is outside ±(2^63 - 1)", code="INP-004")
    return value


def _items(item: Reader, value: JsonValue, path: str) -> tuple[object, ...]:
    if not isinstance(value, list):
        raise InvalidInput(f"{path} is not a list", code="INP-003")
    if len(value) > MAX_ITEMS:
        raise LimitExceeded(f"{path} has more than {MAX_ITEMS} entries", code="INP-004")
    return tuple(item(member, f"{path}[{index}]") for index, member in enumerate(value))
