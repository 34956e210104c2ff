"""Conditions and the names of kinds."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from treaty.errors import InvalidInput
from treaty.names import Digest, ModelRef, PartyCode
from treaty.resources import (
    KINDS,
    ROLLOUT,
    Condition,
    ConditionStatus,
    RolloutSpec,
    find_condition,
    is_true,
    kind_meant,
    kind_named,
    model_version_name,
    new_resource,
    set_condition,
    with_condition,
)
from treaty.resources.rollouts import Wave

NOON = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
LATER = NOON + timedelta(minutes=5)
READY = Condition("Ready", ConditionStatus.TRUE, "Signed", "by 2 of 3")


def test_a_condition_of_a_new_type_begins_now_and_goes_to_the_end() -> None:
    first = set_condition((), Condition("Withdrawn", ConditionStatus.FALSE, "Never"), NOON)
    both = set_condition(first, READY, LATER)
    assert [condition.type for condition in both] == ["Withdrawn", "Ready"]
    assert both[1].last_transition_time == LATER


def test_the_transition_time_moves_with_the_status_only() -> None:
    conditions = set_condition((), READY, NOON)
    reworded = set_condition(conditions, replace(READY, reason="SignedAgain", observed_generation=2), LATER)
    assert reworded[0].last_transition_time == NOON
    assert (reworded[0].reason, reworded[0].observed_generation) == ("SignedAgain", 2)
    fallen = set_condition(reworded, replace(READY, status=ConditionStatus.FALSE), LATER)
    assert fallen[0].last_transition_time == LATER
    assert len(fallen) == 1


def test_an_absent_or_unknown_condition_is_not_true() -> None:
    assert not is_true((), "Ready")
    assert not is_true((replace(READY, status=ConditionStatus.UNKNOWN),), "Ready")
    assert is_true((READY,), "Ready")
    assert find_condition((READY,), "Withdrawn") is None


def test_a_condition_on_a_resource_observes_its_generation() -> None:
    spec = RolloutSpec(ModelRef("m@1.0.0"), Digest("sha256:" + "0" * 64), (Wave("w", (PartyCode("FR"),)),))
    rollout = new_resource(ROLLOUT, "r1", spec)
    rollout = replace(rollout, metadata=replace(rollout.metadata, generation=4))
    assert with_condition(rollout, READY, NOON).status.conditions[0].observed_generation == 4
    assert rollout.status.conditions == ()


def test_every_kind_is_found_by_its_name_and_by_what_a_person_types() -> None:
    assert len(KINDS) == 10
    for kind in KINDS:
        assert kind_named(kind.name) is kind
        for word in (kind.name, kind.plural, kind.name.lower(), *kind.short_names):
            assert kind_meant(word) is kind
    with pytest.raises(InvalidInput, match="no such kind; one of Nation, NodeAgent"):
        kind_named("rollout")
    with pytest.raises(InvalidInput, match="no such kind; one of nations, nodeagents"):
        kind_meant("pods")


def test_a_model_versions_resource_name_has_no_at_sign() -> None:
    assert model_version_name(ModelRef("smollm2-135m@1.0.0")) == "smollm2-135m-1.0.0"
    with pytest.raises(InvalidInput, match="is not a resource name"):
        model_version_name(ModelRef("m" * 60 + "@1.0.0"))
