"""A revoked agent: cut off while it speaks, told why, and never let in again."""

from __future__ import annotations

import pytest

from tests.e2e.processes import eventually
from tests.e2e.treaty_world import SPARE, TreatyWorld
from treaty.exit_codes import ExitCode

pytestmark = [pytest.mark.torch, pytest.mark.xdist_group("e2e")]


def test_a_revoked_agent_is_cut_within_five_seconds_and_never_returns(joined: TreatyWorld) -> None:
    joined.foedus("agent", "revoke", joined.agent_id(SPARE), "--reason", "host stolen")
    eventually("its stream is cut", lambda: not joined.is_connected(SPARE), 5)
    why = f"{joined.agent_id(SPARE)}, or this nation's CA, was revoked"
    eventually("it learns why", lambda: joined.status(SPARE)["connection"]["trouble"]["message"] == why, 30)
    joined.kill(f"agent-{SPARE}")
    joined.start_agent(SPARE, is_awaited=False)
    checked = joined.agent_attempt(SPARE, "check")
    assert checked.code == ExitCode.PRECONDITION
    assert f"error: certificate: {why}" in checked.err
    joined.kill("coordinator")
    joined.start_coordinator()
    joined.await_connected("DE")

    def refused() -> bool:
        return any(each.get("code") == "REVOKED" for each in joined.log_of("coordinator"))

    eventually("it tried", refused, 30)
    assert not joined.is_connected(SPARE)
