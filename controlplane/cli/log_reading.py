"""The whole record, read from the coordinator: a checkpoint and every entry below it. Nothing is believed here."""

from __future__ import annotations

from typing import Final

from controlplane.cli.client import Client
from controlplane.cli.terminal import say
from treaty.audit import Entry, Offered
from treaty.errors import InvalidInput, RollbackRefused, TrustError
from treaty.log.checkpoint import MAX_SIZE

BATCH: Final = 1000
BEYOND: Final = "LOG_BEYOND"
"""What a coordinator answers whose log is shorter than the one that was seen."""


async def read_log(client: Client, from_size: int) -> Offered:
    """The newest checkpoint, its proof from `from_size`, and all entries below it.

    Raises: RollbackRefused: the log is shorter than it was. TrustError: the coordinator stops short of its checkpoint.
    """
    try:
        note, proof = await client.checkpoint(from_size)
    except InvalidInput as err:
        if err.code != BEYOND:
            raise
        raise RollbackRefused(f"the log has fewer than the {from_size} entries that were seen before") from err
    size = claimed_size(note)
    entries: list[Entry] = []
    while len(entries) < size:
        before = len(entries)
        async for entry in client.log_entries(before, min(before + BATCH, size)):
            is_shown = bool(entry.salt or entry.statement)
            shown = (entry.salt, entry.statement) if is_shown else (None, None)
            entries.append(Entry(entry.index, entry.leaf_hash, *shown))
        if len(entries) == before:
            raise TrustError(f"the log ends at {before} of the {size} entries it signed", code="LOG_INCOMPLETE")
        if size > BATCH:
            say(f"read {len(entries)} of {size} entries")
    return Offered(note, entries, proof)


def claimed_size(note: bytes) -> int:
    """The size that a note claims: how much to read, before its signature is checked with all the rest."""
    lines = note.split(b"\n", 2)
    digits = lines[1] if len(lines) == 3 else b""
    if not digits.isdigit() or len(digits) > 19 or int(digits) > MAX_SIZE:
        raise InvalidInput("the coordinator's checkpoint has no size")
    return int(digits)
