"""Kinds of a deployment: the rollout, what it asks of a nation, and what the nation answered."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Annotated

from treaty.errors import InvalidInput
from treaty.names import Digest, DirectiveNumber, KeyId, ModelRef
from treaty.resources.marks import (
    Between,
    CamelWord,
    Count,
    Items,
    Line,
    MetricValues,
    Name,
    NationCode,
    Seconds,
    SpiffeText,
    Text,
    Word,
)
from treaty.resources.meta import Kind, Status

ROLLOUT_PROGRESSING = "Progressing"
ROLLOUT_PAUSED = "Paused"
ROLLOUT_SUCCEEDED = "Succeeded"
ROLLOUT_ABORTED = "Aborted"
ROLLOUT_DEGRADED = "Degraded"
CONSENT_ANSWERED = "Answered"
CONSENT_ACCEPTED = "Accepted"


@dataclass(frozen=True, slots=True)
class Wave:
    """Nations that move together, at most `concurrency` at a time."""

    name: Name
    nations: Annotated[tuple[NationCode, ...], Items(low=1, high=64)]
    concurrency: Annotated[int, Between(1, 64)] = 1


@dataclass(frozen=True, slots=True)
class HealthGate:
    """The version answers each prompt within its deadline; with no prompts, it loads and answers the agent's own."""

    prompts: Annotated[tuple[Line, ...], Items(high=16)] = ()


@dataclass(frozen=True, slots=True)
class EvaluationGate:
    """Held-out loss in the nation may be worse than the fallback's by at most `max_worse_ppm`."""

    purpose: Word
    max_worse_ppm: Annotated[int, Between(0, 1_000_000)] = 0


@dataclass(frozen=True, slots=True)
class Gates:
    """What a nation must pass before it counts. `approval`: an operator lets each wave after the first begin."""

    health: HealthGate | None = HealthGate()
    evaluation: EvaluationGate | None = None
    approval: bool = False


@dataclass(frozen=True, slots=True)
class RolloutSpec:
    """Which version goes where, in which order, and what stops it.

    `deadline_seconds` is per nation, from its directive; `failure_budget` is how many nations may fail before the
    rollout aborts; `fallback_digest` is where an agent returns to, and the only place.
    """

    model: ModelRef
    manifest_digest: Digest
    waves: Annotated[tuple[Wave, ...], Items(low=1, high=32)]
    soak_seconds: Seconds = 0
    deadline_seconds: Annotated[int, Between(1, 31_536_000)] = 3600
    gates: Gates = Gates()
    failure_budget: Annotated[int, Between(0, 64)] = 0
    fallback_digest: Digest | None = None
    approved_waves: Annotated[tuple[Name, ...], Items(high=32)] = ()
    paused: bool = False
    aborted: bool = False

    def __post_init__(self) -> None:
        wave_names = [wave.name for wave in self.waves]
        _refuse_repeated(wave_names, "wave")
        _refuse_repeated([nation for wave in self.waves for nation in wave.nations], "nation")
        unknown = set(self.approved_waves) - set(wave_names)
        if unknown:
            raise InvalidInput(f"approvedWaves names {min(unknown)!r}, which is not a wave")
        if self.fallback_digest == self.manifest_digest:
            raise InvalidInput("fallbackDigest is the version that is being rolled out")


@dataclass(frozen=True, slots=True)
class NationProgress:
    """Where one nation's agent stands, why, and since when. Success is the digest that it observes serving."""

    nation: NationCode
    state: CamelWord
    agent: SpiffeText | None = None
    wave: Name | None = None
    reason: CamelWord | None = None
    message: Line = ""
    since: datetime | None = None
    observed_digest: Digest | None = None
    directive_number: DirectiveNumber | None = None
    metrics: MetricValues = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutStatus(Status):
    """Conditions: Progressing, Paused, Degraded, Succeeded, Aborted. `current_wave` is an index into the waves."""

    current_wave: Annotated[int, Between(0, 32)] = 0
    soaking_since: datetime | None = None
    nations: Annotated[tuple[NationProgress, ...], Items(high=256)] = ()


@dataclass(frozen=True, slots=True)
class ConsentRequestSpec:
    """What a nation is asked: to let `subject_digest` in, and to go back to nothing but `fallback_digest`.

    `asks` are the decision points that its answer covers, for example `rollout.deploy`.
    """

    nation: NationCode
    subject_digest: Digest
    rollout: Name
    asks: Annotated[tuple[Word, ...], Items(low=1, high=8)]
    fallback_digest: Digest | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsentRequestStatus(Status):
    """Conditions: Answered."""

    consent: Name | None = None


class ConsentDecision(StrEnum):
    YES = "yes"
    NO = "no"


@dataclass(frozen=True, slots=True)
class ConsentSpec:
    """The nation's signed answer, by the digest of its statement. `expires_at` ends a yes."""

    nation: NationCode
    statement_digest: Digest
    subject_digest: Digest
    decision: ConsentDecision
    key_id: KeyId
    expires_at: datetime
    fallback_digest: Digest | None = None
    request: Annotated[str, Text(63)] = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsentStatus(Status):
    """Conditions: Accepted (its signature and terms were verified, and no other answer to the same request counts)."""

    log_index: Count | None = None


def _refuse_repeated(values: list[str], what: str) -> None:
    repeated = [value for value, count in Counter(values).items() if count > 1]
    if repeated:
        raise InvalidInput(f"{what} {min(repeated)!r} appears twice")


ROLLOUT = Kind("Rollout", "rollouts", RolloutSpec, RolloutStatus)
CONSENT_REQUEST = Kind("ConsentRequest", "consentrequests", ConsentRequestSpec, ConsentRequestStatus, is_immutable=True)
CONSENT = Kind("Consent", "consents", ConsentSpec, ConsentStatus, is_immutable=True)
