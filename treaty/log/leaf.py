"""What does a leaf of the log say, and how is it forgotten?

A leaf commits to a statement without showing it. Byte for byte:

    leaf data = SHA-256(salt || statement)          32 bytes; salt is 32 random bytes of this leaf alone
    leaf hash = SHA-256(0x00 || leaf data)          32 bytes; what the tree holds (RFC 6962)

Tiles and entry bundles carry leaf data and hashes only. The salt keeps a reader of the tree from guessing a statement
and testing the guess; so a salt is as confidential as its statement and is deleted with it. After that the leaf data
stays, and so does every proof: that something was recorded there remains provable, what it said does not.

This module does not know what a statement says, nor where salts and statements are kept.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from dataclasses import dataclass

from treaty.errors import InvalidInput, LimitExceeded, TrustError
from treaty.log.hashing import HASH_BYTES, leaf_hash

SALT_BYTES = 32
MAX_STATEMENT_BYTES = 16 * 1024 * 1024
"""As large as an envelope may be (`treaty.statement`): most are kilobytes, a large model's manifest is megabytes."""


def leaf_data(salt: bytes, statement: bytes) -> bytes:
    """The 32 bytes that the log publishes in place of a statement."""
    if len(salt) != SALT_BYTES:
        raise InvalidInput("a leaf's salt has 32 bytes")
    return hashlib.sha256(salt + statement).digest()


@dataclass(frozen=True, slots=True)
class Entry:
    """A statement to record, with the salt that hides it. Keep both together to offer the same leaf again."""

    salt: bytes
    statement: bytes

    def __post_init__(self) -> None:
        if len(self.salt) != SALT_BYTES:
            raise InvalidInput("a leaf's salt has 32 bytes")
        if not self.statement:
            raise InvalidInput("an empty statement says nothing")
        if len(self.statement) > MAX_STATEMENT_BYTES:
            raise LimitExceeded(f"a statement has at most {MAX_STATEMENT_BYTES} bytes")

    @property
    def data(self) -> bytes:
        return leaf_data(self.salt, self.statement)


def new_entry(statement: bytes) -> Entry:
    """An entry with a fresh random salt."""
    return Entry(os.urandom(SALT_BYTES), statement)


@dataclass(frozen=True, slots=True)
class Leaf:
    """A recorded leaf. Without salt and statement it was forgotten; `data` and so its hash remain."""

    index: int
    data: bytes
    salt: bytes | None
    statement: bytes | None

    @property
    def hash(self) -> bytes:
        return leaf_hash(self.data)

    @property
    def is_forgotten(self) -> bool:
        return self.statement is None


def verify_leaf(leaf: Leaf) -> None:
    """Check that what the leaf shows is what its data commits to; nothing to check where it was forgotten.

    Raises: TrustError: salt and statement do not hash to the leaf's data (code LOG_LEAF).
    """
    if len(leaf.data) != HASH_BYTES or (leaf.salt is None) != (leaf.statement is None):
        raise TrustError(f"leaf {leaf.index} is malformed", code="LOG_LEAF")
    if leaf.salt is None or leaf.statement is None:
        return
    if len(leaf.salt) != SALT_BYTES or not hmac.compare_digest(leaf_data(leaf.salt, leaf.statement), leaf.data):
        raise TrustError(f"the statement of leaf {leaf.index} is not what the log committed to", code="LOG_LEAF")
