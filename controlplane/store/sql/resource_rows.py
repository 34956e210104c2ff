"""What a change of a resource does to the tables, inside a transaction that somebody else opened.

Each kept change takes the next resource version from one counter row; since one transaction writes at a time, the
versions become visible in order. The document lies in `resources`, its labels beside it for selectors, and once more
as an event for watchers until it is compacted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache

from sqlalchemy import ColumnElement, Connection, and_, delete, exists, insert, select, update

from controlplane.store.ports.resources import EventType, WatchEvent
from controlplane.store.sql.tables import counters, resource_events, resource_labels, resources
from treaty.errors import ConflictError, Corrupt, InvalidInput, LimitExceeded, NotFound
from treaty.resources import (
    MAX_RESOURCE_BYTES,
    AnyKind,
    AnyResource,
    Resource,
    from_json,
    kind_named,
    narrowed,
    to_bytes,
)
from treaty.resources.meta import Kind, SpecT, StatusT

_REREAD = "read it again and decide anew"

KEPT_EVENTS = 10_000
"""A watcher that fell further behind lists again; at ten changes a second it has a quarter of an hour."""

COMPACT_EVERY = 500

KEPT_DECODED = 128
"""Documents that are kept as they were read: resources never change in place, and most are read far more often than
written. With `MAX_RESOURCE_BYTES` it bounds the memory."""


@lru_cache(maxsize=KEPT_DECODED)
def _read(document: bytes) -> AnyResource:
    return from_json(document)


def decoded(document: bytes) -> AnyResource:
    """A stored document. Raises Corrupt: it does not read."""
    try:
        return _read(bytes(document))
    except InvalidInput as err:
        raise Corrupt("a stored resource does not read") from err


def same_kind(like: Resource[SpecT, StatusT], stored: AnyResource) -> Resource[SpecT, StatusT]:
    """`stored`, which is of the kind of `like`."""
    kind: Kind[SpecT, StatusT] = kind_named(like.kind)  # type: ignore[assignment]
    return narrowed(kind, stored)


def counter(connection: Connection, name: str) -> int:
    value = connection.scalar(select(counters.c.value).where(counters.c.name == name))
    if value is None:
        raise Corrupt(f"the counter {name!r} is missing")
    return int(value)


def find(connection: Connection, kind: AnyKind, namespace: str, name: str) -> AnyResource:
    document = connection.scalar(select(resources.c.document).where(_key(kind.name, namespace, name)))
    if document is None:
        raise NotFound(f"there is no {kind.name} {name!r}")
    return decoded(document)


def exists_already(connection: Connection, resource: AnyResource) -> bool:
    return connection.scalar(select(resources.c.uid).where(_key_of(resource))) is not None


def select_documents(
    connection: Connection, kind: AnyKind, namespace: str, labels: Mapping[str, str], limit: int, after: str
) -> list[bytes]:
    """Documents by name that carry all `labels`."""
    query = select(resources.c.document).where(
        resources.c.kind == kind.name, resources.c.namespace == namespace, resources.c.name > after
    )
    for key, value in labels.items():
        same = and_(
            resource_labels.c.kind == resources.c.kind,
            resource_labels.c.namespace == resources.c.namespace,
            resource_labels.c.name == resources.c.name,
        )
        query = query.where(exists().where(same, resource_labels.c.key == key, resource_labels.c.value == value))
    return list(connection.scalars(query.order_by(resources.c.name).limit(limit)))


def at_version(connection: Connection, resource: AnyResource, expected: int) -> AnyResource:
    """The stored one, if nobody changed it since `expected`."""
    stored = find(connection, kind_named(resource.kind), resource.metadata.namespace, resource.name)
    refuse_moved(stored, expected)
    if resource.metadata.uid != stored.metadata.uid:
        raise ConflictError(f"{stored.kind} {stored.name!r} is another object of that name now", remedy=_REREAD)
    return stored


def refuse_moved(stored: AnyResource, expected: int) -> None:
    found = stored.metadata.resource_version
    if found != expected:
        raise ConflictError(
            f"{stored.kind} {stored.name!r} changed meanwhile: it is at version {found}, not {expected}", remedy=_REREAD
        )


def with_intent(stored: AnyResource, wanted: AnyResource) -> AnyResource:
    """`stored` with the spec and the metadata that its writer may set."""
    is_new_spec = stored.spec != wanted.spec
    if is_new_spec and kind_named(stored.kind).is_immutable:
        raise ConflictError(f"the spec of {stored.kind} {stored.name!r} never changes", remedy="create another one")
    is_leaving = stored.metadata.deletion_timestamp is not None
    if is_leaving and set(wanted.metadata.finalizers) - set(stored.metadata.finalizers):
        raise ConflictError(f"{stored.kind} {stored.name!r} is being deleted and takes no new finalizer")
    metadata = replace(
        stored.metadata,
        labels=wanted.metadata.labels,
        annotations=wanted.metadata.annotations,
        finalizers=wanted.metadata.finalizers,
        generation=stored.metadata.generation + (1 if is_new_spec else 0),
    )
    return replace(stored, metadata=metadata, spec=wanted.spec)


def change(connection: Connection, stored: AnyResource, wanted: AnyResource) -> AnyResource:
    """Keep `wanted` instead of `stored`, unless they are equal; remove it once nothing holds its deletion back."""
    if to_bytes(wanted) == to_bytes(stored):
        return stored
    if wanted.metadata.deletion_timestamp is not None and not wanted.metadata.finalizers:
        return remove(connection, wanted)
    return keep(connection, wanted, EventType.MODIFIED)


def keep(connection: Connection, resource: AnyResource, type_: EventType) -> AnyResource:
    """Store `resource` under the next version."""
    kept, document = _versioned(connection, resource)
    row = {"uid": kept.metadata.uid, "resource_version": kept.metadata.resource_version, "document": document}
    key = {"kind": kept.kind, "namespace": kept.metadata.namespace, "name": kept.name}
    if type_ is EventType.ADDED:
        connection.execute(insert(resources).values(**key, **row))
    else:
        connection.execute(update(resources).where(_key_of(kept)).values(**row))
        connection.execute(delete(resource_labels).where(*(resource_labels.c[column] == key[column] for column in key)))
    if kept.metadata.labels:
        labels = [{**key, "key": label, "value": value} for label, value in kept.metadata.labels.items()]
        connection.execute(insert(resource_labels), labels)
    _note(connection, kept, type_, document)
    return kept


def remove(connection: Connection, resource: AnyResource) -> AnyResource:
    gone, document = _versioned(connection, resource)
    connection.execute(delete(resources).where(_key_of(resource)))
    _note(connection, gone, EventType.DELETED, document)
    return gone


def events_since(
    connection: Connection, kind: AnyKind | None, since: int, limit: int
) -> tuple[list[WatchEvent], int, int]:
    """Events after `since`, the version up to which that is all, and the version up to which none are kept."""
    latest = counter(connection, "resource_version")
    query = select(resource_events).where(resource_events.c.resource_version > since)
    if kind is not None:
        query = query.where(resource_events.c.kind == kind.name)
    found = connection.execute(query.order_by(resource_events.c.resource_version).limit(limit)).all()
    events = [WatchEvent(EventType(row.type), row.resource_version, decoded(row.document)) for row in found]
    read_to = events[-1].resource_version if len(events) == limit else latest
    return events, read_to, counter(connection, "compacted")


def compact(connection: Connection, keep_events: int) -> None:
    floor = max(counter(connection, "resource_version") - keep_events, counter(connection, "compacted"))
    connection.execute(delete(resource_events).where(resource_events.c.resource_version <= floor))
    connection.execute(update(counters).where(counters.c.name == "compacted").values(value=floor))


def _versioned(connection: Connection, resource: AnyResource) -> tuple[AnyResource, bytes]:
    bump = update(counters).where(counters.c.name == "resource_version").values(value=counters.c.value + 1)
    version = connection.scalar(bump.returning(counters.c.value))
    if version is None:
        raise Corrupt("the counter 'resource_version' is missing")
    document = to_bytes(replace(resource, metadata=replace(resource.metadata, resource_version=version)))
    if len(document) > MAX_RESOURCE_BYTES:
        raise LimitExceeded(f"{resource.kind} {resource.name!r} is larger than {MAX_RESOURCE_BYTES} bytes")
    # Read back what was written: a value that the model refuses must not become a document that nobody can read.
    return _read(document), document


def _note(connection: Connection, resource: AnyResource, type_: EventType, document: bytes) -> None:
    version = resource.metadata.resource_version
    row = {"resource_version": version, "kind": resource.kind, "type": type_.value, "document": document}
    connection.execute(insert(resource_events).values(**row))
    if version % COMPACT_EVERY == 0:
        compact(connection, KEPT_EVENTS)


def _key(kind: str, namespace: str, name: str) -> ColumnElement[bool]:
    return and_(resources.c.kind == kind, resources.c.namespace == namespace, resources.c.name == name)


def _key_of(resource: AnyResource) -> ColumnElement[bool]:
    return _key(resource.kind, resource.metadata.namespace, resource.name)
