"""The live streams of agents, as queues of what is to be said on them.

Rules:
1. an agent has one stream; a newer one takes the place of the older, which is cut;
2. a queue is bounded: an agent that does not read is cut, and finds what it missed when it returns;
3. a question is answered on the stream that it was asked on, once, before its deadline;
4. directives wait until what the agent lacks is queued, so that numbers reach it in their order, each once.

No protobuf and no store: the API turns a `Said` into a message, the fleet decides what is said.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TypeAlias

from controlplane.domain.agents import AgentStatus, NationAnswer
from controlplane.domain.directives import Directive
from treaty.errors import FoedusError, InvalidInput, Unavailable
from treaty.names import AgentId, Digest, DirectiveNumber, PartyCode

MAX_QUEUED = 256
MAX_QUESTIONS = 32


@dataclass(frozen=True, slots=True)
class Question:
    question_id: str
    ask: bytes
    deadline_ms: int


@dataclass(frozen=True, slots=True)
class ReportRequest:
    """Send a full status now."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """`codes` empty: the statement is durable at `log_index`, in the leaf of `salt`. Otherwise why it is not."""

    digest: Digest
    log_index: int = 0
    codes: tuple[str, ...] = ()
    salt: bytes = b""
    envelope: bytes = b""
    """As it stands there, where that is not what was handed in."""


@dataclass(frozen=True, slots=True)
class Inclusion:
    """`codes` empty: `proof` leads from the statement's leaf to the root at `log_size`. Otherwise why there is none."""

    digest: Digest
    log_size: int
    proof: tuple[bytes, ...] = ()
    codes: tuple[str, ...] = ()


Said: TypeAlias = Directive | Question | ReportRequest | Recorded | Inclusion


@dataclass(slots=True)
class Connection:
    """One live stream. `cut` ends it with a code; it may be called from anywhere on the loop, also twice."""

    agent: AgentId
    cut: Callable[[str], None]
    queue: asyncio.Queue[Said] = field(default_factory=lambda: asyncio.Queue(MAX_QUEUED))
    status: AgentStatus | None = None
    log_size: int = 0
    """Size of the log that the agent verified last; proofs start here."""
    _questions: dict[str, asyncio.Future[NationAnswer]] = field(default_factory=dict)
    _held: list[Directive] | None = field(default_factory=list)
    _begun: frozenset[DirectiveNumber] = frozenset()

    def begin(self, lacking: Iterable[Directive]) -> None:
        """Queue what the journal says the agent lacks and what was directed meanwhile, in order, each once (rule 4)."""
        known = {directive.number: directive for directive in (*lacking, *(self._held or ()))}
        self._held, self._begun = None, frozenset(known)
        for number in sorted(known):
            self._queue(known[number])

    def say(self, said: Said) -> None:
        """Queue it; cut the stream where the agent does not keep up (rule 2)."""
        if isinstance(said, Directive):
            if self._held is not None:
                self._held.append(said)
                return
            if said.number in self._begun:
                return
        self._queue(said)

    def _queue(self, said: Said) -> None:
        try:
            self.queue.put_nowait(said)
        except asyncio.QueueFull:
            self.cut("TOO_SLOW")

    async def ask(self, ask: bytes, deadline: timedelta) -> NationAnswer:
        """Put a question and wait for the answer. Raises Unavailable: none in time, or the stream ended."""
        if len(self._questions) >= MAX_QUESTIONS:
            raise Unavailable(f"{self.agent} has {MAX_QUESTIONS} unanswered questions already")
        question_id = secrets.token_hex(8)
        answer: asyncio.Future[NationAnswer] = asyncio.get_running_loop().create_future()
        self._questions[question_id] = answer
        self.say(Question(question_id, ask, int(deadline.total_seconds() * 1000)))
        try:
            async with asyncio.timeout(deadline.total_seconds()):
                return await answer
        except TimeoutError as err:
            raise Unavailable(f"{self.agent} did not answer within {deadline.total_seconds():g} s") from err
        finally:
            del self._questions[question_id]

    def answered(self, question_id: str, answer: NationAnswer) -> None:
        """Hand an answer to whoever waits; a late one is dropped. Raises InvalidInput: answered twice."""
        waiting = self._questions.get(question_id)
        if waiting is None:
            return
        if waiting.done():
            raise InvalidInput("the question was answered twice")
        waiting.set_result(answer)

    def end(self, error: FoedusError) -> None:
        """The stream is over: nobody waits for an answer any longer."""
        for waiting in self._questions.values():
            if not waiting.done():
                waiting.set_exception(error)


class Connections:
    """Live streams by agent."""

    def __init__(self) -> None:
        self._live: dict[AgentId, Connection] = {}

    def add(self, connection: Connection) -> None:
        """Make it the agent's stream (rule 1)."""
        older = self._live.pop(connection.agent, None)
        if older is not None:
            older.cut("REPLACED")
            older.end(Unavailable(f"{connection.agent} opened another stream"))
        self._live[connection.agent] = connection

    def remove(self, connection: Connection) -> bool:
        """True if it was still the agent's stream and not replaced by another."""
        connection.end(Unavailable(f"{connection.agent} disconnected"))
        if self._live.get(connection.agent) is not connection:
            return False
        del self._live[connection.agent]
        return True

    def of(self, agent: AgentId) -> Connection | None:
        return self._live.get(agent)

    def all(self) -> tuple[Connection, ...]:
        return tuple(self._live.values())

    def by_nation(self) -> Mapping[PartyCode, AgentId]:
        """Of several agents in one nation, the one that connected first."""
        found: dict[PartyCode, AgentId] = {}
        for agent in self._live:
            found.setdefault(agent.nation, agent)
        return found
