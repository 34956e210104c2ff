"""Which bytes of a segment are whole records, and is what follows them a torn tail or damage?

A segment is a header and records. Byte for byte, big-endian:

    segment  magic 16 | marker 8 | first index u64 | crc32 of these u32
    record   marker 8 | body length u32 | index u64 | group u64 | leaf data 32 | crc32 of these u32
    body     crc32 of the rest u32 | kind u8 | salt 32 | statement

`marker` is random and stays on this disk, so no statement can be written that looks like a record. `group` is the index
of the first record written by the same group commit: a group starts only after the one before it is durable. The head
of a record never changes; a forgotten one has kind 2 and 0xff in place of salt and statement.

The rules of recovery, for bytes that are no whole record:

1. A whole record of a later group behind them: they were durable once. Damage.
2. The segment ends inside them, or a 512-byte sector among them (or what they have of one) is all zeros: a write that
   a crash cut short, never acknowledged. A torn tail.
3. Anything else: damage. Better to stop than to drop a record that somebody was promised.

This module opens no file; that a torn tail did not cut off something signed is checked in `log_files`.
"""

from __future__ import annotations

import os
import struct
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from zlib import crc32

from treaty.errors import Corrupt, TrustError
from treaty.log import HASH_BYTES, MAX_STATEMENT_BYTES, SALT_BYTES, Entry, Leaf, verify_leaf

MAGIC = b"foedus record 1\n"
MARKER_BYTES = 8
KEPT, FORGOTTEN = 1, 2
_SECTOR_BYTES = 512

_SEGMENT = struct.Struct(f">16s{MARKER_BYTES}sQ")
_RECORD = struct.Struct(f">{MARKER_BYTES}sIQQ{HASH_BYTES}s")
_CRC = struct.Struct(">I")
SEGMENT_HEADER_BYTES = _SEGMENT.size + _CRC.size
RECORD_HEAD_BYTES = _RECORD.size + _CRC.size
_BODY_MIN_BYTES = _CRC.size + 1 + SALT_BYTES + 1
_BODY_MAX_BYTES = _CRC.size + 1 + SALT_BYTES + MAX_STATEMENT_BYTES


@dataclass(frozen=True, slots=True)
class Head:
    """The part of a record that never changes."""

    body_bytes: int
    index: int
    group: int
    data: bytes

    @property
    def record_bytes(self) -> int:
        return RECORD_HEAD_BYTES + self.body_bytes


@dataclass(slots=True)
class Scan:
    """The whole records of a segment: where each starts, its leaf data, and where the last one ends."""

    offsets: array[int] = field(default_factory=lambda: array("Q"))
    leaves: list[bytes] = field(default_factory=list)
    end: int = SEGMENT_HEADER_BYTES


def _sealed(fields: bytes) -> bytes:
    return fields + _CRC.pack(crc32(fields))


def new_marker() -> bytes:
    """Random, and without a zero byte: a record must not begin like an unwritten sector."""
    return os.urandom(MARKER_BYTES).replace(b"\x00", b"\x01")


def segment_header(marker: bytes, first_index: int) -> bytes:
    return _sealed(_SEGMENT.pack(MAGIC, marker, first_index))


def read_segment_header(content: bytes) -> tuple[bytes, int]:
    """Marker and first index. Raises Corrupt unless this is the header of a segment."""
    header = content[:SEGMENT_HEADER_BYTES]
    if len(header) < SEGMENT_HEADER_BYTES or _sealed(header[: _SEGMENT.size]) != header or not header.startswith(MAGIC):
        raise Corrupt("a segment of the log has no valid header")
    _, marker, first_index = _SEGMENT.unpack_from(header)
    return marker, first_index


def encode_group(marker: bytes, first_index: int, entries: Sequence[Entry]) -> tuple[bytes, list[int], list[bytes]]:
    """The records of one group commit as bytes, the length of each record and its leaf data."""
    parts: list[bytes] = []
    lengths: list[int] = []
    leaves: list[bytes] = []
    for index, entry in enumerate(entries, first_index):
        data = entry.data
        body = _body(KEPT, entry.salt, entry.statement)
        parts += (_sealed(_RECORD.pack(marker, len(body), index, first_index, data)), body)
        lengths.append(RECORD_HEAD_BYTES + len(body))
        leaves.append(data)
    return b"".join(parts), lengths, leaves


