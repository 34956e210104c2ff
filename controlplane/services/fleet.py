"""Directing the agents: what is journaled, sent, resent and never sent again.

Rules:
1. a directive is journaled with its number before it is sent, and resent after every reconnect until it is answered;
2. to one agent the newest directive of a subject is live; the older ones are superseded and end their grants;
3. content that is live already, or that the agent refused, is not sent again: the number stays;
4. whoever comes back with a checkpoint that this coordinator's own log key signed, and that its log does not hold,
   proves that it was restored from a backup: it then directs nothing, to nobody, until it is recovered under a higher
   epoch;
5. whoever only claims to be further ahead, in the journal or in the log, is itself not directed any more, until it
   claims less or the coordinator was recovered: an agent that lies halts nobody but itself.

The streams are in `connections`, the wire in `controlplane.api`; the codec between a directive and its journaled bytes
is handed in.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, Protocol

import structlog

from controlplane.domain.agents import AgentStatus, NationAnswer
from controlplane.domain.directives import Action, Directive, Round, content_digest, granted_digests, subject
from controlplane.services.connections import Connection, Connections
from controlplane.services.nations import Nations
from controlplane.services.record import StatementRecord
from controlplane.services.trust import Trust
from controlplane.store import Store, Transaction
from controlplane.store.ports.directives import DirectiveState, StoredDirective
from treaty.delegation import Delegation
from treaty.errors import InvalidInput, NotFound, PreconditionFailed, TrustError, Unavailable
from treaty.log import verify_checkpoint
from treaty.names import AgentId, DirectiveNumber, PartyCode, RunId

log = structlog.get_logger(__name__)

AGENT_AHEAD: Final = "AGENT_AHEAD"
BEHIND: Final = "CoordinatorBehind"


class DirectiveCodec(Protocol):
    """Between a directive and the bytes that are journaled."""

    def encode(self, directive: Directive) -> bytes: ...

    def decode(self, payload: bytes) -> Directive: ...


@dataclass(frozen=True, slots=True)
class Position:
    """Where an agent says it stands: its journal's highest number, what it has open, the log it verified."""

    highest_accepted: DirectiveNumber | None
    open: frozenset[DirectiveNumber]
    log_size: int
    log_root: bytes
    log_note: bytes = b""
    """The signed checkpoint that it kept, not verified yet; empty for none."""


