"""Checkpoints: written to the letter of C2SP, believed only with the log's own key, followed only forwards."""

from __future__ import annotations

import base64

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from hypothesis import given
from hypothesis import strategies as st

from treaty.errors import BadSignature, FoedusError, InvalidInput, LimitExceeded, RollbackRefused, TrustError
from treaty.log import EMPTY_ROOT, Checkpoint, Tree, follow, leaf_hash, sign_checkpoint, verify_checkpoint
from treaty.log.checkpoint import MAX_NOTE_BYTES, note_key_hash, verify_note

ORIGIN = "coordinator.alliance.example/log"
KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
OTHER_KEY = Ed25519PrivateKey.from_private_bytes(bytes(32))
TREE = Tree(leaf_hash(bytes([index])) for index in range(20))
CHECKPOINT = Checkpoint(ORIGIN, 20, TREE.root(20))
NOTE = sign_checkpoint(CHECKPOINT, KEY).note


def head(size: int, tree: Tree = TREE) -> Checkpoint:
    return Checkpoint(ORIGIN, size, tree.root(size))


def signed_text(text: str, key: Ed25519PrivateKey = KEY, name: str = ORIGIN) -> bytes:
    """A note with a valid signature over any text, to reach the checks behind the signature."""
    blob = base64.b64encode(note_key_hash(name, key.public_key()) + key.sign(text.encode())).decode()
    return f"{text}\n\u2014 {name} {blob}\n".encode()


def test_a_checkpoint_is_written_line_by_line_as_the_format_says() -> None:
    text, _, tail = NOTE.decode().rpartition("\n\n")
    assert text.split("\n") == [ORIGIN, "20", base64.b64encode(TREE.root(20)).decode()]
    assert tail.startswith(f"\u2014 {ORIGIN} ")
    blob = base64.b64decode(tail.split(" ")[2])
    assert blob[:4] == note_key_hash(ORIGIN, KEY.public_key())
    assert len(blob) == 4 + 64


def test_the_key_hash_and_signature_equal_the_published_example_of_a_note() -> None:
    key = Ed25519PublicKey.from_public_bytes(base64.b64decode("ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW")[1:])
    assert note_key_hash("PeterNeumann", key).hex() == "c74f20a3"
    text = b"If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n"
    blob = base64.b64decode(
        "x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM="
    )
    verify_note(text, [("PeterNeumann", blob)], "PeterNeumann", key)


@given(size=st.integers(0, 2**63 - 1), root=st.binary(min_size=32, max_size=32))
def test_what_is_signed_is_what_is_believed(size: int, root: bytes) -> None:
    signed = sign_checkpoint(Checkpoint(ORIGIN, size, root), KEY)
    assert verify_checkpoint(signed.note, ORIGIN, KEY.public_key()) == Checkpoint(ORIGIN, size, root)


@given(at=st.integers(0, len(NOTE) - 1), bit=st.integers(0, 7))
def test_a_checkpoint_with_one_flipped_bit_is_refused(at: int, bit: int) -> None:
    flipped = NOTE[:at] + bytes([NOTE[at] ^ (1 << bit)]) + NOTE[at + 1 :]
    with pytest.raises(FoedusError):
        verify_checkpoint(flipped, ORIGIN, KEY.public_key())


@given(st.binary(max_size=300))
def test_any_other_bytes_are_refused_with_an_error_of_the_tree(junk: bytes) -> None:
    with pytest.raises(FoedusError):
        verify_checkpoint(junk, ORIGIN, KEY.public_key())


def test_a_checkpoint_of_another_key_is_refused() -> None:
    with pytest.raises(BadSignature, match=f"no signature by the key of log {ORIGIN}"):
        verify_checkpoint(NOTE, ORIGIN, OTHER_KEY.public_key())


def test_a_checkpoint_under_another_name_is_refused() -> None:
    with pytest.raises(BadSignature, match=r"no signature by the key of log elsewhere\.example/log"):
        verify_checkpoint(NOTE, "elsewhere.example/log", KEY.public_key())


def test_a_checkpoint_that_the_log_signed_for_another_origin_is_refused() -> None:
    root = base64.b64encode(EMPTY_ROOT).decode()
    with pytest.raises(TrustError, match="the checkpoint is of another log") as refused:
        verify_checkpoint(signed_text(f"elsewhere.example/log\n0\n{root}\n"), ORIGIN, KEY.public_key())
    assert refused.value.code == "LOG_ORIGIN"


