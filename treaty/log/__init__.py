"""The record's mathematics: a Merkle log whose leaves hide what they commit to.

`hashing` builds the tree and its proofs (RFC 6962), `proofs` verifies them (RFC 9162), `checkpoint` signs and believes
tree heads (C2SP tlog-checkpoint), `leaf` salts statements so that they can be forgotten, `tiles` lays the tree out as
static pieces (C2SP tlog-tiles). No I/O; where the log lies on disk is for each side to say.
"""

from treaty.log.checkpoint import (
    Checkpoint,
    SignedCheckpoint,
    check_origin,
    follow,
    sign_checkpoint,
    verify_checkpoint,
)
from treaty.log.hashing import EMPTY_ROOT, HASH_BYTES, Tree, leaf_hash, node_hash
from treaty.log.leaf import MAX_STATEMENT_BYTES, SALT_BYTES, Entry, Leaf, leaf_data, new_entry, verify_leaf
from treaty.log.proofs import MAX_PROOF_HASHES, verify_consistency, verify_inclusion
from treaty.log.tiles import TileRef, parse_tile_path, tile_bytes, tile_path

__all__ = [
    "EMPTY_ROOT",
    "HASH_BYTES",
    "MAX_PROOF_HASHES",
    "MAX_STATEMENT_BYTES",
    "SALT_BYTES",
    "Checkpoint",
    "Entry",
    "Leaf",
    "SignedCheckpoint",
    "TileRef",
    "Tree",
    "check_origin",
    "follow",
    "leaf_data",
    "leaf_hash",
    "new_entry",
    "node_hash",
    "parse_tile_path",
    "sign_checkpoint",
    "tile_bytes",
    "tile_path",
    "verify_checkpoint",
    "verify_consistency",
    "verify_inclusion",
    "verify_leaf",
]