class AgentFleet:
    """The `Fleet` over the store's journal and the live connections."""

    def __init__(
        self,
        store: Store,
        trust: Trust,
        nations: Nations,
        record: StatementRecord,
        connections: Connections,
        codec: DirectiveCodec,
    ) -> None:
        self._store = store
        self._trust = trust
        self._nations = nations
        self._record = record
        self._connections = connections
        self._codec = codec
        self._last_status: dict[AgentId, AgentStatus] = {}
        self._ahead: set[AgentId] = set()

    async def load(self) -> None:
        """Say on the agents whether this coordinator directs them: recovered since it said otherwise, or halted."""
        self._ahead = set(await self._nations.ahead())
        halted = (await self._store.epochs.current()).halted_because
        self._record.is_frozen = bool(halted)
        if halted:
            await self._nations.mark_directed(BEHIND, halted, is_directed=False)
        else:
            await self._nations.mark_directed("Directing", "", is_directed=True)

    def connected(self) -> Mapping[PartyCode, AgentId]:
        """Who can be directed now: one that claims to be ahead of us cannot (rule 5)."""
        return {code: agent for code, agent in self._connections.by_nation().items() if agent not in self._ahead}

    def is_ahead(self, agent: AgentId) -> bool:
        """Whether the agent claims, without proof, what this coordinator does not know."""
        return agent in self._ahead

    def agent_of(self, nation: PartyCode) -> AgentId | None:
        live = self.connected().get(nation)
        return live or next((agent for agent in self._nations.accepted() if agent.nation == nation), None)

    def status(self, agent: AgentId) -> AgentStatus | None:
        return self._last_status.get(agent)

    def note_status(self, agent: AgentId, status: AgentStatus) -> None:
        self._last_status[agent] = status

    def delegations(self, nation: PartyCode) -> Sequence[Delegation]:
        return self._trust.delegations(nation)

    async def direct(self, agent: AgentId, action: Action, trace_id: str) -> DirectiveNumber:
        self._trust.check_current()
        self._nations.check_accepted(agent)
        if agent in self._ahead:
            raise PreconditionFailed(f"{agent} claims to be ahead of this coordinator", code=AGENT_AHEAD)
        async with self._store.transaction() as change:
            same = await self._unchanged(change, agent, action)
            if same is not None:  # 3
                return same
            number = await change.directives.next_number(str(agent))
            directive = Directive(number, content_digest(action), trace_id, action)
            about = subject(action)
            await change.directives.issue(str(agent), number, about, self._codec.encode(directive))  # 1
            await change.artifacts.withdraw(str(agent), about)  # 2
            for digest in granted_digests(action):
                await change.artifacts.grant(str(agent), digest, about)
        log.info("directed", agent=str(agent), number=str(number), subject=about, trace_id=trace_id)
        if connection := self._connections.of(agent):
            connection.say(directive)
        return number

    async def runs_of(self, agent: AgentId) -> Sequence[RunId]:
        live = await self._store.directives.live(str(agent))
        actions = [self._codec.decode(stored.payload).action for stored in live]
        return [action.run for action in actions if isinstance(action, Round)]

    async def refusal(self, agent: AgentId, number: DirectiveNumber) -> tuple[str, ...]:
        stored = await self._store.directives.find(str(agent), number)
        return tuple(stored.reason.split()) if stored.state is DirectiveState.NACKED else ()

    async def settle(self, agent: AgentId, number: DirectiveNumber) -> None:
        async with self._store.transaction() as change:
            try:
                stored = await change.directives.find(str(agent), number)
            except NotFound:
                return
            if not stored.is_superseded:
                await change.directives.withdraw(str(agent), stored.subject)
                await change.artifacts.withdraw(str(agent), stored.subject)

    async def ask(self, agent: AgentId, ask: bytes, deadline: timedelta) -> NationAnswer:
        connection = self._connections.of(agent)
        if connection is None:
            raise Unavailable(f"{agent} is not connected")
        return await connection.ask(ask, deadline)

    async def cut(self, agent: AgentId, code: str) -> None:
        if connection := self._connections.of(agent):
            connection.cut(code)

    async def is_halted(self) -> bool:
        return bool((await self._store.epochs.current()).halted_because)

    async def compare(self, agent: AgentId, position: Position) -> None:
        """Halt where the agent proves that we are behind (rule 4); stop directing it where it only says so (rule 5)."""
        claimed, proved = await self._claimed(agent, position), self._proved(agent, position)
        if proved and not await self.is_halted():
            why = "; ".join(dict.fromkeys(reason for reason in (claimed, proved) if reason))
            log.error("coordinator is behind, directing nothing", agent=str(agent), because=why)
            self._record.is_frozen = True
            await self._store.epochs.halt(why)
            await self._nations.mark_directed(BEHIND, why, is_directed=False)
        if claimed and not proved:
            log.error("agent claims to be ahead, not directing it", agent=str(agent), code=AGENT_AHEAD, because=claimed)
            self._ahead.add(agent)
            await self._nations.mark_ahead(agent, claimed)
        elif agent in self._ahead:
            self._ahead.discard(agent)
            await self._nations.mark_ahead(agent, "")

    async def _claimed(self, agent: AgentId, position: Position) -> str:
        """What the hello alone says that we do not know; empty for nothing."""
        ours = await self._store.directives.highest(str(agent))
        theirs = position.highest_accepted
        epoch = (await self._store.epochs.current()).number
        # What was accepted under an earlier epoch is what a recovery has left behind on purpose.
        if theirs is not None and theirs.epoch >= epoch and (ours is None or theirs > ours):
            return f"{agent} accepted directive {theirs}, the journal ends at {ours or 'none'}"
        if position.log_size > self._record.size:
            return f"{agent} verified {position.log_size} log entries, the record has {self._record.size}"
        if position.log_size and self._record.root(position.log_size) != position.log_root:
            return f"{agent} verified another log of {position.log_size} entries"
        return ""

    def _proved(self, agent: AgentId, position: Position) -> str:
        """What a checkpoint signed by our own log key says that our log does not hold; empty for nothing."""
        charter = self._trust.charter
        for key in charter.coordinator.log.keys if position.log_note else ():
            try:
                signed = verify_checkpoint(position.log_note, charter.log_origin, key.public)
            except (TrustError, InvalidInput):
                continue
            if signed.size > self._record.size:
                return f"{agent} verified {signed.size} log entries, the record has {self._record.size}"
            if signed.size and self._record.root(signed.size) != signed.root:
                return f"{agent} verified another log of {signed.size} entries"
        return ""

    async def resend(self, connection: Connection, position: Position) -> None:
        """Queue what the agent lacks: the difference between the journal and its hello (rule 1)."""
        if await self.is_halted() or connection.agent in self._ahead:
            return
        live = await self._store.directives.live(str(connection.agent))
        connection.begin(self._codec.decode(stored.payload) for stored in live if _is_lacking(stored, position))

    async def acknowledged(self, agent: AgentId, number: DirectiveNumber, codes: Sequence[str]) -> None:
        """Journal the agent's word on a directive. Raises: InvalidInput: it was never given that number."""
        reason = " ".join(codes)[:1024]
        try:
            async with self._store.transaction() as change:
                answered = await change.directives.answer(str(agent), number, is_acked=not codes, reason=reason)
                if codes and not answered.is_superseded:
                    await change.artifacts.withdraw(str(agent), answered.subject)
        except NotFound:
            raise InvalidInput(f"no directive {number} was given to this agent", code="UNKNOWN_DIRECTIVE") from None
        log.info("directive answered", agent=str(agent), number=str(number), codes=list(codes))

    async def sent(self, agent: AgentId, number: DirectiveNumber) -> None:
        await self._store.directives.mark_sent(str(agent), number)

    async def _unchanged(self, change: Transaction, agent: AgentId, action: Action) -> DirectiveNumber | None:
        about, wanted = subject(action), content_digest(action)
        for stored in await change.directives.live(str(agent)):
            if stored.subject == about and self._codec.decode(stored.payload).content_digest == wanted:
                return stored.number
        return None


def _is_lacking(stored: StoredDirective, position: Position) -> bool:
    """Unanswered and not yet in the agent's journal, or answered by a journal that the agent has lost."""
    if stored.state is DirectiveState.NACKED or stored.number in position.open:
        return False
    if stored.state is DirectiveState.ACKED:
        return position.highest_accepted is None or stored.number > position.highest_accepted
    return True
