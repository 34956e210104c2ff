"""Clipping, fixed point and the checks on chunks: no NaN, no excess, no bit that the plan does not allow."""

from __future__ import annotations

import hashlib
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from tests.treaty.test_update import a_spec
from treaty.errors import InvalidInput
from treaty.names import PartyCode
from treaty.update import UpdateHeader, UpdateSpec, open_bits_per_round, parse_header, validate_header
from treaty.update_layout import TensorSpec
from treaty.update_values import (
    UpdateVerifier,
    build_header,
    check_norm,
    chunk_bytes,
    clip,
    dequantise,
    l2_norm,
    quantise,
    sum_of_squares,
    validate_chunk,
)

Arrays = dict[str, NDArray[np.float32]]
SPEC = a_spec()
CLIP_NORM = SPEC.clip_norm_micro / 1e6

values = st.floats(-(2.0**60), 2.0**60, width=32)
deltas = st.fixed_dictionaries({t.name: arrays(np.float32, t.shape, elements=values) for t in SPEC.tensors})


def a_delta(scale: float = 0.01) -> Arrays:
    random = np.random.default_rng(7)
    return {t.name: (random.standard_normal(t.shape) * scale).astype(np.float32) for t in SPEC.tensors}


def sent(delta: Arrays, spec: UpdateSpec = SPEC) -> tuple[UpdateHeader, list[bytes]]:
    chunks = quantise(delta, spec)
    return build_header(chunks, spec, nation=PartyCode("FR"), examples=32), [chunk_bytes(chunk) for chunk in chunks]


def forged(words: list[int], spec: UpdateSpec = SPEC) -> tuple[UpdateHeader, list[bytes]]:
    """An update whose digests are right and whose values are the forger's."""
    stream = np.zeros(spec.values, "<i4")
    stream[: len(words)] = words
    length = spec.chunk_bytes // 4
    chunks = [stream[start : start + length] for start in range(0, spec.values, length)]
    return build_header(chunks, spec, nation=PartyCode("FR"), examples=1), [chunk.tobytes() for chunk in chunks]


@given(deltas)
def test_any_finite_delta_clipped_is_within_the_bound_and_accepted(delta: Arrays) -> None:
    clipped = clip(delta, SPEC.clip_norm_micro)
    header, chunks = sent(clipped)
    validate_header(parse_header(header.encoded), SPEC)
    verifier = UpdateVerifier(header, SPEC)
    for index, data in enumerate(chunks):
        verifier.accept(index, data)
    verifier.finish()
    assert l2_norm(clipped) <= CLIP_NORM


@given(deltas)
def test_fixed_point_loses_less_than_one_step_and_float32_rounding(delta: Arrays) -> None:
    clipped = clip(delta, SPEC.clip_norm_micro)
    back = dequantise(quantise(clipped, SPEC), SPEC)
    for tensor in SPEC.tensors:
        assert back[tensor.name].shape == tensor.shape
        assert np.abs(back[tensor.name] - clipped[tensor.name]).max() <= SPEC.step + CLIP_NORM * 2**-23


def test_a_delta_within_the_clip_norm_is_not_scaled() -> None:
    delta = a_delta()
    clipped = clip(delta, SPEC.clip_norm_micro)
    assert all(np.array_equal(clipped[name], delta[name]) for name in delta)


def test_a_delta_beyond_the_clip_norm_keeps_its_direction() -> None:
    delta = a_delta(scale=10)
    clipped = clip(delta, SPEC.clip_norm_micro)
    ratio = l2_norm(clipped) / l2_norm(delta)
    assert math.isclose(l2_norm(clipped), CLIP_NORM, rel_tol=1e-6)
    assert all(np.allclose(clipped[name], delta[name] * ratio, rtol=1e-5) for name in delta)


@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
def test_a_delta_with_a_value_that_is_not_finite_is_neither_clipped_nor_quantised(poison: float) -> None:
    delta = a_delta()
    delta[SPEC.tensors[1].name][3, 2] = poison
    for act in (lambda: clip(delta, SPEC.clip_norm_micro), lambda: quantise(delta, SPEC)):
        with pytest.raises(InvalidInput, match="not finite") as caught:
            act()
        assert caught.value.code == "UPD-011"


def _without(delta: Arrays) -> Any:
    return {name: array for name, array in delta.items() if name != SPEC.tensors[0].name}


@pytest.mark.parametrize(
    "change",
    [
        _without,
        lambda delta: delta | {"extra": np.zeros(3, np.float32)},
        lambda delta: delta | {SPEC.tensors[0].name: np.zeros((8, 4), np.float32)},
        lambda delta: delta | {SPEC.tensors[0].name: np.zeros((1, 8), np.float32)},
        lambda delta: delta | {SPEC.tensors[0].name: np.zeros((4, 8), np.float64)},
        lambda delta: delta | {SPEC.tensors[0].name: np.zeros((4, 8), np.int32)},
        lambda delta: delta | {SPEC.tensors[0].name: np.zeros((4, 8), object)},
    ],
    ids=["missing", "extra", "transposed", "broadcastable", "float64", "int32", "object"],
)
def test_a_delta_with_other_names_shapes_or_dtypes_is_refused(change: Any) -> None:
    with pytest.raises(InvalidInput) as caught:
        quantise(change(a_delta()), SPEC)
    assert caught.value.code == "UPD-012"


def test_a_delta_beyond_the_clip_norm_is_refused_rather_than_clipped_silently() -> None:
    for scale, code in ((CLIP_NORM * 10, "UPD-009"), (CLIP_NORM / 2, "UPD-010")):
        delta = {t.name: np.full(t.shape, scale, np.float32) for t in SPEC.tensors}
        with pytest.raises(InvalidInput) as caught:
            quantise(delta, SPEC)
        assert caught.value.code == code


