"""The contract of a chunk store, on the directory and on the fake; and what uploads and the sweep add."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from controlplane.artifacts.directory_store import DirectoryStore
from controlplane.artifacts.store import MAX_CHUNK_BYTES, ChunkStore, MemoryStore
from controlplane.artifacts.uploads import Upload, sweep
from tests.treaty.model_folder import description, model_folder, safetensors
from treaty.errors import InvalidInput, LimitExceeded, NotFound, PreconditionFailed, ResourceExhausted, TrustError
from treaty.manifest_build import build, chunks_of
from treaty.names import Digest, digest_of

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)


@contextmanager
def files_limited_to(size: int) -> Iterator[None]:
    """A disk that is full beyond `size` bytes a file: the kernel itself refuses the write."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture(params=["directory", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ChunkStore:
    return DirectoryStore(tmp_path / "store") if request.param == "directory" else MemoryStore()


def test_a_chunk_is_read_back_whole_and_by_range(store: ChunkStore) -> None:
    data = b"0123456789"
    digest = digest_of(data)
    assert not store.has(digest)
    store.put(digest, data, now=NOON)
    assert store.has(digest)
    assert store.size(digest) == 10
    assert store.read(digest) == data
    assert store.read(digest, 2, 3) == b"234"
    assert store.read(digest, 8, 100) == b"89"
    assert store.read(digest, 11) == b""


def test_putting_twice_stores_once_and_renews_its_time(store: ChunkStore) -> None:
    digest = digest_of(b"x")
    store.put(digest, b"x", now=NOON)
    store.put(digest, b"x", now=NOON + timedelta(hours=1))
    assert list(store.stored()) == [(digest, NOON + timedelta(hours=1))]


def test_bytes_of_another_digest_are_refused_and_leave_nothing(store: ChunkStore) -> None:
    with pytest.raises(TrustError, match="do not have its digest"):
        store.put(digest_of(b"x"), b"y", now=NOON)
    assert not store.has(digest_of(b"x"))
    assert list(store.stored()) == []


def test_more_than_a_chunk_is_refused(store: ChunkStore) -> None:
    data = bytes(MAX_CHUNK_BYTES + 1)
    with pytest.raises(LimitExceeded, match="larger than"):
        store.put(digest_of(data), data, now=NOON)


def test_an_unknown_chunk_is_not_found_and_deleting_it_is_nothing(store: ChunkStore) -> None:
    digest = Digest("sha256:" + "0" * 64)
    store.delete(digest)
    for ask in (store.read, store.size):
        with pytest.raises(NotFound, match=f"no chunk {digest}"):
            ask(digest)


def test_a_deleted_chunk_is_gone(store: ChunkStore) -> None:
    store.put(digest_of(b"x"), b"x", now=NOON)
    store.delete(digest_of(b"x"))
    assert not store.has(digest_of(b"x"))


def test_a_full_disk_is_said_and_nothing_is_half_written(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path)
    data = os.urandom(100_000)
    with files_limited_to(50_000):
        with pytest.raises(ResourceExhausted, match="no space left while storing a chunk"):
            store.put(digest_of(data), data, now=NOON)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    store.put(digest_of(data), data, now=NOON)
    assert store.read(digest_of(data)) == data


def test_the_fake_fills_up_the_same_way() -> None:
    store = MemoryStore(capacity_bytes=1)
    with pytest.raises(ResourceExhausted, match="no space left while storing a chunk"):
        store.put(digest_of(b"xy"), b"xy", now=NOON)
    assert not store.has(digest_of(b"xy"))


def test_what_a_crash_left_unfinished_is_removed_at_the_next_start(tmp_path: Path) -> None:
    DirectoryStore(tmp_path)
    (tmp_path / "incoming" / "abc.partial").write_bytes(b"half")
    store = DirectoryStore(tmp_path)
    assert list(store.stored()) == []
    assert list((tmp_path / "incoming").iterdir()) == []


def test_an_upload_takes_exactly_the_chunks_of_its_manifest(store: ChunkStore, tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "model", safetensors({"a": ("U8", [3], b"abc")}))
    manifest = build(folder, description())
    upload = Upload(manifest, store)
    assert upload.missing() == tuple(manifest.chunk_bytes)
    with pytest.raises(PreconditionFailed, match=r"4 chunks of tiny-llama@1\.0\.0 are missing"):
        upload.finish()
    with pytest.raises(InvalidInput, match="does not list this chunk"):
        upload.take(digest_of(b"stranger"), b"stranger", now=NOON)
    with pytest.raises(InvalidInput, match="has 2 bytes where the manifest says 3"):
        upload.take(digest_of(b"abc"), b"ab", now=NOON)
    for chunk, data in chunks_of(folder, manifest):
        upload.take(chunk, data, now=NOON)
    assert upload.missing() == ()
    upload.finish()


def test_the_sweep_spares_what_nobody_chose_and_what_was_put_again_since(store: ChunkStore, tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "model", safetensors({"a": ("U8", [3], b"abc")}))
    manifest = build(folder, description())
    for chunk, data in chunks_of(folder, manifest):
        store.put(chunk, data, now=NOON)
    store.put(digest_of(b"old"), b"old", now=NOON)
    store.put(digest_of(b"new"), b"new", now=NOON + timedelta(hours=2))
    doomed = {digest_of(b"old"), digest_of(b"new")}
    assert sweep(store, doomed, put_before=NOON + timedelta(hours=1)) == 1
    assert {digest for digest, _ in store.stored()} == {*manifest.chunk_bytes, digest_of(b"new")}
