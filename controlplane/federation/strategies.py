"""One step of a run's strategy, as a function: (state, base, what came) → (new arrays, new state).

Flower's strategies keep their optimiser's moments as attributes. Here every step makes a fresh strategy, gives it the
saved attributes, drives `configure_train` and `aggregate_train`, and takes them out again: a worker that was killed and
one that was not take the same path, so the result is the same bit for bit.

What a strategy is given:
- the family of the mean: one reply, base + exact mean, with the total weight;
- the robust family: each reply's delta, and the base is added to the result. Their rules commute with translation, but
  Flower's Krum computes ‖x‖² + ‖y‖² − 2xy in float32, which loses the distances where the base is much longer than the
  deltas.

Requires `compat.adopt_identity`. This module reads no update and writes no file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from controlplane.federation.arrays import checked, from_record, tensors_of, to_record
from controlplane.federation.compat import (
    FLOWER_STRATEGIES,
    AggregationError,
    ConfigRecord,
    InconsistentMessageReplies,
    Strategy,
    require_identity,
)
from controlplane.federation.exact_sum import ExactSum, apply, mean_delta
from controlplane.federation.grid import WEIGHT_KEY, Exchange, Reply, TreatyGrid
from controlplane.federation.strategy_spec import StrategySpec, minimum_cohort
from treaty.errors import InvalidInput, PreconditionFailed
from treaty.update_layout import TensorSpec
from treaty.update_values import Delta

Arrays = dict[str, NDArray[np.float32]]

MEAN_SENDER = "mean"
"""The one sender that a strategy of the mean's family sees."""

_DICTIONARIES = ("m_t", "v_t")
_LIST = "momentum_vector"
_FLOWER_REFUSALS = (AggregationError, InconsistentMessageReplies, ValueError, ArithmeticError)


@dataclass(frozen=True, slots=True)
class StrategyState:
    """The optimiser's attributes after a round, float32 by attribute and tensor; empty before the first."""

    attributes: Mapping[str, Delta] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Step:
    """What a round leaves behind."""

    arrays: Arrays
    state: StrategyState


@dataclass(frozen=True, slots=True)
class OwnDelta:
    """One nation's update, read back from the spool."""

    nation: str
    examples: int
    delta: Delta


def step(
    spec: StrategySpec, state: StrategyState, *, round_number: int, base: Delta, came: ExactSum | Sequence[OwnDelta]
) -> Step:
    """Compute the next global arrays: from the sum for the mean's family, from all updates for the robust one.

    Deterministic in its arguments; the order of updates does not matter.
    Raises:
        InvalidInput: the family was given the other one's input, or arrays with other names, shapes or values.
        PreconditionFailed: too few updates for the strategy, or a result that is not finite.
    """
    if isinstance(came, ExactSum) == spec.keeps_all:
        raise InvalidInput(f"{spec.name} needs {'every update' if spec.keeps_all else 'the exact sum'}")
    if isinstance(came, ExactSum):
        moved = apply(base, mean_delta(came))
        replies = [Reply(MEAN_SENDER, came.total_weight, moved)]
    else:
        replies = [Reply(own.nation, own.examples, own.delta) for own in came]
    cohort = [reply.sender for reply in replies]
    return train_round(
        spec, state, round_number=round_number, base=base, cohort=cohort, exchange=lambda _instruction: replies
    )


def train_round(
    spec: StrategySpec,
    state: StrategyState,
    *,
    round_number: int,
    base: Delta,
    cohort: Sequence[str],
    exchange: Exchange,
) -> Step:
    """Drive one round of training through `exchange`; `step` is this with replies that are already there.

    Replies hold base + mean for the mean's family, deltas for the robust one.
    """
    if not cohort:
        raise PreconditionFailed("a round needs a cohort")
    tensors = tensors_of(base)
    strategy = _restored(spec, state, tensors)
    grid = TreatyGrid(cohort, tensors, exchange)
    with np.errstate(over="ignore", invalid="ignore"):
        messages = strategy.configure_train(round_number, to_record(base, tensors), ConfigRecord(), grid)
        replies = grid.send_and_receive(messages)
        if len(replies) < minimum_cohort(spec):
            raise PreconditionFailed(
                f"{spec.name} needs {minimum_cohort(spec)} updates, {len(replies)} came",
                remedy="raise the run's quorum and start again",
            )
        try:
            record, _ = strategy.aggregate_train(round_number, replies)
        except _FLOWER_REFUSALS as err:
            raise PreconditionFailed(f"{spec.name} could not aggregate the round") from err
    if record is None:
        raise PreconditionFailed(f"{spec.name} returned no arrays")
    arrays = from_record(record, tensors)
    if spec.keeps_all:
        arrays = apply(base, arrays)
    return Step(arrays, _taken(strategy, tensors))


def evaluate_round(
    spec: StrategySpec, *, round_number: int, base: Delta, cohort: Sequence[str], exchange: Exchange
) -> dict[str, float]:
    """Drive one evaluation through `exchange`; returns each metric's mean, weighted by examples.

    Raises: PreconditionFailed: nobody replied, or not all with the same metrics.
    """
    if not cohort:
        raise PreconditionFailed("a round needs a cohort")
    tensors = tensors_of(base)
    strategy = _restored(spec, StrategyState(), tensors)
    grid = TreatyGrid(cohort, tensors, exchange)
    messages = strategy.configure_evaluate(round_number, to_record(base, tensors), ConfigRecord(), grid)
    try:
        metrics = strategy.aggregate_evaluate(round_number, grid.send_and_receive(messages))
    except _FLOWER_REFUSALS as err:
        raise PreconditionFailed("the evaluation's metrics could not be averaged") from err
    if metrics is None:
        raise PreconditionFailed("nobody replied to the evaluation")
    return {str(name): float(value) for name, value in metrics.items()}


def _restored(spec: StrategySpec, state: StrategyState, tensors: Sequence[TensorSpec]) -> Strategy:
    """A fresh strategy that goes on from `state`."""
    require_identity()
    # One is enough for Flower: quorum is the plan's, and with fewer nodes than its minimum it would wait forever.
    strategy = FLOWER_STRATEGIES[spec.name](
        fraction_train=1.0,
        fraction_evaluate=1.0,
        min_train_nodes=1,
        min_evaluate_nodes=1,
        min_available_nodes=1,
        weighted_by_key=WEIGHT_KEY,
        **spec.flower_keywords(),
    )
    for name, arrays in state.attributes.items():
        if name not in (*_DICTIONARIES, _LIST) or not hasattr(strategy, name):
            raise InvalidInput(f"the saved state is not one of {spec.name}")
        ordered = checked(arrays, tensors)
        setattr(strategy, name, list(ordered.values()) if name == _LIST else ordered)
    return strategy


def _taken(strategy: Strategy, tensors: Sequence[TensorSpec]) -> StrategyState:
    """The optimiser's attributes of `strategy`, those that are set."""
    attributes: dict[str, Delta] = {}
    for name in _DICTIONARIES:
        if moments := getattr(strategy, name, None):
            attributes[name] = checked(moments, tensors)
    if momentum := getattr(strategy, _LIST, None):
        names = (tensor.name for tensor in tensors)
        attributes[_LIST] = checked(dict(zip(names, momentum, strict=True)), tensors)
    return StrategyState(attributes)
