"""The Session over real mutual TLS: who gets in, what is said, what is said again, what ends it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest

from controlplane.domain.directives import EndRun
from controlplane.recovery import Recovered, recover
from controlplane.services.nations import agent_resource_name
from tests.controlplane.api.test_transfers import CHUNKS, MANIFEST, round_of, stored
from tests.controlplane.api.world import (
    DE,
    FR,
    NONCE,
    World,
    agent,
    failure,
    home_of,
    load_charter,
    now,
    serving,
    world,
)
from treaty import statement
from treaty.delegation import Delegation, Power
from treaty.errors import PreconditionFailed
from treaty.fields import timestamp_text
from treaty.keys import SigningKey, new_signing_key
from treaty.log import Checkpoint, sign_checkpoint
from treaty.names import DirectiveNumber, RunId
from treaty.resources.meta import find_condition, is_true
from treaty.resources.nations import NODE_AGENT
from treaty.wire.v1 import operator_pb2, session_pb2, types_pb2

TRACE = "ab" * 16
PAR = agent()


@pytest.fixture
async def there(tmp_path: Path) -> AsyncIterator[World]:
    async with world(tmp_path) as started:
        yield started


async def test_an_agent_that_nobody_accepted_is_refused_and_its_attempt_is_kept_for_the_operator(there: World) -> None:
    refused = await failure(there.connect(PAR))
    assert refused.code() is grpc.StatusCode.PERMISSION_DENIED
    assert refused.details() == "NOT_ACCEPTED"  # a code across the border, no text
    known = await there.coordinator.core.store.resources.get(NODE_AGENT, agent_resource_name(PAR))
    condition = find_condition(known.status.conditions, "Accepted")
    assert condition is not None
    assert (condition.status, condition.reason) == ("False", "AwaitingOperator")


async def test_an_accepted_agent_is_welcomed_with_its_nonce_and_the_records_checkpoint(there: World) -> None:
    await there.accept(PAR)
    stream = await there.connect(PAR)
    assert stream.welcome.nonce == NONCE
    assert stream.welcome.protocol == 1
    assert stream.welcome.charter_digest == there.charter_digest
    assert not stream.welcome.is_behind
    assert b"coordinator.treaty.example/log" in stream.welcome.checkpoint.note


async def test_the_next_proof_starts_where_the_welcome_has_left_the_agent(there: World) -> None:
    """The log may have grown before the first heartbeat: a proof from the hello's size would look like a fork."""
    await there.accept(PAR)
    core = there.coordinator.core
    shown = (await core.record.publish()).checkpoint.size
    stream = await there.connect(PAR)
    assert int(stream.welcome.checkpoint.note.splitlines()[1]) >= shown > 0
    assert await stream.next("heartbeat")
    known = core.connections.of(PAR)
    assert known is not None
    assert known.log_size >= shown


async def test_a_welcomed_stream_is_the_agents_already_so_that_a_renewal_is_no_disconnection(there: World) -> None:
    await there.accept(PAR)
    await there.connect(PAR)
    connections = there.coordinator.core.connections
    older = connections.of(PAR)
    await there.connect(PAR)
    assert connections.of(PAR) not in (older, None)


async def test_a_directive_is_sent_again_after_a_reconnect_until_it_is_answered(there: World) -> None:
    await there.accept(PAR)
    fleet = there.coordinator.core.fleet
    number = await fleet.direct(PAR, EndRun(RunId("r1")), TRACE)
    first = await there.connect(PAR)
    assert (await first.next("directive")).directive.trace_id == TRACE
    first.call.cancel()
    second = await there.connect(PAR)
    again = (await second.next("directive")).directive
    assert DirectiveNumber(again.number.epoch, again.number.counter) == number
    assert again.end_run.run == "r1"
    await second.acknowledge(again.number)
    await answered(there, number, "acked")
    third = await there.connect(PAR, highest_accepted=again.number, open=[again.number])
    assert await fleet.direct(PAR, EndRun(RunId("r2")), TRACE) > number
    assert (await third.next("directive")).directive.end_run.run == "r2"  # the answered one did not come before it


