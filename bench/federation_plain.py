"""The peer of a federated run: plain FedAvg in one process, without treaty, policy, sandbox, border or fixed point.

    python -m bench.federation_plain --prepared .cache/demo [--rounds 2] [--threads 2] [--json FILE]

Same base, data, held-out pairs, seeds, steps and weights as the demo's run; equal weights, since every nation trains
the same number of examples a round. Prints held-out perplexity by nation, before and after each round. The demo's run
must come within 10 % of these figures in every nation. `bench/federation.py` asks more of the same functions.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from examples.demo.prepare import NATIONS
from examples.demo.settings import RECIPE as DEMO_RECIPE
from examples.demo.settings import SEED
from node_agent.training import lora_sft
from node_agent.training.lora_sft import Arrays, Example
from node_agent.training.pairs import Languages, read_pairs, split
from node_agent.training.supervisor import read_base_shapes
from treaty.adapter import AdapterShape
from treaty.recipe import LORA_SFT, initial_arrays, parse_recipe
from treaty.strict_json import parse

_TYPED = {**DEMO_RECIPE, "recipe": LORA_SFT, "seed": SEED, "targets": str(DEMO_RECIPE["targets"]).split(",")}
RECIPE = parse_recipe(parse(json.dumps(_TYPED).encode(), max_bytes=4096))
"""The demo's recipe: LoRA r=8 on q_proj and v_proj, AdamW 3e-3, 8 local steps of 8 examples."""


@dataclass(frozen=True, slots=True)
class Nation:
    """One nation's encoded text. `ordinal` is its place in the sorted cohort, as in the plan."""

    code: str
    ordinal: int
    train: list[Example]
    heldout: list[Example]


@dataclass(frozen=True, slots=True)
class Setting:
    """What every experiment starts from: the base with an adapter on it, its first values, and the nations."""

    model: torch.nn.Module
    initial: Arrays
    nations: tuple[Nation, ...]


def main() -> None:
    parser = argparse.ArgumentParser(description="plain FedAvg in one process")
    parser.add_argument("--prepared", type=Path, default=Path(".cache/demo"), help="what examples/demo/prepare.py made")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path, help="write the figures here too")
    arguments = parser.parse_args()
    figures = run(arguments.prepared, arguments.rounds, arguments.threads)
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


def run(prepared: Path, rounds: int, threads: int) -> dict[str, list[float]]:
    """Train and measure; perplexity by nation: before, then after each round."""
    setting = set_up(prepared, threads)
    arrays = setting.initial
    figures = {nation.code: [perplexity(setting.model, arrays, nation)] for nation in setting.nations}
    _print_row("before", figures, 0.0)
    for round_number in range(1, rounds + 1):
        started = time.perf_counter()
        deltas = [local_delta(setting.model, arrays, nation, round_number) for nation in setting.nations]
        arrays = add_mean(arrays, deltas)
        seconds = time.perf_counter() - started
        for nation in setting.nations:
            figures[nation.code].append(perplexity(setting.model, arrays, nation))
        _print_row(f"round {round_number}", figures, seconds)
    return figures


def set_up(prepared: Path, threads: int) -> Setting:
    """Load the base and encode every nation's text."""
    lora_sft.settle(threads)
    base, tokenizer = lora_sft.load_base(prepared / "model", RECIPE.precision)
    nations = tuple(_encoded(tokenizer, prepared / "data", code, place) for place, code in enumerate(sorted(NATIONS)))
    model = lora_sft.attach(base, AdapterShape.of(RECIPE))
    return Setting(model, initial_arrays(RECIPE, read_base_shapes(prepared / "model")), nations)


def _encoded(tokenizer: lora_sft.Tokenizer, data: Path, code: str, ordinal: int) -> Nation:
    """A nation's pairs, split and encoded as its trainer does."""
    parts = split(read_pairs(data / f"{code}.jsonl"), RECIPE.heldout_pairs)
    languages = Languages("English", NATIONS[code][1])
    train, heldout = (
        [lora_sft.encode(tokenizer, RECIPE.evaluation, pair, languages) for pair in pairs]
        for pairs in (parts.train, parts.heldout)
    )
    return Nation(code, ordinal, train, heldout)


def add_mean(arrays: Arrays, deltas: Iterable[Arrays]) -> Arrays:
    """FedAvg with equal weights: the mean of what the nations' local steps changed is added."""
    changes = list(deltas)
    return {name: arrays[name] + np.mean([change[name] for change in changes], axis=0) for name in arrays}


def local_delta(model: torch.nn.Module, arrays: Arrays, nation: Nation, round_number: int) -> Arrays:
    """What one nation's local steps of a round change."""
    lora_sft.write_arrays(model, arrays)
    lora_sft.train(model, nation.train, RECIPE, lora_sft.Place(round_number, nation.ordinal))
    return lora_sft.delta_from(model, arrays)


def perplexity(model: torch.nn.Module, arrays: Arrays, nation: Nation) -> float:
    """On the nation's held-out pairs."""
    lora_sft.write_arrays(model, arrays)
    loss = lora_sft.evaluate(model, nation.heldout)
    return math.exp(loss.nats / loss.tokens)


def _print_row(title: str, figures: Mapping[str, list[float]], seconds: float) -> None:
    cells = "  ".join(f"{code} {values[-1]:6.2f}" for code, values in figures.items())
    print(f"{title:<8} {cells}  {seconds:6.1f} s", flush=True)


if __name__ == "__main__":
    main()
