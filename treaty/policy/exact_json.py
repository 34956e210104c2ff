"""JSON that holds nanoseconds: like `treaty.strict_json`, with integers of 64 bits and no floats at all.

Questions and registers count time in nanoseconds since 1970, which do not fit the 2^53 of RFC 8785. Nothing read or
written here is signed in this form or crosses a border: bundles are signed as bytes, asks by `treaty.strict_json`.
"""

from __future__ import annotations

import json
from typing import NoReturn

from treaty.errors import InvalidInput, LimitExceeded
from treaty.names import Digest, digest_of
from treaty.strict_json import JsonLike, JsonObject, JsonValue

MAX_INT64 = 2**63 - 1
MAX_DEPTH = 32


def parse_object(data: bytes, *, max_bytes: int) -> JsonObject:
    """Read one object: bounded, UTF-8, no repeated key, no fraction, integers within ±(2^63 - 1).

    Raises: LimitExceeded: too long or too deep. InvalidInput: anything else.
    """
    if len(data) > max_bytes:
        raise LimitExceeded(f"the JSON text has {len(data)} bytes, more than {max_bytes}")
    try:
        value: JsonValue = json.loads(
            data.decode("utf-8"),
            object_pairs_hook=_object,
            parse_int=_integer,
            parse_float=_refuse,
            parse_constant=_refuse,
        )
    except UnicodeDecodeError:
        raise InvalidInput("the JSON text is not UTF-8") from None
    except json.JSONDecodeError as err:
        raise InvalidInput(f"not a JSON text: line {err.lineno}, column {err.colno}") from None
    except RecursionError:
        raise LimitExceeded(f"the JSON text is nested deeper than {MAX_DEPTH}") from None
    if not isinstance(value, dict):
        raise InvalidInput("the JSON text is not an object")
    _check_depth(value, MAX_DEPTH)
    return value


def dump(value: JsonLike) -> bytes:
    """Sorted, compact bytes: equal values have equal bytes."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode("utf-8")


def digest(value: JsonLike) -> Digest:
    return digest_of(dump(value))


def merge(first: JsonObject, second: JsonObject) -> JsonObject:
    """Both, objects merged member by member; where both hold another value, `second` wins."""
    merged = dict(first)
    for key, value in second.items():
        present = merged.get(key)
        merged[key] = merge(present, value) if isinstance(present, dict) and isinstance(value, dict) else value
    return merged


def _check_depth(value: JsonValue, depth_left: int) -> None:
    if depth_left < 0:
        raise LimitExceeded(f"the JSON text is nested deeper than {MAX_DEPTH}")
    members = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for member in members:
        _check_depth(member, depth_left - 1)


def _object(pairs: list[tuple[str, JsonValue]]) -> JsonObject:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise InvalidInput("the JSON text repeats a key")
    return members


def _integer(digits: str) -> int:
    # The length first: converting a million digits is quadratic.
    if len(digits) > 20 or abs(int(digits)) > MAX_INT64:
        raise InvalidInput("the JSON text has an integer outside ±(2^63 - 1)")
    return int(digits)


def _refuse(_digits: str) -> NoReturn:
    raise InvalidInput("the JSON text has a fractional number; only integers are allowed")
