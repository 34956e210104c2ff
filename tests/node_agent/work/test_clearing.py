"""What leaves the shelf after a rollout, and what never does."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from node_agent.clearing import clear
from node_agent.shelf import FILES_FOLDER, MANIFEST_FILE, Shelf
from tests.treaty.model_folder import description, model_folder, safetensors
from treaty.errors import Corrupt
from treaty.manifest_build import build
from treaty.names import Digest


class Shelved:
    """A shelf whose versions are a second apart."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.shelf = Shelf(root / "shelf", root / "staging")
        self._count = 0

    def put(self, number: str, base: Digest | None = None) -> Digest:
        self._count += 1
        folder = model_folder(self.root / number, safetensors({"w": ("F32", [2], bytes([self._count] * 8))}))
        manifest = build(folder, description(number, base=base))
        place = self.root / "shelf" / manifest.digest.removeprefix("sha256:")
        (place / FILES_FOLDER).mkdir(parents=True)
        (place / MANIFEST_FILE).write_bytes(manifest.encoded)
        os.utime(place / MANIFEST_FILE, (self._count, self._count))
        return manifest.digest


@pytest.fixture
def shelved(tmp_path: Path) -> Shelved:
    return Shelved(tmp_path)


def test_the_newest_stay_until_there_are_enough(shelved: Shelved) -> None:
    first, second, third, fourth = (shelved.put(f"{number}.0.0") for number in (1, 2, 3, 4))
    assert clear(shelved.shelf, {fourth}, 3) == [first]
    assert set(shelved.shelf.versions()) == {second, third, fourth}
    assert clear(shelved.shelf, {fourth}, 3) == []


def test_what_is_needed_stays_however_old_and_with_its_base(shelved: Shelved) -> None:
    base, other = shelved.put("1.0.0"), shelved.put("1.1.0")
    fallback = shelved.put("2.0.0", base)
    served = shelved.put("3.0.0", base)
    assert clear(shelved.shelf, {served, fallback}, 1) == [other]
    assert set(shelved.shelf.versions()) == {base, fallback, served}


def test_an_adapter_is_not_kept_without_room_for_its_base_and_goes_before_it(shelved: Shelved) -> None:
    base = shelved.put("1.0.0")
    adapter = shelved.put("2.0.0", base)
    served = shelved.put("3.0.0")
    assert clear(shelved.shelf, {served}, 2) == [adapter]
    again = shelved.put("4.0.0", base)
    assert set(clear(shelved.shelf, {served}, 1)) == {base, again}
    assert shelved.shelf.versions() == (served,)


def test_something_needed_that_is_not_here_takes_no_place(shelved: Shelved) -> None:
    first, second = shelved.put("1.0.0"), shelved.put("2.0.0")
    assert clear(shelved.shelf, {second, Digest("sha256:" + "0" * 64)}, 2) == []
    assert set(shelved.shelf.versions()) == {first, second}


def test_a_damaged_manifest_removes_nothing(shelved: Shelved) -> None:
    first, second = shelved.put("1.0.0"), shelved.put("2.0.0")
    (shelved.root / "shelf" / first.removeprefix("sha256:") / MANIFEST_FILE).write_bytes(b"{}")
    with pytest.raises(Corrupt, match="is damaged"):
        clear(shelved.shelf, {second}, 1)
    assert set(shelved.shelf.versions()) == {first, second}
