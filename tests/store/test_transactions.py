"""Transactions: all or nothing, one writer at a time, nothing left behind by a cancelled one. On both databases."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from controlplane.store import Store, open_store
from tests.store.builders import PAR, rollout
from treaty.errors import ConflictError, NotFound, PreconditionFailed, Unavailable
from treaty.resources import ROLLOUT


async def test_the_verbs_of_a_transaction_are_seen_together_and_only_after_it(store: Store, url: str) -> None:
    other = await open_store(url)
    async with store.transaction() as change:
        await change.resources.create(rollout())
        number = await change.directives.next_number(PAR)
        await change.directives.issue(PAR, number, "rollout/r1", b"go")
        assert (await change.resources.get(ROLLOUT, "r1")).name == "r1"
        with pytest.raises(NotFound):
            await asyncio.create_task(_found(other))
    assert await _found(other) == "r1"
    assert len(await other.directives.live(PAR)) == 1
    await other.close()


async def _found(store: Store) -> str:
    return (await store.resources.get(ROLLOUT, "r1")).name


async def test_a_transaction_that_raises_leaves_nothing(store: Store) -> None:
    async def fail_late() -> None:
        async with store.transaction() as change:
            await change.resources.create(rollout())
            await change.directives.next_number(PAR)
            raise Unavailable("something else")

    with pytest.raises(Unavailable, match="something else"):
        await fail_late()
    with pytest.raises(NotFound):
        await store.resources.get(ROLLOUT, "r1")
    assert await store.directives.highest(PAR) is None


async def test_a_conflict_that_is_caught_does_not_spoil_the_transaction(store: Store) -> None:
    async with store.transaction() as change:
        created = await change.resources.create(rollout())
        with pytest.raises(ConflictError):
            await change.resources.create(rollout())
        await change.resources.update(replace(created, spec=replace(created.spec, paused=True)))
    assert (await store.resources.get(ROLLOUT, "r1")).spec.paused


async def test_the_store_itself_is_refused_inside_a_transaction(store: Store) -> None:
    async with store.transaction() as change:
        with pytest.raises(PreconditionFailed, match="a transaction is open in this task; use the transaction's own"):
            await store.resources.create(rollout())
        with pytest.raises(PreconditionFailed):
            await store.resources.get(ROLLOUT, "r1")
        await change.resources.create(rollout())
    assert (await store.resources.get(ROLLOUT, "r1")).metadata.resource_version == 1


async def test_a_verb_after_the_end_of_its_transaction_is_refused(store: Store) -> None:
    async with store.transaction() as change:
        pass
    with pytest.raises(PreconditionFailed, match="the transaction has ended"):
        await change.resources.create(rollout())


async def test_a_cancelled_transaction_is_rolled_back_before_the_next_one(store: Store) -> None:
    is_inside = asyncio.Event()

    async def hang() -> None:
        async with store.transaction() as change:
            await change.resources.create(rollout("lost"))
            is_inside.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(hang())
    await is_inside.wait()
    next_one = asyncio.create_task(store.resources.create(rollout("kept")))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (await next_one).metadata.resource_version == 1
    with pytest.raises(NotFound):
        await store.resources.get(ROLLOUT, "lost")


async def test_transactions_of_two_coordinators_wait_for_each_other(store: Store, url: str) -> None:
    other = await open_store(url)

    async def count_up(through: Store) -> None:
        for _ in range(10):
            async with through.transaction() as change:
                current = await change.resources.get(ROLLOUT, "r1")
                raised = replace(current.spec, soak_seconds=current.spec.soak_seconds + 1)
                await change.resources.update(replace(current, spec=raised))

    created = await store.resources.create(rollout())
    async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
        tasks.create_task(count_up(store))
        tasks.create_task(count_up(other))
    assert (await store.resources.get(ROLLOUT, "r1")).spec.soak_seconds == created.spec.soak_seconds + 20
    await other.close()


async def test_a_closed_store_is_unavailable(store: Store) -> None:
    await store.close()
    await store.close()
    with pytest.raises(Unavailable, match="the store is closed"):
        await store.resources.get(ROLLOUT, "r1")
    with pytest.raises(Unavailable, match="the store is closed"):
        await store.resources.create(rollout())
