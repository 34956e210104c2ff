"""Services that follow the fleet: one that fails keeps no other from hearing, and what was submitted is told again."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from controlplane.services.listeners import Listeners, SilentListener
from tests.builders.charters import DOMAIN
from treaty.errors import ConflictError, FoedusError, InvalidInput, ResourceExhausted, Unavailable
from treaty.names import AgentId, Digest, PartyCode, agent_id, digest_of

PAR = agent_id(PartyCode("FR"), DOMAIN, "par-1")
SAID = digest_of(b"said")


@dataclass
class Failing(SilentListener):
    failure: FoedusError

    async def submitted(self, agent: AgentId, envelope: bytes, digest: Digest, log_index: int) -> None:
        raise self.failure

    async def connected(self, agent: AgentId) -> None:
        raise self.failure


@dataclass
class Hearing(SilentListener):
    heard: list[str] = field(default_factory=list)

    async def submitted(self, agent: AgentId, envelope: bytes, digest: Digest, log_index: int) -> None:
        self.heard.append(digest)

    async def connected(self, agent: AgentId) -> None:
        self.heard.append(str(agent))


@pytest.mark.parametrize("failure", [Unavailable("full"), ConflictError("moved"), ResourceExhausted("full")])
async def test_a_statement_that_a_service_could_not_take_now_is_not_done_with(failure: FoedusError) -> None:
    hearing = Hearing()
    with pytest.raises(Unavailable, match=f"what follows from {SAID} was not done") as refused:
        await Listeners([Failing(failure), hearing]).submitted(PAR, b"", SAID, 7)
    assert refused.value.code == "NOT_CARRIED_OUT"
    assert hearing.heard == [SAID]


async def test_a_statement_that_no_service_will_ever_take_is_done_with() -> None:
    hearing = Hearing()
    await Listeners([Failing(InvalidInput("too long a name")), hearing]).submitted(PAR, b"", SAID, 7)
    assert hearing.heard == [SAID]


async def test_news_that_a_service_missed_are_passed_over() -> None:
    hearing = Hearing()
    await Listeners([Failing(Unavailable("full")), hearing]).connected(PAR)
    assert hearing.heard == [str(PAR)]
