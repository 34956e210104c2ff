"""Who may speak for a nation, as the treaty's policy says it at the coordinator: real policy, real TLS."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest

import policies
from controlplane.services.enrolment import ENROLMENT_DECIDED, peer_address
from tests.controlplane.api.test_reach import diagnosed
from tests.controlplane.api.world import DE, FR, World, agent, failure, home_of, load_charter, now, serving, world
from treaty.errors import PolicyDenied, Unavailable
from treaty.policy import archive
from treaty.policy import bundle as policy_bundle
from treaty.policy.questions import ObservedSubject
from treaty.resources.meta import Condition, find_condition, is_true
from treaty.resources.nations import NODE_AGENT
from treaty.wire.status import error_from
from treaty.wire.v1 import operator_pb2, session_pb2, transfer_pb2, transfer_pb2_grpc

PAR = agent()
BER = agent(DE, "ber-1")


@pytest.fixture
async def there(tmp_path: Path) -> AsyncIterator[World]:
    async with world(tmp_path) as started:
        yield started


async def govern(there: World, packed: bytes = b"") -> None:
    """Put the treaty's own policy in force, or that one."""
    packed, moment = packed or policies.compiled("treaty"), now().replace(microsecond=0)
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


def stricter(packed: bytes, *, revision: int, min_agent_version: str = "0.2.0") -> bytes:
    """The same policy under another revision, which asks for a newer agent; its vectors show one."""
    files = archive.unpack(packed)
    manifest, data = json.loads(files[".manifest"]), json.loads(files["data.json"])
    treaty = data["foedus"]["treaty"]
    manifest["revision"], treaty["revision"] = str(revision), revision
    treaty["registers"]["limits"]["min_agent_version"] = min_agent_version
    vectors = files["vectors.json"].replace(b'"agent_version":"0.1.0"', b'"agent_version":"0.9.0"')
    return archive.pack(
        {
            **files,
            ".manifest": json.dumps(manifest).encode(),
            "data.json": json.dumps(data).encode(),
            "vectors.json": vectors,
        }
    )


async def knock(there: World, **certificate: Any) -> None:
    shown = there.certificate(PAR, **certificate)
    assert (await failure(there.connect(PAR, certificate=shown))).details() == "NOT_ACCEPTED"


async def accepting(there: World) -> str:
    """What an operator is told who accepts the agent."""
    request = operator_pb2.AcceptAgentRequest(agent=str(PAR))
    return str((await failure(there.operator().AcceptAgent(request))).details())


async def test_an_accept_judges_what_the_agent_showed_and_says_what_it_did_not(there: World) -> None:
    await govern(there)
    await there.accept(PAR)
    condition = await decided(there)
    assert (condition.status, condition.reason) == ("True", "Allowed")
    assert condition.message == "undetermined here: AGT-005 AGT-006"  # a refused agent has said no version


async def test_an_accept_of_an_agent_that_showed_nothing_since_the_start_rests_on_its_name(there: World) -> None:
    await knock(there)
    await govern(there)
    enrolment = there.coordinator.services.enrolment
    enrolment._seen.clear()  # as a restart leaves it
    await enrolment.judge_accept(PAR)
    condition = await decided(there)
    assert condition.message == "undetermined here: AGT-001 AGT-003 AGT-004 AGT-005 AGT-006"


async def test_an_accept_is_refused_for_a_certificate_that_has_ended_until_the_agent_shows_the_next(
    there: World,
) -> None:
    await govern(there)
    await knock(there)
    enrolment = there.coordinator.services.enrolment
    seen = enrolment._seen[PAR]
    assert seen.cert is not None
    ended = replace(seen, cert=replace(seen.cert, not_after_ns=1))
    enrolment._seen[PAR] = ended
    assert "AGT-003" in await accepting(there)
    condition = await decided(there)
    assert (condition.reason, condition.message) == ("Denied", "AGT-003")
    known = await there.coordinator.core.store.resources.get(NODE_AGENT, "fr-par-1")
    assert not is_true(known.status.conditions, "Accepted")
    await there.accept(PAR)  # it knocks again first


async def test_an_agent_that_never_knocked_is_not_accepted(there: World) -> None:
    await govern(there)
    assert "has not tried to connect" in await accepting(there)


async def test_a_new_policy_cuts_whom_it_refuses_with_its_code_and_leaves_the_others(there: World) -> None:
    await govern(there)
    await there.accept(PAR)
    await there.accept(BER)
    old, new = await there.connect(PAR, agent_version="0.1.0"), await there.connect(BER, agent_version="0.3.0")
    await govern(there, stricter(policies.compiled("treaty"), revision=2))
    cut = await old.ended()
    assert (cut.code(), cut.details()) == (grpc.StatusCode.PERMISSION_DENIED, "POLICY_DENIED: AGT-006")
    assert (await decided(there)).message == "AGT-006"
    assert await fetched(there) == (grpc.StatusCode.PERMISSION_DENIED, "POLICY_DENIED: AGT-006")
    assert (await failure(there.connect(PAR, agent_version="0.1.0"))).details() == "POLICY_DENIED: AGT-006"
    await new.say(session_pb2.AgentMessage(status=session_pb2.Status(sequence=2)))
    await new.next("report_request")
    await there.connect(PAR, agent_version="0.2.0")


