"""What this nation decides, at every decision point: both policies, on what the agent itself observed, all logged.

Rules:
1. the question has two parts: the `ask`, the same on both sides, and what is observed here, filled by the caller from
   what it holds and never from a message; the clock is added here;
2. the registers are read anew whenever charter or journal changed: charter (CAs, hosts), record (versions that the
   publishers' threshold signed, as far as this agent saw them; the first digest under a name and version stays; what
   this nation itself revoked), nation (datasets, address ranges);
3. every decision is written to the journal, with question and answer, before it is acted on; that log stays at home.
   What is only answered, because the coordinator asked, stands in a series of its own, and of it the newest stay;
4. no bundle, no answer and a late answer are each a no, and so is an allow with an obligation that this agent does not
   meet (OBLIGATION_UNKNOWN): `receipt.journal` is met by the border; `epsilon.charge` is not, there is no ledger of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from node_agent import catalogue, revocations
from node_agent.ports import Core, Permit
from treaty import names
from treaty.errors import Corrupt, InvalidInput
from treaty.fields import Fields
from treaty.label import Classification
from treaty.manifest import Manifest
from treaty.names import Digest
from treaty.policy import exact_json
from treaty.policy.answer import Verdict
from treaty.policy.decider import Decider, nanoseconds
from treaty.policy.decision import Decision, Reason
from treaty.policy.questions import Ask, Environment, Observed, ObservedSubject
from treaty.policy.registers import ModelFacts, Registers, charter_registers, nation_registers, record_registers
from treaty.strict_json import JsonObject
from treaty.wire.certificates import ca_digest

SERIES: Final = "decisions"
ANSWERS: Final = "answers"
MAX_ANSWERS: Final = 10_000
MODEL_KIND: Final = "model"
OBLIGATIONS_MET: Final = frozenset({"receipt.journal"})
OBLIGATION_UNKNOWN: Final = "OBLIGATION_UNKNOWN"


@dataclass(frozen=True, slots=True)
class Place:
    """What an admin says about where the agent stands; policies ask for it."""

    region: str
    """Of the cluster, as the treaty's register names it."""
    cluster: str
    clearance: Classification
    """Of the agent itself when it prompts a model: what its gates may see."""
    address_ranges: tuple[str, ...] = ()
    """CIDRs from which this nation's agents call."""


class Decisions:
    """The agent's one door to policy."""

    def __init__(self, core: Core, decider: Decider, place: Place) -> None:
        self._core = core
        self._decider = decider
        self._place = place
        self._seen: tuple[int, Digest] | None = None
        self._registered: Registers | None = None
        self._refreshing = asyncio.Lock()

    async def decide(self, ask: Ask, observed: Observed, *, is_acted_on: bool = True) -> Decision:
        """Decide and log. `observed` need not hold the clock. A decision that is not acted on is an answer (rule 3).

        Raises: InvalidInput (INP-…): the question is not of the declared types.
        """
        await self.refresh()
        now_ns = nanoseconds(self._core.clock.now())
        seen = replace(observed, now_ns=now_ns, received_ns=observed.received_ns or now_ns)
        decision = _with_obligations_met(await self._decider.decide(ask, seen))
        # Nanoseconds do not fit canonical JSON's integers, so what was observed is kept as the engine's own text.
        observation = exact_json.dump(seen.to_json()).decode("utf-8")
        entry: JsonObject = {"decision": decision.to_json(), "ask": ask.to_json(), "observed": observation}
        series, keep = (SERIES, None) if is_acted_on else (ANSWERS, MAX_ANSWERS)
        await asyncio.to_thread(self._core.journal.append, series, entry, keep=keep)
        return decision

    async def refresh(self) -> None:
        """Give the engine the registers as charter and journal have them now, if either changed."""
        async with self._refreshing:
            seen = (self._core.journal.generation, self._core.nation.charter().digest)
            if seen == self._seen:
                return
            registers = self._registers()
            if registers != self._registered:
                await self._decider.set_registers(registers)
                self._registered = registers
            self._seen = seen

    @property
    def revisions(self) -> tuple[int, ...]:
        """Of the bundles in force, in the order of their authorities' names; changes whenever an answer may."""
        held = self._decider.revisions
        return tuple(held[authority] for authority in sorted(held))

    @property
    def basis(self) -> tuple[tuple[int, ...], Registers | None]:
        """What an answer rests on beside its question: equal as long as the same question gets the same answer."""
        return self.revisions, self._registered

    def environment(self) -> Environment:
        return Environment(cluster=self._place.cluster, region=self._place.region)

    def principal(self) -> ObservedSubject:
        """Who prompts a model at a gate: the agent itself, cleared as its admin said."""
        return ObservedSubject(clearance=str(self._place.clearance), nationality=self._core.nation.code)

    def learn(self, manifest: Manifest) -> None:
        """Take a version into the record's register, once the publishers' threshold was verified. Idempotent."""
        about = manifest.about
        if self._core.journal.document(MODEL_KIND, manifest.ref) is None:
            body: JsonObject = {
                "digest": manifest.digest,
                "licence": about.licence,
                "classification": str(about.label.classification),
                "rel_to": list(about.label.rel_to),
            }
            self._core.journal.put(MODEL_KIND, manifest.ref, body)

    def is_recorded(self, ref: str, digest: str) -> bool:
        """Whether this very manifest was learned under this name and version."""
        document = self._core.journal.document(MODEL_KIND, ref)
        return document is not None and document.body.get("digest") == digest

    def _registers(self) -> Registers:
        charter = self._core.nation.charter()
        nations = {
            code: ([ca_digest(nation.ca_pem)], f"{code.lower()}.{charter.domain}")
            for code, nation in charter.nations.items()
        }
        facts = {dataset.name: dataset.facts for dataset in catalogue.datasets(self._core.journal)}
        return Registers(
            charter=charter_registers(nations),
            record=record_registers(self._models(), revocations.subjects(self._core.journal)),
            nation=nation_registers(self._core.nation.code, facts, self._place.address_ranges or None),
        )

    def _models(self) -> dict[str, ModelFacts]:
        models: dict[str, ModelFacts] = {}
        for document in self._core.journal.documents(MODEL_KIND):
            name, _, version = document.name.partition("@")
            licence, digest, label = _model(document.body)
            known = models.get(name, ModelFacts(licence, {}, {}))
            models[name] = ModelFacts(licence, {**known.versions, version: digest}, {**known.labels, version: label})
        return models


def _with_obligations_met(decision: Decision) -> Decision:
    """Rule 4: who meets an unknown obligation does not act."""
    if not decision.is_allowed or set(decision.obligations) <= OBLIGATIONS_MET:
        return decision
    return replace(decision, verdict=Verdict.DENY, reasons=(Reason(OBLIGATION_UNKNOWN, "engine"),), obligations=())


def permit(decision: Decision) -> Permit:
    """A decision as the border takes it."""
    return Permit(decision.decision_point, decision.is_allowed, decision.ask_digest, decision.digest)


def _model(body: JsonObject) -> tuple[str, Digest, tuple[str, Sequence[str]]]:
    try:
        fields = Fields(body, "model")
        licence, digest = fields.text("licence", 64), fields.digest("digest")
        classification = fields.choice("classification", Classification)
        rel_to = [names.party_code(code) for code in fields.texts("rel_to", max_items=256, max_chars=8)]
        fields.done()
    except InvalidInput as err:
        raise Corrupt("the journal's entry of a model cannot be read") from err
    return licence, digest, (str(classification), rel_to)
