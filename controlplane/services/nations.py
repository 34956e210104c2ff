"""Nations and their agents as resources: who knocked, who was let in, who is there, who is out.

Rules:
1. an agent that shows a good certificate and was never accepted is refused, and its attempt becomes a NodeAgent with
   `Accepted` False, so that an operator can see it and accept it; of one nation at most 32 wait;
2. accepting is an operator's act and lasts; revoking is final and takes acceptance with it;
3. what an agent reports becomes its NodeAgent's status; what changes with every heartbeat does not.

Conditions are this room's; what the resources of other kinds say is not.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from typing import Final

from controlplane.domain.agents import AgentStatus
from controlplane.services.ports import Clock
from controlplane.services.trust import Trust
from controlplane.store import Store
from controlplane.store.ports.trust import RevocationKind
from treaty import names, statement
from treaty.charter import Charter
from treaty.errors import (
    ConflictError,
    IdentityRefused,
    InvalidInput,
    NotFound,
    PermissionRefused,
    ResourceExhausted,
)
from treaty.names import AgentId, DirectiveNumber, PartyCode, SpiffeRole
from treaty.resources.meta import (
    Condition,
    ConditionStatus,
    Resource,
    find_condition,
    is_true,
    new_resource,
    with_condition,
)
from treaty.resources.nations import (
    AGENT_ACCEPTED,
    AGENT_CONNECTED,
    AGENT_REVOKED,
    AGENT_SERVING,
    NATION,
    NATION_READY,
    NODE_AGENT,
    NationSpec,
    NationStatus,
    NodeAgentSpec,
    NodeAgentStatus,
    PolicyRevision,
)
from treaty.revocation import parse_revocation

AGENT_BRAKED: Final = "Braked"
AGENT_DIRECTED: Final = "Directed"
AHEAD: Final = "AgentAhead"
MAX_WAITING_PER_NATION: Final = 32
TREATY_PARTY: Final = PartyCode("TREATY")
"""The authority under which the store keeps the treaty's bundles."""
BY_NATION: Final = "nation "
"""How the store names who revoked, where it was a nation itself: the record has that by the nation's own statement."""
_ATTEMPTS: Final = 5

NodeAgent = Resource[NodeAgentSpec, NodeAgentStatus]


def agent_resource_name(agent: AgentId) -> str:
    """`fr-par-1` for `spiffe://fr.…/agent/par-1`. Raises InvalidInput where that is too long for a resource."""
    return names.resource_name(f"{agent.authority}-{agent.name}")


