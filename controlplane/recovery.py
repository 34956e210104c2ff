"""Lets a coordinator that was restored from a backup direct again: its record made whole first, then a higher epoch.

Order: the export is verified against this coordinator's own log; the coordinator is halted, in case it was not yet, so
that one that is killed from here on and served as it is directs nothing; the missing entries are appended; charter
versions and revocations among them are put in force again, since the store lost those too; the epoch is taken. Doing it
again after a kill goes on where it stopped.

What lived in the store alone (models, rollouts, runs, policy bundles) is not in the record and does not come back.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from controlplane.core import Core, opened
from controlplane.home import Home, check_own
from controlplane.record.restoring import Tell
from treaty import statement
from treaty.audit import Offered
from treaty.charter import parse_charter
from treaty.revocation import parse_revocation
from treaty.statement import StatementKind

RESTORING = "the record is being restored from an export"


@dataclass(frozen=True, slots=True)
class Recovered:
    """`was_halted_because` is empty where the coordinator was not halted."""

    epoch: int
    was_halted_because: str
    restored_entries: int = 0
    put_in_force: tuple[str, ...] = ()
    """Charter versions and revoked subjects of the export that the store had lost."""


async def recover(home: Home, *, epoch: int, reason: str, export: Offered | None, tell: Tell) -> Recovered:
    """Make the record whole from `export`, if there is one, and take `epoch` (0: the next).

    Raises: as `controlplane.core.opened` and `controlplane.record.restoring`: nothing changed. What is refused after
        that (a charter of another coordinator) leaves it halted, and the same command goes on from there.
    """
    async with opened(home) as core:
        before = await core.store.epochs.current()
        restored, again = await _restore(core, export, tell) if export is not None else (0, ())
        taken = await core.store.epochs.take(epoch or before.number + 1, reason)
        await core.fleet.load()
    because = "" if before.halted_because == RESTORING else before.halted_because
    return Recovered(taken.number, because, restored, again)


async def _restore(core: Core, export: Offered, tell: Tell) -> tuple[int, tuple[str, ...]]:
    missing = await asyncio.to_thread(core.record.missing, export, tell)
    if missing and not await core.fleet.is_halted():
        await core.store.epochs.halt(RESTORING)
    await asyncio.to_thread(core.record.restore, missing, tell)
    # All of it, not the missing alone: a process that was killed may have appended and got no further.
    shown = [entry.statement for entry in export.entries if entry.statement is not None]
    again = [what for envelope in shown if (what := await _put_in_force(core, envelope))]
    return len(missing), tuple(again)


async def _put_in_force(core: Core, envelope: bytes) -> str:
    """Let a recorded charter version or revocation bite again; what it was, empty for what the store still knows."""
    said = statement.unverified(envelope)
    match said.kind:
        case StatementKind.CHARTER if parse_charter(said.predicate).version > core.trust.charter.version:
            recorded = parse_charter(said.predicate)
            check_own(core.home, recorded)
            await core.trust.publish(envelope, judged_at=recorded.issued_at)  # it may have expired since
            return f"charter {core.trust.charter.version}"
        case StatementKind.REVOCATION if (word := parse_revocation(said)).subject not in core.trust.revoked:
            await core.nations.recall_revocation(envelope)
            # Not so for the CA of an earlier charter: nobody can show a certificate of it.
            return word.subject if word.subject in core.trust.revoked else ""
        case _:
            return ""
