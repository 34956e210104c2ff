"""A record on an auditor's disk: the checkpoint seen last, and an export that is verified without the coordinator.

DIR/checkpoint      the signed note, as C2SP tlog-checkpoint has it
DIR/entries.jsonl   a line an entry: index, leaf_hash (hex), salt and statement (base64; absent where forgotten)
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable
from pathlib import Path
from typing import Final

from controlplane.cli.files import write_file
from treaty.audit import Entry, Offered, known_checkpoint
from treaty.charter import Charter
from treaty.errors import ConflictError, InvalidInput
from treaty.fields import Fields
from treaty.files import about, read_file
from treaty.log import Checkpoint
from treaty.log.checkpoint import MAX_NOTE_BYTES
from treaty.statement import MAX_ENVELOPE_BYTES
from treaty.strict_json import JsonObject, parse_object

CHECKPOINT: Final = "checkpoint"
ENTRIES: Final = "entries.jsonl"
MAX_LINE_BYTES: Final = MAX_ENVELOPE_BYTES * 2
MAX_EXPORT_BYTES: Final = 8 * 2**30


def _silent(what: str, done: int, total: int) -> None:
    del what, done, total


def read_state(path: Path | None, charter: Charter) -> Checkpoint | None:
    """The checkpoint kept in `path`; None where nothing was kept yet. Raises: BadSignature: not the log's."""
    if path is None or not path.exists():
        return None
    with about(path):
        return known_checkpoint(read_file(path, "checkpoint", MAX_NOTE_BYTES), charter)


def write_state(path: Path, note: bytes) -> None:
    write_file(path, note, force=True)


def write_export(directory: Path, offered: Offered, *, force: bool) -> None:
    if (directory / ENTRIES).exists() and not force:
        raise ConflictError(f"{directory} holds an export already", remedy="choose another folder, or pass --force")
    lines = [json.dumps(_line(entry), sort_keys=True) for entry in offered.entries]
    write_file(directory / ENTRIES, "".join(f"{line}\n" for line in lines).encode("ascii"), force=True)
    write_file(directory / CHECKPOINT, offered.note, force=True)


def read_export(directory: Path, tell: Callable[[str, int, int], None] = _silent) -> Offered:
    """What `write_export` wrote. Its proof is its leaves. Raises: NotFound, InvalidInput.

    `tell` hears what is done, how far it is, and of how many.
    """
    note = read_file(directory / CHECKPOINT, "checkpoint", MAX_NOTE_BYTES)
    lines = read_file(directory / ENTRIES, "export", MAX_EXPORT_BYTES).splitlines()
    entries: list[Entry] = []
    for number, line in enumerate(lines, start=1):
        with about(f"{directory / ENTRIES}, line {number}"):
            entries.append(_entry(line))
        tell("read", len(entries), len(lines))
    return Offered(note, entries)


def _line(entry: Entry) -> JsonObject:
    line: JsonObject = {"index": entry.index, "leaf_hash": entry.leaf_hash.hex()}
    if entry.salt is not None and entry.statement is not None:
        line["salt"] = base64.b64encode(entry.salt).decode("ascii")
        line["statement"] = base64.b64encode(entry.statement).decode("ascii")
    return line


def _entry(line: bytes) -> Entry:
    fields = Fields(parse_object(line, max_bytes=MAX_LINE_BYTES), "an entry of the export")
    index, leaf = fields.integer("index"), fields.text("leaf_hash", 64)
    salt, said = fields.optional_text("salt", 64), fields.optional_text("statement", MAX_LINE_BYTES)
    fields.done()
    try:
        return Entry(index, bytes.fromhex(leaf), _decoded(salt), _decoded(said))
    except (ValueError, binascii.Error) as err:
        raise InvalidInput("an entry of the export is not hexadecimal and base64") from err


def _decoded(text: str | None) -> bytes | None:
    return None if text is None else base64.b64decode(text, validate=True)
