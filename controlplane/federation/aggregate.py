"""The exact sum of a round: Σ examples × q over spooled updates, in int64, in the memory of a few chunks.

Addition in int64 is exact, so the result does not depend on the order in which updates came, were read or were added:
anyone who holds the updates reproduces the digest of the sum (`recompute`). The plan guarantees that no sum can leave
int64 (`UpdateSpec`), and it is checked again against the weights that came.

The sum's file, whose plain SHA-256 is the sum's digest:

    8 bytes   length of the header, little-endian
    header    canonical JSON: layout, contributions by nation with weight and update digest, total weight
    values    int64, little-endian, the tensors one after the other

Chunks are read and hashed by threads while this one adds, and the sum is hashed and written by another. This module
knows no Flower and decides nothing about who may take part.
"""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from controlplane.federation.exact_sum import Contribution, ExactSum, sum_header
from controlplane.federation.spool_reader import LENGTH_BYTES, SpoolReader
from treaty.durable import PARTIAL_SUFFIX, disk_errors, sync_directory, write_all
from treaty.errors import InvalidInput, PreconditionFailed
from treaty.names import Digest
from treaty.update import UpdateSpec, validate_header
from treaty.update_layout import BYTES_PER_VALUE

_INT64_LIMIT = 1 << 63
_WRITING = "writing a sum"
_READERS = min(4, os.cpu_count() or 1)
# One chunk being added, one finished and waiting, one in each reader's hands.
_BUFFERS = _READERS + 2
# Products are made in pieces that stay in the second-level cache.
_TILE = 1 << 15


def aggregate(paths: Sequence[Path], spec: UpdateSpec, destination: Path) -> ExactSum:
    """Sum the spooled updates of one round into `destination`, which appears only when it is whole and durable.

    Raises:
        PreconditionFailed: no update, or more than the plan's cohort.
        InvalidInput: an update does not answer the plan (UPD-003 to UPD-005), or a nation has two.
        Corrupt: a spooled update does not verify.
        ResourceExhausted: the disk cannot hold the sum.
    """
    if len(paths) > spec.max_cohort:
        raise PreconditionFailed(f"{len(paths)} updates for a cohort of at most {spec.max_cohort}")
    with ExitStack() as stack:
        readers = _open(paths, stack)
        for reader in readers:
            validate_header(reader.header, spec)
        header, contributions = _describe(readers)
        with _SumFile(destination, len(header) + spec.values * 8) as file:
            digest = _fold(readers, header, file.write)
            file.commit()
    return ExactSum(destination, spec.layout(), contributions, digest)


def recompute(paths: Sequence[Path]) -> Digest:
    """The digest of the sum of these updates, from the files alone; nothing is written.

    Raises:
        InvalidInput: the updates are not of one round and layout, or a nation has two.
        Corrupt: a file does not verify.
    """
    with ExitStack() as stack:
        readers = _open(paths, stack)
        header, _ = _describe(readers)
        return _fold(readers, header, lambda _piece: None)


def _open(paths: Sequence[Path], stack: ExitStack) -> list[SpoolReader]:
    """Open all updates, ordered by nation."""
    if not paths:
        raise PreconditionFailed("there is no update to sum")
    readers = [stack.enter_context(SpoolReader(path)) for path in paths]
    return sorted(readers, key=lambda reader: reader.header.nation)


def _describe(readers: Sequence[SpoolReader]) -> tuple[bytes, tuple[Contribution, ...]]:
    """The sum's header, after checking that the updates can be summed at all."""
    first = readers[0].header
    for reader in readers:
        if reader.header.layout_json() != first.layout_json():
            raise InvalidInput("the updates are not of one run, round and layout", code="UPD-003")
    contributions = tuple(Contribution(r.header.nation, r.header.examples, r.header.digest) for r in readers)
    if len({contribution.nation for contribution in contributions}) != len(contributions):
        raise InvalidInput("a nation has more than one update in this round", code="UPD-014")
    if any(contribution.examples < 1 for contribution in contributions):
        raise InvalidInput("an update has no weight", code="UPD-005")
    if sum(contribution.examples for contribution in contributions) * first.bound >= _INT64_LIMIT:
        raise InvalidInput("the weights are too large for an exact sum", code="UPD-005")
    return sum_header(first, contributions), contributions


