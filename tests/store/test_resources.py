"""Resources: compare-and-swap, generations, finalizers, selectors. On both databases."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

import pytest

from controlplane.store import Store, open_store
from controlplane.store.ports.resources import MAX_PAGE
from tests.store.builders import digest, model_version, rollout
from tests.store.conftest import NOON, Clock
from treaty.errors import ConflictError, InvalidInput, NotFound
from treaty.resources import MODEL_VERSION, ROLLOUT, Condition, ConditionStatus, with_condition


async def test_a_created_resource_gets_uid_generation_version_and_time(store: Store) -> None:
    created = await store.resources.create(rollout())
    assert len(created.metadata.uid) == 36
    assert (created.metadata.generation, created.metadata.resource_version) == (1, 1)
    assert created.metadata.creation_timestamp == NOON
    assert await store.resources.get(ROLLOUT, "r1") == created


async def test_a_taken_name_is_refused_and_the_first_one_stays(store: Store) -> None:
    created = await store.resources.create(rollout())
    with pytest.raises(ConflictError, match="Rollout 'r1' exists already"):
        await store.resources.create(replace(rollout(), spec=replace(rollout().spec, soak_seconds=9)))
    assert await store.resources.get(ROLLOUT, "r1") == created
    assert (await store.resources.list(ROLLOUT)).resource_version == 1


async def test_what_is_not_there_is_not_found(store: Store) -> None:
    with pytest.raises(NotFound, match="there is no Rollout 'r1'"):
        await store.resources.get(ROLLOUT, "r1")
    with pytest.raises(NotFound):
        await store.resources.update(rollout(), 1)
    with pytest.raises(NotFound):
        await store.resources.delete(ROLLOUT, "r1")


async def test_a_changed_spec_is_a_new_generation_and_leaves_the_status(store: Store) -> None:
    created = await store.resources.create(rollout())
    paused = replace(created, spec=replace(created.spec, paused=True), status=replace(created.status, current_wave=7))
    updated = await store.resources.update(paused)
    assert (updated.metadata.generation, updated.metadata.resource_version) == (2, 2)
    assert updated.spec.paused
    assert updated.status.current_wave == 0


async def test_changed_labels_are_no_new_generation(store: Store) -> None:
    created = await store.resources.create(rollout())
    labelled = replace(created, metadata=replace(created.metadata, labels={"tier": "gold"}))
    assert (await store.resources.update(labelled)).metadata.generation == 1


async def test_a_status_changes_neither_spec_nor_generation(store: Store) -> None:
    created = await store.resources.create(rollout())
    ready = with_condition(created, Condition("Progressing", ConditionStatus.TRUE, "FirstWave"), NOON)
    updated = await store.resources.update_status(replace(ready, spec=replace(created.spec, aborted=True)))
    assert updated.status.conditions[0].last_transition_time == NOON
    assert updated.status.conditions[0].observed_generation == 1
    assert updated.spec == created.spec
    assert (updated.metadata.generation, updated.metadata.resource_version) == (1, 2)


async def test_an_equal_change_takes_no_version(store: Store) -> None:
    created = await store.resources.create(rollout())
    assert await store.resources.update(created) == created
    assert await store.resources.update_status(created) == created
    assert (await store.resources.list(ROLLOUT)).resource_version == 1


async def test_a_stale_change_is_refused_by_update_status_and_delete(store: Store) -> None:
    created = await store.resources.create(rollout())
    updated = await store.resources.update(replace(created, spec=replace(created.spec, paused=True)))
    with pytest.raises(ConflictError, match="it is at version 2, not 1"):
        await store.resources.update(replace(created, spec=replace(created.spec, aborted=True)))
    with pytest.raises(ConflictError, match="changed meanwhile"):
        await store.resources.update_status(created)
    with pytest.raises(ConflictError, match="changed meanwhile"):
        await store.resources.delete(ROLLOUT, "r1", expected_version=1)
    assert await store.resources.get(ROLLOUT, "r1") == updated


async def test_another_object_of_the_same_name_is_refused(store: Store) -> None:
    first = await store.resources.create(rollout())
    await store.resources.delete(ROLLOUT, "r1")
    second = await store.resources.create(rollout())
    with pytest.raises(ConflictError, match="another object of that name"):
        await store.resources.update(first, second.metadata.resource_version)


async def test_of_many_concurrent_changes_of_one_version_exactly_one_wins(
    store: Store, url: str, clock: Callable[[], object]
) -> None:
    created = await store.resources.create(rollout())
    other = await open_store(url)  # a second coordinator on the same database

    async def change(through: Store, seconds: int) -> bool:
        try:
            await through.resources.update(replace(created, spec=replace(created.spec, soak_seconds=seconds)))
        except ConflictError:
            return False
        return True

    won = await asyncio.gather(*(change(store if n % 2 else other, 100 + n) for n in range(16)))
    assert sum(won) == 1
    kept = await store.resources.get(ROLLOUT, "r1")
    assert kept.spec.soak_seconds == 100 + won.index(True)
    assert (kept.metadata.generation, kept.metadata.resource_version) == (2, 2)
    await other.close()


async def test_the_spec_of_an_immutable_kind_never_changes(store: Store) -> None:
    created = await store.resources.create(model_version())
    swapped = replace(created, spec=replace(created.spec, manifest_digest=digest("other")))
    with pytest.raises(ConflictError, match=r"the spec of ModelVersion 'tiny-1\.0\.0' never changes"):
        await store.resources.update(swapped)
    assert await store.resources.get(MODEL_VERSION, "tiny-1.0.0") == created


async def test_a_finalizer_holds_a_deletion_until_it_is_taken_off(store: Store, clock: Clock) -> None:
    held = replace(rollout(), metadata=replace(rollout().metadata, finalizers=("foedus.dev/withdraw",)))
    await store.resources.create(held)
    clock.advance(60)
    await store.resources.delete(ROLLOUT, "r1")
    clock.advance(60)
    await store.resources.delete(ROLLOUT, "r1")
    leaving = await store.resources.get(ROLLOUT, "r1")
    assert leaving.metadata.deletion_timestamp is not None
    assert (leaving.metadata.deletion_timestamp - NOON).seconds == 60
    more = replace(leaving, metadata=replace(leaving.metadata, finalizers=("foedus.dev/withdraw", "b")))
    with pytest.raises(ConflictError, match="takes no new finalizer"):
        await store.resources.update(more)
    await store.resources.update(replace(leaving, metadata=replace(leaving.metadata, finalizers=())))
    with pytest.raises(NotFound):
        await store.resources.get(ROLLOUT, "r1")


async def test_a_list_pages_by_name_and_selects_by_every_label(store: Store) -> None:
    for number in range(5):
        await store.resources.create(rollout(f"r{number}", tier="gold" if number % 2 else "tin", zone="a"))
    first = await store.resources.list(ROLLOUT, limit=2)
    assert [item.name for item in first.items] == ["r0", "r1"]
    assert (first.next_after, first.resource_version) == ("r1", 5)
    rest = await store.resources.list(ROLLOUT, after="r1")
    assert [item.name for item in rest.items] == ["r2", "r3", "r4"]
    assert rest.next_after == ""
    gold = await store.resources.list(ROLLOUT, label_selector={"tier": "gold", "zone": "a"})
    assert [item.name for item in gold.items] == ["r1", "r3"]
    assert (await store.resources.list(ROLLOUT, label_selector={"zone": "b"})).items == ()
    with pytest.raises(InvalidInput, match="between 1 and 500"):
        await store.resources.list(ROLLOUT, limit=501)


async def test_all_of_a_kind_are_read_also_beyond_one_page(store: Store) -> None:
    async with store.transaction() as change:
        for number in range(2 * MAX_PAGE + 1):
            await change.resources.create(rollout(f"r{number:04}", tier="gold" if number % 2 else "tin"))
    found = await store.resources.all(ROLLOUT)
    assert [item.name for item in found] == [f"r{number:04}" for number in range(2 * MAX_PAGE + 1)]
    assert len(await store.resources.all(ROLLOUT, label_selector={"tier": "gold"})) == MAX_PAGE
    assert await store.resources.all(MODEL_VERSION) == ()


async def test_names_are_ordered_byte_by_byte_on_both_databases(store: Store) -> None:
    for name in ("a1", "a-2", "a.3", "b"):
        await store.resources.create(rollout(name))
    page = await store.resources.list(ROLLOUT)
    assert [item.name for item in page.items] == ["a-2", "a.3", "a1", "b"]


async def test_a_relabelled_resource_is_found_by_its_new_label_only(store: Store) -> None:
    created = await store.resources.create(rollout("r1", tier="gold"))
    await store.resources.update(replace(created, metadata=replace(created.metadata, labels={"tier": "tin"})))
    assert (await store.resources.list(ROLLOUT, label_selector={"tier": "gold"})).items == ()
    assert len((await store.resources.list(ROLLOUT, label_selector={"tier": "tin"})).items) == 1


async def test_a_value_that_the_model_refuses_is_never_stored(store: Store) -> None:
    created = await store.resources.create(rollout())
    with pytest.raises(InvalidInput, match=r"spec\.soakSeconds: -1 is not between"):
        await store.resources.update(replace(created, spec=replace(created.spec, soak_seconds=-1)))
    assert await store.resources.get(ROLLOUT, "r1") == created
    assert (await store.resources.list(ROLLOUT)).resource_version == 1
