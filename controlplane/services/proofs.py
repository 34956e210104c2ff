"""Shows a nation that its own statement stands in the record, and nothing of anybody else's.

A proof is a few hashes of salted leaves, yet whether another nation said a certain thing is not for everyone to learn:
a statement of another nation is answered as one that is not there. Whose it is, is read from the statement as it was
recorded, whose signature was verified then.
"""

from __future__ import annotations

from controlplane.services.connections import Inclusion
from controlplane.services.record import StatementRecord
from controlplane.services.trust import Trust
from treaty import names, statement
from treaty.charter import parse_charter
from treaty.dataset import parse_notice
from treaty.errors import FoedusError, IdentityRefused, NotFound
from treaty.names import AgentId, Digest, PartyCode
from treaty.revocation import parse_revocation
from treaty.statement import Statement, StatementKind
from treaty.wire.certificates import ca_digest


class Proofs:
    """Answers for the record."""

    def __init__(self, trust: Trust, record: StatementRecord) -> None:
        self._trust = trust
        self._record = record

    async def prove(self, agent: AgentId, digest: Digest, log_size: int) -> Inclusion:
        """The proof of `agent`'s nation's statement in the tree of `log_size`, or the code why there is none."""
        try:
            index = self._record.known(digest)
            if index is None:
                raise NotFound("no such statement is recorded")
            leaf = await self._record.leaf(index)
            if leaf.statement is None or not self._is_of(statement.unverified(leaf.statement), agent.nation):
                raise NotFound("no such statement of this nation is recorded")
            return Inclusion(digest, log_size, self._record.inclusion(index, log_size))
        except FoedusError as err:
            return Inclusion(digest, log_size, codes=(err.code,))

    def _is_of(self, found: Statement, nation: PartyCode) -> bool:
        match found.kind:
            case StatementKind.DATASET:
                return parse_notice(found).spec.nation == nation
            case StatementKind.REVOCATION:
                return self._is_own(parse_revocation(found).subject, nation)
            case _:
                return found.predicate.get("nation") == nation

    def _is_own(self, subject: str, nation: PartyCode) -> bool:
        """Whether a revocation is of the nation's agent or CA; a CA that was revoked is of an earlier charter later."""
        if not subject.startswith("sha256:"):
            return names.spiffe_id(subject, self._trust.charter.domain).authority == nation.lower()
        for envelope in self._trust.charter_envelopes:
            try:
                entry = parse_charter(statement.unverified(envelope).predicate).nation(nation)
            except IdentityRefused:
                continue  # it was not a party then
            if ca_digest(entry.ca_pem) == subject:
                return True
        return False
