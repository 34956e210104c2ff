from __future__ import annotations

import math

import numpy as np
import pytest

from tests.builders.tiny_llama import base_shapes
from treaty.errors import InvalidInput, LimitExceeded
from treaty.recipe import (
    DEFAULT_TEMPLATE,
    METRICS,
    Evaluation,
    LoraSft,
    Metric,
    Precision,
    adapter_shapes,
    check_metrics,
    initial_arrays,
    parse_recipe,
)
from treaty.strict_json import JsonValue

RECIPE = LoraSft(
    rank=8,
    alpha=16,
    targets=("q_proj", "v_proj"),
    steps=8,
    batch=8,
    learning_rate_micro=3000,
    seed=7,
    sequence_tokens=64,
    precision=Precision.FLOAT32,
    prompt_template=DEFAULT_TEMPLATE,
    heldout_pairs=64,
)
FIRST_VALUES = [0.04422791, 0.14043628, 0.09746961]
MEASURED = {"heldout_loss_micro": 2_000_000, "heldout_pairs": 64, "heldout_tokens": 640}


def test_a_recipe_reads_back_what_it_wrote() -> None:
    assert parse_recipe(RECIPE.to_json()) == RECIPE
    assert RECIPE.examples == 64


@pytest.mark.parametrize("name", sorted(RECIPE.to_json()))
def test_no_field_of_a_recipe_may_be_missing(name: str) -> None:
    members = RECIPE.to_json()
    del members[name]
    with pytest.raises(InvalidInput, match=f"recipe lacks '{name}'"):
        parse_recipe(members)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("rank", 0),
        ("rank", 65),
        ("rank", True),
        ("steps", 10_001),
        ("batch", 0),
        ("learning_rate_micro", 0),
        ("seed", -1),
        ("sequence_tokens", 1_000_000),
        ("precision", "float16"),
        ("heldout_pairs", 0),
        ("targets", []),
        ("targets", ["v_proj", "q_proj"]),
        ("targets", ["q_proj", "q_proj"]),
        ("targets", ["embed_tokens"]),
        ("recipe", "exec"),
        ("code", "import os"),
    ],
)
def test_a_field_out_of_bounds_or_unknown_is_refused(name: str, value: JsonValue) -> None:
    with pytest.raises(InvalidInput):
        parse_recipe({**RECIPE.to_json(), name: value})


@pytest.mark.parametrize(
    "template",
    [
        "{target}",
        "{source}",
        "{source} {target} end",
        "{source.__class__} {target}",
        "{source!r}{target}",
        "{source} {source} {target}",
        "{secret} {source} {target}",
        "{{source}} {source} {target}",
    ],
)
def test_a_template_is_text_around_named_places_with_the_answer_last(template: str) -> None:
    with pytest.raises(InvalidInput, match="the prompt template"):
        Evaluation(prompt_template=template)


def test_a_template_has_a_length() -> None:
    with pytest.raises(LimitExceeded, match="longer than 512"):
        Evaluation(prompt_template="x" * 500 + "{source} {target}")


def test_the_adapter_is_named_and_shaped_after_the_base() -> None:
    shapes = adapter_shapes(RECIPE, base_shapes())
    assert list(shapes) == sorted(shapes)
    assert shapes["model.layers.0.self_attn.q_proj.lora_A.weight"] == (8, 32)
    assert shapes["model.layers.1.self_attn.v_proj.lora_B.weight"] == (16, 8)
    assert len(shapes) == 8


def test_a_base_without_a_target_is_refused() -> None:
    with pytest.raises(InvalidInput, match="no layer named 'q_proj'"):
        adapter_shapes(RECIPE, {"lm_head.weight": (10, 10)})


def test_first_arrays_are_the_same_everywhere_and_change_nothing() -> None:
    arrays = initial_arrays(RECIPE, base_shapes())
    first = arrays["model.layers.0.self_attn.q_proj.lora_A.weight"]
    assert first.dtype == np.float32
    assert float(np.abs(first).max()) <= 1 / math.sqrt(32)
    assert float(first.std()) == pytest.approx(1 / math.sqrt(3 * 32), rel=0.1)
    # Fixed for good: other values would give running federations another digest.
    assert first[0, :3].tolist() == pytest.approx(FIRST_VALUES, abs=1e-7)
    assert not any(value.any() for name, value in arrays.items() if "lora_B" in name)


def test_declared_metrics_on_their_grid_pass() -> None:
    assert check_metrics("evaluate", MEASURED) == MEASURED


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"more": 1}, "METRIC_UNDECLARED"),
        ({"heldout_loss_micro": 2_000_001}, "METRIC_OUT_OF_RANGE"),
        ({"heldout_loss_micro": -1000}, "METRIC_OUT_OF_RANGE"),
        ({"heldout_loss_micro": 20_001_000}, "METRIC_OUT_OF_RANGE"),
        ({"heldout_tokens": 641}, "METRIC_OUT_OF_RANGE"),
        ({"heldout_pairs": 0}, "METRIC_OUT_OF_RANGE"),
        ({"heldout_pairs": True}, "METRIC_NOT_INTEGER"),
        ({"heldout_pairs": "64"}, "METRIC_NOT_INTEGER"),
        ({"heldout_pairs": 64.0}, "METRIC_NOT_INTEGER"),
    ],
)
def test_any_other_metric_is_refused_by_code(changes: dict[str, object], code: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        check_metrics("evaluate", {**MEASURED, **changes})
    assert refused.value.code == code


def test_a_missing_metric_is_refused() -> None:
    with pytest.raises(InvalidInput, match="not exactly those"):
        check_metrics("train", MEASURED)


@pytest.mark.parametrize("value", [-5, 0, 999, 1_234_567, 2**53])
def test_rounding_always_lands_on_the_grid(value: int) -> None:
    for metrics in METRICS.values():
        for metric in metrics.values():
            rounded = metric.rounded(value)
            assert metric.low <= rounded <= metric.high
            assert (rounded - metric.low) % metric.grid == 0


def test_a_metric_states_what_it_can_carry() -> None:
    assert Metric(0, 20_000_000, 1000).bits == 15
