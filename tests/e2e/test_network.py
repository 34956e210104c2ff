"""A nation that is cut off: the round goes on by its quorum, the rest is late, and the brake needs nobody."""

from __future__ import annotations

from typing import Any

import pytest

from tests.e2e.processes import eventually, hold, is_alive, release
from tests.e2e.treaty_world import TreatyWorld

pytestmark = [pytest.mark.torch, pytest.mark.xdist_group("e2e")]

DEADLINE_SECONDS = 30


def test_a_nation_cut_off_past_the_deadline_is_late_and_the_quorum_holds(treaty: TreatyWorld) -> None:
    treaty.start_run("partition", quorum=1, rounds=1, deadline=DEADLINE_SECONDS)
    trainer = treaty.trainer("FR")
    hold(trainer)
    treaty.lines["FR"].cut()

    def rounds() -> list[dict[str, Any]]:
        done: list[dict[str, Any]] = treaty.resource("FederatedRun", "partition")["status"].get("roundsDone", [])
        return done

    first = eventually("the round is closed", rounds, 2 * DEADLINE_SECONDS)[0]
    release(trainer)
    treaty.lines["FR"].mend()
    ended = treaty.run_ended("partition")
    assert (ended["status"], ended["reason"]) == ("True", "AllRoundsDone")
    assert first["nations"] == ["DE"]
    assert not treaty.spooled("partition", 1, "FR").exists()
    assert all(each["log_index"] is None for each in treaty.receipts("FR", "partition") if each["crossing"] == "update")
    treaty.await_connected("FR")


def test_a_run_that_misses_its_quorum_says_who_did_not_answer(treaty: TreatyWorld) -> None:
    treaty.start_run("too-few", rounds=1, deadline=DEADLINE_SECONDS)
    trainer = treaty.trainer("FR")
    hold(trainer)
    eventually("DE's update is there", treaty.spooled("too-few", 1, "DE").exists)
    ended = treaty.run_ended("too-few", 2 * DEADLINE_SECONDS)
    assert (ended["status"], ended["reason"]) == ("False", "QuorumNotMet")
    assert ended["message"] == "round 1 reached 1 of its quorum of 2 (FR: no answer until the deadline)"
    release(trainer)
    eventually("the trainer of the ended run goes", lambda: not is_alive(trainer))


def test_the_brake_stops_training_and_egress_with_the_coordinator_out_of_reach(treaty: TreatyWorld) -> None:
    treaty.start_run("braked", rounds=1)
    trainer = treaty.trainer("FR")
    hold(trainer)
    treaty.lines["FR"].cut()
    serving = treaty.status("FR")["serving"]
    treaty.agent("FR", "brake", "on")
    try:
        eventually("the trainer is ended", lambda: not is_alive(trainer), 5)
        assert treaty.receipts("FR", "braked") == []
        treaty.lines["FR"].mend()
        ended = treaty.run_ended("braked")
        assert ended["message"] == "round 1 reached 1 of its quorum of 2 (FR: BRAKE_ON)"
        assert not treaty.spooled("braked", 1, "FR").exists()
        status = treaty.status("FR")
        assert status["brake_on"] is True
        assert status["serving"] == serving
    finally:
        treaty.agent("FR", "brake", "off")
    treaty.await_connected("FR")
