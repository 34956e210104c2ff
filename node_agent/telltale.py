"""What a running agent shows its admin: a small document in the journal, read by `foedus-agent status`.

Written every second while something changed and at every tenth second anyway, so that its age says whether the agent
lives. It never crosses the border: it holds texts.
"""

from __future__ import annotations

import asyncio
import os
from dataclasses import asdict, dataclass
from typing import Final

from node_agent.journal import SqliteJournal
from node_agent.ports import Clock, Workers
from node_agent.state import SILENCE_HEARTBEATS, AgentState, Phase
from treaty.errors import FoedusError
from treaty.fields import timestamp_text
from treaty.strict_json import JsonObject

KIND, NAME = "agent", "now"
PERIOD_SECONDS: Final = 1.0
AT_LEAST_EVERY: Final = 10


def told(journal: SqliteJournal) -> JsonObject:
    """What was written last, by whichever process; empty before the first."""
    document = journal.document(KIND, NAME)
    return document.body if document is not None else {}


@dataclass(slots=True)
class Trouble:
    """Why there is no connection, in one line; empty while there is one."""

    code: str = ""
    message: str = ""
    remedy: str = ""

    def note(self, error: FoedusError) -> None:
        self.code, self.message, self.remedy = error.code, error.message, error.remedy

    def clear(self) -> None:
        self.code = self.message = self.remedy = ""


class Telltale:
    """Writes the document until cancelled."""

    def __init__(
        self, state: AgentState, trouble: Trouble, workers: Workers, journal: SqliteJournal, clock: Clock
    ) -> None:
        self._state = state
        self._trouble = trouble
        self._workers = workers
        self._journal = journal
        self._clock = clock
        self.metrics = self.health = ""
        """Where they are served."""

    async def run(self) -> None:
        last: JsonObject = {}
        rounds = 0
        while True:
            now = self._document()
            if now != last or rounds % AT_LEAST_EVERY == 0:
                self._journal.note(KIND, NAME, {**now, "at": timestamp_text(self._clock.now())})
                last = now
            rounds += 1
            await asyncio.sleep(PERIOD_SECONDS)

    def _document(self) -> JsonObject:
        state = self._state
        is_online = state.phase is Phase.ONLINE
        if is_online:
            self._trouble.clear()
        lease = state.heard_at + SILENCE_HEARTBEATS * state.heartbeat if state.heard_at else None
        return {
            "pid": os.getpid(),
            "connection": state.phase,
            "trouble": {**asdict(self._trouble)},
            "lease_until": timestamp_text(lease) if lease and is_online else None,
            "epoch": state.epoch,
            "coordinator_is_behind": state.is_behind,
            "highest_accepted": str(state.highest),
            "open": [f"{number} {directive.subject}" for number, directive in state.open.items()],
            "metrics": self.metrics,
            "health": self.health,
            "conditions": {**self._workers.conditions()},
        }
