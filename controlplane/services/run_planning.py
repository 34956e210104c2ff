"""From an intent to a run's plan: every nation is asked, what the treaty refuses is not even asked, nothing is loaded.

Rules:
1. what cannot work for anyone is refused first: an unknown recipe or strategy, a draft as base, an adapter as base, a
   cohort too small for the strategy;
2. the treaty's preflight goes first; only its definite no counts, and it saves the question;
3. silence is no: a nation without a connected agent, or with one that does not answer in time, takes no part;
4. the plan is shown with every nation's answer, also when the quorum is missed: then it has no digest and cannot start.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from types import MappingProxyType

from controlplane.domain.agents import NationAnswer, Verdict
from controlplane.federation.strategy_spec import StrategySpec, check_cohort, strategy_spec
from controlplane.services.models import Models, base_shapes
from controlplane.services.policies import Policies
from controlplane.services.ports import Fleet
from controlplane.services.trust import Trust
from controlplane.store import Store
from treaty import names
from treaty.errors import InvalidInput, PolicyDenied, PreconditionFailed, Unavailable
from treaty.manifest import Manifest
from treaty.names import Digest, PartyCode
from treaty.plan import NationDecision, RunPlan, Task
from treaty.policy import asks
from treaty.policy.answer import Verdict as PolicyVerdict
from treaty.policy.questions import Ask
from treaty.recipe import LORA_SFT, LoraSft, adapter_shapes, parse_recipe
from treaty.resources.meta import Resource
from treaty.resources.nations import DATASET
from treaty.resources.runs import FederatedRunSpec, FederatedRunStatus
from treaty.strict_json import JsonObject, canonical
from treaty.update_layout import TensorSpec

Run = Resource[FederatedRunSpec, FederatedRunStatus]

ASK_DEADLINE = timedelta(seconds=5)
WORKER_MEMORY_BYTES = 8 * 2**30
HEADER_ALLOWANCE_BYTES = 64 * 1024
"""Header and metrics of an update on top of its values, for the estimate that an operator is shown."""
UNREACHABLE, SILENT = "AGENT_UNREACHABLE", "AGENT_SILENT"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one nation answered; `decision` is there if it takes part."""

    verdict: Verdict
    codes: tuple[str, ...]
    decision: NationDecision | None = None


@dataclass(frozen=True, slots=True)
class Planned:
    """`plan` is None where the quorum was missed; `outcomes` says why, by nation."""

    plan: RunPlan | None
    outcomes: Mapping[PartyCode, Outcome]
    quorum: int

    def to_json(self) -> JsonObject:
        nations: JsonObject = {
            nation: {
                "verdict": str(outcome.verdict),
                "codes": list(outcome.codes),
                "bytes_out_per_round": outcome.decision.bytes_out_per_round if outcome.decision else 0,
            }
            for nation, outcome in sorted(self.outcomes.items())
        }
        return {
            "plan": self.plan.to_json() if self.plan is not None else None,
            "nations": nations,
            "quorum": self.quorum,
            "is_startable": self.plan is not None,
        }

    def encoded(self) -> bytes:
        return canonical(self.to_json())

    def require_plan(self) -> RunPlan:
        """Raises: PolicyDenied: the quorum was missed; names each nation and its codes."""
        if self.plan is not None:
            return self.plan
        refused = {n: o.codes for n, o in sorted(self.outcomes.items()) if o.decision is None}
        agreeing = len(self.outcomes) - len(refused)
        told = "; ".join(f"{nation}: {', '.join(codes)}" for nation, codes in refused.items())
        raise PolicyDenied(
            f"{agreeing} of {len(self.outcomes)} nations would take part, the quorum is {self.quorum} ({told})",
            codes=sorted({code for codes in refused.values() for code in codes}),
            remedy="change the purpose, the nations or the quorum, and plan again",
        )


