"""Manifests, signatures, chunks and who may pull them. On both databases."""

from __future__ import annotations

import pytest

from controlplane.store import Store
from controlplane.store.ports.artifacts import ChunkReference, StoredManifest, StoredSignature
from tests.store.builders import PAR, digest
from tests.store.conftest import NOON
from treaty.errors import ConflictError, NotFound
from treaty.names import KeyId

BASE = digest("base")
TUNED = digest("tuned")
SHARED = ChunkReference(digest("shared chunk"), 4_194_304)
OWN = ChunkReference(digest("own chunk"), 17)
KEY = KeyId(digest("key"))
LYO = "spiffe://fr.treaty.example/agent/lyo-1"


async def add_both(store: Store) -> None:
    await store.artifacts.add_manifest(BASE, b"base", owner="publisher/p", chunks=[SHARED, SHARED])
    await store.artifacts.add_manifest(TUNED, b"tuned", owner="publisher/p", chunks=[SHARED, OWN])


async def test_a_draft_is_ready_when_it_is_marked(store: Store) -> None:
    await add_both(store)
    await add_both(store)
    assert [draft.manifest for draft in await store.artifacts.drafts()] == sorted(
        [b"base", b"tuned"], key=lambda text: digest(text.decode())
    )
    await store.artifacts.mark_ready(BASE)
    assert await store.artifacts.manifest(BASE) == StoredManifest(BASE, b"base", "publisher/p", True, NOON)
    assert [draft.digest for draft in await store.artifacts.drafts()] == [TUNED]
    with pytest.raises(ConflictError, match="is known with other bytes"):
        await store.artifacts.add_manifest(BASE, b"swapped", owner="publisher/p", chunks=[])
    with pytest.raises(NotFound, match="there is no such manifest"):
        await store.artifacts.mark_ready(digest("unknown"))


async def test_one_signature_per_key_is_kept(store: Store) -> None:
    await add_both(store)
    await store.artifacts.sign(BASE, KEY, b"first")
    await store.artifacts.sign(BASE, KEY, b"second")
    assert await store.artifacts.signatures(BASE) == (StoredSignature(KEY, b"first"),)
    assert await store.artifacts.signatures(TUNED) == ()
    with pytest.raises(NotFound):
        await store.artifacts.sign(digest("unknown"), KEY, b"x")


async def test_a_chunk_is_unreferenced_when_its_last_manifest_is_dropped(store: Store) -> None:
    await add_both(store)
    assert await store.artifacts.chunks(BASE) == (SHARED,)
    assert await store.artifacts.unreferenced([SHARED.digest, OWN.digest]) == ()
    await store.artifacts.sign(TUNED, KEY, b"x")
    await store.artifacts.grant(PAR, TUNED, "rollout/r1")
    assert await store.artifacts.may_pull(PAR, TUNED)
    await store.artifacts.drop_manifest(TUNED)
    await store.artifacts.drop_manifest(TUNED)
    assert await store.artifacts.unreferenced([SHARED.digest, OWN.digest]) == (OWN.digest,)
    assert await store.artifacts.signatures(TUNED) == ()
    assert not await store.artifacts.may_pull(PAR, TUNED)


async def test_many_chunks_are_asked_for_at_once(store: Store) -> None:
    await add_both(store)
    many = sorted(digest(str(number)) for number in range(2_000))
    assert await store.artifacts.unreferenced([*many, OWN.digest]) == tuple(many)


async def test_a_pull_needs_a_grant_for_the_manifest(store: Store) -> None:
    await add_both(store)
    await store.artifacts.grant(PAR, BASE, "rollout/r1")
    await store.artifacts.grant(PAR, BASE, "rollout/r1")
    assert await store.artifacts.may_pull(PAR, BASE)
    assert not await store.artifacts.may_pull(PAR, TUNED)
    assert not await store.artifacts.may_pull(LYO, BASE)
    with pytest.raises(NotFound):
        await store.artifacts.grant(PAR, digest("unknown"), "rollout/r1")


async def test_a_grant_ends_with_its_subject_only(store: Store) -> None:
    await add_both(store)
    await store.artifacts.grant(PAR, BASE, "rollout/r1")
    await store.artifacts.grant(PAR, BASE, "run/x")
    await store.artifacts.withdraw(PAR, "rollout/r1")
    assert await store.artifacts.may_pull(PAR, BASE)
    await store.artifacts.withdraw(PAR, "run/x")
    assert not await store.artifacts.may_pull(PAR, BASE)
