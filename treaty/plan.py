"""What one federated run will do, agreed before anything is loaded: the run's plan.

The coordinator computes it, shows it to the operator and signs it with its log key; every directive of the run carries
it and every nation checks what it is asked against it. It leaves no choice for execution time: cohort, recipe, weights,
clip norm, rounds and deadlines are fixed, and so is the encoding of every update.

Rules:
1. the cohort is sorted, each nation once, and at least the quorum;
2. a training plan names the tensors of an update, and their values fit the encoding (`update_spec` proves it);
3. a nation's decision is recorded by digests and codes only; a nation that refused is not in the cohort;
4. the plan is a document: its digest is that of its canonical bytes, and `run start` names it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import TypeVar

from treaty import names, statement
from treaty.charter import Charter
from treaty.errors import InvalidInput
from treaty.fields import Fields
from treaty.names import Digest, PartyCode, RunId
from treaty.recipe import LoraSft, parse_recipe
from treaty.statement import Statement, StatementKind, Verified
from treaty.strict_json import JsonObject, JsonValue
from treaty.update import UpdateSpec
from treaty.update_layout import MAX_DIMENSIONS, MAX_TENSORS, TensorSpec

MAX_COHORT = 64
MAX_ROUNDS = 10_000
MAX_CODES = 64
MAX_PARAMETERS = 32

T = TypeVar("T")


class Task(StrEnum):
    TRAIN = "train"
    EVALUATE = "evaluate"


@dataclass(frozen=True, slots=True)
class NationDecision:
    """What a nation answered when the run was planned, and what it would send in one round."""

    ask_digest: Digest
    decision_digest: Digest
    codes: tuple[str, ...]
    bytes_out_per_round: int

    def to_json(self) -> JsonObject:
        return {
            "ask": self.ask_digest,
            "decision": self.decision_digest,
            "codes": list(self.codes),
            "bytes_out_per_round": self.bytes_out_per_round,
        }


@dataclass(frozen=True, slots=True)
class RunPlan:
    """`refused` are the nations that were asked and said no (with codes); they take no part."""

    run: RunId
    task: Task
    purpose: str
    model_digest: Digest
    recipe: LoraSft
    strategy: str
    parameters: Mapping[str, int]
    cohort: tuple[PartyCode, ...]
    quorum: int
    rounds: int
    round_deadline_seconds: int
    clip_norm_micro: int
    max_examples: int
    destination: PartyCode
    host: PartyCode
    tensors: tuple[TensorSpec, ...]
    decisions: Mapping[PartyCode, NationDecision]
    refused: Mapping[PartyCode, tuple[str, ...]]

    def __post_init__(self) -> None:
        if list(self.cohort) != sorted(set(self.cohort)):
            raise InvalidInput("the plan's cohort is not a sorted list of nations")
        if not 1 <= self.quorum <= len(self.cohort):
            raise InvalidInput(f"the plan's cohort of {len(self.cohort)} does not reach its quorum of {self.quorum}")
        if set(self.decisions) != set(self.cohort) or set(self.refused) & set(self.cohort):
            raise InvalidInput("the plan's decisions are not exactly its cohort's")
        if (self.task is Task.TRAIN) != bool(self.tensors):
            raise InvalidInput("a training plan names the tensors of an update, an evaluation plan names none")
        if self.task is Task.TRAIN:
            self.update_spec(1, self.model_digest)

    def update_spec(self, number: int, base_digest: Digest) -> UpdateSpec:
        """What an update of round `number` (1 is the first), starting from arrays `base_digest`, may be.

        Nobody weighs more than the recipe trains in a round, whatever `max_examples` would allow.
        """
        return UpdateSpec(
            run_id=self.run,
            round=number,
            base_digest=base_digest,
            tensors=self.tensors,
            clip_norm_micro=self.clip_norm_micro,
            value_bits=30,
            chunk_bytes=4 * 2**20,
            max_examples=min(self.max_examples, self.recipe.examples),
            max_cohort=len(self.cohort),
        )

    def ordinal(self, nation: PartyCode) -> int:
        """The nation's place in the cohort, from 0; seeds differ by it. Raises InvalidInput for a stranger."""
        try:
            return self.cohort.index(nation)
        except ValueError:
            raise InvalidInput(f"{nation} is not in the cohort of run {self.run}") from None

    @property
    def digest(self) -> Digest:
        return self.statement().subject_digest

    def statement(self) -> Statement:
        return statement.document(StatementKind.PLAN, self.run, self.to_json())

    def to_json(self) -> JsonObject:
        return {
            "run": self.run,
            "task": str(self.task),
            "purpose": self.purpose,
            "model": self.model_digest,
            "recipe": self.recipe.to_json(),
            "strategy": {"name": self.strategy, "parameters": dict(self.parameters)},
            "cohort": list(self.cohort),
            "quorum": self.quorum,
            "rounds": self.rounds,
            "round_deadline_seconds": self.round_deadline_seconds,
            "clip_norm_micro": self.clip_norm_micro,
            "max_examples": self.max_examples,
            "destination": self.destination,
            "host": self.host,
            "tensors": [tensor.to_json() for tensor in self.tensors],
            "decisions": {nation: decision.to_json() for nation, decision in self.decisions.items()},
            "refused": {nation: list(codes) for nation, codes in self.refused.items()},
        }


