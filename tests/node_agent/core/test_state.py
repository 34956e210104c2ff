"""Every event in every standing of the agent, and what must be done about it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import get_args

import pytest

from node_agent import events
from node_agent.directives import Question
from node_agent.events import Event, Instruction
from node_agent.ledger import Accepted, Standing
from node_agent.state import MAX_OPEN, AgentState, Phase
from tests.node_agent.core.directives import (
    abort_message,
    deploy_message,
    end_message,
    number,
    parsed,
    policy_message,
    round_message,
)
from treaty.names import DirectiveNumber, digest_of

NOON = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
CHARTER = digest_of(b"charter")
HEARTBEAT = timedelta(seconds=5)
CONNECTED = events.Connected(epoch=1, charter_digest=CHARTER, heartbeat=HEARTBEAT, is_behind=False)
FIRST = parsed(deploy_message(1))
ROUND = parsed(round_message(2))


def offline(*, is_brake_on: bool = False) -> AgentState:
    state = AgentState(CHARTER, epoch=1)
    accept(state, FIRST)
    state.is_brake_on = is_brake_on
    return state


def online(*, is_brake_on: bool = False) -> AgentState:
    state = offline(is_brake_on=is_brake_on)
    state.handle(CONNECTED, NOON)
    return state


def accept(state: AgentState, *directives: object) -> None:
    for directive in directives:
        assert state.handle(events.DirectiveReceived(directive), NOON) == [events.Admit(directive)]  # type: ignore[arg-type]
        state.handle(events.Admitted(directive), NOON)  # type: ignore[arg-type]


STATES = {
    "offline": lambda: offline(),
    "offline, brake on": lambda: offline(is_brake_on=True),
    "online": lambda: online(),
    "online, brake on": lambda: online(is_brake_on=True),
}

QUESTION = Question("q1", b"{}", 1000)
ACKNOWLEDGED_AGAIN = events.Acknowledge(number(1))

# What each event asks for; a dict tells the standings apart, by their names above.
EXPECTED: list[tuple[Event, list[Instruction] | dict[str, list[Instruction]]]] = [
    (
        CONNECTED,
        {
            "offline": [ACKNOWLEDGED_AGAIN, events.SendStatus(1, is_full=True), events.SendOutbox()],
            "online": [ACKNOWLEDGED_AGAIN, events.SendStatus(2, is_full=True), events.SendOutbox()],
        },
    ),
    (events.Disconnected(), []),
    (events.Heard(), []),
    (events.DirectiveReceived(FIRST), [ACKNOWLEDGED_AGAIN]),
    (events.DirectiveUnreadable(number(9), "UNSUPPORTED"), [events.Refuse(number(9), ("UNSUPPORTED",))]),
    (
        events.Admitted(parsed(policy_message(3))),
        [
            events.Record(parsed(policy_message(3))),
            events.Acknowledge(number(3)),
            events.Start(parsed(policy_message(3))),
        ],
    ),
    (events.NotAdmitted(number(3), ("BAD_SIGNATURE",)), [events.Refuse(number(3), ("BAD_SIGNATURE",))]),
    (events.JobEnded(number(1)), [events.Finish(number(1), ())]),
    (events.LeftOnOwnAccord(number(1)), []),
    (
        events.BrakeMoved(is_on=True),
        {
            "offline": [events.CutEgress()],
            "offline, brake on": [],
            "online": [events.CutEgress()],
            "online, brake on": [],
        },
    ),
    (events.BrakeMoved(is_on=False), []),
    (events.ReportChanged(), []),
    (
        events.FullReportAsked(),
        {"offline": [], "online": [events.SendStatus(2, is_full=True)]},
    ),
    (events.QuestionReceived(QUESTION), [events.Answer(QUESTION)]),
    (events.LogContradicted(), [events.HaltEgress(), events.CutEgress()]),
    (events.Tick(), []),
]


def test_every_event_is_in_the_table() -> None:
    assert {type(event) for event, _ in EXPECTED} == set(get_args(Event))


@pytest.mark.parametrize("standing", STATES)
@pytest.mark.parametrize(("event", "wanted"), EXPECTED, ids=[type(event).__name__ for event, _ in EXPECTED])
def test_each_event_in_each_standing(
    standing: str, event: Event, wanted: list[Instruction] | dict[str, list[Instruction]]
) -> None:
    state = STATES[standing]()
    if isinstance(wanted, dict):
        wanted = wanted[standing] if standing in wanted else wanted.get(standing.partition(",")[0], [])
    before = state.highest
    assert state.handle(event, NOON) == wanted
    assert state.highest >= before


def test_a_new_directive_is_admitted_then_recorded_then_acknowledged_then_started() -> None:
    state = online()
    second = parsed(deploy_message(5, rollout="second"))
    assert state.handle(events.DirectiveReceived(second), NOON) == [events.Admit(second)]
    assert state.highest == number(1)
    assert state.handle(events.Admitted(second), NOON) == [
        events.Record(second),
        events.Acknowledge(second.number),
        events.Start(second),
    ]
    assert state.highest == second.number


def test_an_older_number_is_refused_and_nothing_moves() -> None:
    state = online()
    accept(state, parsed(deploy_message(7)))
    older = parsed(deploy_message(6, version="v2"))
    assert state.handle(events.DirectiveReceived(older), NOON) == [events.Refuse(older.number, ("ROLLBACK_REFUSED",))]
    assert state.highest == number(7)
    assert set(state.open) == {number(7)}


def test_a_lower_epoch_is_older_whatever_its_counter() -> None:
    state = AgentState(CHARTER, DirectiveNumber(2, 1))
    old = parsed(deploy_message(99))
    assert state.handle(events.DirectiveReceived(old), NOON) == [events.Refuse(old.number, ("ROLLBACK_REFUSED",))]


def test_a_number_that_comes_back_with_other_content_is_refused() -> None:
    state = online()
    other = parsed(deploy_message(1, version="swapped"))
    assert state.handle(events.DirectiveReceived(other), NOON) == [events.Refuse(other.number, ("NUMBER_REUSED",))]


def test_a_directive_under_admission_that_comes_again_is_not_admitted_twice() -> None:
    state = online()
    second = parsed(deploy_message(2, rollout="second"))
    state.handle(events.DirectiveReceived(second), NOON)
    assert state.handle(events.DirectiveReceived(second), NOON) == []
    swapped = parsed(deploy_message(2, rollout="other"))
    assert state.handle(events.DirectiveReceived(swapped), NOON) == [events.Refuse(number(2), ("NUMBER_REUSED",))]


def test_what_the_agent_left_on_its_own_is_refused_when_it_comes_again() -> None:
    state = online()
    state.handle(events.LeftOnOwnAccord(FIRST.number), NOON)
    assert state.handle(events.DirectiveReceived(FIRST), NOON) == [events.Refuse(FIRST.number, ("LEFT",))]


def test_what_is_done_is_acknowledged_again_and_not_started_again() -> None:
    state = online()
    state.handle(events.JobEnded(FIRST.number), NOON)
    assert state.handle(events.DirectiveReceived(FIRST), NOON) == [events.Acknowledge(FIRST.number)]
    assert not state.open


def test_the_newest_directive_of_a_subject_supersedes_the_older() -> None:
    state = online()
    newer = parsed(deploy_message(2, version="v2"))
    state.handle(events.DirectiveReceived(newer), NOON)
    assert events.Finish(number(1), ("SUPERSEDED",)) in state.handle(events.Admitted(newer), NOON)
    assert set(state.open) == {number(2)}


def test_an_abort_takes_the_place_of_its_deployment() -> None:
    state = online()
    abort = parsed(abort_message(2, deploy=1))
    state.handle(events.DirectiveReceived(abort), NOON)
    assert state.handle(events.Admitted(abort), NOON) == [
        events.Record(abort),
        events.Finish(number(1), ("SUPERSEDED",)),
        events.Acknowledge(number(2)),
        events.Start(abort),
    ]


def test_the_end_of_a_run_forgets_what_was_said_about_its_rounds() -> None:
    state = online()
    accept(state, ROUND)
    end = parsed(end_message(3))
    state.handle(events.DirectiveReceived(end), NOON)
    assert events.ForgetRounds(end.action.run) in state.handle(events.Admitted(end), NOON)  # type: ignore[union-attr]


def test_the_brake_stops_and_refuses_rounds_and_leaves_deployments() -> None:
    state = online()
    accept(state, ROUND)
    assert state.handle(events.BrakeMoved(is_on=True), NOON) == [
        events.CutEgress(),
        events.Stop("run/run-1"),
        events.RefuseRound(ROUND.action.run, 1, number(2), ("BRAKE_ON",)),  # type: ignore[union-attr]
        events.Finish(number(2), ("BRAKE_ON",)),
    ]
    assert set(state.open) == {number(1)}


def test_a_round_under_the_brake_is_refused_before_and_after_admission() -> None:
    state = online(is_brake_on=True)
    refused = [events.Refuse(ROUND.number, ("BRAKE_ON",))]
    assert state.handle(events.DirectiveReceived(ROUND), NOON) == refused
    state = online()
    state.handle(events.DirectiveReceived(ROUND), NOON)
    state.handle(events.BrakeMoved(is_on=True), NOON)
    assert state.handle(events.Admitted(ROUND), NOON) == refused
    assert state.highest == number(1)


def test_more_work_than_the_bound_is_refused() -> None:
    state = AgentState(CHARTER, epoch=1)
    accept(state, *(parsed(deploy_message(n, rollout=f"r{n}")) for n in range(1, MAX_OPEN + 1)))
    more = parsed(deploy_message(MAX_OPEN + 1, rollout="one-more"))
    assert state.handle(events.DirectiveReceived(more), NOON) == [events.Refuse(more.number, ("RESOURCE_EXHAUSTED",))]


def test_silence_of_three_heartbeats_ends_the_stream_and_the_work_goes_on() -> None:
    state = online()
    assert events.HangUp() not in state.handle(events.Tick(), NOON + 2 * HEARTBEAT)
    assert state.handle(events.Tick(), NOON + 3 * HEARTBEAT) == [events.HangUp()]
    assert state.phase is Phase.OFFLINE
    assert set(state.open) == {number(1)}


def test_heartbeats_are_sent_in_time_and_not_more_often() -> None:
    state = online()
    assert state.handle(events.Tick(), NOON + HEARTBEAT / 2) == []
    state.handle(events.Heard(), NOON + HEARTBEAT)
    assert state.handle(events.Tick(), NOON + HEARTBEAT) == [events.SendHeartbeat(1)]
    assert state.handle(events.Tick(), NOON + HEARTBEAT * 1.5) == []


def test_changes_in_quick_succession_share_one_status() -> None:
    state = online()
    assert state.handle(events.ReportChanged(), NOON) == []
    later = NOON + timedelta(milliseconds=250)
    assert state.handle(events.Tick(), later) == [events.SendStatus(2, is_full=False)]
    assert state.handle(events.Tick(), later) == []


def test_another_charter_at_the_coordinator_is_fetched() -> None:
    newer = events.Connected(epoch=1, charter_digest=digest_of(b"newer"), heartbeat=HEARTBEAT, is_behind=False)
    assert offline().handle(newer, NOON)[0] == events.FetchCharter()


def test_what_was_open_is_started_again_after_a_restart() -> None:
    known = Accepted(FIRST.number, FIRST.content_digest, Standing.OPEN)
    state = AgentState.resumed(CHARTER, FIRST.number, [known], [FIRST])
    assert state.begin() == [events.Start(FIRST)]
    assert state.handle(events.DirectiveReceived(FIRST), NOON) == [events.Acknowledge(FIRST.number)]
