"""A coordinator in wrong hands: no message of it ends the agent, poisons its numbers, or gets past its brake."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from node_agent import events, outbox
from node_agent.agent import Agent
from node_agent.border import BEHIND, BRAKE_ON, DATASET_USE
from node_agent.connections import ReachLine
from node_agent.executor import QUESTIONS, QUESTIONS_PER_SECOND
from node_agent.journal import SqliteJournal
from node_agent.ledger import MAX_CLOSED
from node_agent.logwatch import LogWatch
from node_agent.pace import Pace
from node_agent.ports import Permit, RolloutReport, RolloutState
from node_agent.reach import greet
from node_agent.reporting import ROLLOUTS, ReportBook
from node_agent.state import MAX_COUNTER_LEAP, MAX_EPOCH_LEAP, AgentState
from tests.node_agent.core.clock import ManualClock
from tests.node_agent.core.coordinator import Stream, coordinator
from tests.node_agent.core.directives import deploy_message, end_message, number, parsed, round_message
from tests.node_agent.core.nation import Joined, nation
from tests.node_agent.core.test_border import ASK, CHUNKS, DECISION, OPENING, PERMIT, RECEIPT, Setting, setting
from tests.node_agent.core.test_session import _checkpoint, running
from tests.node_agent.core.test_state import CHARTER, HEARTBEAT, NOON
from tests.node_agent.core.workers import FakeWorkers
from treaty.errors import InvalidInput, PolicyDenied, ResourceExhausted, TrustError, Unavailable
from treaty.names import DirectiveNumber, RunId, digest_of
from treaty.receipt import Crossing
from treaty.wire.v1 import reach_pb2, session_pb2, types_pb2

__all__ = ["setting"]

RUN = RunId("run-1")
METRICS = b'{"heldout_loss_micro":1}'
RESULT_RECEIPT = replace(RECEIPT, digest=digest_of(METRICS), crossing=Crossing.EVALUATION, size_bytes=len(METRICS))
RESULT_PERMIT = Permit(DATASET_USE, is_allowed=True, ask_digest=ASK, decision_digest=DECISION)


@pytest.fixture
def joined(tmp_path: Path) -> Joined:
    return nation(tmp_path)


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[SqliteJournal]:
    with closing(SqliteJournal(tmp_path / "journal.db", ManualClock())) as opened:
        yield opened


async def _waits(setting: Setting) -> session_pb2.AgentMessage:
    """An evaluation's result in the outbox, with nobody connected."""
    border, box = setting.border, setting.base.journal.outbox
    sending = asyncio.ensure_future(border.send_result(RUN, 1, number(4), METRICS, RESULT_RECEIPT, RESULT_PERMIT))
    async with asyncio.timeout(5):
        while len(box.waiting()) < 2:
            border.outbox_grew.clear()
            await border.outbox_grew.wait()
    sending.cancel()
    return next(waiting.message for waiting in box.waiting() if waiting.subject == "round/run-1")


# the brake ------------------------------------------------------------------------------------------------------------


async def test_a_refused_round_takes_its_waiting_result_back(setting: Setting) -> None:
    await _waits(setting)
    setting.border.refuse_round(RUN, 1, number(4), [BRAKE_ON])
    (told,) = [entry.message for entry in setting.base.journal.outbox.waiting() if entry.subject == "round/run-1"]
    assert (told.round_result.refusal.code, told.round_result.metrics) == (BRAKE_ON, b"")


async def test_a_result_that_waited_does_not_leave_under_the_brake(joined: Joined) -> None:
    async with coordinator(joined) as (hub, port), running(joined, port, FakeWorkers()) as agent:
        stream = await hub.stream()
        journal = agent._base.journal
        journal.set_brake(is_on=True)
        envelope, _ = agent._border._journal_receipt(RESULT_RECEIPT)
        result = session_pb2.RoundResult(run=RUN, round=1, metrics=METRICS, receipt=envelope)
        journal.outbox.put(digest_of(b"key"), "round/run-1", session_pb2.AgentMessage(round_result=result))
        agent._border.submit_later(envelope)
        seen = await _until(stream, "submission", 1)
        assert not any(each.HasField("round_result") for each in seen)
        assert "round-result" not in journal.crossings.counts()


