"""A source of chunks for tests of pulls: serves folders, remembers what it was asked, fails where it is told to."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from node_agent.shelf import Shelf
from node_agent.staging import Frames
from tests.treaty.model_folder import description, model_folder, safetensors
from treaty.label import Label
from treaty.manifest import Description, Manifest
from treaty.manifest_build import build, chunks_of
from treaty.names import Digest

__all__ = ["FolderSource", "Label", "shelf_in", "tiny_version"]


@dataclass
class FolderSource:
    """`before` is called with how many chunks were served so far; what it raises, the source raises."""

    chunks: dict[Digest, bytes]
    before: Callable[[int], None] = lambda _: None
    served: list[Digest] = field(default_factory=list)

    async def fetch(self, manifest: Manifest, chunks: Sequence[Digest]) -> AsyncIterator[tuple[Digest, Frames]]:
        assert set(chunks) <= set(manifest.chunk_bytes)
        for chunk in chunks:
            self.before(len(self.served))
            self.served.append(chunk)
            yield chunk, [self.chunks[chunk]]


def shelf_in(directory: Path) -> Shelf:
    return Shelf(directory / "shelf", directory / "staging")


def tiny_version(
    directory: Path, *, tensors: int = 40, about: Description | None = None, seed: bytes = b""
) -> tuple[Manifest, FolderSource]:
    """A version with `tensors` small tensors, so as many chunks, and a source that has them."""
    data = {
        f"layer.{number}": ("F32", [64], seed + bytes([number]) + bytes(255 - len(seed))) for number in range(tensors)
    }
    folder = model_folder(directory / f"published-{os.urandom(4).hex()}", safetensors(data))
    manifest = build(folder, about or description())
    return manifest, FolderSource(dict(chunks_of(folder, manifest)))
