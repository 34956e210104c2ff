"""The one thread on which the coordinator's log is checked.

Checks block on the journal and keep between them what was asked on the live stream, so they run one after the other, in
the order in which they were handed in. One whose stream has ended is finished before the next stream's first begins:
what it still notes is of its own stream, and is forgotten with it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


class LogThread:
    """Open until `aclose`."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="log")

    async def run(self, check: Callable[[], T]) -> T:
        """What `check` finds, off the loop. Whoever is cancelled leaves a check that has begun to its end."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, check)

    async def aclose(self) -> None:
        """Take no more checks; does not wait for the one that runs."""
        self._thread.shutdown(wait=False, cancel_futures=True)
