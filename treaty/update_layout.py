"""Which values an update has and how they are written: the part that a plan, an update and a sum have in common.

The tensors follow one another in the plan's order as one stream of little-endian int32, cut into chunks. Everything is
bounded here, so no later size or index needs a second thought. Codes are listed in `treaty.update`.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from functools import cached_property
from typing import TypedDict

from treaty import names
from treaty.errors import InvalidInput, LimitExceeded
from treaty.fields import Fields
from treaty.names import Digest, RunId
from treaty.strict_json import JsonObject, JsonValue

CHUNK_BYTES = 4 * 2**20
VALUE_BITS = 30
"""Magnitude bits of a value: |q| ≤ 2^30 leaves int32 a spare bit and int64 33 bits for the weights of a cohort."""

BYTES_PER_VALUE = 4
MAX_TENSORS = 8192
MAX_DIMENSIONS = 8
MAX_VALUES = 2**33
MAX_CLIP_NORM_MICRO = 10**12
MAX_ROUND = 10**6
_TENSOR_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_./-]{0,254}\Z", re.ASCII)


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """Name and shape of one tensor; its dtype is the encoding's. A shape `()` is one value."""

    name: str
    shape: tuple[int, ...]

    def __post_init__(self) -> None:
        if not _TENSOR_NAME.match(self.name):
            raise InvalidInput("a tensor name has letters, digits and '_./-', at most 255", code="UPD-001")
        if len(self.shape) > MAX_DIMENSIONS or any(not 1 <= size < 2**31 for size in self.shape):
            raise InvalidInput(f"tensor {self.name}: a shape has at most 8 positive dimensions", code="UPD-001")

    @property
    def values(self) -> int:
        return math.prod(self.shape)

    def to_json(self) -> JsonObject:
        return {"name": self.name, "shape": list(self.shape)}


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Which values an update has and how they are written; shared by a plan and by the headers that answer it."""

    run_id: RunId
    round: int
    """1 for the first."""
    base_digest: Digest
    """Of the global arrays that the delta starts from."""
    tensors: tuple[TensorSpec, ...]
    clip_norm_micro: int
    """Bound of the L2 norm over all tensors together, in millionths."""
    value_bits: int
    chunk_bytes: int

    def __post_init__(self) -> None:
        require(1 <= self.round <= MAX_ROUND, f"the round is not between 1 and {MAX_ROUND}")
        require(1 <= len(self.tensors) <= MAX_TENSORS, f"an update has 1 to {MAX_TENSORS} tensors")
        require(len({tensor.name for tensor in self.tensors}) == len(self.tensors), "a tensor is named twice")
        require(1 <= self.clip_norm_micro <= MAX_CLIP_NORM_MICRO, "the clip norm is out of bounds")
        require(8 <= self.value_bits <= VALUE_BITS, f"value_bits is not between 8 and {VALUE_BITS}")
        aligned = self.chunk_bytes % BYTES_PER_VALUE == 0
        require(aligned and 64 <= self.chunk_bytes <= CHUNK_BYTES, "chunk_bytes is not a multiple of 4 up to 4 MiB")
        if self.values > MAX_VALUES:
            raise LimitExceeded(f"the tensors have more than {MAX_VALUES} values together", code="UPD-002")

    @cached_property
    def values(self) -> int:
        return sum(tensor.values for tensor in self.tensors)

    @property
    def value_bytes(self) -> int:
        return self.values * BYTES_PER_VALUE

    @property
    def chunk_count(self) -> int:
        return -(-self.value_bytes // self.chunk_bytes)

    @property
    def bound(self) -> int:
        """Largest |q|, and the largest L2 norm of all q together."""
        return 1 << self.value_bits

    @property
    def step(self) -> float:
        """What a value of 1 stands for."""
        return self.clip_norm_micro / 1e6 / self.bound

    def chunk_length(self, index: int) -> int:
        """Bytes of chunk `index`; the last one may be shorter."""
        if not 0 <= index < self.chunk_count:
            raise InvalidInput(f"there is no chunk {index} in {self.chunk_count}", code="UPD-007")
        return min(self.chunk_bytes, self.value_bytes - index * self.chunk_bytes)

    def layout_fields(self) -> LayoutFields:
        """The layout alone, without what a plan or a header adds to it."""
        return {
            "run_id": self.run_id,
            "round": self.round,
            "base_digest": self.base_digest,
            "tensors": self.tensors,
            "clip_norm_micro": self.clip_norm_micro,
            "value_bits": self.value_bits,
            "chunk_bytes": self.chunk_bytes,
        }

    def layout(self) -> Layout:
        return Layout(**self.layout_fields())

    def layout_json(self) -> JsonObject:
        return {
            "base_digest": self.base_digest,
            "chunk_bytes": self.chunk_bytes,
            "clip_norm_micro": self.clip_norm_micro,
            "round": self.round,
            "run_id": self.run_id,
            "tensors": [tensor.to_json() for tensor in self.tensors],
            "value_bits": self.value_bits,
        }


class LayoutFields(TypedDict):
    """The keyword arguments of a `Layout`."""

    run_id: RunId
    round: int
    base_digest: Digest
    tensors: tuple[TensorSpec, ...]
    clip_norm_micro: int
    value_bits: int
    chunk_bytes: int


def take_layout(fields: Fields) -> LayoutFields:
    """Take what `Layout.layout_json` writes out of `fields`; the constructor checks the bounds."""
    return {
        "run_id": names.run_id(fields.text("run_id", 63)),
        "round": fields.integer("round"),
        "base_digest": fields.digest("base_digest"),
        "tensors": fields.list_of("tensors", _read_tensor, max_items=MAX_TENSORS),
        "clip_norm_micro": fields.integer("clip_norm_micro"),
        "value_bits": fields.integer("value_bits"),
        "chunk_bytes": fields.integer("chunk_bytes"),
    }


def _read_tensor(value: JsonValue) -> TensorSpec:
    fields = Fields(value, "tensor")
    name = fields.text("name", 255)
    shape = fields.list_of("shape", _read_dimension, max_items=MAX_DIMENSIONS)
    fields.done()
    return TensorSpec(name, shape)


def _read_dimension(value: JsonValue) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise InvalidInput("a dimension is not an integer", code="UPD-001")
    return value


def require(condition: bool, message: str) -> None:
    """Refuse with UPD-001 unless `condition` holds."""
    if not condition:
        raise InvalidInput(message, code="UPD-001")
