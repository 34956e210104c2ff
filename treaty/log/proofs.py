"""Is this leaf in that tree, and is that tree an extension of this one?

Both checks rebuild roots from a proof that a stranger sent and compare them with roots the caller already believes
(from a verified checkpoint). They raise on any doubt: a proof that is too short, too long, of the wrong shape or leads
elsewhere is the same refusal, because none of them is a proof.

This module reads no tree and no signature: sizes and roots must come from `checkpoint.verify_checkpoint`.
"""

from __future__ import annotations

import hmac
from collections.abc import Sequence

from treaty.errors import TrustError
from treaty.log.hashing import EMPTY_ROOT, HASH_BYTES, node_hash

MAX_PROOF_HASHES = 64
"""A tree of 2^63 leaves needs 63 for inclusion and 64 for consistency; more is not a proof but a burden."""

INCLUSION_REFUSED = "LOG_INCLUSION"
CONSISTENCY_REFUSED = "LOG_CONSISTENCY"


def verify_inclusion(leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> None:
    """Check that `leaf` (a leaf hash) is leaf `index` of the tree of `size` leaves with this `root`.

    Raises: TrustError: it is not, or the proof does not show it (code LOG_INCLUSION).
    Source: RFC 9162 section 2.1.3.2.
    """
    if not 0 <= index < size or len(leaf) != HASH_BYTES:
        raise TrustError(f"leaf {index} cannot be in a tree of {size}", code=INCLUSION_REFUSED)
    _check_shape(proof, INCLUSION_REFUSED)
    fn, sn, reached = index, size - 1, leaf
    for sibling in proof:
        if sn == 0:
            raise TrustError("the inclusion proof is too long", code=INCLUSION_REFUSED)
        if fn & 1 or fn == sn:
            reached = node_hash(sibling, reached)
            while not fn & 1 and fn:
                fn, sn = fn >> 1, sn >> 1
        else:
            reached = node_hash(reached, sibling)
        fn, sn = fn >> 1, sn >> 1
    if sn:
        raise TrustError("the inclusion proof is too short", code=INCLUSION_REFUSED)
    if not hmac.compare_digest(reached, root):
        raise TrustError(f"leaf {index} is not in the tree of {size} with this root", code=INCLUSION_REFUSED)


def verify_consistency(
    old_size: int, new_size: int, proof: Sequence[bytes], *, old_root: bytes, new_root: bytes
) -> None:
    """Check that the tree of `new_size` begins with the very leaves of the tree of `old_size`.

    Raises: TrustError: it does not, or the proof does not show it (code LOG_CONSISTENCY).
    Source: RFC 9162 section 2.1.4.2; sizes 0 and equal sizes, which it leaves open, need an empty proof.
    """
    if not 0 <= old_size <= new_size:
        raise TrustError(f"a tree of {new_size} cannot extend one of {old_size}", code=CONSISTENCY_REFUSED)
    _check_shape(proof, CONSISTENCY_REFUSED)
    if old_size in (0, new_size):
        _check_trivial(old_size, new_size, proof, old_root=old_root, new_root=new_root)
        return
    if not proof:
        raise TrustError("the consistency proof is too short", code=CONSISTENCY_REFUSED)
    # A tree whose size is a power of two is a complete subtree of the new one: its root is its own first hash.
    hashes = [old_root, *proof] if old_size & (old_size - 1) == 0 else list(proof)
    fn, sn = old_size - 1, new_size - 1
    while fn & 1:
        fn, sn = fn >> 1, sn >> 1
    reached_old = reached_new = hashes[0]
    for sibling in hashes[1:]:
        if sn == 0:
            raise TrustError("the consistency proof is too long", code=CONSISTENCY_REFUSED)
        if fn & 1 or fn == sn:
            reached_old = node_hash(sibling, reached_old)
            reached_new = node_hash(sibling, reached_new)
            while not fn & 1 and fn:
                fn, sn = fn >> 1, sn >> 1
        else:
            reached_new = node_hash(reached_new, sibling)
        fn, sn = fn >> 1, sn >> 1
    if sn:
        raise TrustError("the consistency proof is too short", code=CONSISTENCY_REFUSED)
    if not (hmac.compare_digest(reached_old, old_root) and hmac.compare_digest(reached_new, new_root)):
        raise TrustError(f"the tree of {new_size} does not extend the tree of {old_size}", code=CONSISTENCY_REFUSED)


def _check_shape(proof: Sequence[bytes], code: str) -> None:
    if len(proof) > MAX_PROOF_HASHES or any(len(part) != HASH_BYTES for part in proof):
        raise TrustError(f"a proof is at most {MAX_PROOF_HASHES} hashes of 32 bytes", code=code)


def _check_trivial(old_size: int, new_size: int, proof: Sequence[bytes], *, old_root: bytes, new_root: bytes) -> None:
    if proof:
        raise TrustError("the consistency proof is too long", code=CONSISTENCY_REFUSED)
    if old_size == 0 and not hmac.compare_digest(old_root, EMPTY_ROOT):
        raise TrustError("the empty tree has another root", code=CONSISTENCY_REFUSED)
    if new_size == 0 and not hmac.compare_digest(new_root, EMPTY_ROOT):
        raise TrustError("the empty tree has another root", code=CONSISTENCY_REFUSED)
    if old_size == new_size and not hmac.compare_digest(old_root, new_root):
        raise TrustError(f"two different trees of {new_size} leaves were signed", code=CONSISTENCY_REFUSED)
