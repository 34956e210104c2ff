"""How the coordinator and a run's worker talk: length-prefixed canonical JSON over the worker's standard pipes.

One order, one answer, in turn. An answer is `{"ok": …}` or `{"error": {"code", "message"}}`. Arrays, updates and sums
go by file, so a frame is small, and a frame larger than the bound ends the worker.
"""

from __future__ import annotations

from typing import Final

from treaty.errors import LimitExceeded
from treaty.strict_json import JsonObject, canonical, parse_object

LENGTH_BYTES: Final = 4
MAX_FRAME_BYTES: Final = 8 * 1024 * 1024


def encode(document: JsonObject) -> bytes:
    data = canonical(document)
    if len(data) > MAX_FRAME_BYTES:
        raise LimitExceeded(f"a frame of {len(data)} bytes for the run's worker")
    return len(data).to_bytes(LENGTH_BYTES, "little") + data


def frame_length(prefix: bytes) -> int:
    """Raises: LimitExceeded: more than a frame may have."""
    length = int.from_bytes(prefix, "little")
    if length > MAX_FRAME_BYTES:
        raise LimitExceeded(f"a frame of {length} bytes from the run's worker")
    return length


def decode(data: bytes) -> JsonObject:
    return parse_object(data, max_bytes=MAX_FRAME_BYTES, max_depth=24)
