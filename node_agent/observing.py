"""What the agent saw itself, in the words of the policy: filled from verified objects, never from a message."""

from __future__ import annotations

from collections.abc import Sequence

from treaty.charter import Charter
from treaty.consent import AnsweredBy, VerifiedConsent
from treaty.names import PartyCode
from treaty.policy.decider import nanoseconds
from treaty.policy.questions import (
    Approval,
    Observed,
    ObservedDestination,
    ObservedModel,
    ObservedRound,
    ObservedSignature,
    ObservedTensor,
    ObservedUpdate,
)
from treaty.update import UpdateHeader

PERSON_ROLE = "person"
"""The role that policies name for an approval by one of the nation's persons."""


def model_observed(
    nation: PartyCode, *, is_signed: bool, is_consented: bool, running: str | None, fallback: str | None
) -> ObservedModel:
    """`running` and `fallback` are semantic versions of the same model; None: nothing runs, none is consented to."""
    signatures = [ObservedSignature(by="publisher", verified=is_signed)]
    if is_consented:
        signatures.append(ObservedSignature(by=f"nation:{nation}", verified=True))
    return ObservedModel(
        format="safetensors", running_version=running or "none", fallback_version=fallback, signatures=tuple(signatures)
    )


def approvals(consent: VerifiedConsent | None) -> tuple[Approval, ...]:
    """A person's verified yes as an approval; a policy's own consent approves nothing."""
    if consent is None or consent.consent.by is not AnsweredBy.PERSON:
        return ()
    said = consent.consent
    return (
        Approval(
            role=PERSON_ROLE,
            by=consent.signer,
            nation=said.nation,
            subject=said.subject,
            expires_ns=nanoseconds(said.expires_at),
            verified=True,
        ),
    )


def egress_observed(
    header: UpdateHeader, metrics: Sequence[str], size_bytes: int, participants: int, destination: ObservedDestination
) -> Observed:
    """An update as it would leave. `raw` is false because its values are fixed-point deltas of named tensors and its
    metrics integers on a declared grid: there is no place for a record."""
    tensors = tuple(ObservedTensor(name=t.name, shape=t.shape, dtype="int32") for t in header.tensors)
    update = ObservedUpdate(
        digest=header.digest,
        raw=False,
        bytes=size_bytes,
        clip_norm=header.clip_norm_micro,
        noise_multiplier=0,
        tensors=tensors,
        metrics=tuple(sorted(metrics)),
    )
    return Observed(
        update=update, approvals=(), destination=destination, round=ObservedRound(participants=participants)
    )


def destination_observed(charter: Charter, destination: PartyCode) -> ObservedDestination:
    """A body of the charter is an organisation, a nation is public."""
    return ObservedDestination(kind="organisation" if destination in charter.bodies else "public")