def forgotten_body(body_bytes: int) -> bytes:
    """What takes the place of a body of this length. Not zeros: those would read as a torn write."""
    return _body(FORGOTTEN, b"\xff" * SALT_BYTES, b"\xff" * (body_bytes - _CRC.size - 1 - SALT_BYTES))


def _body(kind: int, salt: bytes, statement: bytes) -> bytes:
    sealed = bytes([kind]) + salt + statement
    return _CRC.pack(crc32(sealed)) + sealed


def read_head(content: bytes, at: int, marker: bytes) -> Head | None:
    """The head of the record at `at`, or None where there is no whole one."""
    fields = content[at : at + _RECORD.size]
    if content[at : at + RECORD_HEAD_BYTES] != _sealed(fields) or len(fields) < _RECORD.size:
        return None
    found, body_bytes, index, group, data = _RECORD.unpack(fields)
    if found != marker or not _BODY_MIN_BYTES <= body_bytes <= _BODY_MAX_BYTES:
        return None
    return Head(body_bytes, index, group, data)


def is_whole_body(body: bytes, head: Head) -> bool:
    return len(body) == head.body_bytes and _CRC.pack(crc32(memoryview(body)[_CRC.size :])) == body[: _CRC.size]


def read_leaf(record: bytes, marker: bytes, index: int) -> Leaf:
    """The leaf in the bytes of one record. Raises Corrupt unless they are whole and are leaf `index`."""
    head = read_head(record, 0, marker)
    body = record[RECORD_HEAD_BYTES:]
    if head is None or head.index != index or not is_whole_body(body, head):
        raise Corrupt(f"leaf {index} of the log does not read back as it was written")
    kind, salt, statement = body[_CRC.size], body[_CRC.size + 1 :][:SALT_BYTES], body[_CRC.size + 1 + SALT_BYTES :]
    if kind == FORGOTTEN:
        return Leaf(index, head.data, None, None)
    leaf = Leaf(index, head.data, salt, statement)
    try:
        verify_leaf(leaf)
    except TrustError as err:
        raise Corrupt(f"leaf {index} of the log holds another statement than was recorded") from err
    return leaf


def scan(content: bytes, first_index: int, marker: bytes, *, unfinished: int | None = None) -> Scan:
    """Read whole records from the start until the first bytes that are none, or that are out of order.

    Args:
        unfinished: a leaf whose forgetting was begun; its body may be half overwritten and is not checked.
    """
    found = Scan()
    index, group = first_index, first_index
    while found.end < len(content):
        head = read_head(content, found.end, marker)
        if head is None or head.index != index or not group <= head.group <= index:
            break
        body = content[found.end + RECORD_HEAD_BYTES : found.end + head.record_bytes]
        if not is_whole_body(body, head) and not (index == unfinished and len(body) == head.body_bytes):
            break
        found.offsets.append(found.end)
        found.leaves.append(head.data)
        found.end += head.record_bytes
        index, group = index + 1, head.group
    return found


def check_torn(content: bytes, at: int, next_index: int, marker: bytes) -> None:
    """Accept the bytes from `at` on as a write that a crash cut short. Raises Corrupt where they are damage."""
    head = read_head(content, at, marker)
    if head is not None and at + head.record_bytes > len(content):
        return  # 2: it ends inside this record, so nothing can be behind it
    search = at + (head.record_bytes if head is not None else 1)
    while (search := content.find(marker, search)) >= 0:
        later = read_head(content, search, marker)
        if later is not None and later.group > next_index:  # 1
            raise Corrupt(
                f"leaf {next_index} of the log is damaged and later ones are not",
                remedy="restore the log from a copy",
            )
        search += later.record_bytes if later is not None else 1
    if len(content) - at < RECORD_HEAD_BYTES or _has_unwritten_sector(content, at):  # 2
        return
    raise Corrupt(f"leaf {next_index} of the log is damaged", remedy="restore the log from a copy")  # 3


def _has_unwritten_sector(content: bytes, at: int) -> bool:
    while at < len(content):
        end = (at // _SECTOR_BYTES + 1) * _SECTOR_BYTES
        if not any(content[at:end]):
            return True
        at = end
    return False
