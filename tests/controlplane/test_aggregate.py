"""The exact sum: whatever the order, from verified files only, durable or absent."""

from __future__ import annotations

import hashlib
import json
import resource
import tracemalloc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from controlplane.artifacts.spool import UpdateKey, UpdateSpool
from controlplane.federation.aggregate import aggregate, recompute
from controlplane.federation.exact_sum import apply, load_sum, mean_delta
from controlplane.federation.spool_reader import SpoolReader
from tests.treaty.test_update import a_header, a_spec
from treaty.errors import Corrupt, InvalidInput, NotFound, PreconditionFailed, ResourceExhausted
from treaty.names import Digest, PartyCode
from treaty.update import UpdateSpec
from treaty.update_layout import TensorSpec
from treaty.update_values import UpdateVerifier, build_header, chunk_bytes, clip, dequantise, quantise

Arrays = dict[str, NDArray[np.float32]]
SPEC = a_spec()
NATIONS = ("FR", "DE", "IT", "JP", "KR")


def a_delta(seed: int, spec: UpdateSpec = SPEC, scale: float = 0.1) -> Arrays:
    random = np.random.default_rng(seed)
    delta = {t.name: (random.standard_normal(t.shape) * scale).astype(np.float32) for t in spec.tensors}
    return clip(delta, spec.clip_norm_micro)


def spool(folder: Path, nation: str, delta: Arrays, *, examples: int = 16, spec: UpdateSpec = SPEC) -> Path:
    """Take one update in as the coordinator does: verified chunk by chunk into the real spool, then moved aside."""
    chunks = quantise(delta, spec)
    header = build_header(chunks, spec, nation=PartyCode(nation), examples=examples)
    verifier = UpdateVerifier(header, spec)
    key = UpdateKey(spec.run_id, spec.round, PartyCode(nation))
    store = UpdateSpool(folder / "store")
    with store.begin(key, header.encoded) as writer:
        for index, chunk in enumerate(chunks):
            data = chunk_bytes(chunk)
            verifier.accept(index, data)
            writer.append(data)
        verifier.finish()
        writer.commit()
    return store.path(key).rename(folder / f"{nation}.update")


def five(folder: Path, spec: UpdateSpec = SPEC) -> list[Path]:
    return [
        spool(folder, nation, a_delta(seed, spec), examples=seed + 1, spec=spec) for seed, nation in enumerate(NATIONS)
    ]


def stream_of(path: Path) -> bytes:
    data = path.read_bytes()
    return data[8 + int.from_bytes(data[:8], "little") :]


def test_the_sum_is_the_integer_sum_of_weight_times_value(tmp_path: Path) -> None:
    exact = aggregate(five(tmp_path), SPEC, tmp_path / "sum")
    expected = [0] * SPEC.values
    for seed, _ in enumerate(NATIONS):
        for position, value in enumerate(np.concatenate(quantise(a_delta(seed), SPEC))):
            expected[position] += (seed + 1) * int(value)
    assert np.frombuffer(stream_of(exact.path), "<i8").tolist() == expected
    assert exact.total_weight == 15
    assert exact.tensors == SPEC.tensors
    assert [contribution.nation for contribution in exact.contributions] == sorted(NATIONS)


def test_the_digest_is_the_plain_sha256_of_the_file(tmp_path: Path) -> None:
    exact = aggregate(five(tmp_path), SPEC, tmp_path / "sum")
    assert exact.digest == "sha256:" + hashlib.sha256((tmp_path / "sum").read_bytes()).hexdigest()
    assert [path.name for path in tmp_path.glob("sum*")] == ["sum"]


def test_the_digest_does_not_depend_on_the_order(tmp_path: Path) -> None:
    paths = five(tmp_path)
    digest = recompute(paths)

    @settings(max_examples=20, deadline=None)
    @given(order=st.permutations(range(5)))
    def check(order: Sequence[int]) -> None:
        assert aggregate([paths[index] for index in order], SPEC, tmp_path / "sum").digest == digest

    check()
    assert recompute(paths[::-1]) == digest


def test_the_digest_changes_with_a_weight_a_value_and_a_missing_update(tmp_path: Path) -> None:
    before = recompute(five(tmp_path))
    paths = five(tmp_path)
    digests = {before, recompute(paths[:-1])}
    spool(tmp_path, "KR", a_delta(4), examples=6)
    digests.add(recompute(paths))
    spool(tmp_path, "KR", a_delta(5), examples=5)
    digests.add(recompute(paths))
    assert len(digests) == 4


