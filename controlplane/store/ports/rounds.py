"""The port for a run's durable rounds: what a worker that was killed needs to go on as if it had not been.

Both records move by compare-and-swap on their state; which move is legal is the domain's question. Large bytes
(updates, arrays) lie in files and are named here by digest and spool path.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Protocol

from treaty.names import Digest, PartyCode


class RoundState(StrEnum):
    OPEN = "open"
    AGGREGATING = "aggregating"
    DONE = "done"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class StoredRound:
    """`arrays_digest` is what the round started from, `result_digest` what the strategy made of `aggregate_digest`.

    `strategy_state` is the optimiser's state after the round, in the worker's own encoding.
    """

    run: str
    round: int
    state: RoundState
    plan_digest: Digest
    deadline_at: datetime
    arrays_digest: Digest | None = None
    aggregate_digest: Digest | None = None
    result_digest: Digest | None = None
    strategy_state: bytes | None = None
    reason: str = ""
    started_at: datetime | None = None
    finished_at: datetime | None = None


class ContributionState(StrEnum):
    """What a nation answered; one that has not answered has no contribution."""

    ACCEPTED = "accepted"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class StoredContribution:
    """One nation's part of a round. It counts once it is ACCEPTED, whole."""

    run: str
    round: int
    nation: PartyCode
    agent: str
    state: ContributionState
    update_digest: Digest | None = None
    spool_path: str | None = None
    examples: int = 0
    bytes: int = 0
    receipt_digest: Digest | None = None
    metrics: Mapping[str, int] = field(default_factory=dict)
    codes: tuple[str, ...] = ()


class Rounds(Protocol):
    async def open(self, round_: StoredRound) -> StoredRound:
        """Begin a round; `started_at` is set here. Beginning the same one again returns what is stored.

        Raises: ConflictError: it exists under another plan or other arrays.
        """
        ...

    async def save(self, round_: StoredRound, expected: RoundState) -> None:
        """Replace the record. Raises ConflictError: its state is not `expected`; NotFound."""
        ...

    async def find(self, run: str, round_: int) -> StoredRound:
        """Raises NotFound."""
        ...

    async def of_run(self, run: str) -> tuple[StoredRound, ...]:
        """All rounds of `run`, first to last."""
        ...

    async def contribute(self, contribution: StoredContribution, expected: ContributionState | None) -> None:
        """Store a contribution that is in state `expected` now; None: there is none yet.

        The same record again changes nothing. Raises ConflictError: its state is another.
        """
        ...

    async def contributions(self, run: str, round_: int) -> tuple[StoredContribution, ...]:
        """By nation."""
        ...
