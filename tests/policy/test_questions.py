"""What may be asked at all: closed, typed, bounded; and what the two sides log about it."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

import policies
from treaty.errors import InvalidInput
from treaty.policy.bundle import read_bundle
from treaty.policy.questions import (
    Ask,
    AskedModel,
    DecisionPoint,
    Observed,
    ObservedModel,
    ObservedUpdate,
    Purpose,
    Question,
    parse_ask,
    parse_merged,
)


@pytest.mark.parametrize(
    ("document", "code", "message"),
    [
        ([], "INP-001", "ask is not an object"),
        ({"purpose": "translation"}, "INP-001", "ask.purpose is not an object"),
        ({"colour": "red"}, "INP-002", "ask has an unknown field 'colour'"),
        ({"model": {"format": "safetensors"}}, "INP-002", "ask.model has an unknown field 'format'"),
        ({"now_ns": 1}, "INP-002", "ask has an unknown field 'now_ns'"),
        ({"nation": 7}, "INP-003", "ask.nation is not a text"),
        ({"nation": None}, "INP-003", "ask.nation is not a text"),
        ({"v": True}, "INP-003", "ask.v is not an integer"),
        ({"v": 1.0}, "INP-003", "ask.v is not an integer"),
        ({"v": "1"}, "INP-003", "ask.v is not an integer"),
        ({"round": {"nations": "FR"}}, "INP-003", "ask.round.nations is not a list"),
        ({"round": {"nations": ["FR", 7]}}, "INP-003", r"ask.round.nations\[1\] is not a text"),
        ({"round": {"epsilon_micro": 2**63}}, "INP-004", "ask.round.epsilon_micro is outside"),
        ({"nation": "x" * 513}, "INP-004", "ask.nation is longer than 512 characters"),
        ({"nation": "\ud800"}, "INP-003", "ask.nation has a lone surrogate"),
    ],
)
def test_what_is_not_of_the_declared_type_is_refused(document: object, code: str, message: str) -> None:
    with pytest.raises(InvalidInput, match=message) as refused:
        parse_ask(document)  # type: ignore[arg-type]
    assert refused.value.code == code


def test_a_value_of_another_type_is_refused_in_a_question_built_here_too() -> None:
    with pytest.raises(InvalidInput, match=r"observed\.update\.raw is not true or false") as refused:
        Question(Ask(), Observed(update=ObservedUpdate(raw="false")))  # type: ignore[arg-type]
    assert refused.value.code == "INP-003"


def test_the_digest_of_an_ask_is_that_of_its_canonical_json() -> None:
    ask = Ask(decision_point=DecisionPoint.MODEL_ADMIT, nation="FR", purpose=Purpose(code="treaty-operation"))
    expected = b'{"decision_point":"model.admit","nation":"FR","purpose":{"code":"treaty-operation"},"v":1}'
    assert ask.digest == "sha256:" + hashlib.sha256(expected).hexdigest()
    assert parse_ask(ask.to_json()) == ask


def test_what_one_observes_changes_the_input_and_not_the_ask() -> None:
    ask = Ask(model=AskedModel(id="smollm2"))
    first, second = Question(ask, Observed(now_ns=1)), Question(ask, Observed(now_ns=2))
    assert first.ask.digest == second.ask.digest
    assert first.input_digest != second.input_digest


def test_rules_see_both_parts_of_a_section() -> None:
    question = Question(Ask(model=AskedModel(id="smollm2")), Observed(model=ObservedModel(format="safetensors")))
    assert question.merged() == {"v": 1, "model": {"id": "smollm2", "format": "safetensors"}}


@pytest.mark.parametrize("name", policies.NAMES)
def test_a_merged_document_is_taken_apart_and_put_together_again(name: str) -> None:
    for vector in read_bundle(policies.compiled(name)).vectors.vectors:
        assert parse_merged(vector.question).merged() == {"v": 1, **vector.question}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.floats(allow_nan=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["nation", "model", "id", "x"]), inner),
    max_leaves=8,
)


@given(JSON)
def test_anything_at_all_is_either_an_ask_or_refused_with_its_code(value: object) -> None:
    try:
        ask = parse_ask(value)  # type: ignore[arg-type]
    except InvalidInput as err:
        code = err.code
    else:
        code = ""
        assert parse_ask(ask.to_json()) == ask
    assert code in {"", "INP-001", "INP-002", "INP-003", "INP-004"}
