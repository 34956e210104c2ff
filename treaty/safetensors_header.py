"""What a safetensors file says about itself, believed only when every byte of the file is accounted for.

Rules, checked before anything is allocated for a tensor:
1. eight bytes, little endian: the header's length, at most 16 MiB and within the file;
2. the header is a JSON object without a repeated key (the reference reader takes the last of two);
3. each tensor has a known dtype, a bounded shape and offsets whose width is exactly dtype times shape;
4. the tensors, in the order of their offsets, fill the rest of the file with neither hole nor overlap.

Source: the safetensors format description, section "Format". Values (NaN, Inf) are not looked at here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from treaty.errors import InvalidInput, LimitExceeded
from treaty.fields import Fields
from treaty.strict_json import JsonValue, parse_object

LENGTH_BYTES = 8
MAX_HEADER_BYTES = 16 * 2**20
MAX_TENSORS = 200_000
MAX_DIMENSIONS = 8
MAX_NAME_CHARS = 256

DTYPE_BYTES = {
    "BOOL": 1,
    "U8": 1,
    "I8": 1,
    "F8_E4M3": 1,
    "F8_E5M2": 1,
    "U16": 2,
    "I16": 2,
    "F16": 2,
    "BF16": 2,
    "U32": 4,
    "I32": 4,
    "F32": 4,
    "U64": 8,
    "I64": 8,
    "F64": 8,
}
"""Width of one element. Sub-byte types are left out: their width is not a whole number of bytes."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor: its name, dtype and shape. Where it lies follows from its place in the file."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    def __post_init__(self) -> None:
        if not self.name or len(self.name) > MAX_NAME_CHARS or not self.name.isprintable():
            raise InvalidInput("a tensor's name is empty, unprintable or longer than 256 characters")
        if self.dtype not in DTYPE_BYTES:
            raise InvalidInput(f"tensor {self.name!r} has an unknown dtype")
        if len(self.shape) > MAX_DIMENSIONS or self.bytes >= 2**53:
            raise LimitExceeded(f"tensor {self.name!r} has an absurd shape")

    @property
    def bytes(self) -> int:
        return math.prod(self.shape) * DTYPE_BYTES[self.dtype]


@dataclass(frozen=True, slots=True)
class Header:
    """A whole file accounted for: `header_bytes`, then the tensors in this order, each right after the other."""

    header_bytes: int
    tensors: tuple[Tensor, ...]


def header_bytes(first: bytes, file_bytes: int) -> int:
    """How many bytes the header takes, its length field included, from the file's `first` eight."""
    if file_bytes < LENGTH_BYTES or len(first) < LENGTH_BYTES:
        raise InvalidInput("the file is too short to be safetensors")
    length = int.from_bytes(first[:LENGTH_BYTES], "little")
    if length > MAX_HEADER_BYTES:
        raise LimitExceeded(f"the safetensors header claims {length} bytes, more than {MAX_HEADER_BYTES}")
    if LENGTH_BYTES + length > file_bytes:
        raise InvalidInput("the safetensors header is longer than its file")
    return LENGTH_BYTES + length


def parse_header(data: bytes, file_bytes: int) -> Header:
    """Parse `data`, which starts with the whole header, of a file of `file_bytes`.

    Raises:
        LimitExceeded: a claim beyond the limits above.
        InvalidInput: any other breach of the rules.
    """
    end = header_bytes(data, file_bytes)
    if len(data) < end:
        raise InvalidInput("the safetensors header is cut short")
    text = data[LENGTH_BYTES:end]
    if not text.startswith(b"{"):
        raise InvalidInput("the safetensors header does not start with '{'")
    members = parse_object(text, max_bytes=MAX_HEADER_BYTES, max_depth=4)
    _check_metadata(members.pop("__metadata__", {}))
    if len(members) > MAX_TENSORS:
        raise LimitExceeded(f"the safetensors header names more than {MAX_TENSORS} tensors")
    placed = sorted((_placed(name, value) for name, value in members.items()), key=lambda entry: entry[:2])
    position = 0
    for begin, until, tensor in placed:
        if begin != position:
            raise InvalidInput(f"tensor {tensor.name!r} leaves a hole or overlaps its neighbour")
        position = until
    if end + position != file_bytes:
        raise InvalidInput(f"the tensors account for {end + position} bytes of a file of {file_bytes}")
    return Header(end, tuple(tensor for _, _, tensor in placed))


def read_header(path: Path) -> Header:
    """`parse_header` of a file on disk; reads the header only."""
    file_bytes = path.stat().st_size
    with path.open("rb") as file:
        first = file.read(LENGTH_BYTES)
        return parse_header(first + file.read(header_bytes(first, file_bytes) - LENGTH_BYTES), file_bytes)


def _placed(name: str, value: JsonValue) -> tuple[int, int, Tensor]:
    fields = Fields(value, "a safetensors tensor")
    shape = fields.list_of("shape", _size, max_items=MAX_DIMENSIONS)
    tensor = Tensor(name, fields.text("dtype", 16), shape)
    begin, until = fields.list_of("data_offsets", _size, max_items=2, min_items=2)
    fields.done()
    if until - begin != tensor.bytes:
        raise InvalidInput(f"tensor {name!r} has offsets that do not fit its dtype and shape")
    return begin, until, tensor


def _size(value: JsonValue) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise InvalidInput("a safetensors shape or offset is not a count")
    return value


def _check_metadata(value: JsonValue) -> None:
    if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
        raise InvalidInput("the safetensors metadata is not a map of texts")
