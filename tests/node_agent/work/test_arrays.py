"""Global arrays of several runs in one nation: each run's are its own."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np

from node_agent.arrays import GlobalArrays
from tests.node_agent.work.nation import KeepingBorder
from tests.treaty.model_folder import description
from treaty.adapter import ARRAYS_FILE, encode_arrays
from treaty.manifest import Manifest
from treaty.manifest_build import build, chunks_of
from treaty.names import RunId

ONE, OTHER = RunId("run-1"), RunId("run-2")


def offered(border: KeepingBorder, root: Path, value: float) -> Manifest:
    folder = root / f"offered-{value}"
    folder.mkdir()
    (folder / ARRAYS_FILE).write_bytes(encode_arrays({"w": np.full((2, 2), value, dtype=np.float32)}))
    manifest = build(folder, description("0.0.1"))
    border.chunks.update(chunks_of(folder, manifest))
    return manifest


async def test_the_end_of_a_run_and_its_rounds_take_nothing_from_another(tmp_path: Path) -> None:
    border, arrays = KeepingBorder(), GlobalArrays(tmp_path / "arrays")
    first, *others = (offered(border, tmp_path, value) for value in (1.0, 2.0, 3.0, 4.0))
    await arrays.pulled(ONE, first, border)
    for manifest in others:
        await arrays.pulled(OTHER, manifest, border)
    await arrays.clear(OTHER)
    fetched = list(border.fetched)
    assert float((await arrays.pulled(ONE, first, border))["w"][0, 0]) == 1.0
    assert border.fetched == fetched
    await arrays.clear(ONE)
    assert not list((tmp_path / "arrays" / "shelf").iterdir())


async def test_what_was_pulled_is_read_before_anything_is_forgotten(tmp_path: Path) -> None:
    border, arrays = KeepingBorder(), GlobalArrays(tmp_path / "arrays")
    first, second = offered(border, tmp_path, 1.0), offered(border, tmp_path, 2.0)
    one, other, _ = await asyncio.gather(
        arrays.pulled(ONE, first, border), arrays.pulled(OTHER, second, border), arrays.clear(ONE)
    )
    assert (float(one["w"][0, 0]), float(other["w"][0, 0])) == (1.0, 2.0)