def test_a_flipped_byte_in_any_chunk_is_refused() -> None:
    header, chunks = sent(a_delta())
    for index, data in enumerate(chunks):
        for position in range(len(data)):
            flipped = bytearray(data)
            flipped[position] ^= 1
            with pytest.raises(InvalidInput, match="does not match its digest"):
                validate_chunk(index, bytes(flipped), header, SPEC)


@pytest.mark.parametrize("cut", [b"", b"\0" * 124, b"\0" * 132])
def test_a_chunk_of_another_length_is_refused(cut: bytes) -> None:
    header, _ = sent(a_delta())
    with pytest.raises(InvalidInput, match="bytes, not 128") as caught:
        validate_chunk(0, cut, header, SPEC)
    assert caught.value.code == "UPD-007"


@pytest.mark.parametrize("word", [2**30 + 1, -(2**30) - 1, 2**31 - 1, -(2**31)])
def test_a_value_outside_the_bound_is_refused_though_its_digest_is_right(word: int) -> None:
    header, chunks = forged([word])
    with pytest.raises(InvalidInput, match="outside the plan's bound") as caught:
        validate_chunk(0, chunks[0], header, SPEC)
    assert caught.value.code == "UPD-009"


def test_values_each_within_the_bound_but_together_beyond_the_norm_are_refused_by_one_unit() -> None:
    header, chunks = forged([2**30])
    verifier = UpdateVerifier(header, SPEC)
    for index, data in enumerate(chunks):
        verifier.accept(index, data)
    verifier.finish()

    header, chunks = forged([2**30, *[0] * 40, 1])  # the excess lies in the second chunk
    verifier = UpdateVerifier(header, SPEC)
    verifier.accept(0, chunks[0])
    with pytest.raises(InvalidInput, match="norm is above") as caught:
        verifier.accept(1, chunks[1])
    assert caught.value.code == "UPD-010"
    assert verifier.next_index == 1


def test_chunks_are_accepted_in_order_once_and_to_the_end() -> None:
    header, chunks = sent(a_delta())
    verifier = UpdateVerifier(header, SPEC)
    with pytest.raises(InvalidInput, match="chunk 1 came where 0 was due"):
        verifier.accept(1, chunks[1])
    verifier.accept(0, chunks[0])
    with pytest.raises(InvalidInput, match="chunk 0 came where 1 was due"):
        verifier.accept(0, chunks[0])
    with pytest.raises(InvalidInput, match="1 of 2 chunks arrived") as caught:
        verifier.finish()
    assert caught.value.code == "UPD-015"


@given(arrays(np.int32, st.integers(1, 50), elements=st.integers(-(2**30), 2**30)))
def test_squares_are_summed_exactly(words: NDArray[np.int32]) -> None:
    assert sum_of_squares(words) == sum(int(word) ** 2 for word in words)


def test_a_million_largest_squares_do_not_overflow() -> None:
    count = 2**20 + 3
    assert sum_of_squares(np.full(count, -(2**30), np.int32)) == count * 2**60
    with pytest.raises(InvalidInput):
        check_norm(count * 2**60, SPEC)


@pytest.mark.parametrize("chunks", [0, 1, 3])
def test_too_few_or_too_many_values_are_not_read_back(chunks: int) -> None:
    with pytest.raises(InvalidInput) as caught:
        dequantise([np.zeros(32, np.int32)] * chunks, SPEC)
    assert caught.value.code == "UPD-015"


def test_the_wire_is_little_endian_int32_in_the_plans_order() -> None:
    delta = {t.name: np.zeros(t.shape, np.float32) for t in SPEC.tensors}
    delta[SPEC.tensors[1].name][0, 0] = np.float32(SPEC.step * 3)
    header, chunks = sent(dict(reversed(delta.items())))
    assert chunks[1][:4] == b"\x03\x00\x00\x00"
    assert header.chunks[1] == "sha256:" + hashlib.sha256(chunks[1]).hexdigest()


def test_the_open_channel_in_use_a_sentence_in_the_low_bits_passes_every_check() -> None:
    """The one channel that stays: what `open_bits_per_round` states, nothing here closes it, only noise narrows it."""
    spec = a_spec(tensors=(TensorSpec("layer.0.lora_A.weight", (64, 8)),))
    sentence = b"Das Kind wurde am 3. Mai in Lyon geboren."
    bits = np.unpackbits(np.frombuffer(sentence, np.uint8))
    honest = np.random.default_rng(3).standard_normal((64, 8)).astype(np.float32) * np.float32(0.01)
    delta = honest.reshape(-1).copy()
    words = np.trunc(delta.astype(np.float64) / spec.step).astype(np.int64)
    # Bit 10 of a value: far below what training notices, far above what float32 rounds away.
    marked = words[: bits.size] & ~np.int64(0x7FF) | (bits.astype(np.int64) << 10) | 0x200
    delta[: bits.size] = (marked * spec.step).astype(np.float32)
    header, chunks = sent({spec.tensors[0].name: delta.reshape(64, 8)}, spec)

    validate_header(parse_header(header.encoded), spec)
    verifier = UpdateVerifier(header, spec)
    stream = np.concatenate([verifier.accept(index, data) for index, data in enumerate(chunks)])
    verifier.finish()
    assert np.packbits((stream[: bits.size] >> 10) & 1).tobytes() == sentence
    assert np.abs(delta - honest.reshape(-1)).max() < 1e-5
    assert open_bits_per_round(spec) >= bits.size