async def test_a_refused_content_is_not_sent_again_until_it_changes(there: World) -> None:
    await there.accept(PAR)
    fleet = there.coordinator.core.fleet
    stream = await there.connect(PAR)
    number = await fleet.direct(PAR, EndRun(RunId("r1")), TRACE)
    await stream.acknowledge((await stream.next("directive")).directive.number, "RUN_UNKNOWN")
    await answered(there, number, "nacked")
    assert await fleet.direct(PAR, EndRun(RunId("r1")), TRACE) == number
    assert await fleet.direct(PAR, EndRun(RunId("r2")), TRACE) > number
    assert (await stream.next("directive")).directive.end_run.run == "r2"


async def test_an_agent_that_proves_that_it_is_ahead_stops_all_directing_until_recovery(there: World) -> None:
    await there.accept(PAR)
    await there.accept(agent(DE, "ber-1"))
    ahead = types_pb2.DirectiveNumber(epoch=1, counter=99)
    stream = await there.connect(PAR, highest_accepted=ahead, **kept(there, size=999, root=bytes(32)))
    assert stream.welcome.is_behind
    core = there.coordinator.core
    with pytest.raises(PreconditionFailed, match=r"accepted directive 1\.99"):
        await core.fleet.direct(agent(DE, "ber-1"), EndRun(RunId("r1")), TRACE)
    for name in ("fr-par-1", "de-ber-1"):
        known = await core.store.resources.get(NODE_AGENT, name)
        condition = find_condition(known.status.conditions, "Directed")
        assert condition is not None
        assert (condition.status, condition.reason) == ("False", "CoordinatorBehind")


async def test_a_recovered_coordinator_directs_again_above_every_number_that_was_lost(tmp_path: Path) -> None:
    home, charters = home_of(tmp_path)
    await load_charter(home, charters.signed())
    lost = types_pb2.DirectiveNumber(epoch=1, counter=99)
    async with serving(home, charters) as restored:
        await restored.accept(PAR)
        shown = kept(restored, size=999, root=bytes(32))
        assert (await restored.connect(PAR, highest_accepted=lost, **shown)).welcome.is_behind
    taken = await recover(home, epoch=0, reason="restored from a backup", export=None, tell=lambda *_: None)
    assert taken == Recovered(
        2,
        f"{PAR} accepted directive 1.99, the journal ends at none; {PAR} verified 999 log entries, the record has 1",
    )
    async with serving(home, charters) as recovered:
        stream = await recovered.connect(PAR, highest_accepted=lost)
        assert (stream.welcome.is_behind, stream.welcome.epoch) == (False, 2)
        number = await recovered.coordinator.core.fleet.direct(PAR, EndRun(RunId("r1")), TRACE)
        assert number > DirectiveNumber(1, 99)
        assert (await stream.next("directive")).directive.end_run.run == "r1"
        known = await recovered.coordinator.core.store.resources.get(NODE_AGENT, "fr-par-1")
        assert is_true(known.status.conditions, "Directed")


async def test_an_agent_that_verified_another_log_is_noticed(there: World) -> None:
    await there.accept(PAR)
    assert (await there.connect(PAR, **kept(there, size=1, root=bytes(32)))).welcome.is_behind
    epoch = await there.coordinator.core.store.epochs.current()
    assert epoch.halted_because == f"{PAR} verified another log of 1 entries"


