"""Resources to try a store with."""

from __future__ import annotations

from treaty.names import Digest, ModelRef, PartyCode, digest_of
from treaty.resources import (
    MODEL_VERSION,
    ROLLOUT,
    Label,
    ModelVersionSpec,
    ModelVersionStatus,
    Resource,
    RolloutSpec,
    RolloutStatus,
    new_resource,
)
from treaty.resources.rollouts import Wave

FR = PartyCode("FR")
DE = PartyCode("DE")
PAR = "spiffe://fr.treaty.example/agent/par-1"


def digest(text: str) -> Digest:
    return digest_of(text.encode())


def rollout(name: str = "r1", **labels: str) -> Resource[RolloutSpec, RolloutStatus]:
    spec = RolloutSpec(ModelRef("tiny@1.0.0"), digest("manifest"), (Wave("first", (FR, DE), 2),), soak_seconds=5)
    return new_resource(ROLLOUT, name, spec, labels=labels)


def model_version() -> Resource[ModelVersionSpec, ModelVersionStatus]:
    spec = ModelVersionSpec("tiny", "1.0.0", digest("manifest"), "Apache-2.0", Label("public"))
    return new_resource(MODEL_VERSION, "tiny-1.0.0", spec)
