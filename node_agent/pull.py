"""Brings a model version onto the shelf: fetch, verify, make visible; in this order and not otherwise.

1. take the disk space; 2. count what an earlier attempt left, hashed again; 3. copy what other versions here have;
4. fetch the rest, several ranges in flight; 5. check the whole, sync, move into place. Killed at any moment, the next
attempt fetches at most one chunk for each stream again: a stream hands over a chunk and asks for the next once that
one is written and journaled. Each stream fetches long ranges, shorter ones towards the end, so that round trips of
230 ms neither idle the line nor leave one stream alone with the rest.

Only `Unavailable` is retried here, and only while chunks keep arriving; everything else stops the pull and leaves
nothing on the shelf. Whether the version may be pulled at all was decided before.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Protocol, TypeVar

from node_agent.shelf import Shelf
from node_agent.staging import Frames, Staging
from treaty.errors import FoedusError, ResourceExhausted, TrustError, Unavailable
from treaty.manifest import Manifest
from treaty.names import Digest

T = TypeVar("T")

WORKERS = 2
"""Threads that hash and write. SHA-256 does 1.5 GB/s in each, more than a link brings."""

MIN_RANGE_CHUNKS = 4
"""Shorter ranges cost more in round trips than they even out between streams at the end."""


class ChunkSource(Protocol):
    """Where chunks come from: the coordinator, over connections of their own."""

    def fetch(self, manifest: Manifest, chunks: Sequence[Digest]) -> AsyncIterator[tuple[Digest, Frames]]:
        """Yield `chunks` with their bytes, in that order, in frames of any size. Iterations run side by side.

        Raises: Unavailable: the other side stopped answering; what was yielded counts. Other errors stop the pull.
        """


@dataclass(frozen=True, slots=True)
class PullSettings:
    streams: int = 4
    """Ranges in flight; the source spreads them over its connections (4). What gRPC buffers for each costs memory:
    8 need 100 MB more than 4 on loopback and bring nothing."""
    max_range_chunks: int = 64
    """Longest range asked for at once: 256 MiB, against which a round trip is nothing."""
    stall_seconds: int = 60
    """A stream that brings no chunk for so long counts as unavailable. 4 MiB in it is 70 kB/s."""
    attempts: int = 5
    """Failures in a row of one stream, without a chunk in between, before the pull gives up."""
    backoff_seconds: int = 1
    """First pause after a failure; doubles with each, with jitter."""


@dataclass(frozen=True, slots=True)
class Progress:
    """Of the version's distinct chunks: bytes in place, and in all."""

    done_bytes: int
    total_bytes: int


@dataclass(frozen=True, slots=True)
class PullReport:
    """Where the bytes came from. All zero: the version was already here."""

    fetched_bytes: int = 0
    copied_bytes: int = 0
    resumed_bytes: int = 0


