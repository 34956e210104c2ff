"""What a nation is asked to train: a recipe is data with bounds, never code.

Rules:
1. every field is stated, of its type and within its bound; an unknown field is refused;
2. a target is one of the linear layers that every Llama-shaped model has, so a recipe cannot reach for anything else;
3. the prompt template is text with named places, filled by replacement alone; it ends with the answer's place;
4. what may be measured is declared here: integers, each on a grid and in a range. What is not declared does not leave.

Both sides compute the adapter's tensor names and shapes from the recipe and the base's tensors, and the coordinator
its first values (`initial_arrays`), without torch. Names are those of the base with peft's suffixes and without its
prefix: `model.layers.0.self_attn.q_proj.lora_A.weight`, `(rank, in)`, and `….lora_B.weight`, `(out, rank)`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import TYPE_CHECKING

from treaty.errors import InvalidInput, LimitExceeded
from treaty.fields import Fields
from treaty.strict_json import JsonObject, JsonValue

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray

    Arrays = dict[str, NDArray[numpy.float32]]

LORA_SFT = "lora-sft"
TARGETS = ("down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj")
TEMPLATE_FIELDS = ("source_language", "target_language", "source", "target")
DEFAULT_TEMPLATE = "{source_language}: {source}\n{target_language}: {target}"

MAX_RANK = 64
MAX_STEPS = 10_000
MAX_BATCH = 256
MAX_SEQUENCE_TOKENS = 8192
MAX_HELDOUT_PAIRS = 4096
MAX_TEMPLATE_CHARS = 512

B_SUFFIX = ".lora_B.weight"
"""Ends the name of the second factor, which is zero before any training: until then the adapter adds nothing."""

_PLACE = re.compile(r"\{([a-z_]+)\}")


class Precision(StrEnum):
    """Number format of the frozen base while it is trained on. The adapter itself is float32 always."""

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"


@dataclass(frozen=True, slots=True)
class Evaluation:
    """How held-out loss is measured, the same before, during and after a run."""

    prompt_template: str = DEFAULT_TEMPLATE
    heldout_pairs: int = 64
    """Pairs kept from training; chosen by the digest of their text, so their order in the file does not matter."""
    sequence_tokens: int = 64
    """Longer examples are cut here."""

    def __post_init__(self) -> None:
        check_template(self.prompt_template)
        _check_range("heldout_pairs", self.heldout_pairs, 1, MAX_HELDOUT_PAIRS)
        _check_range("sequence_tokens", self.sequence_tokens, 8, MAX_SEQUENCE_TOKENS)


@dataclass(frozen=True, slots=True)
class LoraSft:
    """Supervised fine-tuning of a LoRA adapter on pairs of source and target text, loss on the target only."""

    rank: int
    alpha: int
    """The adapter's product is scaled by alpha / rank."""
    targets: tuple[str, ...]
    """Names of linear layers, sorted, from `TARGETS`."""
    steps: int
    """Optimiser steps in one round."""
    batch: int
    """Examples a step; steps × batch is what a round trains on, and the nation's weight."""
    learning_rate_micro: int
    """AdamW's, in millionths, constant over the round."""
    seed: int
    sequence_tokens: int
    precision: Precision
    prompt_template: str
    heldout_pairs: int

    def __post_init__(self) -> None:
        _check_range("rank", self.rank, 1, MAX_RANK)
        _check_range("alpha", self.alpha, 1, 1024)
        _check_range("steps", self.steps, 1, MAX_STEPS)
        _check_range("batch", self.batch, 1, MAX_BATCH)
        _check_range("learning_rate_micro", self.learning_rate_micro, 1, 1_000_000)
        _check_range("seed", self.seed, 0, 2**53 - 1)
        is_known = bool(self.targets) and set(self.targets) <= set(TARGETS)
        if not is_known or list(self.targets) != sorted(set(self.targets)):
            raise InvalidInput("the recipe's targets are not a sorted list from " + ", ".join(TARGETS))
        _ = self.evaluation

    @property
    def evaluation(self) -> Evaluation:
        return Evaluation(self.prompt_template, self.heldout_pairs, self.sequence_tokens)

    @property
    def examples(self) -> int:
        """Examples trained in one round, whatever the size of the dataset."""
        return self.steps * self.batch

    def to_json(self) -> JsonObject:
        members: JsonObject = {"recipe": LORA_SFT}
        for field in fields(self):
            value = getattr(self, field.name)
            members[field.name] = list(value) if isinstance(value, tuple) else value
        return members


def parse_recipe(value: JsonValue) -> LoraSft:
    """Read what `LoraSft.to_json` writes.

    Raises: InvalidInput: an unknown recipe, or any field missing, unknown, mistyped or out of bounds.
    """
    given = Fields(value, "recipe")
    if given.text("recipe", 64) != LORA_SFT:
        raise InvalidInput(f"the recipe is unknown; this version has {LORA_SFT!r}")
    recipe = LoraSft(
        rank=given.integer("rank"),
        alpha=given.integer("alpha"),
        targets=given.texts("targets", max_items=len(TARGETS), max_chars=64, min_items=1),
        steps=given.integer("steps"),
        batch=given.integer("batch"),
        learning_rate_micro=given.integer("learning_rate_micro"),
        seed=given.integer("seed"),
        sequence_tokens=given.integer("sequence_tokens"),
        precision=given.choice("precision", Precision),
        prompt_template=given.text("prompt_template", MAX_TEMPLATE_CHARS),
        heldout_pairs=given.integer("heldout_pairs"),
    )
    given.done()
    return recipe


