"""Where the agent's rooms meet: what the workers may ask of the core, and what the core asks of them.

The core (session, state, journal, border) owns the stream, the numbers and the way out. The workers (deployments,
rounds, policy, questions) own what is done about a directive. Each sees the other through the protocols here, so either
is tested alone with a fake of a few lines.

Rules that hold across this seam:
1. a worker is called only for a directive that is journaled and acknowledged; after a restart it is called again for
   each one still open, so its effects are idempotent by number;
2. cancellation means: superseded, aborted, ended or braked; a worker cleans up shortly and re-raises;
3. nothing leaves the country but through `Border`;
4. texts of errors stay at home; only their codes are reported.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

from node_agent.directives import AbortRollout, Deploy, Directive, EndRun, LoadTreatyPolicy, Question, Round
from node_agent.home import Folders
from treaty.charter import Charter
from treaty.delegation import Delegation
from treaty.keys import SigningKey
from treaty.names import AgentId, Digest, DirectiveNumber, PartyCode, RunId
from treaty.policy.questions import ObservedSubject
from treaty.receipt import Receipt
from treaty.strict_json import JsonObject

if TYPE_CHECKING:
    from node_agent.fetch import FetchCall


class RolloutState(StrEnum):
    """How far one rollout got here; the words of `treaty.wire.v1.RolloutState`."""

    AWAITING_CONSENT = "AWAITING_CONSENT"
    PULLING = "PULLING"
    STARTING = "STARTING"
    EVALUATING = "EVALUATING"
    SERVING = "SERVING"
    REFUSED = "REFUSED"
    FAILED = "FAILED"
    RETURNED = "RETURNED"


@dataclass(frozen=True, slots=True)
class RolloutReport:
    """State of one rollout in this nation; journaled, latest wins, crosses the border."""

    rollout: str
    number: DirectiveNumber
    state: RolloutState
    manifest_digest: Digest
    since: datetime
    codes: tuple[str, ...] = ()
    pulled_bytes: int = 0
    total_bytes: int = 0
    heldout_loss_micro_before: int = 0
    heldout_loss_micro_after: int = 0


class RoundStage(StrEnum):
    WAITING_FOR_SLOT = "WAITING_FOR_SLOT"
    PULLING = "PULLING"
    TRAINING = "TRAINING"
    EVALUATING = "EVALUATING"
    SENDING = "SENDING"
    DONE = "DONE"
    FAILED = "FAILED"


@dataclass(frozen=True, slots=True)
class ProgressReport:
    """Live progress of a round; lossy, latest wins, never stored."""

    run: RunId
    round: int
    stage: RoundStage
    steps_done: int = 0
    steps_total: int = 0


@dataclass(frozen=True, slots=True)
class NationAnswer:
    """What this nation would decide; both policies composed."""

    verdict: str
    """`allow`, `deny` or `needs_approval`."""
    codes: tuple[str, ...]
    ask_digest: Digest
    decision_digest: Digest
    treaty_revision: int
    overlay_revision: int
    estimated_bytes_out: int = 0


class Clock(Protocol):
    def now(self) -> datetime:
        """Aware UTC."""
        ...


@dataclass(frozen=True, slots=True)
class Document:
    """A named record in the journal; `generation` grows by one with every write under that name."""

    name: str
    body: JsonObject
    generation: int
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of an append-only series in the journal; `sequence` counts from 1 without gaps."""

    sequence: int
    body: JsonObject
    at: datetime


class Journal(Protocol):
    """What survives a crash. Every write is durable (fsynced) when the call returns; calls are thread-safe.

    The CLI writes into the same file from another process: re-read after `changed` says so, never cache.
    """

    def put(self, kind: str, name: str, body: JsonObject) -> Document: ...

    def document(self, kind: str, name: str) -> Document | None: ...

    def documents(self, kind: str) -> list[Document]:
        """All of a kind, by name."""
        ...

    def remove(self, kind: str, name: str) -> bool:
        """True if it was there."""
        ...

    def append(self, series: str, body: JsonObject, *, keep: int | None = None) -> int:
        """Returns: its sequence. With `keep`, only the newest so many of the series stay."""
        ...

    def entries(self, series: str, *, after: int = 0, limit: int = 1000) -> list[Entry]: ...

    def finish(self, number: DirectiveNumber, codes: Sequence[str] = ()) -> None:
        """The directive is done with; it is not given to a worker again."""
        ...

    def leave(self, number: DirectiveNumber, codes: Sequence[str]) -> None:
        """The agent went back to the fallback on its own: done with, and refused if it ever comes again."""
        ...

    def is_brake_on(self) -> bool: ...

    @property
    def generation(self) -> int:
        """Grows with every change that this process noticed, its own and the CLI's."""
        ...

    async def changed(self, since: int) -> int:
        """Wait until `generation` differs from `since` (noticed within 200 ms). Returns: the new one."""
        ...


@dataclass(frozen=True, slots=True)
class Permit:
    """A decision under both policies, as the border wants to see it. Made by `node_agent.decisions` only."""

    point: str
    """`egress.update` for tensors, `dataset.use` for an evaluation's result."""
    is_allowed: bool
    ask_digest: Digest
    decision_digest: Digest


