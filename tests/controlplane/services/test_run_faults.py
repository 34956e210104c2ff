"""What comes twice, late, early or out of order, and a disk that takes no more: nothing is lost or counted twice."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest

from controlplane.artifacts.spool import UpdateSpool
from controlplane.domain.directives import EndRun, Round
from controlplane.federation.aggregate import recompute
from controlplane.services.record import StatementRecord
from controlplane.services.run_reconciler import ATTEMPTS, PATIENCE
from controlplane.store.ports.rounds import ContributionState, StoredContribution
from tests.controlplane.record.builders import opened, segments
from tests.controlplane.services.run_world import DE, FR, World, keys, restart, run_world, stream
from tests.controlplane.test_artifacts_store import files_limited_to
from treaty.errors import FoedusError, InvalidInput, PermissionRefused, PreconditionFailed, ResourceExhausted
from treaty.names import run_id
from treaty.plan import RunPlan
from treaty.resources.meta import Condition, find_condition
from treaty.statement import StatementKind


async def open_run(world: World, **changes: object) -> RunPlan:
    plan = await world.start(**changes)
    await world.reconciler.reconcile()
    return plan


async def test_an_evaluations_result_that_comes_twice_is_counted_once(world: World) -> None:
    await open_run(world, task="evaluate", rounds=1)
    await world.report(FR, 1)
    counted, recorded = await world.store.rounds.contributions("run-1", 1), len(world.record.envelopes)
    await world.report(FR, 1)
    assert await world.store.rounds.contributions("run-1", 1) == counted
    assert len(world.record.envelopes) == recorded
    await world.report(DE, 1)
    await world.reconciler.reconcile()
    assert [done.nations for done in (await world.status()).rounds_done] == [(DE, FR)]


async def test_an_evaluations_result_after_the_deadline_is_late_and_not_recorded(world: World) -> None:
    await open_run(world, task="evaluate", rounds=1, quorum=1)
    await world.report(DE, 1)
    before = len(world.record.envelopes)
    world.now = (await world.store.rounds.find("run-1", 1)).deadline_at
    with pytest.raises(PreconditionFailed, match="this round is closed") as refused:
        await world.report(FR, 1)
    assert refused.value.code == "LATE"
    assert len(world.record.envelopes) == before


async def test_the_next_rounds_update_is_refused_while_this_one_is_open(world: World) -> None:
    await open_run(world)
    opening, chunks = world.opening(FR, 1)
    with pytest.raises(PreconditionFailed, match="this round is not open") as refused:
        await world.runs.accept_update(world.fleet.agents[FR], replace(opening, round=2), stream(chunks))
    assert refused.value.code == "LATE"
    assert not await world.send(FR), "this round's own is taken, as the first"


async def test_chunks_of_another_order_or_one_too_many_leave_nothing_behind(world: World) -> None:
    await open_run(world)
    opening, chunks = world.opening(FR, 1)
    others = world.opening(FR, 2)[1]
    for wrong in ([*others, *chunks], [*chunks, *chunks]):
        with pytest.raises(InvalidInput):
            await world.runs.accept_update(world.fleet.agents[FR], opening, stream(wrong))
        assert not list((world.home / "spool").rglob("*.update"))
        assert not list((world.home / "spool" / "incoming").iterdir())
    assert not await world.send(FR)


async def test_a_spool_without_room_refuses_the_update_and_takes_it_later(world: World) -> None:
    plan = await open_run(world)
    before = len(world.record.envelopes)
    with files_limited_to(64), pytest.raises(ResourceExhausted, match="no space left while spooling an update"):
        await world.send(FR)
    assert not list((world.home / "spool" / "incoming").iterdir())
    assert not await accepted(world)
    assert len(world.record.envelopes) == before, "no receipt of what did not arrive"
    assert not await world.send(FR)
    await assert_whole(world, plan)


async def test_a_record_without_room_counts_nothing_and_takes_the_receipt_when_there_is_room(tmp_path: Path) -> None:
    async with recorded_world(tmp_path) as world:
        plan = await open_run(world)
        [segment] = segments(tmp_path / "record")
        with files_limited_to(segment.stat().st_size):
            with pytest.raises(ResourceExhausted, match="no room left to append to the log"):
                await world.send(FR)
        assert not await accepted(world), "an update whose receipt is not in the record does not count"
        assert not list(world.record.of_kind(StatementKind.RECEIPT))
        assert not await world.send(FR)
        assert len(list(world.record.of_kind(StatementKind.RECEIPT))) == 1
        await assert_whole(world, plan)


async def test_a_run_that_cannot_begin_fails_with_the_reason_instead_of_trying_for_ever(world: World) -> None:
    await world.start()
    (world.home / "runs" / "run-1" / "plan.json").write_bytes(b"damaged")
    await restart(world)
    for _ in range(ATTEMPTS):
        assert (await succeeded(world)) is None
        await world.reconciler.reconcile()
    found = await succeeded(world)
    assert found is not None
    assert (found.status, found.reason, found.message[:15]) == ("False", "RunFailed", "INVALID_INPUT: ")
    assert not any(isinstance(action, Round) for _, action in world.fleet.sent)


async def test_a_run_between_two_rounds_waits_for_room_and_for_so_long_only(world: World) -> None:
    await open_run(world)
    await world.send(FR)
    await world.send(DE)
    (world.home / "runs" / "run-1" / "worker.log").unlink()
    await world.workers.end(run_id("run-1"))
    (world.home / "runs" / "run-1" / "worker.log").mkdir()  # no worker can be started
    for _ in range(ATTEMPTS + 1):
        await world.reconciler.reconcile()
    assert (await succeeded(world)) is None
    world.now += PATIENCE
    await world.reconciler.reconcile()
    await world.reconciler.reconcile()
    found = await succeeded(world)
    assert found is not None
    assert (found.reason, found.message[:13]) == ("RoundFailed", "UNAVAILABLE: ")


async def succeeded(world: World) -> Condition | None:
    return find_condition((await world.status()).conditions, "Succeeded")


@pytest.mark.parametrize(
    "failure",
    [
        PreconditionFailed("it claims to be ahead", code="AGENT_AHEAD"),
        PermissionRefused("put out", code="X"),
    ],
)
async def test_an_agent_that_cannot_be_told_that_its_run_ended_is_told_when_it_is_back(
    world: World, failure: FoedusError
) -> None:
    await open_run(world)
    await world.start("run-2")
    await world.reconciler.reconcile()
    world.fleet.undirectable[FR] = failure
    await world.runs.cancel("run-1", "wrong data")
    await world.reconciler.reconcile()
    assert (await world.status()).conditions, "the run has ended all the same"
    assert world.directive(FR).round == 1
    del world.fleet.undirectable[FR]
    sent = len(world.fleet.sent)
    for _ in range(2):
        await world.runs.connected(world.fleet.agents[FR])
    assert world.fleet.sent[sent:] == [(world.fleet.agents[FR], EndRun(run_id("run-1")))], "and run-2 goes on"


async def accepted(world: World) -> list[StoredContribution]:
    found = await world.store.rounds.contributions("run-1", 1)
    return [each for each in found if each.state is ContributionState.ACCEPTED]


async def assert_whole(world: World, plan: RunPlan) -> None:
    """The round closes with both nations, and its sum is that of what lies in the spool."""
    await world.send(DE)
    await world.reconciler.reconcile()
    [done] = (await world.status()).rounds_done
    assert done.nations == (DE, FR)
    spool = UpdateSpool(world.home / "spool")
    assert done.aggregate_digest == recompute([spool.path(key) for key in keys(plan, 1)])


@asynccontextmanager
async def recorded_world(folder: Path) -> AsyncIterator[World]:
    """A world whose record is one of files."""
    with opened(folder / "record") as log:
        record = StatementRecord(log)
        writer = asyncio.create_task(record.run())
        try:
            async with run_world(folder, record) as world:
                yield world
        finally:
            writer.cancel()
            with suppress(asyncio.CancelledError):
                await writer
