"""What an operator does over the wire: resources, the charter, the record."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest

from controlplane.store.ports.trust import RevocationKind
from tests.controlplane.api.world import FR, World, agent, failure, now, world
from treaty.charter import Charter
from treaty.log import Leaf, leaf_hash, verify_checkpoint, verify_consistency, verify_leaf
from treaty.names import SpiffeRole
from treaty.resources import codec
from treaty.resources.meta import new_resource
from treaty.resources.nations import FREEZE_WINDOW, NATION, FreezeWindowSpec, NationSpec
from treaty.wire.v1 import operator_pb2 as wire

PAR = agent()
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


@pytest.fixture
async def there(tmp_path: Path) -> AsyncIterator[World]:
    async with world(tmp_path) as started:
        yield started


def window(reason: str = "elections") -> bytes:
    spec = FreezeWindowSpec((FR,), now().replace(microsecond=0), reason=reason)
    document = codec.to_json(new_resource(FREEZE_WINDOW, "w1", spec))
    document.pop("status")
    return json.dumps(document).encode()


async def test_apply_stores_intent_with_the_commands_trace_and_the_same_again_changes_nothing(there: World) -> None:
    stub = there.operator()
    metadata = (("traceparent", f"00-{TRACE}-00f067aa0ba902b7-01"),)
    first = json.loads((await stub.Apply(wire.ApplyRequest(json=window()), metadata=metadata)).json)
    again = json.loads((await stub.Apply(wire.ApplyRequest(json=window()))).json)
    assert first == again
    assert first["metadata"]["annotations"] == {"foedus.dev/trace-id": TRACE}
    changed = json.loads((await stub.Apply(wire.ApplyRequest(json=window("summit")))).json)
    assert (changed["metadata"]["generation"], changed["spec"]["reason"]) == (2, "summit")


async def test_a_dry_run_stores_nothing(there: World) -> None:
    stub = there.operator()
    await stub.Apply(wire.ApplyRequest(json=window(), dry_run=True))
    missing = await failure(stub.Get(wire.GetRequest(kind="FreezeWindow", name="w1")))
    assert missing.code() is grpc.StatusCode.NOT_FOUND


async def test_a_status_and_a_kind_that_is_not_written_by_hand_are_refused_with_the_next_step(there: World) -> None:
    stub = there.operator()
    status = codec.to_json(new_resource(FREEZE_WINDOW, "w1", FreezeWindowSpec((FR,), now())))
    status["status"] = {"observedGeneration": 7}
    refused = await failure(stub.Apply(wire.ApplyRequest(json=json.dumps(status).encode())))
    assert refused.details() == (
        "INVALID_INPUT: apply writes a spec; a status is observed, not wanted; leave 'status' out"
    )
    nation = codec.to_bytes(new_resource(NATION, "xx", NationSpec(FR)))
    refused = await failure(stub.Apply(wire.ApplyRequest(json=nation)))
    assert refused.code() is grpc.StatusCode.PERMISSION_DENIED
    assert refused.details() == ("PERMISSION_REFUSED: a Nation is not written by hand; the founders publish a charter")


async def test_a_watch_continues_from_a_list_without_a_gap(there: World) -> None:
    stub = there.operator()
    listed = await stub.List(wire.ListRequest(kind="FreezeWindow"))
    watch = stub.Watch(wire.WatchRequest(kind="FreezeWindow", since_resource_version=listed.resource_version))
    await stub.Apply(wire.ApplyRequest(json=window()))
    await stub.Delete(wire.DeleteRequest(kind="FreezeWindow", name="w1"))
    events: list[Any] = [await watch.read(), await watch.read()]
    assert [event.type for event in events] == [wire.WATCH_EVENT_TYPE_ADDED, wire.WATCH_EVENT_TYPE_DELETED]


async def test_the_nations_of_the_charter_are_resources(there: World) -> None:
    listed = await there.operator().List(wire.ListRequest(kind="Nation"))
    assert [json.loads(item.json)["spec"]["code"] for item in listed.items] == ["DE", "FR"]
    assert json.loads(listed.items[1].json)["spec"]["memberships"] == ["EU"]


async def test_an_agent_that_never_tried_to_connect_cannot_be_accepted(there: World) -> None:
    refused = await failure(there.operator().AcceptAgent(wire.AcceptAgentRequest(agent=str(PAR))))
    assert refused.code() is grpc.StatusCode.NOT_FOUND
    assert refused.details() == (
        f"NOT_FOUND: {PAR} has not tried to connect; see who has: foedus get agents; in the nation: foedus-agent join"
    )


async def test_a_charter_that_follows_by_the_rules_is_put_in_force_and_any_other_is_not(there: World) -> None:
    stub = there.operator()
    skipped = there.charters.signed(there.charters.charter(version=3))
    refused = await failure(stub.PublishCharter(wire.PublishCharterRequest(envelope=skipped)))
    assert refused.details() == "ROLLBACK_REFUSED: charter version 3 does not follow 1"
    under_signed = there.charters.signed(there.charters.charter(version=2), signers=1)
    refused = await failure(stub.PublishCharter(wire.PublishCharterRequest(envelope=under_signed)))
    assert refused.details() == "BAD_SIGNATURE: this charter has 1 valid signatures of the 2 it needs"
    assert there.coordinator.core.trust.charter.version == 1
    second: Charter = there.charters.charter(version=2)
    envelope = there.charters.signed(second)
    answer = await stub.PublishCharter(wire.PublishCharterRequest(envelope=envelope))
    assert (answer.version, answer.digest) == (2, second.digest)
    assert there.coordinator.core.trust.charter_envelopes[1] == envelope


async def test_the_record_proves_itself_from_where_the_reader_stood(there: World) -> None:
    stub = there.operator(SpiffeRole.AUDITOR)
    core = there.coordinator.core
    origin, key = core.trust.charter.log_origin, core.log_key.verification.public
    first = verify_checkpoint((await stub.GetCheckpoint(wire.GetCheckpointRequest())).note, origin, key)
    second = there.charters.signed(there.charters.charter(version=2))
    await there.operator().PublishCharter(wire.PublishCharterRequest(envelope=second))
    later = await stub.GetCheckpoint(wire.GetCheckpointRequest(from_size=first.size))
    checkpoint = verify_checkpoint(later.note, origin, key)
    assert checkpoint.size == first.size + 1
    proof = list(later.consistency_proof)
    verify_consistency(first.size, checkpoint.size, proof, old_root=first.root, new_root=checkpoint.root)
    entries = [entry async for entry in stub.ReadLog(wire.ReadLogRequest(first_index=0, end_index=100))]
    assert [entry.statement for entry in entries] == [there.charter_envelope, second]
    for entry in entries:
        data = Leaf(entry.index, core.record._log.entry(entry.index).data, entry.salt, entry.statement)
        verify_leaf(data)
        assert leaf_hash(data.data) == entry.leaf_hash


async def test_a_reader_from_beyond_the_record_is_refused(there: World) -> None:
    refused = await failure(there.operator().GetCheckpoint(wire.GetCheckpointRequest(from_size=99)))
    assert refused.details() == "LOG_BEYOND: the log has 1 entries, not 99"


async def test_a_revocation_that_another_process_wrote_cuts_the_stream_within_five_seconds(there: World) -> None:
    await there.accept(PAR)
    stream = await there.connect(PAR)
    core = there.coordinator.core
    await core.store.trust.revoke(RevocationKind.AGENT, str(PAR), reason="by hand", revoked_by="operator")
    began = now()
    assert (await stream.ended()).details() == "REVOKED"
    assert now() - began < timedelta(seconds=5)


@pytest.mark.parametrize(
    ("subject", "said"),
    [
        (
            "spiffe://fr.other.example/agent/par-1",
            "NOT_FOUND: spiffe://fr.other.example/agent/par-1 is not an id of treaty.example",
        ),
        ("spiffe://kr.treaty.example/agent/seo-1", "NOT_FOUND: KR is no party of this treaty"),
        ("kr-seo-1", "NOT_FOUND: KR is no party of this treaty"),
        ("sha256:" + "0" * 64, f"NOT_FOUND: no CA of this charter has the digest sha256:{'0' * 64}"),
        ("spiffe://fr.treaty.example/agent/PAR", "INVALID_INPUT: "),
        ("the one in Paris", "INVALID_INPUT: "),
    ],
)
async def test_what_is_no_ones_in_this_treaty_is_not_revoked(there: World, subject: str, said: str) -> None:
    request = wire.RevokeAgentRequest(subject=subject, reason="stolen")
    refused = await failure(there.operator().RevokeAgent(request))
    assert (refused.details() or "").startswith(said)
    assert there.coordinator.core.trust.revoked == frozenset()
    assert there.coordinator.core.record.size == 1


@pytest.mark.parametrize("reason", ["", "  ", "two\nlines"])
async def test_a_revocation_without_a_reason_in_one_line_is_refused(there: World, reason: str) -> None:
    refused = await failure(there.operator().RevokeAgent(wire.RevokeAgentRequest(subject=str(PAR), reason=reason)))
    assert (refused.details() or "").startswith("INVALID_INPUT: a revocation has a reason, in one line; pass --reason")
    assert there.coordinator.core.trust.revoked == frozenset()


async def test_an_agent_of_a_party_is_revoked_before_it_was_ever_seen(there: World) -> None:
    answer = await there.operator().RevokeAgent(wire.RevokeAgentRequest(subject=str(PAR), reason="laptop lost"))
    assert not answer.json
    assert (await failure(there.connect(PAR))).details() == "REVOKED"
    assert there.coordinator.core.record.size == 2


async def test_an_agent_is_revoked_by_the_name_of_its_resource(there: World) -> None:
    await there.accept(PAR)
    answer = await there.operator().RevokeAgent(wire.RevokeAgentRequest(subject="fr-par-1", reason="stolen"))
    assert json.loads(answer.json)["metadata"]["name"] == "fr-par-1"
    assert there.coordinator.core.trust.revoked == {str(PAR)}
