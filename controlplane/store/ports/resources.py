"""The port for resources: read, compare-and-swap, watch.

Every change of any resource takes the next number of one global sequence, its `resource_version`; the numbers become
visible in order, so who has read up to one has missed nothing before it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Generic, Protocol

from treaty.resources import DEFAULT_NAMESPACE, AnyKind, AnyResource, Kind, Resource
from treaty.resources.meta import SpecT, SpecT_co, StatusT, StatusT_co

MAX_PAGE = 500
WATCH_COMPACTED = "WATCH_COMPACTED"
"""Code of the ConflictError that tells a watcher to list again."""


class EventType(StrEnum):
    ADDED = "ADDED"
    MODIFIED = "MODIFIED"
    DELETED = "DELETED"


@dataclass(frozen=True, slots=True)
class WatchEvent:
    """One change. `resource` is what it became; of a deleted one, what it last was."""

    type: EventType
    resource_version: int
    resource: AnyResource


@dataclass(frozen=True, slots=True)
class Page(Generic[SpecT_co, StatusT_co]):
    """Resources by name. Watch from `resource_version`; `next_after` is empty on the last page."""

    items: tuple[Resource[SpecT_co, StatusT_co], ...]
    resource_version: int
    next_after: str = ""


class Resources(Protocol):
    async def get(
        self, kind: Kind[SpecT, StatusT], name: str, *, namespace: str = DEFAULT_NAMESPACE
    ) -> Resource[SpecT, StatusT]:
        """The resource as stored. Raises NotFound."""
        ...

    async def list(
        self,
        kind: Kind[SpecT, StatusT],
        *,
        label_selector: Mapping[str, str] = {},
        namespace: str = DEFAULT_NAMESPACE,
        limit: int = MAX_PAGE,
        after: str = "",
    ) -> Page[SpecT, StatusT]:
        """Resources that carry every label of the selector, ordered by name, at most `limit`, after name `after`."""
        ...

    async def all(
        self, kind: Kind[SpecT, StatusT], *, label_selector: Mapping[str, str] = {}, namespace: str = DEFAULT_NAMESPACE
    ) -> tuple[Resource[SpecT, StatusT], ...]:
        """Every resource that carries every label of the selector, ordered by name, however many pages that takes.

        Read page by page: one that is created or deleted meanwhile may be missing or not.
        """
        ...

    async def create(self, resource: Resource[SpecT, StatusT]) -> Resource[SpecT, StatusT]:
        """Store a new one; uid, generation 1, version and creation time are set here.

        Raises: ConflictError: the name is taken.
        """
        ...

    async def update(
        self, resource: Resource[SpecT, StatusT], expected_version: int | None = None
    ) -> Resource[SpecT, StatusT]:
        """Store spec, labels, annotations and finalizers; the status stays. A changed spec is a new generation.

        `expected_version` is the resource's own where it is not given. A resource that is being deleted and has lost
        its last finalizer is removed by this.

        Raises:
            ConflictError: somebody changed it since `expected_version`, or the kind's spec is immutable.
            NotFound: it is gone.
        """
        ...

    async def update_status(
        self, resource: Resource[SpecT, StatusT], expected_version: int | None = None
    ) -> Resource[SpecT, StatusT]:
        """Store the status; everything else stays. An equal status is no change and takes no version.

        Raises: ConflictError, NotFound: as `update`.
        """
        ...

    async def delete(
        self, kind: AnyKind, name: str, *, namespace: str = DEFAULT_NAMESPACE, expected_version: int | None = None
    ) -> None:
        """Remove it, or, where it has finalizers, mark it as being deleted. Repeating the latter changes nothing.

        Raises: NotFound; ConflictError: it is not at `expected_version`, if one is given.
        """
        ...

    async def compact(self, keep_events: int) -> None:
        """Forget all but the last `keep_events` changes, for watchers; the resources stay.

        The store does so by itself now and then, keeping the last ten thousand.
        """
        ...


class Watches(Protocol):
    def watch(self, kind: AnyKind | None, since_version: int) -> AsyncIterator[WatchEvent]:
        """Every change of `kind` (None: of any kind) after `since_version`, in order, without end.

        Raises: ConflictError with code WATCH_COMPACTED: the changes since then are no longer kept, or the version
            lies in the future (the store was restored); list again.
        """
        ...