class RunPlanner:
    """Asks and plans. Keeps nothing."""

    def __init__(self, store: Store, fleet: Fleet, models: Models, policies: Policies, trust: Trust) -> None:
        self._store = store
        self._fleet = fleet
        self._models = models
        self._policies = policies
        self._trust = trust

    async def plan(self, run: Run) -> Planned:
        """Ask every nation and plan. Nothing is stored and nothing is loaded.

        Raises: InvalidInput, NotFound, PreconditionFailed: the intent cannot work for anyone.
        """
        spec = run.spec
        recipe, strategy = _recipe(spec), strategy_spec(spec.strategy.name, spec.strategy.parameters)  # 1
        manifest = await self._models.ready(await self._models.digest_of(spec.model))
        if manifest.about.base is not None:
            raise PreconditionFailed(
                f"{manifest.ref} is an adapter; a run trains on a version that stands alone",
                remedy="name its base, or publish a merged version",
            )
        tensors = tuple(TensorSpec(n, shape) for n, shape in adapter_shapes(recipe, base_shapes(manifest)).items())
        self._check_sizes(spec, recipe, strategy, tensors)
        undertaking = asks.Undertaking(
            run=names.run_id(run.name),
            purpose=spec.purpose,
            nations=tuple(PartyCode(nation) for nation in spec.nations),
            destination=self._trust.charter.coordinator.party,
            host=self._trust.charter.coordinator.host,
        )
        update_bytes = 0
        if Task(spec.task) is Task.TRAIN:
            update_bytes = sum(tensor.values for tensor in tensors) * 4 + HEADER_ALLOWANCE_BYTES
        answers = await asyncio.gather(
            *(self._outcome(nation, manifest, undertaking, update_bytes) for nation in undertaking.nations)
        )
        outcomes = dict(zip(undertaking.nations, answers, strict=True))
        return Planned(_plan(spec, recipe, strategy, manifest, tensors, undertaking, outcomes), outcomes, spec.quorum)

    def _check_sizes(
        self, spec: FederatedRunSpec, recipe: LoraSft, strategy: StrategySpec, tensors: tuple[TensorSpec, ...]
    ) -> None:
        for nation in spec.nations:
            self._trust.charter.nation(PartyCode(nation))
        if Task(spec.task) is Task.TRAIN:
            check_cohort(
                strategy,
                quorum=spec.quorum,
                cohort=len(spec.nations),
                values=sum(tensor.values for tensor in tensors),
                memory_bytes=WORKER_MEMORY_BYTES,
            )
            if recipe.examples > spec.max_examples:
                raise InvalidInput(
                    f"the recipe trains {recipe.examples} examples a round, maxExamples is {spec.max_examples}",
                    remedy="raise maxExamples or lower steps or batch",
                )

    async def _outcome(
        self, nation: PartyCode, manifest: Manifest, undertaking: asks.Undertaking, update_bytes: int
    ) -> Outcome:
        dataset = await self._dataset(nation, undertaking.purpose)
        ask = asks.dataset_use(nation, manifest, undertaking, dataset)
        preflight = await self._policies.preflight(ask)
        if preflight.verdict is PolicyVerdict.DENY:  # 2
            return Outcome(Verdict.DENY, preflight.codes)
        agent = self._fleet.connected().get(nation)
        if agent is None:  # 3
            return Outcome(Verdict.DENY, (UNREACHABLE,))
        try:
            answer = await self._fleet.ask(agent, canonical(ask.to_json()), ASK_DEADLINE)
        except Unavailable:
            return Outcome(Verdict.DENY, (SILENT,))
        return _judged(ask, answer, update_bytes)

    async def _dataset(self, nation: PartyCode, purpose: str) -> str | None:
        """The nation's dataset for this purpose; any of its datasets where none has it, so that it can say why not."""
        own = [d for d in await self._store.resources.all(DATASET) if d.spec.nation == nation]
        fitting = [d for d in own if purpose in d.spec.purposes] or own
        return min((d.spec.dataset_id for d in fitting), default=None)


def _judged(ask: Ask, answer: NationAnswer, update_bytes: int) -> Outcome:
    if answer.ask_digest != ask.digest:
        return Outcome(Verdict.DENY, ("ASK_MISMATCH",))
    if answer.verdict is not Verdict.ALLOW:
        return Outcome(answer.verdict, answer.codes or ("REFUSED",))
    size = max(update_bytes, answer.estimated_bytes_out)
    decision = NationDecision(answer.ask_digest, answer.decision_digest, answer.codes, size)
    return Outcome(Verdict.ALLOW, answer.codes, decision)


def _recipe(spec: FederatedRunSpec) -> LoraSft:
    """The intent's recipe; `recipe` and `seed` may be left to the run."""
    return parse_recipe({"recipe": LORA_SFT, "seed": spec.seed, **spec.recipe})


def _plan(
    spec: FederatedRunSpec,
    recipe: LoraSft,
    strategy: StrategySpec,
    manifest: Manifest,
    tensors: tuple[TensorSpec, ...],
    undertaking: asks.Undertaking,
    outcomes: Mapping[PartyCode, Outcome],
) -> RunPlan | None:
    decisions = {nation: outcome.decision for nation, outcome in outcomes.items() if outcome.decision is not None}
    if len(decisions) < spec.quorum:
        return None
    return RunPlan(
        run=undertaking.run,
        task=Task(spec.task),
        purpose=spec.purpose,
        model_digest=Digest(manifest.digest),
        recipe=recipe,
        strategy=strategy.name,
        parameters=strategy.parameters,
        cohort=tuple(sorted(decisions)),
        quorum=spec.quorum,
        rounds=spec.rounds,
        round_deadline_seconds=spec.round_deadline_seconds,
        clip_norm_micro=spec.clip_norm_micro,
        max_examples=spec.max_examples,
        destination=undertaking.destination,
        host=undertaking.host,
        tensors=tensors if Task(spec.task) is Task.TRAIN else (),
        decisions=MappingProxyType(decisions),
        refused=MappingProxyType({n: o.codes for n, o in outcomes.items() if o.decision is None}),
    )


def same_intent(one: FederatedRunSpec, other: FederatedRunSpec) -> bool:
    """Whether a plan made for one serves the other."""
    return replace(one, cancelled=False) == replace(other, cancelled=False)
