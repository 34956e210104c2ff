"""What did the log say its tree was, and did it really say so?

A checkpoint is a C2SP tlog-checkpoint: a signed note whose text is the origin, the size and the root, signed with
Ed25519 by the log's key under the origin as key name. Steps of `verify_checkpoint`, carried into the code:

1. The note is bounded, UTF-8, without control characters, and ends in well-formed signature lines.
2. At least one line is by the log's key (name and 4-byte key hash), and each of those verifies. Others are ignored, as
   the format demands: witnesses will sign beside the log.
3. Only now is the text read: exactly origin, size, root and any extension lines, each in its one spelling.
4. The origin is the one that the caller expects.

The caller brings the public key, as the charter names it. Nothing here fetches, stores or trusts a key on first use.
`follow` says how one believed checkpoint may succeed another. Until witnesses cosign, two readers who are shown two
different logs cannot notice it here.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from treaty.errors import BadSignature, InvalidInput, LimitExceeded, RollbackRefused, TrustError
from treaty.log.hashing import HASH_BYTES
from treaty.log.proofs import verify_consistency

MAX_NOTE_BYTES = 128 * 1024
"""Room for sixteen signatures of 5 kB, which a verifier must accept (C2SP signed-note), and no more."""

MAX_SIGNATURES = 32
MAX_SIZE = 2**63 - 1

_ED25519 = b"\x01"
_KEY_HASH_BYTES = 4
_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f]")
_NAME = re.compile(r"[^\s+\x00-\x1f]{1,255}\Z")
_SIZE = re.compile(r"(0|[1-9][0-9]{0,18})\Z", re.ASCII)
_SIGNATURE = re.compile(r"\u2014 (?P<name>[^\s+]+) (?P<blob>[A-Za-z0-9+/]+={0,2})\Z")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A log's tree head: `root` is the root of the first `size` leaves of the log called `origin`."""

    origin: str
    size: int
    root: bytes
    extensions: tuple[str, ...] = ()

    def text(self) -> bytes:
        """The signed text, final newline included. Source: C2SP tlog-checkpoint, "Note text"."""
        lines = (self.origin, str(self.size), base64.b64encode(self.root).decode(), *self.extensions)
        return "".join(f"{line}\n" for line in lines).encode()


@dataclass(frozen=True, slots=True)
class SignedCheckpoint:
    """A believed checkpoint beside the signed note it was read from (what is stored and sent)."""

    checkpoint: Checkpoint
    note: bytes


def note_key_hash(name: str, key: Ed25519PublicKey) -> bytes:
    """Source: C2SP signed-note, "Ed25519 signatures"."""
    raw = key.public_bytes(Encoding.Raw, PublicFormat.Raw)
    return hashlib.sha256(name.encode() + b"\n" + _ED25519 + raw).digest()[:_KEY_HASH_BYTES]


def check_origin(origin: str) -> str:
    """An origin is also the name of its key: not empty, no spaces, no plus sign, at most 255 characters."""
    if not _NAME.match(origin):
        raise InvalidInput("a log origin has 1 to 255 characters, none of them a space, a plus sign or a control")
    return origin


def sign_checkpoint(checkpoint: Checkpoint, key: Ed25519PrivateKey) -> SignedCheckpoint:
    """Sign a tree head. The caller vouches that it extends every head this key has signed."""
    check_origin(checkpoint.origin)
    if not 0 <= checkpoint.size <= MAX_SIZE or len(checkpoint.root) != HASH_BYTES or checkpoint.extensions:
        raise InvalidInput("a checkpoint to sign has a size in [0, 2^63), a root of 32 bytes and no extensions")
    text = checkpoint.text()
    blob = note_key_hash(checkpoint.origin, key.public_key()) + key.sign(text)
    line = f"\u2014 {checkpoint.origin} {base64.b64encode(blob).decode()}\n"
    return SignedCheckpoint(checkpoint, text + b"\n" + line.encode())