async def test_what_waited_is_looked_at_again_when_it_is_to_leave(setting: Setting) -> None:
    result = await _waits(setting)
    setting.border.let(result)
    setting.base.journal.set_brake(is_on=True)
    with pytest.raises(PolicyDenied) as refused:
        setting.border.let(result)
    assert refused.value.codes == (BRAKE_ON,)
    setting.border.halt("LOG_INCONSISTENT")
    with pytest.raises(PolicyDenied) as refused:
        setting.border.let(result)
    assert refused.value.codes == ("LOG_INCONSISTENT",)


async def test_a_brake_pulled_while_the_receipt_is_written_stops_the_update(setting: Setting) -> None:
    journal_receipt = setting.border._journal_receipt

    def then_braked(*arguments: object) -> object:
        written = journal_receipt(*arguments)  # type: ignore[arg-type]
        setting.base.journal.set_brake(is_on=True)
        return written

    setting.border._journal_receipt = then_braked  # type: ignore[method-assign, assignment]
    with pytest.raises(PolicyDenied, match="the brake is on"):
        await setting.border.send_update(OPENING, RECEIPT, PERMIT, CHUNKS)
    assert setting.hub.frames == []


async def test_another_update_confirmed_than_the_one_sent_is_no_confirmation(setting: Setting) -> None:
    setting.hub.confirms = digest_of(b"another")
    with pytest.raises(Unavailable, match="confirmed another update"):
        await setting.border.send_update(OPENING, RECEIPT, PERMIT, CHUNKS)
    setting.hub.confirms, setting.hub.log_index = "", 2**53
    with pytest.raises(InvalidInput, match="no log has"):
        await setting.border.send_update(OPENING, RECEIPT, PERMIT, CHUNKS)
    assert [written.log_index for written in setting.base.journal.crossings.receipts()] == [None]


# one message must not end the agent -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "message",
    [
        {"recorded": session_pb2.Recorded(statement_digest=digest_of(b"x"), log_index=2**63)},
        {"directive": session_pb2.Directive(number=types_pb2.DirectiveNumber(epoch=1, counter=2**64 - 1))},
        {"directive": deploy_message(2**53)},
        {"question": session_pb2.Question(question_id="", ask=b"{}")},
    ],
    ids=["index beyond every log", "unreadable number", "number beyond JSON", "question without a name"],
)
async def test_the_agent_dials_again_after_what_cannot_be_read(joined: Joined, message: dict[str, object]) -> None:
    async with coordinator(joined) as (hub, port), running(joined, port, FakeWorkers()) as agent:
        stream = await hub.stream()
        await stream.say(**message)
        await hub.stream()
        assert agent._base.journal.ledger.accepted() == []


async def test_an_epoch_beyond_json_is_no_welcome(joined: Joined) -> None:
    async with coordinator(joined) as (hub, port):
        hub.epoch = 2**60
        async with running(joined, port, FakeWorkers()) as agent:
            await hub.stream()
            await hub.stream()
            assert agent.state.epoch == 0


def test_a_directive_s_number_stays_within_what_json_carries() -> None:
    assert str(DirectiveNumber(1, 2**53 - 1)) == f"1.{2**53 - 1}"
    for epoch, counter in ((1, 2**53), (2**53, 1), (-1, 0)):
        with pytest.raises(InvalidInput, match="a pair of integers"):
            DirectiveNumber(epoch, counter)


async def test_what_the_coordinator_calls_a_code_is_kept_only_if_it_is_one(setting: Setting) -> None:
    digest = digest_of(b"statement")
    setting.base.journal.outbox.put(digest, "record", session_pb2.AgentMessage())
    await setting.border.recorded(digest, 0, "A" * 65)
    confirmed = setting.base.journal.outbox.confirmed(digest)
    assert confirmed is not None
    assert confirmed.refusal == "INTERNAL"


