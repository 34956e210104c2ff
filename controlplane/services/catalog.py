"""Resources as an operator reads and writes them: get, list, watch, apply, delete.

Rules:
1. every kind can be read; only a kind in the table below is written by apply or delete: the others come from verbs,
   from signed statements and from the charter;
2. apply writes intent alone: a status in it is refused, what the store owns is kept, the trace id of the command is
   noted on the resource;
3. a service judges an intent before it is stored, so that what could never be carried out is refused at once;
4. apply is level: the same document again changes nothing.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from controlplane.services.ports import TRACE_ANNOTATION
from controlplane.store import Store
from controlplane.store.ports.resources import MAX_PAGE, Page, WatchEvent
from treaty import names
from treaty.errors import InvalidInput, NotFound, PermissionRefused
from treaty.resources import codec
from treaty.resources.kinds import kind_named
from treaty.resources.meta import AnyKind, AnyResource, Status

Admit = Callable[[AnyResource], Awaitable[None]]
"""Refuse an intent that could never be carried out; raises what the operator should read."""

HOW_OTHERWISE: Final[Mapping[str, str]] = {
    "Nation": "the founders publish a charter",
    "NodeAgent": "use 'foedus agent accept' or 'foedus agent revoke'",
    "ModelVersion": "use 'foedus model publish'",
    "FederatedRun": "use 'foedus run start' and 'foedus run cancel'",
    "PolicyBundle": "use 'foedus policy push'",
    "ConsentRequest": "create a rollout",
    "Consent": "the nation answers with 'foedus-agent approve' or 'refuse'",
    "Dataset": "the nation registers it with 'foedus-agent dataset add'",
}


@dataclass(frozen=True, slots=True)
class Written:
    """How a kind is written by apply: who judges it, and who is told that something changed."""

    admit: Admit
    changed: Callable[[], None]


class Catalog:
    """Reads of all kinds, writes of those in `written`, by kind name."""

    def __init__(self, store: Store, written: Mapping[str, Written]) -> None:
        self._store = store
        self._written = written

    async def get(self, kind: str, name: str) -> AnyResource:
        return await self._store.resources.get(kind_named(kind), names.resource_name(name))

    async def list(self, kind: str, *, selector: str, limit: int, after: str) -> Page[object, Status]:
        """`selector`: key=value pairs joined by commas. `limit` 0 means the largest page."""
        return await self._store.resources.list(
            kind_named(kind),
            label_selector=_labels(selector),
            limit=min(limit or MAX_PAGE, MAX_PAGE),
            after=after,
        )

    def watch(self, kind: str, since_version: int) -> AsyncIterator[WatchEvent]:
        return self._store.watch(kind_named(kind), since_version)

    async def apply(self, document: bytes, *, trace_id: str, dry_run: bool) -> AnyResource:
        """Store an intent. Raises: PermissionRefused: not a kind that is applied. InvalidInput, ConflictError."""
        wanted = codec.from_json(document)
        kind = kind_named(wanted.kind)
        written = self._writable(kind)
        if wanted.status != kind.status():
            raise InvalidInput("apply writes a spec; a status is observed, not wanted", remedy="leave 'status' out")
        current = await self._current(kind, wanted.name)
        if current is not None and current.spec == wanted.spec and current.metadata.labels == wanted.metadata.labels:
            return current  # 4
        await written.admit(wanted)  # 3
        noted = _noted(wanted, current, trace_id)
        if dry_run:
            return noted
        if current is None:
            stored = await self._store.resources.create(noted)
        else:
            expected = wanted.metadata.resource_version or current.metadata.resource_version
            stored = await self._store.resources.update(noted, expected)
        written.changed()
        return stored

    async def delete(self, kind_name: str, name: str, expected_version: int) -> AnyResource:
        """Delete what apply wrote; what it last was."""
        kind = kind_named(kind_name)
        written = self._writable(kind)
        last = await self._store.resources.get(kind, names.resource_name(name))
        await self._store.resources.delete(kind, name, expected_version=expected_version or None)
        written.changed()
        return last

    def _writable(self, kind: AnyKind) -> Written:
        try:
            return self._written[kind.name]
        except KeyError:
            raise PermissionRefused(
                f"a {kind.name} is not written by hand", remedy=HOW_OTHERWISE.get(kind.name, "")
            ) from None

    async def _current(self, kind: AnyKind, name: str) -> AnyResource | None:
        try:
            return await self._store.resources.get(kind, name)
        except NotFound:
            return None


def _noted(wanted: AnyResource, current: AnyResource | None, trace_id: str) -> AnyResource:
    """The wanted spec and labels over what the store owns, with the command's trace id."""
    base = wanted.metadata if current is None else current.metadata
    annotations = {**base.annotations, **wanted.metadata.annotations, TRACE_ANNOTATION: trace_id}
    metadata = replace(base, labels=wanted.metadata.labels, annotations=annotations)
    status = wanted.status if current is None else current.status
    return replace(wanted, metadata=metadata, status=status)


def _labels(selector: str) -> Mapping[str, str]:
    labels: dict[str, str] = {}
    for pair in selector.split(",") if selector else ():
        key, equals, value = pair.partition("=")
        if not equals or not key or len(selector) > 4096:
            raise InvalidInput("a selector is key=value pairs joined by commas")
        labels[key] = value
    return labels
