"""What is new of open runs, for whoever follows them: each nation's last progress, and a bell that all can hear.

Held in memory only: progress is what an agent says next anyway, and a bell that was missed costs a tick.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from datetime import timedelta

from controlplane.domain.agents import ProgressReport
from treaty.names import PartyCode, RunId


class RunNews:
    """Progress by run and nation; only of runs that are open."""

    def __init__(self) -> None:
        self._progress: dict[RunId, dict[PartyCode, ProgressReport]] = {}
        self._bell = asyncio.Event()

    def open(self, run: RunId) -> None:
        """From now on progress of this run is kept. Idempotent."""
        self._progress.setdefault(run, {})

    def close(self, run: RunId) -> None:
        """Forget the run's progress: it has ended."""
        self._progress.pop(run, None)

    def is_open(self, run: RunId) -> bool:
        return run in self._progress

    def of(self, run: RunId) -> Mapping[PartyCode, ProgressReport]:
        return self._progress.get(run, {})

    def note(self, nation: PartyCode, report: ProgressReport) -> None:
        """Keep a report of an open run; any other is nobody's news."""
        known = self._progress.get(report.run)
        if known is not None:
            known[nation] = report
            self.ring()

    def ring(self) -> None:
        """Wake whoever listens: the event is replaced, so that each of them hears every ring."""
        self._bell.set()
        self._bell = asyncio.Event()

    @property
    def bell(self) -> asyncio.Event:
        """The next ring. Take it before looking, and nothing that happens in between is missed."""
        return self._bell


async def heard(bell: asyncio.Event, within: timedelta) -> None:
    """Return when `bell` was rung, or after the time."""
    with suppress(TimeoutError):
        async with asyncio.timeout(within.total_seconds()):
            await bell.wait()
