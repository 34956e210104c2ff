"""The kind of a federated run: what is computed together, by whom, how much of it may leave, and what came of it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Annotated

from treaty.errors import InvalidInput
from treaty.names import Digest, ModelRef
from treaty.resources.marks import (
    Between,
    Count,
    FreeObject,
    Items,
    LabelKey,
    MetricValues,
    Name,
    NationCode,
    SpiffeText,
    Text,
    Word,
)
from treaty.resources.meta import Kind, Status

RUN_READY = "Ready"
RUN_PROGRESSING = "Progressing"
RUN_SUCCEEDED = "Succeeded"
RUN_CANCELLED = "Cancelled"

Code = Annotated[str, Text(32, 1, pattern="^[A-Z][A-Z0-9_-]*$")]


class Task(StrEnum):
    TRAIN = "train"
    EVALUATE = "evaluate"


@dataclass(frozen=True, slots=True)
class StrategySpec:
    """A Flower strategy by its name; parameters are integers, the unit in the key (`proximal_mu_micro`)."""

    name: Word = "FedAvg"
    parameters: Annotated[
        dict[LabelKey, Annotated[int, Between(-1_000_000_000_000, 1_000_000_000_000)]], Items(high=32)
    ] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class FederatedRunSpec:
    """What is computed together. Datasets are named by purpose only; each nation resolves them at home.

    `quorum` is how many nations a round needs; `clip_norm_micro` bounds an update's L2 norm in millionths;
    `max_examples` bounds a contribution's weight; an evaluation has one round and returns metrics only.
    """

    task: Task
    purpose: Word
    model: ModelRef
    nations: Annotated[tuple[NationCode, ...], Items(low=1, high=64)]
    quorum: Annotated[int, Between(1, 64)]
    recipe: FreeObject = field(default_factory=dict)
    strategy: StrategySpec = StrategySpec()
    rounds: Annotated[int, Between(1, 10_000)] = 1
    round_deadline_seconds: Annotated[int, Between(1, 2_592_000)] = 3600
    clip_norm_micro: Annotated[int, Between(1, 1_000_000_000_000)] = 1_000_000
    max_examples: Annotated[int, Between(1, 1_000_000_000)] = 1_000_000
    seed: Annotated[int, Between(0, 2**31 - 1)] = 0
    cancelled: bool = False

    def __post_init__(self) -> None:
        repeated = [nation for nation, count in Counter(self.nations).items() if count > 1]
        if repeated:
            raise InvalidInput(f"nation {min(repeated)!r} appears twice")
        if self.quorum > len(self.nations):
            raise InvalidInput(f"quorum {self.quorum} is more than the {len(self.nations)} nations named")
        if self.task is Task.EVALUATE and self.rounds != 1:
            raise InvalidInput("an evaluation has one round")


@dataclass(frozen=True, slots=True)
class CohortMember:
    """A nation that takes part, and the decision under which it does."""

    nation: NationCode
    agent: SpiffeText
    decision_digest: Digest | None = None


@dataclass(frozen=True, slots=True)
class NationMetrics:
    nation: NationCode
    values: MetricValues


@dataclass(frozen=True, slots=True)
class RoundDone:
    """`aggregate_digest` is that of the exact int64 sum, `arrays_digest` that of the strategy's float32 result."""

    round: Annotated[int, Between(1, 10_000)]
    nations: Annotated[tuple[NationCode, ...], Items(high=64)]
    aggregate_digest: Digest | None = None
    arrays_digest: Digest | None = None
    metrics: Annotated[tuple[NationMetrics, ...], Items(high=64)] = ()
    finished_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class NationRefusal:
    nation: NationCode
    codes: Annotated[tuple[Code, ...], Items(low=1, high=64)]
    decision_point: Word | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FederatedRunStatus(Status):
    """Conditions: Ready (planned and its quorum found), Progressing, Succeeded, Cancelled.

    `round` is the one in work, 0 before the first. `rounds_done` keeps the latest 256.
    """

    plan_digest: Digest | None = None
    round: Count = 0
    cohort: Annotated[tuple[CohortMember, ...], Items(high=64)] = ()
    rounds_done: Annotated[tuple[RoundDone, ...], Items(high=256)] = ()
    result_arrays_digest: Digest | None = None
    refusals: Annotated[tuple[NationRefusal, ...], Items(high=256)] = ()
    published_as: Name | None = None


FEDERATED_RUN = Kind("FederatedRun", "federatedruns", FederatedRunSpec, FederatedRunStatus, ("run", "runs"))
