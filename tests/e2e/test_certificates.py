"""Certificates that end: renewed while streams live, and good again after any outage, without a person."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from tests.e2e.processes import eventually
from tests.e2e.treaty_world import CERTIFICATE_SECONDS, SPARE, TreatyWorld

pytestmark = [pytest.mark.xdist_group("e2e")]


def test_a_certificate_is_renewed_at_half_its_life_without_a_gap_in_the_connection(joined: TreatyWorld) -> None:
    before = not_after(joined)
    since = connected_since(joined)
    eventually("two renewals", lambda: not_after(joined) >= before + timedelta(seconds=CERTIFICATE_SECONDS), 40)
    assert connected_since(joined) == since
    assert joined.is_connected(SPARE)


def test_after_an_outage_of_three_lives_every_agent_is_back_by_itself(joined: TreatyWorld) -> None:
    pids = [joined.pid(f"agent-{code}") for code in joined.codes]
    last = not_after(joined)
    joined.kill("coordinator")
    eventually("three lives pass", lambda: datetime.now(UTC) > last + timedelta(seconds=2 * CERTIFICATE_SECONDS), 40)
    joined.start_coordinator()
    for code in joined.codes:
        joined.await_connected(code)
    assert [joined.pid(f"agent-{code}") for code in joined.codes] == pids


def not_after(world: TreatyWorld) -> datetime:
    """The end of the certificate that the coordinator saw last."""
    return datetime.fromisoformat(world.node_agent(SPARE)["status"]["certificateNotAfter"])


def connected_since(world: TreatyWorld) -> str:
    conditions = world.node_agent(SPARE)["status"]["conditions"]
    return str(next(each["lastTransitionTime"] for each in conditions if each["type"] == "Connected"))
