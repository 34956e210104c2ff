"""A run's moves: from what is durable to the one thing to do next."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import MappingProxyType

import pytest

from controlplane.domain import run as planner
from controlplane.store.ports.rounds import ContributionState, RoundState, StoredContribution, StoredRound
from treaty.errors import InvalidInput
from treaty.names import PartyCode, RunId, digest_of
from treaty.plan import NationDecision, RunPlan, Task, parse_plan
from treaty.recipe import DEFAULT_TEMPLATE, LoraSft, Precision
from treaty.strict_json import canonical, parse
from treaty.update_layout import TensorSpec

NOON = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
NATIONS = tuple(PartyCode(code) for code in ("DE", "FR", "IT"))
SOME = digest_of(b"some")
RECIPE = LoraSft(4, 8, ("q_proj", "v_proj"), 2, 4, 3000, 7, 32, Precision.FLOAT32, DEFAULT_TEMPLATE, 8)
PLAN = RunPlan(
    run=RunId("run-1"),
    task=Task.TRAIN,
    purpose="translation",
    model_digest=SOME,
    recipe=RECIPE,
    strategy="FedAvg",
    parameters=MappingProxyType({}),
    cohort=NATIONS,
    quorum=2,
    rounds=2,
    round_deadline_seconds=60,
    clip_norm_micro=1_000_000,
    max_examples=64,
    destination=PartyCode("EU"),
    host=PartyCode("BE"),
    tensors=(TensorSpec("w", (4, 4)),),
    decisions=MappingProxyType({nation: NationDecision(SOME, SOME, (), 64) for nation in NATIONS}),
    refused=MappingProxyType({}),
)


def stored(number: int, state: RoundState) -> StoredRound:
    return StoredRound("run-1", number, state, PLAN.digest, NOON + timedelta(seconds=60), SOME)


def part(nation: str, state: ContributionState, *codes: str) -> StoredContribution:
    return StoredContribution("run-1", 1, PartyCode(nation), "a", state, codes=codes)


def move(
    rounds: list[StoredRound], parts: list[StoredContribution], now: datetime = NOON, **more: bool
) -> planner.Move:
    return planner.next_move(
        more.pop("plan", PLAN),  # type: ignore[arg-type]
        rounds,
        parts,
        has_first_arrays=more.pop("has_first_arrays", True),
        is_cancelled=more.pop("is_cancelled", False),
        now=now,
    )


ACCEPTED, REFUSED = ContributionState.ACCEPTED, ContributionState.REFUSED


def test_a_new_run_makes_its_arrays_and_then_opens_round_one() -> None:
    assert move([], [], has_first_arrays=False) == planner.Prepare()
    assert move([], []) == planner.Open(1, evaluate_only=False)


def test_a_round_is_collected_until_everyone_has_answered() -> None:
    opened = [stored(1, RoundState.OPEN)]
    collecting = move(opened, [part("FR", ACCEPTED)])
    assert collecting == planner.Collect(opened[0], (PartyCode("DE"), PartyCode("IT")), evaluate_only=False)
    everyone = [part("FR", ACCEPTED), part("DE", ACCEPTED), part("IT", REFUSED, "DAT-003")]
    assert move(opened, everyone) == planner.Aggregate(
        opened[0], (PartyCode("DE"), PartyCode("FR")), evaluate_only=False
    )


def test_at_the_deadline_the_quorum_holds_or_the_run_says_why_not() -> None:
    opened, late = [stored(1, RoundState.OPEN)], NOON + timedelta(seconds=60)
    two = [part("FR", ACCEPTED), part("DE", ACCEPTED)]
    assert isinstance(move(opened, two, late), planner.Aggregate)
    short = move(opened, [part("FR", ACCEPTED), part("DE", REFUSED, "DE-001")], late)
    assert isinstance(short, planner.Finish)
    assert not short.has_succeeded
    assert short.message == ("round 1 reached 1 of its quorum of 2 (DE: DE-001; IT: no answer until the deadline)")


def test_a_run_whose_round_was_failed_before_the_coordinator_died_ends_for_the_same_reason() -> None:
    late, one = NOON + timedelta(seconds=60), [part("FR", ACCEPTED), part("DE", REFUSED, "DE-001")]
    first = move([stored(1, RoundState.OPEN)], one, late)
    assert isinstance(first, planner.Finish)
    failed = replace(stored(1, RoundState.FAILED), reason=first.message)
    assert move([failed], one, late) == first
    two = [part("FR", ACCEPTED), part("DE", ACCEPTED)]
    assert move([replace(failed, reason="CORRUPT: x")], two) == planner.Finish("RoundFailed", "CORRUPT: x", False)


def test_a_round_that_was_closing_when_the_coordinator_died_is_closed_again() -> None:
    closing = [stored(1, RoundState.AGGREGATING)]
    assert isinstance(move(closing, [part("FR", ACCEPTED), part("DE", ACCEPTED)]), planner.Aggregate)


def test_the_result_is_measured_in_one_more_round_and_then_the_run_has_succeeded() -> None:
    done = [stored(1, RoundState.DONE), stored(2, RoundState.DONE)]
    assert move(done[:1], []) == planner.Open(2, evaluate_only=False)
    assert move(done, []) == planner.Open(3, evaluate_only=True)
    finished = move([*done, stored(3, RoundState.DONE)], [])
    assert isinstance(finished, planner.Finish)
    assert finished.has_succeeded


def test_a_cancelled_run_only_finishes() -> None:
    finished = move([stored(1, RoundState.OPEN)], [], is_cancelled=True)
    assert isinstance(finished, planner.Finish)
    assert finished.reason == "Cancelled"


def test_a_plan_reads_back_as_it_was_written() -> None:
    assert parse_plan(parse(canonical(PLAN.to_json()), max_bytes=2**20)) == PLAN


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"cohort": tuple(reversed(NATIONS))}, "not a sorted list"),
        ({"quorum": 4}, "does not reach its quorum of 4"),
        ({"tensors": ()}, "names the tensors of an update"),
        ({"refused": MappingProxyType({PartyCode("FR"): ("X",)})}, "not exactly its cohort's"),
    ],
)
def test_a_plan_that_contradicts_itself_is_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        replace(PLAN, **change)  # type: ignore[arg-type]


def test_an_unknown_field_in_a_plan_is_refused() -> None:
    with pytest.raises(InvalidInput, match="unknown field: 'extra'"):
        parse_plan({**PLAN.to_json(), "extra": 1})
