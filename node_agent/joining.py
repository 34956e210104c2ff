"""How an agent comes to believe a charter and a coordinator: `join`, step by step, each refusal with its cause.

1. take the certificate that Reach shows, unverified, and fetch the charter over it: public bytes, believed for nothing;
   where this machine's clock lies outside the certificate's validity, no TLS library would go on: say so first;
2. hold the charter against the digest that the admin pinned, and follow its later versions;
3. the certificate from step 1 must be issued by the coordinator's CA in that charter; another one means that somebody
   sits in between (TLS inspection);
4. the charter's entry for this nation must be our own root and CA;
5. only now keep the charter and the addresses;
6. connect by mutual TLS; where that is refused, ask Reach why.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from datetime import datetime

from cryptography.exceptions import InvalidSignature

from node_agent import charters, messages, reach
from node_agent.agent import Foundation, diagnosis
from node_agent.charters import Membership
from node_agent.connections import is_listening, reach_line, shown_certificate
from node_agent.customs import Customs
from node_agent.home import Home
from node_agent.identity import check_settings, own_entry
from node_agent.logwatch import LogWatch
from node_agent.ports import Clock
from node_agent.settings import read_settings
from treaty.charter import Charter
from treaty.errors import FoedusError, PermissionRefused, PreconditionFailed, TrustError, Unavailable
from treaty.fields import timestamp_text
from treaty.version import version
from treaty.wire.certificates import load_certificate


async def learn(home: Home, membership: Membership, customs: Customs, clock: Clock) -> Charter:
    """Steps 1 to 5. Raises: TrustError and what is below it; Unavailable: Reach does not answer."""
    settings = read_settings(home.settings)
    shown = await _shown(membership)  # 1
    check_time(shown, clock.now())
    envelopes = await _offered(membership, shown, customs)
    versions = charters.believe(envelopes, membership.pinned, clock.now())  # 2
    check_issuer(shown, versions[-1])  # 3
    check_settings(settings, versions[-1])
    charters.check_own_entry(versions[-1], own_entry(home))  # 4
    charters.store(home, envelopes, versions)  # 5
    charters.write_membership(home, membership)
    return versions[-1]


async def _shown(membership: Membership) -> str:
    """What Reach shows. Raises: Unavailable, saying which of the two ports does not answer."""
    try:
        return await shown_certificate(membership.reach)
    except Unavailable as err:
        does = "accepts connections" if await is_listening(membership.coordinator) else "does not answer either"
        raise Unavailable(
            f"{err.message}; {membership.coordinator}, the mutual TLS port, {does}", remedy=err.remedy
        ) from err


async def _offered(membership: Membership, shown: str, customs: Customs) -> list[bytes]:
    try:
        async with reach_line(membership.reach, shown, customs) as line:
            return await reach.fetch_charter(line)
    except Unavailable as err:
        raise Unavailable(
            f"{membership.reach} speaks TLS, and does not answer as Reach",
            remedy="is it the mutual TLS port? that one is --coordinator, and --reach is the other",
        ) from err


def check_issuer(shown_pem: str, charter: Charter) -> None:
    """Raises: TrustError with code TLS_INSPECTION: the certificate is not of the charter's coordinator."""
    ca = load_certificate(charter.coordinator.ca_pem.encode("ascii"))
    try:
        load_certificate(shown_pem.encode("ascii", "replace")).verify_directly_issued_by(ca)
    except (InvalidSignature, ValueError, TypeError) as err:
        raise TrustError(
            "the certificate shown is not of the charter's coordinator: something between here and there opens TLS",
            code="TLS_INSPECTION",
            remedy="exempt the coordinator's address from TLS inspection",
        ) from err


def check_time(shown_pem: str, now: datetime) -> None:
    """Raises: PreconditionFailed with code CLOCK_OFF: for this machine's clock the certificate is not valid now."""
    shown = load_certificate(shown_pem.encode("ascii", "replace"))
    since, until = shown.not_valid_before_utc, shown.not_valid_after_utc
    if not since <= now < until:
        raise PreconditionFailed(
            f"this machine's clock shows {timestamp_text(now.replace(microsecond=0))}, and the coordinator's "
            f"certificate is valid from {timestamp_text(since)} to {timestamp_text(until)}",
            code="CLOCK_OFF",
            remedy="set both clocks by NTP",
        )


async def try_connection(base: Foundation) -> FoedusError | None:
    """Step 6: say hello once and leave. Returns: why it was refused, or None."""
    journal = base.journal
    nonce = secrets.token_bytes(32)
    hello = messages.hello(
        nonce=nonce,
        version=version(),
        charter_digest=base.nation.charter().digest,
        highest=journal.ledger.highest(),
        open_numbers=[directive.number for directive in journal.ledger.open()],
        checkpoint=LogWatch(journal, base.nation).last(),
        note=LogWatch(journal, base.nation).kept_note(),
        treaty_revision=0,
        delegations=base.nation.delegation_envelopes(),
        status_sequence=1,
    )
    try:
        async with base.connections.session() as stream:
            await stream.send(hello)
            first = await stream.receive()
    except Unavailable as err:
        return await diagnosis(base) or err
    except (PermissionRefused, TrustError) as err:
        return reach.explained(err, base.nation.agent_id)
    if first is None or first.WhichOneof("body") != "welcome" or first.welcome.nonce != nonce:
        return TrustError("the coordinator's first message does not welcome this hello", code="NO_WELCOME")
    return None


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of `check`: what was looked at, whether it holds, and what to do where it does not.

    One that is good and says something all the same is a note: nothing stands in the way.
    """

    name: str
    is_good: bool
    text: str
    remedy: str = ""

    @property
    def result(self) -> str:
        return "FAIL" if not self.is_good else "note" if self.remedy else "ok"


def of(name: str, error: FoedusError) -> Finding:
    return Finding(name, is_good=False, text=error.message, remedy=error.remedy)


def clock_finding(greeting: reach.Greeting, now: datetime) -> Finding:
    ahead = reach.skew(greeting, now)
    seconds = round(ahead.total_seconds())
    if abs(ahead) <= reach.MAX_SKEW:
        return Finding("clock", is_good=True, text=f"{abs(seconds)} s apart")
    side = "behind" if seconds > 0 else "ahead of"
    text = f"this machine's clock is {abs(seconds)} s {side} the coordinator's"
    return Finding("clock", is_good=False, text=text, remedy="set both clocks by NTP")