async def fetched(there: World) -> tuple[grpc.StatusCode, str]:
    """How a fetch of what nobody granted ends; NOT_FOUND is said to whom the gate lets in."""
    artifacts = transfer_pb2_grpc.ArtifactsStub(there.channel(PAR))
    request = transfer_pb2.FetchRequest(manifest_digest="sha256:" + "ab" * 32, chunk_digests=["sha256:" + "cd" * 32])
    refused = await failure(artifacts.Fetch(request).read())
    return refused.code(), refused.details() or ""


async def test_an_accepted_agent_is_served_nothing_before_a_connect_of_it_was_let_in(there: World) -> None:
    await there.accept(PAR)
    assert await fetched(there) == (grpc.StatusCode.UNAVAILABLE, "NOT_CONNECTED")
    updates: Any = transfer_pb2_grpc.UpdatesStub(there.channel(PAR))
    sent = await failure(updates.Send(iter([transfer_pb2.UpdateFrame(chunk=b"x")])))
    assert (sent.code(), sent.details()) == (grpc.StatusCode.UNAVAILABLE, "NOT_CONNECTED")
    with pytest.raises(Unavailable, match=r"par-1 was not let in since the coordinator started; connect first"):
        await there.coordinator.services.enrolment.check_admitted(PAR)
    await there.connect(PAR)
    assert await fetched(there) == (grpc.StatusCode.NOT_FOUND, "NOT_FOUND")


async def test_a_new_policy_is_asked_at_the_next_call_of_an_agent_that_left_its_stream(there: World) -> None:
    await govern(there)
    await there.accept(PAR)
    stream = await there.connect(PAR, agent_version="0.1.0")
    stream.call.cancel()
    assert await fetched(there) == (grpc.StatusCode.NOT_FOUND, "NOT_FOUND")
    await govern(there, stricter(policies.compiled("treaty"), revision=2))
    assert await fetched(there) == (grpc.StatusCode.PERMISSION_DENIED, "POLICY_DENIED: AGT-006")
    assert (await decided(there)).message == "AGT-006"
    await there.connect(PAR, agent_version="0.2.0")
    assert await fetched(there) == (grpc.StatusCode.NOT_FOUND, "NOT_FOUND")


async def test_a_refusal_outlives_the_coordinator_until_the_treaty_answers_otherwise(tmp_path: Path) -> None:
    home, charters = home_of(tmp_path)
    await load_charter(home, charters.signed())
    async with serving(home, charters) as before:
        await govern(before)
        await before.accept(PAR)
        await failure(before.connect(PAR, agent_version="0.0.9"))
    async with serving(home, charters) as after:
        assert await fetched(after) == (grpc.StatusCode.PERMISSION_DENIED, "POLICY_DENIED: AGT-006")
        after.coordinator.services.policies._clock = lambda: now() + timedelta(days=10)  # nobody answers
        assert (await failure(after.connect(PAR))).details() == "POLICY_DENIED: AGT-006"
        assert (await decided(after)).reason == "Denied"
        after.coordinator.services.policies._clock = now
        await after.connect(PAR)
        assert await fetched(after) == (grpc.StatusCode.NOT_FOUND, "NOT_FOUND")


async def test_a_policy_that_does_not_answer_cuts_nobody_and_is_asked_again(there: World) -> None:
    await govern(there)
    await there.accept(PAR)
    await there.connect(PAR)
    services = there.coordinator.services
    services.policies._clock = lambda: now() + timedelta(days=10)  # past its validity
    services.enrolment._judged_under.clear()
    await services.enrolment.judge_again([PAR])
    services.enrolment.check_not_denied(PAR)
    assert services.enrolment._judged_under == {}


async def test_a_policy_that_does_not_answer_lets_a_refusal_stand_and_is_asked_again(there: World) -> None:
    await govern(there)
    await there.accept(PAR)
    await there.connect(PAR, agent_version="0.1.0")
    await govern(there, stricter(policies.compiled("treaty"), revision=2))
    services = there.coordinator.services
    await services.enrolment.judge_again([PAR])
    services.policies._clock = lambda: now() + timedelta(days=10)  # past its validity
    with suppress(PolicyDenied):
        await services.enrolment.admit(PAR, ObservedSubject(spiffe=str(PAR), agent_version="0.1.0"))
    with pytest.raises(PolicyDenied) as refused:
        services.enrolment.check_not_denied(PAR)
    assert refused.value.codes == ("AGT-006",)
    assert PAR not in services.enrolment._judged_under


async def test_a_revoked_agent_is_not_accepted_and_no_policy_is_blamed(there: World) -> None:
    await govern(there)
    await there.accept(PAR)
    await there.connect(PAR)
    await there.operator().RevokeAgent(operator_pb2.RevokeAgentRequest(subject=str(PAR), reason="stolen"))
    said = await accepting(there)
    assert said.startswith("REVOKED: ")
    assert "is revoked" in said


async def test_a_name_that_is_not_the_agents_is_refused_by_the_policy(there: World) -> None:
    await govern(there)
    enrolment = there.coordinator.services.enrolment
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
