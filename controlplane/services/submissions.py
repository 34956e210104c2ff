"""What a nation hands in for the record: who may say what, checked before a byte of it is recorded.

Rules:
1. the statement is of a kind in the table below, signed by a key that the nation of the *certificate* delegated for
   that kind; what a message or a predicate says about its sender is compared, never believed;
2. a receipt, a tally and a decision are of the very agent that sends them;
3. a nation revokes its own agents and CA, named by the statement's subject, and nobody else;
4. a statement that is recorded already is answered with its index, without a second entry;
5. it is small, and of one agent at most so many are recorded in a day: a nation cannot fill the log. The day's count is
   this process's; after a restart it begins anew.

What follows from a statement (a Consent, a Dataset, a revocation) is done by the services that listen.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import date, datetime
from types import MappingProxyType
from typing import Final

from controlplane.services.ports import Clock
from controlplane.services.record import StatementRecord
from controlplane.services.trust import Trust
from treaty import statement
from treaty.consent import verify_consent
from treaty.dataset import verify_notice
from treaty.delegation import Delegation, Power, verify_by_power
from treaty.errors import IdentityRefused, LimitExceeded, PermissionRefused, ResourceExhausted
from treaty.names import AgentId, Digest, digest_of
from treaty.receipt import verify_receipt, verify_tally
from treaty.revocation import parse_revocation
from treaty.statement import StatementKind
from treaty.strict_json import JsonValue

MAX_SUBMISSION_BYTES: Final = 64 * 1024
"""A tally of all its classes, the largest honest statement, has a tenth of this."""
MAX_SUBMISSIONS_PER_DAY: Final = 10_000

Check = Callable[[bytes, AgentId, list[Delegation], datetime], Digest]
"""Verify an envelope of one kind for an agent; the statement's digest."""


class Submissions:
    """Verify and record."""

    def __init__(
        self, trust: Trust, record: StatementRecord, clock: Clock, *, per_day: int = MAX_SUBMISSIONS_PER_DAY
    ) -> None:
        self._trust = trust
        self._record = record
        self._clock = clock
        self._per_day = per_day
        self._counted_on: date | None = None
        self._counts: dict[AgentId, int] = {}

    async def submit(self, agent: AgentId, envelope: bytes) -> tuple[Digest, int]:
        """Record a statement of the agent's nation; its digest and index.

        Raises: PermissionRefused: a kind that no agent hands in. TrustError, InvalidInput as the kind's check says.
        """
        check_size(envelope)
        kind = statement.unverified(envelope).kind
        check = CHECKS.get(kind)
        if check is None:
            raise PermissionRefused(f"an agent does not hand in a {kind}", code="KIND_NOT_ALLOWED")
        if kind is StatementKind.REVOCATION:
            self._trust.check_own(parse_revocation(statement.unverified(envelope)).subject, agent.nation)
        if kind is StatementKind.DELEGATION:
            self._trust.learn_delegation(envelope, nation=agent.nation)
        own = list(self._trust.delegations(agent.nation))
        digest = check(envelope, agent, own, self._clock())
        if self._record.known(digest) is None:
            self._spend(agent)
        return digest, await self._record.append(envelope)

    def _spend(self, agent: AgentId) -> None:
        """Count one more of today's. Raises ResourceExhausted: the agent has none left (rule 5)."""
        today = self._clock().date()
        if self._counted_on != today:
            self._counted_on, self._counts = today, {}
        count = self._counts.get(agent, 0)
        if count >= self._per_day:
            raise ResourceExhausted(f"{agent} handed in {self._per_day} statements today")
        self._counts[agent] = count + 1


def check_size(envelope: bytes) -> None:
    """Refuse what is too large to be parsed before its signature is checked. Raises LimitExceeded."""
    if len(envelope) > MAX_SUBMISSION_BYTES:
        raise LimitExceeded(f"a statement of an agent has at most {MAX_SUBMISSION_BYTES} bytes")


def _consent(envelope: bytes, agent: AgentId, own: list[Delegation], now: datetime) -> Digest:
    verified = verify_consent(envelope, own, now)
    _require_nation(verified.consent.nation, agent)
    return verified.digest


def _receipt(envelope: bytes, agent: AgentId, own: list[Delegation], now: datetime) -> Digest:
    receipt, verified = verify_receipt(envelope, own, now)
    _require_nation(receipt.nation, agent)
    _require_agent(receipt.agent, agent)
    return verified.digest


def _tally(envelope: bytes, agent: AgentId, own: list[Delegation], now: datetime) -> Digest:
    tally, verified = verify_tally(envelope, own, now)
    _require_nation(tally.nation, agent)
    _require_agent(tally.agent, agent)
    return verified.digest


def _decision(envelope: bytes, agent: AgentId, own: list[Delegation], now: datetime) -> Digest:
    its = [delegation for delegation in own if delegation.agent == agent.name]
    verified, _ = verify_by_power(
        envelope, StatementKind.DECISION, its, nation=agent.nation, powers=[Power.RECEIPT], now=now
    )
    predicate = verified.statement.predicate
    _require_nation(predicate.get("nation", agent.nation), agent)
    _require_agent(predicate.get("agent", agent.name), agent)
    return verified.digest


def _dataset(envelope: bytes, agent: AgentId, own: list[Delegation], now: datetime) -> Digest:
    its = [delegation for delegation in own if delegation.agent == agent.name]
    notice, verified = verify_notice(envelope, its, now)
    _require_nation(notice.spec.nation, agent)
    return verified.digest


def _revocation(envelope: bytes, agent: AgentId, own: list[Delegation], now: datetime) -> Digest:
    verified, _ = verify_by_power(
        envelope, StatementKind.REVOCATION, own, nation=agent.nation, powers=[Power.REVOKE], now=now
    )
    return verified.digest


def _delegation(envelope: bytes, agent: AgentId, own: list[Delegation], now: datetime) -> Digest:
    del agent, own, now  # the root's signature was checked when it was learned
    return digest_of(statement.unverified(envelope).payload())


def _require_nation(claimed: JsonValue, agent: AgentId) -> None:
    if claimed != agent.nation:
        raise IdentityRefused(f"{agent} handed in a statement of another nation", code="FOREIGN_NATION")


def _require_agent(claimed: JsonValue, agent: AgentId) -> None:
    if claimed != agent.name:
        raise IdentityRefused(f"{agent} handed in a statement of another agent", code="FOREIGN_AGENT")


CHECKS: Final[Mapping[StatementKind, Check]] = MappingProxyType(
    {
        StatementKind.CONSENT: _consent,
        StatementKind.RECEIPT: _receipt,
        StatementKind.TALLY: _tally,
        StatementKind.DATASET: _dataset,
        StatementKind.DECISION: _decision,
        StatementKind.REVOCATION: _revocation,
        StatementKind.DELEGATION: _delegation,
    }
)
