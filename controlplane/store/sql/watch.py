"""Watching resources: reads the events after a version, then waits for the next commit, for ever.

This process's commits wake it at once; another process's (a second coordinator on the same database) are seen at the
next look, at most `POLL_SECONDS` later.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

from controlplane.store.ports.resources import WATCH_COMPACTED, WatchEvent
from controlplane.store.sql.resource_rows import events_since
from controlplane.store.sql.runner import Runner
from treaty.errors import ConflictError
from treaty.resources import AnyKind

POLL_SECONDS = 1.0
BATCH = 200


async def watch(runner: Runner, kind: AnyKind | None, since_version: int) -> AsyncIterator[WatchEvent]:
    """See `controlplane.store.ports.resources.Watches`."""
    since = since_version
    while True:
        seen_commits = runner.commits.count
        after = since
        events, read_to, compacted = await runner.read(
            lambda connection, after=after: events_since(connection, kind, after, BATCH)  # type: ignore[misc]
        )
        if since < compacted or since > read_to:
            raise ConflictError(
                f"changes since version {since} are not kept",
                remedy="list again and watch from there",
                code=WATCH_COMPACTED,
            )
        for event in events:
            yield event
        since = read_to
        if not events:
            await runner.commits.wait(seen_commits, POLL_SECONDS)