def test_a_report_with_a_text_for_a_code_can_be_read_again(journal: SqliteJournal) -> None:
    report = RolloutReport("first", number(1), RolloutState.FAILED, digest_of(b"m"), NOON, ("A" * 65, "DISK_FULL"))
    ReportBook(journal).rollout(report)
    again = ReportBook(journal).status(1, is_full=True, is_brake_on=False)
    assert list(again.status.rollouts[0].codes) == ["INTERNAL", "DISK_FULL"]


def test_a_report_that_cannot_be_read_is_left_out(journal: SqliteJournal) -> None:
    journal.note(ROLLOUTS, "first", {"codes": ["A" * 65]})
    assert list(ReportBook(journal).status(1, is_full=True, is_brake_on=False).status.rollouts) == []


def test_a_full_outbox_lets_go_of_the_oldest_round_and_of_no_statement(
    journal: SqliteJournal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "MAX_WAITING", 3)
    for subject in ("record", "round/one", "round/two", "round/three", "record "):
        journal.outbox.put(digest_of(subject.encode()), subject.strip(), session_pb2.AgentMessage())
    assert [entry.subject for entry in journal.outbox.waiting()] == ["record", "round/three", "record"]
    journal.outbox.put(digest_of(b"f"), "record", session_pb2.AgentMessage())
    with pytest.raises(ResourceExhausted, match="wait for the coordinator"):
        journal.outbox.put(digest_of(b"g"), "round/four", session_pb2.AgentMessage())


async def test_a_refusal_that_finds_no_room_leaves_the_agent_alive(
    joined: Joined, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "MAX_WAITING", 0)
    workers = FakeWorkers()
    workers.work_error = PolicyDenied("no", codes=["DAT-003"])
    async with coordinator(joined) as (hub, port), running(joined, port, workers):
        stream = await hub.stream()
        await stream.say(directive=round_message(5))
        await stream.next("acknowledgement")
        await workers.until(workers.begun, "Round 1.5")
        workers.work_error = None
        await stream.say(directive=end_message(6))
        await workers.until(workers.done, "EndRun 1.6")


async def test_a_clock_that_no_clock_shows_is_refused() -> None:
    answer = reach_pb2.GreetResponse()
    answer.server_time.seconds = 2**62

    class Line(ReachLine):
        def __init__(self) -> None: ...

        async def call(self, method: str, request: object) -> bytes:
            return answer.SerializeToString()

    with pytest.raises(InvalidInput, match="no clock shows"):
        await greet(Line())


# numbers --------------------------------------------------------------------------------------------------------------


def _received(state: AgentState, at: DirectiveNumber) -> list[events.Instruction]:
    directive = replace(parsed(deploy_message(1)), number=at)
    return state.handle(events.DirectiveReceived(directive), NOON)


def test_an_epoch_that_was_not_announced_and_a_leap_are_refused() -> None:
    state = AgentState(CHARTER, DirectiveNumber(1, 5), epoch=1)
    over = DirectiveNumber(2, 1)
    assert _received(state, over) == [events.Refuse(over, ("EPOCH_UNANNOUNCED",))]
    far = DirectiveNumber(1, 5 + MAX_COUNTER_LEAP + 1)
    assert _received(state, far) == [events.Refuse(far, ("NUMBER_LEAPS",))]
    epoch = MAX_EPOCH_LEAP + 2
    state.handle(events.Connected(epoch, CHARTER, HEARTBEAT, is_behind=False), NOON)
    leap = DirectiveNumber(epoch, 1)
    assert _received(state, leap) == [events.Refuse(leap, ("NUMBER_LEAPS",))]
    first = DirectiveNumber(2, MAX_COUNTER_LEAP + 1)
    assert _received(state, first) == [events.Refuse(first, ("NUMBER_LEAPS",))]
    assert isinstance(_received(state, over)[0], events.Admit)
    assert state.highest == DirectiveNumber(1, 5)


def test_of_what_is_done_only_the_newest_is_remembered() -> None:
    state = AgentState(CHARTER, epoch=1)
    end = parsed(end_message(1))
    for counter in range(1, 3 * MAX_CLOSED):
        directive = replace(end, number=number(counter))
        state.handle(events.DirectiveReceived(directive), NOON)
        state.handle(events.Admitted(directive), NOON)
        state.handle(events.JobEnded(directive.number), NOON)
    assert len(state.accepted) <= 2 * MAX_CLOSED + 1