@dataclass(frozen=True, slots=True)
class UpdateOpening:
    """What precedes an update's chunks. `header` is its canonical bytes; `metrics` canonical JSON of integers."""

    run: RunId
    round: int
    number: DirectiveNumber
    header: bytes
    metrics: bytes
    trace_id: str


@dataclass(frozen=True, slots=True)
class UpdateAccepted:
    update_digest: Digest
    log_index: int
    was_known: bool


class Border(Protocol):
    """The only way out. Raises PolicyDenied (brake, no permit), LimitExceeded (cap), Unavailable (not connected)."""

    async def send_update(
        self,
        opening: UpdateOpening,
        receipt: Receipt,
        permit: Permit,
        chunks: Iterable[bytes] | AsyncIterator[bytes],
    ) -> UpdateAccepted:
        """Sign and journal `receipt`, then send. `receipt.digest` is the header's; `permit` its two digests.

        Sending the same header again reuses the receipt that is already journaled. Returns only once the coordinator
        has it whole, durable and logged.
        """
        ...

    async def send_result(
        self,
        run: RunId,
        round_number: int,
        number: DirectiveNumber,
        metrics: bytes,
        receipt: Receipt,
        permit: Permit,
    ) -> int:
        """An evaluation's metrics. Journaled in the outbox, so it survives a lost stream. Returns: the log index."""
        ...

    def refuse_round(self, run: RunId, round_number: int, number: DirectiveNumber, codes: Sequence[str]) -> None:
        """This nation sends nothing this round, and why. Kept in the outbox until the run moves on."""
        ...

    async def submit(self, envelope: bytes) -> int:
        """A signed statement for the record (consent, dataset). Survives a lost stream. Returns: its log index.

        Raises: FoedusError with the coordinator's code: it refused to record it.
        """
        ...

    def fetch_calls(self) -> Sequence[FetchCall]:
        """Artifacts.Fetch, once for each connection of bulk bytes; what `node_agent.fetch.GrpcChunkSource` takes.

        They stay good when the certificate is renewed: each call takes the connection that is current then.
        """
        ...


class Reports(Protocol):
    """What goes into the next status. Calls return at once; sending is the core's."""

    def rollout(self, report: RolloutReport) -> None:
        """Journaled before it is sent."""
        ...

    def serving(self, digest: Digest | None) -> None:
        """What the agent itself observes being served, right now; never what it hopes for."""
        ...

    def policies(self, *, treaty_revision: int, overlay_revision: int) -> None: ...

    def held(self, digests: Sequence[Digest]) -> None:
        """Complete versions on the shelf."""
        ...

    def progress(self, report: ProgressReport) -> None: ...

    def waiting(self, subject: str, reason: str) -> None:
        """Why something waits, for `foedus-agent status`; an empty reason clears it. Never crosses the border."""
        ...


class Brake(Protocol):
    @property
    def is_on(self) -> bool: ...

    async def pulled(self) -> None:
        """Wait until the brake is on; returns at once if it is."""
        ...


class Nation(Protocol):
    """Who we are, and whom the charter lets us believe. Read anew each time: a charter can be followed by the next."""

    @property
    def code(self) -> PartyCode: ...

    @property
    def agent_id(self) -> AgentId: ...

    @property
    def key(self) -> SigningKey:
        """The agent's own key: receipts, tallies, policy-answered consents."""
        ...

    def charter(self) -> Charter: ...

    def delegations(self) -> Sequence[Delegation]:
        """This nation's persons and agents, verified and current."""
        ...


@dataclass(frozen=True, slots=True)
class Core:
    """Everything a worker is built with."""

    nation: Nation
    journal: Journal
    border: Border
    reports: Reports
    brake: Brake
    clock: Clock
    folders: Folders


class Workers(Protocol):
    """What is done about directives. Built by `node_agent.work` from a `Core`."""

    async def start(self) -> None:
        """Take up what was there before: policies in force, the version in service. Raises: Corrupt."""
        ...

    async def stop(self) -> None:
        """Stop children. Called once, at the end, also after a failure."""
        ...

    async def admit(self, directive: Directive) -> None:
        """Check at once what needs no network: signatures, age, bounds. Raises FoedusError: NACK with its code."""
        ...

    async def deploy(self, directive: Directive, action: Deploy) -> None: ...

    async def abort(self, directive: Directive, action: AbortRollout) -> None:
        """Called after the rollout's `deploy` was cancelled and has ended."""
        ...

    async def round(self, directive: Directive, action: Round) -> None: ...

    async def end_run(self, directive: Directive, action: EndRun) -> None: ...

    async def load_policy(self, directive: Directive, action: LoadTreatyPolicy) -> None: ...

    async def answer(self, question: Question) -> NationAnswer: ...

    async def enrol(self, subject: ObservedSubject) -> None:
        """Asked before every connect. Raises: PolicyDenied: the policies in force here keep this agent at home."""
        ...

    async def journal_changed(self) -> None:
        """The CLI wrote something (an approval, a dataset, an overlay): look again. Idempotent."""
        ...

    def readiness(self) -> Mapping[str, bool]:
        """What this nation could do now, by the name of the health service that says so. Raises: Corrupt."""
        ...

    def conditions(self) -> Mapping[str, str]:
        """Short facts for `status` and metrics, by name (sandbox layers, engine). Never crosses the border."""
        ...
