"""Kinds that a nation brings: itself, its agents, its datasets, and when nothing may change there.

A dataset's resource is metadata only: what it may be used for, how coarse its size, which schema by digest. There is
no field in which a path, a column name or a record could stand.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Annotated

from treaty.errors import InvalidInput
from treaty.names import Digest, DirectiveNumber, PartyCode
from treaty.resources.marks import Count, Items, Line, Name, NationCode, SpiffeText, Text, Word
from treaty.resources.meta import Kind, Status

NATION_READY = "Ready"
AGENT_ACCEPTED = "Accepted"
AGENT_CONNECTED = "Connected"
AGENT_REVOKED = "Revoked"
AGENT_SERVING = "Serving"


@dataclass(frozen=True, slots=True)
class Contact:
    """Where a nation is reached by people: a role and an address, never a person's name."""

    role: Word
    address: Line


@dataclass(frozen=True, slots=True)
class NationSpec:
    code: NationCode
    memberships: Annotated[tuple[PartyCode, ...], Items(high=16)] = ()
    contacts: Annotated[tuple[Contact, ...], Items(high=16)] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class NationStatus(Status):
    agents: Count = 0


@dataclass(frozen=True, slots=True)
class NodeAgentSpec:
    """What an agent says of itself when it joins; its identity is what its certificate said."""

    spiffe_id: SpiffeText
    nation: NationCode
    version: Annotated[str, Text(64)] = ""


@dataclass(frozen=True, slots=True)
class PolicyRevision:
    """A bundle that an agent has in force."""

    authority: PartyCode
    revision: Count
    bundle_digest: Digest


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeAgentStatus(Status):
    """Conditions: Accepted (an operator), Connected (its stream), Revoked, Serving (a version, observed)."""

    lease_expires_at: datetime | None = None
    certificate_not_after: datetime | None = None
    policy_revisions: Annotated[tuple[PolicyRevision, ...], Items(high=4)] = ()
    serving_digest: Digest | None = None
    capabilities: Annotated[tuple[Word, ...], Items(high=64)] = ()
    highest_number: DirectiveNumber | None = None
    last_status_sequence: Count = 0


class SizeBucket(StrEnum):
    """How many records, coarsely: an exact count would say something about the people in it."""

    UNDER_100 = "under-100"
    UNDER_1_000 = "under-1000"
    UNDER_10_000 = "under-10000"
    UNDER_100_000 = "under-100000"
    UNDER_1_000_000 = "under-1000000"
    LARGER = "1000000-and-more"


@dataclass(frozen=True, slots=True)
class DatasetSpec:
    nation: NationCode
    dataset_id: Name
    purposes: Annotated[tuple[Word, ...], Items(low=1, high=32)]
    data_class: Word
    size_bucket: SizeBucket
    schema_digest: Digest
    languages: Annotated[
        tuple[Annotated[str, Text(35, 2, pattern="^[A-Za-z]{2,8}(-[A-Za-z0-9]{1,8})*$")], ...], Items(high=16)
    ] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetStatus(Status):
    """Conditions: Ready."""

    registered_by: SpiffeText | None = None


@dataclass(frozen=True, slots=True)
class FreezeWindowSpec:
    """From `starts_at` until before `ends_at` nothing changes in `nations`; an open end lasts until it is deleted."""

    nations: Annotated[tuple[NationCode, ...], Items(low=1, high=64)]
    starts_at: datetime
    ends_at: datetime | None = None
    reason: Line = ""

    def __post_init__(self) -> None:
        if self.ends_at is not None and self.ends_at <= self.starts_at:
            raise InvalidInput("the window ends before it starts")


@dataclass(frozen=True, slots=True, kw_only=True)
class FreezeWindowStatus(Status):
    """Conditions: Active."""


NATION = Kind("Nation", "nations", NationSpec, NationStatus)
NODE_AGENT = Kind("NodeAgent", "nodeagents", NodeAgentSpec, NodeAgentStatus, ("agent", "agents"))
DATASET = Kind("Dataset", "datasets", DatasetSpec, DatasetStatus)
FREEZE_WINDOW = Kind("FreezeWindow", "freezewindows", FreezeWindowSpec, FreezeWindowStatus, ("freeze",))
