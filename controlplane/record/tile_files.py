"""Where do the public pieces of the log lie on disk?

Under one directory, exactly as C2SP tlog-tiles lays them out, so that any web server or witness may read it: the signed
`checkpoint`, hash tiles, and entry bundles of leaf data. Hashes only; no statement and no salt ever comes here.

Tiles are derived from the segments and written just before the checkpoint that needs them. Full ones are synced, once;
partial ones are rewritten by the next checkpoint and removed when the full one exists. The checkpoint is replaced last,
so a reader who sees it finds its tiles.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from controlplane.record.disk import disk_errors, replace_file
from treaty.log import HASH_BYTES, TileRef, Tree, tile_bytes, tile_path
from treaty.log.tiles import TILE_WIDTH, encode_bundle, tiles_at

CHECKPOINT = "checkpoint"
_MODE = 0o644


class TileFiles:
    """Writer of the public directory. `leaf_data` of the leaves is the caller's to bring."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        with disk_errors("open the log's public directory"):
            directory.mkdir(mode=0o755, parents=True, exist_ok=True)

    def stored_checkpoint(self) -> bytes | None:
        with disk_errors("read the last checkpoint"):
            path = self.directory / CHECKPOINT
            return path.read_bytes() if path.exists() else None

    def store_checkpoint(self, note: bytes) -> None:
        with disk_errors("store a checkpoint"):
            replace_file(self.directory / CHECKPOINT, note, mode=_MODE, is_durable=True)

    def full_until(self, size: int) -> int:
        """The number of leaves, at most `size`, whose full tiles and bundles are all here."""
        index = size // TILE_WIDTH
        while index and not self._has_full(index - 1):
            index -= 1
        return index * TILE_WIDTH

    def write(self, tree: Tree, begin: int, size: int, data: bytes) -> None:
        """Write every tile of a tree of `size` that was not full at `begin`.

        Args:
            begin: a multiple of 256, so that `data` starts at a bundle's edge.
            data: leaf data from leaf `begin` to leaf `size`, concatenated.
        """
        with disk_errors("write the tiles of the log"):
            for ref in tiles_at(size, begin):
                if ref.level == 0:
                    at = (ref.index * TILE_WIDTH - begin) * HASH_BYTES
                    entries = [data[at + HASH_BYTES * n : at + HASH_BYTES * (n + 1)] for n in range(ref.width)]
                    self._put(TileRef(None, ref.index, ref.width), encode_bundle(entries))
            # Level 0 last and in order: `full_until` takes a tile there as the sign that all of its ancestors exist.
            for ref in sorted(tiles_at(size, begin), key=lambda ref: ref.level == 0):
                self._put(ref, tile_bytes(tree, ref))

    def _put(self, ref: TileRef, content: bytes) -> None:
        path = self.directory / tile_path(ref.level, ref.index, ref.width)
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        replace_file(path, content, mode=_MODE, is_durable=ref.is_full)
        if ref.is_full:
            shutil.rmtree(path.with_name(path.name + ".p"), ignore_errors=True)

    def _has_full(self, index: int) -> bool:
        path = self.directory / tile_path(0, index)
        return path.is_file() and path.stat().st_size == TILE_WIDTH * HASH_BYTES
