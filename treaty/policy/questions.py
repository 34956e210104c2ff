"""What a policy is asked: the part that is proposed (`Ask`) and the part that the decider sees itself (`Observed`).

An ask is the same on both sides, and its digest is logged by both. What is observed is filled by whoever decides and
is never taken from a message. Rules see the merge of the two; no field is in both.

The vocabulary is closed and typed. Any field may be absent: the checks that need it then fail by themselves. A field
that is unknown (INP-002), of another type (INP-003: a text is no number, `true` is no integer, there are no floats)
or beyond its bound (INP-004) is refused before any engine sees it. Values are not judged here: an unknown nation is
the policy's no. Units: `*_ns` nanoseconds since 1970, `*_micro` millionths; `clip_norm` and `noise_multiplier` too
are counted in millionths.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from enum import StrEnum

from treaty.names import Digest, digest_of
from treaty.policy import exact_json
from treaty.policy.closed_types import read, written
from treaty.strict_json import JsonObject, JsonValue, canonical


class DecisionPoint(StrEnum):
    AGENT_ENROL = "agent.enrol"
    MODEL_ADMIT = "model.admit"
    ROLLOUT_DEPLOY = "rollout.deploy"
    DATASET_USE = "dataset.use"
    EGRESS_UPDATE = "egress.update"
    INFER_PURPOSE = "infer.purpose"


@dataclass(frozen=True, slots=True, kw_only=True)
class Purpose:
    code: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AskedLabel:
    """`rel_to`: party codes. Classifications are those of the register."""

    classification: str | None = None
    rel_to: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AskedModel:
    """`digest` is the manifest's."""

    id: str | None = None
    version: str | None = None
    digest: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AskedDataset:
    id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AskedDestination:
    """`nation` is where the bytes come to rest (the coordinator's host), `org` who receives them."""

    nation: str | None = None
    org: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AskedRound:
    """`id` is the run's; `nations` its cohort."""

    id: str | None = None
    nations: tuple[str, ...] | None = None
    epsilon_micro: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AskedSubject:
    agent_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """What is proposed. `decision_point` is one of `DecisionPoint`; `nation` is the one whose yes is asked for."""

    v: int = 1
    decision_point: str | None = None
    request_id: str | None = None
    nation: str | None = None
    purpose: Purpose | None = None
    label: AskedLabel | None = None
    model: AskedModel | None = None
    dataset: AskedDataset | None = None
    destination: AskedDestination | None = None
    round: AskedRound | None = None
    subject: AskedSubject | None = None

    def to_json(self) -> JsonObject:
        return written(self)

    @property
    def digest(self) -> Digest:
        """What both sides log: SHA-256 of the RFC 8785 form."""
        return digest_of(canonical(self.to_json()))


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    cluster: str | None = None
    region: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Approval:
    """A person's signed yes. `by` is a key id, `subject` the digest that was approved; `verified` by the decider."""

    role: str | None = None
    by: str | None = None
    nation: str | None = None
    subject: str | None = None
    expires_ns: int | None = None
    verified: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ObservedSignature:
    """`by` is `publisher` (the charter's threshold of them) or `nation:FR` (that nation's consent)."""

    by: str | None = None
    verified: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ObservedModel:
    """`running_version` is `none` where nothing is served; `fallback_version` the one that the consent names."""

    format: str | None = None
    running_version: str | None = None
    fallback_version: str | None = None
    signatures: tuple[ObservedSignature, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ObservedDestination:
    """`kind`: public, business or organisation."""

    kind: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ObservedRound:
    participants: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ObservedTensor:
    name: str | None = None
    shape: tuple[int, ...] | None = None
    dtype: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ObservedUpdate:
    """The bytes that would leave, as the agent itself measured them; `raw` says whether they hold raw records."""

    digest: str | None = None
    raw: bool | None = None
    bytes: int | None = None
    clip_norm: int | None = None
    noise_multiplier: int | None = None
    tensors: tuple[ObservedTensor, ...] | None = None
    metrics: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ObservedCertificate:
    """`root` is the digest of the CA certificate that issued it, `serial` in lower-case hexadecimal."""

    root: str | None = None
    serial: str | None = None
    not_after_ns: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ObservedSubject:
    """`clearance` and `nationality` are known at home only and never leave it."""

    clearance: str | None = None
    nationality: str | None = None
    spiffe: str | None = None
    agent_version: str | None = None
    ip: str | None = None
    cert: ObservedCertificate | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """What the decider saw itself. `received_ns` is when the question reached it, `now_ns` when it decides."""

    now_ns: int | None = None
    received_ns: int | None = None
    env: Environment | None = None
    approvals: tuple[Approval, ...] | None = None
    model: ObservedModel | None = None
    destination: ObservedDestination | None = None
    round: ObservedRound | None = None
    update: ObservedUpdate | None = None
    subject: ObservedSubject | None = None

    def to_json(self) -> JsonObject:
        return written(self)


@dataclass(frozen=True, slots=True)
class Question:
    """One ask and what its decider observed. Raises InvalidInput: a value is not of the declared type or bound."""

    ask: Ask
    observed: Observed

    def __post_init__(self) -> None:
        read(Ask, self.ask.to_json(), "ask")
        read(Observed, self.observed.to_json(), "observed")

    def merged(self) -> JsonObject:
        """What rules see as `input`."""
        return exact_json.merge(self.ask.to_json(), self.observed.to_json())

    @property
    def input_digest(self) -> Digest:
        """Names the whole input in the decider's own log."""
        return exact_json.digest(self.merged())


def parse_ask(value: JsonValue) -> Ask:
    """Read a proposed question. Raises InvalidInput with INP-001..004."""
    return read(Ask, value, "ask")


def parse_merged(document: JsonObject) -> Question:
    """Take a merged document (a table vector, a line of a log) apart again. Raises InvalidInput with INP-001..004."""
    asked = {field.name for field in fields(Ask)}
    observed = {field.name for field in fields(Observed)}
    ask_part: JsonObject = {}
    observed_part: JsonObject = {}
    for name, value in document.items():
        if name in asked and name in observed and isinstance(value, Mapping):
            ask_part[name], observed_part[name] = _split(name, value)
        elif name in observed:
            observed_part[name] = value
        else:
            ask_part[name] = value
    return Question(read(Ask, ask_part, "question"), read(Observed, observed_part, "question"))


_ASKED_SECTIONS: Mapping[str, type] = {
    "model": AskedModel,
    "destination": AskedDestination,
    "round": AskedRound,
    "subject": AskedSubject,
}


def _split(section: str, value: Mapping[str, JsonValue]) -> tuple[JsonObject, JsonObject]:
    asked = {field.name for field in fields(_ASKED_SECTIONS[section])}
    ask_part = {name: member for name, member in value.items() if name in asked}
    observed_part = {name: member for name, member in value.items() if name not in asked}
    return ask_part, observed_part
