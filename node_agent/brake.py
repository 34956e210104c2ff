"""The brake: an admin's word that nothing trains and nothing leaves, now, whoever is reachable.

It is a fact in the journal, so the CLI needs no agent and no coordinator to pull it; `is_on` reads it every time.
`watch` notices a change within 200 ms and is what makes those who wait for it move.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from node_agent.journal import SqliteJournal


class JournalBrake:
    """`ports.Brake`."""

    def __init__(self, journal: SqliteJournal) -> None:
        self._journal = journal
        self._pulled = asyncio.Event()

    @property
    def is_on(self) -> bool:
        return self._journal.is_brake_on()

    async def pulled(self) -> None:
        if self.is_on:
            return
        await self._pulled.wait()

    async def watch(self, moved: Callable[[bool], Awaitable[None]]) -> None:
        """Tell `moved` how the brake stands now, and whenever that changes. Runs until cancelled."""
        generation, last = self._journal.generation, False
        while True:
            is_on = self.is_on
            if is_on != last:
                last = is_on
                if is_on:
                    self._pulled.set()
                else:
                    self._pulled.clear()
                await moved(is_on)
            generation = await self._journal.changed(generation)
