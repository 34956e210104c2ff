"""Malformed and hostile safetensors headers are refused before anything is allocated."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save

from tests.treaty.model_folder import safetensors
from treaty.errors import InvalidInput, LimitExceeded
from treaty.safetensors_header import Tensor, parse_header


def raw(header: object, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def entry(begin: int, end: int, dtype: str = "U8", shape: list[int] | None = None) -> dict[str, object]:
    return {"dtype": dtype, "shape": [end - begin] if shape is None else shape, "data_offsets": [begin, end]}


def test_what_the_reference_library_writes_is_read_in_file_order() -> None:
    data = save({"b": np.zeros((2, 3), np.float32), "a": np.zeros((4,), np.float16)}, metadata={"format": "pt"})
    header = parse_header(data, len(data))
    assert set(header.tensors) == {Tensor("b", "F32", (2, 3)), Tensor("a", "F16", (4,))}
    assert header.header_bytes + sum(tensor.bytes for tensor in header.tensors) == len(data)


def test_a_scalar_and_an_empty_tensor_are_accounted_for() -> None:
    data = safetensors({"scalar": ("F32", [], bytes(4)), "empty": ("BF16", [0, 7], b"")})
    assert [tensor.bytes for tensor in parse_header(data, len(data)).tensors] == [4, 0]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\0" * 7, "too short"),
        ((10 * 10**9).to_bytes(8, "little") + b"{}", "claims 10000000000 bytes, more than"),
        ((2**63).to_bytes(8, "little") + b"{}", "more than"),
        ((3).to_bytes(8, "little") + b"{}", "longer than its file"),
        (raw(b" {}"), "does not start with"),
        (raw(b'{"a":1,"a":1}'), "repeats a key"),
        (raw({"a": entry(0, 1), "b": entry(2, 3)}, b"xyz"), "leaves a hole or overlaps"),
        (raw({"a": entry(0, 2), "b": entry(1, 3)}, b"xyz"), "leaves a hole or overlaps"),
        (raw({"a": entry(1, 3)}, b"xyz"), "leaves a hole"),
        (raw({"a": entry(0, 2)}, b"xyz"), "account for .* of a file of"),
        (raw({"a": entry(0, 10 * 10**9)}, b"xyz"), "account for .* of a file of"),
        (raw({"a": entry(0, 3, "F32")}, b"xyz"), "do not fit its dtype and shape"),
        (raw({"a": entry(3, 0, "U8", [3])}, b"xyz"), "do not fit"),
        (raw({"a": entry(0, 3, "F4")}, b"xyz"), "unknown dtype"),
        (raw({"a": entry(0, 0, "F64", [2**52, 2**52])}), "absurd shape"),
        (raw({"a": entry(0, 0, "U8", [-1])}), "not a count"),
        (raw({"a": entry(0, 1, "U8", [1] * 9)}, b"x"), "more than 8 entries"),
        (raw({"a": {**entry(0, 1), "extra": 1}}, b"x"), "unknown field: 'extra'"),
        (raw({"": entry(0, 1)}, b"x"), "name is empty"),
        (raw({"__metadata__": {"a": 1}}), "metadata is not a map of texts"),
        (raw({"a": 1}), "not an object"),
    ],
)
def test_a_hostile_header_is_refused_in_one_line(data: bytes, message: str) -> None:
    with pytest.raises(InvalidInput, match=message) as refused:
        parse_header(data, len(data))
    assert "\n" not in str(refused.value)


def test_a_header_is_bounded_before_it_is_looked_for() -> None:
    with pytest.raises(LimitExceeded, match="header claims"):
        parse_header((16 * 2**20 + 1).to_bytes(8, "little"), 2**40)


@settings(max_examples=60)
@given(st.integers(0, 199), st.integers(1, 255))
def test_one_flipped_byte_never_makes_another_exception(position: int, flip: int) -> None:
    data = bytearray(safetensors({"a": ("F32", [4], bytes(16)), "b": ("U8", [3], b"abc")}))
    data[position % len(data)] ^= flip
    try:
        header = parse_header(bytes(data), len(data))
    except InvalidInput:
        return
    assert header.header_bytes + sum(tensor.bytes for tensor in header.tensors) == len(data)