def verify_checkpoint(note: bytes, origin: str, key: Ed25519PublicKey) -> Checkpoint:
    """Believe a signed checkpoint of the log `origin`, whose key is `key`.

    Raises:
        InvalidInput: the bytes are not a checkpoint; LimitExceeded where they are too many.
        BadSignature: the log's key did not sign them.
        TrustError: it did, but for another log (code LOG_ORIGIN).
    """
    text, signatures = _split(note)  # 1
    verify_note(text, signatures, check_origin(origin), key)  # 2
    checkpoint = _parse(text)  # 3
    if checkpoint.origin != origin:  # 4
        raise TrustError("the checkpoint is of another log", code="LOG_ORIGIN")
    return checkpoint


def follow(known: Checkpoint | None, offered: Checkpoint, proof: Sequence[bytes]) -> Checkpoint:
    """Accept `offered`, itself verified, as the successor of the last checkpoint this reader kept.

    Raises:
        RollbackRefused: the log became smaller.
        TrustError: another log, another history, or no proof of the same one.
    """
    if known is None:
        return offered
    if offered.origin != known.origin:
        raise TrustError("the checkpoint is of another log", code="LOG_ORIGIN")
    if offered.size < known.size:
        raise RollbackRefused(f"the log has {offered.size} leaves; this reader has already seen {known.size}")
    verify_consistency(known.size, offered.size, proof, old_root=known.root, new_root=offered.root)
    return offered


def verify_note(text: bytes, signatures: Sequence[tuple[str, bytes]], name: str, key: Ed25519PublicKey) -> None:
    """Check that `key`, called `name`, signed `text`; `signatures` are (key name, key hash and signature).

    Raises: BadSignature: no signature by this key, or one that does not verify.
    Source: C2SP signed-note, "Signatures".
    """
    key_hash = note_key_hash(name, key)
    ours = [blob[_KEY_HASH_BYTES:] for by, blob in signatures if by == name and blob[:_KEY_HASH_BYTES] == key_hash]
    if not ours:
        raise BadSignature(f"the checkpoint carries no signature by the key of log {name}")
    for signature in ours:
        try:
            key.verify(signature, text)
        except InvalidSignature as err:
            raise BadSignature(f"the signature of log {name} does not verify") from err


def _split(note: bytes) -> tuple[bytes, list[tuple[str, bytes]]]:
    """Text and signatures of a signed note. Source: C2SP signed-note, "Format"."""
    if len(note) > MAX_NOTE_BYTES:
        raise LimitExceeded(f"a checkpoint has at most {MAX_NOTE_BYTES} bytes")
    try:
        whole = note.decode()
    except UnicodeDecodeError as err:
        raise InvalidInput("a checkpoint is UTF-8 text") from err
    text, gap, tail = whole.rpartition("\n\n")
    if not gap or not text or not tail.endswith("\n") or _CONTROL.search(whole):
        raise InvalidInput("a checkpoint is lines of text, an empty line and lines of signatures")
    lines = tail[:-1].split("\n")
    if len(lines) > MAX_SIGNATURES:
        raise LimitExceeded(f"a checkpoint carries at most {MAX_SIGNATURES} signatures")
    return f"{text}\n".encode(), [_signature(line) for line in lines]


def _signature(line: str) -> tuple[str, bytes]:
    match = _SIGNATURE.match(line)
    blob = _base64(match["blob"]) if match else b""
    if not match or len(blob) <= _KEY_HASH_BYTES:
        raise InvalidInput("a signature line is an em dash, a key name and a signature in base64")
    return match["name"], blob


def _parse(text: bytes) -> Checkpoint:
    """Source: C2SP tlog-checkpoint, "Note text"."""
    lines = text.decode()[:-1].split("\n")
    if len(lines) < 3 or not all(lines):
        raise InvalidInput("a checkpoint's text is an origin, a size, a root and no empty line")
    origin, size, root_text, *extensions = lines
    if not _SIZE.match(size) or int(size) > MAX_SIZE:
        raise InvalidInput("a checkpoint's size is a decimal number below 2^63 without leading zeroes")
    root = _base64(root_text)
    if len(root) != HASH_BYTES:
        raise InvalidInput("a checkpoint's root is 32 bytes in base64")
    return Checkpoint(origin, int(size), root, tuple(extensions))


def _base64(text: str) -> bytes:
    """Decode standard base64 in its one canonical spelling; anything else is empty bytes, which no caller accepts."""
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return b""
    return raw if base64.b64encode(raw).decode() == text else b""
