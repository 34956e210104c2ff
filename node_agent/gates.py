"""Does a candidate version stay? It is prompted and measured before it takes anybody's place.

1. health: each prompt gets a completion that is not empty;
2. evaluation: the loss on the nation's held-out pairs of a dataset with the gate's purpose is not worse than that of
   what is served now, or of the fallback where nothing is, by more than the gate allows.

Which gates there are is the coordinator's choice; a person who is asked for consent sees them. Each batch of prompts is
a use of a model: `infer.purpose` is decided before it. Prompts, texts and losses stay in the nation; what crosses is
the verdict, by codes. A gate that cannot be applied is a gate that failed.

Codes: GATE_HEALTH, GATE_WORSE, GATE_NO_DATASET, GATE_UNUSABLE, and those of the policies.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Final

from node_agent import catalogue
from node_agent.decisions import Decisions
from node_agent.directives import Deploy
from node_agent.ports import Core
from node_agent.runtime.local import Serving
from node_agent.service import Service
from node_agent.shelf import Shelf
from node_agent.training.pairs import Languages, Pair, read_pairs, split
from treaty.errors import FoedusError, InvalidInput, PolicyDenied, PreconditionFailed
from treaty.manifest import Manifest
from treaty.names import Digest
from treaty.policy import asks
from treaty.policy.questions import Observed
from treaty.recipe import Evaluation

HEALTH_SECONDS: Final = 120.0
EVALUATION_SECONDS: Final = 600.0
_SMALL = 4
"""A dataset too small for the usual held-out pairs holds out a quarter."""


@dataclass(frozen=True, slots=True)
class Losses:
    """Held-out loss in micro-nats per token; 0 where nothing was measured."""

    before: int = 0
    after: int = 0


@dataclass(frozen=True, slots=True)
class _Heldout:
    evaluation: Evaluation
    pairs: tuple[Pair, ...]
    languages: Languages


class Gates:
    def __init__(self, core: Core, decisions: Decisions, service: Service, shelf: Shelf) -> None:
        self._core = core
        self._decisions = decisions
        self._service = service
        self._shelf = shelf

    async def health(self, action: Deploy, candidate: Serving) -> None:
        """Raises: PolicyDenied; PreconditionFailed (GATE_HEALTH)."""
        if not action.gates.health_prompts:
            return
        await self._may_prompt(candidate.version.digest, action.rollout, action.purpose)
        for prompt in action.gates.health_prompts:
            try:
                text = await candidate.health(prompt, timeout_seconds=HEALTH_SECONDS)
            except FoedusError as err:
                raise PreconditionFailed("the candidate did not answer a health prompt", code="GATE_HEALTH") from err
            if not text.strip():
                raise PreconditionFailed("the candidate completes a health prompt with nothing", code="GATE_HEALTH")

    async def evaluation(self, action: Deploy, candidate: Serving) -> Losses:
        """Raises: PolicyDenied; PreconditionFailed with one of this file's codes. The losses are in `GateWorse`."""
        purpose = action.gates.evaluation_purpose
        if purpose is None:
            return Losses()
        heldout = await self._heldout(purpose)
        before = await self._before(action, purpose, heldout)
        after = await self._loss(candidate, action.rollout, purpose, heldout)
        if before and after * 10**6 > before * (10**6 + action.gates.max_worse_ppm):
            raise GateWorse(Losses(before, after))
        return Losses(before, after)

    async def _before(self, action: Deploy, purpose: str, heldout: _Heldout) -> int:
        """The loss of what is served, or of the fallback; 0 where there is neither."""
        live = self._service.live
        if live is not None and live.version.digest != action.manifest_digest:
            return await self._loss(live, action.rollout, purpose, heldout)
        if action.fallback is None or not self._shelf.has(action.fallback):
            return 0
        fallback = await self._service.stage(action.fallback)
        try:
            return await self._loss(fallback, action.rollout, purpose, heldout)
        finally:
            await asyncio.shield(fallback.stop())

    async def _loss(self, serving: Serving, rollout: str, purpose: str, heldout: _Heldout) -> int:
        await self._may_prompt(serving.version.digest, rollout, purpose)
        try:
            result = await serving.evaluate(
                heldout.evaluation, heldout.pairs, heldout.languages, timeout_seconds=EVALUATION_SECONDS
            )
        except FoedusError as err:
            raise PreconditionFailed("a version could not be measured", code="GATE_UNUSABLE") from err
        return result.metrics["heldout_loss_micro"]

    async def _may_prompt(self, version: Digest, rollout: str, purpose: str) -> None:
        manifest: Manifest = await asyncio.to_thread(self._shelf.manifest, version)
        ask = asks.infer_purpose(self._core.nation.code, manifest, rollout, purpose)
        decision = await self._decisions.decide(ask, Observed(subject=self._decisions.principal()))
        decision.require_allow()

    async def _heldout(self, purpose: str) -> _Heldout:
        dataset = catalogue.for_purpose(self._core.journal, purpose)
        if dataset is None:
            raise PreconditionFailed(f"no dataset here may be used for {purpose}", code="GATE_NO_DATASET")
        try:
            pairs = await asyncio.to_thread(read_pairs, dataset.text.path)
            usual = Evaluation()
            count = usual.heldout_pairs if len(pairs) > usual.heldout_pairs else max(1, len(pairs) // _SMALL)
            return _Heldout(Evaluation(heldout_pairs=count), split(pairs, count).heldout, dataset.text.languages)
        except (OSError, InvalidInput, PreconditionFailed) as err:
            raise PreconditionFailed("the gate's dataset cannot be read", code="GATE_NO_DATASET") from err


class GateWorse(PreconditionFailed):
    """The candidate is worse than the gate allows."""

    code = "GATE_WORSE"

    def __init__(self, losses: Losses) -> None:
        super().__init__("the candidate's held-out loss is worse than the gate allows")
        self.losses = losses


def codes_of(err: FoedusError) -> tuple[str, ...]:
    """What may be said of an error: the policies' codes, or its own."""
    return err.codes if isinstance(err, PolicyDenied) and err.codes else (err.code,)
