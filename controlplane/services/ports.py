"""Where the coordinator's rooms meet: what the API offers the services, and what the services offer the API.

`Fleet` and `Record` are called by the services; `Listener` and the verbs are called by the API's servicers. An
implementation raises errors of `treaty.errors` only. Everything a `Listener` is told may be told again: handlers are
idempotent, and what they miss they find when they next reconcile.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Protocol, TypeAlias

from controlplane.domain.agents import (
    AgentStatus,
    NationAnswer,
    ProgressReport,
    RoundReport,
    UpdateOpening,
    UpdateReceived,
)
from controlplane.domain.directives import Action
from treaty.delegation import Delegation
from treaty.log import Leaf
from treaty.names import AgentId, Digest, DirectiveNumber, PartyCode, RunId, SpiffeId
from treaty.resources.meta import AnyResource

Clock: TypeAlias = Callable[[], datetime]
"""Now, aware UTC."""

TRACE_ANNOTATION = "foedus.dev/trace-id"
"""Trace id of the command that created or last changed a resource; what follows from it carries the same id."""

NO_TRACE = "0" * 32
"""Trace id of what no command asked for."""


class Fleet(Protocol):
    """The agents, as the services see them."""

    def connected(self) -> Mapping[PartyCode, AgentId]:
        """Accepted agents with a live stream; of several in one nation, the one that connected first."""
        ...

    def agent_of(self, nation: PartyCode) -> AgentId | None:
        """The nation's accepted agent, connected or not; None where no operator accepted one."""
        ...

    def status(self, agent: AgentId) -> AgentStatus | None:
        """The newest status of the live or last stream; None until the agent sent one to this process."""
        ...

    def delegations(self, nation: PartyCode) -> Sequence[Delegation]:
        """Keys that the nation's root delegated, verified against the charter; empty until an agent said hello."""
        ...

    async def direct(self, agent: AgentId, action: Action, trace_id: str) -> DirectiveNumber:
        """Journal the action and send it when the agent is there; resent after a reconnect until acknowledged.

        The newest directive of a subject supersedes the older ones. Idempotent by content: what is live already, or
        was refused with this very content, keeps its number and is not sent twice.
        Raises: PreconditionFailed: this coordinator was restored from a backup and may direct nothing.
        """
        ...

    async def runs_of(self, agent: AgentId) -> Sequence[RunId]:
        """Runs whose newest directive to the agent is a round: for all that it was told, they go on."""
        ...

    async def refusal(self, agent: AgentId, number: DirectiveNumber) -> tuple[str, ...]:
        """The codes with which the agent refused the directive; empty while it did not. Raises: NotFound."""
        ...

    async def settle(self, agent: AgentId, number: DirectiveNumber) -> None:
        """The directive has done its work: it is not resent and grants no pull any more. Idempotent."""
        ...

    async def ask(self, agent: AgentId, ask: bytes, deadline: timedelta) -> NationAnswer:
        """What would the nation decide? `ask` is canonical JSON, at most 64 KiB.

        Raises: Unavailable: not connected, or silent until the deadline.
        """
        ...

    async def cut(self, agent: AgentId, code: str) -> None:
        """End the agent's streams now. It may come back if its certificate still serves."""
        ...


class Record(Protocol):
    """The coordinator's append-only log."""

    async def append(self, envelope: bytes) -> int:
        """Make a signed statement durable; its index. Idempotent by the statement's digest."""
        ...

    async def leaf(self, index: int) -> Leaf:
        """Entry `index` as it was recorded, with its salt unless it was forgotten. Raises: NotFound: there is none."""
        ...

    def known(self, digest: Digest) -> int | None:
        """Where the statement is recorded, None if it is not."""
        ...


class Listener(Protocol):
    """A service that follows the fleet. Called in the order of one agent's stream."""

    async def connected(self, agent: AgentId) -> None: ...

    async def disconnected(self, agent: AgentId) -> None: ...

    async def acknowledged(self, agent: AgentId, number: DirectiveNumber, codes: Sequence[str]) -> None:
        """`codes` empty: accepted and journaled by the agent. Otherwise refused, and why."""
        ...

    async def status(self, agent: AgentId, status: AgentStatus) -> None: ...

    async def submitted(self, agent: AgentId, envelope: bytes, digest: Digest, log_index: int) -> None:
        """A statement of the agent's nation was verified against its delegations and recorded."""
        ...

    async def round_result(self, agent: AgentId, report: RoundReport) -> None: ...

    async def progress(self, agent: AgentId, report: ProgressReport) -> None: ...


class ModelVersions(Protocol):
    """Verbs on model versions. `reference` is `name@version` or a manifest's digest."""

    async def publish(self, envelope: bytes, caller: SpiffeId) -> AnyResource: ...

    async def sign(self, envelope: bytes, caller: SpiffeId) -> AnyResource: ...

    async def manifest(self, reference: str) -> bytes: ...

    async def missing(self, manifest_digest: Digest) -> Sequence[Digest]: ...

    async def put_chunk(self, manifest_digest: Digest, chunk_digest: Digest, data: bytes) -> None: ...


class RolloutVerb(StrEnum):
    PAUSE = "pause"
    RESUME = "resume"
    ABORT = "abort"
    APPROVE_WAVE = "approve-wave"


class Rollouts(Protocol):
    async def control(self, name: str, verb: RolloutVerb, reason: str) -> AnyResource: ...


@dataclass(frozen=True, slots=True)
class RunView:
    """Canonical JSON for a person who follows a run."""

    json: bytes
    is_finished: bool


class Runs(Protocol):
    """Verbs on federated runs. A resource carries its trace id in `TRACE_ANNOTATION`."""

    async def plan(self, resource: AnyResource) -> tuple[bytes, str]:
        """The canonical JSON of the plan and its digest, empty where the quorum is missed; nothing is stored."""
        ...

    async def start(self, resource: AnyResource, plan_digest: Digest) -> AnyResource: ...

    async def cancel(self, name: str, reason: str) -> AnyResource: ...

    def follow(self, name: str) -> AsyncIterator[RunView]: ...

    def result(self, name: str) -> AsyncIterator[tuple[str, bytes]]:
        """Files of the result: (path, piece of at most 1 MiB); the path is empty on all but a file's first piece."""
        ...

    async def accept_update(
        self, agent: AgentId, opening: UpdateOpening, chunks: AsyncIterator[bytes]
    ) -> UpdateReceived:
        """Verify, spool, record and count one update. The iterator ends where the agent's stream does."""
        ...


class Policies(Protocol):
    async def push(self, bundle: bytes, envelope: bytes) -> AnyResource: ...
