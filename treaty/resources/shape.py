"""Reads a dataclass's annotations once into a tree of shapes, which the codec and the schema both walk.

Supported: text (and the named types of `treaty.names`), integers, booleans, timestamps, enumerations, optional
values, `tuple[X, ...]`, `dict[str, X]`, free-form objects and other dataclasses. Anything else is a mistake in this
package and raises TypeError when the shape is first built.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Annotated, NewType, TypeAlias, Union, get_args, get_origin

from treaty.resources.marks import BY_TYPE, Between, FreeForm, IntegerAsText, Items, Text


@dataclasses.dataclass(frozen=True, slots=True)
class TextShape:
    mark: Text


@dataclasses.dataclass(frozen=True, slots=True)
class IntegerShape:
    mark: Between
    is_text: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class BooleanShape:
    pass


@dataclasses.dataclass(frozen=True, slots=True)
class TimestampShape:
    pass


@dataclasses.dataclass(frozen=True, slots=True)
class ChoiceShape:
    choices: type[StrEnum]


@dataclasses.dataclass(frozen=True, slots=True)
class ListShape:
    member: Shape
    mark: Items


@dataclasses.dataclass(frozen=True, slots=True)
class MapShape:
    key: Shape
    member: Shape
    mark: Items


@dataclasses.dataclass(frozen=True, slots=True)
class FreeShape:
    mark: FreeForm


@dataclasses.dataclass(frozen=True, slots=True)
class FieldShape:
    """A member: `name` in Python, `json_name` in JSON; `is_nullable` where None is allowed.

    `default` is what an absent member reads as; writing may leave that value out.
    """

    name: str
    json_name: str
    shape: Shape
    is_required: bool
    is_nullable: bool
    default: object


@dataclasses.dataclass(frozen=True, slots=True)
class ObjectShape:
    type: type
    fields: tuple[FieldShape, ...]


Shape: TypeAlias = (
    TextShape
    | IntegerShape
    | BooleanShape
    | TimestampShape
    | ChoiceShape
    | ListShape
    | MapShape
    | FreeShape
    | ObjectShape
)


def camel_case(name: str) -> str:
    head, *rest = name.split("_")
    return head + "".join(part.capitalize() for part in rest)


_shapes: dict[type, ObjectShape] = {}


def shape_of(type_: type) -> ObjectShape:
    """The shape of dataclass `type_`. Built once for each type."""
    if type_ not in _shapes:
        # JsonValue names itself in its own definition; what is in a free-form object is not looked at here.
        hints = typing.get_type_hints(type_, localns={"JsonValue": object}, include_extras=True)
        _shapes[type_] = ObjectShape(type_, tuple(_field(f, hints[f.name]) for f in dataclasses.fields(type_)))
    return _shapes[type_]


def _field(field: dataclasses.Field[object], hint: object) -> FieldShape:
    bare, is_nullable = _without_none(hint)
    default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
    is_required = default is dataclasses.MISSING
    return FieldShape(field.name, camel_case(field.name), _shape(bare, ()), is_required, is_nullable, default)


def _without_none(hint: object) -> tuple[object, bool]:
    if get_origin(hint) in (Union, types.UnionType):
        others = [arg for arg in get_args(hint) if arg is not type(None)]
        if len(others) != 1:
            raise TypeError(f"a field is of one type or none: {hint}")
        return others[0], True
    return hint, False


def _shape(hint: object, marks: tuple[object, ...]) -> Shape:
    origin = get_origin(hint)
    if origin is Annotated:
        bare, *inner = get_args(hint)
        return _shape(bare, (*marks, *inner))
    for mark in marks:
        if isinstance(mark, FreeForm):
            return FreeShape(mark)
    if origin is tuple:
        return ListShape(_shape(get_args(hint)[0], ()), _mark(marks, Items, Items()))
    if origin in (dict, Mapping):
        key, member = get_args(hint)
        return MapShape(_shape(key, ()), _shape(member, ()), _mark(marks, Items, Items()))
    return _scalar(hint, marks)


def _scalar(hint: object, marks: tuple[object, ...]) -> Shape:
    if isinstance(hint, NewType):
        return TextShape(_mark(marks, Text, BY_TYPE[hint]))
    if hint is str:
        return TextShape(_mark(marks, Text, Text()))
    if hint is int:
        return IntegerShape(_mark(marks, Between, Between()), any(isinstance(m, IntegerAsText) for m in marks))
    if hint is bool:
        return BooleanShape()
    if hint is datetime:
        return TimestampShape()
    if isinstance(hint, type) and issubclass(hint, StrEnum):
        return ChoiceShape(hint)
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return shape_of(hint)
    raise TypeError(f"no shape for {hint}")


_MarkT = typing.TypeVar("_MarkT")


def _mark(marks: tuple[object, ...], type_: type[_MarkT], default: _MarkT) -> _MarkT:
    return next((mark for mark in marks if isinstance(mark, type_)), default)
