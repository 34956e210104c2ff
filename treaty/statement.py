"""Everything that is signed is one shape: an in-toto Statement in a DSSE envelope, signed by k of n.

A statement says: about this subject (a digest), of this kind, the following (the predicate). For a document that
speaks for itself (a charter, a manifest, a run's plan) the subject is the digest of the canonical predicate; for a
word about something else (a consent, a receipt) it is that thing's digest.

Rules of `verify`:
1. the envelope parses strictly, within its bound, and names each key at most once;
2. at least `threshold` distinct keys of those the caller trusts signed exactly these payload bytes;
3. only then the payload is parsed; its bytes must be canonical (one meaning, one spelling);
4. it is of the kind that the caller expects, so no signature can be moved from one kind to another;
5. for a document the subject equals the digest of its predicate.

Which keys are trusted is not decided here: the charter says (`treaty.charter`, `treaty.delegation`).
Source: in-toto Attestation Framework v1 (Statement), DSSE v1.0.2.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import VerificationError
from securesystemslib.signer import Signature

from treaty import names
from treaty.errors import BadSignature, InvalidInput, TrustError
from treaty.fields import Fields
from treaty.keys import SigningKey, VerificationKey
from treaty.names import Digest, KeyId, digest_of
from treaty.strict_json import JsonObject, JsonValue, canonical, parse_object

PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_PREFIX = "https://foedus.dev/statement/"
MAX_ENVELOPE_BYTES = 16 * 1024 * 1024
MAX_SIGNATURES = 64


class StatementKind(StrEnum):
    CHARTER = "charter"
    DESCRIPTOR = "descriptor"
    DELEGATION = "delegation"
    MANIFEST = "manifest"
    CONSENT = "consent"
    DECISION = "decision"
    DATASET = "dataset"
    POLICY_BUNDLE = "policy-bundle"
    PLAN = "plan"
    ROLLOUT_STEP = "rollout-step"
    ROUND = "round"
    RECEIPT = "receipt"
    TALLY = "tally"
    REVOCATION = "revocation"


SELF_DESCRIBING = frozenset(
    {StatementKind.CHARTER, StatementKind.DESCRIPTOR, StatementKind.MANIFEST, StatementKind.PLAN, StatementKind.TALLY}
)
"""Kinds whose subject is the digest of their own predicate."""


@dataclass(frozen=True, slots=True)
class Statement:
    kind: StatementKind
    subject_name: str
    subject_digest: Digest
    predicate: JsonObject

    def payload(self) -> bytes:
        """The canonical bytes that are signed."""
        return canonical(
            {
                "_type": STATEMENT_TYPE,
                "subject": [
                    {"name": self.subject_name, "digest": {"sha256": self.subject_digest.removeprefix("sha256:")}}
                ],
                "predicateType": f"{PREDICATE_PREFIX}{self.kind}/v1",
                "predicate": self.predicate,
            }
        )


@dataclass(frozen=True, slots=True)
class Verified:
    """A statement whose signatures held, with who signed it (trusted keys only) and its exact bytes."""

    statement: Statement
    signers: frozenset[KeyId]
    envelope: bytes

    @property
    def digest(self) -> Digest:
        """Names this statement in logs and receipts: digest of the payload, whatever was signed on top later."""
        return digest_of(self.statement.payload())


def document(kind: StatementKind, name: str, predicate: JsonObject) -> Statement:
    """A statement about its own predicate."""
    return Statement(kind, name, digest_of(canonical(predicate)), predicate)


def sign(statement: Statement, keys: Sequence[SigningKey]) -> bytes:
    """Put `statement` in an envelope signed by each of `keys`."""
    envelope = Envelope(statement.payload(), PAYLOAD_TYPE, {})
    for key in keys:
        envelope.sign(key.as_signer())
    return _encode(envelope)


def add_signature(envelope: bytes, key: SigningKey) -> bytes:
    """The same statement with one more signature. The payload is not re-encoded."""
    parsed = _decode(envelope)
    parsed.sign(key.as_signer())
    return _encode(parsed)


def merge_signatures(envelope: bytes, other: bytes) -> bytes:
    """Both envelopes' signatures on one payload. Raises: InvalidInput: the payloads differ."""
    first, second = _decode(envelope), _decode(other)
    if first.payload != second.payload:
        raise InvalidInput("the two envelopes carry different statements")
    for signature_key_id, signature in second.signatures.items():
        first.signatures.setdefault(signature_key_id, signature)
    return _encode(first)


def only(envelope: bytes, signers: Collection[KeyId]) -> bytes:
    """The same statement with the signatures of these keys alone, whatever else was put on it. Nothing is checked."""
    parsed = _decode(envelope)
    kept = {key_id: signature for key_id, signature in parsed.signatures.items() if key_id in signers}
    return _encode(Envelope(parsed.payload, PAYLOAD_TYPE, kept))


