"""What the coordinator may direct, as the agent understands it: parsed once, bounded, trusted as types afterwards.

A directive names one thing to bring about and carries the signed statements that justify it. Parsing believes none of
them: signatures are checked by whoever acts (`node_agent.deploy`, `node_agent.rounds`). Here is only shape: known
action, bounds, names. An action that this version does not know is refused by code UNSUPPORTED, never guessed at.

`content_digest` is recomputed from the bytes that arrived; a number that comes back with other content is an attempt to
change what was accepted.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TypeAlias

from treaty import names
from treaty.errors import InvalidInput, LimitExceeded
from treaty.names import Digest, DirectiveNumber, RunId
from treaty.wire.v1 import session_pb2, types_pb2

MAX_DIRECTIVE_BYTES = 8 * 2**20
"""One gRPC message; a treaty bundle's WebAssembly and two manifests of 5 GB models fit with room."""

MAX_DEADLINE_SECONDS = 30 * 24 * 3600
MAX_PROMPTS = 8
MAX_PROMPT_CHARS = 512
MAX_MANIFESTS = 8
UNSUPPORTED = "UNSUPPORTED"

_TRACE = re.compile(r"[0-9a-f]{32}\Z")


@dataclass(frozen=True, slots=True)
class Gates:
    """What must hold before a version stays in service."""

    health_prompts: tuple[str, ...]
    evaluation_purpose: str | None
    """Purpose of the held-out dataset to evaluate on; None: no evaluation gate."""
    max_worse_ppm: int
    """How much worse the held-out loss may be than the fallback's, in parts per million of the latter."""


@dataclass(frozen=True, slots=True)
class Deploy:
    """Bring a model version into service. `manifests` are envelopes: the version first, then its base if any."""

    rollout: str
    manifest_digest: Digest
    manifests: tuple[bytes, ...]
    fallback: Digest | None
    deadline_seconds: int
    gates: Gates
    purpose: str


@dataclass(frozen=True, slots=True)
class AbortRollout:
    """Stop the rollout that `deploy_number` began and return to its consented fallback."""

    rollout: str
    deploy_number: DirectiveNumber


@dataclass(frozen=True, slots=True)
class Round:
    """One round of a run. `plan` is an envelope signed by the coordinator's log key."""

    run: RunId
    round: int
    plan: bytes
    arrays_digest: Digest
    arrays_manifest: bytes
    deadline_seconds: int
    evaluate_only: bool


@dataclass(frozen=True, slots=True)
class EndRun:
    run: RunId


@dataclass(frozen=True, slots=True)
class LoadTreatyPolicy:
    revision: int
    bundle: bytes
    envelope: bytes


Action: TypeAlias = Deploy | AbortRollout | Round | EndRun | LoadTreatyPolicy


@dataclass(frozen=True, slots=True)
class Directive:
    number: DirectiveNumber
    content_digest: Digest
    """Of the action's bytes as they arrived, not of what the message claims."""
    trace_id: str
    """W3C trace id of the operator's command: 32 hexadecimal digits, or empty."""
    action: Action
    message: bytes = field(default=b"", repr=False, compare=False)
    """As it arrived; kept while the directive is open."""

    @property
    def subject(self) -> str:
        """What this directive is about; a later one about the same subject supersedes it."""
        match self.action:
            case Deploy(rollout=rollout) | AbortRollout(rollout=rollout):
                return f"rollout/{rollout}"
            case Round(run=run) | EndRun(run=run):
                return f"run/{run}"
            case LoadTreatyPolicy():
                return "policy/treaty"


@dataclass(frozen=True, slots=True)
class Question:
    """What would this nation decide? `ask` is canonical JSON; nothing happens on the answer alone."""

    question_id: str
    ask: bytes
    deadline_ms: int


def parse_number(message: types_pb2.DirectiveNumber) -> DirectiveNumber:
    return DirectiveNumber(message.epoch, message.counter)


