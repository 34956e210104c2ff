"""What the coordinator asks of a run's worker: the first arrays, and one step of the strategy per round.

Both orders are idempotent: the files they write appear by rename, and the same order gives the same bytes. They name
files of the run's own folder; the worker writes nowhere else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TypeAlias

from treaty.errors import InvalidInput
from treaty.fields import Fields
from treaty.names import Digest
from treaty.recipe import LoraSft, parse_recipe
from treaty.strict_json import JsonObject, JsonValue
from treaty.update import UpdateSpec

MAX_PATH_CHARS = 4096
MAX_UPDATES = 4096
MAX_BASE_TENSORS = 100_000


@dataclass(frozen=True, slots=True)
class MakeArrays:
    """Write the recipe's first arrays for a base with `base_shapes` into the folder `out`."""

    recipe: LoraSft
    base_shapes: Mapping[str, tuple[int, ...]]
    out: Path

    def to_json(self) -> JsonObject:
        shapes: JsonObject = {name: list(shape) for name, shape in self.base_shapes.items()}
        return {"order": "make-arrays", "recipe": self.recipe.to_json(), "base_shapes": shapes, "out": str(self.out)}


@dataclass(frozen=True, slots=True)
class SavedState:
    path: Path
    digest: Digest


@dataclass(frozen=True, slots=True)
class TakeStep:
    """Sum `updates` exactly into `sum_path`, let the strategy make new arrays of it, write them and its state."""

    strategy: str
    parameters: Mapping[str, int]
    spec: UpdateSpec
    updates: tuple[Path, ...]
    base: Path
    state: SavedState | None
    out: Path
    sum_path: Path
    state_path: Path

    def to_json(self) -> JsonObject:
        document: JsonObject = {
            "order": "take-step",
            "strategy": self.strategy,
            "parameters": dict(self.parameters),
            "spec": self.spec.to_json(),
            "updates": [str(path) for path in self.updates],
            "base": str(self.base),
            "out": str(self.out),
            "sum": str(self.sum_path),
            "state_out": str(self.state_path),
        }
        if self.state is not None:
            document["state"] = {"path": str(self.state.path), "digest": self.state.digest}
        return document


@dataclass(frozen=True, slots=True)
class StepTaken:
    """`aggregate_digest` is the exact sum's, `state_digest` the strategy's state's after the round."""

    aggregate_digest: Digest
    state_digest: Digest

    def to_json(self) -> JsonObject:
        return {"aggregate_digest": self.aggregate_digest, "state_digest": self.state_digest}


Order: TypeAlias = MakeArrays | TakeStep


def parse_order(document: JsonObject) -> Order:
    """Raises: InvalidInput: not one of the orders."""
    fields = Fields(document, "order")
    kind = fields.text("order", 32)
    order: Order
    if kind == "make-arrays":
        order = MakeArrays(
            recipe=parse_recipe(fields.value("recipe")),
            base_shapes=MappingProxyType(_shapes(fields.value("base_shapes"))),
            out=_path(fields, "out"),
        )
    elif kind == "take-step":
        order = _step(fields)
    else:
        raise InvalidInput("the order is unknown to this worker")
    fields.done()
    return order


def parse_step_taken(value: JsonValue) -> StepTaken:
    fields = Fields(value, "answer")
    taken = StepTaken(fields.digest("aggregate_digest"), fields.digest("state_digest"))
    fields.done()
    return taken


def _step(fields: Fields) -> TakeStep:
    state = fields.optional_mapping("state")
    saved = SavedState(_path(state, "path"), state.digest("digest")) if state is not None else None
    parameters = fields.value("parameters")
    if not isinstance(parameters, dict):
        raise InvalidInput("the order's parameters are not an object")
    given = Fields(parameters, "parameters")
    return TakeStep(
        strategy=fields.text("strategy", 32),
        parameters=MappingProxyType({name: given.integer(name, -(10**12), 10**12) for name in parameters}),
        spec=UpdateSpec.from_json(fields.value("spec")),
        updates=tuple(Path(text) for text in fields.texts("updates", max_items=MAX_UPDATES, max_chars=MAX_PATH_CHARS)),
        base=_path(fields, "base"),
        state=saved,
        out=_path(fields, "out"),
        sum_path=_path(fields, "sum"),
        state_path=_path(fields, "state_out"),
    )


def _path(fields: Fields, name: str) -> Path:
    return Path(fields.text(name, MAX_PATH_CHARS))


def _shapes(value: JsonValue) -> dict[str, tuple[int, ...]]:
    if not isinstance(value, dict) or len(value) > MAX_BASE_TENSORS:
        raise InvalidInput("the base's shapes are not an object of tensors")
    fields = Fields(value, "base_shapes")
    return {name: fields.list_of(name, _size, max_items=8) for name in value}


def _size(value: JsonValue) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise InvalidInput("a shape is not a list of positive integers")
    return value
