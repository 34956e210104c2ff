"""Clocks that are wrong from the first key on: an hour apart is no matter, days apart is named as what it is."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e import faketime
from tests.e2e.ceremonies import ready_world
from tests.e2e.processes import eventually
from tests.e2e.treaty_world import CERTIFICATE_SECONDS, LEARNERS, TreatyWorld
from treaty.exit_codes import ExitCode

pytestmark = [pytest.mark.torch, pytest.mark.xdist_group("e2e"), faketime.needed]


@pytest.fixture(scope="module")
def apart(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TreatyWorld]:
    """A treaty in which FR's machine is an hour fast and DE's an hour slow, from before their keys were made."""
    clocks = {"FR": faketime.environment("+1h"), "DE": faketime.environment("-1h")}
    world = ready_world(tmp_path_factory.mktemp("apart"), LEARNERS, clocks)
    yield world
    world.close()


def test_agents_whose_clocks_are_an_hour_off_join_serve_and_train_as_any_others(
    apart: TreatyWorld, reference: bytes
) -> None:
    apart.start_run("reference")
    ended = apart.run_ended("reference")
    assert (ended["status"], ended["reason"]) == ("True", "AllRoundsDone")
    assert apart.arrays("reference", 2) == reference
    for code in LEARNERS:
        crossed = apart.receipts(code, "reference")
        assert [each["crossing"] for each in crossed] == ["update", "update", "evaluation"]
        assert all(isinstance(each["log_index"], int) for each in crossed)


def test_an_agent_whose_certificate_is_over_for_the_coordinator_learns_that_from_reach(apart: TreatyWorld) -> None:
    apart.programs.stop("agent-DE")
    apart.set_agent("DE", certificate_lifetime_seconds=CERTIFICATE_SECONDS)  # ended long ago, an hour behind
    apart.start_agent("DE", is_awaited=False)
    try:
        told = eventually("it learns why", lambda: trouble(apart, "DE"), 30)
        assert told["code"] == "EXPIRED"
        assert told["message"] == "for the coordinator this agent's certificate has expired"
        assert told["remedy"] == "set both clocks by NTP"
        assert not apart.is_connected("DE")
        checked = apart.agent_attempt("DE", "check")
        assert checked.code == ExitCode.PRECONDITION
        assert "error: clock: this machine's clock is 3600 s behind the coordinator's\n  set both clocks" in checked.err
        assert "error: certificate: for the coordinator this agent's certificate has expired" in checked.err
    finally:
        apart.programs.stop("agent-DE")
        apart.set_agent("DE")
    apart.start_agent("DE")


def test_a_clock_that_is_days_off_keeps_its_agent_away_and_check_names_it(apart: TreatyWorld) -> None:
    apart.programs.stop("agent-FR")
    usual, apart.clocks["FR"] = apart.clocks["FR"], faketime.environment("-3d")
    apart.start_agent("FR", is_awaited=False)
    try:
        told = eventually("it says what to do", lambda: trouble(apart, "FR"), 30)
        assert told["remedy"] == "run 'foedus-agent check'; this agent keeps trying"
        assert not apart.is_connected("FR")
        checked = apart.agent_attempt("FR", "check")
        assert checked.code == ExitCode.PRECONDITION
        assert "error: clock: this machine's clock shows " in checked.err
        assert "set both clocks by NTP" in checked.err
    finally:
        apart.programs.stop("agent-FR")
        apart.clocks["FR"] = usual
    apart.start_agent("FR")


def trouble(world: TreatyWorld, code: str) -> dict[str, str]:
    """Why that agent has no connection, in its own words; empty until it has said so."""
    said: dict[str, str] = world.status(code)["connection"].get("trouble") or {}
    return said if said.get("code") else {}
