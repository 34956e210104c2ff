"""What keeps drafts and chunks from only growing: a bound for each publisher, an end for each draft, a sweep.

Rules:
1. the drafts of one publisher that are not Ready have a bound in bytes, as their manifests state them;
2. a draft that is not Ready in time is dropped with its resource; publishing it again begins anew;
3. a chunk that no manifest refers to is deleted, but never one that was put lately: its manifest may not be stored yet.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from datetime import datetime
from typing import Final

from controlplane.artifacts.store import ChunkStore
from controlplane.artifacts.uploads import sweep
from controlplane.store import Store
from treaty.errors import NotFound, ResourceExhausted
from treaty.manifest import Manifest, parse_manifest
from treaty.names import Digest
from treaty.resources.models import MODEL_VERSION, model_version_name

MAX_DRAFT_BYTES: Final = 64 * 1024**3
"""Four drafts of an eight-billion-parameter model in sixteen bits."""


async def check_room(store: Store, manifest: Manifest, owner: str, *, max_bytes: int) -> None:
    """Raises: ResourceExhausted: with `manifest` the drafts of `owner` would exceed `max_bytes` (rule 1)."""
    others = [stored for stored in await store.artifacts.drafts() if stored.digest != manifest.digest]
    sizes = [parse_manifest(stored.manifest).total_bytes for stored in others if stored.owner == owner]
    if sum(sizes) + manifest.total_bytes > max_bytes:
        raise ResourceExhausted(
            f"the drafts of {owner} would have more than {max_bytes} bytes", remedy="finish or sign the others first"
        )


async def expire(store: Store, *, created_before: datetime) -> tuple[Digest, ...]:
    """Drop the drafts that were published before `created_before` and are not Ready (rule 2); which they were."""
    late = [stored.digest for stored in await store.artifacts.drafts() if stored.created_at < created_before]
    dropped = []
    for digest in late:
        async with store.transaction() as change:
            stored = await change.artifacts.manifest(digest)
            if stored.is_ready:
                continue  # it became so meanwhile
            await change.artifacts.drop_manifest(digest)
            with suppress(NotFound):  # its publisher went away between the manifest and the resource
                await change.resources.delete(MODEL_VERSION, model_version_name(parse_manifest(stored.manifest).ref))
            dropped.append(digest)
    return tuple(dropped)


async def sweep_chunks(store: Store, chunks: ChunkStore, *, put_before: datetime) -> int:
    """Delete chunks that no manifest refers to and that were last put before `put_before` (rule 3); how many."""

    def old() -> list[Digest]:
        return [digest for digest, when in chunks.stored() if when < put_before]

    doomed = frozenset(await store.artifacts.unreferenced(await asyncio.to_thread(old)))
    return await asyncio.to_thread(sweep, chunks, doomed, put_before=put_before) if doomed else 0
