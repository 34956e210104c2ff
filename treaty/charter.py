"""The charter: the one document that anchors all trust, and how one version follows another.

It names the parties (nations by ISO code; bodies such as EU with host and members), the coordinator, and for each
role its keys and threshold. Publishers, policy, log and other nations are believed because the charter names them.

Rules (python-tuf's for its root; TUF specification 5.3):
1. the first charter is believed because its digest was pinned by another channel, and it is signed by the
   threshold of its own founders;
2. version N+1 follows N: signed by the threshold of N's founders and of N+1's;
3. versions are consecutive, the treaty and its domain never change, and `issued_at` never goes back;
4. an expired charter anchors nothing new; what is served goes on.

No I/O and no clock: `now` is an argument.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType

from treaty import names, statement
from treaty.errors import Expired, IdentityRefused, InvalidInput, NotFound, RollbackRefused, TrustError
from treaty.fields import Fields, timestamp_text
from treaty.keys import VerificationKey, parse_verification_key
from treaty.names import Digest, PartyCode
from treaty.statement import Statement, StatementKind, Verified
from treaty.strict_json import JsonObject, JsonValue

MAX_PARTIES = 256
MAX_KEYS = 64
MAX_PEM_CHARS = 8192


@dataclass(frozen=True, slots=True)
class Role:
    """Who may sign for something: any `threshold` of `keys`."""

    keys: tuple[VerificationKey, ...]
    threshold: int

    def __post_init__(self) -> None:
        if len({key.key_id for key in self.keys}) != len(self.keys):
            raise InvalidInput("a role lists a key twice")
        if not 1 <= self.threshold <= len(self.keys):
            raise InvalidInput(f"a role of {len(self.keys)} keys cannot have threshold {self.threshold}")

    def verify(self, envelope: bytes, kind: StatementKind) -> Verified:
        return statement.verify(envelope, kind, self.keys, self.threshold)

    def to_json(self) -> JsonObject:
        return {"keys": [key.pem() for key in self.keys], "threshold": self.threshold}


@dataclass(frozen=True, slots=True)
class Nation:
    """A state party: its root of trust and the CA (PEM) that names its agents."""

    code: PartyCode
    root: Role
    ca_pem: str


@dataclass(frozen=True, slots=True)
class Body:
    """An organisation such as EU or NATO: where it is hosted, and who belongs to it."""

    code: PartyCode
    host: PartyCode
    members: tuple[PartyCode, ...]


@dataclass(frozen=True, slots=True)
class Coordinator:
    """The hub: the party that runs it, the nation it sits in, its CA, its DNS names and its log's key."""

    party: PartyCode
    host: PartyCode
    ca_pem: str
    dns_names: tuple[str, ...]
    log: Role


@dataclass(frozen=True, slots=True)
class Charter:
    version: int
    treaty: str
    domain: str
    issued_at: datetime
    expires_at: datetime
    founders: Role
    publishers: Role
    treaty_policy: Role
    coordinator: Coordinator
    nations: Mapping[PartyCode, Nation]
    bodies: Mapping[PartyCode, Body]

    def nation(self, code: PartyCode) -> Nation:
        """Raises: IdentityRefused: not a party."""
        try:
            return self.nations[code]
        except KeyError:
            raise IdentityRefused(f"{code} is not a nation of this charter", code="NOT_A_PARTY") from None

    def body(self, code: PartyCode) -> Body:
        try:
            return self.bodies[code]
        except KeyError:
            raise NotFound(f"{code} is not a body of this charter") from None

    @property
    def log_origin(self) -> str:
        """First line of the coordinator's log checkpoints (C2SP tlog-checkpoint)."""
        return f"coordinator.{self.domain}/log"

    @property
    def digest(self) -> Digest:
        """What an admin pins at `join`: over the content, without signatures."""
        return self.statement().subject_digest

    def statement(self) -> Statement:
        return statement.document(StatementKind.CHARTER, self.treaty, self.to_json())

    def to_json(self) -> JsonObject:
        coordinator: JsonObject = {
            "party": self.coordinator.party,
            "host": self.coordinator.host,
            "ca": self.coordinator.ca_pem,
            "dns_names": list(self.coordinator.dns_names),
            "log": self.coordinator.log.to_json(),
        }
        nations: JsonObject = {
            code: {"root": nation.root.to_json(), "ca": nation.ca_pem} for code, nation in self.nations.items()
        }
        bodies: JsonObject = {
            code: {"host": body.host, "members": list(body.members)} for code, body in self.bodies.items()
        }
        return {
            "version": self.version,
            "treaty": self.treaty,
            "domain": self.domain,
            "issued_at": timestamp_text(self.issued_at),
            "expires_at": timestamp_text(self.expires_at),
            "roles": {
                "founders": self.founders.to_json(),
                "publishers": self.publishers.to_json(),
                "treaty_policy": self.treaty_policy.to_json(),
            },
            "coordinator": coordinator,
            "nations": nations,
            "bodies": bodies,
        }


