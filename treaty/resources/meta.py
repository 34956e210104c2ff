"""The shape that every resource has: metadata, spec (intent), status (observation), conditions.

Rules, as Kubernetes users know them:
1. `generation` grows when the spec changes, `resource_version` with every change; the store alone sets both;
2. a condition is an adjective (`Ready`, `Succeeded`), not a phase; `last_transition_time` moves with its status only;
3. an object with finalizers is not gone when it is deleted: it carries a `deletion_timestamp` until they are.

Everything here is immutable; a change is `dataclasses.replace`. No clock is read: `now` is an argument.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Generic, TypeVar

from treaty.resources.marks import CamelWord, Count, IntegerAsText, Items, LabelKey, LabelValue, Line, Name, Text

API_VERSION = "foedus.dev/v1alpha1"
DEFAULT_NAMESPACE = "default"


class ConditionStatus(StrEnum):
    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"


@dataclass(frozen=True, slots=True)
class Condition:
    """One adjective about a resource, why it holds or does not, and since when."""

    type: CamelWord
    status: ConditionStatus
    reason: CamelWord
    message: Line = ""
    last_transition_time: datetime | None = None
    observed_generation: Count = 0


def set_condition(conditions: Iterable[Condition], condition: Condition, now: datetime) -> tuple[Condition, ...]:
    """Put `condition` in the place of the one of its type, or at the end.

    `last_transition_time` becomes `now` if the status changed, and stays what it was otherwise.
    """
    kept: list[Condition] = []
    fresh = replace(condition, last_transition_time=now)
    is_placed = False
    for old in conditions:
        if old.type != condition.type:
            kept.append(old)
        elif not is_placed:
            is_same = old.status is condition.status and old.last_transition_time is not None
            kept.append(replace(condition, last_transition_time=old.last_transition_time) if is_same else fresh)
            is_placed = True
    return tuple(kept) if is_placed else (*kept, fresh)


def find_condition(conditions: Iterable[Condition], type_: str) -> Condition | None:
    return next((condition for condition in conditions if condition.type == type_), None)


def is_true(conditions: Iterable[Condition], type_: str) -> bool:
    """Whether the condition is there and True; an absent or Unknown one is not."""
    found = find_condition(conditions, type_)
    return found is not None and found.status is ConditionStatus.TRUE


@dataclass(frozen=True, slots=True)
class ObjectMeta:
    """Who an object is. `uid`, `generation`, `resource_version` and both timestamps are the store's."""

    name: Name
    namespace: Name = DEFAULT_NAMESPACE
    uid: Annotated[str, Text(36)] = ""
    labels: Annotated[Mapping[LabelKey, LabelValue], Items(high=64)] = field(default_factory=dict)
    annotations: Annotated[Mapping[LabelKey, Line], Items(high=64)] = field(default_factory=dict)
    generation: Count = 0
    resource_version: Annotated[int, IntegerAsText()] = 0
    creation_timestamp: datetime | None = None
    deletion_timestamp: datetime | None = None
    finalizers: Annotated[tuple[LabelKey, ...], Items(high=16)] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """What every status has. `observed_generation` is the generation that the rest of it speaks about."""

    observed_generation: Count = 0
    conditions: Annotated[tuple[Condition, ...], Items(high=32)] = ()


SpecT_co = TypeVar("SpecT_co", covariant=True)
StatusT_co = TypeVar("StatusT_co", covariant=True, bound=Status)
SpecT = TypeVar("SpecT")
StatusT = TypeVar("StatusT", bound=Status)


@dataclass(frozen=True, slots=True)
class Kind(Generic[SpecT_co, StatusT_co]):
    """A kind of resource and the two dataclasses behind it.

    `is_immutable`: its spec never changes once it is stored; another name is another object.
    """

    name: str
    plural: str
    spec: type[SpecT_co]
    status: type[StatusT_co]
    short_names: tuple[str, ...] = ()
    is_immutable: bool = False


@dataclass(frozen=True, slots=True)
class Resource(Generic[SpecT_co, StatusT_co]):
    """One object. `kind` is the name of its `Kind`."""

    kind: str
    metadata: ObjectMeta
    spec: SpecT_co
    status: StatusT_co
    api_version: str = API_VERSION

    @property
    def name(self) -> str:
        return self.metadata.name


AnyKind = Kind[object, Status]
AnyResource = Resource[object, Status]


def new_resource(
    kind: Kind[SpecT, StatusT], name: str, spec: SpecT, *, status: StatusT | None = None, labels: Mapping[str, str] = {}
) -> Resource[SpecT, StatusT]:
    """An object that the store has not seen yet."""
    metadata = ObjectMeta(name=name, labels=dict(labels))
    return Resource(kind.name, metadata, spec, status if status is not None else kind.status())


def with_condition(resource: Resource[SpecT, StatusT], condition: Condition, now: datetime) -> Resource[SpecT, StatusT]:
    """`resource` with `condition` set; the condition observes the resource's generation."""
    observed = replace(condition, observed_generation=resource.metadata.generation)
    status = replace(resource.status, conditions=set_condition(resource.status.conditions, observed, now))
    return replace(resource, status=status)
