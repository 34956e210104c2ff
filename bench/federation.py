"""Is federation worth it? Every nation's own adapter beside the federated one, on every nation's held-out pairs.

    python -m bench.federation [--rounds 2 4] [--prepared .cache/demo] [--report .demo/report.json] [--threads 2]

Staying home is the same local steps on the same examples from the same seeds, only that nothing is averaged: what
differs between a nation's own adapter and the federated one is federation alone. Three questions are answered:

1. one model for all: does the federated adapter beat every single nation's own on the geometric mean over the nations?
2. a poor nation: Italy, cut to 40 pairs, alone for 8, 16, 24 and 32 steps (its best counts) against three federated
   rounds with the four others; target: at least 10 % less perplexity;
3. what does each nation gain or pay against staying home? That is told, whichever way it comes out.

And where the demo's report lies: are the product's figures within 10 % of these plain ones? Nothing here fails; it says
met or missed. Two rounds take about a quarter of an hour on two free cores, two and four together half an hour.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from bench.federation_plain import RECIPE, Nation, Setting, add_mean, local_delta, perplexity, set_up
from bench.rows import say
from examples.demo.prepare import prepare
from node_agent.training.lora_sft import Arrays

POOR = "IT"
POOR_PAIRS = 40
POOR_ROUNDS_ALONE = 4
POOR_ROUNDS_TOGETHER = 3
POOR_TARGET_GAIN = 0.10
REPORT_TOLERANCE = 0.10

Figures = dict[str, float]
"""Held-out perplexity by nation."""


@dataclass(slots=True)
class Study:
    """Trains and measures, and says how far it is. What was trained once is kept: the rounds of a longer run begin
    with those of a shorter one, and a poor nation's partners train in the first round as they always do."""

    setting: Setting
    together: list[Arrays] = field(default_factory=list)
    """The federated arrays after each round; the first entry is where all start."""
    first_deltas: dict[str, Arrays] = field(default_factory=dict)
    started: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self.together.append(self.setting.initial)

    def delta(self, arrays: Arrays, nation: Nation, round_number: int, what: str) -> Arrays:
        change = local_delta(self.setting.model, arrays, nation, round_number)
        say(f"{time.monotonic() - self.started:6.0f} s  trained {what}, {nation.code}, round {round_number}")
        return change

    def measure(self, arrays: Arrays, what: str) -> Figures:
        """Perplexity of `arrays` in every nation."""
        figures = {nation.code: perplexity(self.setting.model, arrays, nation) for nation in self.setting.nations}
        say(f"{time.monotonic() - self.started:6.0f} s  measured {what}")
        return figures

    def federated(self, rounds: int) -> Arrays:
        """The federated arrays after `rounds`."""
        while len(self.together) <= rounds:
            number, arrays = len(self.together), self.together[-1]
            deltas = {n.code: self.delta(arrays, n, number, "together") for n in self.setting.nations}
            self.first_deltas = self.first_deltas or deltas
            self.together.append(add_mean(arrays, deltas.values()))
        return self.together[rounds]

    def at_home(self, nation: Nation, arrays: Arrays, round_number: int) -> Arrays:
        """One more round of local steps without anybody else."""
        return add_mean(arrays, [self.delta(arrays, nation, round_number, "at home")])

    def federated_with(self, poor: Nation, rounds: int) -> Arrays:
        """The federated arrays where `poor` stands for its nation."""
        self.federated(1)
        deltas = {**self.first_deltas, poor.code: self.delta(self.setting.initial, poor, 1, "poor together")}
        arrays = add_mean(self.setting.initial, deltas.values())
        nations = [poor if nation.code == poor.code else nation for nation in self.setting.nations]
        for number in range(2, rounds + 1):
            arrays = add_mean(arrays, [self.delta(arrays, nation, number, "poor together") for nation in nations])
        return arrays


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, nargs="+", default=[2, 4], choices=range(1, 9), metavar="N")
    parser.add_argument("--prepared", type=Path, default=Path(".cache/demo"), help="model and texts, made if missing")
    parser.add_argument("--report", type=Path, default=Path(".demo/report.json"), help="the demo's, compared if there")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    prepare(arguments.prepared)
    study = Study(set_up(arguments.prepared, arguments.threads))
    before = study.measure(study.setting.initial, "the base")
    federated = compare_nations(study, sorted(set(arguments.rounds)), before)
    compare_poor(study)
    compare_report(arguments.report, before, federated)


