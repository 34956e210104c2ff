"""Turns resources into JSON and back, strictly.

Rules of reading:
1. an unknown field is refused, and so is a missing one without a default; `null` only where None is meant;
2. types are exact: `true` is not an integer, `"3"` is not 3, and there are no fractions;
3. every text, list, map and document has a bound;
4. a refusal names the place: `spec.waves[0].nations[1]: 'fr' is not a nation code …`.

JSON says camelCase, Python snake_case. Writing leaves out what is None or empty by default, so that a document stays
readable; reading puts the same value back. Whether a resource makes sense among others is not asked here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import NoReturn, TypeVar, assert_never, cast

from treaty.errors import InvalidInput, LimitExceeded
from treaty.fields import parse_timestamp, timestamp_text
from treaty.resources.kinds import kind_named
from treaty.resources.marks import FreeForm, Items, Text
from treaty.resources.meta import API_VERSION, AnyResource, Kind, ObjectMeta, Resource, SpecT, StatusT
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
    shape_of,
)
from treaty.strict_json import JsonObject, JsonValue, canonical, parse

MAX_RESOURCE_BYTES = 1024 * 1024
"""etcd, behind the custom resources, refuses objects above 1.5 MiB."""

_T = TypeVar("_T")


def to_json(resource: AnyResource) -> JsonObject:
    """The document of `resource`, as `-o json` prints it."""
    return {
        "apiVersion": resource.api_version,
        "kind": resource.kind,
        "metadata": dump(resource.metadata),
        "spec": dump(resource.spec),
        "status": dump(resource.status),
    }


def to_bytes(resource: AnyResource) -> bytes:
    """The canonical bytes of `resource`."""
    return canonical(to_json(resource))


def from_json(document: bytes | Mapping[str, JsonValue]) -> AnyResource:
    """Read a resource of any kind. `status` may be left out.

    Raises:
        LimitExceeded: larger than the bound of the document or of a field.
        InvalidInput: anything else that the rules refuse; the message names the place.
    """
    value = parse(document, max_bytes=MAX_RESOURCE_BYTES) if isinstance(document, bytes) else document
    if not isinstance(value, Mapping):
        raise InvalidInput("a resource is an object")
    unknown = set(value) - {"apiVersion", "kind", "metadata", "spec", "status"}
    if unknown:
        raise _refused("", f"unknown field {_shown(min(unknown, key=str))}")
    if value.get("apiVersion") != API_VERSION:
        raise _refused("apiVersion", f"is not {API_VERSION}")
    kind_name = value.get("kind")
    kind = _at("kind", lambda: kind_named(kind_name if isinstance(kind_name, str) else ""))
    for part in ("metadata", "spec"):
        if part not in value:
            raise _refused(part, "is missing")
    return Resource(
        kind.name,
        load(ObjectMeta, value["metadata"], "metadata"),
        load(kind.spec, value["spec"], "spec"),
        load(kind.status, value.get("status") or {}, "status"),
    )


def from_json_as(kind: Kind[SpecT, StatusT], document: bytes | Mapping[str, JsonValue]) -> Resource[SpecT, StatusT]:
    """Read a resource that must be of `kind`."""
    resource = from_json(document)
    return narrowed(kind, resource)


def narrowed(kind: Kind[SpecT, StatusT], resource: AnyResource) -> Resource[SpecT, StatusT]:
    """`resource`, known to be of `kind`."""
    if resource.kind != kind.name:
        raise _refused("kind", f"is {resource.kind}, not {kind.name}")
    return cast("Resource[SpecT, StatusT]", resource)


def load(type_: type[_T], value: JsonValue, path: str) -> _T:
    """Read one dataclass of this package out of parsed JSON; `path` leads its refusals."""
    return cast("_T", _read_object(shape_of(type_), value, path))


def dump(value: object) -> JsonObject:
    """The JSON object of one dataclass of this package."""
    return cast("JsonObject", _write(value))


def _refused(path: str, why: str, error: type[InvalidInput] = InvalidInput) -> InvalidInput:
    return error(f"{path}: {why}" if path else why)


def _at(path: str, read: Callable[[], _T]) -> _T:
    try:
        return read()
    except InvalidInput as err:
        raise _refused(path, err.message, type(err)) from None


def _shown(value: object) -> str:
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
            return _at(path, lambda: parse_timestamp(text))
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
            return _read_object(shape, value, path)
        case _:
            assert_never(shape)


def _read_object(shape: ObjectShape, value: JsonValue, path: str) -> object:
    members = _object(value, path)
    unknown = set(members) - {field.json_name for field in shape.fields}
    if unknown:
        raise _refused(path, f"unknown field {_shown(min(unknown, key=str))}")
    taken: dict[str, object] = {}
    for field in shape.fields:
        place = f"{path}.{field.json_name}"
        if field.json_name not in members:
            if field.is_required:
                raise _refused(place, "is missing")
        elif members[field.json_name] is not None:
            taken[field.name] = _read(field.shape, members[field.json_name], place)
        elif field.is_nullable:
            taken[field.name] = None
        else:
            raise _refused(place, "is null")
    return _at(path, lambda: cast("object", shape.type(**taken)))


def _object(value: JsonValue, path: str) -> Mapping[str, JsonValue]:
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        _wrong(path, "an object")
    return value


def _read_text(mark: Text, value: JsonValue, path: str) -> str:
    if not isinstance(value, str):
        _wrong(path, "a text")
    if len(value) > mark.max_chars:
        raise _refused(path, f"is longer than {mark.max_chars} characters", LimitExceeded)
    if len(value) < mark.min_chars:
        raise _refused(path, "is empty" if not value else f"is shorter than {mark.min_chars} characters")
    if mark.parse is not None:
        parse_text = mark.parse
        return _at(path, lambda: parse_text(value))
    if mark.pattern is not None and not re.fullmatch(mark.pattern, value):
        raise _refused(path, f"{_shown(value)} does not match {mark.pattern}")
    return value


def _read_integer(shape: IntegerShape, value: JsonValue, path: str) -> int:
    if shape.is_text:
        if not isinstance(value, str) or not value.isascii() or not value.isdigit() or len(value) > 15:
            _wrong(path, "an integer as a text")
        return int(value)
    if not isinstance(value, int) or isinstance(value, bool):
        _wrong(path, "an integer")
    if not shape.mark.low <= value <= shape.mark.high:
        raise _refused(path, f"{value} is not between {shape.mark.low} and {shape.mark.high}")
    return value


def _read_free(mark: FreeForm, value: JsonValue, path: str) -> JsonObject:
    members = _object(value, path)
    _check_free(members, mark.max_depth, path)
    text = _at(path, lambda: canonical(members))
    if len(text) > mark.max_bytes:
        raise _refused(path, f"is larger than {mark.max_bytes} bytes", LimitExceeded)
    return dict(members)


def _check_free(value: object, depth_left: int, path: str) -> None:
    if depth_left == 0:
        raise _refused(path, "is nested too deeply", LimitExceeded)
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
        raise _refused(path, f"has more than {mark.high} members", LimitExceeded)
    if count < mark.low:
        raise _refused(path, "is empty" if count == 0 else f"has fewer than {mark.low} members")


def _wrong(path: str, expected: str) -> NoReturn:
    raise _refused(path, f"is not {expected}")


def _write(value: object) -> JsonValue:
    if value is None or isinstance(value, bool | int | str):
        return str(value) if isinstance(value, str) else value
    if isinstance(value, datetime):
        return timestamp_text(value.astimezone(UTC))
    if isinstance(value, tuple | list):
        return [_write(member) for member in value]
    if isinstance(value, Mapping):
        return {str(key): _write(member) for key, member in value.items()}
    return _write_object(value)


def _write_object(value: object) -> JsonObject:
    shape = shape_of(type(value))
    written: JsonObject = {}
    for field in shape.fields:
        member = getattr(value, field.name)
        is_empty = member is None or (isinstance(member, tuple | Mapping) and not member)
        if is_empty and member == field.default:
            continue
        is_text = isinstance(field.shape, IntegerShape) and field.shape.is_text
        written[field.json_name] = str(member) if is_text else _write(member)
    return written
