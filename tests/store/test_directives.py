"""Directives and epochs: numbers are never used twice, answers never change. On both databases."""

from __future__ import annotations

from datetime import timedelta

import pytest

from controlplane.store import Store
from controlplane.store.ports.directives import DirectiveState, StoredDirective
from tests.store.builders import PAR
from tests.store.conftest import NOON, Clock
from treaty.errors import ConflictError, NotFound, PreconditionFailed
from treaty.names import DirectiveNumber

LYO = "spiffe://fr.treaty.example/agent/lyo-1"


async def issued(store: Store, subject: str = "rollout/r1", payload: bytes = b"go") -> StoredDirective:
    async with store.transaction() as change:
        number = await change.directives.next_number(PAR)
        return await change.directives.issue(PAR, number, subject, payload)


async def test_numbers_grow_per_agent_and_start_again_in_a_higher_epoch(store: Store) -> None:
    assert [await store.directives.next_number(PAR) for _ in range(2)] == [DirectiveNumber(1, 1), DirectiveNumber(1, 2)]
    assert await store.directives.next_number(LYO) == DirectiveNumber(1, 1)
    await store.epochs.take(5, "recovered")
    assert await store.directives.next_number(PAR) == DirectiveNumber(5, 1)
    assert await store.directives.highest(PAR) == DirectiveNumber(5, 1)


async def test_a_new_directive_supersedes_its_subject_only(store: Store) -> None:
    await issued(store, "rollout/r1", b"one")
    other = await issued(store, "run/x", b"two")
    newer = await issued(store, "rollout/r1", b"three")
    assert await store.directives.live(PAR) == (other, newer)
    assert (await store.directives.find(PAR, DirectiveNumber(1, 1))).is_superseded
    assert await store.directives.live(LYO) == ()


async def test_issuing_the_same_bytes_again_changes_nothing_and_others_are_refused(store: Store) -> None:
    first = await issued(store)
    assert await store.directives.issue(PAR, first.number, "rollout/r1", b"go") == first
    with pytest.raises(ConflictError, match=r"number 1\.1 was used for another directive"):
        await store.directives.issue(PAR, first.number, "rollout/r1", b"stop")
    with pytest.raises(ConflictError, match=r"number 1\.9 was not reserved"):
        await store.directives.issue(PAR, DirectiveNumber(1, 9), "rollout/r1", b"go")
    assert await store.directives.live(PAR) == (first,)


async def test_a_number_that_was_overtaken_is_refused(store: Store) -> None:
    slow = await store.directives.next_number(PAR)
    newer = await issued(store)
    with pytest.raises(ConflictError, match="has a directive newer than"):
        await store.directives.issue(PAR, slow, "rollout/r1", b"old")
    assert await store.directives.live(PAR) == (newer,)


async def test_an_answer_is_kept_and_never_changes(store: Store, clock: Clock) -> None:
    first = await issued(store)
    await store.directives.mark_sent(PAR, first.number)
    assert (await store.directives.find(PAR, first.number)).state is DirectiveState.SENT
    clock.advance(3)
    nacked = await store.directives.answer(PAR, first.number, is_acked=False, reason="POLICY_DENIED")
    assert (nacked.state, nacked.reason) == (DirectiveState.NACKED, "POLICY_DENIED")
    assert nacked.answered_at == NOON + timedelta(seconds=3)
    assert await store.directives.answer(PAR, first.number, is_acked=False, reason="POLICY_DENIED") == nacked
    with pytest.raises(ConflictError, match="was answered nacked before"):
        await store.directives.answer(PAR, first.number, is_acked=True)
    await store.directives.mark_sent(PAR, first.number)
    assert await store.directives.find(PAR, first.number) == nacked
    with pytest.raises(NotFound, match=r"no directive 1\.7 was issued"):
        await store.directives.answer(PAR, DirectiveNumber(1, 7), is_acked=True)


async def test_withdrawn_and_pruned_numbers_are_not_used_again(store: Store) -> None:
    await issued(store)
    await store.directives.withdraw(PAR, "rollout/r1")
    assert await store.directives.live(PAR) == ()
    assert await store.directives.prune(NOON) == 0
    assert await store.directives.prune(NOON + timedelta(seconds=1)) == 1
    assert await store.directives.next_number(PAR) == DirectiveNumber(1, 2)


async def test_a_halted_coordinator_directs_nothing_until_a_higher_epoch(store: Store, clock: Clock) -> None:
    await store.epochs.halt("an agent has seen 1.40, this store 1.12")
    await store.epochs.halt("again")
    assert (await store.epochs.current()).halted_because == "an agent has seen 1.40, this store 1.12"
    with pytest.raises(PreconditionFailed, match="directs nothing in epoch 1: an agent has seen"):
        await store.directives.next_number(PAR)
    with pytest.raises(ConflictError, match="epoch 1 is not higher than 1"):
        await store.epochs.take(1, "no")
    taken = await store.epochs.take(2, "recovered")
    assert await store.epochs.current() == taken
    assert (taken.number, taken.started_at, taken.halted_because) == (2, NOON, "")
    assert await store.directives.next_number(PAR) == DirectiveNumber(2, 1)