class Nations:
    """The NodeAgent and Nation resources, and in memory who is accepted."""

    def __init__(self, store: Store, trust: Trust, clock: Clock) -> None:
        self._store = store
        self._trust = trust
        self._clock = clock
        self._accepted: dict[AgentId, datetime] = {}
        self._waiting: set[AgentId] = set()

    async def load(self) -> None:
        """Read who is accepted; streams that a former process left open are closed in the resources too."""
        for agent in await self._store.resources.all(NODE_AGENT):
            identity = names.spiffe_id(agent.spec.spiffe_id, self._trust.charter.domain)
            if self._trust.is_revoked(identity):
                if not is_true(agent.status.conditions, AGENT_REVOKED):
                    await self._put_out(identity, "it was revoked before this start")
            elif _may_act(agent):
                self._accepted[identity] = agent.metadata.creation_timestamp or self._clock()
            if is_true(agent.status.conditions, AGENT_CONNECTED):
                await self.disconnected(identity, "CoordinatorRestarted")

    def accepted(self) -> tuple[AgentId, ...]:
        """Accepted agents, the oldest first."""
        return tuple(sorted(self._accepted, key=lambda agent: (self._accepted[agent], str(agent))))

    def check_accepted(self, agent: AgentId) -> None:
        """Raises: PermissionRefused: no operator accepted it."""
        if agent not in self._accepted:
            raise PermissionRefused(
                f"no operator accepted {agent}",
                code="NOT_ACCEPTED",
                remedy=f"the operator runs: foedus agent accept {agent}",
            )

    async def knocked(self, agent: AgentId, certificate_not_after: datetime) -> None:
        """Record the attempt of an agent that nobody accepted yet (rule 1). Raises ResourceExhausted: too many wait."""
        if agent in self._waiting:
            return
        waiting = [
            a for a in await self._store.resources.all(NODE_AGENT) if a.spec.nation == agent.nation and not _may_act(a)
        ]
        name = agent_resource_name(agent)
        if any(known.name == name for known in waiting):
            self._waiting.add(agent)
            return
        if len(waiting) >= MAX_WAITING_PER_NATION:
            raise ResourceExhausted(f"{MAX_WAITING_PER_NATION} agents of {agent.nation} wait to be accepted already")
        status = NodeAgentStatus(certificate_not_after=certificate_not_after)
        fresh = new_resource(NODE_AGENT, name, NodeAgentSpec(str(agent), agent.nation), status=status)
        waits = Condition(AGENT_ACCEPTED, ConditionStatus.FALSE, "AwaitingOperator", "an operator has to accept it")
        with suppress(ConflictError):  # it knocked twice at once
            await self._store.resources.create(with_condition(fresh, waits, self._clock()))
        self._waiting.add(agent)

    async def accept(self, agent_text: str, by: str) -> NodeAgent:
        """Let an agent in, named by its SPIFFE id or its resource's name. Idempotent.

        Raises: NotFound: it never tried to connect. IdentityRefused: it is revoked.
        """
        agent = self.named(agent_text)
        self._trust.check_standing(agent)
        accepted = Condition(AGENT_ACCEPTED, ConditionStatus.TRUE, "AcceptedByOperator", by)
        # Past the check above, an old revocation was of a CA that a later charter replaced.
        standing = Condition(AGENT_REVOKED, ConditionStatus.FALSE, "InGoodStanding")
        try:
            changed = await self._condition(agent, accepted, standing)
        except NotFound:
            raise NotFound(
                f"{agent} has not tried to connect",
                remedy="see who has: foedus get agents; in the nation: foedus-agent join",
            ) from None
        self._accepted.setdefault(agent, changed.metadata.creation_timestamp or self._clock())
        return changed

    async def revoke(self, subject: str, *, reason: str, by: str) -> tuple[NodeAgent, ...]:
        """Revoke an id or a nation's CA; the NodeAgents that are out by it. The streams are cut by `Trust.changed`."""
        kind = await self._trust.revoke(subject, reason=reason, by=by)
        out = []
        for agent in await self._store.resources.all(NODE_AGENT):
            identity = names.spiffe_id(agent.spec.spiffe_id, self._trust.charter.domain)
            if str(identity) == subject or (kind is RevocationKind.CA and self._is_out(identity)):
                out.append(await self._put_out(identity, reason))
        return tuple(out)

    async def recall_revocation(self, envelope: bytes) -> None:
        """Carry out a revocation that stands in the record, if a crash came before it was. Idempotent.

        It was verified before it was recorded. One of a CA that a later charter replaced concerns nobody any more.
        """
        with suppress(NotFound, InvalidInput):
            word = parse_revocation(statement.unverified(envelope))
            if word.subject not in self._trust.revoked:
                await self.revoke(word.subject, reason=word.reason, by=f"{BY_NATION}whose statement is recorded")

    async def _put_out(self, agent: AgentId, reason: str) -> NodeAgent:
        self._accepted.pop(agent, None)
        revoked = Condition(AGENT_REVOKED, ConditionStatus.TRUE, "Revoked", reason[:1024])
        no_longer = Condition(AGENT_ACCEPTED, ConditionStatus.FALSE, "Revoked")
        return await self._condition(agent, revoked, no_longer)

    async def connected(
        self, agent: AgentId, version: str, certificate_not_after: datetime, highest: DirectiveNumber | None
    ) -> None:
        """Note a live stream and what its hello said."""

        def change(known: NodeAgent) -> NodeAgent:
            status = replace(known.status, certificate_not_after=certificate_not_after, highest_number=highest)
            return replace(known, status=status)

        known = await self._store.resources.get(NODE_AGENT, agent_resource_name(agent))
        if known.spec.version != version:
            await self._store.resources.update(replace(known, spec=replace(known.spec, version=version)))
        await self._change(agent, change, Condition(AGENT_CONNECTED, ConditionStatus.TRUE, "StreamOpen"))

    async def disconnected(self, agent: AgentId, reason: str) -> None:
        """`reason` is CamelCase. The status stays as it was last seen."""
        await self._condition(agent, Condition(AGENT_CONNECTED, ConditionStatus.FALSE, reason))

    async def note(self, agent: AgentId, condition: Condition) -> None:
        """Put a condition of another service's on an agent."""
        await self._condition(agent, condition)

    async def reported(self, agent: AgentId, report: AgentStatus) -> None:
        """Take over what lasts of a status: what it serves, the brake, the treaty's policy in force."""
        revisions = await self._treaty_revision(report.treaty_policy_revision)

        def change(known: NodeAgent) -> NodeAgent:
            status = replace(known.status, serving_digest=report.serving_digest, policy_revisions=revisions)
            return replace(known, status=replace(status, observed_generation=known.metadata.generation))

        serving = ConditionStatus.TRUE if report.serving_digest else ConditionStatus.FALSE
        braked = ConditionStatus.TRUE if report.brake_on else ConditionStatus.FALSE
        await self._change(
            agent,
            change,
            Condition(AGENT_SERVING, serving, "Observed" if report.serving_digest else "NothingServed"),
            Condition(AGENT_BRAKED, braked, "BrakeOn" if report.brake_on else "BrakeOff"),
        )

    async def _treaty_revision(self, revision: int) -> tuple[PolicyRevision, ...]:
        """The bundle that an agent says it has in force; none where it is not one of ours."""
        if not revision:
            return ()
        try:
            bundle = await self._store.trust.bundle(TREATY_PARTY, revision)
        except NotFound:
            return ()
        return (PolicyRevision(TREATY_PARTY, revision, bundle.digest),)

    async def mark_directed(self, reason: str, message: str, *, is_directed: bool) -> None:
        """Say on every agent whether this coordinator directs it; nothing where nobody ever doubted that it does."""
        status = ConditionStatus.TRUE if is_directed else ConditionStatus.FALSE
        for agent in await self._store.resources.all(NODE_AGENT):
            identity = names.spiffe_id(agent.spec.spiffe_id, self._trust.charter.domain)
            known = find_condition(agent.status.conditions, AGENT_DIRECTED)
            if is_directed and (known is None or known.reason == AHEAD):
                continue
            await self._condition(identity, Condition(AGENT_DIRECTED, status, reason, message[:1024]))

    async def mark_ahead(self, agent: AgentId, claim: str) -> None:
        """Say on one agent that it is not directed because of what it claims; an empty claim takes it back."""
        status = ConditionStatus.FALSE if claim else ConditionStatus.TRUE
        reason = AHEAD if claim else "Directing"
        await self._condition(agent, Condition(AGENT_DIRECTED, status, reason, claim[:1024]))

    async def ahead(self) -> tuple[AgentId, ...]:
        """Agents that `mark_ahead` marked."""
        return tuple(agent for agent, known in await self.conditions(AGENT_DIRECTED) if known.reason == AHEAD)

    async def conditions(self, kind: str) -> tuple[tuple[AgentId, Condition], ...]:
        """The condition of this kind on each agent that has one."""
        found = []
        for agent in await self._store.resources.all(NODE_AGENT):
            known = find_condition(agent.status.conditions, kind)
            if known is not None:
                found.append((names.spiffe_id(agent.spec.spiffe_id, self._trust.charter.domain), known))
        return tuple(found)

    async def project_charter(self, charter: Charter) -> None:
        """Make the Nation resources those of the charter; a nation that left stays, no longer Ready."""
        for code in charter.nations:
            memberships = tuple(sorted(body.code for body in charter.bodies.values() if code in body.members))
            await self._put_nation(NationSpec(code, memberships))
        for nation in await self._store.resources.all(NATION):
            is_party = nation.spec.code in charter.nations
            status = ConditionStatus.TRUE if is_party else ConditionStatus.FALSE
            ready = Condition(NATION_READY, status, "InCharter" if is_party else "NotInCharter")
            marked = with_condition(nation, ready, self._clock())
            await self._store.resources.update_status(marked)

    async def _put_nation(self, spec: NationSpec) -> None:
        try:
            known = await self._store.resources.get(NATION, spec.code.lower())
        except NotFound:
            await self._store.resources.create(new_resource(NATION, spec.code.lower(), spec, status=NationStatus()))
            return
        wanted = replace(known.spec, memberships=spec.memberships)
        if wanted != known.spec:
            await self._store.resources.update(replace(known, spec=wanted))

    async def _condition(self, agent: AgentId, *conditions: Condition) -> NodeAgent:
        return await self._change(agent, lambda known: known, *conditions)

    async def _change(
        self, agent: AgentId, change: Callable[[NodeAgent], NodeAgent], *conditions: Condition
    ) -> NodeAgent:
        """Change an agent's status, again from what is stored where somebody moved first."""
        for _ in range(_ATTEMPTS):
            changed = change(await self._store.resources.get(NODE_AGENT, agent_resource_name(agent)))
            for condition in conditions:
                changed = with_condition(changed, condition, self._clock())
            try:
                return await self._store.resources.update_status(changed)
            except ConflictError:
                continue
        raise ConflictError(f"the status of {agent} keeps changing")

    def named(self, text: str) -> AgentId:
        """An agent by its SPIFFE id or its resource's name. Raises InvalidInput: neither. NotFound: of no party."""
        domain = self._trust.charter.domain
        if text.startswith("spiffe://"):
            self._trust.check_party(text)
            identity = names.spiffe_id(text, domain)
            if identity.role is not SpiffeRole.AGENT:
                raise InvalidInput(f"{identity} is not an agent")
            return identity
        nation, _, name = text.partition("-")
        return names.agent_id(names.nation_code(nation.upper()), domain, name)

    def _is_out(self, agent: AgentId) -> bool:
        try:
            self._trust.check_standing(agent)
        except IdentityRefused:
            return True
        return False


def _may_act(agent: NodeAgent) -> bool:
    conditions = agent.status.conditions
    return is_true(conditions, AGENT_ACCEPTED) and not is_true(conditions, AGENT_REVOKED)
