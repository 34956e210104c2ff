"""What the coordinator may direct an agent to bring about, and which directive takes the place of which.

Rules:
1. an action is desired state with the signed statements that justify it; it carries no code and no opinion;
2. every action has a subject (one rollout, one run, the treaty's policy); to one agent only the newest directive of a
   subject is live, an older one is superseded and never sent again;
3. the content digest covers the action alone, not its number: an unchanged directive is recognised after a reconnect,
   and one that an agent refused is not sent again until its content changes;
4. bytes may be pulled only under a live directive that names them.

Pure: numbers are given by the journal, time by the caller. How a directive is said on the wire is `controlplane.api`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

from treaty import statement
from treaty.names import Digest, DirectiveNumber, RunId, digest_of
from treaty.strict_json import JsonObject, canonical


@dataclass(frozen=True, slots=True)
class DeployGates:
    """What the version must pass in the nation before it counts as serving."""

    health_prompts: tuple[str, ...] = ()
    evaluation_purpose: str = ""
    """Empty: no evaluation gate."""
    max_worse_ppm: int = 0


@dataclass(frozen=True, slots=True)
class Deploy:
    """Bring a model version into service. `manifests` are the signed manifests: the version's, then its base's."""

    rollout: str
    manifest_digest: Digest
    manifests: tuple[bytes, ...]
    fallback_digest: Digest | None
    deadline_seconds: int
    gates: DeployGates = field(default_factory=DeployGates)
    purpose: str = ""


@dataclass(frozen=True, slots=True)
class AbortRollout:
    """Stop a rollout and return to the consented fallback. `deploy_number` is the directive that it ends."""

    rollout: str
    deploy_number: DirectiveNumber


@dataclass(frozen=True, slots=True)
class Round:
    """Do one round of a run. `plan` is the run's plan, signed by the log key; `arrays_manifest` canonical bytes."""

    run: RunId
    round: int
    plan: bytes
    arrays_digest: Digest
    arrays_manifest: bytes
    deadline_seconds: int
    evaluate_only: bool = False


@dataclass(frozen=True, slots=True)
class EndRun:
    run: RunId


@dataclass(frozen=True, slots=True)
class LoadTreatyPolicy:
    """Put a revision of the treaty's policy in force."""

    revision: int
    bundle: bytes
    envelope: bytes


Action: TypeAlias = Deploy | AbortRollout | Round | EndRun | LoadTreatyPolicy


@dataclass(frozen=True, slots=True)
class Directive:
    """An action under its number. `trace_id` is the operator's command's, 32 hexadecimal digits."""

    number: DirectiveNumber
    content_digest: Digest
    trace_id: str
    action: Action


def subject(action: Action) -> str:
    """What the action is about; a later one of the same subject supersedes it (rule 2)."""
    match action:
        case Deploy(rollout=rollout) | AbortRollout(rollout=rollout):
            return f"rollout/{rollout}"
        case Round(run=run) | EndRun(run=run):
            return f"run/{run}"
        case LoadTreatyPolicy():
            return "treaty-policy"


def content_digest(action: Action) -> Digest:
    """Digest of the canonical content; signed statements and bundles count by their own digests (rule 3)."""
    return digest_of(canonical(_content(action)))


def granted_digests(action: Action) -> frozenset[Digest]:
    """Manifests whose chunks the agent may pull while a directive with this action is live (rule 4)."""
    match action:
        case Deploy(manifest_digest=digest, manifests=manifests):
            return frozenset({digest, *(statement.unverified(envelope).subject_digest for envelope in manifests)})
        case Round(arrays_digest=digest):
            return frozenset({digest})
        case AbortRollout() | EndRun() | LoadTreatyPolicy():
            return frozenset()


def _content(action: Action) -> JsonObject:
    match action:
        case Deploy():
            return {
                "deploy": {
                    "rollout": action.rollout,
                    "manifest": action.manifest_digest,
                    "manifests": [digest_of(envelope) for envelope in action.manifests],
                    "fallback": action.fallback_digest or "",
                    "deadline_seconds": action.deadline_seconds,
                    "health_prompts": list(action.gates.health_prompts),
                    "evaluation_purpose": action.gates.evaluation_purpose,
                    "max_worse_ppm": action.gates.max_worse_ppm,
                    "purpose": action.purpose,
                }
            }
        case AbortRollout(rollout=rollout, deploy_number=number):
            return {"abort": {"rollout": rollout, "deploy": str(number)}}
        case Round():
            return {
                "round": {
                    "run": action.run,
                    "round": action.round,
                    "plan": digest_of(action.plan),
                    "arrays": action.arrays_digest,
                    "deadline_seconds": action.deadline_seconds,
                    "evaluate_only": action.evaluate_only,
                }
            }
        case EndRun(run=run):
            return {"end_run": {"run": run}}
        case LoadTreatyPolicy(revision=revision, bundle=bundle, envelope=envelope):
            return {"policy": {"revision": revision, "bundle": digest_of(bundle), "envelope": digest_of(envelope)}}
