"""The moves of one run, carried out: every one idempotent, every one durable before the next.

A run's plan lies in its folder as the signed envelope that was recorded; the file's absence means that the run was
never adopted. Rounds, contributions and what agents answered are the store's, and the run's status is read off them.
How a round is closed is in `run_closing`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Final

import structlog

from controlplane.domain import run as planner
from controlplane.domain.directives import Action, EndRun, Round
from controlplane.federation.orders import MakeArrays
from controlplane.federation.workers import Workers
from controlplane.services.models import Models, base_shapes
from controlplane.services.ports import NO_TRACE, Clock, Fleet, Record
from controlplane.services.run_arrays import RunArrays
from controlplane.services.run_closing import RoundCloser
from controlplane.services.trust import Trust
from controlplane.store import Store
from controlplane.store.ports.rounds import ContributionState, RoundState, StoredContribution, StoredRound
from treaty import names, statement
from treaty.errors import FoedusError, IdentityRefused, NotFound, PermissionRefused, PreconditionFailed
from treaty.keys import SigningKey, write_new
from treaty.names import AgentId, Digest, DirectiveNumber, RunId
from treaty.plan import RunPlan, verify_plan
from treaty.resources.runs import FederatedRunStatus, NationMetrics, NationRefusal, RoundDone

log = structlog.get_logger(__name__)

PLAN_FILE = "plan.json"
MAX_ROUNDS_DONE: Final = 256
"""Closed rounds that a run's status lists: its newest."""


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
        closer: RoundCloser,
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
        self._closer = closer
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

    async def make(self, run: RunId, move: planner.Move, trace_id: str) -> bool:
        """Carry out one move; whether the next one may be made at once, because this one did not end in waiting."""
        plan, envelope = await self._adopted(run)
        match move:
            case planner.Prepare():
                base = await self._models.ready(plan.model_digest)
                order = MakeArrays(plan.recipe, base_shapes(base), self._arrays.folder(run, 0))
                await self._workers.make_arrays(run, order)
            case planner.Open(round=number):
                await self._open(plan, number)
            case planner.Collect():
                return await self._direct(plan, envelope, move, trace_id)
            case planner.Aggregate():
                await self._closer.close(plan, move)
            case planner.Finish():
                raise PreconditionFailed("a finished run makes no move")
        return True

    async def observed(self, run: RunId, status: FederatedRunStatus) -> FederatedRunStatus:
        """`status` as the rounds have it: whatever was missed when a round was opened or closed is found again here."""
        rounds = await self._store.rounds.of_run(run)
        if not rounds:
            return status
        known = {done.round: done for done in status.rounds_done}
        done = [stored for stored in rounds if stored.state is RoundState.DONE][-MAX_ROUNDS_DONE:]
        found = [known.get(stored.round) or await self._done(stored) for stored in done]
        return replace(status, round=rounds[-1].round, rounds_done=tuple(found))

    async def _done(self, stored: StoredRound) -> RoundDone:
        contributions = await self._store.rounds.contributions(stored.run, stored.round)
        accepted = [c for c in contributions if c.state is ContributionState.ACCEPTED]
        return RoundDone(
            round=stored.round,
            nations=tuple(c.nation for c in accepted),
            aggregate_digest=stored.aggregate_digest,
            arrays_digest=stored.result_digest,
            metrics=tuple(NationMetrics(c.nation, dict(c.metrics)) for c in accepted),
            finished_at=stored.finished_at,
        )

    async def end(self, run: RunId, *, has_result: bool, reason: str) -> Digest | None:
        """Close what is open, tell the cohort, let the worker go; the digest of the last arrays if there is a result.

        An agent that cannot be told now (it was put out, claims to be ahead, the charter ended) does not keep the run
        from ending; it is told by `tell_ended` once it is back.
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

    async def tell_ended(self, agent: AgentId, run: RunId) -> None:
        """Tell an agent whose newest directive of `run` is a round that the run has ended."""
        await self._tell(agent, EndRun(run), NO_TRACE)

    async def _agents(self, plan: RunPlan, rounds: Sequence[StoredRound]) -> Sequence[AgentId]:
        """Everyone who was directed in this run, though a nation may have another agent by now."""
        found = {agent for nation in plan.cohort if (agent := self._fleet.agent_of(nation)) is not None}
        for stored in rounds:
            for contribution in await self._store.rounds.contributions(plan.run, stored.round):
                found.add(names.spiffe_id(contribution.agent, self._trust.charter.domain))
        return sorted(found, key=str)

    async def _tell(self, agent: AgentId, action: Action, trace_id: str) -> DirectiveNumber | None:
        """Direct it; None where that cannot be now."""
        try:
            return await self._fleet.direct(agent, action, trace_id)
        except (PreconditionFailed, PermissionRefused, IdentityRefused, NotFound) as err:
            log.warning("agent not directed", agent=str(agent), code=err.code)
            return None

    async def is_collecting(self, run: RunId) -> bool:
        """Whether a round is open, whose deadline ends it whatever fails meanwhile."""
        rounds = await self._store.rounds.of_run(run)
        return bool(rounds) and rounds[-1].state is RoundState.OPEN

    async def give_up(self, run: RunId, reason: str) -> bool:
        """A round that cannot be closed, however often it is tried, fails; whether there was one."""
        rounds = await self._store.rounds.of_run(run)
        if rounds and rounds[-1].state is RoundState.AGGREGATING:
            failed = replace(rounds[-1], state=RoundState.FAILED, reason=reason[:1024])
            await self._store.rounds.save(failed, RoundState.AGGREGATING)
            return True
        return False

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

    async def _direct(self, plan: RunPlan, envelope: bytes, move: planner.Collect, trace_id: str) -> bool:
        """Make sure that each missing nation has the round's directive; whether one turns out to have refused it."""
        stored = move.round
        base = await self._models.ready(plan.model_digest)
        manifest = await self._arrays.of_round(plan.run, stored, base, last=plan.rounds)
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
        is_answered = False
        for nation in move.missing:
            agent = self._fleet.agent_of(nation)
            number = await self._tell(agent, action, trace_id) if agent is not None else None
            # Read from the journal and not taken from the event: a refusal that came as we were killed still counts.
            if agent is not None and number is not None and (codes := await self._fleet.refusal(agent, number)):
                await self._refused(stored, agent, codes)
                is_answered = True
        return is_answered

    async def _refused(self, stored: StoredRound, agent: AgentId, codes: tuple[str, ...]) -> None:
        """A refused directive of the round is its nation's answer, unless there is one."""
        refused = StoredContribution(
            stored.run, stored.round, agent.nation, str(agent), ContributionState.REFUSED, codes=codes
        )
        async with self._store.transaction() as change:
            known = await change.rounds.contributions(stored.run, stored.round)
            if all(contribution.nation != agent.nation for contribution in known):
                await change.rounds.contribute(refused, None)

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
