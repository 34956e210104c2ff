"""An update's plan and header: strict both ways, and nothing believed that the plan does not say."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from treaty.errors import InvalidInput, LimitExceeded, TrustError
from treaty.names import Digest, PartyCode, RunId
from treaty.strict_json import canonical
from treaty.update import (
    MAX_HEADER_BYTES,
    UpdateHeader,
    UpdateSpec,
    open_bits_per_round,
    parse_header,
    validate_header,
    validate_sender,
)
from treaty.update_layout import TensorSpec

BASE = Digest("sha256:" + "ab" * 32)
CHUNK = Digest("sha256:" + "cd" * 32)


def a_spec(**changes: Any) -> UpdateSpec:
    spec = UpdateSpec(
        run_id=RunId("translate"),
        round=2,
        base_digest=BASE,
        tensors=(TensorSpec("layer.0.lora_A.weight", (4, 8)), TensorSpec("layer.0.lora_B.weight", (8, 4))),
        clip_norm_micro=1_500_000,
        max_examples=64,
        max_cohort=5,
        chunk_bytes=128,
    )
    return dataclasses.replace(spec, **changes)


def a_header(spec: UpdateSpec | None = None, **changes: Any) -> UpdateHeader:
    spec = spec or a_spec()
    fields = {name: getattr(spec, name) for name in ("run_id", "round", "base_digest", "tensors", "clip_norm_micro")}
    encoding = {"value_bits": spec.value_bits, "chunk_bytes": spec.chunk_bytes}
    rest = {"nation": PartyCode("FR"), "examples": 32, "chunks": (CHUNK,) * spec.chunk_count}
    return UpdateHeader(**(fields | encoding | rest | changes))


def edited(**changes: Any) -> bytes:
    """The canonical bytes of a header with members changed, or removed where the change is Ellipsis."""
    members = json.loads(a_header().encoded) | changes
    return canonical({name: value for name, value in members.items() if value is not ...})


tensor_specs = st.builds(
    TensorSpec,
    st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_./-]{0,20}", fullmatch=True),
    st.lists(st.integers(1, 6), max_size=3).map(tuple),
)
specs = st.builds(
    UpdateSpec,
    run_id=st.just(RunId("r-1")),
    round=st.integers(1, 10**6),
    base_digest=st.just(BASE),
    tensors=st.lists(tensor_specs, min_size=1, max_size=5, unique_by=lambda tensor: tensor.name).map(tuple),
    clip_norm_micro=st.integers(1, 10**12),
    max_examples=st.integers(1, 10**6),
    max_cohort=st.integers(1, 100),
    value_bits=st.integers(8, 30),
    chunk_bytes=st.sampled_from([64, 128, 4 * 2**20]),
)


@given(specs)
def test_a_plan_survives_its_json(spec: UpdateSpec) -> None:
    assert UpdateSpec.from_json(json.loads(canonical(spec.to_json()))) == spec


@given(specs)
def test_a_header_survives_its_bytes_and_has_one_digest(spec: UpdateSpec) -> None:
    header = a_header(spec)
    parsed = parse_header(header.encoded)
    assert parsed == header
    assert parsed.digest == header.digest


@pytest.mark.parametrize(
    ("changes", "code", "message"),
    [
        ({"round": 0}, "UPD-001", "round"),
        ({"tensors": ()}, "UPD-001", "1 to"),
        ({"tensors": (TensorSpec("a", (2,)), TensorSpec("a", (3,)))}, "UPD-001", "named twice"),
        ({"clip_norm_micro": 0}, "UPD-001", "clip norm"),
        ({"value_bits": 31}, "UPD-001", "value_bits"),
        ({"chunk_bytes": 130}, "UPD-001", "multiple of 4"),
        ({"chunk_bytes": 8 * 2**20}, "UPD-001", "up to 4 MiB"),
        ({"max_examples": 0}, "UPD-001", "start at 1"),
        ({"max_examples": 2**33 // 5 + 1}, "UPD-013", "int64"),
        ({"tensors": tuple(TensorSpec(f"t{i}", (2**30,)) for i in range(9))}, "UPD-002", "values together"),
    ],
)
def test_a_plan_out_of_bounds_is_refused(changes: dict[str, Any], code: str, message: str) -> None:
    with pytest.raises(InvalidInput, match=message) as caught:
        a_spec(**changes)
    assert caught.value.code == code


@pytest.mark.parametrize("name", ["", "a b", "läyer", "-a", "a" * 256, "a\n"])
def test_a_tensor_name_that_could_carry_text_is_refused(name: str) -> None:
    with pytest.raises(InvalidInput, match="letters, digits"):
        TensorSpec(name, (1,))


@pytest.mark.parametrize("shape", [(0,), (-1, 2), (2**31,), (1,) * 9])
def test_a_shape_out_of_bounds_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(InvalidInput, match="positive dimensions"):
        TensorSpec("t", shape)


def test_the_largest_plan_fits_into_int64_and_the_next_does_not() -> None:
    spec = a_spec(max_cohort=1, max_examples=2**33 - 1)
    assert spec.max_cohort * spec.max_examples * spec.bound < 2**63
    with pytest.raises(InvalidInput, match="does not fit into int64"):
        a_spec(max_cohort=1, max_examples=2**33)


def test_an_unknown_field_in_a_plan_is_refused() -> None:
    with pytest.raises(InvalidInput, match="unknown field: 'noise'") as caught:
        UpdateSpec.from_json({**a_spec().to_json(), "noise": 1})
    assert caught.value.code == "UPD-001"


@pytest.mark.parametrize("field", sorted(json.loads(a_header().encoded)))
def test_each_missing_field_of_a_header_is_refused(field: str) -> None:
    with pytest.raises(InvalidInput, match=f"lacks '{field}'") as caught:
        parse_header(edited(**{field: ...}))
    assert caught.value.code == "UPD-001"


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"note": "the patient's name"}, "UPD-001"),
        ({"format": "foedus.update.v2"}, "UPD-001"),
        ({"examples": True}, "UPD-001"),
        ({"examples": "32"}, "UPD-001"),
        ({"examples": None}, "UPD-001"),
        ({"examples": -1}, "UPD-001"),
        ({"nation": "fr"}, "UPD-001"),
        ({"nation": "E1"}, "UPD-001"),
        ({"run_id": "Not A Run"}, "UPD-001"),
        ({"base_digest": "sha256:AB"}, "UPD-001"),
        ({"tensors": [{"name": "t", "shape": [True]}]}, "UPD-001"),
        ({"tensors": [{"name": "t", "shape": [1], "text": "x"}]}, "UPD-001"),
        ({"tensors": [{"name": "t", "shape": {"0": 1}}]}, "UPD-001"),
        ({"chunks": ["cd"]}, "UPD-001"),
        ({"chunks": [CHUNK]}, "UPD-006"),
        ({"chunks": [CHUNK] * 3}, "UPD-006"),
        ({"value_bytes": 260}, "UPD-006"),
        ({"value_bytes": 10 * 10**9}, "UPD-006"),
        ({"tensors": [{"name": "t", "shape": [[[[[1]]]]]}]}, "UPD-002"),
        ({"tensors": [{"name": f"t{i}", "shape": [2**30]} for i in range(9)]}, "UPD-002"),
    ],
)
def test_a_malformed_header_is_refused(changes: dict[str, Any], code: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_header(edited(**changes))
    assert caught.value.code == code


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not a JSON text"),
        (b"[]", "not an object"),
        (b"\xff\xfe", "not UTF-8"),
        (b'{"examples":NaN}', "NaN"),
        (b'{"examples":1.5}', "fractional"),
        (b'{"examples":1,"examples":2}', "repeats a key"),
        (b'{"examples":' + b"9" * 5000 + b"}", "integer outside"),
        (a_header().encoded + b" ", "canonical form"),
        (a_header().encoded.replace(b'"round":2', b'"round": 2'), "canonical form"),
    ],
)
def test_bytes_that_are_no_canonical_header_are_refused(data: bytes, message: str) -> None:
    with pytest.raises(InvalidInput, match=message) as caught:
        parse_header(data)
    assert caught.value.code == "UPD-001"


def test_a_header_larger_or_deeper_than_its_limit_is_refused_before_parsing() -> None:
    for data in (b"[" * (MAX_HEADER_BYTES + 1), b"[" * 7 + b"]" * 7):
        with pytest.raises(LimitExceeded) as caught:
            parse_header(data)
        assert caught.value.code == "UPD-002"


def test_a_ten_gigabyte_claim_is_consistent_only_with_ten_gigabytes_of_tensors_and_then_fails_the_plan() -> None:
    huge = a_spec(tensors=(TensorSpec("layer.0.lora_A.weight", (2_500_000_000 // 2**16, 2**16)),), chunk_bytes=2**22)
    header = parse_header(a_header(huge).encoded)  # 2,384 digests, no allocation
    with pytest.raises(InvalidInput, match="tensors are not exactly") as caught:
        validate_header(header, a_spec(chunk_bytes=2**22))
    assert caught.value.code == "UPD-004"


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"run_id": RunId("another")}, "UPD-003"),
        ({"round": 1}, "UPD-003"),
        ({"base_digest": CHUNK}, "UPD-003"),
        ({"clip_norm_micro": 1_500_001}, "UPD-003"),
        ({"value_bits": 29}, "UPD-003"),
        ({"tensors": tuple(reversed(a_spec().tensors))}, "UPD-004"),
        ({"tensors": (a_spec().tensors[0], TensorSpec("secret", (8, 4)))}, "UPD-004"),
        ({"tensors": (a_spec().tensors[0], TensorSpec("layer.0.lora_B.weight", (4, 8)))}, "UPD-004"),
        ({"tensors": (TensorSpec("layer.0.lora_A.weight", (8, 8)),)}, "UPD-004"),
        ({"tensors": (*a_spec().tensors, TensorSpec("extra", (32,))), "chunks": (CHUNK,) * 3}, "UPD-004"),
        ({"examples": 0}, "UPD-005"),
        ({"examples": 65}, "UPD-005"),
        ({"examples": 10**12}, "UPD-005"),
    ],
)
def test_a_header_that_does_not_answer_the_plan_is_refused(changes: dict[str, Any], code: str) -> None:
    validate_header(a_header(), a_spec())
    with pytest.raises(InvalidInput) as caught:
        validate_header(parse_header(a_header(**changes).encoded), a_spec())
    assert caught.value.code == code


def test_a_nation_cannot_send_an_update_in_anothers_name() -> None:
    validate_sender(a_header(), PartyCode("FR"))
    with pytest.raises(TrustError, match="another nation") as caught:
        validate_sender(a_header(), PartyCode("DE"))
    assert caught.value.code == "UPD-014"


def test_a_chunk_index_outside_the_update_has_no_length() -> None:
    spec = a_spec(chunk_bytes=192)
    assert [spec.chunk_length(0), spec.chunk_length(1)] == [192, 64]
    for index in (-1, 2):
        with pytest.raises(InvalidInput, match="there is no chunk"):
            spec.chunk_length(index)


def test_the_open_capacity_counts_every_level_where_the_ball_does_not_bind() -> None:
    one = a_spec(tensors=(TensorSpec("t", (1,)),), value_bits=8)
    assert open_bits_per_round(one) in (10, 11)  # 513 levels: 9.003 bits, rounded up, and one on top


def test_the_open_capacity_is_never_below_the_number_of_grid_points_in_the_ball() -> None:
    radius = 2**8
    points = sum(2 * int((radius**2 - x * x) ** 0.5) + 1 for x in range(-radius, radius + 1))
    assert 2 ** open_bits_per_round(a_spec(tensors=(TensorSpec("t", (2,)),), value_bits=8)) >= points


def test_the_open_capacity_grows_with_value_bits_and_is_below_the_raw_size() -> None:
    tensors = (TensorSpec("t", (460_800,)),)
    wide = open_bits_per_round(a_spec(tensors=tensors, chunk_bytes=2**22))
    narrow = open_bits_per_round(a_spec(tensors=tensors, value_bits=16, chunk_bytes=2**22))
    assert 0 < narrow < wide < 32 * 460_800