def number_message(number: DirectiveNumber) -> types_pb2.DirectiveNumber:
    return types_pb2.DirectiveNumber(epoch=number.epoch, counter=number.counter)


def parse_directive(message: session_pb2.Directive) -> Directive:
    """Read one directive strictly.

    Raises: InvalidInput: malformed, or of an action that this version does not know (code UNSUPPORTED).
    """
    if message.ByteSize() > MAX_DIRECTIVE_BYTES:
        raise LimitExceeded(f"the directive has more than {MAX_DIRECTIVE_BYTES} bytes")
    if message.trace_id and not _TRACE.match(message.trace_id):
        raise InvalidInput("the directive's trace id is not 32 hexadecimal digits")
    return Directive(
        number=parse_number(message.number),
        content_digest=_content_digest(message),
        trace_id=message.trace_id,
        action=_action(message),
        message=message.SerializeToString(deterministic=True),
    )


def parse_question(message: session_pb2.Question) -> Question:
    if not 1 <= len(message.question_id) <= 64 or not message.question_id.isprintable():
        raise InvalidInput("the question's id is not 1 to 64 printable characters")
    if len(message.ask) > 64 * 1024:
        raise LimitExceeded("the question's ask has more than 64 KiB")
    return Question(message.question_id, message.ask, message.deadline_ms)


def _content_digest(message: session_pb2.Directive) -> Digest:
    bare = session_pb2.Directive()
    bare.CopyFrom(message)
    bare.ClearField("number")
    bare.ClearField("content_digest")
    bare.ClearField("trace_id")
    return names.digest_of(bare.SerializeToString(deterministic=True))


def _action(message: session_pb2.Directive) -> Action:
    match message.WhichOneof("action"):
        case "deploy":
            return _deploy(message.deploy)
        case "abort_rollout":
            number = parse_number(message.abort_rollout.deploy_number)
            return AbortRollout(names.resource_name(message.abort_rollout.rollout), number)
        case "round":
            return _round(message.round)
        case "end_run":
            return EndRun(names.run_id(message.end_run.run))
        case "load_treaty_policy":
            policy = message.load_treaty_policy
            return LoadTreatyPolicy(_within(policy.revision, 1, 2**53 - 1), policy.bundle, policy.envelope)
        case None:
            raise InvalidInput("the directive has no action that this agent knows", code=UNSUPPORTED)


def _deploy(message: session_pb2.Deploy) -> Deploy:
    if not 1 <= len(message.manifests) <= MAX_MANIFESTS:
        raise InvalidInput(f"a deployment carries 1 to {MAX_MANIFESTS} manifests")
    prompts = tuple(message.gates.health_prompts)
    if len(prompts) > MAX_PROMPTS or any(len(prompt) > MAX_PROMPT_CHARS for prompt in prompts):
        raise LimitExceeded(f"a gate has at most {MAX_PROMPTS} prompts of {MAX_PROMPT_CHARS} characters")
    gates = Gates(prompts, message.gates.evaluation_purpose or None, message.gates.max_worse_ppm)
    return Deploy(
        rollout=names.resource_name(message.rollout),
        manifest_digest=names.digest(message.manifest_digest),
        manifests=tuple(message.manifests),
        fallback=names.digest(message.fallback_digest) if message.fallback_digest else None,
        deadline_seconds=_within(message.deadline_seconds, 1, MAX_DEADLINE_SECONDS),
        gates=gates,
        purpose=names.resource_name(message.purpose),
    )


def _round(message: session_pb2.Round) -> Round:
    return Round(
        run=names.run_id(message.run),
        round=_within(message.round, 1, 10_000),
        plan=message.plan,
        arrays_digest=names.digest(message.arrays_digest),
        arrays_manifest=message.arrays_manifest,
        deadline_seconds=_within(message.deadline_seconds, 1, MAX_DEADLINE_SECONDS),
        evaluate_only=message.evaluate_only,
    )


def _within(value: int, low: int, high: int) -> int:
    if not low <= value <= high:
        raise InvalidInput(f"a number of the directive is not between {low} and {high}")
    return value
