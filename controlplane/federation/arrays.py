"""Arrays between NumPy and Flower's records: exact names, shapes and dtype on both ways, every value finite.

A Flower record is a bag of named byte strings; ours are float32 by the plan's tensors, in its order. Some strategies
answer in float64 (a NumPy scalar meets a float32 array): their result is rounded to float32 once, here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from controlplane.federation.compat import Array, ArrayRecord
from treaty.errors import PreconditionFailed
from treaty.update_layout import TensorSpec
from treaty.update_values import Delta, check_arrays


def tensors_of(arrays: Delta) -> tuple[TensorSpec, ...]:
    """Names and shapes of `arrays`, in their order."""
    return tuple(TensorSpec(name, array.shape) for name, array in arrays.items())


def to_record(arrays: Delta, tensors: Sequence[TensorSpec]) -> ArrayRecord:
    """Copy `arrays` into a record, in the order of `tensors`. Raises InvalidInput (UPD-011, UPD-012)."""
    check_arrays(arrays, tensors)
    return ArrayRecord({tensor.name: Array(np.asarray(arrays[tensor.name], order="C")) for tensor in tensors})


def from_record(record: ArrayRecord, tensors: Sequence[TensorSpec]) -> dict[str, NDArray[np.float32]]:
    """Read what a strategy computed.

    Raises: PreconditionFailed: other names or shapes than it was given, or values that are not finite in float32.
    """
    return checked({name: array.numpy() for name, array in record.items()}, tensors)


def checked(
    arrays: Mapping[str, NDArray[np.floating]], tensors: Sequence[TensorSpec]
) -> dict[str, NDArray[np.float32]]:
    """`arrays` as float32 in the order of `tensors`, for what a strategy computed; see `from_record`."""
    if arrays.keys() != {tensor.name for tensor in tensors}:
        raise PreconditionFailed("the strategy returned other arrays than it was given")
    rounded: dict[str, NDArray[np.float32]] = {}
    for tensor in tensors:
        with np.errstate(over="ignore"):
            array = arrays[tensor.name].astype(np.float32, copy=False)
        if array.shape != tensor.shape or not np.isfinite(array).all():
            raise PreconditionFailed(
                "the strategy left the finite float32 values", remedy="lower its learning rate and start again"
            )
        rounded[tensor.name] = array
    return rounded
