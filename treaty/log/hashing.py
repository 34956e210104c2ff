"""What is the root of these leaves, and which hashes prove it?

The Merkle tree of RFC 6962: a leaf is hashed behind a 0x00 byte, a node behind 0x01, so that neither can pass for the
other. `Tree` keeps the hash of every complete subtree, level by level; an append costs two hashes on average, a root
and a proof cost O(log n) whatever the size asked for. It holds 64 bytes a leaf.

Rules: a tree only grows; every question names the size it is about; a size beyond the tree is refused, never rounded.

This module knows no files, no signatures and no statements. Verification is in `proofs`, so that whoever only verifies
needs no tree.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from treaty.errors import InvalidInput, NotFound

HASH_BYTES = 32
EMPTY_ROOT = hashlib.sha256(b"").digest()
"""Root of the tree without leaves. Source: RFC 6962 section 2.1."""


def leaf_hash(data: bytes) -> bytes:
    """Source: RFC 6962 section 2.1, `SHA-256(0x00 || d)`."""
    return hashlib.sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Source: RFC 6962 section 2.1, `SHA-256(0x01 || left || right)`."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def split(width: int) -> int:
    """The largest power of two below `width`, which is at least 2: where RFC 6962 divides a range."""
    return 1 << ((width - 1).bit_length() - 1)


class Tree:
    """An append-only Merkle tree in memory.

    One writer at a time. A reader in another thread is safe for every size that it read from `size`: a leaf is counted
    only once all its subtrees are in place.
    """

    __slots__ = ("_levels", "_size")

    def __init__(self, leaf_hashes: Iterable[bytes] = ()) -> None:
        self._levels: list[bytearray] = [bytearray()]  # [h]: hashes of the complete subtrees of 2^h leaves, in order
        self._size = 0
        self.extend(leaf_hashes)

    @property
    def size(self) -> int:
        return self._size

    def append(self, leaf: bytes) -> int:
        """Add a leaf by its `leaf_hash`; returns its index."""
        if len(leaf) != HASH_BYTES:
            raise InvalidInput("a leaf hash has 32 bytes")
        index = self._size
        self._levels[0] += leaf
        width, height, node = index + 1, 0, leaf
        while width % 2 == 0:
            node = node_hash(bytes(self._levels[height][-2 * HASH_BYTES : -HASH_BYTES]), node)
            width, height = width // 2, height + 1
            if height == len(self._levels):
                self._levels.append(bytearray())
            self._levels[height] += node
        self._size = index + 1
        return index

    def extend(self, leaf_hashes: Iterable[bytes]) -> None:
        for leaf in leaf_hashes:
            self.append(leaf)

    def hashes(self, height: int, begin: int, end: int) -> bytes:
        """Concatenated hashes of the complete subtrees `begin` to `end` (exclusive) of 2^`height` leaves each."""
        if not (height >= 0 and 0 <= begin <= end and end << height <= self._size):
            raise InvalidInput(f"subtrees {begin} to {end} of height {height} are not complete at size {self._size}")
        return bytes(self._levels[height][begin * HASH_BYTES : end * HASH_BYTES]) if begin < end else b""

    def find(self, leaf: bytes, begin: int = 0) -> int:
        """Index of the first leaf with this hash at or after `begin`. A linear scan at memory speed.

        Raises: NotFound: no such leaf.
        """
        level, end = self._levels[0], self._size * HASH_BYTES
        at = level.find(leaf, begin * HASH_BYTES, end)
        while at >= 0 and at % HASH_BYTES:
            at = level.find(leaf, at + 1, end)
        if at < 0 or len(leaf) != HASH_BYTES:
            raise NotFound("no leaf of the log has this hash")
        return at // HASH_BYTES

    def root(self, size: int | None = None) -> bytes:
        """Root of the first `size` leaves, of all by default."""
        wanted = self._known(self._size if size is None else size)
        return self._range_root(0, wanted) if wanted else EMPTY_ROOT

    def inclusion_proof(self, index: int, size: int) -> list[bytes]:
        """Hashes that lead from leaf `index` to the root of the first `size` leaves, lowest first.

        Source: RFC 6962 section 2.1.1, PATH(m, D[n]).
        """
        if not 0 <= index < self._known(size):
            raise InvalidInput(f"leaf {index} is not in a tree of {size}")
        proof: list[bytes] = []
        begin, end = 0, size
        while end - begin > 1:
            middle = begin + split(end - begin)
            if index < middle:
                proof.append(self._range_root(middle, end))
                end = middle
            else:
                proof.append(self._range_root(begin, middle))
                begin = middle
        return proof[::-1]

    def consistency_proof(self, old: int, new: int) -> list[bytes]:
        """Hashes that show the first `old` leaves to be a prefix of the first `new`; empty where `old` is 0 or `new`.

        Source: RFC 6962 section 2.1.2, PROOF(m, D[n]).
        """
        if not 0 <= old <= self._known(new):
            raise InvalidInput(f"no consistency proof leads from size {old} to {new}")
        proof: list[bytes] = []
        begin, end, is_whole_old_tree = 0, new, True
        while old not in (0, end):
            middle = begin + split(end - begin)
            if old <= middle:
                proof.append(self._range_root(middle, end))
                end = middle
            else:
                proof.append(self._range_root(begin, middle))
                begin, is_whole_old_tree = middle, False
        if not is_whole_old_tree:  # the verifier knows the old root, but not the root of this part of it
            proof.append(self._range_root(begin, end))
        return proof[::-1]

    def _known(self, size: int) -> int:
        if not 0 <= size <= self._size:
            raise InvalidInput(f"size {size} is outside the log, which has {self._size} leaves")
        return size

    def _range_root(self, begin: int, end: int) -> bytes:
        """MTH(D[begin:end]) for a range that RFC 6962 splits off: `begin` is a multiple of its first subtree."""
        peaks: list[bytes] = []
        while begin < end:
            height = (end - begin).bit_length() - 1
            at = (begin >> height) * HASH_BYTES
            peaks.append(bytes(self._levels[height][at : at + HASH_BYTES]))
            begin += 1 << height
        root = peaks.pop()
        while peaks:
            root = node_hash(peaks.pop(), root)
        return root
