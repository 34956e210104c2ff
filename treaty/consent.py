"""A nation's signed yes or no to one digest, with the fallback it may return to, its terms and an end.

A consent is the only thing that lets a model version into a nation. It names the subject's digest and the fallback's:
a coordinator can send a nation nowhere but to the one, or back to the other. It is signed by a person's delegated key
or, where the nation lets its policy answer, by its agent's, and says which of the two.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from treaty import names, statement
from treaty.delegation import Delegation, Power, verify_by_power
from treaty.errors import Expired, InvalidInput
from treaty.fields import Fields, timestamp_text
from treaty.keys import SigningKey
from treaty.names import Digest, KeyId, PartyCode
from treaty.statement import Statement, StatementKind
from treaty.strict_json import JsonObject

CLOCK_SKEW = timedelta(hours=2)
"""How far the clock of whoever signed may be ahead of ours: as far as certificates are dated back."""


class Answer(StrEnum):
    YES = "yes"
    NO = "no"


class AnsweredBy(StrEnum):
    PERSON = "person"
    POLICY = "policy"


@dataclass(frozen=True, slots=True)
class Consent:
    """`subject` is a manifest's digest; `fallback` is None where there is nothing to return to but serving nothing."""

    nation: PartyCode
    subject: Digest
    fallback: Digest | None
    rollout: str
    answer: Answer
    by: AnsweredBy
    decision_digest: Digest | None
    issued_at: datetime
    expires_at: datetime

    def statement(self) -> Statement:
        predicate: JsonObject = {
            "nation": self.nation,
            "rollout": self.rollout,
            "answer": self.answer,
            "by": self.by,
            "issued_at": timestamp_text(self.issued_at),
            "expires_at": timestamp_text(self.expires_at),
        }
        if self.fallback is not None:
            predicate["fallback"] = self.fallback
        if self.decision_digest is not None:
            predicate["decision"] = self.decision_digest
        return Statement(StatementKind.CONSENT, self.nation, self.subject, predicate)


@dataclass(frozen=True, slots=True)
class VerifiedConsent:
    consent: Consent
    signer: KeyId
    digest: Digest
    envelope: bytes


def sign_consent(consent: Consent, key: SigningKey) -> bytes:
    return statement.sign(consent.statement(), [key])


def verify_consent(envelope: bytes, delegations: Iterable[Delegation], now: datetime) -> VerifiedConsent:
    """Believe a nation's answer. A yes has a beginning and an end; a no holds, whatever clock it was dated by.

    Raises: BadSignature: not signed by a key that this nation delegated for it. Expired: over, or not begun.
    """
    claimed = parse_consent(statement.unverified(envelope))
    power = Power.CONSENT if claimed.by is AnsweredBy.PERSON else Power.POLICY_CONSENT
    verified, delegation = verify_by_power(
        envelope, StatementKind.CONSENT, delegations, nation=claimed.nation, powers=[power], now=now
    )
    is_yes = claimed.answer is Answer.YES
    if is_yes and claimed.issued_at > now + CLOCK_SKEW:
        raise Expired(f"the consent of {claimed.nation} begins at {timestamp_text(claimed.issued_at)}")
    if is_yes and now >= claimed.expires_at:
        raise Expired(f"the consent of {claimed.nation} ended at {timestamp_text(claimed.expires_at)}")
    return VerifiedConsent(claimed, delegation.key.key_id, verified.digest, envelope)


def parse_consent(claimed: Statement) -> Consent:
    """Read what a consent says. Nothing is believed."""
    if claimed.kind is not StatementKind.CONSENT:
        raise InvalidInput(f"expected a consent, got a {claimed.kind}")
    fields = Fields(claimed.predicate, "consent")
    consent = Consent(
        nation=names.nation_code(fields.text("nation", 2)),
        subject=claimed.subject_digest,
        fallback=fields.optional_digest("fallback"),
        rollout=names.resource_name(fields.text("rollout", 63)),
        answer=fields.choice("answer", Answer),
        by=fields.choice("by", AnsweredBy),
        decision_digest=fields.optional_digest("decision"),
        issued_at=fields.timestamp("issued_at"),
        expires_at=fields.timestamp("expires_at"),
    )
    fields.done()
    return consent
