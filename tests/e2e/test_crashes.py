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


def _read(treaty: TreatyWorld, run: str) -> bytes:
    path = treaty.spooled(run, 1, "FR")
    return path.read_bytes() if path.exists() else b""
