"""A small treaty for tests: keys, CAs and a charter of two nations and one body."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from types import MappingProxyType

from treaty import charter as charters
from treaty import statement
from treaty.charter import Charter, Role
from treaty.delegation import AGENT_POWERS, Delegation, Power
from treaty.keys import SigningKey, new_signing_key
from treaty.names import PartyCode
from treaty.wire.certificates import Issued, new_ca

DOMAIN = "treaty.example"
NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
NATIONS = (PartyCode("FR"), PartyCode("DE"))


@dataclass
class CharterBuilder:
    """Fresh keys at each construction. CAs are dated from the real clock, since TLS reads it."""

    nations: tuple[PartyCode, ...] = NATIONS
    issued_at: datetime = NOW
    founders: list[SigningKey] = field(default_factory=lambda: [new_signing_key() for _ in range(3)])
    publishers: list[SigningKey] = field(default_factory=lambda: [new_signing_key() for _ in range(3)])
    policy: list[SigningKey] = field(default_factory=lambda: [new_signing_key() for _ in range(2)])
    log_key: SigningKey = field(default_factory=new_signing_key)
    roots: dict[PartyCode, SigningKey] = field(default_factory=dict)
    cas: dict[PartyCode, Issued] = field(default_factory=dict)
    coordinator_ca: Issued = field(init=False)

    def __post_init__(self) -> None:
        since = min(self.issued_at, datetime.now(UTC))
        self.coordinator_ca = new_ca("coordinator", DOMAIN, since)
        for code in self.nations:
            self.roots[code] = new_signing_key()
            self.cas[code] = new_ca(code.lower(), DOMAIN, since)

    def charter(self, version: int = 1) -> Charter:
        def role(keys: list[SigningKey], threshold: int) -> Role:
            return Role(tuple(key.verification for key in keys), threshold)

        return Charter(
            version=version,
            treaty="test-treaty",
            domain=DOMAIN,
            issued_at=self.issued_at,
            expires_at=max(self.issued_at, datetime.now(UTC)).replace(microsecond=0) + timedelta(days=365),
            founders=role(self.founders, 2),
            publishers=role(self.publishers, 2),
            treaty_policy=role(self.policy, 1),
            coordinator=charters.Coordinator(
                PartyCode("EU"),
                PartyCode("BE"),
                self.coordinator_ca.certificate_pem().decode(),
                ("localhost",),
                role([self.log_key], 1),
            ),
            nations=MappingProxyType(
                {
                    code: charters.Nation(code, role([self.roots[code]], 1), self.cas[code].certificate_pem().decode())
                    for code in self.nations
                }
            ),
            bodies=MappingProxyType({PartyCode("EU"): charters.Body(PartyCode("EU"), PartyCode("BE"), self.nations)}),
        )

    def signed(self, charter: Charter | None = None, signers: int = 2) -> bytes:
        return statement.sign((charter or self.charter()).statement(), self.founders[:signers])

    def agent_delegation(self, nation: PartyCode, agent: str, key: SigningKey) -> bytes:
        return self._delegate(nation, key, AGENT_POWERS, agent)

    def person_delegation(self, nation: PartyCode, key: SigningKey, *powers: Power) -> bytes:
        return self._delegate(nation, key, frozenset(powers or (Power.CONSENT,)), None)

    def _delegate(self, nation: PartyCode, key: SigningKey, powers: frozenset[Power], agent: str | None) -> bytes:
        until = max(self.issued_at, datetime.now(UTC)).replace(microsecond=0) + timedelta(days=90)
        delegation = Delegation(nation, key.verification, powers, agent, self.issued_at, until)
        return statement.sign(delegation.statement(), [self.roots[nation]])
