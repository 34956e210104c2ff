"""Federated runs: planned, started, followed, cancelled.

Level-triggered: verbs and events write what is durable and wake the one writer, `run_reconciler`, which moves each run
on its own. A coordinator killed anywhere makes the same move again when it is back, and every move is idempotent.

Rules:
1. a run starts from the very plan that the operator was shown, while it is fresh;
2. the signed plan is in the record, and in the run's folder, before the first directive;
3. an agent that was directed in a run is told that it ended, if not then, at its next connect.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import structlog

from controlplane.domain.agents import ProgressReport, RoundReport, UpdateOpening, UpdateReceived
from controlplane.services.listeners import SilentListener
from controlplane.services.ports import Clock, Fleet, RunView
from controlplane.services.run_arrays import RunArrays, pieces
from controlplane.services.run_driver import RunDriver
from controlplane.services.run_news import RunNews, heard
from controlplane.services.run_planning import Planned, Run, RunPlanner, same_intent
from controlplane.services.run_reconciler import TICK, RunReconciler
from controlplane.services.run_status import is_ended, view
from controlplane.services.run_updates import UpdateDesk
from controlplane.store import Store
from treaty.errors import ConflictError, NotFound, PreconditionFailed
from treaty.names import AgentId, Digest, DirectiveNumber, PartyCode, run_id
from treaty.plan import RunPlan
from treaty.resources.codec import narrowed
from treaty.resources.meta import AnyResource, Condition, ConditionStatus, new_resource, with_condition
from treaty.resources.runs import FEDERATED_RUN, RUN_READY, CohortMember, FederatedRunStatus, NationRefusal

log = structlog.get_logger(__name__)

PLAN_FRESH = timedelta(minutes=15)


@dataclass(frozen=True, slots=True)
class _Shown:
    """A plan that was shown to an operator, and until when it may be started."""

    planned: Planned
    run: Run
    until: datetime


class Runs(SilentListener):
    """The verbs and the listener."""

    def __init__(
        self,
        store: Store,
        fleet: Fleet,
        run_planner: RunPlanner,
        driver: RunDriver,
        desk: UpdateDesk,
        arrays: RunArrays,
        reconciler: RunReconciler,
        news: RunNews,
        clock: Clock,
    ) -> None:
        self._store = store
        self._fleet = fleet
        self._planner = run_planner
        self._driver = driver
        self._desk = desk
        self._arrays = arrays
        self._reconciler = reconciler
        self._news = news
        self._clock = clock
        self._shown: dict[Digest, _Shown] = {}
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
        self._reconciler.wake()
        return stored

    async def cancel(self, name: str, reason: str) -> AnyResource:
        """Ask a run to end. Raises: PreconditionFailed: it has ended."""
        run = await self._store.resources.get(FEDERATED_RUN, name)
        if is_ended(run.status):
            raise PreconditionFailed(f"run {name} has ended")
        cancelled = await self._store.resources.update(replace(run, spec=replace(run.spec, cancelled=True)))
        log.info("run cancelled", run=name, reason=reason)
        self._reconciler.wake()
        return cancelled

    async def follow(self, name: str) -> AsyncIterator[RunView]:
        """A view whenever something moved, the last one finished. Raises: NotFound."""
        while True:
            bell = self._news.bell
            run = await self._store.resources.get(FEDERATED_RUN, name)
            shown = view(run, self._news.of(run_id(name)))
            yield shown
            if shown.is_finished:
                return
            await heard(bell, TICK)

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
        self._reconciler.wake_run(plan.run)
        return received

    def _member(self, plan: RunPlan, nation: PartyCode) -> CohortMember:
        agent = self._fleet.agent_of(nation)
        return CohortMember(nation, str(agent), plan.decisions[nation].decision_digest)

    # --- what the fleet tells ------------------------------------------------------------------------------------

    async def connected(self, agent: AgentId) -> None:
        """Tell it what it missed: a run may have ended while it could not be told (rule 3)."""
        for run in await self._fleet.runs_of(agent):
            if not await self._is_open(run):
                await self._driver.tell_ended(agent, run)
        self._reconciler.wake()

    async def _is_open(self, name: str) -> bool:
        try:
            return not is_ended((await self._store.resources.get(FEDERATED_RUN, name)).status)
        except NotFound:
            return False

    async def disconnected(self, agent: AgentId) -> None:
        self._reconciler.wake()

    async def acknowledged(self, agent: AgentId, number: DirectiveNumber, codes: Sequence[str]) -> None:
        if codes:  # a refused directive may have been a round's; one that was taken up changes nothing yet
            self._reconciler.wake()

    async def round_result(self, agent: AgentId, report: RoundReport) -> None:
        plan = await self._driver.plan(report.run)
        await self._desk.result(plan, agent, report)
        self._reconciler.wake_run(plan.run)

    async def progress(self, agent: AgentId, report: ProgressReport) -> None:
        """Of a run that is open and of its cohort only: what strangers report is nobody's news."""
        if not self._news.is_open(report.run):
            return
        plan = await self._driver.plan(report.run)
        if agent.nation in plan.cohort:
            self._news.note(agent.nation, report)


def _as_run(resource: AnyResource) -> Run:
    if resource.kind != FEDERATED_RUN.name:
        raise PreconditionFailed(f"a {resource.kind} is not a run")
    return narrowed(FEDERATED_RUN, resource)
