"""How a file is cut into chunks: tensors from their own start, so that versions share what did not change.

A fixed grid over the file would shift with every byte that the header grows; cut per tensor, two versions that
differ in two layers share every other chunk. The cut follows from sizes alone, so a manifest lists digests and no
offsets, and nobody can state a cut of their own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

CHUNK_BYTES = 4 * 2**20
"""Largest chunk. One chunk is one gRPC message, whose limit is 8 MiB; smaller ones cost throughput."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A range of a file that is one chunk."""

    offset: int
    bytes: int


def piece_count(lengths: Iterable[int]) -> int:
    """How many pieces stretches of these lengths are cut into, each from its own start."""
    return sum(-(-length // CHUNK_BYTES) for length in lengths)


def plain_pieces(file_bytes: int) -> Iterator[Piece]:
    """Cut a file without inner structure."""
    return _cut(0, file_bytes)


def tensor_pieces(header_bytes: int, tensor_bytes: Iterable[int]) -> Iterator[Piece]:
    """Cut a safetensors file: the header by itself, then each tensor (in file order) from its own start."""
    yield from _cut(0, header_bytes)
    offset = header_bytes
    for size in tensor_bytes:
        yield from _cut(offset, size)
        offset += size


def _cut(start: int, length: int) -> Iterator[Piece]:
    for offset in range(start, start + length, CHUNK_BYTES):
        yield Piece(offset, min(CHUNK_BYTES, start + length - offset))
