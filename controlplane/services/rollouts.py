"""Rollouts: what the planner decided, carried out; what an operator said, written into the intent.

Level-triggered, with one writer: events and verbs only wake `run`, which re-reads intent and inventory, plans, carries
the steps out and stores the status. A step is journaled by the fleet before the status says so, and directing the same
content twice is directing it once, so a coordinator killed anywhere in between loses nothing but time.

Rules:
1. only a Ready version is rolled out, and only to nations that its label is releasable to;
2. a fallback is a version, too: it must be Ready;
3. consents and refusals are the nations' and arrive as signed statements; what they mean is in `domain.rollout`;
4. every step that moves a nation is recorded as a signed statement before the agent hears of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta

import structlog

from controlplane.domain import rollout as planner
from controlplane.domain.agents import AgentStatus
from controlplane.domain.directives import AbortRollout, Deploy, DeployGates
from controlplane.domain.rollout import DirectAbort, DirectDeploy, NationView, Step
from controlplane.services.fleet import AGENT_AHEAD
from controlplane.services.listeners import SilentListener
from controlplane.services.models import Models
from controlplane.services.ports import NO_TRACE, TRACE_ANNOTATION, Clock, Fleet, Record, RolloutVerb
from controlplane.services.trust import Trust
from controlplane.store import Store
from treaty import names, statement
from treaty.errors import FoedusError, PreconditionFailed
from treaty.fields import timestamp_text
from treaty.keys import SigningKey
from treaty.manifest import Manifest
from treaty.names import AgentId, Digest, DirectiveNumber, PartyCode
from treaty.resources.meta import AnyResource, Resource
from treaty.resources.nations import FREEZE_WINDOW
from treaty.resources.rollouts import ROLLOUT, NationProgress, RolloutSpec, RolloutStatus
from treaty.statement import Statement, StatementKind

log = structlog.get_logger(__name__)

Rollout = Resource[RolloutSpec, RolloutStatus]
DEPLOY_PURPOSE = "treaty-operation"
TICK = timedelta(seconds=1)
"""Soak times, deadlines and freeze windows end without an event; nobody waits for them much longer than this."""


class Rollouts(SilentListener):
    """Verbs, and the reconciler that the process calls on events and on every tick."""

    def __init__(
        self, store: Store, fleet: Fleet, models: Models, trust: Trust, record: Record, key: SigningKey, clock: Clock
    ) -> None:
        self._store = store
        self._fleet = fleet
        self._models = models
        self._trust = trust
        self._record = record
        self._key = key
        self._clock = clock
        self._wake = asyncio.Event()

    async def admit(self, spec: RolloutSpec) -> None:
        """Refuse an intent that could never be carried out, before it is stored (rules 1 and 2).

        Raises: NotFound: no such version. PreconditionFailed: a draft, or not releasable to a nation.
        IdentityRefused: not a party.
        """
        manifest = await self._models.ready(spec.manifest_digest)
        if spec.fallback_digest is not None:
            await self._models.ready(spec.fallback_digest)
        members = {code: body.members for code, body in self._trust.charter.bodies.items()}
        for nation in (PartyCode(nation) for wave in spec.waves for nation in wave.nations):
            self._trust.charter.nation(nation)
            if not manifest.about.label.is_releasable_to(nation, members):
                raise PreconditionFailed(
                    f"{manifest.ref} is not releasable to {nation}",
                    remedy=f"REL TO is {', '.join(manifest.about.label.rel_to) or 'nobody'}; leave {nation} out",
                )

    async def control(self, name: str, verb: RolloutVerb, reason: str) -> AnyResource:
        """Write an operator's word into the intent. `reason` is the wave's name for `approve-wave`.

        Raises: NotFound. PreconditionFailed: the rollout has ended.
        """
        rollout = await self._store.resources.get(ROLLOUT, name)
        if planner.is_finished(rollout.status):
            raise PreconditionFailed(f"rollout {name} has ended", remedy="create a new one")
        spec = rollout.spec
        match verb:
            case RolloutVerb.PAUSE:
                spec = replace(spec, paused=True)
            case RolloutVerb.RESUME:
                spec = replace(spec, paused=False)
            case RolloutVerb.ABORT:
                spec = replace(spec, aborted=True)
            case RolloutVerb.APPROVE_WAVE:
                spec = replace(spec, approved_waves=(*(w for w in spec.approved_waves if w != reason), reason))
        updated = await self._store.resources.update(replace(rollout, spec=spec))
        self._wake.set()
        return updated

    async def run(self) -> None:
        """The one writer of rollouts' status: reconcile when something happened, and on every tick. Never returns."""
        while True:
            self._wake.clear()
            try:
                await self.reconcile()
            except FoedusError as err:
                log.warning("rollouts not looked at", code=err.code, exc_info=err)
            with suppress(TimeoutError):
                async with asyncio.timeout(TICK.total_seconds()):
                    await self._wake.wait()

    def wake(self) -> None:
        """Something may have changed: look soon."""
        self._wake.set()

    async def reconcile(self) -> None:
        """Bring every rollout one step further. One that cannot go on now does not hold up the others."""
        for rollout in await self._store.resources.all(ROLLOUT):
            try:
                await self._reconcile_one(rollout)
            except FoedusError as err:
                log.warning("rollout not reconciled", rollout=rollout.name, code=err.code, exc_info=err)

    async def _reconcile_one(self, rollout: Rollout) -> None:
        views = await self._views(rollout)
        planned = planner.plan(rollout.spec, rollout.status, views, self._clock())
        numbers: dict[PartyCode, DirectiveNumber] = {}
        for step in planned.steps:
            try:
                numbers[step.nation] = await self._carry_out(rollout, step)
            except PreconditionFailed as err:
                if err.code != AGENT_AHEAD:
                    raise
                # It halts nobody but itself; its progress stays, and the next look tries again.
                log.warning("agent not directed", rollout=rollout.name, nation=step.nation, code=err.code)
        status = _numbered(rollout.status, planned.status, planned.steps, numbers)
        status = replace(status, observed_generation=rollout.metadata.generation)
        if status != rollout.status:
            await self._store.resources.update_status(replace(rollout, status=status))
        await self._settle_ended(rollout, status)

    async def _views(self, rollout: Rollout) -> Mapping[PartyCode, NationView]:
        connected = self._fleet.connected()
        frozen = await self._frozen(self._clock())
        views = {}
        directed = {entry.nation: entry.agent for entry in rollout.status.nations}
        for nation in (PartyCode(nation) for wave in rollout.spec.waves for nation in wave.nations):
            # Numbers are per agent: a nation that was directed is looked at through the agent that has its number.
            was = directed.get(nation)
            agent = names.spiffe_id(was, self._trust.charter.domain) if was else self._fleet.agent_of(nation)
            status = self._fleet.status(agent) if agent is not None else None
            report = next((r for r in status.rollouts if r.rollout == rollout.name), None) if status else None
            serving = status.serving_digest if status else None
            views[nation] = NationView(agent, agent in connected.values(), report, serving, frozen.get(nation, ""))
        return views

    async def _frozen(self, now: datetime) -> Mapping[PartyCode, str]:
        """Nations in a freeze window `[starts, ends)` now, each with the window's name."""
        frozen = {}
        for window in await self._store.resources.all(FREEZE_WINDOW):
            if window.spec.starts_at <= now and (window.spec.ends_at is None or now < window.spec.ends_at):
                frozen.update({PartyCode(nation): window.name for nation in window.spec.nations})
        return frozen

    async def _carry_out(self, rollout: Rollout, step: Step) -> DirectiveNumber:
        trace_id = rollout.metadata.annotations.get(TRACE_ANNOTATION, NO_TRACE)
        match step:
            case DirectDeploy(agent=agent):
                action: Deploy | AbortRollout = await self._deploy(rollout)
                await self._record_step(rollout, step.nation, "deploy", trace_id)
            case DirectAbort(agent=agent, deploy_number=number):
                action = AbortRollout(rollout.name, number)
                await self._record_step(rollout, step.nation, "abort", trace_id)
        return await self._fleet.direct(agent, action, trace_id)

    async def _deploy(self, rollout: Rollout) -> Deploy:
        spec = rollout.spec
        manifest = await self._models.ready(spec.manifest_digest)
        gates = DeployGates(
            health_prompts=spec.gates.health.prompts if spec.gates.health else (),
            evaluation_purpose=spec.gates.evaluation.purpose if spec.gates.evaluation else "",
            max_worse_ppm=spec.gates.evaluation.max_worse_ppm if spec.gates.evaluation else 0,
        )
        return Deploy(
            rollout=rollout.name,
            manifest_digest=spec.manifest_digest,
            manifests=tuple([await self._models.manifest(d) for d in _manifests_needed(manifest)]),
            fallback_digest=spec.fallback_digest,
            deadline_seconds=spec.deadline_seconds,
            gates=gates,
            purpose=DEPLOY_PURPOSE,
        )

    async def _record_step(self, rollout: Rollout, nation: PartyCode, verb: str, trace_id: str) -> None:
        """Rule 4. The same step recorded again is the same statement: it holds no time but the rollout's own."""
        created = rollout.metadata.creation_timestamp or self._clock()
        step = Statement(
            StatementKind.ROLLOUT_STEP,
            f"{rollout.name}/{nation}",
            rollout.spec.manifest_digest,
            {
                "rollout": rollout.name,
                "uid": rollout.metadata.uid,
                "nation": nation,
                "step": verb,
                "created_at": timestamp_text(created),
                "trace_id": trace_id,
            },
        )
        await self._record.append(statement.sign(step, [self._key]))

    async def _settle_ended(self, rollout: Rollout, status: RolloutStatus) -> None:
        """Close the directives of nations that have ended, so that nothing is resent and no pull stays granted."""
        for entry in status.nations:
            if entry.state in ("Refused", "Returned") and entry.agent and entry.directive_number is not None:
                agent = names.spiffe_id(entry.agent, self._trust.charter.domain)
                await self._fleet.settle(agent, entry.directive_number)

    # What the fleet tells: everything is found again by re-reading, so an event only says "look now".

    async def connected(self, agent: AgentId) -> None:
        self._wake.set()

    async def disconnected(self, agent: AgentId) -> None:
        self._wake.set()

    async def acknowledged(self, agent: AgentId, number: DirectiveNumber, codes: Sequence[str]) -> None:
        self._wake.set()

    async def status(self, agent: AgentId, status: AgentStatus) -> None:
        self._wake.set()


def _manifests_needed(manifest: Manifest) -> Sequence[Digest]:
    """The version's own manifest first, then its base's if it has one."""
    return [manifest.digest, *([manifest.about.base] if manifest.about.base else [])]


def _numbered(
    before: RolloutStatus, status: RolloutStatus, steps: Sequence[Step], numbers: Mapping[PartyCode, DirectiveNumber]
) -> RolloutStatus:
    """Write the numbers of new deployments into the nations' progress; an abort keeps the number that it ends.

    A step without a number was not carried out: that nation's progress stays as it was `before`.
    """
    deployed = {step.nation for step in steps if isinstance(step, DirectDeploy)}
    undone = {step.nation for step in steps} - set(numbers)
    former = {PartyCode(entry.nation): entry for entry in before.nations}

    def numbered(entry: NationProgress) -> NationProgress:
        nation = PartyCode(entry.nation)
        if nation in undone:
            return former.get(nation, entry)
        return replace(entry, directive_number=numbers[nation]) if nation in deployed else entry

    return replace(status, nations=tuple(numbered(entry) for entry in status.nations))
