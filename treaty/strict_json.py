"""JSON from a stranger: what may be said at all, and the one way to say it back.

Rules of `parse` (RFC 8259, narrowed):
1. the size is bounded before anything is read, the depth before anything recurses;
2. strict UTF-8 without a byte order mark, and no lone surrogates smuggled in as escapes;
3. a key appears once in an object;
4. integers lie within ±(2^53 - 1), which every JSON implementation keeps exactly; no NaN, no Infinity;
5. no floats, unless the caller asks for them (signed documents never do).

`canonical` is RFC 8785 (JCS) on the same values. This module knows no schema: `treaty.fields` takes fields out.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import NoReturn, TypeAlias

import rfc8785

from treaty.errors import InvalidInput, LimitExceeded

JsonValue: TypeAlias = "bool | int | float | str | list[JsonValue] | dict[str, JsonValue] | None"
JsonObject: TypeAlias = dict[str, JsonValue]

JsonLike: TypeAlias = "bool | int | float | str | Sequence[JsonLike] | Mapping[str, JsonLike] | None"
"""What `canonical` accepts: read-only containers too."""

MAX_INTEGER = 2**53 - 1
DEFAULT_MAX_DEPTH = 16

# A string or a bracket. The closing quote may be missing: a hostile text is then scanned once, not once per quote.
_STRING_OR_BRACKET = re.compile(r'"(?:[^"\\]++|\\.)*+"?|[\[\]{}]', re.DOTALL)


def parse(data: bytes, *, max_bytes: int, max_depth: int = DEFAULT_MAX_DEPTH, allow_floats: bool = False) -> JsonValue:
    """Parse one JSON text by the rules above.

    Raises:
        LimitExceeded: larger or deeper than the caller's bound.
        InvalidInput: anything else that the rules refuse.
    """
    if len(data) > max_bytes:
        raise LimitExceeded(f"the JSON text has {len(data)} bytes, more than {max_bytes}")
    try:
        text = bytes(data).decode("utf-8")
    except UnicodeDecodeError:
        raise InvalidInput("the JSON text is not UTF-8") from None
    _check_depth(text, max_depth)
    try:
        value: JsonValue = json.loads(
            text,
            object_pairs_hook=_object,
            parse_int=_integer,
            parse_float=_float if allow_floats else _refuse_float,
            parse_constant=_refuse_constant,
        )
    except json.JSONDecodeError as err:
        raise InvalidInput(f"not a JSON text: line {err.lineno}, column {err.colno}") from None
    if "\\u" in text:
        _check_surrogates(value)
    return value


def parse_object(
    data: bytes, *, max_bytes: int, max_depth: int = DEFAULT_MAX_DEPTH, allow_floats: bool = False
) -> JsonObject:
    """`parse`, for a text that must be an object."""
    value = parse(data, max_bytes=max_bytes, max_depth=max_depth, allow_floats=allow_floats)
    if not isinstance(value, dict):
        raise InvalidInput("the JSON text is not an object")
    return value


def canonical(value: JsonLike) -> bytes:
    """The canonical bytes of `value`; equal values have equal bytes. Floats are refused.

    Source: RFC 8785.
    """
    _check_canonical(value, DEFAULT_MAX_DEPTH * 2)
    try:
        return rfc8785.dumps(value)
    except (rfc8785.CanonicalizationError, UnicodeEncodeError):
        raise InvalidInput("the value has no canonical JSON form") from None


def _check_depth(text: str, max_depth: int) -> None:
    depth = 0
    for found in _STRING_OR_BRACKET.finditer(text):
        first = text[found.start()]
        if first in "[{":
            depth += 1
            if depth > max_depth:
                raise LimitExceeded(f"the JSON text is nested deeper than {max_depth}")
        elif first in "]}":
            depth -= 1


def _object(pairs: list[tuple[str, JsonValue]]) -> JsonObject:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise InvalidInput("the JSON text repeats a key")
    return members


def _integer(digits: str) -> int:
    # The length first: converting a million digits is quadratic.
    if len(digits) > 17 or abs(int(digits)) > MAX_INTEGER:
        raise InvalidInput("the JSON text has an integer outside ±(2^53 - 1)")
    return int(digits)


def _float(digits: str) -> float:
    value = float(digits) if len(digits) <= 64 else float("inf")
    if value in (float("inf"), float("-inf")):
        raise InvalidInput("the JSON text has a number that is too large or too long")
    return value


def _refuse_float(_digits: str) -> NoReturn:
    raise InvalidInput("the JSON text has a fractional number; only integers are allowed")


def _refuse_constant(name: str) -> NoReturn:
    raise InvalidInput(f"the JSON text has {name}, which is not JSON")


def _check_surrogates(value: JsonValue) -> None:
    try:
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        raise InvalidInput("the JSON text has a lone surrogate") from None


def _check_canonical(value: JsonLike, depth_left: int) -> None:
    if isinstance(value, float):
        raise InvalidInput("a signed document has no fractional numbers")
    if value is None or isinstance(value, bool | int | str):
        return
    if depth_left == 0:
        raise LimitExceeded("the value is nested too deeply")
    for member in value.values() if isinstance(value, Mapping) else value:
        _check_canonical(member, depth_left - 1)