def verify_first(envelope: bytes, pinned: Digest, now: datetime) -> Charter:
    """Believe a charter because its digest was pinned (rule 1).

    Raises: TrustError: another digest. BadSignature, Expired, InvalidInput as they say.
    """
    claimed = statement.unverified(envelope)
    if claimed.kind is not StatementKind.CHARTER or claimed.subject_digest != pinned:
        raise TrustError(
            f"the charter shown is {claimed.subject_digest}, not the pinned {pinned}",
            remedy="compare the digest with the founders by another channel; believe nothing until it agrees",
        )
    charter = parse_charter(claimed.predicate)
    charter.founders.verify(envelope, StatementKind.CHARTER)
    _check_current(charter, now)
    return charter


def verify_successor(current: Charter, envelope: bytes, now: datetime) -> Charter:
    """Follow `current` by the next version (rules 2 to 4). The caller assigns the result last.

    Raises: RollbackRefused: not exactly the next version. BadSignature: either threshold is not met.
    """
    verified = current.founders.verify(envelope, StatementKind.CHARTER)  # 2, the old founders
    successor = parse_charter(verified.statement.predicate)
    successor.founders.verify(envelope, StatementKind.CHARTER)  # 2, the new founders
    if successor.version != current.version + 1:  # 3
        raise RollbackRefused(f"charter version {successor.version} does not follow {current.version}")
    if (successor.treaty, successor.domain) != (current.treaty, current.domain):
        raise TrustError("a successor charter cannot change the treaty's name or domain")
    if successor.issued_at < current.issued_at:
        raise RollbackRefused("the successor charter was issued before the current one")
    _check_current(successor, now)  # 4
    return successor


def _check_current(charter: Charter, now: datetime) -> None:
    if now >= charter.expires_at:
        raise Expired(
            f"charter version {charter.version} expired at {timestamp_text(charter.expires_at)}",
            remedy="the founders sign a new version",
        )


def parse_charter(value: JsonValue) -> Charter:
    """Read a charter's content strictly. Says nothing about who signed it."""
    fields = Fields(value, "charter")
    roles = fields.mapping("roles")
    charter = Charter(
        version=fields.integer("version", 1, 2**31),
        treaty=names.resource_name(fields.text("treaty", 63)),
        domain=names.treaty_domain(fields.text("domain", 200)),
        issued_at=fields.timestamp("issued_at"),
        expires_at=fields.timestamp("expires_at"),
        founders=parse_role(roles.value("founders")),
        publishers=parse_role(roles.value("publishers")),
        treaty_policy=parse_role(roles.value("treaty_policy")),
        coordinator=_parse_coordinator(fields.mapping("coordinator")),
        nations=MappingProxyType(_parse_nations(fields.value("nations"))),
        bodies=MappingProxyType(_parse_bodies(fields.value("bodies"))),
    )
    roles.done()
    fields.done()
    _check_separation(charter)
    return charter


def _check_separation(charter: Charter) -> None:
    """No CA and no root key serves two authorities: one key must never be able to name two parties."""
    cas = [charter.coordinator.ca_pem, *(nation.ca_pem for nation in charter.nations.values())]
    if len(set(cas)) != len(cas):
        raise InvalidInput("two parties of the charter share a CA")
    roots = [key.key_id for nation in charter.nations.values() for key in nation.root.keys]
    if len(set(roots)) != len(roots):
        raise InvalidInput("two nations of the charter share a root key")


def parse_role(value: JsonValue) -> Role:
    fields = Fields(value, "role")
    pems = fields.texts("keys", max_items=MAX_KEYS, max_chars=MAX_PEM_CHARS, min_items=1)
    role = Role(tuple(parse_verification_key(pem) for pem in pems), fields.integer("threshold", 1, MAX_KEYS))
    fields.done()
    return role


def _parse_coordinator(fields: Fields) -> Coordinator:
    coordinator = Coordinator(
        party=names.party_code(fields.text("party", 8)),
        host=names.nation_code(fields.text("host", 2)),
        ca_pem=fields.text("ca", MAX_PEM_CHARS),
        dns_names=fields.texts("dns_names", max_items=16, max_chars=253, min_items=1),
        log=parse_role(fields.value("log")),
    )
    fields.done()
    return coordinator


def _members(value: JsonValue, what: str) -> dict[str, JsonValue]:
    if not isinstance(value, dict) or len(value) > MAX_PARTIES:
        raise InvalidInput(f"the charter's {what} are not an object of at most {MAX_PARTIES} parties")
    return value


def _parse_nations(value: JsonValue) -> dict[PartyCode, Nation]:
    nations = {}
    for text, entry in _members(value, "nations").items():
        code = names.nation_code(text)
        fields = Fields(entry, f"nation {code}")
        nations[code] = Nation(code, parse_role(fields.value("root")), fields.text("ca", MAX_PEM_CHARS))
        fields.done()
    return nations


def _parse_bodies(value: JsonValue) -> dict[PartyCode, Body]:
    bodies = {}
    for text, entry in _members(value, "bodies").items():
        code = names.party_code(text)
        fields = Fields(entry, f"body {code}")
        host = names.nation_code(fields.text("host", 2))
        members = fields.texts("members", max_items=MAX_PARTIES, max_chars=2)
        bodies[code] = Body(code, host, tuple(names.nation_code(member) for member in members))
        fields.done()
    return bodies
