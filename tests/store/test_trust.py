"""Charters follow one another, bundles never go back, revocations stay. On both databases."""

from __future__ import annotations

import pytest

from controlplane.store import Store
from controlplane.store.ports.trust import Revocation, RevocationKind
from tests.store.builders import FR, PAR, digest
from tests.store.conftest import NOON, Clock
from treaty.errors import ConflictError, NotFound, RollbackRefused
from treaty.names import PartyCode

EU = PartyCode("EU")


async def test_charter_versions_are_consecutive(store: Store) -> None:
    with pytest.raises(NotFound, match="there is no charter"):
        await store.trust.charter()
    await store.trust.add_charter(1, digest("one"), b"one")
    await store.trust.add_charter(1, digest("one"), b"one")
    with pytest.raises(ConflictError, match="another charter has version 1"):
        await store.trust.add_charter(1, digest("other"), b"other")
    with pytest.raises(ConflictError, match="charter version 3 does not follow 1; add version 2 first"):
        await store.trust.add_charter(3, digest("three"), b"three")
    await store.trust.add_charter(2, digest("two"), b"two")
    with pytest.raises(RollbackRefused, match="charter version 1 is older than 2"):
        await store.trust.add_charter(1, digest("one"), b"one")
    latest = await store.trust.charter()
    assert (latest.version, latest.envelope, latest.added_at) == (2, b"two", NOON)
    assert (await store.trust.charter(1)).envelope == b"one"


async def test_a_revocation_is_final_and_the_first_one_stays(store: Store, clock: Clock) -> None:
    await store.trust.revoke(RevocationKind.AGENT, PAR, reason="lost", revoked_by="operator/a")
    clock.advance(60)
    await store.trust.revoke(RevocationKind.AGENT, PAR, reason="again", revoked_by="operator/b")
    await store.trust.revoke(RevocationKind.CA, digest("ca"), reason="stolen", revoked_by="FR")
    assert (await store.trust.revocations())[0] == Revocation(RevocationKind.AGENT, PAR, "lost", "operator/a", NOON)
    assert len(await store.trust.revocations()) == 2


async def test_a_bundle_revision_is_never_lowered(store: Store) -> None:
    async def add(revision: int, text: str, authority: PartyCode = EU) -> None:
        await store.trust.add_bundle(authority, revision, digest=digest(text), bundle=text.encode(), envelope=b"signed")

    await add(3, "three")
    await add(3, "three")
    await add(1, "overlay", FR)
    with pytest.raises(RollbackRefused, match="revision 2 of EU is older than 3"):
        await add(2, "two")
    with pytest.raises(ConflictError, match="revision 3 of EU is another bundle"):
        await add(3, "swapped")
    await add(7, "seven")
    assert (await store.trust.bundle(EU)).bundle == b"seven"
    assert (await store.trust.bundle(EU, 3)).bundle == b"three"
    with pytest.raises(NotFound, match="there is no such policy bundle of EU"):
        await store.trust.bundle(EU, 2)
