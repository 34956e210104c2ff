"""A pull ends with a whole, verified version on the shelf, or with the shelf as it was and one clear line."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from node_agent.pull import Progress, PullReport, PullSettings, pull
from node_agent.shelf import Shelf
from node_agent.staging import Frames
from tests.controlplane.test_artifacts_store import files_limited_to
from tests.node_agent.pulling import FolderSource, shelf_in, tiny_version
from tests.treaty.model_folder import description, model_folder, safetensors
from treaty.errors import ConflictError, InvalidInput, ResourceExhausted, TrustError, Unavailable
from treaty.manifest import Manifest, ModelFile
from treaty.manifest_build import build, chunks_of
from treaty.names import Digest, digest_of

ONE_STREAM = PullSettings(streams=1)


async def at_once(_seconds: float) -> None:
    return


def assert_nothing_visible(shelf: Shelf, manifest: Manifest) -> None:
    assert shelf.versions() == ()
    assert not shelf.has(manifest.digest)


def assert_whole(shelf: Shelf, manifest: Manifest, source: FolderSource) -> None:
    assert shelf.manifest(manifest.digest) == manifest
    for file in manifest.files:
        data = (shelf.files(manifest.digest) / file.path).read_bytes()
        assert digest_of(data) == file.digest
        assert data == b"".join(source.chunks[chunk] for chunk in file.chunks)


async def test_a_version_is_whole_and_visible_and_nothing_of_the_pull_stays(tmp_path: Path) -> None:
    manifest, source = tiny_version(tmp_path)
    shelf, seen = shelf_in(tmp_path), list[Progress]()
    report = await pull(manifest, source, shelf, progress=seen.append)
    assert_whole(shelf, manifest, source)
    total = sum(manifest.chunk_bytes.values())
    assert report == PullReport(fetched_bytes=total)
    assert seen[-1] == Progress(total, total)
    assert [progress.done_bytes for progress in seen] == sorted(progress.done_bytes for progress in seen)
    assert sorted(source.served) == sorted(manifest.chunk_bytes)
    assert list((tmp_path / "staging").iterdir()) == []


async def test_a_version_that_is_here_is_not_asked_for_again(tmp_path: Path) -> None:
    manifest, source = tiny_version(tmp_path)
    shelf = shelf_in(tmp_path)
    await pull(manifest, source, shelf)
    source.served.clear()
    assert await pull(manifest, source, shelf) == PullReport()
    assert source.served == []


KILLED = """
import asyncio, os, signal, sys
from pathlib import Path
from node_agent.pull import PullSettings, pull
from tests.node_agent.pulling import FolderSource, shelf_in
from treaty.manifest import parse_manifest
from treaty.manifest_build import chunks_of
root, folder = Path(sys.argv[1]), Path(sys.argv[2])
manifest = parse_manifest((root / "manifest").read_bytes())
def die(served):
    if served == 25:
        os.kill(os.getpid(), signal.SIGKILL)