def compare_nations(study: Study, all_rounds: Sequence[int], before: Figures) -> dict[int, Figures]:
    """Print question 1 and 3 for each number of rounds; the federated figures by round."""
    own = {nation.code: study.setting.initial for nation in study.setting.nations}
    measured: dict[int, Figures] = {}
    for number in range(1, all_rounds[-1] + 1):
        measured[number] = study.measure(study.federated(number), f"together after round {number}")
        own = {nation.code: study.at_home(nation, own[nation.code], number) for nation in study.setting.nations}
        if number in all_rounds:
            alone = {code: study.measure(arrays, f"{code}'s own after round {number}") for code, arrays in own.items()}
            print_matrix(number, before, alone, measured[number])
    return measured


def print_matrix(rounds: int, before: Figures, alone: Mapping[str, Figures], federated: Figures) -> None:
    """The 5 × 5 matrix with the federated adapter under it, and what federation brings."""
    codes = list(before)
    print(f"\nheld-out perplexity after {rounds} rounds of local steps")
    print(f"{'adapter of':<18}" + "".join(f"{'in ' + code:>9}" for code in codes) + f"{'geometric mean':>18}")
    for name, figures in (("nobody (the base)", before), *alone.items(), ("all, federated", federated)):
        print(f"{name:<18}" + "".join(f"{figures[code]:9.2f}" for code in codes) + f"{geometric_mean(figures):18.2f}")
    gains = {code: 1 - federated[code] / alone[code][code] for code in codes}
    print(f"{'gain over home':<18}" + "".join(f"{gains[code]:>+9.1%}" for code in codes))
    print("  " + "; ".join(f"{code} {'gains' if gain > 0 else 'pays'} {abs(gain):.1%}" for code, gain in gains.items()))
    best = min(alone, key=lambda code: geometric_mean(alone[code]))
    ours, theirs = geometric_mean(federated), geometric_mean(alone[best])
    print(
        f"target: federated {ours:.2f} below the best single adapter ({best}) {theirs:.2f}: {_verdict(ours < theirs)}"
    )


def compare_poor(study: Study) -> None:
    """Print question 2."""
    whole = next(nation for nation in study.setting.nations if nation.code == POOR)
    poor = replace(whole, train=whole.train[:POOR_PAIRS])
    print(f"\n{POOR} with {POOR_PAIRS} pairs, held-out perplexity in {POOR}")
    arrays, alone = study.setting.initial, []
    for number in range(1, POOR_ROUNDS_ALONE + 1):
        arrays = study.at_home(poor, arrays, number)
        alone.append(perplexity(study.setting.model, arrays, poor))
        print(f"  alone, {number * RECIPE.steps:2} steps      {alone[-1]:6.2f}", flush=True)
    together = perplexity(study.setting.model, study.federated_with(poor, POOR_ROUNDS_TOGETHER), poor)
    gain = 1 - together / min(alone)
    print(f"  {POOR_ROUNDS_TOGETHER} federated rounds  {together:6.2f}")
    verdict = _verdict(gain >= POOR_TARGET_GAIN)
    print(f"target: at least {POOR_TARGET_GAIN:.0%} better than its best alone: {gain:+.1%}: {verdict}", flush=True)


def compare_report(path: Path, before: Figures, federated: Mapping[int, Figures]) -> None:
    """Print the product's figures beside the plain ones, if the demo has left a report."""
    try:
        nations = json.loads(path.read_text(encoding="utf-8"))["nations"]
    except FileNotFoundError:
        print(f"\nno report of the demo at {path}: run `make demo` to compare the product with this plain process")
        return
    print("\nproduct / plain FedAvg: held-out perplexity by nation, before and after each round")
    worst = 0.0
    for code, nation in sorted(nations.items()):
        pairs = list(zip(nation["heldout_perplexity"], [before, *federated.values()], strict=False))
        cells = [f"{product:7.2f} /{plain[code]:6.2f}" for product, plain in pairs]
        worst = max(worst, *(abs(product / plain[code] - 1) for product, plain in pairs))
        print(f"  {code}  " + "   ".join(cells))
    print(f"target: within {REPORT_TOLERANCE:.0%}: {worst:.1%} at most: {_verdict(worst <= REPORT_TOLERANCE)}")


def geometric_mean(figures: Figures) -> float:
    return math.exp(math.fsum(map(math.log, figures.values())) / len(figures))


def _verdict(is_met: bool) -> str:
    return "met" if is_met else "missed"


if __name__ == "__main__":
    main()
