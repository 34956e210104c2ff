"""A federated run from intent to result."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest

from controlplane.artifacts.spool import UpdateKey, UpdateSpool
from controlplane.domain.directives import EndRun
from controlplane.federation.aggregate import recompute
from controlplane.federation.worker import read_arrays
from controlplane.services.run_reconciler import ATTEMPTS, DEFAULT_RETENTION
from tests.controlplane.services.run_world import DE, FR, World, keys, restart, stream
from treaty import statement
from treaty.errors import BadSignature, FoedusError, InvalidInput, PolicyDenied, PreconditionFailed, TrustError
from treaty.keys import new_signing_key
from treaty.names import digest_of
from treaty.resources.meta import find_condition, is_true, new_resource
from treaty.resources.runs import FEDERATED_RUN
from treaty.statement import StatementKind
from treaty.strict_json import parse_object


async def test_a_run_goes_from_plan_to_result(world: World) -> None:
    plan = await world.start()
    for number in (1, 2):
        await world.reconciler.reconcile()
        assert world.directive(FR).round == number
        assert not await world.send(FR, seed=number)
        assert await world.send(FR, seed=number), "the same update again is known"
        await world.send(DE, seed=number + 10)
    await world.reconciler.reconcile()
    assert world.directive(FR).evaluate_only
    await world.report(FR, 3)
    await world.report(DE, 3)
    await world.reconciler.reconcile()
    status = await world.status()
    assert is_true(status.conditions, "Succeeded")
    assert [done.round for done in status.rounds_done] == [1, 2, 3]
    updates = [UpdateSpool(world.home / "spool").path(key) for key in keys(plan, 2)]
    assert status.rounds_done[1].aggregate_digest == recompute(updates)
    assert status.result_arrays_digest == status.rounds_done[1].arrays_digest
    files = [path async for path, _ in world.runs.result("run-1")]
    assert files == ["arrays.safetensors"]
    kinds = [statement.unverified(envelope).kind for envelope in world.record.envelopes]
    assert kinds.count(StatementKind.RECEIPT) == 6
    assert kinds.count(StatementKind.ROUND) == 3
    assert {type(action) for _, action in world.fleet.sent[-2:]} == {EndRun}


async def test_a_coordinator_that_comes_back_ends_with_the_same_arrays(world: World, tmp_path: Path) -> None:
    await world.start(strategy=replace(world.spec().strategy, name="FedAdam"))
    await world.reconciler.reconcile()
    await world.send(FR, 1)
    await world.send(DE, 11)
    await world.reconciler.reconcile()
    arrays = world.home / "runs" / "run-1" / "arrays"
    first = read_arrays(arrays / "1")
    await world.workers.close()
    await restart(world)
    await world.reconciler.reconcile()
    await world.send(FR, 2)
    await world.send(DE, 12)
    await world.reconciler.reconcile()
    status = await world.status()
    assert [done.round for done in status.rounds_done] == [1, 2]
    kept, second = read_arrays(arrays / "1"), read_arrays(arrays / "2")
    assert all(np.array_equal(first[name], kept[name]) for name in first)
    assert any(not np.array_equal(first[name], second[name]) for name in first)


async def test_a_nation_that_refuses_leaves_the_quorum_short_and_nothing_is_loaded(world: World) -> None:
    world.fleet.refusing[DE] = ("DE-001",)
    resource = new_resource(FEDERATED_RUN, "run-1", world.spec())
    shown, digest = await world.runs.plan(resource)
    told = parse_object(shown, max_bytes=2**20)
    assert digest == ""
    assert told["is_startable"] is False
    assert told["nations"]["DE"] == {"verdict": "deny", "codes": ["DE-001"], "bytes_out_per_round": 0}  # type: ignore[index,call-overload]
    assert not (world.home / "runs" / "run-1").exists()
    planned = await world.runs._planner.plan(resource)
    with pytest.raises(PolicyDenied, match=r"1 of 2 nations would take part, the quorum is 2 \(DE: DE-001\)"):
        planned.require_plan()


async def test_the_treaty_refuses_an_unknown_purpose_before_any_nation_is_asked(world: World) -> None:
    resource = new_resource(FEDERATED_RUN, "run-1", world.spec(purpose="anything-goes"))
    told = parse_object((await world.runs.plan(resource))[0], max_bytes=2**20)
    assert told["nations"]["FR"]["codes"] == ["ENV-004"]  # type: ignore[index,call-overload]


async def test_only_a_plan_that_was_shown_can_be_started(world: World) -> None:
    resource = new_resource(FEDERATED_RUN, "run-1", world.spec())
    with pytest.raises(PreconditionFailed, match="not the one last shown"):
        await world.runs.start(resource, digest_of(b"another"))
    _, digest = await world.runs.plan(resource)
    other = new_resource(FEDERATED_RUN, "run-1", world.spec(rounds=9))
    with pytest.raises(PreconditionFailed):
        await world.runs.start(other, digest)  # type: ignore[arg-type]


async def test_a_round_that_misses_its_quorum_fails_the_run_and_says_who(world: World) -> None:
    await world.start()
    await world.reconciler.reconcile()
    await world.send(FR)
    world.now += timedelta(seconds=61)
    await world.reconciler.reconcile()
    found = find_condition((await world.status()).conditions, "Succeeded")
    assert found is not None
    assert found.reason == "QuorumNotMet"
    assert "DE: no answer until the deadline" in found.message


@pytest.mark.parametrize(
    ("change", "refusal"),
    [
        ({"examples": 9}, InvalidInput),
        ({"nation": DE}, TrustError),
        ({"round": 2}, InvalidInput),
        ({"base_digest": digest_of(b"other")}, InvalidInput),
    ],
)
async def test_an_update_that_says_something_else_than_the_plan_is_refused(
    world: World, change: dict[str, object], refusal: type[FoedusError]
) -> None:
    await world.start()
    await world.reconciler.reconcile()
    opening, chunks = world.opening(FR, 1, **change)
    with pytest.raises(refusal):
        await world.runs.accept_update(world.fleet.agents[FR], opening, stream(chunks))
    assert not await world.store.rounds.contributions("run-1", 1)


async def test_a_receipt_of_another_key_or_for_other_bytes_is_refused(world: World) -> None:
    await world.start()
    await world.reconciler.reconcile()
    opening, chunks = world.opening(FR, 1)
    stolen = replace(opening, receipt=world.opening(FR, 2)[0].receipt)
    with pytest.raises(TrustError, match="not for this update"):
        await world.runs.accept_update(world.fleet.agents[FR], stolen, stream(chunks))
    world.keys[FR] = new_signing_key()
    with pytest.raises(BadSignature):
        await world.runs.accept_update(world.fleet.agents[FR], world.opening(FR, 1)[0], stream(chunks))


async def test_a_flipped_byte_in_a_chunk_leaves_nothing_behind(world: World) -> None:
    await world.start()
    await world.reconciler.reconcile()
    opening, chunks = world.opening(FR, 1)
    broken = [bytes([chunks[0][0] ^ 1]) + chunks[0][1:], *chunks[1:]]
    with pytest.raises(InvalidInput, match="digest"):
        await world.runs.accept_update(world.fleet.agents[FR], opening, stream(broken))
    assert not list((world.home / "spool").rglob("*.update*"))
    assert not await world.send(FR)


async def test_a_late_update_is_refused_with_its_code(world: World) -> None:
    await world.start()
    await world.reconciler.reconcile()
    opening, chunks = world.opening(FR, 1)
    world.now += timedelta(seconds=61)
    with pytest.raises(PreconditionFailed) as refused:
        await world.runs.accept_update(world.fleet.agents[FR], opening, stream(chunks))
    assert refused.value.code == "LATE"


async def test_nobody_weighs_more_than_the_recipe_trains_whatever_the_intent_allows(world: World) -> None:
    await world.start(max_examples=1_000_000)
    await world.reconciler.reconcile()
    opening, chunks = world.opening(FR, 1, examples=9)
    with pytest.raises(InvalidInput) as refused:
        await world.runs.accept_update(world.fleet.agents[FR], opening, stream(chunks))
    assert refused.value.code == "UPD-005"


async def test_what_lies_uncounted_in_the_spool_is_never_counted_as_something_else(world: World) -> None:
    plan = await world.start()
    await world.reconciler.reconcile()
    first, chunks = world.opening(FR, 1)
    spool = UpdateSpool(world.home / "spool")
    with spool.begin(UpdateKey(plan.run, 1, FR), first.header) as writer:
        for chunk in chunks:
            writer.append(chunk)
        writer.commit()
    other, others_chunks = world.opening(FR, 2)
    with pytest.raises(InvalidInput) as refused:
        await world.runs.accept_update(world.fleet.agents[FR], other, stream([]))
    assert refused.value.code == "UPD-015"
    received = await world.runs.accept_update(world.fleet.agents[FR], other, stream(others_chunks))
    await world.send(DE)
    await world.reconciler.reconcile()
    counted = await world.store.rounds.contributions("run-1", 1)
    assert {c.update_digest for c in counted if c.nation == FR} == {received.digest}
    done = (await world.status()).rounds_done
    assert done[0].aggregate_digest == recompute([spool.path(key) for key in keys(plan, 1)])


async def test_a_cancelled_run_takes_no_update_any_more(world: World) -> None:
    await world.start()
    await world.reconciler.reconcile()
    opening, chunks = world.opening(FR, 1)
    await world.runs.cancel("run-1", "wrong data")
    await world.reconciler.reconcile()
    with pytest.raises(PreconditionFailed) as refused:
        await world.runs.accept_update(world.fleet.agents[FR], opening, stream(chunks))
    assert refused.value.code == "LATE"
    assert is_true((await world.status()).conditions, "Cancelled")


async def test_a_repeated_update_adds_nothing_to_the_record(world: World) -> None:
    await world.start()
    await world.reconciler.reconcile()
    await world.send(FR)
    assert world.counted == b""  # the receipt that came is the one that stands there
    before = len(world.record.envelopes)
    world.now += timedelta(seconds=1)
    assert await world.send(FR)
    assert len(world.record.envelopes) == before


async def test_a_refused_directive_counts_though_nobody_heard_of_it_when_it_came(world: World) -> None:
    await world.start()
    await world.reconciler.reconcile()
    number, _ = world.fleet.directed[world.fleet.agents[DE], "run/run-1"]
    world.fleet.refused[world.fleet.agents[DE], number] = ("DE-001",)
    await restart(world)
    await world.reconciler.reconcile()
    await world.send(FR)
    await world.reconciler.reconcile()
    found = find_condition((await world.status()).conditions, "Succeeded")
    assert found is not None
    assert (found.reason, found.message) == ("QuorumNotMet", "round 1 reached 1 of its quorum of 2 (DE: DE-001)")
    assert [(refusal.nation, refusal.codes) for refusal in (await world.status()).refusals] == [(DE, ("DE-001",))]


async def test_a_refusal_of_an_earlier_round_is_no_answer_to_this_one(world: World) -> None:
    await world.start(quorum=1)
    await world.reconciler.reconcile()
    agent = world.fleet.agents[DE]
    number, _ = world.fleet.directed[agent, "run/run-1"]
    await world.send(FR, 1)
    await world.send(DE, 2)
    await world.reconciler.reconcile()
    world.fleet.refused[agent, number] = ("LATE",)
    await world.runs.acknowledged(agent, number, ("LATE",))
    await world.reconciler.reconcile()
    assert not await world.store.rounds.contributions("run-1", 2)


async def test_a_status_that_a_crash_left_behind_says_again_what_the_rounds_say(world: World) -> None:
    await world.start()
    await world.reconciler.reconcile()
    before = await world.status()
    await world.send(FR, 1)
    await world.send(DE, 11)
    await world.reconciler.reconcile()
    true = await world.status()
    run = await world.store.resources.get(FEDERATED_RUN, "run-1")
    await world.store.resources.update_status(replace(run, status=before))  # as if killed before it was stored
    await restart(world)
    await world.reconciler.reconcile()
    assert (true.round, [done.round for done in true.rounds_done]) == (2, [1])
    assert await world.status() == true


async def test_a_round_that_fails_again_and_again_fails_its_run_with_the_reason(world: World) -> None:
    plan = await world.start()
    await world.reconciler.reconcile()
    await world.send(FR, 1)
    await world.send(DE, 11)
    UpdateSpool(world.home / "spool").path(keys(plan, 1)[0]).write_bytes(b"damaged")
    for _ in range(ATTEMPTS + 1):
        await world.reconciler.reconcile()
    found = find_condition((await world.status()).conditions, "Succeeded")
    assert found is not None
    assert found.reason == "RoundFailed"
    assert found.message.startswith("CORRUPT: ")


async def test_updates_are_deleted_when_the_retention_is_over_and_not_before(world: World) -> None:
    plan = await world.start()
    await world.reconciler.reconcile()
    await world.send(FR)
    await world.runs.cancel("run-1", "enough")
    await world.reconciler.reconcile()
    spool = UpdateSpool(world.home / "spool")
    world.now += DEFAULT_RETENTION - timedelta(seconds=1)
    await world.reconciler.reconcile()
    assert spool.accepted(plan.run, 1) == (FR,)
    world.now += timedelta(seconds=1)
    await world.reconciler.reconcile()
    assert spool.accepted(plan.run, 1) == ()