@pytest.mark.parametrize(
    ("claim", "why"),
    [
        ({"highest_accepted": types_pb2.DirectiveNumber(epoch=1, counter=99)}, "accepted directive 1.99, the journal"),
        ({"log_size": 999, "log_root": bytes(32)}, "verified 999 log entries, the record has"),
        ({"log_size": 1, "log_root": bytes(32)}, "verified another log of 1 entries"),
        ({"log_size": 1, "log_root": bytes(32), "log_checkpoint_note": b"not a note"}, "another log of 1 entries"),
    ],
)
async def test_an_agent_that_only_claims_to_be_ahead_halts_nobody_but_itself(
    there: World, claim: dict[str, Any], why: str
) -> None:
    berlin = agent(DE, "ber-1")
    await there.accept(PAR)
    await there.accept(berlin)
    core = there.coordinator.core
    liar, honest = await there.connect(PAR, **claim), await there.connect(berlin)
    assert liar.welcome.is_behind
    assert (await liar.next("refusal")).refusal.code == "AGENT_AHEAD"
    assert not honest.welcome.is_behind
    with pytest.raises(PreconditionFailed, match="par-1 claims to be ahead of this coordinator"):
        await core.fleet.direct(PAR, EndRun(RunId("r1")), TRACE)
    await core.fleet.direct(berlin, EndRun(RunId("r1")), TRACE)
    assert (await honest.next("directive")).directive.end_run.run == "r1"
    assert core.fleet.connected() == {DE: berlin}
    assert not await core.fleet.is_halted()
    known = await core.store.resources.get(NODE_AGENT, "fr-par-1")
    condition = find_condition(known.status.conditions, "Directed")
    assert condition is not None
    assert (condition.status, condition.reason) == ("False", "AgentAhead")
    assert why in condition.message
    await core.fleet.load()  # as after a restart
    assert core.fleet.is_ahead(PAR)
    await there.connect(PAR)
    assert core.fleet.connected() == {FR: PAR, DE: berlin}


async def test_a_checkpoint_that_another_key_signed_proves_nothing(there: World) -> None:
    await there.accept(PAR)
    forged = kept(there, size=999, root=bytes(32), key=new_signing_key())
    assert (await there.connect(PAR, **forged)).welcome.is_behind
    assert not await there.coordinator.core.fleet.is_halted()


async def test_a_gap_in_the_status_asks_for_a_full_report(there: World) -> None:
    await there.accept(PAR)
    stream = await there.connect(PAR)
    await stream.say(session_pb2.AgentMessage(status=session_pb2.Status(sequence=1, is_full=True)))
    await stream.say(session_pb2.AgentMessage(status=session_pb2.Status(sequence=3, brake_on=True)))
    await stream.next("report_request")


async def test_the_second_stream_of_an_agent_replaces_the_first(there: World) -> None:
    await there.accept(PAR)
    first = await there.connect(PAR)
    await there.connect(PAR)
    ended = await first.ended()
    assert ended.details() == "REPLACED"
    assert there.coordinator.core.fleet.connected() == {FR: PAR}


async def test_a_revocation_cuts_the_live_stream_and_the_agent_does_not_return(there: World) -> None:
    await there.accept(PAR)
    stream = await there.connect(PAR)
    revoke = operator_pb2.RevokeAgentRequest(subject=str(PAR), reason="lost")
    await there.operator().RevokeAgent(revoke)
    ended = await stream.ended()
    assert (ended.code(), ended.details()) == (grpc.StatusCode.UNAUTHENTICATED, "REVOKED")
    assert (await failure(there.connect(PAR))).details() == "REVOKED"


async def test_a_stream_ends_with_its_certificate(there: World) -> None:
    await there.accept(PAR)
    stream = await there.connect(PAR, certificate=there.certificate(PAR, lifetime=timedelta(seconds=6)))
    assert (await stream.ended()).details() == "EXPIRED"


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"protocol_min": 2, "protocol_max": 3}, "PROTOCOL_UNSUPPORTED"),
        ({"nonce": b"short"}, "INVALID_INPUT"),
        ({"delegations": [b"{}"] * 65}, "LIMIT_EXCEEDED"),
        ({"agent_version": "latest"}, "INVALID_INPUT"),
        ({"log_size": 3}, "INVALID_INPUT"),
    ],
)
async def test_a_hello_that_cannot_be_served_ends_the_stream_with_its_code(
    there: World, fields: dict[str, Any], code: str
) -> None:
    await there.accept(PAR)
    assert (await failure(there.connect(PAR, **fields))).details() == code


async def test_a_delegation_of_another_nation_is_refused(there: World) -> None:
    await there.accept(PAR)
    foreign = there.delegation(agent(DE, "par-1"))
    refused = await failure(there.connect(PAR, delegations=[foreign]))
    assert refused.details() == "NOT_A_PARTY"


