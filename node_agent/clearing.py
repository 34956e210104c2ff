"""Which versions stay on the shelf: what a nation serves or may have to return to, and a few more; the rest is removed.

Kept, whatever their number: the version in service and the fallback that its consent names, what a directive under way
is about, the model of a run under way, and the bases of all of these. Of the others the newest stay, until
`keep_versions` are kept in all. Looked at when a rollout has succeeded, and never while nothing is served.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import contextmanager

import structlog

from node_agent.ports import Core
from node_agent.service import Service
from node_agent.shelf import Shelf
from treaty.errors import FoedusError
from treaty.names import Digest, RunId

log = structlog.get_logger(__name__)


class ShelfKeeper:
    """Knows what is in use, and clears the rest away."""

    def __init__(self, core: Core, shelf: Shelf, service: Service, keep_versions: int) -> None:
        self._core = core
        self._shelf = shelf
        self._service = service
        self._keep_versions = keep_versions
        self._in_use: Counter[Digest] = Counter()
        self._models: dict[RunId, Digest] = {}

    @contextmanager
    def using(self, versions: Collection[Digest]) -> Iterator[None]:
        """Keep these for the length of the body."""
        self._in_use.update(versions)
        try:
            yield
        finally:
            self._in_use.subtract(versions)

    def begin_run(self, run: RunId, model: Digest) -> None:
        """Keep the model of a run until it has ended: a round brings no model into the country. Idempotent."""
        self._models[run] = model

    def end_run(self, run: RunId) -> None:
        self._models.pop(run, None)

    async def clear(self) -> None:
        """Remove what is not kept. A version that does not go is logged: it costs space, and nothing else."""
        wanted = self._service.wanted
        if wanted is None:
            return
        needed = {wanted.digest, *self._models.values(), *(digest for digest, uses in self._in_use.items() if uses)}
        if wanted.fallback is not None:
            needed.add(wanted.fallback)
        try:
            removed = await asyncio.to_thread(clear, self._shelf, needed, self._keep_versions)
        except FoedusError as err:
            log.warning("old versions not removed", code=err.code, exc_info=err)
            return
        if removed:
            log.info("old versions removed", versions=removed)
            self._core.reports.held(self._shelf.versions())


def clear(shelf: Shelf, needed: Collection[Digest], keep_versions: int) -> list[Digest]:
    """Remove from `shelf` what is neither needed, nor a base of what stays, nor among the newest. Blocks on the disk.

    Returns: what was removed. Raises: Corrupt: a manifest on the shelf is damaged, and nothing was removed.
    """
    bases = {version: shelf.manifest(version).about.base for version in shelf.versions()}
    kept = _with_bases(needed, bases)
    for version in sorted(bases, key=shelf.admitted_at, reverse=True):
        candidate = kept | _with_bases([version], bases)
        if len(candidate) <= keep_versions:
            kept = candidate
    doomed = [version for version in bases if version not in kept]
    for version in sorted(doomed, key=lambda version: bases[version] is None):  # adapters before their bases
        shelf.remove(version)
    return doomed


def _with_bases(versions: Collection[Digest], bases: dict[Digest, Digest | None]) -> set[Digest]:
    """Those of `versions` that are on the shelf, and what they are built on; a base is a whole model."""
    here = {version for version in versions if version in bases}
    return here | {base for version in here if (base := bases[version]) is not None and base in bases}
