"""One round of a run in this nation: checked against its plan, decided, trained, clipped, decided again, sent.

    plan ─► dataset.use ─► arrays pulled ─► trainer (child) ─► clip, fixed point ─► kept on disk
         ─► egress.update on what is there ─► receipt journaled ─► border          (an evaluation: metrics instead)

Rules:
1. the plan says everything: what differs from it is refused before anything is loaded (`node_agent.assignments`);
2. what is decided is what was planned: the ask of `dataset.use` has the digest that the plan recorded for this nation;
3. the base is the version on the shelf; a round brings no model into the country;
4. the update is finished on the disk before the decision about it; after a crash the same bytes are sent, and the
   decision is made again;
5. one round computes at a time in this agent, arrays and all, and the trainer stays warm between the rounds of a run;
6. any refusal leaves as codes only; the brake ends the trainer at once, and nothing is sent.

The coordinator's silence (`Unavailable`) is not judged here: the caller starts the round again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import structlog

from node_agent import assignments, catalogue
from node_agent.arrays import GlobalArrays
from node_agent.assignments import Assignment, Minimums
from node_agent.catalogue import Dataset
from node_agent.decisions import Decisions, permit
from node_agent.directives import Directive, Round
from node_agent.gates import codes_of
from node_agent.observing import destination_observed, egress_observed
from node_agent.outgoing import Outgoing, OutgoingFolder
from node_agent.ports import Core, ProgressReport, RoundStage, UpdateOpening
from node_agent.shelf import Shelf
from node_agent.training.frames import Arrays
from node_agent.training.privacy import ClippedUpdate, clipped_update
from node_agent.training.supervisor import TrainerSupervisor, TrainOrder
from treaty.errors import FoedusError, PolicyDenied, PreconditionFailed, Unavailable
from treaty.manifest import Manifest
from treaty.names import Digest, RunId, digest_of
from treaty.plan import RunPlan
from treaty.policy import asks
from treaty.policy.asks import Undertaking
from treaty.policy.decision import Decision
from treaty.policy.questions import Observed, ObservedRound
from treaty.receipt import Crossing, Receipt, shape_digest
from treaty.strict_json import canonical, parse_object
from treaty.update_values import chunk_bytes

log = structlog.get_logger(__name__)

BRAKE_ON: Final = "BRAKE_ON"
_MAX_METRICS_BYTES = 16 * 1024


@dataclass(frozen=True, slots=True)
class _Job:
    """One round, believed and taken up, with the dataset that its plan is about."""

    directive: Directive
    action: Round
    assignment: Assignment
    dataset: Dataset

    @property
    def plan(self) -> RunPlan:
        return self.assignment.plan

    @property
    def plan_digest(self) -> Digest:
        return self.assignment.plan_digest

    @property
    def base(self) -> Manifest:
        return self.assignment.base


class RoundWorker:
    def __init__(
        self,
        core: Core,
        decisions: Decisions,
        shelf: Shelf,
        supervisor: TrainerSupervisor,
        arrays: GlobalArrays,
        outgoing: OutgoingFolder,
        minimums: Minimums,
    ) -> None:
        self._core = core
        self._decisions = decisions
        self._shelf = shelf
        self._supervisor = supervisor
        self._arrays = arrays
        self._outgoing = outgoing
        self._minimums = minimums
        self._computing = asyncio.Lock()
        self._warm_for: RunId | None = None

    async def admit(self, action: Round) -> None:
        """What can be said at once. Raises: as `assignments.believed` and `check_first`; PolicyDenied (BRAKE_ON)."""
        assignments.check_first(self._core.journal, action, await self._believed(action))

    async def run(self, directive: Directive, action: Round) -> None:
        """Do the round; an update, a result or a refusal by code is what comes of it. Idempotent by number.

        Raises: Unavailable: the coordinator is away; call again.
        """
        try:
            job = await self._job(directive, action)
            await self._work(job)
        except _Away:
            raise Unavailable("the coordinator is away in the middle of a round") from None
        except FoedusError as err:
            log.warning("round refused", run=action.run, round=action.round, code=err.code, exc_info=err)
            self._progress(action, RoundStage.FAILED)
            codes = (BRAKE_ON,) if self._core.brake.is_on else codes_of(err)
            self._core.border.refuse_round(action.run, action.round, directive.number, codes)
        else:
            self._progress(action, RoundStage.DONE)

    async def end_run(self, run: RunId) -> None:
        """The run is over: its trainer rests; forget its arrays and unsent updates. Another run goes on untouched."""
        if self._warm_for in (run, None):
            self._warm_for = None
            await self._supervisor.rest()
        await self._arrays.clear(run)
        await asyncio.to_thread(self._outgoing.drop_run, run)

    def brake(self) -> None:
        self._supervisor.brake()

    # rules 1 and 2 ------------------------------------------------------------------------------------------------

    async def _believed(self, action: Round) -> Assignment:
        if self._core.brake.is_on:
            raise PolicyDenied("the brake is on", codes=[BRAKE_ON])
        nation, now = self._core.nation, self._core.clock.now()
        return await asyncio.to_thread(assignments.believed, action, nation, self._shelf, self._minimums, now)

    async def _job(self, directive: Directive, action: Round) -> _Job:
        assignment = await self._believed(action)
        dataset = self._planned_dataset(assignment.plan, assignment.base)
        assignments.take_up(self._core.journal, action, assignment)
        return _Job(directive, action, assignment, dataset)

    def _planned_dataset(self, plan: RunPlan, base: Manifest) -> Dataset:
        """The dataset whose ask this nation answered when the run was planned."""
        nation = self._core.nation.code
        planned = plan.decisions[nation].ask_digest
        for dataset in catalogue.datasets(self._core.journal):
            if asks.dataset_use(nation, base, _undertaking(plan), dataset.name).digest == planned:
                return dataset
        raise PreconditionFailed("the plan is not about a dataset of this nation", code="ASK_MISMATCH")

    async def _dataset_use(self, job: _Job) -> Decision:
        ask = asks.dataset_use(self._core.nation.code, job.base, _undertaking(job.plan), job.dataset.name)
        observed = Observed(round=ObservedRound(participants=len(job.plan.cohort)))
        decision = await self._decisions.decide(ask, observed)
        decision.require_allow()
        return decision

    # the work -----------------------------------------------------------------------------------------------------

    async def _work(self, job: _Job) -> None:
        use = await self._dataset_use(job)
        if not job.assignment.is_training:
            await self._send_result(job, *await self._evaluated(job), use)
            return
        update = await asyncio.to_thread(
            self._outgoing.kept, job.plan.run, job.action.round, job.plan_digest, job.action.arrays_digest
        )
        if update is None:
            update = await self._trained(job)
        await self._send_update(job, update)
        await asyncio.to_thread(self._outgoing.drop, job.plan.run, job.action.round)

    async def _trained(self, job: _Job) -> Outgoing:
        plan, action = job.plan, job.action
        async with self._computing:  # rule 5
            arrays = await self._pulled(job)
            self._progress(action, RoundStage.WAITING_FOR_SLOT)
            with_layers = await self._prepared(job)
            self._progress(action, RoundStage.TRAINING, 0, plan.recipe.steps)
            mu = plan.parameters.get("proximal_mu_micro", 0)
            order = TrainOrder(plan.recipe, action.round, plan.ordinal(self._core.nation.code), mu)
            result = await self._supervisor.train(order, arrays, timeout_seconds=action.deadline_seconds)
        self._progress(action, RoundStage.TRAINING, plan.recipe.steps, plan.recipe.steps)
        spec = plan.update_spec(action.round, action.arrays_digest)
        clipped = await asyncio.to_thread(clipped_update, result, spec, self._core.nation.code)
        return await asyncio.to_thread(
            self._outgoing.keep,
            plan.run,
            action.round,
            plan=job.plan_digest,
            header=clipped.header,
            metrics=canonical(result.metrics),
            sandbox=with_layers,
            chunks=_chunks(clipped),
        )

    async def _evaluated(self, job: _Job) -> tuple[bytes, tuple[str, ...]]:
        """Canonical metrics, and the layers in which they were measured."""
        async with self._computing:
            arrays = await self._pulled(job)
            self._progress(job.action, RoundStage.WAITING_FOR_SLOT)
            layers = await self._prepared(job)
            self._progress(job.action, RoundStage.EVALUATING)
            result = await self._supervisor.evaluate(
                job.plan.recipe, arrays, timeout_seconds=job.action.deadline_seconds
            )
        return canonical(result.metrics), layers

    async def _prepared(self, job: _Job) -> tuple[str, ...]:
        if self._core.brake.is_on:
            raise PolicyDenied("the brake is on", codes=[BRAKE_ON])
        self._warm_for = job.plan.run
        base = self._shelf.files(job.plan.model_digest)
        report = await self._supervisor.prepare(
            base,
            job.dataset.text,
            job.plan.recipe.precision,
            slot_timeout_seconds=job.action.deadline_seconds,  # others of this machine may train before us
        )
        return tuple(report.layers)

    async def _pulled(self, job: _Job) -> Arrays:
        self._progress(job.action, RoundStage.PULLING)
        try:
            return await self._arrays.pulled(job.plan.run, job.assignment.arrays, self._core.border)
        except Unavailable as err:
            raise _Away from err

    # what leaves --------------------------------------------------------------------------------------------------

    async def _send_update(self, job: _Job, update: Outgoing) -> None:
        """Rule 4: decide on what lies there, then receipt and bytes by the border."""
        nation, action, plan = self._core.nation, job.action, job.plan
        metrics = parse_object(update.metrics, max_bytes=_MAX_METRICS_BYTES)
        observed = egress_observed(
            update.header,
            list(metrics),
            update.size_bytes,
            len(plan.cohort),
            destination_observed(nation.charter(), plan.destination),
        )
        ask = asks.egress_update(nation.code, job.base, _undertaking(plan), job.dataset.name)
        decision = await self._decisions.decide(ask, observed)
        decision.require_allow()
        self._progress(action, RoundStage.SENDING)
        receipt = self._receipt(job, decision, update.sandbox, update.metrics, update.size_bytes, update)
        opening = UpdateOpening(
            run=plan.run,
            round=action.round,
            number=job.directive.number,
            header=update.header.encoded,
            metrics=update.metrics,
            trace_id=job.directive.trace_id,
        )
        try:
            await self._core.border.send_update(opening, receipt, permit(decision), update.chunks())
        except Unavailable as err:
            raise _Away from err

    async def _send_result(self, job: _Job, metrics: bytes, layers: tuple[str, ...], use: Decision) -> None:
        self._progress(job.action, RoundStage.SENDING)
        receipt = self._receipt(job, use, layers, metrics, len(metrics), None)
        try:
            await self._core.border.send_result(
                job.plan.run, job.action.round, job.directive.number, metrics, receipt, permit(use)
            )
        except Unavailable as err:
            raise _Away from err

    def _receipt(
        self,
        job: _Job,
        decision: Decision,
        layers: tuple[str, ...],
        metrics: bytes,
        size_bytes: int,
        update: Outgoing | None,
    ) -> Receipt:
        nation, values = self._core.nation, parse_object(metrics, max_bytes=_MAX_METRICS_BYTES)
        integers = {name: value for name, value in values.items() if isinstance(value, int)}
        return Receipt(
            nation=nation.code,
            agent=nation.agent_id.name,
            crossing=Crossing.UPDATE if update is not None else Crossing.EVALUATION,
            digest=update.header.digest if update is not None else digest_of(metrics),
            shape_digest=shape_digest(update.header.tensors if update is not None else (), integers),
            size_bytes=size_bytes,
            destination=job.plan.destination,
            run=job.plan.run,
            round=job.action.round,
            examples=update.header.examples if update is not None else 0,
            decision_digest=decision.digest,
            ask_digest=decision.ask_digest,
            clip_norm_micro=job.plan.clip_norm_micro if update is not None else 0,
            sandbox=layers,
            trace_id=job.directive.trace_id,
            issued_at=self._core.clock.now(),
        )

    def _progress(self, action: Round, stage: RoundStage, done: int = 0, total: int = 0) -> None:
        self._core.reports.progress(ProgressReport(action.run, action.round, stage, done, total))


class _Away(Exception):
    """The coordinator did not answer; what is silent here, a slot or the trainer, is a refusal."""


def _undertaking(plan: RunPlan) -> Undertaking:
    nations = sorted([*plan.cohort, *plan.refused])
    return Undertaking(plan.run, plan.purpose, nations, plan.destination, plan.host)


def _chunks(clipped: ClippedUpdate) -> Iterator[bytes]:
    return (chunk_bytes(chunk) for chunk in clipped.chunks)
