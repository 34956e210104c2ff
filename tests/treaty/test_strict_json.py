"""What strict JSON refuses, and that canonical bytes come back as the same value."""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum

import pytest
from hypothesis import given
from hypothesis import strategies as st

from treaty.errors import InvalidInput, LimitExceeded
from treaty.fields import Fields, parse_timestamp, timestamp_text
from treaty.strict_json import JsonValue, canonical, parse, parse_object

_scalars = st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.text(max_size=8)
_values = st.recursive(
    _scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)


@given(_values)
def test_a_canonical_text_parses_to_the_value_it_came_from(value: JsonValue) -> None:
    assert parse(canonical(value), max_bytes=1 << 20, max_depth=32) == value


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b'{"a":1,"a":1}', "repeats a key"),
        (b'{"a":{"b":1,"\\u0062":2}}', "repeats a key"),
        (b"[NaN]", "NaN, which is not JSON"),
        (b"[-Infinity]", "-Infinity, which is not JSON"),
        (b"[1.0]", "fractional number"),
        (b"[1e3]", "fractional number"),
        (b"[9007199254740992]", "outside"),
        (b"[" + b"9" * 5000 + b"]", "outside"),
        (b'["\xff"]', "not UTF-8"),
        (b"\xef\xbb\xbf[]", "not a JSON text"),
        (b'["\\ud800"]', "lone surrogate"),
        (b'{"\\ud800":1}', "lone surrogate"),
        (b'["a\nb"]', "not a JSON text"),
        (b"[] []", "not a JSON text"),
        (b"[01]", "not a JSON text"),
        (b"", "not a JSON text"),
    ],
)
def test_what_the_rules_refuse_is_named_in_one_line(text: bytes, message: str) -> None:
    with pytest.raises(InvalidInput, match=message) as refused:
        parse(text, max_bytes=10_000)
    assert "\n" not in str(refused.value)


def test_depth_is_bounded_before_recursion_and_brackets_in_strings_do_not_count() -> None:
    with pytest.raises(LimitExceeded, match="nested deeper than 16"):
        parse(b"[" * 1_000_000, max_bytes=1_000_000)
    assert parse(b'["[[[[[[[[[[[[[[[[[[[[[[\\"[["]', max_bytes=100) == ['[[[[[[[[[[[[[[[[[[[[[["[[']


def test_an_unterminated_string_of_escaped_quotes_is_scanned_once() -> None:
    with pytest.raises(InvalidInput, match="not a JSON text"):
        parse(b'"' + b'\\"' * 1_000_000 + b"\\", max_bytes=3_000_000)


def test_size_is_bounded_first() -> None:
    with pytest.raises(LimitExceeded, match="5 bytes, more than 4"):
        parse(b'"\xff\xff"x', max_bytes=4)


def test_floats_are_read_only_where_the_caller_asks_and_never_infinite() -> None:
    assert parse(b"[0.5]", max_bytes=10, allow_floats=True) == [0.5]
    with pytest.raises(InvalidInput, match="too large"):
        parse(b"[1e999]", max_bytes=10, allow_floats=True)


def test_canonical_form_refuses_floats_and_sorts_keys() -> None:
    assert canonical({"b": 1, "a": [True, None]}) == b'{"a":[true,null],"b":1}'
    with pytest.raises(InvalidInput, match="no fractional numbers"):
        canonical({"a": [0.5]})
    with pytest.raises(InvalidInput, match="no canonical JSON form"):
        canonical("\ud800")


def test_a_text_that_is_not_an_object_is_refused_where_one_is_needed() -> None:
    with pytest.raises(InvalidInput, match="not an object"):
        parse_object(b"[]", max_bytes=2)


class Colour(StrEnum):
    RED = "red"


def test_fields_are_taken_by_type_and_bound_and_nothing_may_be_left_over() -> None:
    fields = Fields(
        {"a": "x", "n": 3, "ok": True, "c": "red", "l": ["p"], "m": {"z": 1}, "none": None, "more": 1}, "thing"
    )
    assert fields.text("a", 1) == "x"
    assert fields.integer("n", 0, 3) == 3
    assert fields.boolean("ok") is True
    assert fields.choice("c", Colour) is Colour.RED
    assert fields.texts("l", max_items=1, max_chars=1) == ("p",)
    inner = fields.mapping("m")
    assert inner.integer("z") == 1
    inner.done()
    assert fields.optional_text("none", 3) is None
    assert fields.optional_integer("absent") is None
    with pytest.raises(InvalidInput, match="thing has an unknown field: 'more'"):
        fields.done()


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({}, "thing lacks 'n'"),
        ({"n": True}, "'n' is not an integer"),
        ({"n": "3"}, "'n' is not an integer"),
        ({"n": -1}, "'n' is not between 0 and 9"),
        ([], "thing is not an object"),
    ],
)
def test_a_wrong_integer_is_refused_by_name(value: JsonValue, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        Fields(value, "thing").integer("n", 0, 9)


def test_timestamps_have_one_spelling() -> None:
    noon = datetime(2026, 11, 23, 12, 0, 0, tzinfo=UTC)
    assert parse_timestamp(timestamp_text(noon)) == noon
    for wrong in (
        "2026-11-23T12:00:00+00:00",
        "2026-11-23 12:00:00Z",
        "2026-13-23T12:00:00Z",
        "2026-11-23T12:00:00Z\n",
    ):
        with pytest.raises(InvalidInput, match="not a timestamp"):
            parse_timestamp(wrong)
