"""Under which path does which piece of the tree lie, and what is in it?

C2SP tlog-tiles: the tree cut into tiles 8 levels high, 256 hashes wide, each a static resource. A tile of level L holds
hashes of subtrees of 256^L leaves; an entry bundle holds the data of 256 leaves, each behind a big-endian uint16.
Rightmost pieces are partial and carry their width in the path. Ours hold 32 bytes of leaf data an entry, never a
statement (see `leaf`).

This module computes paths and bytes. It opens no file and answers no request.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from treaty.errors import InvalidInput
from treaty.log.hashing import Tree

TILE_HEIGHT = 8
TILE_WIDTH = 1 << TILE_HEIGHT
MAX_LEVEL = 63
ENTRIES = "entries"

_PATH = re.compile(r"tile/(entries|0|[1-9][0-9]?)/((?:x[0-9]{3}/){0,6}[0-9]{3})(?:\.p/([1-9][0-9]{0,2}))?\Z", re.ASCII)


@dataclass(frozen=True, slots=True)
class TileRef:
    """One piece: `level` is None for an entry bundle; `width` is 1 to 256, 256 being the full piece."""

    level: int | None
    index: int
    width: int = TILE_WIDTH

    def __post_init__(self) -> None:
        if not (self.level is None or 0 <= self.level <= MAX_LEVEL):
            raise InvalidInput(f"a tile's level is 0 to {MAX_LEVEL}")
        if self.index < 0 or not 1 <= self.width <= TILE_WIDTH:
            raise InvalidInput(f"a tile has an index from 0 and a width from 1 to {TILE_WIDTH}")

    @property
    def is_full(self) -> bool:
        return self.width == TILE_WIDTH


def tile_path(level: int | None, index: int, width: int = TILE_WIDTH) -> str:
    """Path below the log's prefix, for example `tile/0/x001/x234/067.p/112`; level None is an entry bundle.

    Source: C2SP tlog-tiles, "Merkle Tree" and "Log entries".
    """
    ref = TileRef(level, index, width)
    digits = str(ref.index)
    digits = digits.zfill(-(-len(digits) // 3) * 3)
    groups = [digits[at : at + 3] for at in range(0, len(digits), 3)]
    where = "/".join([*(f"x{group}" for group in groups[:-1]), groups[-1]])
    suffix = "" if ref.is_full else f".p/{ref.width}"
    return f"tile/{ENTRIES if level is None else level}/{where}{suffix}"


def parse_tile_path(path: str) -> TileRef:
    """Read a path that a stranger asked for. Raises InvalidInput unless it is the one spelling of a tile."""
    match = _PATH.match(path) if len(path) <= 64 else None
    if match is None:
        raise InvalidInput("this is not the path of a tile")
    level = None if match[1] == ENTRIES else int(match[1])
    width = TILE_WIDTH if match[3] is None else int(match[3])
    ref = TileRef(level, int(match[2].replace("x", "").replace("/", "")), width)
    if tile_path(ref.level, ref.index, ref.width) != path:
        raise InvalidInput("this is not the path of a tile")
    return ref


def tiles_at(size: int, begin: int = 0) -> Iterator[TileRef]:
    """Every hash tile of a tree of `size` that is not already full at size `begin`, partial ones last on each level.

    Source: C2SP tlog-tiles, "Partial Tiles".
    """
    for level in range(MAX_LEVEL + 1):
        shift = level * TILE_HEIGHT
        done, count = (begin >> shift) // TILE_WIDTH, size >> shift
        if not count:
            return
        yield from (TileRef(level, index) for index in range(done, count // TILE_WIDTH))
        if count % TILE_WIDTH:
            yield TileRef(level, count // TILE_WIDTH, count % TILE_WIDTH)


def tile_bytes(tree: Tree, ref: TileRef) -> bytes:
    """The hashes of a tile, concatenated. Raises InvalidInput where the tree does not reach so far."""
    if ref.level is None:
        raise InvalidInput("an entry bundle is not made of hashes")
    begin = ref.index * TILE_WIDTH
    return tree.hashes(ref.level * TILE_HEIGHT, begin, begin + ref.width)


def encode_bundle(entries: Sequence[bytes]) -> bytes:
    """Source: C2SP tlog-tiles, "Log entries"."""
    if not 1 <= len(entries) <= TILE_WIDTH or any(len(entry) > 0xFFFF for entry in entries):
        raise InvalidInput(f"an entry bundle holds 1 to {TILE_WIDTH} entries of at most 65535 bytes")
    return b"".join(len(entry).to_bytes(2, "big") + entry for entry in entries)


def decode_bundle(bundle: bytes, width: int) -> list[bytes]:
    """Read the entries of a bundle of this width. Raises InvalidInput on any byte too few or too many."""
    entries: list[bytes] = []
    at = 0
    while at + 2 <= len(bundle) and len(entries) < width:
        end = at + 2 + int.from_bytes(bundle[at : at + 2], "big")
        if end > len(bundle):
            break
        entries.append(bundle[at + 2 : end])
        at = end
    if at != len(bundle) or len(entries) != width:
        raise InvalidInput(f"this is not a bundle of {width} entries")
    return entries