# the charter, the log, questions --------------------------------------------------------------------------------------


def test_a_charter_that_parted_from_the_one_in_force_is_not_followed(joined: Joined) -> None:
    joined.join("localhost:1")
    base = joined.lay()
    second = replace(joined.charter, version=2)
    assert base.nation.follow([joined.envelope, joined.world.signed(second)], base.membership)
    other = replace(second, expires_at=second.expires_at.replace(microsecond=0).replace(second=1))
    third = replace(other, version=3)
    fork = [joined.envelope, joined.world.signed(other), joined.world.signed(third)]
    with pytest.raises(TrustError) as refused:
        base.nation.follow(fork, base.membership)
    assert refused.value.code == "CHARTER_FORKED"
    assert base.nation.charter() == second
    base.close()


async def test_while_the_coordinator_is_behind_nothing_leaves(joined: Joined) -> None:
    async with coordinator(joined) as (hub, port):
        hub.is_behind = True
        async with running(joined, port, FakeWorkers()) as agent:
            stream = await hub.stream()
            await _until(stream, "status", 1)
            await _is_held_back(agent)
            hub.is_behind = False
            stream.lost.set()
            await _until(await hub.stream(), "status", 1)
            await agent._border.send_update(OPENING, RECEIPT, PERMIT, CHUNKS)


async def test_a_log_that_is_not_shown_any_more_counts_as_behind(joined: Joined) -> None:
    async with coordinator(joined) as (hub, port):
        hub.checkpoint = _checkpoint(joined, [b"a"])
        async with running(joined, port, FakeWorkers()) as agent:
            stream = await hub.stream()
            await _until(stream, "status", 1)
            assert LogWatch(agent._base.journal, agent._base.nation).last() is not None
            hub.checkpoint = types_pb2.Checkpoint()
            stream.lost.set()
            await _until(await hub.stream(), "status", 1)
            await _is_held_back(agent)
            assert agent.state.is_behind


def test_a_checkpoint_of_a_size_that_no_log_has_is_an_alarm(joined: Joined, journal: SqliteJournal) -> None:
    from treaty.log import Checkpoint, sign_checkpoint

    joined.join("localhost:1")
    base = joined.lay()
    signed = sign_checkpoint(Checkpoint(joined.charter.log_origin, 2**60, b"r" * 32), joined.world.log_key.private)
    watch = LogWatch(journal, base.nation)
    with pytest.raises(TrustError, match="contradicts"):
        watch.observe(types_pb2.Checkpoint(note=signed.note), is_behind=False)
    assert "a size that no log has" in watch.alarm
    base.close()


def test_questions_are_answered_at_a_pace() -> None:
    clock = ManualClock()
    pace = Pace(clock, QUESTIONS_PER_SECOND, burst=QUESTIONS)
    assert sum(pace.take() for _ in range(1000)) == QUESTIONS
    clock.forward(seconds=1)
    assert sum(pace.take() for _ in range(1000)) == QUESTIONS_PER_SECOND
    clock.forward(seconds=-60)
    assert not pace.take()


def test_of_a_series_with_a_bound_the_newest_stay_and_the_count_goes_on(journal: SqliteJournal) -> None:
    for n in range(5):
        journal.append("answers", {"n": n}, keep=2)
    assert [(entry.sequence, entry.body["n"]) for entry in journal.entries("answers")] == [(4, 3), (5, 4)]


async def _is_held_back(agent: Agent) -> None:
    with pytest.raises(Unavailable, match="the coordinator is behind") as refused:
        await agent._border.send_update(OPENING, RECEIPT, PERMIT, CHUNKS)
    assert refused.value.code == BEHIND


async def _until(stream: Stream, body: str, count: int) -> list[session_pb2.AgentMessage]:
    """All that is said until so many of this kind were."""
    seen: list[session_pb2.AgentMessage] = []
    async with asyncio.timeout(5):
        while sum(each.WhichOneof("body") == body for each in seen) < count:
            seen.append(await stream.received.get())
    return seen
