"""How often may something be done because the coordinator says so? A bucket of tokens, filled by the clock."""

from __future__ import annotations

from node_agent.ports import Clock


class Pace:
    """`per_second` in the long run, `burst` at once."""

    def __init__(self, clock: Clock, per_second: int, *, burst: int) -> None:
        self._clock = clock
        self._per_second = per_second
        self._burst = burst
        self._left = float(burst)
        self._filled_at = clock.now()

    def take(self) -> bool:
        """Whether it may be done once more now. A clock that is set back fills nothing."""
        now = self._clock.now()
        passed = max((now - self._filled_at).total_seconds(), 0.0)
        self._left = min(self._left + passed * self._per_second, float(self._burst))
        self._filled_at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True
