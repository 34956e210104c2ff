"""Whom this nation put out: its own agents and CAs, by a person's signed word, for ever.

    journal, kind `revoked`              subject (a SPIFFE id or the digest of a CA's certificate) to the signed word
    journal, kind `revocation-announced` what the coordinator has recorded

Rules:
1. a nation revokes what is its own; the word is signed by a person to whom the nation's root gave the power `revoke`,
   and is verified before the journal has it;
2. a revocation is final: it holds when the person's delegation has long ended;
3. policies here see it at once (AGT-004), with or without a coordinator; the coordinator hears of it as soon as it can.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator
from datetime import datetime
from typing import Final

from node_agent.ports import Border, Journal, Nation
from treaty import names, statement
from treaty.delegation import Power, verify_by_power
from treaty.errors import Corrupt, IdentityRefused, InvalidInput
from treaty.fields import Fields, timestamp_text
from treaty.keys import SigningKey
from treaty.names import digest_of
from treaty.statement import Statement, StatementKind
from treaty.strict_json import JsonObject
from treaty.wire.certificates import ca_digest

KIND: Final = "revoked"
ANNOUNCED_KIND: Final = "revocation-announced"
MAX_REASON_CHARS: Final = 1024
_MAX_ENVELOPE_CHARS: Final = 64 * 1024


def revoke(journal: Journal, nation: Nation, subject: str, reason: str, key: SigningKey, now: datetime) -> None:
    """Sign and journal a revocation. Idempotent: the first word about a subject stays.

    Raises: IdentityRefused: not this nation's own. BadSignature: the key has no power to revoke. InvalidInput.
    """
    check_own(nation, subject)
    if not 0 < len(reason) <= MAX_REASON_CHARS or not reason.isprintable():
        raise InvalidInput(f"a reason is one line of at most {MAX_REASON_CHARS} characters")
    predicate: JsonObject = {
        "subject": subject,
        "reason": reason,
        "by": key.verification.key_id,
        "issued_at": timestamp_text(now),
    }
    word = Statement(StatementKind.REVOCATION, subject, digest_of(subject.encode()), predicate)
    envelope = statement.sign(word, [key])
    verify_by_power(
        envelope,
        StatementKind.REVOCATION,
        nation.delegations(),
        nation=nation.code,
        powers=[Power.REVOKE],
        now=now,
    )
    if journal.document(KIND, subject) is None:
        journal.put(KIND, subject, {"envelope": base64.b64encode(envelope).decode("ascii")})


def check_own(nation: Nation, subject: str) -> None:
    """Raises: IdentityRefused: another nation's, or nobody's. InvalidInput: neither a SPIFFE id nor a digest."""
    charter = nation.charter()
    if subject.startswith("sha256:"):
        is_own = names.digest(subject) == ca_digest(charter.nation(nation.code).ca_pem)
    else:
        identity = names.spiffe_id(subject, charter.domain)
        is_own = identity.authority == nation.code.lower()
    if not is_own:
        raise IdentityRefused(
            f"{nation.code} may revoke its own agents and CA only",
            code="FOREIGN_NATION",
            remedy="name a SPIFFE id of this nation, or the digest of its CA in the charter",
        )


def subjects(journal: Journal) -> list[str]:
    """What the register `revoked` holds."""
    return [document.name for document in journal.documents(KIND)]


async def announce(journal: Journal, border: Border) -> None:
    """Hand in what the coordinator has not recorded yet, once each."""
    for subject, envelope in _words(journal):
        if journal.document(ANNOUNCED_KIND, subject) is None:
            index = await border.submit(envelope)
            journal.put(ANNOUNCED_KIND, subject, {"log_index": index})


def _words(journal: Journal) -> Iterator[tuple[str, bytes]]:
    for document in journal.documents(KIND):
        try:
            text = Fields(document.body, "revocation").text("envelope", _MAX_ENVELOPE_CHARS)
            yield document.name, base64.b64decode(text, validate=True)
        except (InvalidInput, binascii.Error) as err:
            raise Corrupt(f"the journal's revocation of {document.name} cannot be read") from err