def parse_plan(value: JsonValue) -> RunPlan:
    """Read a plan's content strictly. Says nothing about who signed it.

    Raises: InvalidInput: any field missing, unknown, mistyped, out of bounds or against the rules above.
    """
    fields = Fields(value, "plan")
    strategy = fields.mapping("strategy")
    plan = RunPlan(
        run=names.run_id(fields.text("run", 63)),
        task=fields.choice("task", Task),
        purpose=names.resource_name(fields.text("purpose", 63)),
        model_digest=fields.digest("model"),
        recipe=parse_recipe(fields.value("recipe")),
        strategy=strategy.text("name", 32),
        parameters=MappingProxyType(_parameters(strategy.value("parameters"))),
        cohort=tuple(map(names.nation_code, fields.texts("cohort", max_items=MAX_COHORT, max_chars=2, min_items=1))),
        quorum=fields.integer("quorum", 1, MAX_COHORT),
        rounds=fields.integer("rounds", 1, MAX_ROUNDS),
        round_deadline_seconds=fields.integer("round_deadline_seconds", 1, 2_592_000),
        clip_norm_micro=fields.integer("clip_norm_micro", 1),
        max_examples=fields.integer("max_examples", 1),
        destination=names.party_code(fields.text("destination", 8)),
        host=names.nation_code(fields.text("host", 2)),
        tensors=fields.list_of("tensors", _tensor, max_items=MAX_TENSORS),
        decisions=MappingProxyType(_by_nation(fields.value("decisions"), _decision)),
        refused=MappingProxyType(_by_nation(fields.value("refused"), _codes)),
    )
    strategy.done()
    fields.done()
    return plan


def verify_plan(envelope: bytes, charter: Charter) -> tuple[RunPlan, Verified]:
    """Believe a plan because the coordinator of the charter signed it with its log key."""
    verified = charter.coordinator.log.verify(envelope, StatementKind.PLAN)
    return parse_plan(verified.statement.predicate), verified


def _parameters(value: JsonValue) -> dict[str, int]:
    fields = Fields(value, "strategy parameters")
    if not isinstance(value, dict) or len(value) > MAX_PARAMETERS:
        raise InvalidInput(f"a strategy has at most {MAX_PARAMETERS} parameters")
    return {name: fields.integer(name, -(10**12), 10**12) for name in value}


def _by_nation(value: JsonValue, read: Callable[[JsonValue], T]) -> dict[PartyCode, T]:
    if not isinstance(value, dict) or len(value) > MAX_COHORT:
        raise InvalidInput(f"the plan lists more than {MAX_COHORT} nations, or not by code")
    return {names.nation_code(code): read(entry) for code, entry in value.items()}


def _decision(value: JsonValue) -> NationDecision:
    fields = Fields(value, "decision")
    decision = NationDecision(
        ask_digest=fields.digest("ask"),
        decision_digest=fields.digest("decision"),
        codes=_codes(fields.value("codes")),
        bytes_out_per_round=fields.integer("bytes_out_per_round"),
    )
    fields.done()
    return decision


def _codes(value: JsonValue) -> tuple[str, ...]:
    return Fields({"codes": value}, "plan").texts("codes", max_items=MAX_CODES, max_chars=64)


def _tensor(value: JsonValue) -> TensorSpec:
    fields = Fields(value, "tensor")
    shape = fields.list_of("shape", _size, max_items=MAX_DIMENSIONS)
    tensor = TensorSpec(fields.text("name", 255), shape)
    fields.done()
    return tensor


def _size(value: JsonValue) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise InvalidInput("a shape of the plan is not a list of integers")
    return value
