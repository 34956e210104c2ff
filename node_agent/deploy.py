"""Brings a version into service here, step by step, and takes it back out when it does not hold.

    believe ─► model.admit ─► rollout.deploy ─► consent (policy's or a person's) ─► recorded ─► pull
            ─► start a candidate, which observes its own digest ─► health ─► evaluation ─► serve
                                                     a gate fails, or an abort ─► fallback, number left

Rules:
1. before the nation's consent is recorded nothing is pulled; a no at any step before is REFUSED, which is no failure;
2. the policy is asked twice: whether the nation may consent (its own signature assumed), and, once the consent is
   there and verified, whether the version may come in; only the second lets it;
3. where only a person's approval is missing, the deployment waits for one, level-triggered, as long as it takes;
4. after consent a failure is FAILED, and then the fallback named in that consent is what is served, and no other:
   RETURNED; the number is journaled as left and never taken again;
5. each step can be repeated: after a restart the deployment runs again from the start and finds what is done;
6. a consent is spent with the rollout that failed or was aborted, and that rollout never brings the same version again.

The coordinator's silence (`Unavailable`) is not judged here: the caller starts the deployment again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Final

import structlog

from node_agent import admission, consents
from node_agent.admission import Offered, Standing
from node_agent.decisions import Decisions
from node_agent.deployment import NOT_MEASURED, Deployment, first_report, has_left, journaled, leave_version
from node_agent.directives import AbortRollout, Deploy, Directive
from node_agent.fetch import GrpcChunkSource
from node_agent.gates import Gates, GateWorse, Losses, codes_of
from node_agent.observing import approvals, model_observed
from node_agent.ports import Core, RolloutReport, RolloutState
from node_agent.pull import Progress, pull
from node_agent.runtime.local import Serving
from node_agent.service import Service
from node_agent.shelf import Shelf
from treaty.consent import Answer, VerifiedConsent
from treaty.errors import FoedusError, PolicyDenied, PreconditionFailed, Unavailable
from treaty.names import Digest
from treaty.policy import asks
from treaty.policy.answer import Verdict
from treaty.policy.decision import Decision
from treaty.policy.questions import Observed

log = structlog.get_logger(__name__)

REFUSED_BY_PERSON: Final = "CONSENT_REFUSED"
NO_FALLBACK: Final = "FALLBACK_NOT_HERE"
ABORTED: Final = "ABORTED"
LATE: Final = "DEADLINE_EXCEEDED"
VERSION_LEFT: Final = "VERSION_LEFT"


class _Failed(Exception):
    def __init__(self, codes: Sequence[str], losses: Losses = NOT_MEASURED) -> None:
        super().__init__()
        self.codes = tuple(codes)
        self.losses = losses


class Deployer:
    def __init__(self, core: Core, decisions: Decisions, service: Service, gates: Gates, shelf: Shelf) -> None:
        self._core = core
        self._decisions = decisions
        self._service = service
        self._gates = gates
        self._shelf = shelf

    async def admit(self, directive: Directive, action: Deploy) -> None:
        """What can be said at once; a refusal is reported too, so that a rollout shows it. Raises: FoedusError."""
        try:
            offered = await asyncio.to_thread(admission.believed, action, self._core.nation)
            self._check(offered, action)
        except FoedusError as err:
            refused = first_report(directive.number, action, self._core.clock.now())
            self._core.reports.rollout(replace(refused, state=RolloutState.REFUSED, codes=codes_of(err)))
            raise

    async def deploy(self, directive: Directive, action: Deploy) -> None:
        """Carry a deployment as far as it goes; every outcome is a report. Idempotent by number.

        Raises: Unavailable: the coordinator is away; call again.
        """
        offered = await asyncio.to_thread(admission.believed, action, self._core.nation)
        deployment = Deployment(self._core, directive.number, action, offered)
        wanted = self._service.wanted
        if wanted is not None and (wanted.number, wanted.digest) == (str(directive.number), action.manifest_digest):
            deployment.say(RolloutState.SERVING)
            return
        try:
            consent = await self._consented(deployment)
            await self._bring_in(deployment, consent)
        except _Failed as failed:
            await self._go_back(deployment, failed)
        except Unavailable:
            raise
        except FoedusError as err:
            log.warning("rollout refused", rollout=action.rollout, code=err.code, exc_info=err)
            deployment.say(RolloutState.REFUSED, codes_of(err))
        finally:
            deployment.waits("")

    async def abort(self, action: AbortRollout) -> None:
        """Go back to the fallback that the nation consented to, if this rollout's version is in service; else stay."""
        self._core.journal.leave(action.deploy_number, (ABORTED,))
        consents.forget(self._core.journal, action.rollout)
        begun = journaled(self._core.journal, action.rollout)
        if begun is None or begun.number != str(action.deploy_number):
            return
        leave_version(self._core.journal, action.rollout, begun.manifest_digest)
        wanted = self._service.wanted
        if wanted is not None and (wanted.digest, wanted.number) == (begun.manifest_digest, begun.number):
            await self._service.return_to(begun.fallback, action.rollout, action.deploy_number)
        self._core.reports.rollout(
            RolloutReport(
                rollout=action.rollout,
                number=action.deploy_number,
                state=RolloutState.RETURNED,
                manifest_digest=begun.manifest_digest,
                since=self._core.clock.now(),
                codes=(ABORTED,),
            )
        )

    # consent ------------------------------------------------------------------------------------------------------

    async def _consented(self, deployment: Deployment) -> VerifiedConsent:
        """Decide, obtain the nation's consent and have it recorded. Raises: PolicyDenied, what the record refuses."""
        action, offered = deployment.action, deployment.offered
        self._check(offered, action)
        for manifest in offered.all:
            self._decisions.learn(manifest)
        nation, version = self._core.nation.code, offered.version
        admit = asks.model_admit(nation, version, action.rollout, action.purpose)
        (await self._decisions.decide(admit, self._observed(deployment, None, is_consented=False))).require_allow()
        deployment.write()
        recorded: Digest | None = None
        while (consent := await self._answer(deployment)).digest != recorded:  # it may end while it is being recorded
            await self._core.border.submit(consent.envelope)
            recorded = consent.digest
        consents.withdraw(self._core.journal, action.rollout)
        if consent.consent.answer is Answer.NO:
            raise PolicyDenied("a person refused this rollout", codes=[REFUSED_BY_PERSON])
        self._check(offered, action)  # days may have passed
        decision = await self._may_deploy(deployment, consent)
        decision.require_allow()
        return consent

    async def _answer(self, deployment: Deployment) -> VerifiedConsent:
        """The nation's answer: one that is there, the policy's, or a person's, for which it waits (rule 3)."""
        journal = self._core.journal
        revisions: tuple[int, ...] | None = None
        while True:
            generation = journal.generation
            if (consent := self._given(deployment)) is not None:
                deployment.waits("")
                return consent
            if revisions != self._decisions.revisions:
                revisions = self._decisions.revisions
                decision = await self._may_deploy(deployment, None)
                if decision.verdict is not Verdict.NEEDS_APPROVAL:
                    await self._policy_answers(deployment, decision)
                    continue
                consents.ask(journal, replace(deployment.request, codes=decision.codes))
                deployment.say(RolloutState.AWAITING_CONSENT, decision.codes)
                deployment.waits(f"waits for a person: foedus-agent {deployment.request.command()}")
                continue
            await journal.changed(generation)

    async def _policy_answers(self, deployment: Deployment, decision: Decision) -> None:
        """Sign and keep the policy's yes; a no is signed and recorded, and raised. Raises: PolicyDenied."""
        nation, now = self._core.nation, self._core.clock.now()
        answer = Answer.YES if decision.is_allowed else Answer.NO
        envelope = consents.by_policy(deployment.request, nation, answer, decision.digest, now)
        if answer is Answer.YES:
            consents.keep(self._core.journal, deployment.request, envelope)
            return
        deployment.say(RolloutState.REFUSED, decision.codes)
        await self._core.border.submit(envelope)
        decision.require_allow()

    def _given(self, deployment: Deployment) -> VerifiedConsent | None:
        nation = self._core.nation
        now = self._core.clock.now()
        return consents.given(self._core.journal, nation.code, deployment.request, nation.delegations(), now)

    async def _may_deploy(self, deployment: Deployment, consent: VerifiedConsent | None) -> Decision:
        action = deployment.action
        ask = asks.rollout_deploy(self._core.nation.code, deployment.offered.version, action.rollout, action.purpose)
        return await self._decisions.decide(ask, self._observed(deployment, consent, is_consented=True))

    def _observed(self, deployment: Deployment, consent: VerifiedConsent | None, *, is_consented: bool) -> Observed:
        running, offered = self._service.running, deployment.offered.version
        is_same_model = running is not None and running.about.name == offered.about.name
        wanted = self._service.wanted
        is_fallback = wanted is not None and wanted.fallback == offered.digest
        model = model_observed(
            self._core.nation.code,
            is_signed=True,
            is_consented=is_consented,
            running=running.about.version if running is not None and is_same_model else None,
            fallback=offered.about.version if is_fallback else None,
        )
        return Observed(model=model, approvals=approvals(consent), env=self._decisions.environment())

    # the version itself -------------------------------------------------------------------------------------------

    async def _bring_in(self, deployment: Deployment, consent: VerifiedConsent) -> None:
        """Pull, start, gate, serve. Raises: _Failed; Unavailable from the pull, until the deadline has passed."""
        action = deployment.action
        left = (deployment.begun() + timedelta(seconds=action.deadline_seconds)) - self._core.clock.now()
        try:
            async with asyncio.timeout(max(0.0, left.total_seconds())):
                await self._pull(deployment)
                await self._gate_and_serve(deployment, consent)
        except TimeoutError:
            raise _Failed([LATE]) from None

    async def _pull(self, deployment: Deployment) -> None:
        total = sum(sum(manifest.chunk_bytes.values()) for manifest in deployment.offered.all)
        before = 0
        source = GrpcChunkSource(self._core.border.fetch_calls())
        for manifest in deployment.offered.all:
            if not self._shelf.has(manifest.digest):
                deployment.say(RolloutState.PULLING, pulled=before, total=total)

                def told(progress: Progress, done: int = before) -> None:
                    deployment.tell_bytes(done + progress.done_bytes, total)

                try:
                    await pull(manifest, source, self._shelf, progress=told)
                except Unavailable:
                    raise
                except FoedusError as err:
                    raise _Failed(codes_of(err)) from err
            before += sum(manifest.chunk_bytes.values())
        self._core.reports.held(self._shelf.versions())

    async def _gate_and_serve(self, deployment: Deployment, consent: VerifiedConsent) -> None:
        action = deployment.action
        deployment.say(RolloutState.STARTING)
        try:
            candidate = await self._service.stage(action.manifest_digest)
        except FoedusError as err:
            raise _Failed(codes_of(err)) from err
        try:
            losses = await self._gated(deployment, candidate)
            await self._promoted(deployment, candidate, consent)
        except BaseException:
            await asyncio.shield(candidate.stop())
            raise
        deployment.say(RolloutState.SERVING, losses=losses)

    async def _promoted(self, deployment: Deployment, candidate: Serving, consent: VerifiedConsent) -> None:
        fallback = consent.consent.fallback
        try:
            await self._service.promote(candidate, deployment.action.rollout, deployment.number, fallback)
        except FoedusError as err:
            raise _Failed(codes_of(err)) from err

    async def _gated(self, deployment: Deployment, candidate: Serving) -> Losses:
        deployment.say(RolloutState.EVALUATING)
        try:
            await self._gates.health(deployment.action, candidate)
            return await self._gates.evaluation(deployment.action, candidate)
        except GateWorse as err:
            raise _Failed(codes_of(err), err.losses) from err
        except FoedusError as err:
            raise _Failed(codes_of(err)) from err

    async def _go_back(self, deployment: Deployment, failed: _Failed) -> None:
        """Rule 4. A candidate that never took the place of what is served changes nothing; else the fallback starts."""
        action = deployment.action
        log.warning("rollout failed", rollout=action.rollout, codes=failed.codes, exc_info=failed.__cause__)
        deployment.say(RolloutState.FAILED, failed.codes, losses=failed.losses)
        self._core.journal.leave(deployment.number, failed.codes)
        leave_version(self._core.journal, action.rollout, action.manifest_digest)
        consents.forget(self._core.journal, action.rollout)
        wanted = self._service.wanted
        is_wanted = wanted is not None and wanted.number == str(deployment.number)
        try:
            if is_wanted or (wanted is None and action.fallback is not None):
                await self._service.return_to(action.fallback, action.rollout, deployment.number)
        except FoedusError as err:
            log.error("the fallback does not start", rollout=action.rollout, code=err.code, exc_info=err)
            return
        deployment.say(RolloutState.RETURNED, failed.codes, losses=failed.losses)

    # bookkeeping --------------------------------------------------------------------------------------------------

    def _check(self, offered: Offered, action: Deploy) -> None:
        """What holds of a rollout whoever consents to it. Raises: Expired, RollbackRefused, PreconditionFailed."""
        admission.require_current(self._core.nation.charter(), self._core.clock.now())
        if has_left(self._core.journal, action.rollout, action.manifest_digest):
            raise PreconditionFailed("this rollout took this version out again here", code=VERSION_LEFT)
        wanted, running = self._service.wanted, self._service.running
        fallback = wanted.fallback if wanted else None
        newest = self._service.newest(offered.version.about.name)
        admission.check_age(offered.version, Standing(running, fallback, newest))
        admission.check_fallback(action.fallback, wanted.digest if wanted else None, fallback)
        if action.fallback is not None and not self._shelf.has(action.fallback):
            # A fallback that is not here could not be returned to.
            raise PreconditionFailed("the rollout's fallback is not on the shelf", code=NO_FALLBACK)
