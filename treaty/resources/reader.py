"""Reads parsed JSON by its shape, strictly; every refusal names the place.

Rules: unknown fields, missing ones and `null` where no None is meant are refused; types are exact (`true` is not an
integer, `"3"` is not 3, there are no fractions); every text, list and map has a bound. The rules that a dataclass
states about itself are its `__post_init__`, refused at the object's own place.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import NoReturn, TypeVar, assert_never, cast

from treaty.errors import InvalidInput, LimitExceeded
from treaty.fields import parse_timestamp
from treaty.resources.marks import FreeForm, Items, Text
from treaty.resources.shape import (
    BooleanShape,
    ChoiceShape,
    FreeShape,
    IntegerShape,
    ListShape,
    MapShape,
    ObjectShape,
    Shape,
    TextShape,
    TimestampShape,
)
from treaty.strict_json import JsonObject, JsonValue, canonical

_T = TypeVar("_T")


def refused(path: str, why: str, error: type[InvalidInput] = InvalidInput) -> InvalidInput:
    return error(f"{path}: {why}" if path else why)


def at(path: str, read: Callable[[], _T]) -> _T:
    try:
        return read()
    except InvalidInput as err:
        raise refused(path, err.message, type(err)) from None


def shown(value: object) -> str:
    return repr(value) if isinstance(value, str) and len(value) <= 64 and value.isprintable() else "<unprintable>"


def _read(shape: Shape, value: JsonValue, path: str) -> object:
    match shape:
        case TextShape(mark):
            return _read_text(mark, value, path)
        case IntegerShape():
            return _read_integer(shape, value, path)
        case BooleanShape():
            return value if isinstance(value, bool) else _wrong(path, "true or false")
        case TimestampShape():
            text = value if isinstance(value, str) else ""
            return at(path, lambda: parse_timestamp(text))
        case ChoiceShape(choices):
            found = next((choice for choice in choices if choice.value == value), None)
            return (
                found if found is not None and isinstance(value, str) else _wrong(path, f"one of {', '.join(choices)}")
            )
        case ListShape(member, mark):
            if not isinstance(value, list):
                _wrong(path, "a list")
            _check_count(mark, len(value), path)
            return tuple(_read(member, item, f"{path}[{index}]") for index, item in enumerate(value))
        case MapShape(key, member, mark):
            members = _object(value, path)
            _check_count(mark, len(members), path)
            return {cast("str", _read(key, k, path)): _read(member, v, f"{path}.{k}") for k, v in members.items()}
        case FreeShape(mark):
            return _read_free(mark, value, path)
        case ObjectShape():
            return read_object(shape, value, path)
        case _:
            assert_never(shape)


def read_object(shape: ObjectShape, value: JsonValue, path: str) -> object:
    members = _object(value, path)
    unknown = set(members) - {field.json_name for field in shape.fields}
    if unknown:
        raise refused(path, f"unknown field {shown(min(unknown, key=str))}")
    taken: dict[str, object] = {}
    for field in shape.fields:
        place = f"{path}.{field.json_name}"
        if field.json_name not in members:
            if field.is_required:
                raise refused(place, "is missing")
        elif members[field.json_name] is not None:
            taken[field.name] = _read(field.shape, members[field.json_name], place)
        elif field.is_nullable:
            taken[field.name] = None
        else:
            raise refused(place, "is null")
    return at(path, lambda: cast("object", shape.type(**taken)))


def _object(value: JsonValue, path: str) -> Mapping[str, JsonValue]:
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        _wrong(path, "an object")
    return value


def _read_text(mark: Text, value: JsonValue, path: str) -> str:
    if not isinstance(value, str):
        _wrong(path, "a text")
    if len(value) > mark.max_chars:
        raise refused(path, f"is longer than {mark.max_chars} characters", LimitExceeded)
    if len(value) < mark.min_chars:
        raise refused(path, "is empty" if not value else f"is shorter than {mark.min_chars} characters")
    if mark.parse is not None:
        parse_text = mark.parse
        return at(path, lambda: parse_text(value))
    if mark.pattern is not None and not re.fullmatch(mark.pattern, value):
        raise refused(path, f"{shown(value)} does not match {mark.pattern}")
    return value


def _read_integer(shape: IntegerShape, value: JsonValue, path: str) -> int:
    if shape.is_text:
        if not isinstance(value, str) or not value.isascii() or not value.isdigit() or len(value) > 15:
            _wrong(path, "an integer as a text")
        return int(value)
    if not isinstance(value, int) or isinstance(value, bool):
        _wrong(path, "an integer")
    if not shape.mark.low <= value <= shape.mark.high:
        raise refused(path, f"{value} is not between {shape.mark.low} and {shape.mark.high}")
    return value


def _read_free(mark: FreeForm, value: JsonValue, path: str) -> JsonObject:
    members = _object(value, path)
    _check_free(members, mark.max_depth, path)
    text = at(path, lambda: canonical(members))
    if len(text) > mark.max_bytes:
        raise refused(path, f"is larger than {mark.max_bytes} bytes", LimitExceeded)
    return dict(members)


def _check_free(value: object, depth_left: int, path: str) -> None:
    if depth_left == 0:
        raise refused(path, "is nested too deeply", LimitExceeded)
    if isinstance(value, Mapping):
        for key, member in value.items():
            if not isinstance(key, str):
                _wrong(path, "an object with texts for keys")
            _check_free(member, depth_left - 1, path)
    elif isinstance(value, list):
        for member in value:
            _check_free(member, depth_left - 1, path)
    elif value is not None and not isinstance(value, str | int):
        _wrong(path, "made of texts, integers, booleans, lists and objects")


def _check_count(mark: Items, count: int, path: str) -> None:
    if count > mark.high:
        raise refused(path, f"has more than {mark.high} members", LimitExceeded)
    if count < mark.low:
        raise refused(path, "is empty" if count == 0 else f"has fewer than {mark.low} members")


def _wrong(path: str, expected: str) -> NoReturn:
    raise refused(path, f"is not {expected}")
