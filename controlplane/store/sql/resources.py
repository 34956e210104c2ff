"""Resources in SQL: the verbs. What they do to the tables is in `resource_rows`."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime
from itertools import chain

from sqlalchemy import Connection

from controlplane.store.ports.resources import MAX_PAGE, EventType, Page, Resources
from controlplane.store.sql import resource_rows as rows
from controlplane.store.sql.runner import Run
from treaty.errors import ConflictError, InvalidInput
from treaty.resources import DEFAULT_NAMESPACE, AnyKind, AnyResource, Kind, Resource, narrowed
from treaty.resources.meta import SpecT, StatusT


class SqlResources(Resources):
    def __init__(self, run: Run, clock: Callable[[], datetime]) -> None:
        self._run = run
        self._clock = clock

    async def get(
        self, kind: Kind[SpecT, StatusT], name: str, *, namespace: str = DEFAULT_NAMESPACE
    ) -> Resource[SpecT, StatusT]:
        found = await self._run.read(lambda connection: rows.find(connection, kind, namespace, name))
        return narrowed(kind, found)

    async def list(
        self,
        kind: Kind[SpecT, StatusT],
        *,
        label_selector: Mapping[str, str] = {},
        namespace: str = DEFAULT_NAMESPACE,
        limit: int = MAX_PAGE,
        after: str = "",
    ) -> Page[SpecT, StatusT]:
        if not 1 <= limit <= MAX_PAGE:
            raise InvalidInput(f"a page has between 1 and {MAX_PAGE} resources")
        documents, version = await self._run.read(
            lambda connection: (
                rows.select_documents(connection, kind, namespace, label_selector, limit + 1, after),
                rows.counter(connection, "resource_version"),
            )
        )
        items = tuple(narrowed(kind, rows.decoded(document)) for document in documents[:limit])
        return Page(items, version, items[-1].name if len(documents) > limit else "")

    async def all(
        self, kind: Kind[SpecT, StatusT], *, label_selector: Mapping[str, str] = {}, namespace: str = DEFAULT_NAMESPACE
    ) -> tuple[Resource[SpecT, StatusT], ...]:
        page = await self.list(kind, label_selector=label_selector, namespace=namespace)
        found = [page.items]
        while page.next_after:
            page = await self.list(kind, label_selector=label_selector, namespace=namespace, after=page.next_after)
            found.append(page.items)
        return tuple(chain.from_iterable(found))

    async def create(self, resource: Resource[SpecT, StatusT]) -> Resource[SpecT, StatusT]:
        now = self._clock()

        def work(connection: Connection) -> AnyResource:
            metadata = replace(
                resource.metadata,
                uid=str(uuid.uuid4()),
                generation=1,
                creation_timestamp=now,
                deletion_timestamp=None,
            )
            if rows.exists_already(connection, resource):
                raise ConflictError(f"{resource.kind} {resource.name!r} exists already", remedy="choose another name")
            return rows.keep(connection, replace(resource, metadata=metadata), EventType.ADDED)

        return rows.same_kind(resource, await self._run.write(work))

    async def update(
        self, resource: Resource[SpecT, StatusT], expected_version: int | None = None
    ) -> Resource[SpecT, StatusT]:
        expected = resource.metadata.resource_version if expected_version is None else expected_version

        def work(connection: Connection) -> AnyResource:
            old = rows.at_version(connection, resource, expected)
            return rows.change(connection, old, rows.with_intent(old, resource))

        return rows.same_kind(resource, await self._run.write(work))

    async def update_status(
        self, resource: Resource[SpecT, StatusT], expected_version: int | None = None
    ) -> Resource[SpecT, StatusT]:
        expected = resource.metadata.resource_version if expected_version is None else expected_version

        def work(connection: Connection) -> AnyResource:
            old = rows.at_version(connection, resource, expected)
            return rows.change(connection, old, replace(old, status=resource.status))

        return rows.same_kind(resource, await self._run.write(work))

    async def delete(
        self, kind: AnyKind, name: str, *, namespace: str = DEFAULT_NAMESPACE, expected_version: int | None = None
    ) -> None:
        now = self._clock()

        def work(connection: Connection) -> None:
            old = rows.find(connection, kind, namespace, name)
            if expected_version is not None:
                rows.refuse_moved(old, expected_version)
            if not old.metadata.finalizers:
                rows.remove(connection, old)
            elif old.metadata.deletion_timestamp is None:
                metadata = replace(old.metadata, deletion_timestamp=now)
                rows.keep(connection, replace(old, metadata=metadata), EventType.MODIFIED)

        await self._run.write(work)

    async def compact(self, keep_events: int) -> None:
        await self._run.write(lambda connection: rows.compact(connection, keep_events))
