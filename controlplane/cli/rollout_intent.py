"""A rollout from flags: waves, gates and the fallback resolved to digests."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from controlplane.cli.client import Client
from controlplane.cli.options import comma_list
from treaty import names
from treaty.errors import InvalidInput
from treaty.names import Digest
from treaty.resources.codec import narrowed
from treaty.resources.meta import Resource, new_resource
from treaty.resources.models import MODEL_VERSION, model_version_name
from treaty.resources.rollouts import (
    ROLLOUT,
    EvaluationGate,
    Gates,
    HealthGate,
    RolloutSpec,
    RolloutStatus,
    Wave,
)

NO_FALLBACK: Final = "none"


@dataclass(frozen=True, slots=True)
class Intent:
    """What was typed. Codes of nations in any case."""

    name: str
    model: str
    waves: tuple[str, ...]
    concurrency: int
    soak_seconds: int
    deadline_seconds: int
    health_prompts: tuple[str, ...]
    evaluate: str
    needs_approval: bool
    failure_budget: int
    fallback: str


async def rollout_of(client: Client, intent: Intent) -> Resource[RolloutSpec, RolloutStatus]:
    """The resource; the model's and the fallback's digests are the coordinator's answer, and each nation checks them.

    Raises: InvalidInput, NotFound: no such version.
    """
    fallback = None if intent.fallback == NO_FALLBACK else await _digest(client, intent.fallback)
    spec = RolloutSpec(
        model=names.model_ref(intent.model),
        manifest_digest=await _digest(client, intent.model),
        waves=tuple(wave(text, place, intent.concurrency) for place, text in enumerate(intent.waves, start=1)),
        soak_seconds=intent.soak_seconds,
        deadline_seconds=intent.deadline_seconds,
        gates=Gates(HealthGate(intent.health_prompts), evaluation_gate(intent.evaluate), intent.needs_approval),
        failure_budget=intent.failure_budget,
        fallback_digest=fallback,
    )
    return new_resource(ROLLOUT, names.resource_name(intent.name), spec)


def wave(text: str, place: int, concurrency: int) -> Wave:
    """`fr,de` or `north=fr,de`."""
    before, equals, after = text.partition("=")
    name, codes = (before, after) if equals else (f"wave-{place}", before)
    nations = tuple(names.nation_code(code.upper()) for code in comma_list(codes))
    if not nations:
        raise InvalidInput(f"{text[:80]!r} is no wave", remedy="write it as fr,de or north=fr,de")
    return Wave(names.resource_name(name), nations, concurrency)


def evaluation_gate(text: str) -> EvaluationGate | None:
    """`translation:5000`: at most half a percent worse than the fallback."""
    if not text:
        return None
    purpose, colon, ppm = text.rpartition(":")
    if not colon or not purpose or not ppm.isdecimal():
        raise InvalidInput(f"{text[:80]!r} is no evaluation gate", remedy="write it as PURPOSE:PPM, e.g. translation:0")
    return EvaluationGate(purpose, int(ppm))


async def _digest(client: Client, reference: str) -> Digest:
    if reference.startswith("sha256:"):
        return names.digest(reference)
    name = model_version_name(names.model_ref(reference))
    return narrowed(MODEL_VERSION, await client.get(MODEL_VERSION.name, name)).spec.manifest_digest
