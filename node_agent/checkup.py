"""`check`: finds the cause before anything is spent, one thing after the other, from the network up.

settings and keys → proxy variables → name resolution → the mutual TLS port → a TLS server at Reach's → its certificate
is the charter's coordinator's → clocks → the same charter → our certificate → our own policies → the log. The first
that fails usually explains those after it, which are left out where they cannot be asked. What the running agent does
by itself, as following a later charter, is a note.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator

from node_agent import reach, telltale
from node_agent.agent import Foundation
from node_agent.charters import host_of
from node_agent.connections import is_listening, reach_line, shown_certificate
from node_agent.identity import is_charter_current
from node_agent.joining import Finding, check_issuer, check_time, clock_finding, of
from node_agent.logwatch import LogWatch
from node_agent.settings import proxy_environment
from treaty.errors import FoedusError
from treaty.fields import timestamp_text

RESOLVE_SECONDS = 5.0


async def check(base: Foundation) -> AsyncIterator[Finding]:
    """The findings, each as soon as it is known."""
    yield Finding("home", is_good=True, text=f"{base.nation.agent_id}")
    yield _charter(base)
    yield _delegation(base)
    yield _proxies()
    for address in dict.fromkeys((base.membership.coordinator, base.membership.reach)):
        finding = await _resolves(address)
        yield finding
        if not finding.is_good:
            return
    yield await _listens(base.membership.coordinator)
    try:
        shown = await shown_certificate(base.membership.reach)
        check_issuer(shown, base.nation.charter())
    except FoedusError as err:
        yield of("tls", err)
        return
    yield Finding("tls", is_good=True, text="the server is the charter's coordinator")
    try:
        check_time(shown, base.clock.now())
    except FoedusError as err:
        yield of("clock", err)
        return
    try:
        async for finding in _reach(base):
            yield finding
    except FoedusError as err:
        yield of("reach", err)
    yield _enrolment(base)
    yield _log(base)


async def _reach(base: Foundation) -> AsyncIterator[Finding]:
    charter = base.nation.charter()
    async with reach_line(base.membership.reach, charter.coordinator.ca_pem, base.customs) as line:
        greeting = await reach.greet(line)
        yield clock_finding(greeting, base.clock.now())
        if greeting.charter_digest == charter.digest:
            yield Finding("same charter", is_good=True, text=f"version {charter.version} on both sides")
        else:
            yield _another_charter(base, await reach.fetch_charter(line))
        code = await reach.diagnose(line, base.nation.leaf().issued)
        if code == reach.ACCEPTED:
            yield Finding("certificate", is_good=True, text="Reach says that mutual TLS lets this agent in")
        else:
            yield of("certificate", reach.refusal(code, base.nation.agent_id))


def _another_charter(base: Foundation, envelopes: list[bytes]) -> Finding:
    """A later version that follows ours is taken over by the running agent; anything else stands in the way."""
    try:
        latest = base.nation.followed(envelopes, base.membership)[-1]
    except FoedusError as err:
        return of("same charter", err)
    text = f"the coordinator has version {latest.version}, which follows version {base.nation.charter().version} here"
    return Finding("same charter", is_good=True, text=text, remedy="the running agent follows it by itself")


def _enrolment(base: Foundation) -> Finding:
    """What the running agent's policies said at its last attempt to connect."""
    conditions = telltale.told(base.journal).get("conditions")
    found = conditions.get("enrolment") if isinstance(conditions, dict) else None
    if found is None:
        return Finding("enrolment", is_good=True, text="not asked yet: the agent has not run")
    is_good = not str(found).startswith("denied")
    remedy = "" if is_good else "'foedus-agent status' says why; AGT-005 is 'address_ranges' in settings.yaml"
    return Finding("enrolment", is_good=is_good, text=str(found), remedy=remedy)


def _charter(base: Foundation) -> Finding:
    charter = base.nation.charter()
    if is_charter_current(charter, base.clock.now()):
        text = f"{charter.treaty} version {charter.version}, {charter.digest}"
        return Finding("charter", is_good=True, text=text)
    text = f"version {charter.version} expired at {timestamp_text(charter.expires_at)}"
    return Finding("charter", is_good=False, text=text, remedy="the founders sign a new version")


def _delegation(base: Foundation) -> Finding:
    own = [found for found in base.nation.delegations() if found.key.key_id == base.nation.key.key_id]
    if own:
        return Finding("delegation", is_good=True, text=f"until {timestamp_text(own[0].expires_at)}")
    return Finding(
        "delegation",
        is_good=False,
        text="this agent's key is not delegated",
        remedy="run 'foedus-agent delegate agent'",
    )


def _proxies() -> Finding:
    found = proxy_environment()
    if not found:
        return Finding("proxy", is_good=True, text="no proxy variables are set")
    shown = ", ".join(sorted(found))
    return Finding("proxy", is_good=True, text=f"set, and followed by gRPC: {shown}")


async def _resolves(address: str) -> Finding:
    host, port = host_of(address), int(address.rpartition(":")[2])
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(RESOLVE_SECONDS):
            found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, TimeoutError):
        return Finding("name", is_good=False, text=f"{host} does not resolve", remedy="check DNS, or /etc/hosts")
    return Finding("name", is_good=True, text=f"{host} is {found[0][4][0]}")


async def _listens(address: str) -> Finding:
    """The port that `run` dials; Reach answers at another one."""
    if await is_listening(address):
        return Finding("coordinator", is_good=True, text=f"{address} accepts connections")
    text = f"nothing answers at {address}, the mutual TLS port"
    return Finding("coordinator", is_good=False, text=text, remedy="check --coordinator of 'join', and firewalls")


def _log(base: Foundation) -> Finding:
    watch = LogWatch(base.journal, base.nation)
    if watch.alarm:
        return Finding("log", is_good=False, text=watch.alarm, remedy="run 'foedus-agent log verify'")
    last = watch.last()
    return Finding("log", is_good=True, text=f"{last.size} entries seen" if last else "nothing seen yet")
