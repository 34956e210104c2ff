"""The nation's word on one rollout: asked for by a deployment, given by a person or by the policy, kept in the journal.

    deployment ──asks──► request (journal) ◄──reads── `foedus-agent approve|refuse` ──signs──► consent (journal)
        ▲                                                                                          │
        └──────────────────────────── sees it within 200 ms, verifies it, acts ◄───────────────────┘

Rules:
1. a person answers only what was asked: version and fallback are taken from the request, never from the command line;
2. a consent is believed when a key that the nation's root delegated for it signed it, it has not ended, and it is about
   this rollout, this version and this fallback; anything else is as if nobody had answered;
3. the last answer of a person counts until the agent has acted on it.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from node_agent.ports import Journal, Nation
from treaty import names
from treaty.consent import Answer, AnsweredBy, Consent, VerifiedConsent, sign_consent, verify_consent
from treaty.delegation import Delegation
from treaty.errors import BadSignature, Corrupt, Expired, InvalidInput, NotFound
from treaty.fields import Fields
from treaty.keys import SigningKey
from treaty.names import Digest, PartyCode
from treaty.strict_json import JsonObject

REQUEST_KIND: Final = "consent-request"
CONSENT_KIND: Final = "consent"
VALIDITY: Final = timedelta(days=30)
"""How long a consent lasts unless the person says otherwise: longer than any rollout, shorter than memory."""

_MAX_ENVELOPE_CHARS = 64 * 1024


@dataclass(frozen=True, slots=True)
class ConsentRequest:
    """What a rollout asks of this nation, and which checks wait for a person."""

    rollout: str
    number: str
    manifest_digest: Digest
    model: str
    fallback: Digest | None
    purpose: str
    codes: tuple[str, ...]

    def to_json(self) -> JsonObject:
        return {
            "number": self.number,
            "manifest": self.manifest_digest,
            "model": self.model,
            "fallback": self.fallback,
            "purpose": self.purpose,
            "codes": list(self.codes),
        }


def ask(journal: Journal, request: ConsentRequest) -> None:
    """Put a request before the nation's persons. Idempotent."""
    known = journal.document(REQUEST_KIND, request.rollout)
    if known is None or known.body != request.to_json():
        journal.put(REQUEST_KIND, request.rollout, request.to_json())


def withdraw(journal: Journal, rollout: str) -> None:
    """Nobody needs to answer any more. Idempotent."""
    if journal.document(REQUEST_KIND, rollout) is not None:
        journal.remove(REQUEST_KIND, rollout)


def requests(journal: Journal) -> tuple[ConsentRequest, ...]:
    """What waits for a person, by rollout."""
    return tuple(_request(document.name, document.body) for document in journal.documents(REQUEST_KIND))


def approve(
    journal: Journal, nation: Nation, rollout: str, key: SigningKey, now: datetime, *, valid_for: timedelta = VALIDITY
) -> Consent:
    """A person's yes to what `rollout` asks. Raises: NotFound: nothing waits. BadSignature: not this key's to give."""
    return _answer(journal, nation, rollout, key, now, answer=Answer.YES, valid_for=valid_for)


def refuse(
    journal: Journal, nation: Nation, rollout: str, key: SigningKey, now: datetime, *, valid_for: timedelta = VALIDITY
) -> Consent:
    """A person's no. Raises: as `approve`."""
    return _answer(journal, nation, rollout, key, now, answer=Answer.NO, valid_for=valid_for)


def _answer(
    journal: Journal,
    nation: Nation,
    rollout: str,
    key: SigningKey,
    now: datetime,
    *,
    answer: Answer,
    valid_for: timedelta,
) -> Consent:
    document = journal.document(REQUEST_KIND, names.resource_name(rollout))
    if document is None:
        waiting = ", ".join(request.rollout for request in requests(journal)) or "nothing"
        raise NotFound(f"no rollout {rollout} waits for a person here", remedy=f"waiting: {waiting}")
    request = _request(rollout, document.body)
    consent = Consent(
        nation=nation.code,
        subject=request.manifest_digest,
        fallback=request.fallback,
        rollout=rollout,
        answer=answer,
        by=AnsweredBy.PERSON,
        decision_digest=None,
        issued_at=now,
        expires_at=now + valid_for,
    )
    envelope = sign_consent(consent, key)
    verify_consent(envelope, nation.delegations(), now)
    keep(journal, rollout, envelope)
    return consent


def by_policy(request: ConsentRequest, nation: Nation, answer: Answer, decision: Digest, now: datetime) -> bytes:
    """The policy's answer, signed by the agent's key; `decision` is the document that allows or denies it."""
    consent = Consent(
        nation=nation.code,
        subject=request.manifest_digest,
        fallback=request.fallback,
        rollout=request.rollout,
        answer=answer,
        by=AnsweredBy.POLICY,
        decision_digest=decision,
        issued_at=now,
        expires_at=now + VALIDITY,
    )
    return sign_consent(consent, nation.key)


def keep(journal: Journal, rollout: str, envelope: bytes) -> None:
    """Journal an answer; the one before is replaced."""
    journal.put(CONSENT_KIND, rollout, {"envelope": base64.b64encode(envelope).decode("ascii")})


def given(
    journal: Journal, nation: PartyCode, request: ConsentRequest, delegations: Sequence[Delegation], now: datetime
) -> VerifiedConsent | None:
    """The journaled answer to exactly `request`, verified anew; None where there is none that counts (rule 2)."""
    document = journal.document(CONSENT_KIND, request.rollout)
    if document is None:
        return None
    try:
        text = Fields(document.body, "consent").text("envelope", _MAX_ENVELOPE_CHARS)
        verified = verify_consent(base64.b64decode(text, validate=True), delegations, now)
    except (Expired, BadSignature):
        return None
    except (InvalidInput, binascii.Error) as err:
        raise Corrupt(f"the journal's consent for rollout {request.rollout} cannot be read") from err
    said = verified.consent
    asked = (nation, request.rollout, request.manifest_digest, request.fallback)
    return verified if (said.nation, said.rollout, said.subject, said.fallback) == asked else None


def _request(rollout: str, body: JsonObject) -> ConsentRequest:
    try:
        fields = Fields(body, "consent request")
        request = ConsentRequest(
            rollout=rollout,
            number=fields.text("number", 48),
            manifest_digest=fields.digest("manifest"),
            model=fields.text("model", 128),
            fallback=fields.optional_digest("fallback"),
            purpose=fields.text("purpose", 63),
            codes=fields.texts("codes", max_items=64, max_chars=64),
        )
        fields.done()
    except InvalidInput as err:
        raise Corrupt(f"the journal's request for rollout {rollout} cannot be read") from err
    return request
