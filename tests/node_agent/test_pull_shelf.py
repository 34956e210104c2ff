"""What the shelf shows, what it refuses to give, and what it clears away."""

from __future__ import annotations

from pathlib import Path

import pytest

from node_agent.pull import pull
from node_agent.shelf import ServedFolders
from tests.node_agent.pulling import shelf_in, tiny_version
from tests.treaty.model_folder import description
from treaty.errors import Corrupt, NotFound, PreconditionFailed
from treaty.names import Digest

UNKNOWN = Digest("sha256:" + "0" * 64)


async def test_an_adapted_version_resolves_to_its_base_and_itself(tmp_path: Path) -> None:
    shelf = shelf_in(tmp_path)
    base, base_source = tiny_version(tmp_path)
    adapter, source = tiny_version(tmp_path, about=description("2.0.0", base=base.digest), seed=b"a")
    await pull(adapter, source, shelf)
    with pytest.raises(PreconditionFailed, match=r"the base .* is not on the shelf; pull the base first"):
        shelf.resolve(adapter.digest)
    await pull(base, base_source, shelf)
    assert shelf.resolve(adapter.digest) == ServedFolders(shelf.files(base.digest), shelf.files(adapter.digest))
    assert shelf.resolve(base.digest) == ServedFolders(shelf.files(base.digest), None)
    assert shelf.versions() == tuple(sorted([base.digest, adapter.digest]))


async def test_an_adapter_of_an_adapter_is_refused(tmp_path: Path) -> None:
    shelf = shelf_in(tmp_path)
    base, base_source = tiny_version(tmp_path, about=description("1.0.0", base=UNKNOWN))
    adapter, source = tiny_version(tmp_path, about=description("2.0.0", base=base.digest))
    await pull(base, base_source, shelf)
    await pull(adapter, source, shelf)
    with pytest.raises(PreconditionFailed, match="the base is an adapter itself"):
        shelf.resolve(adapter.digest)


async def test_a_base_is_not_removed_from_under_its_adapter(tmp_path: Path) -> None:
    shelf = shelf_in(tmp_path)
    base, base_source = tiny_version(tmp_path)
    adapter, source = tiny_version(tmp_path, about=description("2.0.0", base=base.digest), seed=b"a")
    await pull(base, base_source, shelf)
    await pull(adapter, source, shelf)
    with pytest.raises(PreconditionFailed, match="adapts this one; remove that one first"):
        shelf.remove(base.digest)
    shelf.remove(adapter.digest)
    shelf.remove(base.digest)
    shelf.remove(base.digest)
    assert shelf.versions() == ()
    assert list((tmp_path / "shelf").iterdir()) == []


async def test_a_removal_that_a_crash_interrupted_is_finished_at_the_next_start(tmp_path: Path) -> None:
    shelf = shelf_in(tmp_path)
    manifest, source = tiny_version(tmp_path)
    await pull(manifest, source, shelf)
    folder = shelf.files(manifest.digest).parent
    folder.rename(folder.with_name(folder.name + ".removed"))
    assert shelf_in(tmp_path).versions() == ()
    assert list((tmp_path / "shelf").iterdir()) == []


async def test_a_damaged_manifest_is_said_and_a_missing_version_is_not_found(tmp_path: Path) -> None:
    shelf = shelf_in(tmp_path)
    manifest, source = tiny_version(tmp_path)
    await pull(manifest, source, shelf)
    path = shelf.files(manifest.digest).parent / "manifest.json"
    path.write_bytes(path.read_bytes().replace(b"tiny-llama", b"tony-llama"))
    with pytest.raises(Corrupt, match="is damaged; remove the version and pull it again"):
        shelf.manifest(manifest.digest)
    for ask in (shelf.manifest, shelf.files, shelf.resolve):
        with pytest.raises(NotFound, match="is not on the shelf; pull it first"):
            ask(UNKNOWN)
