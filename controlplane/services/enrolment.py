"""May this agent speak for its nation? `agent.enrol`, asked of the treaty's policy at the coordinator.

Rules:
1. asked before an operator's accept, at every connect, and of every agent that is served once another treaty policy is
   in force, on what TLS showed last: the leaf, the CA that issued it by the charter, the peer's address; only the
   program's version is the agent's own word. What was not shown since this process began is undetermined, not guessed;
2. a definite no of the treaty refuses, with its codes; what only the nation sees (its address ranges) is undetermined
   and refuses nobody: the nation asked itself before it called (`node_agent.enrolment`). Whom it refuses is served
   nothing more until a connect is let in, also by a process that starts later, and learns the codes as at a connect;
3. any other call is served once a connect was let in since this process began, by the policy in force: what came into
   force since is asked at the call;
4. an accepted agent may connect while no treaty policy is in force here, to receive one; a policy outside its validity,
   or an engine that does not answer, is no no of the treaty either, and lets a no that was said stand;
5. what was decided last stands on the NodeAgent as `EnrolmentDecided`.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from contextlib import suppress
from typing import Final

import structlog
from cryptography import x509

from controlplane.services.nations import Nations
from controlplane.services.policies import Policies
from controlplane.services.trust import Trust
from treaty.errors import FoedusError, NotFound, PolicyDenied, Unavailable
from treaty.names import AgentId, SpiffeId
from treaty.policy import asks
from treaty.policy.answer import Verdict
from treaty.policy.decider import nanoseconds
from treaty.policy.decision import Decision
from treaty.policy.engine import TREATY
from treaty.policy.questions import Observed, ObservedCertificate, ObservedSubject
from treaty.resources.meta import Condition, ConditionStatus

log = structlog.get_logger(__name__)

ENROLMENT_DECIDED: Final = "EnrolmentDecided"
_DENIED: Final = "Denied"
_ASK_REMEDY: Final = "the treaty's policy authority says what these codes ask for"


class Enrolment:
    """The question, and the condition."""

    def __init__(self, policies: Policies, nations: Nations, trust: Trust) -> None:
        self._policies = policies
        self._nations = nations
        self._trust = trust
        self._seen: dict[AgentId, ObservedSubject] = {}
        self._judged_under: dict[AgentId, int] = {}
        """The revision that answered last, by agent."""
        self._admitted: set[AgentId] = set()
        """Whom a connect let in since this process began, and nothing refused since."""
        self._denied: dict[AgentId, PolicyDenied] = {}

    async def load(self) -> None:
        """Let stand what was refused before this start, until a connect is let in (rule 2)."""
        for agent, said in await self._nations.conditions(ENROLMENT_DECIDED):
            if said.reason == _DENIED:
                self._denied[agent] = _denial(agent, tuple(said.message.split()))

    async def knocked(self, agent: AgentId, leaf: x509.Certificate, *, peer: str) -> None:
        """An agent that nobody accepted tried to connect: keep that, and what it showed, for whoever is to accept it.

        Raises: ResourceExhausted: too many of its nation wait already, and nothing was kept.
        """
        await self._nations.knocked(agent, leaf.not_valid_after_utc)
        self._seen[agent] = self.shown(agent, leaf, peer=peer, version=None)

    def shown(self, agent: AgentId, leaf: x509.Certificate, *, peer: str, version: str | None) -> ObservedSubject:
        """What a connection shows of `agent`, whom `Trust.identify` found by `leaf`. `peer` as gRPC names it."""
        return ObservedSubject(
            spiffe=str(agent),
            agent_version=version,
            ip=peer_address(peer),
            cert=ObservedCertificate(
                root=self._trust.ca_digest(agent.nation),  # it issued the leaf, or there was no identity
                serial=format(leaf.serial_number, "x"),
                not_after_ns=nanoseconds(leaf.not_valid_after_utc),
            ),
        )

    async def judge(self, agent: AgentId, subject: ObservedSubject) -> None:
        """Ask, and keep nothing. Raises: PolicyDenied: a definite no."""
        _require(agent, await self._decision(agent, subject))

    async def admit(self, agent: AgentId, subject: ObservedSubject) -> None:
        """As `judge` at a connect: keep what was shown, and say on the NodeAgent what came of it."""
        self._seen[agent] = subject
        revision = await self._policies.revision()
        decision = await self._decision(agent, subject)
        await self._note(agent, decision)
        self._keep(agent, decision, revision)
        self.check_not_denied(agent)
        self._admitted.add(agent)

    async def judge_accept(self, agent: AgentId) -> None:
        """As `judge` before an operator's accept, on what the agent showed last; the NodeAgent says what came of it.

        One that showed nothing since this process began is judged by its name alone.
        """
        decision = await self._decision(agent, self._seen.get(agent))
        with suppress(NotFound):  # it never knocked, as whoever accepts it is told
            await self._note(agent, decision)
        _require(agent, decision)

    async def check_admitted(self, agent: AgentId) -> None:
        """Let a call other than a connect be served (rule 3).

        Raises: PolicyDenied: the treaty refused this agent when it was asked last. Unavailable (NOT_CONNECTED): no
        connect of this agent was let in since this process began; the agent calls again when one was.
        """
        await self.judge_again([agent])
        self.check_not_denied(agent)
        if agent not in self._admitted:
            raise Unavailable(
                f"{agent} was not let in since the coordinator started", code="NOT_CONNECTED", remedy="connect first"
            )

    async def judge_again(self, served: Iterable[AgentId]) -> None:
        """Ask again of those whom another policy than the one in force let in; `check_not_denied` says whom it refuses.

        A policy whose validity has not begun answers nobody yet, and is asked again at the next call.
        """
        revision = await self._policies.revision()
        for agent in self._admitted.intersection(served):
            if self._judged_under.get(agent) == revision:
                continue
            decision = await self._decision(agent, self._seen.get(agent))
            self._keep(agent, decision, revision)
            if codes := _definite(decision):
                log.warning("agent refused by the new policy", agent=str(agent), codes=codes, revision=revision)
                await self._told(agent, decision)

    async def _told(self, agent: AgentId, decision: Decision | None) -> None:
        """Say on the NodeAgent what came of it. What cannot be written now keeps nobody from being cut."""
        try:
            await self._note(agent, decision)
        except FoedusError as err:
            log.error("a refusal was not noted", agent=str(agent), code=err.code, exc_info=err)

    async def _note(self, agent: AgentId, decision: Decision | None) -> None:
        """Say it on the NodeAgent; an engine that speaks in the treaty's place takes no refusal off it (rule 4)."""
        if agent not in self._denied or _is_of_treaty(decision):
            await self._nations.note(agent, _condition(decision))

    def check_not_denied(self, caller: SpiffeId) -> None:
        """Raises: PolicyDenied: the treaty refused this agent when it was asked last."""
        if (denied := self._denied.get(caller)) is not None:
            raise denied

    def _keep(self, agent: AgentId, decision: Decision | None, revision: int) -> None:
        if codes := _definite(decision):
            self._denied[agent] = _denial(agent, codes)
            self._admitted.discard(agent)
        if not _is_of_treaty(decision):
            self._judged_under.pop(agent, None)  # the engine did not answer: ask again, and let stand what was said
            return
        self._judged_under[agent] = revision
        if not codes:
            self._denied.pop(agent, None)

    async def _decision(self, agent: AgentId, subject: ObservedSubject | None) -> Decision | None:
        """None while no treaty policy is in force here (rule 4)."""
        if not await self._policies.revision():
            return None
        await self._policies.refresh_registers()
        observed = Observed(subject=subject or ObservedSubject(spiffe=str(agent)))
        return await self._policies.preflight(asks.agent_enrol(agent), observed)