async def pull(
    manifest: Manifest,
    source: ChunkSource,
    shelf: Shelf,
    *,
    settings: PullSettings = PullSettings(),
    progress: Callable[[Progress], None] = lambda _: None,
    pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> PullReport:
    """Make `manifest`'s version complete on `shelf`; durable and visible on return. Idempotent.

    Raises:
        TrustError: a chunk was not what its digest says. InvalidInput: the version contradicts its manifest or holds
            NaN or infinity. ResourceExhausted: the disk is full. Unavailable: the source stopped answering.
            ConflictError: this version is already being pulled. In each case the shelf is as before.
    """
    staging = Staging(shelf.staging_folder(manifest.digest), manifest)
    try:
        # The threads end before the files are closed: a late write would go to whatever has the descriptor by then.
        with ThreadPoolExecutor(WORKERS, thread_name_prefix="pull") as threads:
            running = _Pull(manifest, source, staging, threads, settings, progress, pause)
            await running.in_thread(staging.open)
            if not shelf.has(manifest.digest):
                await running.resume()
                await running.copy(shelf)
                await running.fetch()
                await running.in_thread(staging.finish)
                await running.in_thread(shelf.admit, manifest.digest)
            await running.in_thread(shelf.abandon, manifest.digest)
    except ResourceExhausted:
        # Half a version would hold the very space that is missing.
        shelf.abandon(manifest.digest)
        raise
    finally:
        staging.close()
    return running.report


class _Pull:
    """The state of one pull: what is still wanted, and how much is done. Lives on the event loop alone."""

    def __init__(
        self,
        manifest: Manifest,
        source: ChunkSource,
        staging: Staging,
        threads: ThreadPoolExecutor,
        settings: PullSettings,
        progress: Callable[[Progress], None],
        pause: Callable[[float], Awaitable[None]],
    ) -> None:
        self._manifest = manifest
        self._source = source
        self._staging = staging
        self._threads = threads
        self._settings = settings
        self._progress = progress
        self._pause = pause
        self._sizes = manifest.chunk_bytes
        self._total_bytes = sum(self._sizes.values())
        self._wanted: deque[Digest] = deque(self._sizes)
        self.report = PullReport()

    async def in_thread(self, work: Callable[..., T], *arguments: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work, *arguments)

    async def resume(self) -> None:
        """Count the chunks that an earlier attempt left, as far as they verify."""
        journaled = await self.in_thread(self._staging.journaled)
        kept = await self._each(journaled, self._staging.recheck)
        self._done(kept, resumed_bytes=self._bytes(kept))

    async def copy(self, shelf: Shelf) -> None:
        """Take from other versions on the shelf what they share with this one."""
        places = await self.in_thread(shelf.places, set(self._wanted))
        copied = await self._each(tuple(places), lambda chunk: self._staging.copy(chunk, places[chunk]))
        self._done(copied, copied_bytes=self._bytes(copied))

    async def fetch(self) -> None:
        """Fetch the rest over several streams; the first failure stops all."""
        async with _one_error(), asyncio.TaskGroup() as tasks:
            for number in range(min(self._settings.streams, len(self._wanted))):
                tasks.create_task(self._stream(), name=f"pull-{number}")

    async def _stream(self) -> None:
        failures = 0
        while self._wanted:
            wanted = self._next_range()
            asked = len(wanted)
            try:
                await self._range(wanted)
            except Unavailable:
                failures = 1 if len(wanted) < asked else failures + 1
                if failures >= self._settings.attempts:
                    raise
                await self._pause(self._settings.backoff_seconds * 2 ** (failures - 1) * random.uniform(0.5, 1.0))  # noqa: S311
            finally:
                self._wanted.extendleft(reversed(wanted))

    async def _range(self, wanted: deque[Digest]) -> None:
        """Fetch `wanted`, taking each chunk out of it once it is in place."""
        stream = self._source.fetch(self._manifest, tuple(wanted))
        try:
            while wanted:
                chunk, data = await self._arrival(stream)
                if chunk != wanted[0]:
                    raise TrustError("the source sent another chunk than was asked for")
                await self.in_thread(self._staging.store, chunk, data)
                wanted.popleft()
                size = self._sizes[chunk]
                self._count(fetched_bytes=size)
        finally:
            if isinstance(stream, AsyncGenerator):
                await stream.aclose()

    async def _arrival(self, stream: AsyncIterator[tuple[Digest, Frames]]) -> tuple[Digest, Frames]:
        try:
            async with asyncio.timeout(self._settings.stall_seconds):
                return await anext(stream)
        except TimeoutError:
            raise Unavailable("the source brought no chunk in time", remedy="check the connection") from None
        except StopAsyncIteration:
            raise Unavailable("the source ended before the range was complete") from None

    def _next_range(self) -> deque[Digest]:
        share = len(self._wanted) // self._settings.streams
        length = max(MIN_RANGE_CHUNKS, min(self._settings.max_range_chunks, share))
        return deque(self._wanted.popleft() for _ in range(min(length, len(self._wanted))))

    async def _each(self, chunks: Sequence[Digest], work: Callable[[Digest], bool]) -> set[Digest]:
        """The chunks for which `work` holds, run in the worker threads."""
        kept: set[Digest] = set()
        waiting = iter(chunks)

        async def run() -> None:
            for chunk in waiting:
                if await self.in_thread(work, chunk):
                    kept.add(chunk)

        async with _one_error(), asyncio.TaskGroup() as tasks:
            for number in range(WORKERS):
                tasks.create_task(run(), name=f"pull-local-{number}")
        return kept

    def _done(self, chunks: set[Digest], *, copied_bytes: int = 0, resumed_bytes: int = 0) -> None:
        self._wanted = deque(chunk for chunk in self._wanted if chunk not in chunks)
        self._count(copied_bytes=copied_bytes, resumed_bytes=resumed_bytes)

    def _bytes(self, chunks: set[Digest]) -> int:
        return sum(self._sizes[chunk] for chunk in chunks)

    def _count(self, *, fetched_bytes: int = 0, copied_bytes: int = 0, resumed_bytes: int = 0) -> None:
        before = self.report
        self.report = PullReport(
            before.fetched_bytes + fetched_bytes,
            before.copied_bytes + copied_bytes,
            before.resumed_bytes + resumed_bytes,
        )
        after = self.report
        done = after.fetched_bytes + after.copied_bytes + after.resumed_bytes
        self._progress(Progress(done, self._total_bytes))


@asynccontextmanager
async def _one_error() -> AsyncIterator[None]:
    """Of the failures of a task group let out the first of ours."""
    try:
        yield
    except BaseExceptionGroup as group:
        refused = group.subgroup(FoedusError)
        if refused is None:
            raise
        raise _first(refused) from None


def _first(group: BaseExceptionGroup[FoedusError]) -> FoedusError:
    found = group.exceptions[0]
    return _first(found) if isinstance(found, BaseExceptionGroup) else found
