"""A nation's beginnings: its root, its CA, its agent's key and what the root hands on.

The root key lies in a folder of its own that only `init` and `delegate` open; the admin takes it away afterwards. An
agent never reads it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

from node_agent.home import Home, write_atomically
from node_agent.settings import read_settings, settings_text
from treaty import names, statement
from treaty.delegation import AGENT_POWERS, PERSON_POWERS, Delegation, Power, nation_descriptor, parse_delegation
from treaty.errors import ConflictError, FoedusError, InvalidInput, PreconditionFailed
from treaty.fields import timestamp_text
from treaty.keys import (
    SigningKey,
    VerificationKey,
    new_signing_key,
    read_signing_key,
    read_verification_key,
    write_key,
    write_new,
)
from treaty.names import AgentId, Digest, PartyCode
from treaty.statement import StatementKind
from treaty.wire.certificates import BACKDATED, new_ca

ROOT = "root"
AGENT_DAYS = 365
PERSON_DAYS = 365


def init(home: Home, root_dir: Path, *, nation: str, domain: str, agent: str, now: datetime) -> AgentId:
    """Make root, CA, agent key, the agent's delegation, settings and descriptor. Overwrites nothing.

    A root that is already in `root_dir` is used again: a second agent of the same nation.
    Raises: ConflictError: this home has an agent already.
    """
    code = names.nation_code(nation)
    identity = names.agent_id(code, names.treaty_domain(domain), agent)
    if home.settings.exists():
        raise ConflictError(f"{home.root} has an agent already", remedy="choose another --home")
    home.make()
    root = _root(root_dir)
    ca = new_ca(code.lower(), domain, now)
    write_new(home.ca_key, ca.key_pem(), mode=0o600)
    write_new(home.ca, ca.certificate_pem(), mode=0o644)
    key = new_signing_key()
    write_key(home.agent_key.parent, "agent", key)
    delegate_agent(home, root, code, agent, key.verification, now=now, days=AGENT_DAYS)
    descriptor = nation_descriptor(code, [root], 1, ca.certificate_pem().decode("ascii"))
    write_atomically(home.descriptor, descriptor, mode=0o644)
    # Last: a home with settings is a whole one.
    write_atomically(home.settings, settings_text(code, domain, agent).encode())
    return identity


def _root(root_dir: Path) -> SigningKey:
    path = root_dir / f"{ROOT}.key"
    if path.exists():
        return read_signing_key(path)
    root = new_signing_key()
    write_key(root_dir, ROOT, root)
    return root


def read_root(root_dir: Path) -> SigningKey:
    """Raises: NotFound: the root's folder is away, as it should be while nobody delegates."""
    return read_signing_key(root_dir / f"{ROOT}.key")


def delegate_agent(
    home: Home, root: SigningKey, nation: PartyCode, agent: str, key: VerificationKey, *, now: datetime, days: int
) -> Path:
    """Hand receipts, tallies and policy-answered consents to an agent's key."""
    delegation = Delegation(nation, key, AGENT_POWERS, agent, _second(now), _end(now, days))
    return _keep(home, delegation, root)


def delegate_person(
    home: Home, root: SigningKey, public_key: Path, powers: Sequence[str], *, now: datetime, days: int
) -> Path:
    """Hand some of a person's powers to the key in `public_key`."""
    settings = read_settings(home.settings)
    wanted = frozenset(_power(text) for text in powers)
    if not wanted or not wanted <= PERSON_POWERS:
        raise InvalidInput(
            "a person's powers are " + ", ".join(sorted(PERSON_POWERS)), remedy="pass --powers consent,overlay"
        )
    key = read_verification_key(public_key)
    delegation = Delegation(names.nation_code(settings.nation), key, wanted, None, _second(now), _end(now, days))
    return _keep(home, delegation, root)


def _keep(home: Home, delegation: Delegation, root: SigningKey) -> Path:
    path = home.delegations / f"{file_name(Digest(delegation.key.key_id))}.json"
    begun = _begin(delegation.issued_at, _held(path, root))
    envelope = statement.sign(replace(delegation, issued_at=begun).statement(), [root])
    write_atomically(path, envelope, mode=0o644)
    return path


def _held(path: Path, root: SigningKey) -> Delegation | None:
    """The delegation of the same key that this root gave before; None where it gave none."""
    try:
        verified = statement.verify(path.read_bytes(), StatementKind.DELEGATION, [root.verification], 1)
        return parse_delegation(verified.statement)
    except (FileNotFoundError, FoedusError):
        return None  # of another root, or no delegation: nobody counts it


def _begin(now: datetime, held: Delegation | None) -> datetime:
    """Back as far as certificates, so that a clock somewhat behind this one counts a fresh delegation.

    Of two delegations of one key the later begun counts (`controlplane.services.trust`), so it begins after `held`,
    which an earlier version dated by the clock itself.
    Raises: PreconditionFailed (CLOCK_OFF): `held` begins later than now by this clock.
    """
    if held is not None and held.issued_at > now:
        raise PreconditionFailed(
            f"the delegation in force begins at {timestamp_text(held.issued_at)}, and it is {timestamp_text(now)} here",
            code="CLOCK_OFF",
            remedy="set this machine's clock by NTP, then delegate again",
        )
    back = now - BACKDATED
    return back if held is None else max(back, held.issued_at + timedelta(seconds=1))


def file_name(digest: Digest) -> str:
    return digest.removeprefix("sha256:")


def _power(text: str) -> Power:
    try:
        return Power(text)
    except ValueError:
        known = ", ".join(sorted(PERSON_POWERS))
        raise InvalidInput(f"{text[:40]!r} is not a power", remedy=f"known are: {known}") from None


def _second(now: datetime) -> datetime:
    return now.replace(microsecond=0)


def _end(now: datetime, days: int) -> datetime:
    if not 1 <= days <= 3650:
        raise InvalidInput("a delegation lasts 1 to 3650 days")
    return _second(now) + timedelta(days=days)
