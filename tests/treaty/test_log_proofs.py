"""The tree and its proofs, against published roots and against the recursion of RFC 6962 written out naively."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from treaty.errors import InvalidInput, NotFound, TrustError
from treaty.log import EMPTY_ROOT, Tree, leaf_hash, node_hash, verify_consistency, verify_inclusion

LARGEST = 64
LEAVES = [leaf_hash(f"leaf {index}".encode()) for index in range(LARGEST)]
TREE = Tree(LEAVES)

# Inputs and roots of the test tree that Certificate Transparency implementations share.
CT_INPUTS = ("", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f")
CT_ROOTS = (
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
)


def naive_root(leaves: Sequence[bytes]) -> bytes:
    """RFC 6962 section 2.1, word for word."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    return node_hash(naive_root(leaves[:k]), naive_root(leaves[k:]))


def naive_path(m: int, leaves: Sequence[bytes]) -> list[bytes]:
    if len(leaves) <= 1:
        return []
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    if m < k:
        return [*naive_path(m, leaves[:k]), naive_root(leaves[k:])]
    return [*naive_path(m - k, leaves[k:]), naive_root(leaves[:k])]


def naive_subproof(m: int, leaves: Sequence[bytes], is_whole: bool) -> list[bytes]:
    if m == len(leaves):
        return [] if is_whole else [naive_root(leaves)]
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    if m <= k:
        return [*naive_subproof(m, leaves[:k], is_whole), naive_root(leaves[k:])]
    return [*naive_subproof(m - k, leaves[k:], False), naive_root(leaves[:k])]


def test_roots_equal_the_published_ones() -> None:
    tree = Tree(leaf_hash(bytes.fromhex(data)) for data in CT_INPUTS)
    assert [tree.root(size).hex() for size in range(9)] == list(CT_ROOTS)
    assert CT_ROOTS[0] == EMPTY_ROOT.hex()


def test_inclusion_paths_equal_the_examples_of_rfc_6962() -> None:
    a, b, c, d, e, f, j = LEAVES[:7]
    g, h, i = node_hash(a, b), node_hash(c, d), node_hash(e, f)
    k = node_hash(g, h)
    node_l = node_hash(i, j)
    assert TREE.root(7) == node_hash(k, node_l)
    assert TREE.inclusion_proof(0, 7) == [b, h, node_l]
    assert TREE.inclusion_proof(3, 7) == [c, g, node_l]
    assert TREE.inclusion_proof(4, 7) == [f, j, k]
    assert TREE.inclusion_proof(6, 7) == [i, k]


def test_consistency_proofs_equal_the_examples_of_rfc_6962() -> None:
    a, b, c, d, e, f, j = LEAVES[:7]
    g, h, i = node_hash(a, b), node_hash(c, d), node_hash(e, f)
    k = node_hash(g, h)
    node_l = node_hash(i, j)
    assert TREE.consistency_proof(3, 7) == [c, d, g, node_l]
    assert TREE.consistency_proof(4, 7) == [node_l]
    assert TREE.consistency_proof(6, 7) == [i, j, k]


@pytest.mark.parametrize("size", range(LARGEST + 1))
def test_every_root_path_and_consistency_proof_of_a_size_equals_the_naive_recursion(size: int) -> None:
    leaves = LEAVES[:size]
    assert TREE.root(size) == naive_root(leaves)
    for index in range(size):
        proof = TREE.inclusion_proof(index, size)
        assert proof == naive_path(index, leaves)
        verify_inclusion(leaves[index], index, size, proof, TREE.root(size))
    for old in range(size + 1):
        proof = TREE.consistency_proof(old, size)
        assert proof == (naive_subproof(old, leaves, True) if old else [])
        verify_consistency(old, size, proof, old_root=TREE.root(old), new_root=TREE.root(size))


sizes = st.integers(1, LARGEST)


@settings(max_examples=300, deadline=None)
@given(size=sizes, data=st.data())
def test_an_inclusion_proof_with_anything_changed_is_refused(size: int, data: st.DataObject) -> None:
    index = data.draw(st.integers(0, size - 1))
    proof, root, leaf = TREE.inclusion_proof(index, size), TREE.root(size), LEAVES[index]
    wrong = data.draw(st.sampled_from(["leaf", "index", "root", "longer", "shorter", "flipped"]))
    if wrong == "leaf":
        leaf = leaf_hash(b"another")
    elif wrong == "index":
        index = data.draw(st.integers(0, size + 3).filter(lambda other: other != index))
    elif wrong == "root":
        root = leaf_hash(root)
    elif wrong == "longer":
        proof.insert(data.draw(st.integers(0, len(proof))), leaf_hash(b"more"))
    elif proof:
        at = data.draw(st.integers(0, len(proof) - 1))
        flipped = bytes([proof[at][0] ^ 1]) + proof[at][1:]
        proof[at : at + 1] = [] if wrong == "shorter" else [flipped]
    else:
        return  # a tree of one leaf has an empty proof: nothing to shorten or flip
    with pytest.raises(TrustError) as refused:
        verify_inclusion(leaf, index, size, proof, root)
    assert refused.value.code == "LOG_INCLUSION"


