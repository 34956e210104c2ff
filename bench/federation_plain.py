"""The peer of a federated run: plain FedAvg in one process, without treaty, policy, sandbox, border or fixed point.

    python bench/federation_plain.py --prepared .cache/demo [--rounds 2] [--threads 2] [--json FILE]

Same base, data, held-out pairs, seeds, steps and weights as the demo's run; equal weights, since every nation trains
the same number of examples a round. Prints held-out perplexity by nation, before and after each round. The demo's run
must come within 10 % of these figures in every nation.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from examples.demo.prepare import NATIONS
from node_agent.training import lora_sft
from node_agent.training.lora_sft import Arrays, Example
from node_agent.training.pairs import Languages, read_pairs, split
from node_agent.training.supervisor import read_base_shapes
from treaty.adapter import AdapterShape
from treaty.recipe import DEFAULT_TEMPLATE, LoraSft, Precision, initial_arrays

RECIPE = LoraSft(
    rank=8,
    alpha=16,
    targets=("q_proj", "v_proj"),
    steps=8,
    batch=8,
    learning_rate_micro=3000,
    seed=20261123,
    sequence_tokens=64,
    precision=Precision.FLOAT32,
    prompt_template=DEFAULT_TEMPLATE,
    heldout_pairs=64,
)
"""The demo's recipe: LoRA r=8 on q_proj and v_proj, AdamW 3e-3, 8 local steps of 8 examples."""


@dataclass(frozen=True, slots=True)
class Nation:
    """One nation's encoded text. `ordinal` is its place in the sorted cohort, as in the plan."""

    code: str
    ordinal: int
    train: list[Example]
    heldout: list[Example]


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
    lora_sft.settle(threads)
    base, tokenizer = lora_sft.load_base(prepared / "model", RECIPE.precision)
    nations = encode_all(tokenizer, prepared / "data")
    model = lora_sft.attach(base, AdapterShape.of(RECIPE))
    arrays: Arrays = initial_arrays(RECIPE, read_base_shapes(prepared / "model"))
    figures = {nation.code: [perplexity(model, arrays, nation)] for nation in nations}
    _print_row("before", figures, 0.0)
    for round_number in range(1, rounds + 1):
        started = time.perf_counter()
        arrays = federate(model, arrays, nations, round_number)
        seconds = time.perf_counter() - started
        for nation in nations:
            figures[nation.code].append(perplexity(model, arrays, nation))
        _print_row(f"round {round_number}", figures, seconds)
    return figures


def encode_all(tokenizer: lora_sft.Tokenizer, data: Path) -> list[Nation]:
    """Every nation's pairs, split and encoded as its trainer does."""
    nations = []
    for ordinal, code in enumerate(sorted(NATIONS)):
        parts = split(read_pairs(data / f"{code}.jsonl"), RECIPE.heldout_pairs)
        languages = Languages("English", NATIONS[code][1])
        train, heldout = (
            [lora_sft.encode(tokenizer, RECIPE.evaluation, pair, languages) for pair in pairs]
            for pairs in (parts.train, parts.heldout)
        )
        nations.append(Nation(code, ordinal, train, heldout))
    return nations


def federate(model: torch.nn.Module, arrays: Arrays, nations: list[Nation], round_number: int) -> Arrays:
    """One FedAvg round with equal weights: each nation trains from `arrays`; their mean change is added."""
    deltas = [local_delta(model, arrays, nation, round_number) for nation in nations]
    return {name: arrays[name] + np.mean([delta[name] for delta in deltas], axis=0) for name in arrays}


def local_delta(model: torch.nn.Module, arrays: Arrays, nation: Nation, round_number: int) -> Arrays:
    """What one nation's local steps change."""
    lora_sft.write_arrays(model, arrays)
    lora_sft.train(model, nation.train, RECIPE, round_number=round_number, ordinal=nation.ordinal)
    return lora_sft.delta_from(model, arrays)


def perplexity(model: torch.nn.Module, arrays: Arrays, nation: Nation) -> float:
    lora_sft.write_arrays(model, arrays)
    loss = lora_sft.evaluate(model, nation.heldout)
    return math.exp(loss.nats / loss.tokens)


def _print_row(title: str, figures: Mapping[str, list[float]], seconds: float) -> None:
    cells = "  ".join(f"{code} {values[-1]:6.2f}" for code, values in figures.items())
    print(f"{title:<8} {cells}  {seconds:6.1f} s", flush=True)


if __name__ == "__main__":
    main()
