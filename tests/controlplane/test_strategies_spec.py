"""Strategies by name: parameters within bounds, cohorts that suffice, memory that suffices."""

from __future__ import annotations

from typing import Any

import pytest

from controlplane.federation.strategy_spec import (
    PARAMETERS,
    StrategyName,
    StrategySpec,
    check_cohort,
    minimum_cohort,
    step_bytes,
    strategy_spec,
)
from treaty.errors import InvalidInput, PreconditionFailed

GIB = 2**30


def plan(name: str, quorum: int, memory_bytes: int = GIB, **parameters: int) -> None:
    spec = strategy_spec(name, parameters)
    check_cohort(spec, quorum=quorum, cohort=max(quorum, 5), values=1000, memory_bytes=memory_bytes)


@pytest.mark.parametrize("name", list(StrategyName))
def test_a_strategy_survives_its_json_with_all_defaults_said(name: StrategyName) -> None:
    spec = strategy_spec(name, {})
    assert StrategySpec.from_json(spec.to_json()) == spec
    assert set(spec.parameters) == set(PARAMETERS[name])


@pytest.mark.parametrize("name", list(StrategyName))
def test_each_parameter_is_refused_outside_its_bounds_and_by_type(name: StrategyName) -> None:
    for key, parameter in PARAMETERS[name].items():
        for wrong in (parameter.low - 1, parameter.high + 1, True, 0.5, "1", None):
            with pytest.raises(InvalidInput, match=f"{name}: {key} is not an integer between"):
                strategy_spec(name, {key: wrong})  # type: ignore[dict-item]
        assert strategy_spec(name, {key: parameter.low}).parameters[key] == parameter.low


def test_an_unknown_strategy_or_parameter_is_refused_with_what_there_is() -> None:
    with pytest.raises(InvalidInput, match="unknown strategy") as caught:
        strategy_spec("FedSgd", {})
    assert "FedYogi" in caught.value.remedy
    with pytest.raises(InvalidInput, match="unknown parameters") as caught:
        strategy_spec("FedProx", {"mu": 1})
    assert "proximal_mu_micro" in caught.value.remedy


@pytest.mark.parametrize(
    "value",
    [
        None,
        {"name": "FedAvg"},
        {"name": "FedAvg", "parameters": []},
        {"name": "FedAvg", "parameters": {}, "x": 1},
        {"name": "Krum", "parameters": {"num_malicious_nodes": True}},
    ],
)
def test_a_strategys_json_is_read_strictly(value: Any) -> None:
    with pytest.raises(InvalidInput):
        StrategySpec.from_json(value)


@pytest.mark.parametrize(
    ("name", "parameters", "needed"),
    [
        ("FedAvg", {}, 1),
        ("FedAdam", {}, 1),
        ("FedMedian", {"num_malicious_nodes": 2}, 5),
        ("FedTrimmedAvg", {"beta_micro": 200_000, "num_malicious_nodes": 1}, 5),
        ("FedTrimmedAvg", {"beta_micro": 200_000, "num_malicious_nodes": 2}, 10),
        ("FedTrimmedAvg", {"beta_micro": 100_000, "num_malicious_nodes": 0}, 10),
        ("Krum", {"num_malicious_nodes": 0}, 3),
        ("Krum", {"num_malicious_nodes": 1}, 5),
        ("Krum", {"num_malicious_nodes": 2}, 7),
        ("MultiKrum", {"num_malicious_nodes": 1, "num_nodes_to_select": 2}, 5),
        ("MultiKrum", {"num_malicious_nodes": 1, "num_nodes_to_select": 4}, 7),
        ("Bulyan", {"num_malicious_nodes": 1}, 7),
        ("Bulyan", {"num_malicious_nodes": 2}, 11),
    ],
)
def test_a_cohort_one_too_small_is_refused_before_the_start(name: str, parameters: dict[str, int], needed: int) -> None:
    plan(name, needed, **parameters)
    assert minimum_cohort(strategy_spec(name, parameters)) == needed
    with pytest.raises(PreconditionFailed, match=f"needs a quorum of {needed}, the plan has {needed - 1}"):
        plan(name, needed - 1, **parameters)


def test_a_strategy_that_keeps_all_updates_is_refused_where_they_do_not_fit() -> None:
    krum, mean = strategy_spec("Krum", {}), strategy_spec("FedAvg", {})
    memory = step_bytes(krum, replies=5, values=1000) - 1
    with pytest.raises(PreconditionFailed, match="the worker has") as caught:
        check_cohort(krum, quorum=5, cohort=5, values=1000, memory_bytes=memory)
    assert "works on the mean" in caught.value.remedy
    check_cohort(mean, quorum=5, cohort=5, values=1000, memory_bytes=memory)


def test_only_fedprox_asks_something_of_the_training() -> None:
    asked = {name: strategy_spec(name, {}).training_parameters() for name in StrategyName}
    assert {name for name, parameters in asked.items() if parameters} == {StrategyName.FED_PROX}
    assert asked[StrategyName.FED_PROX] == {"proximal_mu_micro": 100_000}
