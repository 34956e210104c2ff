"""May this agent speak for its nation? `agent.enrol`, asked at home before every connect, on what is seen here.

Rules:
1. observed are the certificate that is about to be shown, this program's version and the address from which the
   operating system would call; nothing of it comes from the coordinator;
2. a no keeps the agent from connecting, and ends the stream whose certificate would be renewed; `status` and `check`
   show its codes, and the agent asks again at every attempt;
3. as long as no treaty policy and no overlay are in force, or one of them is outside its validity, there is nothing to
   ask. The agent connects then, and only to receive the treaty's policy: everything else that it could be directed to
   do is decided by the same engine, and without a policy in force that is a no;
4. a yes holds for five minutes as long as nothing that it rests on changed, so that a coordinator that is away does not
   fill the decision log.
"""

from __future__ import annotations

import asyncio
import socket
from datetime import datetime, timedelta
from typing import Final

from node_agent.decisions import Decisions
from node_agent.ports import Core
from treaty.errors import PolicyDenied, Unavailable
from treaty.policy import asks
from treaty.policy.questions import Observed, ObservedSubject

ALLOWED: Final = "allowed"
NOTHING_TO_ASK: Final = "not asked: treaty policy and overlay are not both in force"
REUSED_FOR: Final = timedelta(minutes=5)
RESOLVE_SECONDS: Final = 5.0
_OUT_OF_VALIDITY: Final = ("ENG-006",)
_REMEDIES: Final = {
    "AGT-003": "set this machine's clock by NTP",
    "AGT-004": "this agent, its certificate or the nation's CA was revoked here: enrol another",
    "AGT-005": "name the range of this agent's address in 'address_ranges' of settings.yaml, and start it again",
    "AGT-006": "install the agent version that the treaty asks for",
}


class Enrolment:
    """Asks before each connect."""

    def __init__(self, core: Core, decisions: Decisions) -> None:
        self._core = core
        self._decisions = decisions
        self._yes: tuple[datetime, object] | None = None
        self.state = NOTHING_TO_ASK
        """For `status`: allowed, denied with the codes, or why nothing was asked."""

    async def require(self, subject: ObservedSubject, *, are_both_in_force: bool) -> None:
        """Let the agent connect. Raises: PolicyDenied, with the codes: it may not."""
        if not are_both_in_force:
            self.state, self._yes = NOTHING_TO_ASK, None
            return
        await self._decisions.refresh()
        now, basis = self._core.clock.now(), (subject, self._decisions.basis)
        if self._yes is not None and self._yes[1] == basis and now - self._yes[0] < REUSED_FOR:
            return
        self._yes = None
        agent = self._core.nation.agent_id
        decision = await self._decisions.decide(asks.agent_enrol(agent), Observed(subject=subject))
        if decision.codes == _OUT_OF_VALIDITY:
            self.state = NOTHING_TO_ASK
            return
        if not decision.is_allowed:
            codes = ", ".join(decision.codes)
            self.state = f"denied ({codes})"
            raise PolicyDenied(
                f"the policies in force here do not let {agent} connect ({codes})",
                codes=decision.codes,
                remedy=next((_REMEDIES[code] for code in decision.codes if code in _REMEDIES), "see 'status'"),
            )
        self.state, self._yes = ALLOWED, (now, basis)


async def local_address(host: str, port: int) -> str:
    """The address from which the operating system would call `host`. Sends nothing.

    Raises: Unavailable: the name does not resolve, or there is no route.
    """
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(RESOLVE_SECONDS):
            found = await loop.getaddrinfo(host, port, type=socket.SOCK_DGRAM)
        for family, kind, protocol, _, address in found:
            with socket.socket(family, kind, protocol) as probe:
                try:
                    probe.connect(address)  # of UDP: chooses a route and our address, nothing more
                except OSError:
                    continue
                return str(probe.getsockname()[0]).partition("%")[0]
    except (OSError, TimeoutError) as err:
        raise Unavailable(f"{host} does not resolve", remedy="check DNS, or /etc/hosts") from err
    raise Unavailable(f"there is no route to {host}", remedy="check the network")