async def test_a_delegation_that_has_ended_does_not_keep_its_nation_out(there: World) -> None:
    await there.accept(PAR)
    issued = now().replace(microsecond=0) - timedelta(days=2)
    person = Delegation(
        FR, new_signing_key().verification, frozenset({Power.CONSENT}), None, issued, issued + timedelta(days=1)
    )
    ended = statement.sign(person.statement(), [there.charters.roots[FR]])
    await there.connect(PAR, delegations=[ended, there.delegation(PAR)])
    assert [d.agent for d in there.coordinator.core.fleet.delegations(FR)] == ["par-1"]


async def test_of_two_delegations_of_a_key_the_later_begun_counts_in_whatever_order_they_come(there: World) -> None:
    trust, root, key = there.coordinator.core.trust, there.charters.roots[FR], new_signing_key().verification
    moment = now().replace(microsecond=0) - timedelta(hours=1)
    wide = Delegation(FR, key, frozenset({Power.CONSENT, Power.REVOKE}), None, moment, moment + timedelta(days=1))
    narrow = replace(wide, powers=frozenset({Power.CONSENT}), issued_at=moment + timedelta(seconds=1))
    for each in (wide, narrow, wide, replace(narrow, powers=wide.powers)):
        trust.learn_delegation(statement.sign(each.statement(), [root]), nation=FR)
    assert list(trust.delegations(FR)) == [narrow]


async def test_a_delegation_that_has_not_begun_is_said_to_begin_and_not_to_have_ended(
    there: World, capsys: pytest.CaptureFixture[str]
) -> None:
    await there.accept(PAR)
    begins = now().replace(microsecond=0) + timedelta(hours=1)
    key = new_signing_key().verification
    early = Delegation(FR, key, frozenset({Power.CONSENT}), None, begins, begins + timedelta(days=1))
    later = statement.sign(early.statement(), [there.charters.roots[FR]])
    await there.connect(PAR, delegations=[later, there.delegation(PAR)])
    said = capsys.readouterr().out
    assert "delegation is not in force" in said
    assert f"begins at {timestamp_text(begins)}" in said


async def test_a_restarted_coordinator_sends_what_was_not_answered(tmp_path: Path) -> None:
    home, charters = home_of(tmp_path)
    await load_charter(home, charters.signed())
    async with serving(home, charters) as before:
        await before.accept(PAR)
        number = await before.coordinator.core.fleet.direct(PAR, EndRun(RunId("r1")), TRACE)
    async with serving(home, charters) as after:
        stream = await after.connect(PAR)
        directive = (await stream.next("directive")).directive
        assert DirectiveNumber(directive.number.epoch, directive.number.counter) == number


async def test_an_agent_that_comes_back_after_its_run_is_told_that_it_ended(there: World) -> None:
    await there.accept(PAR)
    fleet = there.coordinator.core.fleet
    await stored(there, MANIFEST, CHUNKS)
    begun = await fleet.direct(PAR, round_of(MANIFEST), TRACE)
    stream = await there.connect(PAR)
    first, second = [(await stream.next("directive")).directive for _ in range(2)]
    assert (first.WhichOneof("action"), first.number.counter) == ("round", begun.counter)
    assert (second.WhichOneof("action"), second.end_run.run) == ("end_run", "r1")
    assert await fleet.runs_of(PAR) == []


def kept(there: World, *, size: int, root: bytes, key: SigningKey | None = None) -> dict[str, Any]:
    """A checkpoint as an agent keeps it: signed by the coordinator's log key, or by `key`."""
    core = there.coordinator.core
    checkpoint = Checkpoint(core.trust.charter.log_origin, size, root)
    note = sign_checkpoint(checkpoint, (key or core.log_key).private).note
    return {"log_size": size, "log_root": root, "log_checkpoint_note": note}


async def answered(there: World, number: DirectiveNumber, state: str) -> None:
    """Wait until the journal has the agent's word."""
    store = there.coordinator.core.store
    while (await store.directives.find(str(PAR), number)).state != state:
        await store._runner.commits.wait(store._runner.commits.count, 0.5)
