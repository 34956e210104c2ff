"""The coordinator's directory: where what lies, how it begins, who may read it.

    keys/log.key            signs the record's checkpoints, plans and the descriptor (Ed25519)
    tls/ca.key, ca.pem      issues the server's certificate and those of operators, publishers and auditors
    identity.json           party, host, domain, DNS names: what the descriptor offers the founders
    descriptor.json         the signed descriptor
    settings.yaml           see `controlplane.settings`; every key, commented out, until somebody sets one
    state.db, record/, artifacts/, spool/, runs/    state; see their rooms
    endpoints.json          where the running coordinator is dialled and listens (`_bound`); written at start

The CA's key can name operators, publishers and auditors and the server; never a nation's agent.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from controlplane.settings import settings_text
from treaty import names
from treaty.charter import Charter, Coordinator, Role
from treaty.delegation import coordinator_descriptor
from treaty.errors import ConflictError, Corrupt, InvalidInput, NotFound
from treaty.fields import Fields
from treaty.files import about
from treaty.keys import SigningKey, new_signing_key, read_signing_key, write_key, write_new
from treaty.names import COORDINATOR_HOST, PartyCode
from treaty.strict_json import canonical, parse_object
from treaty.wire.certificates import Issued, load_issued, new_ca


@dataclass(frozen=True, slots=True)
class Identity:
    """What this coordinator is, before and beside any charter."""

    party: PartyCode
    host: PartyCode
    domain: str
    dns_names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Home:
    """The directory `root` of one coordinator."""

    root: Path

    @property
    def settings(self) -> Path:
        return self.root / "settings.yaml"

    @property
    def descriptor(self) -> Path:
        return self.root / "descriptor.json"

    @property
    def endpoints(self) -> Path:
        return self.root / "endpoints.json"

    @property
    def store_url(self) -> str:
        return f"sqlite:///{(self.root / 'state.db').absolute()}"

    @property
    def record(self) -> Path:
        return self.root / "record"

    @property
    def artifacts(self) -> Path:
        return self.root / "artifacts"

    @property
    def spool(self) -> Path:
        return self.root / "spool"

    @property
    def runs(self) -> Path:
        return self.root / "runs"

    @property
    def ca_pem(self) -> Path:
        return self.root / "tls" / "ca.pem"

    def log_key(self) -> SigningKey:
        return read_signing_key(self.root / "keys" / "log.key")

    def ca(self) -> Issued:
        """The coordinator's CA. Raises: NotFound: this directory was not initialised."""
        try:
            with about(self.root / "tls"):
                return load_issued((self.root / "tls" / "ca.key").read_bytes(), self.ca_pem.read_bytes())
        except FileNotFoundError as err:
            raise _not_initialised(self.root) from err

    def identity(self) -> Identity:
        path = self.root / "identity.json"
        try:
            data = path.read_bytes()
        except FileNotFoundError as err:
            raise _not_initialised(self.root) from err
        with about(path):
            fields = Fields(parse_object(data, max_bytes=16 * 1024), "identity.json")
            identity = Identity(
                party=names.party_code(fields.text("party", 8)),
                host=names.nation_code(fields.text("host", 2)),
                domain=names.treaty_domain(fields.text("domain", 200)),
                dns_names=fields.texts("dns_names", max_items=16, max_chars=253, min_items=1),
            )
            fields.done()
        return identity

    def write_endpoints(self, endpoints: dict[str, str]) -> None:
        """Say where the coordinator listens, in one rename."""
        partial = self.endpoints.with_suffix(".partial")
        partial.write_text(json.dumps(endpoints, indent=2, sort_keys=True) + "\n")
        partial.replace(self.endpoints)


def initialise(home: Home, identity: Identity, now: datetime) -> bytes:
    """Make keys, CA and descriptor; the descriptor. Raises: ConflictError: it was initialised before."""
    if (home.root / "identity.json").exists():
        raise ConflictError(f"{home.root} is a coordinator already", remedy="choose another --home")
    for folder in ("keys", "tls"):
        (home.root / folder).mkdir(parents=True, exist_ok=True, mode=0o700)
    log_key = new_signing_key()
    write_key(home.root / "keys", "log", log_key)
    ca = new_ca(COORDINATOR_HOST, identity.domain, now)
    write_new(home.root / "tls" / "ca.key", ca.key_pem(), mode=0o600)
    write_new(home.ca_pem, ca.certificate_pem(), mode=0o644)
    coordinator = Coordinator(
        party=identity.party,
        host=identity.host,
        ca_pem=ca.certificate_pem().decode("ascii"),
        dns_names=identity.dns_names,
        log=Role((log_key.verification,), 1),
    )
    descriptor = coordinator_descriptor(coordinator, log_key)
    write_new(home.descriptor, descriptor, mode=0o644)
    if not home.settings.exists():
        write_new(home.settings, settings_text().encode(), mode=0o600)  # a store's URL may hold a password
    document = canonical(
        {
            "party": identity.party,
            "host": identity.host,
            "domain": identity.domain,
            "dns_names": list(identity.dns_names),
        }
    )
    write_new(home.root / "identity.json", document, mode=0o644)  # last: its presence says that the rest is there
    return descriptor


def identity_of(party: str, host: str, domain: str, dns_names: Sequence[str]) -> Identity:
    """Check what a person typed. Raises InvalidInput."""
    if not dns_names:
        raise InvalidInput("a coordinator has at least one DNS name", remedy="pass --dns")
    return Identity(names.party_code(party), names.nation_code(host), names.treaty_domain(domain), tuple(dns_names))


def check_own(home: Home, charter: Charter) -> None:
    """Refuse to serve under a charter of another domain, or that names another coordinator's keys. Raises Corrupt."""
    own = home.identity().domain
    if charter.domain != own:
        raise Corrupt(
            f"the charter is of the domain {charter.domain}, and this coordinator of {own}",
            remedy="draft the charter for the domain of 'foedus-coordinator init'",
        )
    if charter.coordinator.ca_pem.encode("ascii") != home.ca_pem.read_bytes():
        raise Corrupt("the charter names another CA for the coordinator", remedy="serve from the home it was made in")
    if home.log_key().key_id not in {key.key_id for key in charter.coordinator.log.keys}:
        raise Corrupt("the charter names another log key", remedy="serve from the home it was made in")


def _not_initialised(root: Path) -> NotFound:
    return NotFound(f"{root} is not a coordinator's home", remedy="run 'foedus-coordinator init' first")
