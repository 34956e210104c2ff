"""Signing and believing: one shape, k of n, nothing moved from one kind to another."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from treaty import statement
from treaty.errors import BadSignature, FoedusError, InvalidInput, TrustError
from treaty.keys import SigningKey, new_signing_key
from treaty.names import digest_of
from treaty.statement import Statement, StatementKind
from treaty.strict_json import canonical

KEYS = [new_signing_key() for _ in range(5)]
PUBLIC = [key.verification for key in KEYS]
MANIFEST = statement.document(StatementKind.MANIFEST, "m", {"name": "m", "bytes": 7})


def test_the_threshold_of_trusted_keys_is_believed() -> None:
    envelope = statement.sign(MANIFEST, KEYS[:3])
    verified = statement.verify(envelope, StatementKind.MANIFEST, PUBLIC, 3)
    assert verified.statement == MANIFEST
    assert verified.signers == {key.key_id for key in KEYS[:3]}


def test_one_signature_short_is_refused_and_says_how_many_count() -> None:
    envelope = statement.sign(MANIFEST, KEYS[:2])
    with pytest.raises(BadSignature, match="has 2 valid signatures of the 3 it needs"):
        statement.verify(envelope, StatementKind.MANIFEST, PUBLIC, 3)


def test_strangers_do_not_count_and_a_key_listed_twice_counts_once() -> None:
    envelope = statement.sign(MANIFEST, [KEYS[0], new_signing_key()])
    with pytest.raises(BadSignature):
        statement.verify(envelope, StatementKind.MANIFEST, [PUBLIC[0], PUBLIC[0], PUBLIC[1]], 2)


def test_a_signature_under_anothers_key_id_does_not_count() -> None:
    parsed = json.loads(statement.sign(MANIFEST, [KEYS[0]]))
    parsed["signatures"][0]["keyid"] = KEYS[1].key_id
    with pytest.raises(BadSignature):
        statement.verify(canonical(parsed), StatementKind.MANIFEST, PUBLIC, 1)


def test_a_signature_cannot_be_moved_to_another_kind() -> None:
    envelope = statement.sign(MANIFEST, [KEYS[0]])
    with pytest.raises(TrustError, match="expected a signed charter, got a signed manifest"):
        statement.verify(envelope, StatementKind.CHARTER, PUBLIC, 1)


def test_a_document_whose_subject_is_not_its_digest_is_refused() -> None:
    lying = Statement(StatementKind.MANIFEST, "m", digest_of(b"another"), {"name": "m"})
    with pytest.raises(TrustError, match="not the digest of its content"):
        statement.verify(statement.sign(lying, [KEYS[0]]), StatementKind.MANIFEST, PUBLIC, 1)


def test_signatures_gathered_apart_are_merged_and_other_payloads_are_not() -> None:
    merged = statement.merge_signatures(statement.sign(MANIFEST, [KEYS[0]]), statement.sign(MANIFEST, [KEYS[1]]))
    merged = statement.add_signature(merged, KEYS[2])
    assert len(statement.verify(merged, StatementKind.MANIFEST, PUBLIC, 3).signers) == 3
    other = statement.document(StatementKind.MANIFEST, "m", {"name": "other"})
    with pytest.raises(InvalidInput, match="different statements"):
        statement.merge_signatures(merged, statement.sign(other, [KEYS[1]]))


def _payload(edit: Callable[[bytes], bytes], key: SigningKey = KEYS[0]) -> bytes:
    """An envelope whose payload was edited before it was signed properly."""
    from securesystemslib.dsse import Envelope

    envelope = Envelope(edit(MANIFEST.payload()), statement.PAYLOAD_TYPE, {})
    envelope.sign(key.as_signer())
    return canonical(
        {
            "payload": base64.b64encode(envelope.payload).decode(),
            "payloadType": statement.PAYLOAD_TYPE,
            "signatures": [
                {"keyid": key.key_id, "sig": base64.b64encode(bytes.fromhex(s.signature)).decode()}
                for s in envelope.signatures.values()
            ],
        }
    )


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda p: p.replace(b'"predicate":', b'"predicate": '), "not in canonical form"),
        (lambda p: p.replace(b"manifest/v1", b"manifest/v2"), "does not know"),
        (lambda p: p.replace(b"/Statement/v1", b"/Statement/v0"), "not an in-toto statement v1"),
        (lambda _: b"[]", "not an object"),
        (lambda p: p.replace(b'"_type"', b'"_extra":1,"_type"'), "unknown field"),
    ],
)
def test_signed_nonsense_is_still_nonsense(edit: Callable[[bytes], bytes], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        statement.verify(_payload(edit), StatementKind.MANIFEST, PUBLIC, 1)


@given(st.data())
def test_no_flipped_byte_survives(data: st.DataObject) -> None:
    envelope = statement.sign(MANIFEST, [KEYS[0]])
    position = data.draw(st.integers(0, len(envelope) - 1))
    flipped = bytearray(envelope)
    flipped[position] ^= data.draw(st.integers(1, 255))
    with pytest.raises(FoedusError):
        statement.verify(bytes(flipped), StatementKind.MANIFEST, PUBLIC, 1)