def _fold(readers: Sequence[SpoolReader], header: bytes, write: Callable[[memoryview], None]) -> Digest:
    """Add chunk by chunk; hash and write each sum while the next one is added."""
    layout = readers[0].header
    hasher = hashlib.sha256()

    def emit(piece: memoryview) -> None:
        hasher.update(piece)
        write(piece)

    emit(memoryview(len(header).to_bytes(LENGTH_BYTES, "little") + header))
    length = layout.chunk_bytes // BYTES_PER_VALUE
    sums = [np.empty(min(length, layout.values), np.dtype("<i8")) for _ in range(2)]
    emitted: deque[Future[None]] = deque()
    with ThreadPoolExecutor(1, "sum") as sink, ThreadPoolExecutor(_READERS, "spool") as pool:
        chunks = _chunks(readers, pool)
        for index in range(layout.chunk_count):
            if len(emitted) == len(sums):
                emitted.popleft().result()
            total = sums[index % 2][: layout.chunk_length(index) // BYTES_PER_VALUE]
            for position, reader in enumerate(readers):
                _add(total, next(chunks), reader.header.examples, is_first=position == 0)
            emitted.append(sink.submit(emit, total.data.cast("B")))
        for future in emitted:
            future.result()
    return Digest("sha256:" + hasher.hexdigest())


def _chunks(readers: Sequence[SpoolReader], pool: ThreadPoolExecutor) -> Iterator[NDArray[np.int32]]:
    """Verified chunks, all readers' first, then all readers' second; each is valid until the next one is asked for."""
    jobs = [(reader, index) for index in range(readers[0].header.chunk_count) for reader in readers]
    buffers = [bytearray(readers[0].header.chunk_length(0)) for _ in range(min(_BUFFERS, len(jobs)))]
    ahead: deque[Future[NDArray[np.int32]]] = deque()
    for position in range(len(jobs) + len(buffers)):
        if position >= len(buffers):
            yield ahead.popleft().result()
        if position < len(jobs):
            reader, index = jobs[position]
            ahead.append(pool.submit(reader.read_chunk, index, buffers[position % len(buffers)]))


def _add(total: NDArray[np.int64], values: NDArray[np.int32], weight: int, *, is_first: bool) -> None:
    """`total` += `weight` × `values` in place, in int64; the first one overwrites what the buffer held."""
    if is_first:
        np.multiply(values, np.int64(weight), out=total, dtype=np.int64)
        return
    product = np.empty(min(_TILE, total.size), np.int64)
    for start in range(0, total.size, _TILE):
        part = total[start : start + _TILE]
        np.multiply(values[start : start + _TILE], np.int64(weight), out=product[: part.size], dtype=np.int64)
        part += product[: part.size]


class _SumFile:
    """A file written front to back under a partial name; visible after `commit`, gone without it."""

    def __init__(self, path: Path, expected_bytes: int) -> None:
        self._path = path
        # One worker sums a round, so the name is fixed and what a crash left is overwritten.
        self._partial = path.with_name(path.name + PARTIAL_SUFFIX)
        with disk_errors(_WRITING):
            self._file = self._partial.open("wb", buffering=0)
        try:
            with disk_errors(_WRITING):
                # Writing into a file of its final size costs a fraction of growing one.
                os.posix_fallocate(self._file.fileno(), 0, LENGTH_BYTES + expected_bytes)
        except BaseException:
            self.__exit__()
            raise

    def __enter__(self) -> _SumFile:
        return self

    def __exit__(self, *_reason: object) -> None:
        self._file.close()
        self._partial.unlink(missing_ok=True)

    def write(self, piece: memoryview) -> None:
        with disk_errors(_WRITING):
            write_all(self._file.fileno(), piece)

    def commit(self) -> None:
        with disk_errors(_WRITING):
            os.fsync(self._file.fileno())
            self._partial.replace(self._path)
            sync_directory(self._path.parent)