def check_template(template: str) -> None:
    """Refuse a template that is not text around named places, each once, the answer last."""
    places = _PLACE.findall(template)
    if len(template) > MAX_TEMPLATE_CHARS:
        raise LimitExceeded(f"the prompt template is longer than {MAX_TEMPLATE_CHARS} characters")
    if "{" in _PLACE.sub("", template) or "}" in _PLACE.sub("", template) or not set(places) <= set(TEMPLATE_FIELDS):
        raise InvalidInput(
            "the prompt template has a brace or a place that is not one of " + ", ".join(TEMPLATE_FIELDS)
        )
    if len(set(places)) != len(places) or "source" not in places or not template.endswith("{target}"):
        raise InvalidInput("the prompt template must name {source} once and end with {target}")


def adapter_shapes(recipe: LoraSft, base_shapes: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, int]]:
    """Names and shapes of the adapter's tensors on a base with `base_shapes` (tensor name → shape), sorted by name.

    Raises: InvalidInput: the base lacks a target, or one is not a matrix.
    """
    shapes: dict[str, tuple[int, int]] = {}
    for target in recipe.targets:
        found = [name for name in base_shapes if name.endswith(f".{target}.weight")]
        if not found:
            raise InvalidInput(f"the base has no layer named {target!r}")
        for name in found:
            shape = base_shapes[name]
            if len(shape) != 2:
                raise InvalidInput(f"{name!r} is not a matrix, so it cannot carry an adapter")
            stem = name.removesuffix(".weight")
            shapes[f"{stem}.lora_A.weight"] = (recipe.rank, shape[1])
            shapes[f"{stem}{B_SUFFIX}"] = (shape[0], recipe.rank)
    return dict(sorted(shapes.items()))


def initial_arrays(recipe: LoraSft, base_shapes: Mapping[str, tuple[int, ...]]) -> Arrays:
    """The adapter before any training: A uniform in ±1/√in (Kaiming with a = √5, as peft does), B zero.

    One PCG64 stream per tensor, keyed by the seed and the tensor's place, read as raw words: NumPy promises that these
    stay the same from version to version, so the first global arrays have one digest everywhere.
    """
    import numpy as np

    arrays: Arrays = {}
    for place, (name, shape) in enumerate(adapter_shapes(recipe, base_shapes).items()):
        if name.endswith(B_SUFFIX):
            arrays[name] = np.zeros(shape, dtype=np.float32)
            continue
        words = np.random.PCG64(np.random.SeedSequence([recipe.seed, place])).random_raw(shape[0] * shape[1])
        unit = (words >> np.uint64(40)).astype(np.float64) / 2**24
        arrays[name] = ((2 * unit - 1) / math.sqrt(shape[1])).astype(np.float32).reshape(shape)
    return arrays


@dataclass(frozen=True, slots=True)
class Metric:
    """One number that may leave: a multiple of `grid` in [low, high]."""

    low: int
    high: int
    grid: int

    def rounded(self, value: int) -> int:
        """`value` clamped into the range and rounded down to the grid."""
        clamped = min(max(value, self.low), self.high)
        return clamped - (clamped - self.low) % self.grid

    @property
    def bits(self) -> int:
        """What one report of this metric can carry at most."""
        return math.ceil(math.log2((self.high - self.low) // self.grid + 1))


# 0.001 nats is finer than the noise of 64 pairs; 20 nats is worse than any vocabulary's blind guess.
_LOSS = Metric(0, 20_000_000, 1000)

_HELDOUT = {
    "heldout_loss_micro": _LOSS,
    "heldout_pairs": Metric(1, MAX_HELDOUT_PAIRS, 1),
    "heldout_tokens": Metric(0, MAX_HELDOUT_PAIRS * MAX_SEQUENCE_TOKENS, 64),
}

METRICS: Mapping[str, Mapping[str, Metric]] = {
    "train": {
        **_HELDOUT,
        "train_loss_micro": _LOSS,
        "examples": Metric(1, MAX_STEPS * MAX_BATCH, 1),
        "steps": Metric(1, MAX_STEPS, 1),
    },
    "evaluate": _HELDOUT,
}
"""By task: the whole list. Loss is the mean over answer tokens, in millionths of a nat; perplexity its exponential.
A training round's held-out loss is that of the arrays it was given, so round 1 tells what was before."""


def check_metrics(task: str, values: Mapping[str, object]) -> dict[str, int]:
    """Refuse anything but the task's declared metrics, all of them, each on its grid and in its range."""
    declared = METRICS[task]
    if set(values) != set(declared):
        raise InvalidInput("the metrics are not exactly those that the task declares", code="METRIC_UNDECLARED")
    checked = {}
    for name, metric in declared.items():
        value = values[name]
        if not isinstance(value, int) or isinstance(value, bool):
            raise InvalidInput(f"metric {name} is not an integer", code="METRIC_NOT_INTEGER")
        if not metric.low <= value <= metric.high or (value - metric.low) % metric.grid:
            raise InvalidInput(f"metric {name} is off its grid or out of its range", code="METRIC_OUT_OF_RANGE")
        checked[name] = value
    return checked


def _check_range(name: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        raise InvalidInput(f"the recipe's {name} is not between {low} and {high}")
