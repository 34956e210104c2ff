"""A log that was restored from a backup, made whole from an export of it: all of what it lacks, or nothing."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from controlplane.record import LogFiles
from controlplane.record.restoring import MAX_GROUP, missing, restore
from tests.controlplane.record.builders import KEY, ORIGIN, opened
from treaty import audit, statement
from treaty.audit import Offered
from treaty.errors import BadSignature, ConflictError, FoedusError, PreconditionFailed, TrustError
from treaty.keys import new_signing_key
from treaty.log import Checkpoint, Entry, Tree, leaf_hash, sign_checkpoint
from treaty.statement import StatementKind

REPOSITORY = Path(__file__).resolve().parents[3]
SIGNER = new_signing_key()


def said(number: int) -> Entry:
    """The same entry for the same number within this process."""
    document = statement.document(StatementKind.TALLY, f"n-{number}", {"n": number})
    return Entry(number.to_bytes(32, "little"), statement.sign(document, [SIGNER]))


def exported(entries: Sequence[Entry], *, key: Ed25519PrivateKey = KEY, origin: str = ORIGIN) -> Offered:
    tree = Tree(leaf_hash(entry.data) for entry in entries)
    note = sign_checkpoint(Checkpoint(origin, tree.size, tree.root()), key).note
    shown = [
        audit.Entry(index, leaf_hash(entry.data), entry.salt, entry.statement) for index, entry in enumerate(entries)
    ]
    return Offered(note, shown)


def told(what: str, done: int, total: int) -> None:
    del what, done, total


@pytest.fixture
def all_of_it() -> list[Entry]:
    return [said(number) for number in range(20)]


def behind(tmp_path: Path, entries: Sequence[Entry]) -> LogFiles:
    """A log as the backup has it."""
    log = opened(tmp_path / "log")
    log.append(entries)
    log.publish()
    return log


@pytest.mark.parametrize("size", [0, 1, 13, 19])
def test_what_is_missing_is_appended_and_the_log_is_the_one_that_was_signed(
    tmp_path: Path, all_of_it: list[Entry], size: int
) -> None:
    export, steps = exported(all_of_it), []
    with behind(tmp_path, all_of_it[:size]) as log:
        lacking = missing(log, export, told)
        assert lacking == all_of_it[size:]
        assert log.size == size  # looking writes nothing
        restore(log, lacking, lambda *step: steps.append(step))
        assert log.checkpoint().note == export.note
        assert missing(log, export, told) == []
    assert steps == [("restored", 20 - size, 20 - size)]
    with opened(tmp_path / "log") as again:
        assert [again.entry(index).statement for index in range(20)] == [entry.statement for entry in all_of_it]


def test_nothing_is_missing_from_a_log_that_is_whole(tmp_path: Path, all_of_it: list[Entry]) -> None:
    with behind(tmp_path, all_of_it) as log:
        before = log.checkpoint()
        restore(log, missing(log, exported(all_of_it), told), told)
        assert log.checkpoint() == before


def refused(log: LogFiles, export: Offered, kind: type[FoedusError], line: str) -> None:
    size = log.size
    with pytest.raises(kind, match=line):
        missing(log, export, told)
    assert log.size == size


def test_an_export_that_another_key_or_log_signed_is_refused(tmp_path: Path, all_of_it: list[Entry]) -> None:
    with behind(tmp_path, all_of_it[:5]) as log:
        foreign = Ed25519PrivateKey.generate()
        refused(log, exported(all_of_it, key=foreign), BadSignature, "carries no signature by the key of log")
        refused(log, exported(all_of_it, origin="another/log"), BadSignature, "carries no signature by the key of log")


def test_an_export_that_is_not_whole_or_was_changed_is_refused(tmp_path: Path, all_of_it: list[Entry]) -> None:
    export = exported(all_of_it)
    entries = list(export.entries)
    salt = entries[7].salt
    assert salt is not None
    with behind(tmp_path, all_of_it[:5]) as log:
        refused(log, replace(export, entries=entries[:-1]), TrustError, "covers 20 entries, 19 were shown")
        flipped = replace(entries[7], salt=bytes([salt[0] ^ 1]) + salt[1:])
        changed = [*entries[:7], flipped, *entries[8:]]
        refused(log, replace(export, entries=changed), TrustError, "entry 7 is not what the log committed to")
        bare = replace(entries[7], leaf_hash=bytes(32), salt=None, statement=None)
        changed = [*entries[:7], bare, *entries[8:]]
        refused(log, replace(export, entries=changed), TrustError, "do not give the checkpoint's root")
        swapped = [*entries[:7], entries[8], entries[7], *entries[9:]]
        refused(log, replace(export, entries=swapped), TrustError, "entry 7 is missing, 8 stands there")


def test_an_entry_that_shows_no_statement_cannot_be_restored_unless_it_is_here_already(
    tmp_path: Path, all_of_it: list[Entry]
) -> None:
    export = exported(all_of_it)
    hidden = [replace(entry, salt=None, statement=None) if entry.index in (2, 9) else entry for entry in export.entries]
    with behind(tmp_path, all_of_it[:5]) as log:
        refused(log, replace(export, entries=hidden), PreconditionFailed, "entry 9 of the export shows no statement")
        shown = [*hidden[:9], *export.entries[9:]]
        assert len(missing(log, replace(export, entries=shown), told)) == 15


def test_what_is_no_statement_though_it_was_signed_is_not_restored(tmp_path: Path, all_of_it: list[Entry]) -> None:
    export = exported([*all_of_it, Entry(bytes(32), b"not an envelope")])
    with behind(tmp_path, all_of_it[:5]) as log:
        refused(log, export, TrustError, "entry 20 of the export is not a statement")


def test_a_log_that_went_on_by_itself_is_not_mended(tmp_path: Path, all_of_it: list[Entry]) -> None:
    with behind(tmp_path, [*all_of_it[:5], said(99), said(98)]) as log:
        refused(log, exported(all_of_it), ConflictError, "entry 5 of this record is not the one of the export")


def test_a_shorter_export_adds_nothing_and_is_refused(tmp_path: Path, all_of_it: list[Entry]) -> None:
    with behind(tmp_path, all_of_it) as log:
        refused(log, exported(all_of_it[:5]), ConflictError, "ends at 5 entries, this record holds 20")


STOPS_IN_THE_MIDDLE = """
import sys
from pathlib import Path
from controlplane.cli.log_export import read_export
from controlplane.record.restoring import missing, restore
from tests.controlplane.record.builders import opened

def tell(what, done, total):
    print(done, flush=True)
    sys.stdin.read()

log = opened(Path(sys.argv[1]))
restore(log, missing(log, read_export(Path(sys.argv[2])), lambda *_: None), tell)
"""


def test_a_kill_in_the_middle_leaves_a_beginning_from_which_the_same_call_goes_on(tmp_path: Path) -> None:
    from controlplane.cli.log_export import write_export

    entries = [said(number) for number in range(2 * MAX_GROUP + 10)]
    export = exported(entries)
    write_export(tmp_path / "export", export, force=False)
    behind(tmp_path, entries[:5]).close()
    arguments = [sys.executable, "-c", STOPS_IN_THE_MIDDLE, str(tmp_path / "log"), str(tmp_path / "export")]
    child = subprocess.Popen(arguments, cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdout.readline() == f"{MAX_GROUP}\n"
    child.send_signal(signal.SIGKILL)
    child.communicate(timeout=30)
    with opened(tmp_path / "log") as log:
        assert log.size == 5 + MAX_GROUP
        restore(log, missing(log, export, told), told)
        assert log.checkpoint().note == export.note
