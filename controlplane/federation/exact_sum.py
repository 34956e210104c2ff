"""The exact sum of a round as a value: what it says, how its file is read back, and the mean that follows from it.

An `ExactSum` is made by `aggregate` or by `load_sum`, which believes a file only by its digest. The mean is taken in
float64 from integers and rounded to float32 once, so it is the same on every machine. This module sums nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from controlplane.federation.spool_reader import LENGTH_BYTES
from treaty import names
from treaty.errors import Corrupt, InvalidInput, NotFound, PreconditionFailed
from treaty.fields import Fields
from treaty.names import Digest, PartyCode
from treaty.strict_json import JsonObject, JsonValue, canonical, parse_object
from treaty.update import MAX_HEADER_BYTES
from treaty.update_layout import Layout, TensorSpec, take_layout
from treaty.update_values import Delta, check_arrays, split

_FORMAT = "foedus.sum.v1"
_MAX_CONTRIBUTIONS = 4096
_BLOCK_BYTES = 4 * 2**20
_SUM_DTYPE = np.dtype("<i8")


@dataclass(frozen=True, slots=True)
class Contribution:
    """One update that is in the sum."""

    nation: PartyCode
    examples: int
    digest: Digest

    def to_json(self) -> JsonObject:
        return {"examples": self.examples, "nation": self.nation, "update": self.digest}


@dataclass(frozen=True, slots=True)
class ExactSum:
    """Σ examples × q of one round, lying in `path`."""

    path: Path
    layout: Layout
    contributions: tuple[Contribution, ...]
    """By nation."""
    digest: Digest
    """SHA-256 of the file at `path`."""

    @property
    def tensors(self) -> tuple[TensorSpec, ...]:
        return self.layout.tensors

    @property
    def total_weight(self) -> int:
        return sum(contribution.examples for contribution in self.contributions)


def sum_header(layout: Layout, contributions: Sequence[Contribution]) -> bytes:
    """The canonical header of a sum's file."""
    return canonical(
        {
            **layout.layout_json(),
            "contributions": [contribution.to_json() for contribution in contributions],
            "format": _FORMAT,
            "total_weight": sum(contribution.examples for contribution in contributions),
        }
    )


def load_sum(path: Path, digest: Digest) -> ExactSum:
    """Read back a sum that was recorded as `digest`, hashing the whole file.

    Raises:
        NotFound: there is no such file.
        Corrupt: it is not the one recorded.
    """
    try:
        with path.open("rb") as file:
            found = "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()
            file.seek(0)
            header = file.read(min(int.from_bytes(file.read(LENGTH_BYTES), "little"), 2 * MAX_HEADER_BYTES))
    except FileNotFoundError:
        raise NotFound(f"no sum {path.name}") from None
    except OSError as err:
        raise Corrupt(f"the sum {path.name} cannot be read") from err
    if found != digest:
        raise Corrupt(f"the sum {path.name} is not the one recorded", remedy="aggregate the round's updates again")
    layout, contributions = _parse(header)
    return ExactSum(path, layout, contributions, digest)


def mean_delta(exact: ExactSum) -> dict[str, NDArray[np.float32]]:
    """The weighted mean of the deltas, float32 by tensor name: Σ w·q / Σ w × step.

    Raises: Corrupt: the sum's file is shorter than its tensors.
    """
    flat = np.empty(exact.layout.values, np.float32)
    offset = 0
    try:
        for block in _values(exact):
            flat[offset : offset + block.size] = block.astype(np.float64) / exact.total_weight * exact.layout.step
            offset += block.size
    except OSError as err:
        raise Corrupt(f"the sum {exact.path.name} cannot be read") from err
    if offset != flat.size:
        raise Corrupt(f"the sum {exact.path.name} is not as long as its tensors")
    return split(flat, exact.tensors)


def apply(base: Delta, mean: Delta) -> dict[str, NDArray[np.float32]]:
    """`base` + `mean` by name, in float32.

    Raises:
        InvalidInput: names, shapes or dtypes differ, or a value is not finite (UPD-011, UPD-012).
        PreconditionFailed: the sum is not finite.
    """
    tensors = [TensorSpec(name, array.shape) for name, array in base.items()]
    check_arrays(base, tensors)
    check_arrays(mean, tensors)
    with np.errstate(over="ignore"):
        moved = {name: array + mean[name] for name, array in base.items()}
    if not all(np.isfinite(array).all() for array in moved.values()):
        raise PreconditionFailed("the global arrays would leave float32")
    return moved


def _values(exact: ExactSum) -> Iterator[NDArray[np.int64]]:
    with exact.path.open("rb") as file:
        file.seek(LENGTH_BYTES + int.from_bytes(file.read(LENGTH_BYTES), "little"))
        left = exact.layout.values
        while left and (block := file.read(min(_BLOCK_BYTES, left * _SUM_DTYPE.itemsize))):
            values = np.frombuffer(block, _SUM_DTYPE)
            left -= values.size
            yield values


def _parse(data: bytes) -> tuple[Layout, tuple[Contribution, ...]]:
    try:
        fields = Fields(parse_object(data, max_bytes=2 * MAX_HEADER_BYTES), "sum header")
        layout = Layout(**take_layout(fields))
        contributions = fields.list_of("contributions", _read_contribution, max_items=_MAX_CONTRIBUTIONS)
        if fields.text("format", 32) != _FORMAT or sum_header(layout, contributions) != data:
            raise InvalidInput("the sum's header is not in canonical form")
    except InvalidInput as err:
        raise Corrupt("the sum has a malformed header") from err
    return layout, contributions


def _read_contribution(value: JsonValue) -> Contribution:
    fields = Fields(value, "contribution")
    read = Contribution(
        names.nation_code(fields.text("nation", 2)), fields.integer("examples", 1), fields.digest("update")
    )
    fields.done()
    return read
