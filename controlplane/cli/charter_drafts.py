"""A charter before and between its signatures: drafted from keys and descriptors, changed, checked.

A draft is an envelope without signatures. What is drafted is read back by the strict parser before it is written, and
each CA in it is held to the charter's domain, so a charter that parties would refuse never leaves this file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Final

from treaty import charter as charters
from treaty import names, statement
from treaty.charter import Body, Charter, Coordinator, Nation, Role
from treaty.delegation import parse_descriptor
from treaty.errors import BadSignature, InvalidInput, PreconditionFailed
from treaty.fields import timestamp_text
from treaty.files import about, read_file
from treaty.keys import read_verification_key
from treaty.names import PartyCode
from treaty.statement import StatementKind
from treaty.strict_json import JsonLike
from treaty.wire.certificates import check_authorities

MAX_CHARTER_BYTES: Final = 4 * 1024 * 1024
MAX_DAYS: Final = 3650


@dataclass(frozen=True, slots=True)
class Founding:
    """What a first charter says."""

    treaty: str
    domain: str
    founders: Role
    publishers: Role
    treaty_policy: Role
    coordinator: Coordinator
    nations: Sequence[Nation]
    bodies: Sequence[Body]


def now() -> datetime:
    """Now, in the whole seconds that documents hold."""
    return datetime.now(UTC).replace(microsecond=0)


def role(public_keys: Sequence[Path], threshold: int) -> Role:
    return Role(tuple(read_verification_key(path) for path in public_keys), threshold)


def coordinator_of(path: Path) -> Coordinator:
    """The coordinator of a descriptor that its own log key signed."""
    with about(path):
        found = parse_descriptor(read_file(path, "descriptor", MAX_CHARTER_BYTES)).coordinator
    if found is None:
        raise InvalidInput(f"{path} is a nation's descriptor", remedy="pass the one of 'foedus-coordinator init'")
    return found


def nation_of(path: Path) -> Nation:
    """The nation of a descriptor that its own root signed. Whether it *is* that nation, the founders check."""
    with about(path):
        found = parse_descriptor(read_file(path, "descriptor", MAX_CHARTER_BYTES)).nation
    if found is None:
        raise InvalidInput(f"{path} is a coordinator's descriptor", remedy="pass the one of 'foedus-agent init'")
    return found


def body_of(text: str) -> Body:
    """`EU:BE:FR,DE,IT`: code, host nation and members."""
    parts = text.split(":")
    if len(parts) != 3:
        raise InvalidInput(
            f"{text[:80]!r} is not a body", remedy="write it as CODE:HOST:MEMBER,MEMBER, e.g. EU:BE:FR,DE"
        )
    members = tuple(names.nation_code(member.strip()) for member in parts[2].split(",") if member.strip())
    return Body(names.party_code(parts[0]), names.nation_code(parts[1]), members)


def first(founding: Founding, at: datetime, expires_days: int) -> Charter:
    """Version 1, valid from `at`."""
    draft = Charter(
        version=1,
        treaty=names.resource_name(founding.treaty),
        domain=names.treaty_domain(founding.domain),
        issued_at=at,
        expires_at=_expiry(at, expires_days),
        founders=founding.founders,
        publishers=founding.publishers,
        treaty_policy=founding.treaty_policy,
        coordinator=founding.coordinator,
        nations=_by_code(founding.nations),
        bodies=MappingProxyType({found.code: found for found in founding.bodies}),
    )
    return _checked(draft)


def successor(current: Charter, at: datetime, expires_days: int) -> Charter:
    """The next version with the same parties. Issued after `current`, whatever this clock says."""
    issued = max(at, current.issued_at)
    return replace(current, version=current.version + 1, issued_at=issued, expires_at=_expiry(issued, expires_days))


def with_nations(charter: Charter, nations: Sequence[Nation], *, is_replacing: bool = False) -> Charter:
    """The charter with these nations too. Raises: InvalidInput: one is there already and may not be replaced."""
    for found in nations:
        if found.code in charter.nations and not is_replacing:
            raise InvalidInput(f"{found.code} is in the charter already", remedy="use 'foedus charter next --nation'")
    return _checked(replace(charter, nations=_by_code([*charter.nations.values(), *nations])))


def without_nations(charter: Charter, codes: Sequence[str]) -> Charter:
    leaving = {names.nation_code(code) for code in codes}
    for code in sorted(leaving):
        charter.nation(code)
    staying = [found for found in charter.nations.values() if found.code not in leaving]
    return _checked(replace(charter, nations=_by_code(staying)))


def with_roles(charter: Charter, *, coordinator: Path | None, founders: Sequence[Path], threshold: int) -> Charter:
    """The charter with another coordinator or other founders, where they are given."""
    if coordinator is not None:
        charter = replace(charter, coordinator=coordinator_of(coordinator))
    if founders:
        charter = replace(charter, founders=role(founders, threshold or charter.founders.threshold))
    elif threshold:
        charter = replace(charter, founders=Role(charter.founders.keys, threshold))
    return _checked(charter)


def unsigned(charter: Charter) -> bytes:
    return statement.sign(charter.statement(), [])


def read_charter(path: Path) -> Charter:
    """What the charter in `path` says. Believes nothing."""
    return parse(read_file(path, "charter", MAX_CHARTER_BYTES), path)


def read_draft(path: Path) -> Charter:
    """A charter that nobody signed. Raises: PreconditionFailed: somebody did."""
    envelope = read_file(path, "charter", MAX_CHARTER_BYTES)
    charter = parse(envelope, path)
    if statement.claimed_signers(envelope):
        raise PreconditionFailed(f"{path} is signed already", remedy="draft the next version: foedus charter next")
    return charter


def parse(envelope: bytes, path: Path) -> Charter:
    with about(path):
        claimed = statement.unverified(envelope)
        if claimed.kind is not StatementKind.CHARTER:
            raise InvalidInput(f"{path} is a {claimed.kind}, not a charter")
        return charters.parse_charter(claimed.predicate)


def believed(path: Path, *, pin: str = "", follows: Path | None = None) -> Charter:
    """The charter in `path`, signed by its founders and current; pinned, or following one that is believed.

    Raises: BadSignature, Expired, RollbackRefused, TrustError as `treaty.charter` says.
    """
    envelope = read_file(path, "charter", MAX_CHARTER_BYTES)
    claimed = parse(envelope, path)
    have, need = founders_signed(claimed, envelope)
    if have < need:
        raise BadSignature(
            f"{have} of the {need} founders that the charter needs have signed it",
            remedy=f"foedus charter sign {path} --key FOUNDER.key",
        )
    if follows is not None:
        before = believed_at(follows, pin)
        return charters.verify_successor(before, envelope, now())
    return _pinned(path, envelope, pin or claimed.digest, now())


def believed_at(path: Path, pin: str) -> Charter:
    """A charter as of its own time: what a later one follows may have expired since."""
    envelope = read_file(path, "charter", MAX_CHARTER_BYTES)
    claimed = parse(envelope, path)
    return _pinned(path, envelope, pin or claimed.digest, claimed.issued_at)


def _pinned(path: Path, envelope: bytes, pin: str, at: datetime) -> Charter:
    with about(path):
        return charters.verify_first(envelope, names.digest(pin), at)


def founders_signed(charter: Charter, envelope: bytes) -> tuple[int, int]:
    """How many of its founders have validly signed, and how many must."""
    try:
        signers = statement.verify(envelope, StatementKind.CHARTER, charter.founders.keys, 1).signers
    except BadSignature:
        signers = frozenset()
    return len(signers), charter.founders.threshold


def summary(charter: Charter, envelope: bytes) -> Mapping[str, JsonLike]:
    """The charter for a person, line by line."""
    have, need = founders_signed(charter, envelope)

    def told(found: Role) -> str:
        return f"{found.threshold} of {len(found.keys)}"

    return {
        "treaty": charter.treaty,
        "version": charter.version,
        "domain": charter.domain,
        "digest": charter.digest,
        "issued": timestamp_text(charter.issued_at),
        "expires": timestamp_text(charter.expires_at),
        "founders": f"{told(charter.founders)}; {have} of {need} signed",
        "publishers": told(charter.publishers),
        "treaty_policy": told(charter.treaty_policy),
        "coordinator": f"{charter.coordinator.party} in {charter.coordinator.host}"
        f" ({', '.join(charter.coordinator.dns_names)})",
        "nations": ", ".join(sorted(charter.nations)),
        "bodies": "; ".join(
            f"{found.code} in {found.host}: {', '.join(found.members)}" for found in charter.bodies.values()
        ),
    }


def _expiry(at: datetime, days: int) -> datetime:
    if not 1 <= days <= MAX_DAYS:
        raise InvalidInput(f"a charter lives 1 to {MAX_DAYS} days")
    return at + timedelta(days=days)


def _by_code(nations: Sequence[Nation]) -> Mapping[PartyCode, Nation]:
    return MappingProxyType({found.code: found for found in nations})


def _checked(charter: Charter) -> Charter:
    read_back = charters.parse_charter(charter.to_json())
    check_authorities(read_back)
    return read_back
