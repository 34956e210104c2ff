"""Paths and bytes of tiles, and leaves that hide and forget their statements."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from treaty.errors import InvalidInput, LimitExceeded, TrustError
from treaty.log import (
    MAX_STATEMENT_BYTES,
    Entry,
    Leaf,
    TileRef,
    Tree,
    leaf_hash,
    new_entry,
    parse_tile_path,
    tile_bytes,
    tile_path,
    verify_inclusion,
    verify_leaf,
)
from treaty.log.tiles import decode_bundle, encode_bundle, tiles_at


def test_paths_are_spelled_as_the_format_says() -> None:
    assert tile_path(0, 1234067) == "tile/0/x001/x234/067"
    assert tile_path(0, 0) == "tile/0/000"
    assert tile_path(1, 1000, 17) == "tile/1/x001/000.p/17"
    assert tile_path(None, 273, 112) == "tile/entries/273.p/112"


@given(level=st.none() | st.integers(0, 63), index=st.integers(0, 2**60), width=st.integers(1, 256))
def test_a_path_reads_back_as_the_tile_it_names(level: int | None, index: int, width: int) -> None:
    assert parse_tile_path(tile_path(level, index, width)) == TileRef(level, index, width)


@pytest.mark.parametrize(
    "path",
    [
        "",
        "tile/0/67",
        "tile/00/067",
        "tile/64/067",
        "tile/0/001/067",
        "tile/0/x000/067",
        "tile/0/067.p/0",
        "tile/0/067.p/256",
        "tile/0/067.p/01",
        "tile/0/../067",
        "tile/0/067/",
        "/tile/0/067",
        "tile/data/067",
        "tile/0/067\n",
        "tile/0/" + "x001/" * 40 + "067",
    ],
)
def test_any_other_spelling_is_refused(path: str) -> None:
    with pytest.raises(InvalidInput):
        parse_tile_path(path)


def test_a_tree_of_70000_has_the_tiles_of_the_formats_own_example() -> None:
    tiles = list(tiles_at(70_000))
    assert sum(ref.level == 0 and ref.is_full for ref in tiles) == 273
    assert [ref for ref in tiles if ref.level and ref.is_full] == [TileRef(1, 0)]
    assert [ref for ref in tiles if not ref.is_full] == [TileRef(0, 273, 112), TileRef(1, 1, 17), TileRef(2, 0, 1)]


def test_only_tiles_that_changed_since_a_size_are_named() -> None:
    assert list(tiles_at(256, 255)) == [TileRef(0, 0), TileRef(1, 0, 1)]
    assert list(tiles_at(300, 256)) == [TileRef(0, 1, 44), TileRef(1, 0, 1)]
    assert list(tiles_at(0)) == []


def test_a_tile_one_level_up_holds_the_roots_of_the_full_tiles_below() -> None:
    leaves = [leaf_hash(index.to_bytes(4, "big")) for index in range(600)]
    tree = Tree(leaves)
    assert tile_bytes(tree, TileRef(0, 1)) == b"".join(leaves[256:512])
    assert tile_bytes(tree, TileRef(0, 2, 88)) == b"".join(leaves[512:600])
    assert tile_bytes(tree, TileRef(1, 0, 2)) == Tree(leaves[:256]).root() + Tree(leaves[256:512]).root()
    with pytest.raises(InvalidInput, match="are not complete at size 600"):
        tile_bytes(tree, TileRef(1, 0, 3))


def test_a_bundle_is_length_prefixed_and_read_strictly() -> None:
    bundle = encode_bundle([b"a", b"bc"])
    assert bundle == b"\x00\x01a\x00\x02bc"
    assert decode_bundle(bundle, 2) == [b"a", b"bc"]
    for wrong, width in ((bundle, 1), (bundle, 3), (bundle[:-1], 2), (bundle + b"\x00", 2), (b"", 1)):
        with pytest.raises(InvalidInput, match="not a bundle of"):
            decode_bundle(wrong, width)


def test_a_leaf_is_the_salted_hash_of_its_statement() -> None:
    entry = Entry(bytes(range(32)), b"statement")
    assert entry.data == hashlib.sha256(bytes(range(32)) + b"statement").digest()
    assert Leaf(0, entry.data, entry.salt, entry.statement).hash == hashlib.sha256(b"\x00" + entry.data).digest()
    assert new_entry(b"statement").data != new_entry(b"statement").data


def test_a_forgotten_statement_leaves_its_proof_whole() -> None:
    entries = [new_entry(f"statement {index}".encode()) for index in range(5)]
    tree = Tree(leaf_hash(entry.data) for entry in entries)
    forgotten = Leaf(2, entries[2].data, None, None)
    verify_leaf(forgotten)
    assert forgotten.is_forgotten
    verify_inclusion(forgotten.hash, 2, 5, tree.inclusion_proof(2, 5), tree.root())


def test_a_statement_that_was_not_recorded_is_refused() -> None:
    entry = new_entry(b"the nation said yes")
    verify_leaf(Leaf(0, entry.data, entry.salt, entry.statement))
    with pytest.raises(TrustError, match="not what the log committed to") as refused:
        verify_leaf(Leaf(0, entry.data, entry.salt, b"the nation said no"))
    assert refused.value.code == "LOG_LEAF"
    with pytest.raises(TrustError, match="leaf 0 is malformed"):
        verify_leaf(Leaf(0, entry.data, entry.salt, None))


def test_an_entry_keeps_to_its_bounds() -> None:
    with pytest.raises(LimitExceeded, match="at most 16777216 bytes"):
        new_entry(bytes(MAX_STATEMENT_BYTES + 1))
    with pytest.raises(InvalidInput, match="an empty statement says nothing"):
        new_entry(b"")
    with pytest.raises(InvalidInput, match="salt has 32 bytes"):
        Entry(b"short", b"statement")
