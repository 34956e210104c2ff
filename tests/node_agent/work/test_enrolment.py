"""Whether this nation's own policies let its agent connect, by the real treaty policy on the real engine."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from node_agent.enrolment import ALLOWED, NOTHING_TO_ASK, local_address
from tests.builders.charters import DOMAIN
from tests.node_agent.work.nation import FR, World, governed, make_world
from treaty.errors import PolicyDenied, Unavailable
from treaty.names import digest_of
from treaty.policy.decider import nanoseconds
from treaty.policy.questions import ObservedCertificate, ObservedSubject
from treaty.wire.certificates import ca_digest


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    made = await governed(make_world(tmp_path))
    yield made
    await made.work.stop()
    made.journal.close()


def subject(world: World) -> ObservedSubject:
    nation, now = world.core.nation, world.clock.moment
    cert = ObservedCertificate(
        root=ca_digest(nation.charter().nations[FR].ca_pem),
        serial="0a1b",
        not_after_ns=nanoseconds(now + timedelta(hours=8)),
    )
    return ObservedSubject(spiffe=f"spiffe://fr.{DOMAIN}/agent/par-1", agent_version="0.1.0", ip="127.0.0.1", cert=cert)


def decisions(world: World) -> list[object]:
    return [
        entry.body["decision"]
        for entry in world.journal.entries("decisions")
        if '"agent.enrol"' in str(entry.body).replace("'", '"')
    ]


async def test_an_agent_of_the_nation_may_connect_and_the_decision_is_logged_once_while_nothing_changes(
    world: World,
) -> None:
    await world.work.enrol(subject(world))
    await world.work.enrol(subject(world))
    assert world.work.conditions()["enrolment"] == ALLOWED
    assert len(decisions(world)) == 1
    world.clock.moment += timedelta(minutes=6)
    await world.work.enrol(subject(world))
    assert len(decisions(world)) == 2


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"ip": "203.0.113.9"}, "AGT-005"),
        ({"ip": None}, "AGT-005"),
        ({"agent_version": "0.0.9"}, "AGT-006"),
        ({"spiffe": f"spiffe://de.{DOMAIN}/agent/par-1"}, "AGT-002"),
    ],
)
async def test_what_the_treaty_does_not_allow_keeps_the_agent_at_home_with_the_code(
    world: World, change: dict[str, str | None], code: str
) -> None:
    with pytest.raises(PolicyDenied, match=rf"do not let .*par-1 connect \({code}\)") as refused:
        await world.work.enrol(replace(subject(world), **change))  # type: ignore[arg-type]
    assert refused.value.codes == (code,)
    assert world.work.conditions()["enrolment"] == f"denied ({code})"


async def test_another_root_and_an_expired_certificate_are_refused_by_their_codes(world: World) -> None:
    good = subject(world)
    assert good.cert is not None
    foreign = replace(good, cert=replace(good.cert, root=digest_of(b"another CA")))
    with pytest.raises(PolicyDenied, match="AGT-001"):
        await world.work.enrol(foreign)
    over = replace(good, cert=replace(good.cert, not_after_ns=nanoseconds(world.clock.moment)))
    with pytest.raises(PolicyDenied, match="AGT-003"):
        await world.work.enrol(over)


async def test_before_a_policy_is_in_force_there_is_nothing_to_ask(tmp_path: Path) -> None:
    bare = make_world(tmp_path)
    await bare.work.enrol(replace(subject(bare), ip="203.0.113.9"))
    assert bare.work.conditions()["enrolment"] == NOTHING_TO_ASK
    assert bare.journal.entries("decisions") == []
    bare.journal.close()


async def test_outside_the_policys_validity_the_agent_connects_to_receive_the_next(world: World) -> None:
    world.clock.moment += timedelta(days=3650)
    await world.work.enrol(subject(world))
    assert world.work.conditions()["enrolment"] == NOTHING_TO_ASK


async def test_our_own_address_is_the_one_that_the_system_would_use() -> None:
    assert await local_address("127.0.0.1", 9) == "127.0.0.1"
    with pytest.raises(Unavailable, match=r"name\.invalid does not resolve"):
        await local_address("name.invalid", 9)
