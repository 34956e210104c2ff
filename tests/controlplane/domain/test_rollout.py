"""The rollout planner: every state and event, the rules one by one, and what no inventory may ever lead to."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controlplane.domain import rollout as planner
from controlplane.domain.agents import RolloutReport, RolloutState
from controlplane.domain.nation_state import FAILED_STATES, IN_PROGRESS, TRANSITIONS, Move, NationState, after
from controlplane.domain.rollout import DirectAbort, DirectDeploy, NationView
from treaty.errors import InvalidTransition
from treaty.names import Digest, DirectiveNumber, PartyCode, agent_id, digest_of, model_ref
from treaty.resources.meta import ConditionStatus, find_condition, is_true
from treaty.resources.rollouts import Gates, NationProgress, RolloutSpec, RolloutStatus, Wave

NOON = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
DIGEST, OLD = digest_of(b"v2"), digest_of(b"v1")
FR, DE, IT = PartyCode("FR"), PartyCode("DE"), PartyCode("IT")
SPEC = RolloutSpec(
    model=model_ref("m@1.0.0"),
    manifest_digest=DIGEST,
    waves=(Wave("one", (FR, DE), concurrency=2), Wave("two", (IT,))),
    deadline_seconds=60,
    fallback_digest=OLD,
)


def view(state: RolloutState | None = None, *, connected: bool = True, number: int = 1, **more: object) -> NationView:
    agent = agent_id(FR, "treaty.example", "a-1")
    report = None
    if state is not None:
        report = RolloutReport("r", DirectiveNumber(1, number), state, tuple(more.get("codes", ())))  # type: ignore[arg-type]
    serving = DIGEST if state is RolloutState.SERVING and more.get("observes", True) else None
    return NationView(agent, connected, report, serving, str(more.get("frozen", "")))


def directed(status: RolloutStatus, *nations: PartyCode, number: int = 1) -> RolloutStatus:
    """As the service leaves it: numbers filled in."""

    def numbered(entry: NationProgress) -> NationProgress:
        return replace(entry, directive_number=DirectiveNumber(1, number)) if entry.nation in nations else entry

    return replace(status, nations=tuple(numbered(entry) for entry in status.nations))


def states(status: RolloutStatus) -> dict[str, str]:
    return {entry.nation: entry.state for entry in status.nations}


EVERY = {FR: view(), DE: view(), IT: view()}


@pytest.mark.parametrize("state", list(NationState))
@pytest.mark.parametrize("event", [*RolloutState, *Move])
def test_every_state_and_event_is_in_the_table_or_refused(state: NationState, event: RolloutState | Move) -> None:
    if event in TRANSITIONS[state]:
        assert after(state, event) is TRANSITIONS[state][event]
    else:
        with pytest.raises(InvalidTransition, match=f"no transition from {state}"):
            after(state, event)


def test_the_first_wave_is_directed_and_the_second_waits() -> None:
    planned = planner.plan(SPEC, RolloutStatus(), EVERY, NOON)
    assert [step.nation for step in planned.steps] == [FR, DE]
    assert states(planned.status) == {"FR": "Directed", "DE": "Directed", "IT": "Pending"}


def test_concurrency_bounds_how_many_move_at_a_time() -> None:
    spec = replace(SPEC, waves=(Wave("one", (FR, DE, IT), concurrency=1),))
    planned = planner.plan(spec, RolloutStatus(), EVERY, NOON)
    assert [step.nation for step in planned.steps] == [FR]
    waiting = {entry.nation: entry.reason for entry in planned.status.nations}
    assert waiting["DE"] == "WaitingForSlot"


def test_serving_counts_only_when_the_agent_observes_this_digest() -> None:
    first = directed(planner.plan(SPEC, RolloutStatus(), EVERY, NOON).status, FR, DE)
    views = {FR: view(RolloutState.SERVING), DE: view(RolloutState.SERVING, observes=False), IT: view()}
    planned = planner.plan(SPEC, first, views, NOON)
    assert states(planned.status) == {"FR": "Serving", "DE": "Starting", "IT": "Pending"}
    assert not planned.steps


def test_the_next_wave_starts_when_the_first_has_soaked() -> None:
    spec = replace(SPEC, soak_seconds=30)
    status = directed(planner.plan(spec, RolloutStatus(), EVERY, NOON).status, FR, DE)
    views = {FR: view(RolloutState.SERVING), DE: view(RolloutState.SERVING), IT: view()}
    soaking = planner.plan(spec, status, views, NOON)
    assert not soaking.steps
    assert (found := find_condition(soaking.status.conditions, "Progressing")) is not None
    assert found.reason == "Soaking"
    later = planner.plan(spec, soaking.status, views, NOON + timedelta(seconds=30))
    assert [step.nation for step in later.steps] == [IT]


def test_a_wave_with_an_approval_gate_waits_for_an_operator() -> None:
    spec = replace(SPEC, gates=Gates(approval=True))
    status = directed(planner.plan(spec, RolloutStatus(), EVERY, NOON).status, FR, DE)
    views = {FR: view(RolloutState.SERVING), DE: view(RolloutState.SERVING), IT: view()}
    waiting = planner.plan(spec, status, views, NOON)
    assert (found := find_condition(waiting.status.conditions, "Progressing")) is not None
    assert "wave two waits for an operator" in found.message
    approved = planner.plan(replace(spec, approved_waves=("two",)), waiting.status, views, NOON)
    assert [step.nation for step in approved.steps] == [IT]


def test_a_refusal_costs_no_budget_and_the_wave_goes_on() -> None:
    status = directed(planner.plan(SPEC, RolloutStatus(), EVERY, NOON).status, FR, DE)
    views = {FR: view(RolloutState.REFUSED, codes=["APR-001"]), DE: view(RolloutState.SERVING), IT: view()}
    planned = planner.plan(SPEC, status, views, NOON)
    assert [step.nation for step in planned.steps] == [IT]
    assert states(planned.status)["FR"] == "Refused"


def test_one_failure_more_than_the_budget_aborts_everyone_and_no_later_wave_sees_it() -> None:
    status = directed(planner.plan(SPEC, RolloutStatus(), EVERY, NOON).status, FR, DE)
    views = {FR: view(RolloutState.FAILED, codes=["GATE_WORSE"]), DE: view(RolloutState.SERVING), IT: view()}
    planned = planner.plan(SPEC, status, views, NOON)
    assert {(type(step), step.nation) for step in planned.steps} == {(DirectAbort, FR), (DirectAbort, DE)}
    assert is_true(planned.status.conditions, "Aborted")
    again = planner.plan(SPEC, planned.status, {**views, DE: view(RolloutState.RETURNED)}, NOON)
    assert all(not isinstance(step, DirectDeploy) for step in again.steps)
    assert states(again.status)["IT"] == "Pending"


def test_unreachable_is_not_failed_and_the_deadline_does_not_run() -> None:
    status = directed(planner.plan(SPEC, RolloutStatus(), EVERY, NOON).status, FR, DE)
    views = {FR: view(connected=False), DE: view(RolloutState.SERVING), IT: view()}
    planned = planner.plan(SPEC, status, views, NOON + timedelta(hours=1))
    fr = planned.status.nations[0]
    assert (fr.state, fr.reason) == ("Directed", "Unreachable")
    assert not planned.steps


def test_a_connected_agent_past_its_deadline_has_failed_and_a_waiting_person_has_not() -> None:
    status = directed(planner.plan(SPEC, RolloutStatus(), EVERY, NOON).status, FR, DE)
    views = {FR: view(RolloutState.PULLING), DE: view(RolloutState.AWAITING_CONSENT), IT: view()}
    seen = planner.plan(SPEC, status, views, NOON)
    late = planner.plan(SPEC, seen.status, views, NOON + timedelta(seconds=61))
    assert states(late.status) == {"FR": "Failed", "DE": "AwaitingConsent", "IT": "Pending"}
    assert late.status.nations[0].reason == "DeadlineExceeded"


@pytest.mark.parametrize(
    ("spec", "views", "reason"),
    [
        (replace(SPEC, paused=True), EVERY, "Paused"),
        (SPEC, {**EVERY, FR: view(frozen="summit"), DE: view(frozen="summit")}, "Frozen"),
        (SPEC, {FR: NationView(), DE: NationView()}, "NoAgentAccepted"),
    ],
)
def test_nothing_starts_while_paused_frozen_or_without_an_agent(
    spec: RolloutSpec, views: dict[PartyCode, NationView], reason: str
) -> None:
    planned = planner.plan(spec, RolloutStatus(), views, NOON)
    assert not planned.steps
    found = find_condition(planned.status.conditions, "Progressing")
    assert found is not None
    assert reason in f"{found.reason} {found.message}"


def test_a_report_of_an_older_number_changes_nothing() -> None:
    status = directed(planner.plan(SPEC, RolloutStatus(), EVERY, NOON).status, FR, DE, number=5)
    planned = planner.plan(SPEC, status, {**EVERY, FR: view(RolloutState.SERVING, number=4)}, NOON)
    assert states(planned.status)["FR"] == "Directed"


reports = st.none() | st.sampled_from(list(RolloutState))


@settings(max_examples=200)
@given(st.lists(st.tuples(reports, reports, reports, st.booleans()), min_size=1, max_size=12), st.integers(0, 2))
def test_whatever_agents_report_the_rules_hold(
    history: list[tuple[RolloutState | None, RolloutState | None, RolloutState | None, bool]], budget: int
) -> None:
    spec = replace(SPEC, failure_budget=budget)
    status, now, ended = RolloutStatus(), NOON, {}
    for fr, de, it, connected in history:
        views = {nation: view(state, connected=connected) for nation, state in ((FR, fr), (DE, de), (IT, it))}
        planned = planner.plan(spec, status, views, now)
        assert planner.plan(spec, status, views, now) == planned
        deployed = [step.nation for step in planned.steps if isinstance(step, DirectDeploy)]
        now_at = {PartyCode(entry.nation): NationState(entry.state) for entry in planned.status.nations}
        first_done = all(now_at[nation] not in IN_PROGRESS | {NationState.PENDING} for nation in (FR, DE))
        failed = sum(state in FAILED_STATES for state in now_at.values())
        assert IT not in deployed or (first_done and failed <= budget)
        assert sum(now_at[nation] in IN_PROGRESS for nation in (FR, DE)) <= 2
        assert not (is_true(planned.status.conditions, "Aborted") and deployed)
        for nation, state in ended.items():
            assert now_at[nation] is state or now_at[nation] is NationState.RETURNED
        ended = {
            n: s for n, s in now_at.items() if s in (NationState.REFUSED, NationState.FAILED, NationState.RETURNED)
        }
        status = directed(planned.status, *deployed, *(n for n in now_at if _has_number(status, n)))
        now += timedelta(seconds=7)


def _has_number(status: RolloutStatus, nation: PartyCode) -> bool:
    return any(entry.nation == nation and entry.directive_number is not None for entry in status.nations)


def test_a_finished_rollout_says_so_once() -> None:
    status = directed(planner.plan(SPEC, RolloutStatus(), EVERY, NOON).status, FR, DE)
    serving = {nation: view(RolloutState.SERVING) for nation in (FR, DE, IT)}
    status = directed(planner.plan(SPEC, status, serving, NOON).status, FR, DE, IT)
    done = planner.plan(SPEC, status, serving, NOON)
    assert is_true(done.status.conditions, "Succeeded")
    assert planner.is_finished(done.status)
    again = planner.plan(SPEC, done.status, serving, NOON + timedelta(days=1))
    assert not again.steps
    assert (found := find_condition(again.status.conditions, "Succeeded")) is not None
    assert (found.status, found.last_transition_time) == (ConditionStatus.TRUE, NOON)
    assert Digest(DIGEST) == serving[FR].serving
