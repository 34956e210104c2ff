"""Puts back what a log lost to a restore, from a copy of all of it that somebody exported.

The copy is believed for the log's own signature alone, and only as a whole:
1. its checkpoint is signed by this log's key, for this log's origin;
2. every leaf below it is there, shows what it commits to, and all together give the signed root;
3. this log is a prefix of it: one that went on by itself after the restore has parted from what was signed, and no
   append mends that;
4. each missing entry shows salt and statement: without both, its leaf cannot be written again.

Nothing is written before all of it holds. Then the entries are appended in groups, each durable before the next, so a
process that is killed leaves a shorter prefix of the same log, and the same call goes on from there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from controlplane.record.log_files import MAX_GROUP_BYTES, LogFiles
from treaty import audit, statement
from treaty.audit import Offered
from treaty.errors import ConflictError, InvalidInput, PreconditionFailed, TrustError
from treaty.log import Entry, Tree, verify_checkpoint

MAX_GROUP = 256

Tell = Callable[[str, int, int], None]
"""What is being done, how far it is, of how many."""


def missing(log: LogFiles, offered: Offered, tell: Tell) -> list[Entry]:
    """The entries that `offered` has and `log` lacks, in order; empty where it lacks none. Writes nothing.

    Raises: BadSignature, TrustError, InvalidInput: it is no whole copy of this log (1, 2). ConflictError: the log
    parted from it (3), or holds more. PreconditionFailed: it does not show what is missing (4).
    """
    checkpoint = verify_checkpoint(offered.note, log.origin, log.public_key)  # 1
    tree = audit.verified_tree(offered.entries, checkpoint)  # 2
    if log.size > checkpoint.size:
        raise ConflictError(
            f"the export ends at {checkpoint.size} entries, this record holds {log.size}",
            remedy="take a newer export, or recover without --record",
        )
    _check_prefix(log, tree)  # 3
    found: list[Entry] = []
    for entry in offered.entries[log.size :]:
        found.append(_restorable(entry))  # 4
        tell("verified", entry.index + 1, checkpoint.size)
    return found


def restore(log: LogFiles, entries: Sequence[Entry], tell: Tell) -> None:
    """Append what `missing` found, and sign a checkpoint of it. Raises as `LogFiles.append`."""
    done = 0
    for group in _groups(entries):
        log.append(group)
        done += len(group)
        tell("restored", done, len(entries))
    log.publish()


def _check_prefix(log: LogFiles, tree: Tree) -> None:
    if tree.root(log.size) == log.root(log.size):
        return
    same, differs = 0, log.size  # the first `same` entries are the same, the first `differs` are not
    while differs - same > 1:
        middle = (same + differs) // 2
        same, differs = (middle, differs) if tree.root(middle) == log.root(middle) else (same, middle)
    raise ConflictError(
        f"entry {same} of this record is not the one of the export: the log went on by itself after the restore",
        remedy="restore the backup again, unserved; or the founders name a new log key in a new charter version",
    )


def _restorable(entry: audit.Entry) -> Entry:
    if entry.salt is None or entry.statement is None:
        raise PreconditionFailed(
            f"entry {entry.index} of the export shows no statement",
            remedy="take an export that an auditor or operator made before it was forgotten",
        )
    try:
        statement.unverified(entry.statement)
    except InvalidInput as err:
        raise TrustError(f"entry {entry.index} of the export is not a statement", code="LOG_LEAF") from err
    return Entry(entry.salt, entry.statement)


def _groups(entries: Sequence[Entry]) -> Iterator[list[Entry]]:
    group: list[Entry] = []
    size = 0
    for entry in entries:
        if group and (len(group) == MAX_GROUP or size + len(entry.statement) > MAX_GROUP_BYTES):
            yield group
            group, size = [], 0
        group.append(entry)
        size += len(entry.statement)
    if group:
        yield group
