"""Watching: in order, without gaps, from any version that is still kept. On both databases."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace

import pytest

from controlplane.store import Store
from controlplane.store.ports.resources import WATCH_COMPACTED, EventType, WatchEvent
from controlplane.store.sql import resource_rows
from tests.store.builders import model_version, rollout
from treaty.errors import ConflictError
from treaty.resources import ROLLOUT, AnyKind


async def taken(store: Store, kind: AnyKind | None, since: int, count: int) -> list[WatchEvent]:
    events: list[WatchEvent] = []
    watch: AsyncIterator[WatchEvent] = store.watch(kind, since)
    async with asyncio.timeout(10), aclosing(watch):  # type: ignore[type-var]
        async for event in watch:
            events.append(event)
            if len(events) == count:
                break
    return events


async def test_a_watch_tells_every_change_in_order(store: Store) -> None:
    created = await store.resources.create(rollout())
    await store.resources.create(model_version())
    updated = await store.resources.update(replace(created, spec=replace(created.spec, paused=True)))
    await store.resources.delete(ROLLOUT, "r1")
    events = await taken(store, None, 0, 4)
    assert [event.type for event in events] == ["ADDED", "ADDED", "MODIFIED", "DELETED"]
    assert [event.resource_version for event in events] == [1, 2, 3, 4]
    assert (events[0].resource, events[2].resource) == (created, updated)
    assert events[3].resource.metadata.resource_version == 4
    assert [event.resource_version for event in await taken(store, ROLLOUT, 1, 2)] == [3, 4]


async def test_a_waiting_watch_is_woken_by_a_commit(store: Store) -> None:
    async with asyncio.TaskGroup() as tasks:
        watching = tasks.create_task(taken(store, ROLLOUT, 0, 3))
        for number in range(3):
            await store.resources.create(rollout(f"r{number}"))
    assert [event.resource.name for event in watching.result()] == ["r0", "r1", "r2"]


async def test_a_watch_sees_nothing_of_a_transaction_that_failed(store: Store) -> None:
    async def create_twice() -> None:
        async with store.transaction() as change:
            await change.resources.create(rollout("lost"))
            await change.resources.create(rollout("lost"))

    with pytest.raises(ConflictError):
        await create_twice()
    await store.resources.create(rollout("kept"))
    events = await taken(store, None, 0, 1)
    assert (events[0].type, events[0].resource.name) == (EventType.ADDED, "kept")


async def test_a_watch_from_before_the_compaction_is_told_to_list_again(store: Store) -> None:
    for number in range(5):
        await store.resources.create(rollout(f"r{number}"))
    await store.resources.compact(keep_events=2)
    with pytest.raises(ConflictError, match="changes since version 2 are not kept") as refused:
        await taken(store, None, 2, 1)
    assert refused.value.code == WATCH_COMPACTED
    assert [event.resource_version for event in await taken(store, None, 3, 2)] == [4, 5]
    assert len((await store.resources.list(ROLLOUT)).items) == 5


async def test_a_watch_from_the_future_is_told_to_list_again(store: Store) -> None:
    await store.resources.create(rollout())
    with pytest.raises(ConflictError, match="changes since version 9 are not kept"):
        await taken(store, None, 9, 1)


async def test_old_changes_are_forgotten_by_themselves(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource_rows, "COMPACT_EVERY", 4)
    monkeypatch.setattr(resource_rows, "KEPT_EVENTS", 2)
    for number in range(5):
        await store.resources.create(rollout(f"r{number}"))
    assert [event.resource_version for event in await taken(store, None, 2, 3)] == [3, 4, 5]
    with pytest.raises(ConflictError, match="changes since version 1 are not kept"):
        await taken(store, None, 1, 1)
