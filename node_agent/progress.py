"""Live progress on its way out: the first word at once, and then the newest of each run, once in a while.

Progress is lossy and the latest wins, so what was overtaken before its turn is never said.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from node_agent.ports import ProgressReport
from treaty.names import RunId

SPACING_SECONDS: Final = 0.25
"""No person reads faster; a round of many short stages does not become as many messages."""

Later = Callable[[float, Callable[[], None]], object]
"""Calls back on the loop after so many seconds."""


def on_the_loop(seconds: float, call: Callable[[], None]) -> object:
    """`Later` of the running event loop."""
    return asyncio.get_running_loop().call_later(seconds, call)


class ProgressLine:
    """Says reports by `say`, spaced. Lives on the event loop."""

    def __init__(self, say: Callable[[ProgressReport], None], later: Later = on_the_loop) -> None:
        self._say = say
        self._later = later
        self._newest: dict[RunId, ProgressReport] = {}
        self._is_spaced = False

    def tell(self, report: ProgressReport) -> None:
        """Say it now, or when its turn comes, unless a newer one of its run is there by then."""
        self._newest[report.run] = report
        if not self._is_spaced:
            self._say_newest()

    def _say_newest(self) -> None:
        newest, self._newest = self._newest, {}
        self._is_spaced = bool(newest)
        for report in newest.values():
            self._say(report)
        if newest:
            self._later(SPACING_SECONDS, self._say_newest)
