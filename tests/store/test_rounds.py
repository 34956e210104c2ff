"""Rounds and contributions move by compare-and-swap on their state. On both databases."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from controlplane.store import Store
from controlplane.store.ports.rounds import ContributionState, RoundState, StoredContribution, StoredRound
from tests.store.builders import DE, FR, PAR, digest
from tests.store.conftest import NOON, Clock
from treaty.errors import ConflictError, NotFound

FIRST = StoredRound(
    "run-1", 1, RoundState.OPEN, digest("plan"), NOON + timedelta(hours=1), arrays_digest=digest("arrays")
)
REFUSED = StoredContribution("run-1", 1, FR, PAR, ContributionState.REFUSED)
ACCEPTED = replace(
    REFUSED,
    state=ContributionState.ACCEPTED,
    update_digest=digest("update"),
    spool_path="run-1/1/FR",
    examples=64,
    bytes=1_843_200,
    receipt_digest=digest("receipt"),
    metrics={"perplexity_milli": 37_500},
    codes=("EGR-001",),
)


async def test_a_round_is_begun_once_and_again_gives_what_is_stored(store: Store, clock: Clock) -> None:
    begun = await store.rounds.open(FIRST)
    assert begun == replace(FIRST, started_at=NOON)
    clock.advance(60)
    assert await store.rounds.open(replace(FIRST, deadline_at=NOON)) == begun
    with pytest.raises(ConflictError, match="round 1 of 'run-1' began under another plan or other arrays"):
        await store.rounds.open(replace(FIRST, arrays_digest=digest("swapped")))
    assert await store.rounds.of_run("run-1") == (begun,)


async def test_a_round_is_saved_only_from_the_state_it_is_in(store: Store) -> None:
    begun = await store.rounds.open(FIRST)
    aggregating = replace(begun, state=RoundState.AGGREGATING)
    done = replace(
        begun,
        state=RoundState.DONE,
        aggregate_digest=digest("sum"),
        result_digest=digest("result"),
        strategy_state=b"\x00momentum",
        finished_at=NOON + timedelta(microseconds=1),
    )
    await store.rounds.save(aggregating, RoundState.OPEN)
    with pytest.raises(ConflictError, match="round 1 of 'run-1' is aggregating, not open"):
        await store.rounds.save(done, RoundState.OPEN)
    assert await store.rounds.find("run-1", 1) == aggregating
    await store.rounds.save(done, RoundState.AGGREGATING)
    assert await store.rounds.find("run-1", 1) == done
    with pytest.raises(NotFound, match="run 'run-1' has no round 2"):
        await store.rounds.save(replace(begun, round=2), RoundState.OPEN)


async def test_a_contribution_counts_once_and_moves_from_its_state_only(store: Store) -> None:
    await store.rounds.open(FIRST)
    await store.rounds.contribute(REFUSED, None)
    await store.rounds.contribute(ACCEPTED, ContributionState.REFUSED)
    await store.rounds.contribute(ACCEPTED, ContributionState.REFUSED)  # the same again, as after a lost answer
    with pytest.raises(ConflictError, match="the contribution of FR to round 1 is accepted"):
        await store.rounds.contribute(replace(ACCEPTED, update_digest=digest("second")), ContributionState.REFUSED)
    with pytest.raises(ConflictError, match="the contribution of DE to round 1 is missing"):
        await store.rounds.contribute(replace(REFUSED, nation=DE), ContributionState.REFUSED)
    assert await store.rounds.contributions("run-1", 1) == (ACCEPTED,)


async def test_a_contribution_to_no_round_is_refused(store: Store) -> None:
    with pytest.raises(NotFound, match="run 'run-1' has no round 1"):
        await store.rounds.contribute(REFUSED, None)