source = FolderSource(dict(chunks_of(folder, manifest)), die)
asyncio.run(pull(manifest, source, shelf_in(root), settings=PullSettings(streams=4)))
"""


def killed_in_the_middle(tmp_path: Path, manifest: Manifest) -> None:
    """Pull in a child process that kills itself after it was handed 25 chunks."""
    (folder,) = tmp_path.glob("published-*")
    (tmp_path / "manifest").write_bytes(manifest.encoded)
    died = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path), str(folder)], check=False)
    assert died.returncode == -signal.SIGKILL


async def test_an_agent_killed_in_the_middle_fetches_at_most_one_chunk_per_stream_again(tmp_path: Path) -> None:
    manifest, source = tiny_version(tmp_path)
    killed_in_the_middle(tmp_path, manifest)
    shelf = shelf_in(tmp_path)
    assert_nothing_visible(shelf, manifest)
    report = await pull(manifest, source, shelf)
    assert_whole(shelf, manifest, source)
    assert report.resumed_bytes > 0
    assert len(source.served) <= len(manifest.chunk_bytes) - 25 + 4


async def test_a_journal_that_is_ahead_of_the_data_is_not_believed(tmp_path: Path) -> None:
    manifest, source = tiny_version(tmp_path)
    shelf = shelf_in(tmp_path)

    def break_off(served: int) -> None:
        if served == 30:
            raise TrustError("enough")

    source.before = break_off
    with pytest.raises(TrustError, match="enough"):
        await pull(manifest, source, shelf, settings=ONE_STREAM)
    written = source.served[5]
    for path in (tmp_path / "staging").rglob("*.safetensors"):
        data = path.read_bytes()
        path.write_bytes(data.replace(source.chunks[written], bytes(len(source.chunks[written]))))
    source.before, source.served = lambda _: None, []
    await pull(manifest, source, shelf)
    assert_whole(shelf, manifest, source)
    assert written in source.served


async def test_a_chunk_with_one_flipped_byte_stops_the_pull(tmp_path: Path) -> None:
    manifest, source = tiny_version(tmp_path)
    shelf = shelf_in(tmp_path)
    victim = manifest.files[1].chunks[7]
    source.chunks[victim] = b"\x01" + source.chunks[victim][1:]
    with pytest.raises(TrustError, match="a chunk's bytes do not have its digest"):
        await pull(manifest, source, shelf)
    assert_nothing_visible(shelf, manifest)


async def test_a_source_that_sends_another_chunk_is_refused(tmp_path: Path) -> None:
    manifest, source = tiny_version(tmp_path)
    shelf = shelf_in(tmp_path)

    class Swapping:
        async def fetch(self, _manifest: Manifest, chunks: Sequence[Digest]) -> AsyncIterator[tuple[Digest, Frames]]:
            for chunk in reversed(chunks):
                yield chunk, [source.chunks[chunk]]

    with pytest.raises(TrustError, match="another chunk than was asked for"):
        await pull(manifest, Swapping(), shelf, settings=ONE_STREAM)
    assert_nothing_visible(shelf, manifest)


async def test_chunks_of_other_versions_are_copied_and_damaged_ones_fetched(tmp_path: Path) -> None:
    first, source = tiny_version(tmp_path)
    second, more = tiny_version(tmp_path, tensors=41, about=description("1.1.0"))
    shelf = shelf_in(tmp_path)
    await pull(first, source, shelf)
    damaged = shelf.files(first.digest) / "model.safetensors"
    data = bytearray(damaged.read_bytes())
    data[-1] ^= 1
    damaged.write_bytes(data)
    report = await pull(second, more, shelf)
    assert_whole(shelf, second, more)
    # The last tensor of the first (damaged there), the new one, the header that names it.
    assert set(more.served) == {first.files[1].chunks[-1], second.files[1].chunks[-1], second.files[1].chunks[0]}
    assert report.copied_bytes == sum(second.chunk_bytes.values()) - report.fetched_bytes


async def test_a_source_that_comes_and_goes_is_asked_again_for_the_rest_only(tmp_path: Path) -> None:
    manifest, source = tiny_version(tmp_path)
    shelf, pauses = shelf_in(tmp_path), list[float]()

    def flaky(served: int) -> None:
        if served % 5 == 4 and len(pauses) < served // 5 + 1:
            raise Unavailable("gone")

    async def note(seconds: float) -> None:
        pauses.append(seconds)

    source.before = flaky
    await pull(manifest, source, shelf, settings=ONE_STREAM, pause=note)
    assert_whole(shelf, manifest, source)
    assert len(source.served) == len(manifest.chunk_bytes)
    assert len(pauses) == len(manifest.chunk_bytes) // 5
    assert all(0 < seconds <= 2 for seconds in pauses)


async def test_a_source_that_stays_away_is_unavailable_after_some_attempts(tmp_path: Path) -> None:
    manifest, source = tiny_version(tmp_path)
    shelf, asked = shelf_in(tmp_path), list[int]()

    def gone(served: int) -> None:
        asked.append(served)
        raise Unavailable("gone")

    source.before = gone
    with pytest.raises(Unavailable, match="gone"):
        await pull(manifest, source, shelf, settings=replace(ONE_STREAM, attempts=3), pause=at_once)
    assert asked == [0, 0, 0]
    assert_nothing_visible(shelf, manifest)


async def test_a_silent_source_is_unavailable(tmp_path: Path) -> None:
    manifest, _ = tiny_version(tmp_path)
    shelf = shelf_in(tmp_path)

    class Silent:
        async def fetch(self, _manifest: Manifest, chunks: Sequence[Digest]) -> AsyncIterator[tuple[Digest, Frames]]:
            await asyncio.Event().wait()
            yield chunks[0], [b""]

    with pytest.raises(Unavailable, match="brought no chunk in time"):
        await pull(manifest, Silent(), shelf, settings=PullSettings(1, stall_seconds=0, attempts=1), pause=at_once)
    assert_nothing_visible(shelf, manifest)


@pytest.mark.parametrize(
    ("dtype", "element"),
    [
        ("F32", np.array([np.nan], "<f4").tobytes()),
        ("F32", np.array([-np.inf], "<f4").tobytes()),
        ("F64", np.array([np.inf], "<f8").tobytes()),
        ("F16", np.array([-np.nan], "<f2").tobytes()),
        ("BF16", b"\x80\x7f"),
        ("BF16", b"\x80\xff"),
        ("F8_E4M3", b"\xff"),
        ("F8_E5M2", b"\x7c"),
    ],
)
async def test_weights_with_nan_or_infinity_never_become_visible(tmp_path: Path, dtype: str, element: bytes) -> None:
    weights = safetensors({"a": (dtype, [3], bytes(len(element)) + element + bytes(len(element)))})
    folder = model_folder(tmp_path / "model", weights)
    manifest = build(folder, description())
    shelf = shelf_in(tmp_path)
    with pytest.raises(InvalidInput, match="a tensor holds NaN or infinity"):
        await pull(manifest, FolderSource(dict(chunks_of(folder, manifest))), shelf)
    assert_nothing_visible(shelf, manifest)


async def test_the_largest_finite_numbers_and_integers_with_the_same_bits_are_taken(tmp_path: Path) -> None:
    tensors = {
        "largest": ("F32", [2], np.array([3.4028235e38, -3.4028235e38], "<f4").tobytes()),
        "bf16": ("BF16", [2], b"\x7f\x7f\x7f\xff"),
        "f16": ("F16", [2], np.array([65504, -65504], "<f2").tobytes()),
        "integers": ("I32", [1], b"\xff\xff\xff\x7f"),
    }
    folder = model_folder(tmp_path / "model", safetensors(tensors))
    manifest = build(folder, description())
    shelf = shelf_in(tmp_path)
    await pull(manifest, FolderSource(dict(chunks_of(folder, manifest))), shelf)
    assert shelf.has(manifest.digest)


async def test_a_header_that_names_other_tensors_than_the_manifest_is_refused(tmp_path: Path) -> None:
    manifest, source = tiny_version(tmp_path)
    weights = manifest.files[1]
    renamed = replace(weights, tensors=(replace(weights.tensors[0], name="other"), *weights.tensors[1:]))
    lying = Manifest(manifest.about, (manifest.files[0], renamed, manifest.files[2]))
    shelf = shelf_in(tmp_path)
    with pytest.raises(InvalidInput, match="names other tensors than the manifest"):
        await pull(lying, source, shelf)
    assert_nothing_visible(shelf, lying)


async def test_a_configuration_that_names_code_is_refused_on_arrival_too(tmp_path: Path) -> None:
    manifest, source = tiny_version(tmp_path)
    code = b'{"auto_map":{"AutoModel":"modeling.Evil"}}'
    source.chunks[digest_of(code)] = code
    config = ModelFile("config.json", len(code), digest_of(code), (digest_of(code),))
    evil = Manifest(manifest.about, (config, *manifest.files[1:]))
    shelf = shelf_in(tmp_path)
    with pytest.raises(InvalidInput, match="names code to import"):
        await pull(evil, source, shelf)
    assert_nothing_visible(shelf, evil)


async def test_a_full_disk_is_said_before_anything_is_fetched_and_frees_what_it_took(tmp_path: Path) -> None:
    manifest, source = tiny_version(tmp_path)
    shelf = shelf_in(tmp_path)
    with files_limited_to(8_000):
        with pytest.raises(ResourceExhausted, match="no space left while preparing a pull"):
            await pull(manifest, source, shelf)
    assert source.served == []
    assert_nothing_visible(shelf, manifest)
    assert list((tmp_path / "staging").iterdir()) == []


async def test_two_pulls_of_one_version_do_not_meet(tmp_path: Path) -> None:
    manifest, source = tiny_version(tmp_path)
    shelf = shelf_in(tmp_path)
    reached, go_on = asyncio.Event(), asyncio.Event()

    class Waiting:
        async def fetch(self, _manifest: Manifest, chunks: Sequence[Digest]) -> AsyncIterator[tuple[Digest, Frames]]:
            reached.set()
            await go_on.wait()
            for chunk in chunks:
                yield chunk, [source.chunks[chunk]]

    async with asyncio.TaskGroup() as tasks:
        first = tasks.create_task(pull(manifest, Waiting(), shelf))
        await reached.wait()
        with pytest.raises(ConflictError, match="already being pulled"):
            await pull(manifest, source, shelf)
        go_on.set()
    assert first.result().fetched_bytes == sum(manifest.chunk_bytes.values())
    assert_whole(shelf, manifest, source)
