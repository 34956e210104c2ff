"""Federated runs: planned, started, driven round by round, followed, cancelled.

Level-triggered with one writer, like rollouts: events and verbs wake `run`, which reads what is durable (the plan, the
rounds, the contributions) and makes the one move that `controlplane.domain.run` names. A coordinator killed anywhere
makes the same move again when it is back, and every move is idempotent.

Rules:
1. a run starts from the very plan that the operator was shown, while it is fresh;
2. the signed plan is in the record, and in the run's folder, before the first directive;
3. a round's sum, arrays and strategy state are durable before the round is called done; a signed statement of the
   round is recorded, with the receipts that it is made of;
4. updates are deleted when the run has ended and the retention is over (`retention`), all of a run together.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import structlog

from controlplane.artifacts.spool import UpdateSpool
from controlplane.domain import run as planner
from controlplane.domain.agents import ProgressReport, RoundReport, UpdateOpening, UpdateReceived
from controlplane.services.listeners import SilentListener
from controlplane.services.ports import NO_TRACE, TRACE_ANNOTATION, Clock, Fleet, Record, RunView
from controlplane.services.run_arrays import RunArrays, pieces
from controlplane.services.run_driver import RunDriver
from controlplane.services.run_planning import Planned, Run, RunPlanner, same_intent
from controlplane.services.run_status import finished, is_ended, view
from controlplane.services.run_updates import UpdateDesk
from controlplane.store import Store
from treaty.errors import ConflictError, FoedusError, NotFound, PreconditionFailed
from treaty.names import AgentId, Digest, DirectiveNumber, PartyCode, RunId, run_id
from treaty.plan import RunPlan
from treaty.resources.codec import narrowed
from treaty.resources.meta import AnyResource, Condition, ConditionStatus, new_resource, with_condition
from treaty.resources.runs import FEDERATED_RUN, RUN_READY, CohortMember, FederatedRunStatus, NationRefusal, RoundDone

log = structlog.get_logger(__name__)

TICK = timedelta(seconds=1)
PLAN_FRESH = timedelta(minutes=15)
DEFAULT_RETENTION = timedelta(days=30)
ATTEMPTS = 5


@dataclass(frozen=True, slots=True)
class _Shown:
    """A plan that was shown to an operator, and until when it may be started."""

    planned: Planned
    run: Run
    until: datetime


class Runs(SilentListener):
    """The verbs, the listener, and the loop that drives every open run."""

    def __init__(
        self,
        store: Store,
        fleet: Fleet,
        run_planner: RunPlanner,
        driver: RunDriver,
        desk: UpdateDesk,
        arrays: RunArrays,
        spool: UpdateSpool,
        record: Record,
        clock: Clock,
        *,
        retention: timedelta = DEFAULT_RETENTION,
    ) -> None:
        self._store = store
        self._fleet = fleet
        self._planner = run_planner
        self._driver = driver
        self._desk = desk
        self._arrays = arrays
        self._spool = spool
        self._record = record
        self._clock = clock
        self._retention = retention
        self._wake = asyncio.Event()
        self._changed = asyncio.Event()
        self._shown: dict[Digest, _Shown] = {}
        self._progress: dict[RunId, dict[PartyCode, ProgressReport]] = {}
        self._failures: dict[RunId, int] = {}
        self._starting: set[str] = set()

    # --- verbs ---------------------------------------------------------------------------------------------------

    async def plan(self, resource: AnyResource) -> tuple[bytes, str]:
        """What would happen, nation by nation, and the plan's digest; empty where the quorum is missed."""
        run = _as_run(resource)
        planned = await self._planner.plan(run)
        if planned.plan is None:
            return planned.encoded(), ""
        now = self._clock()
        self._shown = {digest: shown for digest, shown in self._shown.items() if shown.until > now}
        digest = planned.plan.digest
        self._shown[digest] = _Shown(planned, run, now + PLAN_FRESH)
        return planned.encoded(), digest

    async def start(self, resource: AnyResource, plan_digest: Digest) -> AnyResource:
        """Adopt a plan that was shown (rules 1 and 2).

        Raises: PreconditionFailed: never shown, not fresh, or for another intent. ConflictError: the name is taken.
        """
        run = _as_run(resource)
        shown = self._shown.get(plan_digest)
        if shown is None or shown.until <= self._clock() or not same_intent(shown.run.spec, run.spec):
            raise PreconditionFailed("this plan is not the one last shown, or is stale", remedy="plan the run again")
        plan = shown.planned.require_plan()
        if run.name in self._starting or await self._exists(run.name):
            raise ConflictError(f"run {run.name} exists already", remedy="choose another name")
        self._starting.add(run.name)
        try:
            return await self._adopt(run, plan)
        finally:
            self._starting.discard(run.name)

    async def _exists(self, name: str) -> bool:
        try:
            await self._store.resources.get(FEDERATED_RUN, name)
        except NotFound:
            return False
        return True

    async def _adopt(self, run: Run, plan: RunPlan) -> AnyResource:
        await self._driver.adopt(plan)
        cohort = tuple(self._member(plan, nation) for nation in plan.cohort)
        refusals = tuple(NationRefusal(n, codes or ("REFUSED",), "dataset.use") for n, codes in plan.refused.items())
        status = FederatedRunStatus(plan_digest=plan.digest, cohort=cohort, refusals=refusals)
        fresh = new_resource(FEDERATED_RUN, run.name, run.spec, status=status)
        metadata = replace(fresh.metadata, annotations=run.metadata.annotations)
        ready = Condition(RUN_READY, ConditionStatus.TRUE, "Planned", f"{len(cohort)} nations")
        stored = await self._store.resources.create(
            with_condition(replace(fresh, metadata=metadata), ready, self._clock())
        )
        self._wake.set()
        return stored

    async def cancel(self, name: str, reason: str) -> AnyResource:
        """Ask a run to end. Raises: PreconditionFailed: it has ended."""
        run = await self._store.resources.get(FEDERATED_RUN, name)
        if is_ended(run.status):
            raise PreconditionFailed(f"run {name} has ended")
        cancelled = await self._store.resources.update(replace(run, spec=replace(run.spec, cancelled=True)))
        log.info("run cancelled", run=name, reason=reason)
        self._wake.set()
        return cancelled

    async def follow(self, name: str) -> AsyncIterator[RunView]:
        """A view whenever something moved, the last one finished. Raises: NotFound."""
        while True:
            changed = self._changed
            run = await self._store.resources.get(FEDERATED_RUN, name)
            shown = view(run, self._progress.get(run_id(name), {}))
            yield shown
            if shown.is_finished:
                return
            with suppress(TimeoutError):
                async with asyncio.timeout(TICK.total_seconds()):
                    await changed.wait()

    async def result(self, name: str) -> AsyncIterator[tuple[str, bytes]]:
        """The run's last arrays. Raises: NotFound. PreconditionFailed: the run has no result."""
        run = await self._store.resources.get(FEDERATED_RUN, name)
        if run.status.result_arrays_digest is None:
            raise PreconditionFailed(f"run {name} has no result", remedy="wait for it: foedus run status")
        plan = await self._driver.plan(run_id(name))
        arriving = pieces(self._arrays.folder(plan.run, plan.rounds))
        while (piece := await asyncio.to_thread(next, arriving, None)) is not None:
            yield piece

    async def accept_update(
        self, agent: AgentId, opening: UpdateOpening, chunks: AsyncIterator[bytes]
    ) -> UpdateReceived:
        """Take one update of an open round (`controlplane.services.run_updates`)."""
        plan = await self._driver.plan(opening.run)
        received = await self._desk.accept(plan, agent, opening, chunks)
        self._wake.set()
        return received

    # --- the loop ------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """The one writer of runs' status. Never returns."""
        while True:
            self._wake.clear()
            await self.reconcile()
            with suppress(TimeoutError):
                async with asyncio.timeout(TICK.total_seconds()):
                    await self._wake.wait()

    async def reconcile(self) -> None:
        """Let every open run move until it has to wait. One that cannot move does not hold up the others."""
        for run in await self._store.resources.all(FEDERATED_RUN):
            try:
                if is_ended(run.status):
                    await self._sweep(run)
                else:
                    await self._drive(run)
            except FoedusError as err:
                log.warning("run not driven", run=run.name, code=err.code, exc_info=err)
                await self._count_failure(run, err)

    async def _count_failure(self, run: Run, err: FoedusError) -> None:
        """The same refusal `ATTEMPTS` times in a row is not going to pass: the run fails with it."""
        name = run_id(run.name)
        self._failures[name] = self._failures.get(name, 0) + 1
        if self._failures[name] >= ATTEMPTS:
            await self._driver.give_up(name, f"{err.code}: {err.message}")
            self._failures.pop(name)

    async def _drive(self, run: Run) -> None:
        """Make moves until the next one is to wait."""
        is_waiting = False
        while not is_waiting and not is_ended(run.status):
            trace_id = run.metadata.annotations.get(TRACE_ANNOTATION, NO_TRACE)
            move = await self._driver.next_move(run_id(run.name), is_cancelled=run.spec.cancelled)
            is_waiting = isinstance(move, planner.Collect)
            if isinstance(move, planner.Finish):
                run = await self._finish(run, move)
                continue
            done = await self._driver.make(run_id(run.name), move, trace_id)
            run = await self._note(run, move, done)

    async def _note(self, run: Run, move: planner.Move, done: RoundDone | None) -> Run:
        status = run.status
        self._progress.setdefault(run_id(run.name), {})
        self._failures.pop(run_id(run.name), None)
        if isinstance(move, planner.Open):
            status = replace(status, round=move.round)
        if done is not None and all(known.round != done.round for known in status.rounds_done):
            status = replace(status, rounds_done=(*status.rounds_done, done)[-256:])
        if status == run.status:
            return run
        stored = await self._store.resources.update_status(replace(run, status=status))
        self._moved()
        return stored

    async def _finish(self, run: Run, move: planner.Finish) -> Run:
        name = run_id(run.name)
        result = await self._driver.end(name, has_result=move.has_succeeded, reason=move.message)
        self._arrays.forget(name)
        refusals = await self._driver.refusals(name)
        ended = finished(run, move, result, refusals, self._clock())
        stored = await self._store.resources.update_status(ended)
        self._progress.pop(name, None)
        self._moved()
        return stored

    async def _sweep(self, run: Run) -> None:
        """Rule 4."""
        ended_at = max((c.last_transition_time for c in run.status.conditions if c.last_transition_time), default=None)
        if ended_at is not None and self._clock() >= ended_at + self._retention:
            await asyncio.to_thread(self._spool.delete_run, run_id(run.name))

    def _member(self, plan: RunPlan, nation: PartyCode) -> CohortMember:
        agent = self._fleet.agent_of(nation)
        return CohortMember(nation, str(agent), plan.decisions[nation].decision_digest)

    def _moved(self) -> None:
        """Wake whoever follows: the event is replaced, so that each of them sees every change."""
        self._changed.set()
        self._changed = asyncio.Event()

    # --- what the fleet tells ------------------------------------------------------------------------------------

    async def connected(self, agent: AgentId) -> None:
        self._wake.set()

    async def disconnected(self, agent: AgentId) -> None:
        self._wake.set()

    async def acknowledged(self, agent: AgentId, number: DirectiveNumber, codes: Sequence[str]) -> None:
        """A refused round counts as the nation's answer."""
        if codes:
            await self._driver.refused(agent, number, tuple(codes))
        self._wake.set()

    async def round_result(self, agent: AgentId, report: RoundReport) -> None:
        plan = await self._driver.plan(report.run)
        await self._desk.result(plan, agent, report)
        self._wake.set()

    async def progress(self, agent: AgentId, report: ProgressReport) -> None:
        """Of a run that is open and of its cohort only: what strangers report is nobody's news."""
        known = self._progress.get(report.run)
        if known is None:
            return
        plan = await self._driver.plan(report.run)
        if agent.nation in plan.cohort:
            known[agent.nation] = report
            self._moved()


def _as_run(resource: AnyResource) -> Run:
    if resource.kind != FEDERATED_RUN.name:
        raise PreconditionFailed(f"a {resource.kind} is not a run")
    return narrowed(FEDERATED_RUN, resource)
