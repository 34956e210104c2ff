"""How many trainers work at once on one machine, across agents that know nothing of each other.

Five trainers on two cores, each with all threads, did not finish in minutes what they finish in one minute when they
take turns. A slot is an exclusive flock on one of N files in a shared folder; the kernel frees it when its holder dies,
however it dies. N is cores ÷ threads a trainer; agents of one machine must be given the same folder.

No order is kept between waiters: each tries at its own random moments, within the caller's deadline.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from treaty.errors import Unavailable

# Short against a round of seconds, long against the cost of a try (microseconds).
_RETRY_SECONDS = (0.05, 0.25)


@dataclass(frozen=True, slots=True)
class TrainerSlots:
    """The machine's slots. `folder` is shared by its agents; `count` must be the same for all."""

    folder: Path
    count: int

    @asynccontextmanager
    async def hold(self, *, timeout_seconds: float) -> AsyncIterator[int]:
        """Wait for a slot and keep it while the block runs; its number is given.

        Raises: Unavailable (TRAINER_BUSY): none became free in time.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            async with asyncio.timeout(timeout_seconds):
                number, handle = await self._acquire()
        except TimeoutError:
            raise Unavailable("no trainer slot became free in time", code="TRAINER_BUSY") from None
        try:
            yield number
        finally:
            os.close(handle)

    async def _acquire(self) -> tuple[int, int]:
        while True:
            for number in range(self.count):
                handle = os.open(self.folder / f"trainer-{number}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    os.close(handle)
                else:
                    return number, handle
            await asyncio.sleep(random.uniform(*_RETRY_SECONDS))  # noqa: S311 - spreads waiters, guards nothing


def default_slots(threads: int) -> TrainerSlots:
    """Cores ÷ threads, at least one, in the user's runtime folder."""
    cores = len(os.sched_getaffinity(0))
    return TrainerSlots(Path(f"/tmp/foedus-slots-{os.getuid()}"), max(1, cores // threads))  # noqa: S108
