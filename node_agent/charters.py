"""Which charter does this agent believe, and how did it come to?

The first version believed is the one whose digest the admin pinned at `join`; each later one is believed because it
follows the one before (`treaty.charter`). Every version is kept in HOME/charter as it was signed, and the chain is
verified again from the pin at every start. A version that has been followed by another may have expired since; only the
last must be current, and where it is not the agent still starts: it serves what it has and does nothing new.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from node_agent.home import Home, write_atomically
from treaty import statement
from treaty.charter import Charter, Nation, parse_charter, verify_first, verify_successor
from treaty.errors import InvalidInput, PreconditionFailed, TrustError
from treaty.fields import Fields
from treaty.files import about
from treaty.names import Digest
from treaty.strict_json import canonical, parse_object

MAX_VERSIONS: Final = 64
_MAX_TARGET_CHARS: Final = 300


@dataclass(frozen=True, slots=True)
class Membership:
    """What `join` wrote down: where the coordinator is, and the digest that the admin pinned."""

    coordinator: str
    """host:port of the mutual TLS port."""
    reach: str
    """host:port of Reach."""
    pinned: Digest


def read_membership(home: Home) -> Membership:
    """Raises: PreconditionFailed: this agent has not joined."""
    try:
        data = home.membership.read_bytes()
    except FileNotFoundError as err:
        raise PreconditionFailed(
            "this agent has not joined a treaty",
            remedy="foedus-agent join --coordinator HOST:PORT --reach HOST:PORT --charter sha256:…",
        ) from err
    with about(home.membership):
        fields = Fields(parse_object(data, max_bytes=4096), "membership.json")
        membership = Membership(
            target(fields.text("coordinator", _MAX_TARGET_CHARS)),
            target(fields.text("reach", _MAX_TARGET_CHARS)),
            fields.digest("pinned"),
        )
        fields.done()
    return membership


def write_membership(home: Home, membership: Membership) -> None:
    value = {"coordinator": membership.coordinator, "reach": membership.reach, "pinned": membership.pinned}
    write_atomically(home.membership, canonical(value))


def target(text: str) -> str:
    """Check `host:port`. Raises: InvalidInput."""
    host, _, port = text.rpartition(":")
    if not host or "/" in text or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
        raise InvalidInput(f"{text[:80]!r} is not host:port")
    return text


def host_of(address: str) -> str:
    return address.rpartition(":")[0].strip("[]")


def believe(envelopes: Sequence[bytes], pinned: Digest, now: datetime) -> tuple[Charter, ...]:
    """Follow charter versions from the pinned one; those before it are ignored.

    Raises: TrustError: none of them is the pinned one, or one does not follow. Expired: the last is over.
    """
    if not envelopes or len(envelopes) > MAX_VERSIONS:
        raise InvalidInput(f"a charter's history has 1 to {MAX_VERSIONS} versions")
    digests = [statement.unverified(envelope).subject_digest for envelope in envelopes]
    first = digests.index(pinned) if pinned in digests else len(digests) - 1
    versions = [verify_first(envelopes[first], pinned, _moment(envelopes, first, now))]
    for position in range(first + 1, len(envelopes)):
        versions.append(verify_successor(versions[-1], envelopes[position], _moment(envelopes, position, now)))
    return tuple(versions)


def _moment(envelopes: Sequence[bytes], position: int, now: datetime) -> datetime:
    """A version that was followed need only have been current when it was issued; the last must be so now."""
    if position == len(envelopes) - 1:
        return now
    return parse_charter(statement.unverified(envelopes[position]).predicate).issued_at


def stored(home: Home) -> list[bytes]:
    """Envelopes of the versions believed so far, oldest first."""
    return [path.read_bytes() for path in sorted(home.charters.glob("[0-9]*.json"))]


def store(home: Home, envelopes: Sequence[bytes], versions: Sequence[Charter]) -> None:
    """Keep the envelopes of believed `versions`, the last of `envelopes`. Durable, idempotent."""
    for charter, envelope in zip(versions, envelopes[-len(versions) :], strict=True):
        path = charter_path(home, charter)
        if not path.exists():
            write_atomically(path, envelope)


def charter_path(home: Home, charter: Charter) -> Path:
    return home.charters / f"{charter.version:06d}.json"


def check_own_entry(charter: Charter, offered: Nation) -> None:
    """The charter's entry for this nation must be what this nation's descriptor offered: its own root and CA.

    Raises: IdentityRefused: not a party. TrustError: somebody else's keys stand under this nation's name.
    """
    entry = charter.nation(offered.code)
    remedy = "do not join; tell the founders by another channel"
    if {key.key_id for key in entry.root.keys} != {key.key_id for key in offered.root.keys}:
        raise TrustError(
            f"the charter names another root for {offered.code} than ours", code="FOREIGN_ROOT", remedy=remedy
        )
    if entry.ca_pem != offered.ca_pem:
        raise TrustError(f"the charter names another CA for {offered.code} than ours", code="FOREIGN_CA", remedy=remedy)