def test_a_witness_beside_the_log_is_ignored_and_a_false_signature_of_the_log_is_not() -> None:
    witness = f"\u2014 witness.example/w {base64.b64encode(bytes(76)).decode()}\n".encode()
    assert verify_checkpoint(NOTE + witness, ORIGIN, KEY.public_key()) == CHECKPOINT
    forged = base64.b64encode(note_key_hash(ORIGIN, KEY.public_key()) + bytes(64)).decode()
    with pytest.raises(BadSignature, match="does not verify"):
        verify_checkpoint(NOTE + f"\u2014 {ORIGIN} {forged}\n".encode(), ORIGIN, KEY.public_key())


ROOT = base64.b64encode(EMPTY_ROOT).decode()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"{ORIGIN}\n00\n{ROOT}\n", "without leading zeroes"),
        (f"{ORIGIN}\n+1\n{ROOT}\n", "without leading zeroes"),
        (f"{ORIGIN}\n-1\n{ROOT}\n", "without leading zeroes"),
        (f"{ORIGIN}\n\u0661\n{ROOT}\n", "without leading zeroes"),
        (f"{ORIGIN}\n9223372036854775808\n{ROOT}\n", "below 2\\^63"),
        (f"{ORIGIN}\n1\n{ROOT[:-1]}\n", "root is 32 bytes"),
        (f"{ORIGIN}\n1\n{ROOT[:-2]}V=\n", "root is 32 bytes"),
        (f"{ORIGIN}\n1\nAAAA\n", "root is 32 bytes"),
        (f"{ORIGIN}\n1\n", "an origin, a size, a root"),
        (f"\n1\n{ROOT}\n", "no empty line"),
        (f"{ORIGIN}\n1\n{ROOT}\n\nmore\n", "no empty line"),
        (f"{ORIGIN}\n1\r\n{ROOT}\n", "lines of text"),
    ],
)
def test_a_text_in_any_other_spelling_is_refused_even_when_signed(text: str, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        verify_checkpoint(signed_text(text), ORIGIN, KEY.public_key())


def test_extension_lines_are_kept_since_they_were_signed() -> None:
    read = verify_checkpoint(signed_text(f"{ORIGIN}\n0\n{ROOT}\nnoted\n"), ORIGIN, KEY.public_key())
    assert read == Checkpoint(ORIGIN, 0, EMPTY_ROOT, ("noted",))


def test_a_note_beyond_the_limits_is_refused_unread() -> None:
    with pytest.raises(LimitExceeded, match="at most 131072 bytes"):
        verify_checkpoint(NOTE + b"x" * MAX_NOTE_BYTES, ORIGIN, KEY.public_key())
    line = f"\u2014 witness.example/w {base64.b64encode(bytes(76)).decode()}\n".encode()
    assert verify_checkpoint(NOTE + line * 31, ORIGIN, KEY.public_key()) == CHECKPOINT
    with pytest.raises(LimitExceeded, match="at most 32 signatures"):
        verify_checkpoint(NOTE + line * 32, ORIGIN, KEY.public_key())


def test_a_name_that_no_signature_line_can_carry_is_not_signed() -> None:
    for origin in ("", "with space", "with+plus", "line\nbreak"):
        with pytest.raises(InvalidInput, match="a log origin has"):
            sign_checkpoint(Checkpoint(origin, 0, EMPTY_ROOT), KEY)


def test_a_reader_follows_a_log_that_grew() -> None:
    assert follow(None, head(5), []) == head(5)
    assert follow(head(5), head(20), TREE.consistency_proof(5, 20)) == head(20)
    assert follow(head(20), head(20), []) == head(20)


def test_a_reader_refuses_a_log_that_shrank_or_changed_its_past_or_its_name() -> None:
    with pytest.raises(RollbackRefused, match="the log has 5 leaves; this reader has already seen 20"):
        follow(head(20), head(5), TREE.consistency_proof(5, 20))
    rewritten = Tree(leaf_hash(b"rewritten") for _ in range(20))
    with pytest.raises(TrustError, match="does not extend") as refused:
        follow(head(5), head(20, rewritten), rewritten.consistency_proof(5, 20))
    assert refused.value.code == "LOG_CONSISTENCY"
    with pytest.raises(TrustError, match="two different trees of 20 leaves were signed"):
        follow(head(20), head(20, rewritten), [])
    with pytest.raises(TrustError, match="another log"):
        follow(head(5), Checkpoint("elsewhere.example/log", 20, TREE.root(20)), TREE.consistency_proof(5, 20))
