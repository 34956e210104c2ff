"""Killed with -9 in the middle of it, started again: the result is the uninterrupted one, bit for bit, counted once."""

from __future__ import annotations

import pytest

from tests.e2e.processes import eventually, hold, is_alive, release
from tests.e2e.treaty_world import LEARNERS, TreatyWorld

pytestmark = [pytest.mark.torch, pytest.mark.xdist_group("e2e")]


def test_a_coordinator_killed_in_a_round_resumes_it_with_what_was_sent(treaty: TreatyWorld, reference: bytes) -> None:
    treaty.start_run("hub-killed")
    slow = treaty.trainer("FR")
    hold(slow)
    try:
        eventually("DE's update is there", treaty.spooled("hub-killed", 1, "DE").exists)
        treaty.kill("coordinator")
    finally:
        release(slow)
    treaty.start_coordinator()
    assert treaty.run_ended("hub-killed")["reason"] == "AllRoundsDone"
    assert treaty.arrays("hub-killed", 2) == reference
    for code in LEARNERS:
        crossed = [(each["crossing"], each["round"]) for each in treaty.receipts(code, "hub-killed")]
        assert crossed == [("update", 1), ("update", 2), ("evaluation", 3)]


def test_a_coordinator_killed_between_journal_and_answer_counts_what_comes_again_once(
    treaty: TreatyWorld, reference: bytes
) -> None:
    treaty.start_run("answer-lost")
    slow, quick = treaty.trainer("DE"), treaty.trainer("FR")  # DE keeps the round open
    hold(slow)
    hold(quick)
    try:
        # What an undisturbed update came to: more than a handshake, and less than an update with its handshake.
        treaty.lines["FR"].hold_answers_after(_said_at_least(treaty))
        release(quick)
        eventually("FR's update is recorded and counted", lambda: len(_accepted(treaty, "answer-lost")) == 1)
        treaty.kill("coordinator")
        [receipt] = treaty.receipts("FR", "answer-lost")
        assert receipt["log_index"] is None  # no answer came
        first = treaty.spooled("answer-lost", 1, "FR").read_bytes()
        treaty.lines["FR"].cut()
        treaty.lines["FR"].mend()
        treaty.start_coordinator()
        eventually("FR's update came again", lambda: len(_accepted(treaty, "answer-lost")) == 2)
        assert treaty.spooled("answer-lost", 1, "FR").read_bytes() == first
    finally:
        treaty.lines["FR"].mend()
        release(quick)
        release(slow)
    assert treaty.run_ended("answer-lost")["reason"] == "AllRoundsDone"
    assert treaty.arrays("answer-lost", 2) == reference
    of_round_1 = [each for each in treaty.receipts("FR", "answer-lost") if each["round"] == 1]
    assert [each["envelope"] for each in of_round_1] == [receipt["envelope"]]
    assert isinstance(of_round_1[0]["log_index"], int)


def test_an_agent_killed_while_it_trains_comes_back_and_trains_the_same(treaty: TreatyWorld, reference: bytes) -> None:
    treaty.start_run("trainer-killed")
    trainer = treaty.trainer("FR")
    hold(trainer)
    treaty.kill("agent-FR")
    eventually("the trainer ended with its agent", lambda: not is_alive(trainer), 10)
    treaty.start_agent("FR", is_awaited=False)
    assert treaty.run_ended("trainer-killed")["reason"] == "AllRoundsDone"
    assert treaty.arrays("trainer-killed", 2) == reference


def test_an_agent_killed_between_receipt_and_send_sends_the_same_bytes_under_that_receipt(
    treaty: TreatyWorld, reference: bytes
) -> None:
    treaty.start_run("sender-killed")
    trainer = treaty.trainer("FR")
    hold(trainer)
    treaty.lines["FR"].cut()
    release(trainer)
    written = eventually("the receipt is journaled", lambda: treaty.receipts("FR", "sender-killed"))
    kept = treaty.home("FR") / "outgoing" / "sender-killed" / "1" / "values.bin"
    ready = kept.read_bytes()
    assert not treaty.spooled("sender-killed", 1, "FR").exists()
    treaty.kill("agent-FR")
    treaty.lines["FR"].mend()
    treaty.start_agent("FR", is_awaited=False)
    sent = eventually("it is sent", lambda: _read(treaty, "sender-killed"))
    assert sent.endswith(ready)
    assert treaty.run_ended("sender-killed")["reason"] == "AllRoundsDone"
    assert treaty.arrays("sender-killed", 2) == reference
    of_round_1 = [each for each in treaty.receipts("FR", "sender-killed") if each["round"] == 1]
    assert [each["envelope"] for each in of_round_1] == [written[0]["envelope"]]
    assert isinstance(of_round_1[0]["log_index"], int)


def _said_at_least(treaty: TreatyWorld) -> int:
    """Bytes that FR's agent says in any case when it sends an update of these tests' recipe."""
    [receipt, *_] = treaty.receipts("FR", "reference")
    return treaty.spooled("reference", 1, "FR").stat().st_size + len(receipt["envelope"])


def _accepted(treaty: TreatyWorld, run: str) -> list[dict[str, object]]:
    """What the coordinator said in its log of FR's updates for round 1, once they were counted."""
    wanted = {"event": "update accepted", "agent": treaty.agent_id("FR"), "run": run, "round": 1}
    return [each for each in treaty.log_of("coordinator") if wanted.items() <= each.items()]


def _read(treaty: TreatyWorld, run: str) -> bytes:
    path = treaty.spooled(run, 1, "FR")
    return path.read_bytes() if path.exists() else b""
