"""Act 6: the plan first, then an evaluation in which no tensor leaves, then two rounds of federated training."""

from __future__ import annotations

import math
from typing import Any

from examples.demo.cast import Cast
from examples.demo.programs import DemoFailed
from examples.demo.settings import (
    CLIP_NORM_MICRO,
    CODES,
    MAX_PERPLEXITY_RATIO,
    PURPOSE,
    RECIPE,
    ROUND_DEADLINE_SECONDS,
    ROUNDS,
    SEED,
)
from examples.demo.steps_publishing import condition, ref

EVALUATION = "baseline"
TRAINING = "training"


def evaluate(cast: Cast) -> None:
    with cast.telling.step("6. an evaluation run: each nation measures on its own held-out pairs, no tensor leaves"):
        words = run_words(EVALUATION, "evaluate", PURPOSE, CODES, RECIPE)
        start(cast, EVALUATION, words)
        for code, perplexity in _perplexities(cast, EVALUATION)[0].items():
            cast.telling.say(f"{code}: held-out perplexity {perplexity:.1f}")


def train(cast: Cast) -> None:
    """Two rounds; the third only measures. Raises: DemoFailed: a nation's perplexity did not halve."""
    with cast.telling.step(f"6. federated training: {ROUNDS} rounds of FedAvg over LoRA adapters"):
        words = [*run_words(TRAINING, "train", PURPOSE, CODES, RECIPE), "--rounds", ROUNDS]
        start(cast, TRAINING, words)
        measured = _perplexities(cast, TRAINING)
        cast.telling.say(f"{'':4}{'before':>10}{'round 1':>10}{'round 2':>10}")
        for code in CODES:
            values = [one[code] for one in measured]
            cast.findings.nations[code].heldout_perplexity = [round(value, 2) for value in values]
            cast.telling.say(f"{code:4}" + "".join(f"{value:10.1f}" for value in values))
            if values[-1] > MAX_PERPLEXITY_RATIO * values[0]:
                raise DemoFailed(f"{code}'s perplexity fell from {values[0]:.1f} to {values[-1]:.1f} only")


def run_words(
    name: str, task: str, purpose: str, codes: tuple[str, ...], recipe: dict[str, object], quorum: int = 0
) -> list[object]:
    """What is typed after `run plan` or `run start`."""
    words: list[object] = [name, "--task", task, "--purpose", purpose, "--model", ref("1.0.0")]
    words += ["--nations", ",".join(codes), "--quorum", quorum or len(codes), "--seed", SEED]
    words += ["--deadline", ROUND_DEADLINE_SECONDS, "--clip-norm-micro", CLIP_NORM_MICRO]
    return words + [word for field, value in recipe.items() for word in ("--set", f"{field}={value}")]


def start(cast: Cast, name: str, words: list[object]) -> dict[str, Any]:
    """Start and follow a run; the ended resource. Raises: DemoFailed: it did not succeed."""
    cast.follow("run", "start", *words, "--yes", "--follow")
    ended = cast.resource("federatedruns", name)
    if condition(ended, "Succeeded")["status"] != "True":
        raise DemoFailed(f"run {name} did not succeed: {ended['status']}")
    return ended


def _perplexities(cast: Cast, run: str) -> list[dict[str, float]]:
    """By round, by nation: the exponential of the mean held-out loss of the arrays that the round began with."""
    rounds = cast.resource("federatedruns", run)["status"]["roundsDone"]
    measured = []
    for done in sorted(rounds, key=lambda each: int(each["round"])):
        losses = {entry["nation"]: entry["values"]["heldout_loss_micro"] for entry in done["metrics"]}
        if set(losses) != set(CODES):
            raise DemoFailed(f"round {done['round']} of {run} was measured by {sorted(losses)} only")
        measured.append({code: math.exp(losses[code] / 1e6) for code in CODES})
    return measured
