"""Versions served from confined children: what is observed, what is refused, how one follows another."""

from __future__ import annotations

import math
import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import pytest_asyncio

from node_agent.runtime.local import LocalRuntime, RuntimeSettings, ServedVersion
from node_agent.shelf import Shelf
from node_agent.training.pairs import Languages, Pair
from tests.builders.tiny_llama import base_shapes, build_tiny_llama
from tests.node_agent.training.conftest import tiny_recipe
from tests.treaty.model_folder import description
from treaty.adapter import adapter_files
from treaty.errors import LimitExceeded, PreconditionFailed, TrustError, Unavailable
from treaty.manifest import Manifest
from treaty.manifest_build import build
from treaty.names import Digest, digest_of
from treaty.recipe import Evaluation, initial_arrays

pytestmark = [pytest.mark.torch, pytest.mark.asyncio(loop_scope="module")]

HELD_OUT = [Pair(f"record number {n}", f"xx xx {n}") for n in range(8)]
LANGUAGES = Languages("English", "French")


@dataclass(frozen=True)
class Home:
    """A nation's shelf with a tiny base on it, and its runtime."""

    root: Path
    shelf: Shelf
    base: Manifest
    runtime: LocalRuntime

    def put(self, folder: Path, version: str, base: Digest | None = None) -> Manifest:
        """Place a version on the shelf as a finished pull does."""
        manifest = build(folder, description(version, base=base))
        staged = self.shelf.staging_folder(manifest.digest)
        shutil.copytree(folder, staged / "files")
        (staged / "manifest.json").write_bytes(manifest.encoded)
        self.shelf.admit(manifest.digest)
        return manifest

    def adapter(self, version: str, scale: float) -> Manifest:
        """A version on the base, its adapter's B set to `scale` times noise."""
        folder = self.root / f"adapter-{version}"
        folder.mkdir()
        recipe = tiny_recipe()
        noise = np.random.default_rng(1)
        arrays = {
            name: value if "lora_A" in name else (scale * noise.normal(size=value.shape)).astype(np.float32)
            for name, value in initial_arrays(recipe, base_shapes()).items()
        }
        for name, data in adapter_files(recipe, arrays).items():
            (folder / name).write_bytes(data)
        return self.put(folder, version, self.base.digest)

    def version(self, manifest: Manifest) -> ServedVersion:
        return ServedVersion.on(self.shelf, manifest.digest)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def home(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Home]:
    root = tmp_path_factory.mktemp("nation")
    key = root / "keys" / "agent.key"
    key.parent.mkdir()
    key.write_text("secret")
    shelf = Shelf(root / "shelf", root / "staging")
    runtime = LocalRuntime(RuntimeSettings(), root / "runtime", (key,))
    bare = Home(root, shelf, None, runtime)  # type: ignore[arg-type]
    whole = replace(bare, base=bare.put(build_tiny_llama(root / "base"), "1.0.0"))
    await runtime.start(whole.version(whole.base))
    yield whole
    await runtime.stop()


async def test_the_live_version_is_the_one_that_the_child_found(home: Home) -> None:
    live = home.runtime.live
    assert live is not None
    assert live.is_running
    assert live.observed_digest == home.base.digest
    assert "seccomp" in live.report.layers


async def test_health_generates_and_evaluation_measures(home: Home) -> None:
    live = home.runtime.live
    assert live is not None
    assert isinstance(await live.health("The capital", max_tokens=4), str)
    result = await live.evaluate(Evaluation(sequence_tokens=96), HELD_OUT, LANGUAGES, timeout_seconds=60)
    assert result.metrics["heldout_pairs"] == len(HELD_OUT)
    # A random model guesses among 257 bytes.
    assert abs(result.metrics["heldout_loss_micro"] / 1e6 - math.log(257)) < 0.3


async def test_what_a_version_measured_is_not_measured_again(home: Home) -> None:
    serving = await home.runtime.stage(home.version(home.base))
    usual = Evaluation(sequence_tokens=32)
    measured = await serving.evaluate(usual, HELD_OUT, LANGUAGES, timeout_seconds=60)
    await serving.stop()  # a child that is gone measures nothing
    assert await serving.evaluate(usual, HELD_OUT, LANGUAGES, timeout_seconds=60) == measured
    with pytest.raises(Unavailable):
        await serving.evaluate(usual, HELD_OUT[1:], LANGUAGES, timeout_seconds=60)


async def test_a_candidate_with_an_adapter_is_tried_then_takes_over(home: Home) -> None:
    former = home.runtime.live
    assert former is not None
    candidate = await home.runtime.stage(home.version(home.adapter("1.1.0", scale=0.5)))
    assert home.runtime.live is former
    before = await former.evaluate(Evaluation(), HELD_OUT, LANGUAGES, timeout_seconds=60)
    after = await candidate.evaluate(Evaluation(), HELD_OUT, LANGUAGES, timeout_seconds=60)
    assert before.metrics["heldout_loss_micro"] != after.metrics["heldout_loss_micro"]
    await home.runtime.promote(candidate)
    assert home.runtime.live is candidate
    assert not former.is_running
    assert candidate.observed_digest != home.base.digest
    with pytest.raises(PreconditionFailed, match="the candidate is not running"):
        await home.runtime.promote(former)
    assert home.runtime.live is candidate


async def test_a_flipped_byte_is_not_served_and_the_live_version_goes_on(home: Home) -> None:
    manifest = home.put(build_tiny_llama(home.root / "other", seed=3), "2.0.0")
    weights = home.shelf.files(manifest.digest) / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    with pytest.raises(PreconditionFailed) as refused:
        await home.runtime.stage(home.version(manifest))
    assert refused.value.code == "MODEL_UNUSABLE"
    assert home.runtime.live is not None
    assert home.runtime.live.is_running


async def test_a_file_beside_the_manifest_is_not_served(home: Home) -> None:
    manifest = home.put(build_tiny_llama(home.root / "third", seed=4), "2.1.0")
    (home.shelf.files(manifest.digest) / "generation_config.json").write_text("{}")
    with pytest.raises(PreconditionFailed) as refused:
        await home.runtime.stage(home.version(manifest))
    assert refused.value.code == "MODEL_UNUSABLE"


async def test_another_version_than_the_one_asked_for_is_not_believed(home: Home) -> None:
    claimed = replace(home.version(home.base), digest=digest_of(b"another"))
    with pytest.raises(TrustError, match="found another digest than the version's") as refused:
        await home.runtime.stage(claimed)
    assert refused.value.code == "DIGEST_MISMATCH"


async def test_more_text_than_a_frame_holds_is_refused(home: Home) -> None:
    live = home.runtime.live
    assert live is not None
    with pytest.raises(LimitExceeded, match="more than 1000000 characters"):
        await live.evaluate(Evaluation(), [Pair("x" * 1_000_001, "y")], LANGUAGES, timeout_seconds=5)