def verify(envelope: bytes, kind: StatementKind, keys: Iterable[VerificationKey], threshold: int) -> Verified:
    """Check `envelope` by the rules in the module's docstring.

    Raises: InvalidInput: malformed. BadSignature: fewer than `threshold` of `keys` signed it.
    TrustError: another kind, or a subject that is not its content's digest.
    """
    parsed = _decode(envelope)  # 1
    trusted = {key.key_id: key for key in keys}
    if threshold < 1 or threshold > len(trusted):
        raise BadSignature(f"a {kind} needs {threshold} signatures, but only {len(trusted)} keys are trusted for it")
    signers = _valid_signers(parsed, trusted)
    if len(signers) < threshold:  # 2
        raise BadSignature(f"this {kind} has {len(signers)} valid signatures of the {threshold} it needs")
    statement = _parse_payload(parsed.payload)  # 3
    if statement.kind is not kind:  # 4
        raise TrustError(f"expected a signed {kind}, got a signed {statement.kind}")
    if kind in SELF_DESCRIBING and statement.subject_digest != digest_of(canonical(statement.predicate)):  # 5
        raise TrustError(f"the subject of this {kind} is not the digest of its content")
    return Verified(statement, signers, envelope)


def unverified(envelope: bytes) -> Statement:
    """Read a statement without believing it: to find out whose keys to check it with, never to act on it."""
    return _parse_payload(_decode(envelope).payload)


def claimed_signers(envelope: bytes) -> tuple[KeyId, ...]:
    """The key ids that an envelope names. Nothing is checked."""
    return tuple(KeyId(key_id) for key_id in _decode(envelope).signatures)


def _valid_signers(envelope: Envelope, trusted: dict[KeyId, VerificationKey]) -> frozenset[KeyId]:
    valid = set()
    for claimed in envelope.signatures:
        key = trusted.get(KeyId(claimed))
        if key is None:
            continue
        try:
            envelope_of_one = Envelope(envelope.payload, PAYLOAD_TYPE, {claimed: envelope.signatures[claimed]})
            envelope_of_one.verify([key.as_sslib()], 1)
        except VerificationError:
            continue
        valid.add(key.key_id)
    return frozenset(valid)


def _encode(envelope: Envelope) -> bytes:
    return canonical(
        {
            "payload": base64.b64encode(envelope.payload).decode("ascii"),
            "payloadType": PAYLOAD_TYPE,
            "signatures": [
                {"keyid": key_id, "sig": base64.b64encode(bytes.fromhex(signature.signature)).decode("ascii")}
                for key_id, signature in sorted(envelope.signatures.items())
            ],
        }
    )


def _decode(data: bytes) -> Envelope:
    fields = Fields(parse_object(data, max_bytes=MAX_ENVELOPE_BYTES), "envelope")
    if fields.text("payloadType", 128) != PAYLOAD_TYPE:
        raise InvalidInput("the envelope's payload type is not an in-toto statement")
    payload = _base64(fields.text("payload", MAX_ENVELOPE_BYTES))
    signatures: dict[str, Signature] = {}
    for signature in fields.list_of("signatures", _signature, max_items=MAX_SIGNATURES):
        if signature.keyid in signatures:
            raise InvalidInput("the envelope names a key twice")
        signatures[signature.keyid] = signature
    fields.done()
    return Envelope(payload, PAYLOAD_TYPE, signatures)


def _signature(value: JsonValue) -> Signature:
    fields = Fields(value, "signature")
    key_id = names.key_id(fields.text("keyid", 71))
    signature = _base64(fields.text("sig", 1024))
    fields.done()
    return Signature(key_id, signature.hex())


def _base64(text: str) -> bytes:
    try:
        decoded = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise InvalidInput("the envelope has a field that is not base64") from None
    # The last digit can carry bits that mean nothing; one spelling only, so that a flipped bit is never unnoticed.
    if base64.b64encode(decoded).decode("ascii") != text:
        raise InvalidInput("the envelope has a field that is not canonical base64")
    return decoded


def _parse_payload(payload: bytes) -> Statement:
    raw = parse_object(payload, max_bytes=MAX_ENVELOPE_BYTES, max_depth=24)
    if canonical(raw) != payload:
        raise InvalidInput("the statement is not in canonical form")
    fields = Fields(raw, "statement")
    if fields.text("_type", 128) != STATEMENT_TYPE:
        raise InvalidInput("the payload is not an in-toto statement v1")
    kind = _kind(fields.text("predicateType", 128))
    ((subject_name, subject_digest),) = fields.list_of("subject", _subject, max_items=1, min_items=1)
    predicate = fields.value("predicate")
    fields.done()
    if not isinstance(predicate, dict):
        raise InvalidInput("the statement's predicate is not an object")
    return Statement(kind, subject_name, subject_digest, predicate)


def _kind(predicate_type: str) -> StatementKind:
    name = predicate_type.removeprefix(PREDICATE_PREFIX).removesuffix("/v1")
    try:
        kind = StatementKind(name)
    except ValueError:
        raise InvalidInput("the statement is of a kind that this version does not know") from None
    if predicate_type != f"{PREDICATE_PREFIX}{kind}/v1":
        raise InvalidInput("the statement is of a kind that this version does not know")
    return kind


def _subject(value: JsonValue) -> tuple[str, Digest]:
    fields = Fields(value, "subject")
    name = fields.text("name", 256)
    digests = fields.mapping("digest")
    digest = names.digest("sha256:" + digests.text("sha256", 64))
    digests.done()
    fields.done()
    return name, digest
