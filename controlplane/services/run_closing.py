"""How a round is closed: summed exactly, stepped, recorded, and only then called done.

Rules:
1. from the first step on nothing more is accepted: what is summed and what is recorded are the same contributions;
2. what is summed is what was counted and receipted, found in the spool by its digest;
3. arrays, sum and strategy state are durable before the record names them, and the record before the round is done, so
   a coordinator killed in between closes it again with the same bytes and the same statement.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from controlplane.domain import run as planner
from controlplane.federation.orders import SavedState, TakeStep
from controlplane.federation.spool_reader import SpoolReader
from controlplane.federation.workers import Workers
from controlplane.services.models import Models
from controlplane.services.ports import Clock, Record
from controlplane.services.run_arrays import RunArrays
from controlplane.store import Store
from controlplane.store.ports.rounds import ContributionState, RoundState, StoredContribution, StoredRound
from treaty import names, statement
from treaty.errors import Corrupt
from treaty.fields import timestamp_text
from treaty.keys import SigningKey
from treaty.names import RunId
from treaty.plan import RunPlan
from treaty.statement import Statement, StatementKind
from treaty.strict_json import JsonObject, JsonValue


class RoundCloser:
    """Closes rounds of any run; the arithmetic is the run's worker's."""

    def __init__(
        self,
        store: Store,
        models: Models,
        record: Record,
        arrays: RunArrays,
        workers: Workers,
        key: SigningKey,
        clock: Clock,
    ) -> None:
        self._store = store
        self._models = models
        self._record = record
        self._arrays = arrays
        self._workers = workers
        self._key = key
        self._clock = clock

    async def close(self, plan: RunPlan, move: planner.Aggregate) -> None:
        """Sum what was accepted, record the round, call it done. Idempotent: the same contributions, the same bytes."""
        stored = move.round
        if stored.state is RoundState.OPEN:
            # From here on nothing more is accepted: what is summed and what is recorded are the same contributions.
            await self._store.rounds.save(replace(stored, state=RoundState.AGGREGATING), RoundState.OPEN)
            stored = replace(stored, state=RoundState.AGGREGATING)
        accepted = {
            c.nation: c
            for c in await self._store.rounds.contributions(plan.run, stored.round)
            if c.state is ContributionState.ACCEPTED
        }
        contributions = [accepted[nation] for nation in sorted(accepted)]
        if not move.evaluate_only:
            stored = await self._sum(plan, stored, contributions)
        await self._record_round(plan, stored, contributions)
        done = replace(stored, state=RoundState.DONE, finished_at=self._clock().replace(microsecond=0))
        await self._store.rounds.save(done, RoundState.AGGREGATING)

    async def _sum(
        self, plan: RunPlan, stored: StoredRound, contributions: Sequence[StoredContribution]
    ) -> StoredRound:
        run, number = plan.run, stored.round
        base = await self._models.ready(plan.model_digest)
        before = await self._arrays.of_round(plan.run, stored, base, last=plan.rounds)
        await asyncio.to_thread(_check_spooled, contributions)
        order = TakeStep(
            strategy=plan.strategy,
            parameters=plan.parameters,
            spec=plan.update_spec(number, before.digest),
            updates=tuple(Path(c.spool_path) for c in contributions if c.spool_path is not None),
            base=self._arrays.folder(run, number - 1),
            state=await self._state_before(run, number),
            out=self._arrays.folder(run, number),
            sum_path=self._arrays.sum_file(run, number),
            state_path=self._arrays.state_file(run, number),
        )
        taken = await self._workers.take_step(run, order)
        after = await self._arrays.offer(run, number, base)
        return replace(
            stored,
            aggregate_digest=taken.aggregate_digest,
            result_digest=after.digest,
            strategy_state=taken.state_digest.encode("ascii"),
        )

    async def _state_before(self, run: RunId, number: int) -> SavedState | None:
        if number == 1:
            return None
        previous = await self._store.rounds.find(run, number - 1)
        if previous.strategy_state is None:
            return None
        digest = names.digest(previous.strategy_state.decode("ascii"))
        return SavedState(self._arrays.state_file(run, number - 1), digest)

    async def _record_round(
        self, plan: RunPlan, stored: StoredRound, contributions: Sequence[StoredContribution]
    ) -> None:
        """Rule 3 of `runs`: the same round recorded again is the same statement, so it holds no clock but its start."""
        nations: list[JsonValue] = [
            {
                "nation": c.nation,
                "update": c.update_digest,
                "receipt": c.receipt_digest,
                "examples": c.examples,
                "bytes": c.bytes,
            }
            for c in contributions
        ]
        predicate: JsonObject = {
            "run": plan.run,
            "round": stored.round,
            "plan": plan.digest,
            "arrays_before": stored.arrays_digest,
            "arrays_after": stored.result_digest,
            "aggregate": stored.aggregate_digest,
            "nations": nations,
            "started_at": timestamp_text(stored.started_at or stored.deadline_at),
        }
        subject = stored.aggregate_digest or stored.arrays_digest or plan.digest
        said = Statement(StatementKind.ROUND, f"{plan.run}/{stored.round}", subject, predicate)
        await self._record.append(statement.sign(said, [self._key]))


def _check_spooled(contributions: Sequence[StoredContribution]) -> None:
    """What is summed is what was counted and receipted. Raises: Corrupt: a file of the spool is another update."""
    for contribution in contributions:
        if contribution.spool_path is None:
            raise Corrupt(f"the update of {contribution.nation} is not in the spool")
        with SpoolReader(Path(contribution.spool_path)) as reader:
            if reader.header.digest != contribution.update_digest:
                raise Corrupt(f"the spool holds another update of {contribution.nation} than the one that was counted")
