"""Kinds that are published: a model version by its publisher, a policy bundle by its authority. Both never change."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated

from treaty import names
from treaty.names import Digest, KeyId, ModelRef, PartyCode, RunId
from treaty.resources.marks import Between, Count, Items, Name, SemanticVersion, SpiffeText, Text, Word
from treaty.resources.meta import Kind, Status

MODEL_READY = "Ready"
MODEL_WITHDRAWN = "Withdrawn"
POLICY_READY = "Ready"

Parties = Annotated[tuple[PartyCode, ...], Items(high=64)]


@dataclass(frozen=True, slots=True)
class Label:
    """How far a version may travel: its classification and, within it, to whom it may be released."""

    classification: Word
    rel_to: Parties = ()


@dataclass(frozen=True, slots=True)
class Lineage:
    """What a version was made from: the digests of its parents' manifests and the run, if there was one."""

    parents: Annotated[tuple[Digest, ...], Items(high=16)] = ()
    run: RunId | None = None


@dataclass(frozen=True, slots=True)
class ModelVersionSpec:
    """`base_digest` is the manifest that an adapter applies to; without it the version stands alone."""

    name: Name
    version: SemanticVersion
    manifest_digest: Digest
    licence: Annotated[str, Text(64, 1)]
    label: Label
    base_digest: Digest | None = None
    lineage: Lineage = Lineage()
    releasable_to: Parties = ()

    @property
    def ref(self) -> ModelRef:
        return names.model_ref(f"{self.name}@{self.version}")


@dataclass(frozen=True, slots=True)
class SignedBy:
    key_id: KeyId


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelVersionStatus(Status):
    """Conditions: Ready (signed by the threshold, all chunks here), Withdrawn."""

    signatures: Annotated[tuple[SignedBy, ...], Items(high=32)] = ()
    threshold: Annotated[int, Between(0, 32)] = 0
    bytes: Count = 0
    log_index: Count | None = None


@dataclass(frozen=True, slots=True)
class PolicyBundleSpec:
    """`revision` is monotonic within its authority and never lowered."""

    authority: PartyCode
    revision: Annotated[int, Between(1)]
    bundle_digest: Digest


@dataclass(frozen=True, slots=True)
class InForce:
    """Since when an agent decides under the bundle."""

    agent: SpiffeText
    in_force_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyBundleStatus(Status):
    """Conditions: Ready (verified and its vectors passed)."""

    vectors_passed: Count = 0
    vectors_failed: Count = 0
    signatures: Annotated[tuple[SignedBy, ...], Items(high=32)] = ()
    in_force: Annotated[tuple[InForce, ...], Items(high=256)] = ()


def model_version_name(ref: ModelRef) -> str:
    """The resource name of `name@1.2.3`: `name-1.2.3`, since a Kubernetes name has no `@`."""
    return names.resource_name(ref.replace("@", "-"))


MODEL_VERSION = Kind(
    "ModelVersion", "modelversions", ModelVersionSpec, ModelVersionStatus, ("model", "models"), is_immutable=True
)
POLICY_BUNDLE = Kind(
    "PolicyBundle", "policybundles", PolicyBundleSpec, PolicyBundleStatus, ("policy",), is_immutable=True
)
