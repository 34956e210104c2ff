"""What crosses the pipes between the agent and its child: one header, then the arrays that it names.

    u32 header length │ u32 body length │ header: canonical JSON │ body: float32 little endian, arrays in header order

`{"type": "delta", "fields": {…integers, texts…}, "arrays": [["name", [rows, columns]], …]}`. Rules:
1. both lengths are checked against the reader's limits before anything is allocated;
2. the header is strict JSON (`treaty.strict_json`) of exactly those three members;
3. names are unique, shapes bounded, and the body is exactly as long as the shapes say.

Both ends use this file; the child imports no asyncio, so reading takes a function that returns exact bytes. Whether
the names, shapes and fields are the ones that were asked for is `replies`' question, not this one's.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import IO

import numpy as np
from numpy.typing import NDArray

from treaty.errors import InvalidInput, LimitExceeded
from treaty.fields import Fields
from treaty.strict_json import JsonObject, JsonValue, canonical, parse

Arrays = dict[str, NDArray[np.float32]]

PREFIX = struct.Struct("<II")
MAX_NAME_CHARS = 256
MAX_ARRAYS = 20_000
MAX_DIMENSIONS = 4


@dataclass(frozen=True, slots=True)
class Limits:
    """What one frame may take, stated by its reader."""

    header_bytes: int = 4 * 2**20
    """An r=64 adapter on every layer of a 400-layer model names 5,600 arrays: about 500 kB."""
    body_bytes: int = 2**30


DEFAULT_LIMITS = Limits()


@dataclass(frozen=True, slots=True)
class Frame:
    """One message. `fields` holds JSON values; `arrays` float32 arrays by name, in order."""

    type: str
    fields: JsonObject = field(default_factory=dict)
    arrays: Arrays = field(default_factory=dict)


def encode(frame: Frame) -> list[bytes | memoryview]:
    """The frame's bytes in pieces, so that arrays are not copied twice."""
    arrays = {name: np.ascontiguousarray(value, dtype="<f4") for name, value in frame.arrays.items()}
    named: list[JsonValue] = [[name, list(value.shape)] for name, value in arrays.items()]
    header = canonical({"type": frame.type, "fields": frame.fields, "arrays": named})
    body = [value.data.cast("B") for value in arrays.values() if value.size]
    return [PREFIX.pack(len(header), sum(map(len, body))), header, *body]


def lengths(prefix: bytes, limits: Limits) -> tuple[int, int]:
    """Header and body length from a frame's first eight bytes, refused when beyond `limits`."""
    header, body = PREFIX.unpack(prefix)
    if header > limits.header_bytes or body > limits.body_bytes:
        raise LimitExceeded(f"a frame claims {header} + {body} bytes", code="FRAME_TOO_LARGE")
    return int(header), int(body)


def decode(header: bytes, body: bytes | bytearray, limits: Limits) -> Frame:
    """Parse a frame whose lengths were checked. Raises InvalidInput (`FRAME_MALFORMED`) for any deviation."""
    try:
        given = Fields(parse(header, max_bytes=limits.header_bytes, max_depth=6), "frame")
        kind = given.text("type", 64)
        members = given.value("fields")
        named = given.list_of("arrays", _named_shape, max_items=MAX_ARRAYS)
        given.done()
    except InvalidInput as err:
        raise InvalidInput("a frame's header is malformed", code="FRAME_MALFORMED") from err
    if not isinstance(members, dict) or len({name for name, _ in named}) != len(named):
        raise InvalidInput("a frame's header is malformed", code="FRAME_MALFORMED")
    return Frame(kind, members, dict(_split(named, body)))


def _named_shape(value: JsonValue) -> tuple[str, tuple[int, ...]]:
    match value:
        case [str(name), list(sizes)] if 0 < len(name) <= MAX_NAME_CHARS and len(sizes) <= MAX_DIMENSIONS:
            shape = tuple(size for size in sizes if isinstance(size, int) and not isinstance(size, bool))
            if len(shape) == len(sizes) and all(0 <= size < 2**31 for size in shape):
                return name, shape
    raise InvalidInput("an array's name or shape is malformed")


def _split(
    named: Iterable[tuple[str, tuple[int, ...]]], body: bytes | bytearray
) -> Iterable[tuple[str, NDArray[np.float32]]]:
    flat = np.frombuffer(body, dtype="<f4") if len(body) % 4 == 0 else None
    sizes = [(name, shape, math.prod(shape)) for name, shape in named]
    if flat is None or sum(size for _, _, size in sizes) != flat.size:
        raise InvalidInput("a frame's body is not as long as its shapes say", code="FRAME_MALFORMED")
    start = 0
    for name, shape, size in sizes:
        yield name, flat[start : start + size].reshape(shape).astype(np.float32)
        start += size


class PipeEnd:
    """One end of the two pipes: blocking, so the agent uses it from a thread and the child needs no event loop."""

    def __init__(self, incoming: IO[bytes], outgoing: IO[bytes]) -> None:
        self._incoming = incoming
        self._outgoing = outgoing

    def receive(self, limits: Limits = DEFAULT_LIMITS) -> Frame | None:
        """The next frame, or None once the other side closed the pipe between two frames.

        Raises: EOFError: it closed in the middle of one. InvalidInput: the frame is malformed or beyond the limits.
        """
        prefix = self._incoming.read(PREFIX.size)
        if not prefix:
            return None
        if len(prefix) < PREFIX.size:
            raise EOFError
        header, body = lengths(prefix, limits)
        return decode(self._exactly(header), self._exactly(body), limits)

    def send(self, frame: Frame) -> None:
        for piece in encode(frame):
            self._outgoing.write(piece)
        self._outgoing.flush()

    def _exactly(self, count: int) -> bytes:
        data = self._incoming.read(count)
        if len(data) < count:
            raise EOFError
        return data

    def close(self) -> None:
        """Let both pipes go. What a dead reader left unread is lost, which is meant."""
        for stream in (self._incoming, self._outgoing):
            with suppress(OSError):
                stream.close()
