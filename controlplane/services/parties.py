"""What changes who belongs: a new charter, an agent let in, an id or a CA put out.

Each leaves a signed statement in the record: the charter itself, or a revocation signed by the coordinator's log key
(an operator's) or by the nation's person (its own). A nation may put out its own agents and nobody else.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

import structlog

from controlplane.services.enrolment import Enrolment
from controlplane.services.listeners import SilentListener
from controlplane.services.nations import BY_NATION, Nations, NodeAgent
from controlplane.services.ports import Record
from controlplane.services.trust import Trust
from controlplane.store.ports.trust import Revocation
from treaty import statement
from treaty.charter import Charter
from treaty.errors import InvalidInput
from treaty.fields import timestamp_text
from treaty.keys import SigningKey
from treaty.names import AgentId, Digest, digest_of
from treaty.revocation import parse_revocation
from treaty.statement import Statement, StatementKind
from treaty.strict_json import JsonObject

log = structlog.get_logger(__name__)


class Parties(SilentListener):
    """The verbs, and what nations' own revocations do."""

    def __init__(
        self,
        trust: Trust,
        nations: Nations,
        enrolment: Enrolment,
        record: Record,
        log_key: SigningKey,
        *,
        charter_changed: Callable[[], Awaitable[None]],
    ) -> None:
        self._trust = trust
        self._nations = nations
        self._enrolment = enrolment
        self._record = record
        self._log_key = log_key
        self._charter_changed = charter_changed
        self._adopted: Digest | None = None
        self._is_adopting = False

    @property
    def is_behind(self) -> bool:
        """Whether something follows an earlier charter than the one in force: `adopt` failed or was cut off."""
        return not self._is_adopting and self._adopted not in (None, self._trust.charter.digest)

    async def publish_charter(self, envelope: bytes) -> Charter:
        """Put a charter version in force and record it. Idempotent. Raises as `Trust.publish`."""
        charter = await self._trust.publish(envelope)
        await self.adopt()
        return charter

    async def adopt(self) -> None:
        """Make the record, the Nation resources and the services follow the charter in force. Idempotent.

        Called at the start and whenever the charter may have changed, by this process or another one.
        """
        charter = self._trust.charter
        self._is_adopting = True
        try:
            for envelope in self._trust.charter_envelopes:
                await self._record.append(envelope)
            await self._nations.project_charter(charter)
            await self._charter_changed()
        finally:
            self._is_adopting = False
        self._adopted = charter.digest
        log.info("charter in force", version=charter.version, digest=charter.digest)

    async def accept(self, agent: str, by: str) -> NodeAgent:
        """Let an agent in that tried to connect. Idempotent.

        Raises: IdentityRefused: it is revoked. PolicyDenied: the treaty would not have it.
        """
        named = self._nations.named(agent)
        self._trust.check_standing(named)
        await self._enrolment.judge_accept(named)
        accepted = await self._nations.accept(agent, by)
        log.info("agent accepted", agent=accepted.spec.spiffe_id, by=by)
        return accepted

    async def revoke(self, subject: str, *, reason: str, by: str) -> Sequence[NodeAgent]:
        """Put out an id or a CA; live streams are cut. The NodeAgents that are out by it.

        An id that nobody has used is put out in advance, and no NodeAgent is. `subject` may be a NodeAgent's name.

        Raises: NotFound: of another treaty or no party. InvalidInput: no id, or no reason that a record can show.
        """
        if not reason.strip() or not reason.isprintable():
            raise InvalidInput("a revocation has a reason, in one line", remedy="pass --reason 'host stolen'")
        if not subject.startswith(("spiffe:", "sha256:")):
            subject = str(self._nations.named(subject))
        self._trust.check_party(subject)
        out = await self._nations.revoke(subject, reason=reason, by=by)
        await self.record_revocations()
        log.warning("revoked", subject=subject, reason=reason, by=by)
        return out

    async def record_revocations(self) -> None:
        """Record what operators revoked. Idempotent: called after each, and at the start for what a crash left out.

        A revocation comes first and its statement second: one that the record cannot take now is in force all the same.
        Raises: PreconditionFailed (COORDINATOR_BEHIND): as `Record.append`.
        """
        for revocation in await self._trust.revocations():
            if not revocation.revoked_by.startswith(BY_NATION):  # a nation's own statement is recorded before it acts
                await self._record.append(statement.sign(_stated(revocation), [self._log_key]))

    async def submitted(self, agent: AgentId, envelope: bytes, digest: Digest, log_index: int) -> None:
        """Carry out a nation's own revocation; its person's signature was verified before it was recorded."""
        claimed = statement.unverified(envelope)
        if claimed.kind is not StatementKind.REVOCATION:
            return
        word = parse_revocation(claimed)
        await self._nations.revoke(word.subject, reason=word.reason, by=f"{BY_NATION}{agent.nation}")
        log.warning("revoked by its nation", subject=word.subject, nation=agent.nation, statement=digest)


def _stated(revocation: Revocation) -> Statement:
    """The statement of a stored revocation: the same one, however often it is made."""
    predicate: JsonObject = {
        "subject": revocation.subject,
        "reason": revocation.reason,
        "by": revocation.revoked_by,
        "issued_at": timestamp_text(revocation.revoked_at),
    }
    return Statement(
        StatementKind.REVOCATION, revocation.subject[:255], digest_of(revocation.subject.encode()), predicate
    )
