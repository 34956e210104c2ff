"""Who this agent is: the nation's charter entry, its delegations, the agent's own key, and certificates from its CA.

The agent issues its own short leaves from the nation's CA, so that no outage of the coordinator strands it; `leaf`
hands out one until half of its life is over and then makes another. Delegations are verified against the charter at
every call: one that has ended stops counting by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import structlog

from node_agent import charters
from node_agent.charters import Membership
from node_agent.home import Home
from node_agent.ports import Clock
from node_agent.settings import Settings
from treaty.charter import Charter
from treaty.delegation import Delegation, parse_descriptor, verify_delegation
from treaty.errors import FoedusError, NotFound, TrustError
from treaty.files import about, read_file
from treaty.keys import SigningKey, read_signing_key
from treaty.names import AgentId, PartyCode, agent_id, nation_code
from treaty.policy.decider import nanoseconds
from treaty.policy.questions import ObservedCertificate, ObservedSubject
from treaty.wire.certificates import Issued, certificate_digest, issue_client, load_issued

if TYPE_CHECKING:
    from treaty.charter import Nation as CharterNation

log = structlog.get_logger(__name__)

MAX_DELEGATIONS = 64


@dataclass(frozen=True, slots=True)
class Leaf:
    """A certificate of the agent and when to take the next."""

    issued: Issued
    renew_at: datetime


class NationIdentity:
    """`ports.Nation`, read from the home at start."""

    def __init__(self, home: Home, settings: Settings, versions: Sequence[Charter], clock: Clock) -> None:
        self._home = home
        self._settings = settings
        self._versions = list(versions)
        self._clock = clock
        self._key = read_signing_key(home.agent_key)
        self._ca = read_ca(home)
        self._leaf: Leaf | None = None

    @property
    def code(self) -> PartyCode:
        return nation_code(self._settings.nation)

    @property
    def agent_id(self) -> AgentId:
        return agent_id(self.code, self._settings.domain, self._settings.agent)

    @property
    def key(self) -> SigningKey:
        return self._key

    def charter(self) -> Charter:
        return self._versions[-1]

    def delegations(self) -> Sequence[Delegation]:
        return [delegation for delegation, _ in self._verified()]

    def delegation_envelopes(self) -> list[bytes]:
        """What a hello shows, current ones only."""
        return [envelope for _, envelope in self._verified()][:MAX_DELEGATIONS]

    def _verified(self) -> list[tuple[Delegation, bytes]]:
        found = []
        for path in sorted(self._home.delegations.glob("*.json")):
            envelope = path.read_bytes()
            try:
                delegation = verify_delegation(self.charter(), envelope, self._clock.now())
            except FoedusError as err:
                log.debug("delegation not counted", file=path.name, code=err.code)
                continue
            if delegation.nation == self.code:
                found.append((delegation, envelope))
        return found

    def leaf(self) -> Leaf:
        """The certificate to show now; a new one from half of the last one's life on."""
        now = self._clock.now()
        if self._leaf is None or now >= self._leaf.renew_at:
            lifetime = timedelta(seconds=self._settings.certificate_lifetime_seconds)
            self._leaf = Leaf(issue_client(self._ca, self.agent_id, now, lifetime), now + lifetime / 2)
        return self._leaf

    def shown(self) -> ObservedSubject:
        """What the certificate to show now says, as policies are asked about it."""
        certificate = self.leaf().issued.certificate
        return ObservedSubject(
            spiffe=str(self.agent_id),
            cert=ObservedCertificate(
                root=certificate_digest(self._ca.certificate),
                serial=format(certificate.serial_number, "x"),
                not_after_ns=nanoseconds(certificate.not_valid_after_utc),
            ),
        )

    def follow(self, envelopes: Sequence[bytes], membership: Membership) -> bool:
        """Believe and keep what follows our charter among `envelopes`. True if there was something new."""
        versions = self.followed(envelopes, membership)
        if versions[-1].digest == self.charter().digest:
            return False
        charters.store(self._home, envelopes, versions)
        self._versions = list(versions)
        return True

    def followed(self, envelopes: Sequence[bytes], membership: Membership) -> Sequence[Charter]:
        """The versions from the pinned one on, ours among them; keeps nothing. Raises: TrustError: ours is not."""
        versions = charters.believe(envelopes, membership.pinned, self._clock.now())
        if versions[-1].version < self.charter().version:
            raise TrustError("the coordinator shows an older charter than the one in force", code="ROLLBACK_REFUSED")
        held = [charter.digest for charter in self._versions]
        if [charter.digest for charter in versions[: len(held)]] != held:
            raise TrustError(
                "the coordinator shows a charter that parted from the one in force",
                code="CHARTER_FORKED",
                remedy="compare charters with the other nations, by another channel",
            )
        check_settings(self._settings, versions[-1])
        charters.check_own_entry(versions[-1], own_entry(self._home))
        return versions


def load_identity(home: Home, settings: Settings, membership: Membership, clock: Clock) -> NationIdentity:
    """Verify everything in the home that says who we are.

    Raises: NotFound: not joined. TrustError: the charter is not for us, or not the pinned one.
    """
    envelopes = charters.stored(home)
    if not envelopes:
        raise NotFound("this agent holds no charter", remedy="run 'foedus-agent join' first")
    with about(home.charters):
        versions = charters.believe(envelopes, membership.pinned, _lenient(envelopes, clock))
    check_settings(settings, versions[-1])
    charters.check_own_entry(versions[-1], own_entry(home))
    return NationIdentity(home, settings, versions, clock)


def _lenient(envelopes: Sequence[bytes], clock: Clock) -> datetime:
    """An expired charter does not stop an agent from starting (it serves on); `is_charter_current` says the rest."""
    from treaty import statement
    from treaty.charter import parse_charter

    last = parse_charter(statement.unverified(envelopes[-1]).predicate)
    return min(clock.now(), last.expires_at - timedelta(seconds=1))


def is_charter_current(charter: Charter, now: datetime) -> bool:
    """An expired charter anchors nothing new."""
    return now < charter.expires_at


def own_entry(home: Home) -> CharterNation:
    """What this nation offered the founders."""
    with about(home.descriptor):
        entry = parse_descriptor(read_file(home.descriptor, "descriptor")).nation
    if entry is None:
        raise TrustError("descriptor.json is not a nation's", remedy="run 'foedus-agent init' again elsewhere")
    return entry


def check_settings(settings: Settings, charter: Charter) -> None:
    if settings.domain != charter.domain:
        raise TrustError(
            f"this agent was made for the treaty domain {settings.domain}, the charter is for {charter.domain}",
            remedy="run 'foedus-agent init' with the charter's domain",
        )


def read_ca(home: Home) -> Issued:
    try:
        with about(home.ca.parent):
            return load_issued(home.ca_key.read_bytes(), home.ca.read_bytes())
    except FileNotFoundError as err:
        raise NotFound("the nation's CA is not in this home", remedy="run 'foedus-agent init' first") from err
