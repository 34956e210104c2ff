"""The port for what the coordinator directs: epochs, and numbered directives per agent.

A directive is desired state: per agent and subject (`rollout/r1`) the newest one counts and supersedes the others. Its
number is (epoch, counter); a counter is never used twice for an agent, not even when its directive is gone.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Protocol

from treaty.names import DirectiveNumber


@dataclass(frozen=True, slots=True)
class Epoch:
    """A coordinator's epoch. `halted_because` is empty while it may direct."""

    number: int
    started_at: datetime
    reason: str
    halted_because: str = ""


class Epochs(Protocol):
    async def current(self) -> Epoch:
        """The highest epoch taken; a new store begins in epoch 1."""
        ...

    async def halt(self, reason: str) -> None:
        """Stop directing in the current epoch, durably, until a higher one is taken. The first reason stays."""
        ...

    async def take(self, number: int, reason: str) -> Epoch:
        """Begin epoch `number`. Raises ConflictError: it is not higher than the current one."""
        ...


class DirectiveState(StrEnum):
    PENDING = "pending"
    SENT = "sent"
    ACKED = "acked"
    NACKED = "nacked"


@dataclass(frozen=True, slots=True)
class StoredDirective:
    agent: str
    number: DirectiveNumber
    subject: str
    payload: bytes
    state: DirectiveState
    is_superseded: bool
    created_at: datetime
    reason: str = ""
    answered_at: datetime | None = None


class Directives(Protocol):
    async def next_number(self, agent: str) -> DirectiveNumber:
        """Reserve the next number for `agent` in the current epoch.

        Raises: PreconditionFailed: the coordinator is halted in this epoch and directs nothing.
        """
        ...

    async def issue(self, agent: str, number: DirectiveNumber, subject: str, payload: bytes) -> StoredDirective:
        """Keep a directive under a number that `next_number` gave; it supersedes the subject's older ones.

        Issuing the same bytes under the same number again changes nothing.

        Raises: ConflictError: the number was not reserved, is used for something else, or a newer directive of the
            subject exists.
        """
        ...

    async def live(self, agent: str) -> tuple[StoredDirective, ...]:
        """What `agent` should hold: all that is not superseded, in the order of the numbers."""
        ...

    async def find(self, agent: str, number: DirectiveNumber) -> StoredDirective:
        """Raises NotFound."""
        ...

    async def mark_sent(self, agent: str, number: DirectiveNumber) -> None:
        """Note that it went out. An answered one stays answered."""
        ...

    async def answer(self, agent: str, number: DirectiveNumber, *, is_acked: bool, reason: str = "") -> StoredDirective:
        """Note the agent's ACK or NACK. The same answer again changes nothing.

        Raises: NotFound: never issued; ConflictError: it was answered otherwise before.
        """
        ...

    async def withdraw(self, agent: str, subject: str) -> None:
        """Supersede the subject's directives without a new one. The agent keeps what it has."""
        ...

    async def highest(self, agent: str) -> DirectiveNumber | None:
        """The highest number reserved for `agent`, None before the first."""
        ...

    async def prune(self, before: datetime) -> int:
        """Delete superseded directives older than `before`; how many. Numbers are not used again."""
        ...
