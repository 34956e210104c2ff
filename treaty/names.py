"""The names of things: parties, agents, digests, model versions, runs, directive numbers.

Each has one spelling, one parser and one reason to be refused; everything that arrives from outside is parsed here
once and trusted as a type afterwards. A SPIFFE id names a role inside one trust domain per nation
(`spiffe://fr.<treaty-domain>/agent/par-1`), because X.509 URI name constraints see the host only.

This module holds no keys and checks no signature.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from enum import StrEnum
from functools import total_ordering
from typing import NewType

from treaty.errors import InvalidInput

PartyCode = NewType("PartyCode", str)
"""ISO 3166-1 alpha-2 for a nation (`FR`), or the code of a body in the charter (`EU`, `NATO`). Upper case."""

Digest = NewType("Digest", str)
"""`sha256:` and 64 lower-case hexadecimal digits."""

KeyId = NewType("KeyId", str)
"""Digest of a public key's SubjectPublicKeyInfo: `sha256:…`. Persons are known by it on the wire."""

RunId = NewType("RunId", str)
ModelRef = NewType("ModelRef", str)
"""`name@version`, for example `smollm2-135m@1.0.0`."""

ResourceName = NewType("ResourceName", str)
"""A DNS label, as Kubernetes names are: lower case, digits, `-` and `.`, at most 63 characters."""

_PARTY = re.compile(r"[A-Z]{2,8}\Z")
_NATION = re.compile(r"[A-Z]{2}\Z")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}\Z")
_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?\Z")
_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\Z")
_DOMAIN = re.compile(r"([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z]{2,63}\Z")
_VERSION = re.compile(r"(0|[1-9]\d{0,8})\.(0|[1-9]\d{0,8})\.(0|[1-9]\d{0,8})(-[0-9a-z][0-9a-z.-]{0,31})?\Z")


def _matched(pattern: re.Pattern[str], text: str, what: str) -> str:
    if not isinstance(text, str) or not pattern.match(text):
        shown = (
            text if isinstance(text, str) and len(text) <= 80 and text.isprintable() else "<unprintable or too long>"
        )
        raise InvalidInput(f"{shown!r} is not {what}")
    return text


def party_code(text: str) -> PartyCode:
    return PartyCode(_matched(_PARTY, text, "a party code (upper case, e.g. FR or NATO)"))


def nation_code(text: str) -> PartyCode:
    return PartyCode(_matched(_NATION, text, "a nation code (ISO 3166-1 alpha-2, upper case, e.g. FR)"))


def digest(text: str) -> Digest:
    return Digest(_matched(_DIGEST, text, "a digest (sha256: and 64 lower-case hex digits)"))


def key_id(text: str) -> KeyId:
    return KeyId(_matched(_DIGEST, text, "a key id (sha256: and 64 lower-case hex digits)"))


def resource_name(text: str) -> ResourceName:
    return ResourceName(_matched(_NAME, text, "a resource name (a-z, 0-9, '-', '.', at most 63 characters)"))


def run_id(text: str) -> RunId:
    return RunId(resource_name(text))


def treaty_domain(text: str) -> str:
    return _matched(_DOMAIN, text, "a treaty domain (a lower-case DNS name)")


def semantic_version(text: str) -> str:
    return _matched(_VERSION, text, "a version (MAJOR.MINOR.PATCH, optionally -prerelease)")


def model_ref(text: str) -> ModelRef:
    name, at, version = text.partition("@") if isinstance(text, str) else ("", "", "")
    if not at:
        raise InvalidInput(f"{text!r} is not a model reference (name@1.2.3)")
    return ModelRef(f"{resource_name(name)}@{semantic_version(version)}")


def digest_of(data: bytes) -> Digest:
    """SHA-256 of `data` as a `Digest`."""
    return Digest("sha256:" + hashlib.sha256(data).hexdigest())


class SpiffeRole(StrEnum):
    AGENT = "agent"
    OPERATOR = "operator"
    PUBLISHER = "publisher"
    AUDITOR = "auditor"
    COORDINATOR = "coordinator"


COORDINATOR_HOST = "coordinator"
"""First label of the coordinator's trust domain. No nation can take it: nation labels have two letters."""


@dataclass(frozen=True, slots=True)
class SpiffeId:
    """Who holds a certificate: `spiffe://<authority>.<treaty-domain>/<role>/<name>`.

    `authority` is a nation code in lower case, or `coordinator`.
    Source: SPIFFE-ID section 2; narrower: exact host, one role, one name, no escapes, no query, no port.
    """

    authority: str
    domain: str
    role: SpiffeRole
    name: str

    def __str__(self) -> str:
        return f"spiffe://{self.authority}.{self.domain}/{self.role}/{self.name}"

    @property
    def nation(self) -> PartyCode:
        """The nation that an agent speaks for. Raises InvalidInput for anyone else."""
        if self.role is not SpiffeRole.AGENT:
            raise InvalidInput(f"{self} is not an agent")
        return PartyCode(self.authority.upper())


AgentId = SpiffeId
"""An agent is named by its SPIFFE id everywhere; its role is `agent`."""


def spiffe_id(text: str, domain: str) -> SpiffeId:
    """Parse `text` strictly within treaty domain `domain`; no normalisation is attempted.

    Raises: InvalidInput: any deviation, upper case and a trailing dot included.
    """
    prefix = "spiffe://"
    parts = text[len(prefix) :].split("/") if isinstance(text, str) and text.startswith(prefix) else []
    suffix = f".{domain}"
    if len(parts) != 3 or len(text) > 255 or not parts[0].endswith(suffix):
        raise InvalidInput("the certificate's SPIFFE id is not of this treaty's domain")
    authority = parts[0][: -len(suffix)]
    try:
        role = SpiffeRole(parts[1])
    except ValueError:
        raise InvalidInput("the certificate's SPIFFE id has an unknown role") from None
    name = _matched(_LABEL, parts[2], "a SPIFFE name")
    is_agent = role is SpiffeRole.AGENT
    expected = re.fullmatch(r"[a-z]{2}", authority) if is_agent else authority == COORDINATOR_HOST
    if not expected:
        raise InvalidInput("the certificate's SPIFFE id names an authority that may not hold this role")
    return SpiffeId(authority, domain, role, name)


def agent_id(nation: PartyCode, domain: str, name: str) -> AgentId:
    return SpiffeId(nation.lower(), domain, SpiffeRole.AGENT, _matched(_LABEL, name, "an agent name"))


NUMBER_END = 2**53
"""First integer that canonical JSON does not carry; a number at or beyond it could be accepted but never reported."""


@total_ordering
@dataclass(frozen=True, slots=True)
class DirectiveNumber:
    """Order of what a coordinator directs: (epoch, counter), compared lexicographically.

    `epoch` grows when a coordinator is recovered from a backup, `counter` with every directive to one agent.
    """

    epoch: int
    counter: int

    def __post_init__(self) -> None:
        if not (0 <= self.epoch < NUMBER_END and 0 <= self.counter < NUMBER_END):
            raise InvalidInput("a directive number is a pair of integers in [0, 2^53)")

    def __lt__(self, other: DirectiveNumber) -> bool:
        return (self.epoch, self.counter) < (other.epoch, other.counter)

    def __str__(self) -> str:
        return f"{self.epoch}.{self.counter}"
