"""What a trainer may answer at most. It is taken for hostile: it has read the nation's text and knows this file.

An answer is believed only as far as the order allowed it:
1. its fields are exactly `metrics`, and these exactly the task's, integers on their grid and in their range;
2. what the agent knows beforehand must be said so: examples, steps, held-out pairs;
3. its arrays are exactly the adapter's, by name, order and shape, float32 (the frame knows no other), finite.

A name, a text or a number that was not asked for therefore has nowhere to stand. What stays open is stated by
`open_channel_bits`: the metrics' grids, and above all the values of the arrays, which only noise narrows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from node_agent.training.frames import Arrays, Frame
from treaty.errors import InvalidInput
from treaty.recipe import METRICS, LoraSft, check_metrics

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class TrainResult:
    """One round's work, believed. `delta` is not clipped yet: that is `privacy`'s."""

    delta: Arrays
    examples: int
    metrics: dict[str, int]


@dataclass(frozen=True, slots=True)
class EvalResult:
    metrics: dict[str, int]


def train_result(frame: Frame, recipe: LoraSft, shapes: Shapes) -> TrainResult:
    """Believe a `delta` frame. Raises InvalidInput with a code that says what was tried."""
    metrics = check_metrics("train", _metrics(frame))
    _check_known(metrics, {"examples": recipe.examples, "steps": recipe.steps})
    _check_heldout(metrics, recipe)
    check_arrays(frame.arrays, shapes)
    return TrainResult(dict(frame.arrays), recipe.examples, metrics)


def eval_result(frame: Frame, recipe: LoraSft) -> EvalResult:
    """Believe an `evaluated` frame. Raises InvalidInput with a code that says what was tried."""
    metrics = check_metrics("evaluate", _metrics(frame))
    _check_heldout(metrics, recipe)
    if frame.arrays:
        raise InvalidInput("an evaluation has no arrays", code="ARRAY_UNDECLARED")
    return EvalResult(metrics)


def check_arrays(arrays: Arrays, shapes: Shapes) -> None:
    """Refuse arrays that are not exactly `shapes`, or not finite."""
    if list(arrays) != list(shapes):
        raise InvalidInput("the arrays' names are not exactly the adapter's", code="ARRAY_UNDECLARED")
    for name, shape in shapes.items():
        if arrays[name].shape != tuple(shape):
            raise InvalidInput("an array does not have the adapter's shape", code="ARRAY_SHAPE")
        if not np.isfinite(arrays[name]).all():
            raise InvalidInput("an array has a value that is not finite", code="VALUES_NOT_FINITE")


def body_bytes(shapes: Shapes) -> int:
    """What a frame with exactly these arrays takes: the limit on what is read at all."""
    return sum(4 * int(np.prod(shape)) for shape in shapes.values())


def open_channel_bits(task: str, shapes: Shapes, bits_per_value: int = 32) -> dict[str, int]:
    """What one answer may carry at most, by channel. Before clipping and fixed point a value has 32 bits."""
    values = body_bytes(shapes) // 4 if task == "train" else 0
    known = {"examples", "steps", "heldout_pairs"}
    metric_bits = sum(metric.bits for name, metric in METRICS[task].items() if name not in known)
    return {"metric-values": metric_bits, "tensor-values": values * bits_per_value}


def _metrics(frame: Frame) -> Mapping[str, object]:
    metrics = frame.fields.get("metrics")
    if set(frame.fields) != {"metrics"} or not isinstance(metrics, dict):
        raise InvalidInput("the answer's fields are not exactly its metrics", code="FIELD_UNDECLARED")
    return metrics


def _check_heldout(metrics: Mapping[str, int], recipe: LoraSft) -> None:
    _check_known(metrics, {"heldout_pairs": recipe.heldout_pairs})
    if metrics["heldout_tokens"] > recipe.heldout_pairs * recipe.sequence_tokens:
        raise InvalidInput("more held-out tokens than the pairs can have", code="METRIC_OUT_OF_RANGE")


def _check_known(metrics: Mapping[str, int], known: Mapping[str, int]) -> None:
    if any(metrics[name] != value for name, value in known.items()):
        raise InvalidInput("a metric is not what the recipe makes it", code="METRIC_OUT_OF_RANGE")
