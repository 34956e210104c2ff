"""Who may speak for a nation, as the treaty's policy says it at the coordinator: real policy, real TLS."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import grpc
import pytest

import policies
from controlplane.services.enrolment import ENROLMENT_DECIDED, peer_address
from tests.controlplane.api.test_reach import diagnosed
from tests.controlplane.api.world import FR, World, agent, failure, now, world
from treaty.errors import PolicyDenied
from treaty.policy import bundle as policy_bundle
from treaty.policy.questions import ObservedSubject
from treaty.resources.meta import Condition, find_condition
from treaty.resources.nations import NODE_AGENT
from treaty.wire.status import error_from

PAR = agent()


@pytest.fixture
async def there(tmp_path: Path) -> AsyncIterator[World]:
    async with world(tmp_path) as started:
        yield started


async def govern(there: World) -> None:
    """Put the treaty's own policy in force."""
    packed, moment = policies.compiled("treaty"), now().replace(microsecond=0)
    envelope = policy_bundle.sign(
        packed, there.charters.policy[:1], not_before=moment, not_after=moment + timedelta(days=9)
    )
    await there.coordinator.services.policies.push(packed, envelope)


async def decided(there: World) -> Condition:
    known = await there.coordinator.core.store.resources.get(NODE_AGENT, "fr-par-1")
    condition = find_condition(known.status.conditions, ENROLMENT_DECIDED)
    assert condition is not None
    return condition


async def test_an_accepted_agent_connects_before_there_is_a_treaty_policy_and_it_is_said(there: World) -> None:
    await there.accept(PAR)
    await there.connect(PAR, agent_version="0.0.1")
    condition = await decided(there)
    assert (condition.status, condition.reason) == ("False", "NoTreatyPolicy")


async def test_the_treaty_lets_an_agent_in_though_only_its_nation_knows_its_address_ranges(there: World) -> None:
    await govern(there)
    await there.accept(PAR)
    await there.connect(PAR)
    condition = await decided(there)
    assert (condition.status, condition.reason, condition.message) == ("True", "Allowed", "undetermined here: AGT-005")
    assert await diagnosed(there, there.certificate(PAR)) == "ACCEPTED"


async def test_a_definite_no_refuses_with_its_code_and_is_said_on_the_agent(there: World) -> None:
    await govern(there)
    await there.accept(PAR)
    refused = await failure(there.connect(PAR, agent_version="0.0.9"))
    assert (refused.code(), refused.details()) == (grpc.StatusCode.PERMISSION_DENIED, "POLICY_DENIED: AGT-006")
    seen = error_from(refused, peer="the coordinator")
    assert isinstance(seen, PolicyDenied)
    assert (seen.codes, seen.message) == (("AGT-006",), "the coordinator's policy refused (AGT-006)")
    condition = await decided(there)
    assert (condition.status, condition.reason, condition.message) == ("True", "Denied", "AGT-006")
    assert there.coordinator.core.fleet.connected() == {}


async def test_before_an_accept_the_policy_is_asked_about_what_is_known(there: World) -> None:
    await govern(there)
    enrolment = there.coordinator.services.enrolment
    await enrolment.judge(PAR)
    with pytest.raises(PolicyDenied, match=r"does not let .*par-1 in") as refused:
        await enrolment.judge(PAR, ObservedSubject(spiffe=str(agent(FR, "lyo-1"))))
    assert refused.value.codes == ("AGT-002",)


@pytest.mark.parametrize(
    ("peer", "address"),
    [
        ("ipv4:10.0.0.1:4711", "10.0.0.1"),
        ("ipv6:%5B::1%5D:4711", "::1"),
        ("ipv6:[2001:db8::7]:1", "2001:db8::7"),
        ("ipv6:%5B::ffff:10.0.0.1%5D:4711", "10.0.0.1"),
        ("unix:/tmp/socket", None),
        ("", None),
    ],
)
def test_a_peers_address_is_read_from_grpcs_name_of_it(peer: str, address: str | None) -> None:
    assert peer_address(peer) == address
