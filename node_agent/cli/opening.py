"""Opens an agent's home for one command and closes it again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from node_agent.agent import Foundation
    from node_agent.home import Home
    from node_agent.journal import SqliteJournal


@contextmanager
def opened_journal(home: Home) -> Iterator[SqliteJournal]:
    """The journal alone: also before the agent has joined."""
    from node_agent.agent import SystemClock
    from node_agent.journal import SqliteJournal

    home.require()
    journal = SqliteJournal(home.journal, SystemClock())
    try:
        yield journal
    finally:
        journal.close()


@contextmanager
def opened(home: Home) -> Iterator[Foundation]:
    """Everything of an agent that has joined, verified. Raises: PreconditionFailed: it has not."""
    from node_agent.agent import SystemClock, lay

    base = lay(home, SystemClock())
    try:
        yield base
    finally:
        base.close()