def test_extreme_weights_and_values_do_not_overflow(tmp_path: Path) -> None:
    spec = a_spec(tensors=(TensorSpec("t", (1,)),), max_cohort=3, max_examples=(2**33 - 1) // 3)
    paths = []
    for nation in ("FR", "DE", "IT"):
        delta = {"t": np.array([np.float32(spec.clip_norm_micro / 1e6)])}
        paths.append(spool(tmp_path, nation, delta, examples=spec.max_examples, spec=spec))
    exact = aggregate(paths, spec, tmp_path / "sum")
    (value,) = np.frombuffer(stream_of(exact.path), "<i8")
    assert int(value) == 3 * spec.max_examples * spec.bound < 2**63
    assert mean_delta(exact)["t"][0] == np.float32(1.5)


def test_the_mean_is_the_weighted_mean_of_the_deltas(tmp_path: Path) -> None:
    exact = aggregate(five(tmp_path), SPEC, tmp_path / "sum")
    mean = mean_delta(exact)
    for tensor in SPEC.tensors:
        plain = sum((seed + 1) / 15 * a_delta(seed)[tensor.name].astype(np.float64) for seed in range(5))
        assert np.abs(mean[tensor.name] - plain).max() <= 1e-6
        assert mean[tensor.name].dtype == np.float32


def test_one_update_means_itself(tmp_path: Path) -> None:
    exact = aggregate([spool(tmp_path, "FR", a_delta(1), examples=64)], SPEC, tmp_path / "sum")
    mean, own = mean_delta(exact), dequantise(quantise(a_delta(1), SPEC), SPEC)
    assert all(np.array_equal(mean[name], own[name]) for name in own)


def test_a_sum_is_read_back_by_its_digest_only(tmp_path: Path) -> None:
    exact = aggregate(five(tmp_path), SPEC, tmp_path / "sum")
    assert load_sum(tmp_path / "sum", exact.digest) == exact
    with pytest.raises(Corrupt, match="not the one recorded"):
        load_sum(tmp_path / "sum", Digest("sha256:" + "00" * 32))
    data = bytearray((tmp_path / "sum").read_bytes())
    data[-1] ^= 1
    (tmp_path / "sum").write_bytes(data)
    with pytest.raises(Corrupt, match="not the one recorded"):
        load_sum(tmp_path / "sum", exact.digest)
    with pytest.raises(NotFound, match="no sum other"):
        load_sum(tmp_path / "other", exact.digest)


def test_a_flipped_byte_anywhere_in_the_spool_is_found_and_no_sum_appears(tmp_path: Path) -> None:
    paths = five(tmp_path)
    whole = paths[2].read_bytes()
    for position in range(0, len(whole), 7):
        flipped = bytearray(whole)
        flipped[position] ^= 0x10
        paths[2].write_bytes(flipped)
        with pytest.raises((Corrupt, InvalidInput)):
            aggregate(paths, SPEC, tmp_path / "sum")
        assert not list(tmp_path.glob("sum*"))


@pytest.mark.parametrize("cut", [0, 4, 8, 100, -1])
def test_a_truncated_or_longer_spool_file_is_corrupt(tmp_path: Path, cut: int) -> None:
    path = spool(tmp_path, "FR", a_delta(1))
    data = path.read_bytes()
    path.write_bytes(data[:cut] if cut >= 0 else data + b"\0")
    with pytest.raises(Corrupt, match=r"FR\.update") as caught:
        recompute([path])
    assert "sends the update again" in caught.value.remedy


def test_a_header_length_of_ten_gigabytes_is_refused_before_anything_is_allocated(tmp_path: Path) -> None:
    path = spool(tmp_path, "FR", a_delta(1))
    path.write_bytes((10 * 10**9).to_bytes(8, "little") + path.read_bytes()[8:])
    with pytest.raises(Corrupt, match="impossible length"):
        recompute([path])


def test_a_header_that_claims_ten_gigabytes_allocates_nothing(tmp_path: Path) -> None:
    huge = a_spec(tensors=(TensorSpec("t", (2_500_000, 1000)),), chunk_bytes=4 * 2**20)
    template = a_header(huge)
    path = tmp_path / "FR.update"
    path.write_bytes(len(template.encoded).to_bytes(8, "little") + template.encoded + bytes(4 * 2**20))
    tracemalloc.start()
    try:
        with pytest.raises(Corrupt, match="not as long as its header says"):
            recompute([path])
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 20 * 2**20


def test_updates_that_do_not_belong_together_are_not_summed(tmp_path: Path) -> None:
    paths = five(tmp_path)
    other = a_spec(round=3)
    stranger = spool(tmp_path, "BE", a_delta(9, other), spec=other)
    for act in (lambda: aggregate([paths[0], stranger], SPEC, tmp_path / "sum"), lambda: recompute([*paths, stranger])):
        with pytest.raises(InvalidInput) as caught:
            act()
        assert caught.value.code == "UPD-003"
    with pytest.raises(InvalidInput, match="more than one update") as caught:
        aggregate([paths[0], paths[0]], SPEC, tmp_path / "sum")
    assert caught.value.code == "UPD-014"
    for wrong, message in (([], "no update"), ([*paths, paths[0]], "cohort of at most 5")):
        with pytest.raises(PreconditionFailed, match=message):
            aggregate(wrong, SPEC, tmp_path / "sum")
    with pytest.raises(NotFound, match="no spooled update gone"):
        aggregate([tmp_path / "gone"], SPEC, tmp_path / "sum")
    assert not list(tmp_path.glob("sum*"))


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """A full disk, as far as one file can tell."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_full_disk_refuses_the_sum_and_leaves_nothing_of_it(tmp_path: Path) -> None:
    paths = five(tmp_path)
    with files_of_at_most(400), pytest.raises(ResourceExhausted, match="no space left while writing a sum"):
        aggregate(paths, SPEC, tmp_path / "sum")
    assert not list(tmp_path.glob("sum*"))
    assert aggregate(paths, SPEC, tmp_path / "sum").digest == recompute(paths)


def test_what_a_killed_worker_left_of_a_sum_is_overwritten(tmp_path: Path) -> None:
    paths = five(tmp_path)
    (tmp_path / "sum.partial").write_bytes(b"half a sum" * 1000)
    exact = aggregate(paths, SPEC, tmp_path / "sum")
    assert load_sum(tmp_path / "sum", exact.digest) == exact
    assert exact.digest == recompute(paths)
    assert [path.name for path in tmp_path.glob("sum*")] == ["sum"]


def test_a_sum_cut_short_after_it_was_believed_gives_no_mean(tmp_path: Path) -> None:
    exact = aggregate(five(tmp_path), SPEC, tmp_path / "sum")
    exact.path.write_bytes(exact.path.read_bytes()[:-8])
    with pytest.raises(Corrupt, match="not as long as its tensors"):
        mean_delta(exact)
    exact.path.unlink()
    with pytest.raises(Corrupt, match="cannot be read"):
        mean_delta(exact)


def test_an_update_is_read_back_whole_as_its_delta(tmp_path: Path) -> None:
    with SpoolReader(spool(tmp_path, "FR", a_delta(1))) as reader:
        back = reader.read_delta()
    expected = dequantise(quantise(a_delta(1), SPEC), SPEC)
    assert all(np.array_equal(back[name], expected[name]) for name in expected)


def test_base_and_mean_are_added_only_where_they_fit() -> None:
    base = {"a": np.ones((2, 2), np.float32)}
    assert apply(base, {"a": np.full((2, 2), 0.5, np.float32)})["a"].tolist() == [[1.5, 1.5], [1.5, 1.5]]
    for wrong in ({"b": base["a"]}, {"a": np.ones(2, np.float32)}, {"a": np.ones((2, 2), np.float64)}):
        with pytest.raises(InvalidInput) as caught:
            apply(base, wrong)  # type: ignore[arg-type]
        assert caught.value.code == "UPD-012"
    most = {"a": np.full((2, 2), np.finfo(np.float32).max)}
    with pytest.raises(PreconditionFailed, match="leave float32"):
        apply(most, most)


def test_a_sum_streams_in_the_memory_of_a_few_chunks(tmp_path: Path) -> None:
    spec = a_spec(tensors=(TensorSpec("t", (2**20,)),), chunk_bytes=2**16)
    paths = five(tmp_path, spec)
    tracemalloc.start()
    try:
        aggregate(paths, spec, tmp_path / "sum")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2 * 2**20  # the updates are 20 MiB and the sum is 8


def test_the_sums_header_names_every_update_by_digest(tmp_path: Path) -> None:
    exact = aggregate(five(tmp_path), SPEC, tmp_path / "sum")
    data = (tmp_path / "sum").read_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    assert [entry["update"] for entry in header["contributions"]] == [c.digest for c in exact.contributions]
    assert header["total_weight"] == 15
