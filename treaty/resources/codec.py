"""Turns resources into JSON and back.

JSON says camelCase, Python snake_case. Reading is strict (`treaty.resources.reader`): `spec.waves[0].nations[1]: 'fr'
is not a nation code …`. Writing leaves out what is None or empty by default, so that a document stays readable;
reading puts the same value back. Whether a resource makes sense among others is not asked here.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import TypeVar, cast

from treaty.errors import InvalidInput
from treaty.fields import timestamp_text
from treaty.resources.kinds import kind_named
from treaty.resources.meta import API_VERSION, AnyResource, Kind, ObjectMeta, Resource, SpecT, StatusT
from treaty.resources.reader import at, read_object, refused, shown
from treaty.resources.shape import IntegerShape, shape_of
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
        raise refused("", f"unknown field {shown(min(unknown, key=str))}")
    if value.get("apiVersion") != API_VERSION:
        raise refused("apiVersion", f"is not {API_VERSION}")
    kind_name = value.get("kind")
    kind = at("kind", lambda: kind_named(kind_name if isinstance(kind_name, str) else ""))
    for part in ("metadata", "spec"):
        if part not in value:
            raise refused(part, "is missing")
    return Resource(
        kind.name,
        load(ObjectMeta, value["metadata"], "metadata"),
        load(kind.spec, value["spec"], "spec"),
        load(kind.status, value.get("status", {}), "status"),
    )


def from_json_as(kind: Kind[SpecT, StatusT], document: bytes | Mapping[str, JsonValue]) -> Resource[SpecT, StatusT]:
    """Read a resource that must be of `kind`."""
    resource = from_json(document)
    return narrowed(kind, resource)


def narrowed(kind: Kind[SpecT, StatusT], resource: AnyResource) -> Resource[SpecT, StatusT]:
    """`resource`, known to be of `kind`."""
    if resource.kind != kind.name:
        raise refused("kind", f"is {resource.kind}, not {kind.name}")
    return cast("Resource[SpecT, StatusT]", resource)


def load(type_: type[_T], value: JsonValue, path: str) -> _T:
    """Read one dataclass of this package out of parsed JSON; `path` leads its refusals."""
    return cast("_T", read_object(shape_of(type_), value, path))


def dump(value: object) -> JsonObject:
    """The JSON object of one dataclass of this package."""
    return cast("JsonObject", _write(value))


def _write(value: object) -> JsonValue:
    if value is None or isinstance(value, bool | int | str):
        return str(value) if isinstance(value, str) else value
    if isinstance(value, datetime):
        return timestamp_text(value)
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
