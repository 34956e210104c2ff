"""A fleet and a record for tests of the services: they keep what they are told, and answer as they are set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

from controlplane.domain.agents import AgentStatus, NationAnswer, Verdict
from controlplane.domain.directives import Action, Round, content_digest, subject
from treaty.delegation import Delegation
from treaty.errors import FoedusError, Unavailable
from treaty.log import Leaf, leaf_data
from treaty.names import AgentId, Digest, DirectiveNumber, PartyCode, RunId, digest_of
from treaty.policy.questions import parse_ask
from treaty.statement import unverified
from treaty.strict_json import parse

SALT = bytes(range(32))


@dataclass
class RecordedFleet:
    """Implements `controlplane.services.ports.Fleet`: one agent per nation, all connected unless taken out."""

    agents: dict[PartyCode, AgentId]
    known_delegations: list[Delegation] = field(default_factory=list)
    statuses: dict[AgentId, AgentStatus] = field(default_factory=dict)
    away: set[PartyCode] = field(default_factory=set)
    refusing: dict[PartyCode, tuple[str, ...]] = field(default_factory=dict)
    undirectable: dict[PartyCode, FoedusError] = field(default_factory=dict)
    directed: dict[tuple[AgentId, str], tuple[DirectiveNumber, Action]] = field(default_factory=dict)
    refused: dict[tuple[AgentId, DirectiveNumber], tuple[str, ...]] = field(default_factory=dict)
    counter: int = 0
    sent: list[tuple[AgentId, Action]] = field(default_factory=list)

    def connected(self) -> Mapping[PartyCode, AgentId]:
        return {nation: agent for nation, agent in self.agents.items() if nation not in self.away}

    def agent_of(self, nation: PartyCode) -> AgentId | None:
        return self.agents.get(nation)

    def status(self, agent: AgentId) -> AgentStatus | None:
        return self.statuses.get(agent)

    def delegations(self, nation: PartyCode) -> Sequence[Delegation]:
        return [known for known in self.known_delegations if known.nation == nation]

    async def direct(self, agent: AgentId, action: Action, trace_id: str) -> DirectiveNumber:
        if (failure := self.undirectable.get(agent.nation)) is not None:
            raise failure
        known = self.directed.get((agent, subject(action)))
        if known is not None and content_digest(known[1]) == content_digest(action):
            return known[0]
        self.counter += 1
        number = DirectiveNumber(1, self.counter)
        self.directed[agent, subject(action)] = (number, action)
        self.sent.append((agent, action))
        return number

    async def runs_of(self, agent: AgentId) -> Sequence[RunId]:
        live = [action for (who, _), (_, action) in self.directed.items() if who == agent]
        return [action.run for action in live if isinstance(action, Round)]

    async def refusal(self, agent: AgentId, number: DirectiveNumber) -> tuple[str, ...]:
        return self.refused.get((agent, number), ())

    async def settle(self, agent: AgentId, number: DirectiveNumber) -> None:
        self.directed = {key: kept for key, kept in self.directed.items() if (key[0], kept[0]) != (agent, number)}

    async def ask(self, agent: AgentId, ask: bytes, deadline: timedelta) -> NationAnswer:
        if agent.nation in self.away:
            raise Unavailable("no answer")
        codes = self.refusing.get(agent.nation, ())
        asked = parse_ask(parse(ask, max_bytes=65536)).digest
        verdict = Verdict.DENY if codes else Verdict.ALLOW
        return NationAnswer(verdict, codes, asked, digest_of(b"decision of " + agent.nation.encode()), 1, 1)

    async def cut(self, agent: AgentId, code: str) -> None:
        self.away.add(agent.nation)


@dataclass
class KeptRecord:
    """Implements `controlplane.services.ports.Record`."""

    envelopes: list[bytes] = field(default_factory=list)
    digests: list[Digest] = field(default_factory=list)

    async def append(self, envelope: bytes) -> int:
        digest = digest_of(unverified(envelope).payload())
        if digest not in self.digests:
            self.digests.append(digest)
            self.envelopes.append(envelope)
        return self.digests.index(digest)

    async def leaf(self, index: int) -> Leaf:
        envelope = self.envelopes[index]
        return Leaf(index, leaf_data(SALT, envelope), SALT, envelope)

    def known(self, digest: Digest) -> int | None:
        return self.digests.index(digest) if digest in self.digests else None
