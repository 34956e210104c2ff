"""Says what happens while it happens: one line per step with the seconds since the start, and lines below it.

Nothing is kept back until the end of a step, so a reader of a pipe sees progress too. The seconds of each step are kept
for the report's timeline.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final, TextIO

INDENT: Final = " " * 11
MAX_LINE_CHARS: Final = 160


@dataclass(frozen=True, slots=True)
class Told:
    """One step: when it began and ended, in seconds since the start."""

    title: str
    began: float
    ended: float


@dataclass(slots=True)
class Telling:
    """Writes to `out`; safe from several threads."""

    out: TextIO = field(default_factory=lambda: sys.stdout)
    steps: list[Told] = field(default_factory=list)
    _start: float = field(default_factory=time.monotonic)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def elapsed(self) -> float:
        return time.monotonic() - self._start

    @contextmanager
    def step(self, title: str) -> Iterator[None]:
        """Name a step before its work begins, and keep how long it took."""
        began = self.elapsed
        self._write(f"[{began:6.1f} s] {title}")
        try:
            yield
        finally:
            self.steps.append(Told(title, began, self.elapsed))

    def say(self, line: str) -> None:
        """A line below the current step."""
        for part in line.rstrip().splitlines():
            self._write(f"{INDENT}{part}"[:MAX_LINE_CHARS])

    def seconds(self) -> dict[str, float]:
        """How long each step took, by title, and the whole."""
        taken: dict[str, float] = {}
        for told in self.steps:
            taken[told.title] = round(taken.get(told.title, 0.0) + told.ended - told.began, 1)
        return {**taken, "total": round(self.elapsed, 1)}

    def _write(self, line: str) -> None:
        with self._lock:
            self.out.write(line + "\n")
            self.out.flush()
