"""Hypothesis strategies for every kind, made from the shapes: what a field may hold is what is tried."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import assert_never

from hypothesis import assume
from hypothesis import strategies as st

from treaty.errors import InvalidInput
from treaty.resources import AnyKind, AnyResource, FederatedRunSpec, Resource
from treaty.resources.marks import Text
from treaty.resources.meta import ObjectMeta
from treaty.resources.shape import (
    BooleanShape,
    ChoiceShape,
    FieldShape,
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

_MOMENTS = st.integers(0, 4_102_444_800).map(lambda seconds: datetime.fromtimestamp(seconds, UTC))
_FREE = st.dictionaries(
    st.text("abc_", min_size=1, max_size=4),
    st.recursive(
        st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.text(max_size=4),
        lambda inner: st.lists(inner, max_size=2),
        max_leaves=4,
    ),
    max_size=3,
)


def resources(kind: AnyKind) -> st.SearchStrategy[AnyResource]:
    return st.builds(
        Resource,
        st.just(kind.name),
        values(shape_of(ObjectMeta)),
        values(shape_of(kind.spec)),
        values(shape_of(kind.status)),
    )


def values(shape: Shape) -> st.SearchStrategy[object]:
    match shape:
        case TextShape(mark):
            return _texts(mark)
        case IntegerShape(mark, is_text):
            return st.integers(mark.low, min(mark.high, 10**15 - 1) if is_text else mark.high)
        case BooleanShape():
            return st.booleans()
        case TimestampShape():
            return _MOMENTS
        case ChoiceShape(choices):
            return st.sampled_from(list(choices))
        case ListShape(member, mark):
            return st.lists(values(member), min_size=mark.low, max_size=mark.low + 2).map(tuple)
        case MapShape(key, member, mark):
            return st.dictionaries(values(key), values(member), min_size=mark.low, max_size=mark.low + 2)
        case FreeShape():
            return _FREE
        case ObjectShape():
            return _objects(shape)
        case _:
            assert_never(shape)


def _texts(mark: Text) -> st.SearchStrategy[object]:
    pattern = mark.pattern
    if pattern is None:
        return st.text(max_size=min(mark.max_chars, 20), min_size=mark.min_chars).filter(_is_unicode)
    if pattern == "^[^@]+@[^@]+$":
        return st.from_regex(r"[a-z][a-z0-9-]{0,9}[a-z]@[1-9]\.0\.[1-9]", fullmatch=True)
    if pattern.startswith(r"^[0-9]+\."):
        return st.from_regex(r"[1-9]\.0\.[1-9]", fullmatch=True)
    return st.from_regex(pattern.removesuffix("$"), fullmatch=True).filter(
        lambda text: text.isascii() and mark.min_chars <= len(text) <= mark.max_chars
    )


def _is_unicode(text: str) -> bool:
    return not any(0xD800 <= ord(letter) <= 0xDFFF for letter in text)


@st.composite
def _objects(draw: st.DrawFn, shape: ObjectShape) -> object:
    taken = {field.name: draw(_members(field)) for field in shape.fields}
    if shape.type is FederatedRunSpec:
        taken |= {"quorum": 1, "rounds": 1}  # else nearly every draw would break a rule between its fields
    try:
        made: object = shape.type(**taken)
    except InvalidInput:
        assume(False)
        raise
    return made


def _members(field: FieldShape) -> st.SearchStrategy[object]:
    return st.none() | values(field.shape) if field.is_nullable else values(field.shape)
