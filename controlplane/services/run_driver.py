"""The moves of one run, carried out: every one idempotent, every one durable before the next.

A run's plan lies in its folder as the signed envelope that was recorded; the file's absence means that the run was
never adopted. Rounds and contributions are the store's. What a worker computes is named by digest before a round is
done.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import structlog

from controlplane.domain import run as planner
from controlplane.domain.directives import Action, EndRun, Round
from controlplane.federation.orders import MakeArrays, SavedState, TakeStep
from controlplane.federation.spool_reader import SpoolReader
from controlplane.federation.workers import Workers
from controlplane.services.models import Models, base_shapes
from controlplane.services.ports import NO_TRACE, Clock, Fleet, Record
from controlplane.services.run_arrays import RunArrays
from controlplane.services.trust import Trust
from controlplane.store import Store
from controlplane.store.ports.rounds import ContributionState, RoundState, StoredContribution, StoredRound
from treaty import names, statement
from treaty.errors import Corrupt, FoedusError, IdentityRefused, NotFound, PreconditionFailed
from treaty.fields import timestamp_text
from treaty.keys import SigningKey, write_new
from treaty.manifest import Manifest
from treaty.names import AgentId, Digest, DirectiveNumber, RunId
from treaty.plan import RunPlan, verify_plan
from treaty.resources.runs import NationMetrics, NationRefusal, RoundDone
from treaty.statement import Statement, StatementKind
from treaty.strict_json import JsonObject, JsonValue

log = structlog.get_logger(__name__)

PLAN_FILE = "plan.json"


class RunDriver:
    """Carries out what `controlplane.domain.run` decides."""

    def __init__(
        self,
        store: Store,
        fleet: Fleet,
        models: Models,
        trust: Trust,
        record: Record,
        arrays: RunArrays,
        workers: Workers,
        runs: Path,
        key: SigningKey,
        clock: Clock,
    ) -> None:
        self._store = store
        self._fleet = fleet
        self._models = models
        self._trust = trust
        self._record = record
        self._arrays = arrays
        self._workers = workers
        self._runs = runs
        self._key = key
        self._clock = clock
        self._plans: dict[RunId, tuple[RunPlan, bytes]] = {}

    async def adopt(self, plan: RunPlan) -> None:
        """Sign the plan, record it, keep it. Idempotent for the same plan."""
        envelope = statement.sign(plan.statement(), [self._key])
        await self._record.append(envelope)
        await asyncio.to_thread(self._keep, plan.run, envelope)
        self._plans[plan.run] = (plan, envelope)

    async def plan(self, run: RunId) -> RunPlan:
        """The run's plan as it was adopted. Raises: NotFound."""
        return (await self._adopted(run))[0]

    async def next_move(self, run: RunId, *, is_cancelled: bool) -> planner.Move:
        plan = await self.plan(run)
        rounds = await self._store.rounds.of_run(run)
        newest = await self._store.rounds.contributions(run, rounds[-1].round) if rounds else ()
        return planner.next_move(
            plan,
            rounds,
            newest,
            has_first_arrays=self._arrays.has_first(run),
            is_cancelled=is_cancelled,
            now=self._clock(),
        )

    async def make(self, run: RunId, move: planner.Move, trace_id: str) -> RoundDone | None:
        """Carry out one move; what a closed round leaves behind, otherwise None."""
        plan, envelope = await self._adopted(run)
        match move:
            case planner.Prepare():
                base = await self._models.ready(plan.model_digest)
                order = MakeArrays(plan.recipe, base_shapes(base), self._arrays.folder(run, 0))
                await self._workers.make_arrays(run, order)
            case planner.Open(round=number):
                await self._open(plan, number)
            case planner.Collect():
                await self._direct(plan, envelope, move, trace_id)
            case planner.Aggregate():
                return await self._close(plan, move)
            case planner.Finish():
                raise PreconditionFailed("a finished run makes no move")
        return None

    async def refused(self, agent: AgentId, number: DirectiveNumber, codes: Sequence[str]) -> None:
        """An agent refused a directive: if it was the round's, that is its nation's answer."""
        stored = await self._store.directives.find(str(agent), number)
        kind, _, name = stored.subject.partition("/")
        if kind != "run":
            return
        run = names.run_id(name)
        rounds = await self._store.rounds.of_run(run)
        if not rounds or rounds[-1].state is not RoundState.OPEN:
            return
        known = {c.nation: c for c in await self._store.rounds.contributions(run, rounds[-1].round)}
        mine = known.get(agent.nation)
        if mine is None or mine.state is ContributionState.ASKED:
            refused = StoredContribution(
                run, rounds[-1].round, agent.nation, str(agent), ContributionState.REFUSED, codes=tuple(codes)
            )
            await self._store.rounds.contribute(refused, mine.state if mine else None)

    async def end(self, run: RunId, *, has_result: bool, reason: str) -> Digest | None:
        """Close what is open, tell the cohort, let the worker go; the digest of the last arrays if there is a result.

        An agent that cannot be told now (it was replaced, the charter ended) does not keep the run from ending.
        """
        plan = await self.plan(run)
        rounds = await self._store.rounds.of_run(run)
        if rounds and rounds[-1].state is RoundState.OPEN:
            # First of all: from here on no update of this run is accepted any more.
            await self._store.rounds.save(
                replace(rounds[-1], state=RoundState.FAILED, reason=reason[:1024]), RoundState.OPEN
            )
        for agent in await self._agents(plan, rounds):
            await self._tell(agent, EndRun(run), NO_TRACE)
        await self._workers.end(run)
        if not has_result or not plan.tensors:
            return None
        base = await self._models.ready(plan.model_digest)
        return (await asyncio.to_thread(self._arrays.manifest, run, plan.rounds, base)).digest

    async def _agents(self, plan: RunPlan, rounds: Sequence[StoredRound]) -> Sequence[AgentId]:
        """Everyone who was directed in this run, though a nation may have another agent by now."""
        found = {agent for nation in plan.cohort if (agent := self._fleet.agent_of(nation)) is not None}
        for stored in rounds:
            for contribution in await self._store.rounds.contributions(plan.run, stored.round):
                found.add(names.spiffe_id(contribution.agent, self._trust.charter.domain))
        return sorted(found, key=str)

    async def _tell(self, agent: AgentId, action: Action, trace_id: str) -> None:
        try:
            await self._fleet.direct(agent, action, trace_id)
        except (PreconditionFailed, IdentityRefused, NotFound) as err:
            log.warning("agent not directed", agent=str(agent), code=err.code)

    async def give_up(self, run: RunId, reason: str) -> None:
        """A round that cannot be closed, however often it is tried, fails the run instead of holding it forever."""
        rounds = await self._store.rounds.of_run(run)
        if rounds and rounds[-1].state is RoundState.AGGREGATING:
            failed = replace(rounds[-1], state=RoundState.FAILED, reason=reason[:1024])
            await self._store.rounds.save(failed, RoundState.AGGREGATING)

    async def refusals(self, run: RunId) -> Sequence[NationRefusal]:
        """Nations that refused a round, with their codes."""
        found: list[NationRefusal] = []
        for stored in await self._store.rounds.of_run(run):
            contributions = await self._store.rounds.contributions(run, stored.round)
            refused = [c for c in contributions if c.state is ContributionState.REFUSED]
            found.extend(NationRefusal(c.nation, c.codes or ("REFUSED",)) for c in refused)
        return found

    async def _open(self, plan: RunPlan, number: int) -> None:
        base = await self._models.ready(plan.model_digest)
        manifest = await self._arrays.offer(plan.run, min(number - 1, plan.rounds), base)
        now = self._clock().replace(microsecond=0)
        deadline_at = now + timedelta(seconds=plan.round_deadline_seconds)
        opened = StoredRound(plan.run, number, RoundState.OPEN, plan.digest, deadline_at, arrays_digest=manifest.digest)
        await self._store.rounds.open(opened)

    async def _direct(self, plan: RunPlan, envelope: bytes, move: planner.Collect, trace_id: str) -> None:
        stored = move.round
        base = await self._models.ready(plan.model_digest)
        manifest = await self._arrays_of(plan, stored, base)
        left = max(1, int((stored.deadline_at - stored.started_at).total_seconds())) if stored.started_at else 1
        action = Round(
            run=plan.run,
            round=stored.round,
            plan=envelope,
            arrays_digest=manifest.digest,
            arrays_manifest=manifest.encoded,
            deadline_seconds=min(left, plan.round_deadline_seconds),
            evaluate_only=move.evaluate_only,
        )
        for nation in move.missing:
            agent = self._fleet.agent_of(nation)
            if agent is not None:
                await self._tell(agent, action, trace_id)

    async def _arrays_of(self, plan: RunPlan, stored: StoredRound, base: Manifest) -> Manifest:
        manifest = await asyncio.to_thread(self._arrays.manifest, plan.run, min(stored.round - 1, plan.rounds), base)
        if manifest.digest != stored.arrays_digest:
            raise PreconditionFailed(f"the arrays of round {stored.round} of {plan.run} are not the ones it began with")
        return manifest

    async def _close(self, plan: RunPlan, move: planner.Aggregate) -> RoundDone:
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
        return RoundDone(
            round=done.round,
            nations=tuple(c.nation for c in contributions),
            aggregate_digest=done.aggregate_digest,
            arrays_digest=done.result_digest,
            metrics=tuple(NationMetrics(c.nation, dict(c.metrics)) for c in contributions),
            finished_at=done.finished_at,
        )

    async def _sum(
        self, plan: RunPlan, stored: StoredRound, contributions: Sequence[StoredContribution]
    ) -> StoredRound:
        run, number = plan.run, stored.round
        base = await self._models.ready(plan.model_digest)
        before = await self._arrays_of(plan, stored, base)
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

    async def _adopted(self, run: RunId) -> tuple[RunPlan, bytes]:
        known = self._plans.get(run)
        if known is None:
            envelope = await asyncio.to_thread(self._read, run)
            plan, _ = verify_plan(envelope, self._trust.charter)
            known = self._plans[run] = (plan, envelope)
        return known

    def _keep(self, run: RunId, envelope: bytes) -> None:
        folder = self._runs / names.run_id(run)
        folder.mkdir(parents=True, exist_ok=True)
        try:
            write_new(folder / PLAN_FILE, envelope, mode=0o600)
        except FoedusError:
            # Adopted before, and the resource was not written: the newer plan is the one that was just shown.
            (folder / PLAN_FILE).unlink()
            write_new(folder / PLAN_FILE, envelope, mode=0o600)

    def _read(self, run: RunId) -> bytes:
        try:
            return (self._runs / names.run_id(run) / PLAN_FILE).read_bytes()
        except FileNotFoundError as err:
            raise NotFound(f"there is no run {run}") from err


def _check_spooled(contributions: Sequence[StoredContribution]) -> None:
    """What is summed is what was counted and receipted. Raises: Corrupt: a file of the spool is another update."""
    for contribution in contributions:
        if contribution.spool_path is None:
            raise Corrupt(f"the update of {contribution.nation} is not in the spool")
        with SpoolReader(Path(contribution.spool_path)) as reader:
            if reader.header.digest != contribution.update_digest:
                raise Corrupt(f"the spool holds another update of {contribution.nation} than the one that was counted")