def _definite(decision: Decision | None) -> tuple[str, ...]:
    """The codes by which the treaty itself says no; empty where it does not (rules 2 and 4)."""
    if decision is None or decision.verdict is not Verdict.DENY:
        return ()
    return tuple(sorted({reason.code for reason in decision.reasons if reason.source == TREATY}))


def _is_of_treaty(decision: Decision | None) -> bool:
    """Whether the treaty answered, and not the engine in its place. None: there is no treaty to ask yet."""
    if decision is None or decision.verdict is not Verdict.DENY:
        return True
    return all(reason.source == TREATY for reason in decision.reasons)


def _denial(agent: AgentId, codes: tuple[str, ...]) -> PolicyDenied:
    said = f"the treaty's policy does not let {agent} in ({' '.join(codes)})"
    return PolicyDenied(said, codes=codes, remedy=_ASK_REMEDY)


def _require(agent: AgentId, decision: Decision | None) -> None:
    if codes := _definite(decision):
        raise _denial(agent, codes)


def _condition(decision: Decision | None) -> Condition:
    if decision is None:
        return Condition(
            ENROLMENT_DECIDED, ConditionStatus.FALSE, "NoTreatyPolicy", "it may connect, to receive the first"
        )
    if codes := _definite(decision):
        return Condition(ENROLMENT_DECIDED, ConditionStatus.TRUE, _DENIED, " ".join(codes)[:1024])
    if decision.verdict is not Verdict.ALLOW:
        return Condition(ENROLMENT_DECIDED, ConditionStatus.FALSE, "NoAnswer", " ".join(decision.codes)[:1024])
    left = " ".join(decision.undetermined)
    return Condition(
        ENROLMENT_DECIDED, ConditionStatus.TRUE, "Allowed", f"undetermined here: {left}"[:1024] if left else ""
    )


def peer_address(peer: str) -> str | None:
    """The address in gRPC's name of a peer: `ipv4:10.0.0.1:4711`, `ipv6:%5B::1%5D:4711`; None for anything else."""
    host = peer.partition(":")[2].rpartition(":")[0].replace("%5B", "").replace("%5D", "").strip("[]")
    try:
        found = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return None
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return str(mapped or found)
