"""How fast one stream is read: a bucket of messages that refills.

A peer that is faster is not refused but read later; its own flow control then makes it wait.
"""

from __future__ import annotations

from typing import Final

BURST_MESSAGES: Final = 200
"""An agent that returns says at once what it stored meanwhile: answers, receipts, a full status."""
MESSAGES_PER_SECOND: Final = 50
"""A busy agent says a few a second: heartbeats, progress and acknowledgements."""


class Pace:
    """The bucket of one stream, full at first."""

    def __init__(self) -> None:
        self._tokens = float(BURST_MESSAGES)
        self._since: float | None = None

    def delay(self, now: float) -> float:
        """Spend one message at `now` (seconds of a steady clock); the seconds to wait before the next is read."""
        passed = 0.0 if self._since is None else max(0.0, now - self._since)
        self._since = now
        self._tokens = min(float(BURST_MESSAGES), self._tokens + passed * MESSAGES_PER_SECOND) - 1
        return max(0.0, -self._tokens / MESSAGES_PER_SECOND)
