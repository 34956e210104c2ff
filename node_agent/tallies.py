"""Signs the account of everything that left and needs no receipt of its own, at intervals, on request and at the end.

A tally is written before it is submitted and waits in the outbox like any statement. A request is a fact in the journal
that `foedus-agent receipts --tally` writes.
"""

from __future__ import annotations

import asyncio

from node_agent.border import GrpcBorder
from node_agent.crossings import Since
from node_agent.journal import SqliteJournal
from node_agent.ports import Nation
from treaty.receipt import Tally, sign_tally

REQUEST = "tally_requested"


class TallyKeeper:
    def __init__(self, journal: SqliteJournal, border: GrpcBorder, nation: Nation, period_seconds: int) -> None:
        self._journal = journal
        self._border = border
        self._nation = nation
        self._period_seconds = period_seconds

    async def run(self) -> None:
        """Until cancelled."""
        asked, generation = self._journal.fact(REQUEST), self._journal.generation
        while True:
            try:
                async with asyncio.timeout(self._period_seconds):
                    while self._journal.fact(REQUEST) == asked:
                        generation = await self._journal.changed(generation)
            except TimeoutError:
                pass
            asked = self._journal.fact(REQUEST)
            self.sign()

    def sign(self) -> None:
        """Close the account now and leave the tally in the outbox; nothing where nothing left."""
        envelope = self._journal.crossings.tally(self._signed)
        if envelope is not None:
            self._border.submit_later(envelope)

    def _signed(self, since: Since) -> bytes:
        nation, agent = self._nation.code, self._nation.agent_id.name
        tally = Tally(nation, agent, since.sequence, since.since, since.until, since.classes)
        return sign_tally(tally, self._nation.key)