@settings(max_examples=300, deadline=None)
@given(size=sizes, data=st.data())
def test_a_consistency_proof_with_anything_changed_is_refused(size: int, data: st.DataObject) -> None:
    old = data.draw(st.integers(1, size))
    proof, old_root, new_root = TREE.consistency_proof(old, size), TREE.root(old), TREE.root(size)
    wrong = data.draw(st.sampled_from(["old root", "new root", "longer", "shorter", "flipped"]))
    if wrong == "old root":
        old_root = leaf_hash(old_root)
    elif wrong == "new root":
        new_root = leaf_hash(new_root)
    elif wrong == "longer":
        proof.insert(data.draw(st.integers(0, len(proof))), leaf_hash(b"more"))
    elif proof:
        at = data.draw(st.integers(0, len(proof) - 1))
        flipped = bytes([proof[at][0] ^ 1]) + proof[at][1:]
        proof[at : at + 1] = [] if wrong == "shorter" else [flipped]
    else:
        return
    with pytest.raises(TrustError) as refused:
        verify_consistency(old, size, proof, old_root=old_root, new_root=new_root)
    assert refused.value.code == "LOG_CONSISTENCY"


@given(old=st.integers(1, LARGEST), new=st.integers(1, LARGEST))
def test_a_log_that_rewrote_one_old_leaf_finds_no_proof(old: int, new: int) -> None:
    old, new = sorted((old, new))
    other = Tree([leaf_hash(b"rewritten"), *LEAVES[1:]])
    with pytest.raises(TrustError):
        verify_consistency(
            old, new, other.consistency_proof(old, new), old_root=TREE.root(old), new_root=other.root(new)
        )


@pytest.mark.parametrize(
    ("old", "new", "old_root", "new_root", "message"),
    [
        (5, 4, TREE.root(5), TREE.root(4), "a tree of 4 cannot extend one of 5"),
        (5, 5, TREE.root(5), TREE.root(6), "two different trees of 5 leaves were signed"),
        (0, 5, TREE.root(1), TREE.root(5), "the empty tree has another root"),
        (0, 0, EMPTY_ROOT, TREE.root(1), "the empty tree has another root"),
        (3, 5, TREE.root(3), TREE.root(5), "the consistency proof is too short"),
    ],
)
def test_sizes_and_roots_that_cannot_be_are_refused_without_a_proof(
    old: int, new: int, old_root: bytes, new_root: bytes, message: str
) -> None:
    with pytest.raises(TrustError, match=re.escape(message)):
        verify_consistency(old, new, [], old_root=old_root, new_root=new_root)


def test_a_proof_of_the_wrong_shape_is_refused_before_it_is_hashed() -> None:
    with pytest.raises(TrustError, match="at most 64 hashes of 32 bytes"):
        verify_inclusion(LEAVES[0], 0, 2, [b"short"], TREE.root(2))
    with pytest.raises(TrustError, match="at most 64 hashes of 32 bytes"):
        verify_consistency(1, 2**62, [LEAVES[0]] * 65, old_root=LEAVES[0], new_root=TREE.root(2))


def test_a_node_cannot_pass_for_a_leaf() -> None:
    assert leaf_hash(LEAVES[0] + LEAVES[1]) != node_hash(LEAVES[0], LEAVES[1])


def test_a_tree_answers_only_for_sizes_it_has() -> None:
    tree = Tree(LEAVES[:5])
    for ask in (lambda: tree.root(6), lambda: tree.inclusion_proof(0, 6), lambda: tree.consistency_proof(2, 6)):
        with pytest.raises(InvalidInput, match="size 6 is outside the log, which has 5 leaves"):
            ask()
    with pytest.raises(InvalidInput, match="leaf 5 is not in a tree of 5"):
        tree.inclusion_proof(5, 5)
    with pytest.raises(InvalidInput, match="no consistency proof leads from size 4 to 3"):
        tree.consistency_proof(4, 3)
    with pytest.raises(InvalidInput, match="a leaf hash has 32 bytes"):
        tree.append(b"short")
    assert (tree.size, tree.root()) == (5, TREE.root(5))


def test_a_leaf_is_found_by_its_hash_and_only_where_it_lies() -> None:
    assert [TREE.find(leaf) for leaf in LEAVES] == list(range(LARGEST))
    straddling = LEAVES[3][16:] + LEAVES[4][:16]
    with pytest.raises(NotFound, match="no leaf of the log has this hash"):
        TREE.find(straddling)
    with pytest.raises(NotFound):
        TREE.find(LEAVES[3], begin=4)
