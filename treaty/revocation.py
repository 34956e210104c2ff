"""A nation's or an operator's word that an id or a CA is out: what a revocation says, read strictly.

Who may say it is not decided here.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from treaty.errors import InvalidInput
from treaty.fields import Fields
from treaty.names import digest_of
from treaty.statement import Statement, StatementKind

MAX_REASON_CHARS = 1024
_MAX_SUBJECT_CHARS = 255


@dataclass(frozen=True, slots=True)
class Revocation:
    """`subject` is a SPIFFE id or the digest of a CA."""

    subject: str
    reason: str
    by: str
    issued_at: datetime


def parse_revocation(claimed: Statement) -> Revocation:
    """Read what a revocation says. Nothing is believed. Raises InvalidInput: it is none, or about something else."""
    if claimed.kind is not StatementKind.REVOCATION:
        raise InvalidInput(f"expected a revocation, got a {claimed.kind}")
    fields = Fields(claimed.predicate, "revocation")
    revocation = Revocation(
        subject=fields.text("subject", _MAX_SUBJECT_CHARS),
        reason=fields.text("reason", MAX_REASON_CHARS),
        by=fields.text("by", 256),
        issued_at=fields.timestamp("issued_at"),
    )
    fields.done()
    subject = revocation.subject
    if (claimed.subject_name, claimed.subject_digest) != (subject, digest_of(subject.encode())):
        raise InvalidInput("the revocation's subject is not the one that it names")
    return revocation
