"""The arithmetic of an update: clip a delta, write it in fixed point, check what arrives, read it back.

Rules:
1. `clip` bounds the L2 norm over all tensors together; `quantise` rounds towards zero, which never raises a norm, so
   the bound on integers is exact: Σq² ≤ 2^(2·value_bits), with no tolerance.
2. A chunk is believed after its length, its digest and the bound on each value; an update after `UpdateVerifier`
   has seen every chunk in order and the norm of the whole.
3. Squares are summed in integers, so a verdict does not depend on the machine.

Codes are listed in `treaty.update`. This module opens no file and keeps no update.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from treaty.errors import InvalidInput
from treaty.names import Digest, PartyCode
from treaty.strict_json import canonical
from treaty.update import UpdateHeader, UpdateSpec
from treaty.update_layout import BYTES_PER_VALUE, Layout, TensorSpec

Delta: TypeAlias = Mapping[str, NDArray[np.float32]]
Buffer: TypeAlias = bytes | bytearray | memoryview

WIRE_DTYPE = np.dtype("<i4")
# A clipped delta stays this far below the bound, so that neither float32 rounding of the scaled values (2^-24) nor
# the float64 sum of squares lifts it above; a part in four million of the clip norm is lost.
_CLIP_MARGIN = 1 - 2.0**-22
_BLOCK = 1 << 20
_ARRAYS_FORMAT = "foedus.arrays.v1"


def check_arrays(arrays: Delta, tensors: Sequence[TensorSpec]) -> None:
    """Check names, shapes, dtype float32 and that every value is finite.

    Raises: InvalidInput with UPD-011 or UPD-012.
    """
    if arrays.keys() != {tensor.name for tensor in tensors}:
        raise InvalidInput("the arrays' names are not exactly those of the plan's tensors", code="UPD-012")
    for tensor in tensors:
        array = arrays[tensor.name]
        if array.dtype != np.float32 or array.shape != tensor.shape:
            raise InvalidInput(f"array {tensor.name} is not float32 of shape {tensor.shape}", code="UPD-012")
        if not all(np.isfinite(block).all() for block in _blocks(array)):
            raise InvalidInput(f"array {tensor.name} has a value that is not finite", code="UPD-011")


def l2_norm(delta: Delta) -> float:
    """L2 norm over all arrays together, summed in float64."""
    squares = (float(np.dot(block, block)) for array in delta.values() for block in map(_as_float64, _blocks(array)))
    return math.sqrt(math.fsum(squares))


def clip(delta: Delta, clip_norm_micro: int) -> dict[str, NDArray[np.float32]]:
    """Scale `delta` down so that its L2 norm lies within the clip norm; a smaller one is returned as it is.

    Raises: InvalidInput (UPD-011): NaN or infinity, whose norm cannot be bounded.
    """
    norm = l2_norm(delta)
    if not math.isfinite(norm):
        raise InvalidInput("the delta has a value that is not finite", code="UPD-011")
    limit = clip_norm_micro / 1e6 * _CLIP_MARGIN
    if norm <= limit:
        return dict(delta)
    scale = limit / norm
    return {name: (_as_float64(array) * scale).astype(np.float32) for name, array in delta.items()}


def quantise(delta: Delta, spec: UpdateSpec) -> list[NDArray[np.int32]]:
    """Write a clipped `delta` as the plan's chunks of int32, rounded towards zero.

    Raises: InvalidInput with UPD-009 to UPD-012; a delta beyond the clip norm is refused, not clipped.
    """
    check_arrays(delta, spec.tensors)
    stream = np.empty(spec.values, WIRE_DTYPE)
    offset = 0
    for tensor in spec.tensors:
        for block in _blocks(delta[tensor.name]):
            scaled = np.trunc(_as_float64(block) / spec.step)
            if np.abs(scaled).max() > spec.bound:
                raise InvalidInput("the delta has a value beyond the clip norm", code="UPD-009")
            stream[offset : offset + block.size] = scaled
            offset += block.size
    length = spec.chunk_bytes // BYTES_PER_VALUE
    chunks = [stream[start : start + length] for start in range(0, stream.size, length)]
    check_norm(sum(map(sum_of_squares, chunks)), spec)
    return chunks


def dequantise(chunks: Iterable[NDArray[np.int32]], layout: Layout) -> dict[str, NDArray[np.float32]]:
    """Read chunks back as float32 arrays by name. Raises InvalidInput (UPD-015): too few or too many values."""
    flat = np.empty(layout.values, np.float32)
    offset = 0
    for chunk in chunks:
        if offset + chunk.size > flat.size:
            raise InvalidInput("the chunks hold more values than the tensors", code="UPD-015")
        flat[offset : offset + chunk.size] = _as_float64(chunk) * layout.step
        offset += chunk.size
    if offset != flat.size:
        raise InvalidInput("the chunks hold fewer values than the tensors", code="UPD-015")
    return split(flat, layout.tensors)


def split(flat: NDArray[np.float32], tensors: Sequence[TensorSpec]) -> dict[str, NDArray[np.float32]]:
    """Views of `flat`, a `(values,)` stream, by tensor name and in its shape."""
    arrays: dict[str, NDArray[np.float32]] = {}
    offset = 0
    for tensor in tensors:
        arrays[tensor.name] = flat[offset : offset + tensor.values].reshape(tensor.shape)
        offset += tensor.values
    return arrays


def arrays_digest(arrays: Delta, tensors: Sequence[TensorSpec]) -> Digest:
    """Digest of global arrays: names and shapes in order, then the little-endian float32 values.

    Raises: InvalidInput with UPD-011 or UPD-012.
    """
    check_arrays(arrays, tensors)
    header = canonical({"format": _ARRAYS_FORMAT, "tensors": [tensor.to_json() for tensor in tensors]})
    hasher = hashlib.sha256(len(header).to_bytes(8, "little") + header)
    for tensor in tensors:
        for block in _blocks(arrays[tensor.name]):
            hasher.update(np.ascontiguousarray(block, "<f4").data)
    return Digest("sha256:" + hasher.hexdigest())


def build_header(
    chunks: Sequence[NDArray[np.int32]], spec: UpdateSpec, *, nation: PartyCode, examples: int
) -> UpdateHeader:
    """The header of quantised `chunks`, which `chunk_bytes` turns into what is sent."""
    return UpdateHeader(
        **spec.layout_fields(),
        nation=nation,
        examples=examples,
        chunks=tuple(_digest(chunk_bytes(chunk)) for chunk in chunks),
    )


def chunk_bytes(chunk: NDArray[np.int32]) -> bytes:
    """The bytes of `chunk` as they are hashed, sent and spooled: little-endian int32."""
    return chunk.astype(WIRE_DTYPE, copy=False).tobytes()


def validate_chunk(index: int, data: Buffer, header: UpdateHeader, spec: Layout) -> NDArray[np.int32]:
    """Check length, digest and bound of chunk `index`; returns its values, a view of `data`.

    Raises: InvalidInput with UPD-007, UPD-008 or UPD-009.
    """
    if len(data) != spec.chunk_length(index):
        raise InvalidInput(f"chunk {index} has {len(data)} bytes, not {spec.chunk_length(index)}", code="UPD-007")
    if _digest(data) != header.chunks[index]:
        raise InvalidInput(f"chunk {index} does not match its digest", code="UPD-008")
    values = np.frombuffer(data, WIRE_DTYPE)
    # Not np.abs: it leaves -2^31 negative.
    if int(values.max()) > spec.bound or int(values.min()) < -spec.bound:
        raise InvalidInput(f"chunk {index} has a value outside the plan's bound", code="UPD-009")
    return values


def sum_of_squares(values: NDArray[np.int32]) -> int:
    """Σq² exactly, for |q| ≤ 2^30.

    A square has up to 61 bits: its upper and lower halves are summed apart, block by block, so no sum leaves int64.
    """
    total = 0
    for start in range(0, values.size, _BLOCK):
        squares = values[start : start + _BLOCK].astype(np.int64)
        squares *= squares
        total += (int((squares >> 30).sum()) << 30) + int((squares & (2**30 - 1)).sum())
    return total


def check_norm(squares: int, layout: Layout) -> None:
    """Check the exact Σq² of a whole update. Raises InvalidInput (UPD-010)."""
    if squares > layout.bound**2:
        raise InvalidInput("the update's L2 norm is above the plan's clip norm", code="UPD-010")


class UpdateVerifier:
    """Believes an update chunk by chunk, in order; `finish` believes it whole."""

    def __init__(self, header: UpdateHeader, spec: Layout) -> None:
        self._header = header
        self._spec = spec
        self._squares = 0
        self.next_index = 0

    def accept(self, index: int, data: Buffer) -> NDArray[np.int32]:
        """Check the next chunk and return its values; a chunk out of order or refused changes nothing."""
        if index != self.next_index:
            raise InvalidInput(f"chunk {index} came where {self.next_index} was due", code="UPD-007")
        values = validate_chunk(index, data, self._header, self._spec)
        squares = self._squares + sum_of_squares(values)
        check_norm(squares, self._spec)
        self._squares = squares
        self.next_index += 1
        return values

    def finish(self) -> None:
        """Check that no chunk is missing. Raises InvalidInput (UPD-015)."""
        if self.next_index != self._spec.chunk_count:
            raise InvalidInput(f"{self.next_index} of {self._spec.chunk_count} chunks arrived", code="UPD-015")


def _blocks(array: NDArray[np.float32]) -> Iterable[NDArray[np.float32]]:
    flat = array.reshape(-1)
    return (flat[start : start + _BLOCK] for start in range(0, flat.size, _BLOCK))


def _as_float64(array: NDArray[np.float32] | NDArray[np.int32]) -> NDArray[np.float64]:
    return array.astype(np.float64)


def _digest(data: Buffer) -> Digest:
    return Digest("sha256:" + hashlib.sha256(data).hexdigest())
