"""The nation's word on one rollout: asked for by a deployment, given by a person or by the policy, kept in the journal.

    deployment ──asks──► request (journal) ◄──reads── `foedus-agent approve|refuse` ──signs──► consent (journal)
        ▲                                                                                          │
        └──────────────────────────── sees it within 200 ms, verifies it, acts ◄───────────────────┘

Rules:
1. a person answers what they saw: version, fallback, purpose and gates are taken from the request, never from the
   command line, and a request that changed since it was shown is not answered;
2. a consent is believed when a key that the nation's root delegated for it signed it, it has not ended, and it is about
   this rollout, this version and this fallback, and was given to this directive and this purpose; anything else is as
   if nobody had answered;
3. the last answer of a person counts until the agent has acted on it; what failed or was aborted is asked anew.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from node_agent.directives import MAX_PROMPT_CHARS, MAX_PROMPTS, Gates
from node_agent.ports import Journal, Nation
from treaty import names
from treaty.consent import Answer, AnsweredBy, Consent, VerifiedConsent, sign_consent, verify_consent
from treaty.delegation import Delegation
from treaty.errors import BadSignature, ConflictError, Corrupt, Expired, InvalidInput, NotFound
from treaty.fields import Fields
from treaty.keys import SigningKey
from treaty.names import Digest, PartyCode
from treaty.strict_json import JsonObject

REQUEST_KIND: Final = "consent-request"
CONSENT_KIND: Final = "consent"
VALIDITY: Final = timedelta(days=30)
"""How long a consent lasts unless the person says otherwise: longer than any rollout, shorter than memory."""

SHOWN_DIGITS: Final = 12
"""Of a digest in a command line, and the fewest by which a person may name a version."""

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
    gates: Gates
    """What the coordinator wants checked before the version serves; its choice, so a person sees it."""
    codes: tuple[str, ...]

    def to_json(self) -> JsonObject:
        return {
            "number": self.number,
            "manifest": self.manifest_digest,
            "model": self.model,
            "fallback": self.fallback,
            "purpose": self.purpose,
            "gates": {
                "health_prompts": list(self.gates.health_prompts),
                "evaluation_purpose": self.gates.evaluation_purpose,
                "max_worse_ppm": self.gates.max_worse_ppm,
            },
            "codes": list(self.codes),
        }

    def command(self, verb: str = "approve") -> str:
        """What a person types to answer exactly this version."""
        version = self.manifest_digest.removeprefix("sha256:")[:SHOWN_DIGITS]
        return f"{verb} {self.rollout} --version {version} --key FILE"

    def is_about(self, version: str) -> bool:
        """Whether a person who wrote `version` means this one: name@version, or the digest's first digits."""
        digits = version.removeprefix("sha256:")
        is_digest = len(digits) >= SHOWN_DIGITS and self.manifest_digest.removeprefix("sha256:").startswith(digits)
        return version == self.model or is_digest


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


def pending(journal: Journal, rollout: str) -> ConsentRequest:
    """What `rollout` asks of a person now. Raises: NotFound: nothing."""
    document = journal.document(REQUEST_KIND, names.resource_name(rollout))
    if document is None:
        waiting = ", ".join(request.rollout for request in requests(journal)) or "nothing"
        raise NotFound(f"no rollout {rollout} waits for a person here", remedy=f"waiting: {waiting}")
    return _request(rollout, document.body)


def approve(
    journal: Journal,
    nation: Nation,
    request: ConsentRequest,
    key: SigningKey,
    now: datetime,
    *,
    valid_for: timedelta = VALIDITY,
) -> Consent:
    """A person's yes to `request`, as they saw it.

    Raises: NotFound: nothing waits. ConflictError: it asks something else now. BadSignature: not this key's to give.
    """
    return _answer(journal, nation, request, key, now, answer=Answer.YES, valid_for=valid_for)


def refuse(
    journal: Journal,
    nation: Nation,
    request: ConsentRequest,
    key: SigningKey,
    now: datetime,
    *,
    valid_for: timedelta = VALIDITY,
) -> Consent:
    """A person's no. Raises: as `approve`."""
    return _answer(journal, nation, request, key, now, answer=Answer.NO, valid_for=valid_for)


def _answer(
    journal: Journal,
    nation: Nation,
    request: ConsentRequest,
    key: SigningKey,
    now: datetime,
    *,
    answer: Answer,
    valid_for: timedelta,
) -> Consent:
    if pending(journal, request.rollout) != request:
        raise ConflictError(
            f"rollout {request.rollout} asks something else than it did", remedy="look at 'foedus-agent status' again"
        )
    consent = Consent(
        nation=nation.code,
        subject=request.manifest_digest,
        fallback=request.fallback,
        rollout=request.rollout,
        answer=answer,
        by=AnsweredBy.PERSON,
        decision_digest=None,
        issued_at=now,
        expires_at=now + valid_for,
    )
    envelope = sign_consent(consent, key)
    verify_consent(envelope, nation.delegations(), now)
    keep(journal, request, envelope)
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


def keep(journal: Journal, request: ConsentRequest, envelope: bytes) -> None:
    """Journal the answer to `request`; the one before is replaced."""
    body: JsonObject = {
        "envelope": base64.b64encode(envelope).decode("ascii"),
        "number": request.number,
        "purpose": request.purpose,
    }
    journal.put(CONSENT_KIND, request.rollout, body)


def forget(journal: Journal, rollout: str) -> None:
    """What was asked and answered for `rollout` is spent: whoever wants it again asks again. Idempotent."""
    withdraw(journal, rollout)
    if journal.document(CONSENT_KIND, rollout) is not None:
        journal.remove(CONSENT_KIND, rollout)


def given(
    journal: Journal, nation: PartyCode, request: ConsentRequest, delegations: Sequence[Delegation], now: datetime
) -> VerifiedConsent | None:
    """The journaled answer to exactly `request`, verified anew; None where there is none that counts (rule 2)."""
    document = journal.document(CONSENT_KIND, request.rollout)
    if document is None:
        return None
    try:
        fields = Fields(document.body, "consent")
        text = fields.text("envelope", _MAX_ENVELOPE_CHARS)
        answered = (fields.text("number", 48), fields.text("purpose", 63))
        verified = verify_consent(base64.b64decode(text, validate=True), delegations, now)
    except (Expired, BadSignature):
        return None
    except (InvalidInput, binascii.Error) as err:
        raise Corrupt(f"the journal's consent for rollout {request.rollout} cannot be read") from err
    said = verified.consent
    asked = (nation, request.rollout, request.manifest_digest, request.fallback, request.number, request.purpose)
    return verified if (said.nation, said.rollout, said.subject, said.fallback, *answered) == asked else None


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
            gates=_gates(fields.mapping("gates")),
            codes=fields.texts("codes", max_items=64, max_chars=64),
        )
        fields.done()
    except InvalidInput as err:
        raise Corrupt(f"the journal's request for rollout {rollout} cannot be read") from err
    return request


def _gates(fields: Fields) -> Gates:
    gates = Gates(
        health_prompts=fields.texts("health_prompts", max_items=MAX_PROMPTS, max_chars=MAX_PROMPT_CHARS),
        evaluation_purpose=fields.optional_text("evaluation_purpose", 512),
        max_worse_ppm=fields.integer("max_worse_ppm"),
    )
    fields.done()
    return gates
