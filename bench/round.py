"""A tiny federated round of two nations with policy, sandbox, receipts and record: how long, and where its time goes.

    python -m bench.round [--rounds 20] [--json]

A Llama of a few kilobytes, one step of one example and one held-out pair a round, by the real programs: coordinator,
its worker, two agents and their confined trainers, over mutual TLS on loopback. A round lasts from one round's arrays
on the coordinator's disk to the next one's; the first is left out, since trainers and libraries start in it. The median
counts.

Of it, training is what a nation's trainer computes: the same step and measurement in a plain process of its own, on one
thread. The rest is ours: directives, pulls, decisions, clipping, receipts, the spool, the sum, the record.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from itertools import pairwise
from pathlib import Path

from bench import rows
from bench.rows import Row, say
from bench.stage import NATIONS, Stage
from tests.builders.tiny_llama import build_tiny_llama, write_pairs
from treaty.recipe import DEFAULT_TEMPLATE, LoraSft, Precision

TARGET_SECONDS = 0.1
PURPOSE = "public-administration-translation"
RUN = "bench"
PAIRS = 40
MOST_SECONDS = 5.0
"""A round that takes longer has stopped."""

RECIPE = LoraSft(
    rank=1,
    alpha=1,
    targets=("q_proj", "v_proj"),
    steps=1,
    batch=1,
    learning_rate_micro=3000,
    seed=0,
    sequence_tokens=64,
    precision=Precision.FLOAT32,
    prompt_template=DEFAULT_TEMPLATE,
    heldout_pairs=1,
)
SET_FIELDS = ("rank", "alpha", "steps", "batch", "learning_rate_micro", "sequence_tokens", "heldout_pairs")


def main() -> None:
    parser = rows.parser(__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="foedus-bench-") as folder:
        model = build_tiny_llama(Path(folder) / "model")
        pairs = {code: write_pairs(Path(folder) / f"{code}.jsonl", PAIRS, language=code.lower()) for code in NATIONS}
        whole = statistics.median(federated_rounds(Path(folder), model, pairs, max(3, chosen.rounds)))
        training = plain_round(model, pairs["FR"])
    control = whole - training
    rows.show(
        [
            Row(
                "tiny round, two nations",
                f"{whole:.3f} s",
                f"training alone {training:.3f} s",
                f"{whole / training:.1f}×",
                f"≤ {TARGET_SECONDS} s",
                whole <= TARGET_SECONDS,
            ),
            Row("tiny round, without its training", f"{control:.3f} s"),
        ],
        as_json=chosen.json,
    )


def federated_rounds(folder: Path, model: Path, pairs: dict[str, Path], rounds: int) -> list[float]:
    """Seconds of each round but the first."""
    stage = Stage(folder)
    try:
        stage.found()
        stage.start_coordinator()
        stage.join()
        for code in NATIONS:
            stage.start_agent(code)
        stage.put_policies_in_force()
        stage.serve_model(model)
        for code in NATIONS:
            stage.register_dataset(code, pairs[code], PURPOSE)
        words = ["--task", "train", "--purpose", PURPOSE, "--rounds", rounds, "--clip-norm-micro", 20_000_000]
        values = RECIPE.to_json()
        words += [word for name in SET_FIELDS for word in ("--set", f"{name}={values[name]}")]
        stage.start_run(RUN, *words, "--set", "targets=q_proj,v_proj")
        arrays = [
            stage.coordinator / "runs" / RUN / "arrays" / str(number) / "arrays.safetensors"
            for number in range(1, rounds + 1)
        ]
        stage.await_file(arrays[0])
        before = stage.cpu_seconds()
        stage.await_file(arrays[-1], MOST_SECONDS * rounds)
        after = stage.cpu_seconds()
        stage.await_run(RUN)
        seconds = [end.stat().st_mtime - begin.stat().st_mtime for begin, end in pairwise(arrays)]
    finally:
        stage.close()
    say("rounds: " + " ".join(f"{each:.2f}" for each in seconds) + " s")
    used = {name: (after[name] - before[name]) / (rounds - 1) for name in before}
    say("CPU time of a round: " + ", ".join(f"{name} {each:.3f} s" for name, each in used.items()))
    return seconds


def plain_round(model_dir: Path, pairs: Path) -> float:
    """The median of what one nation's trainer computes in a round, without everything around it."""
    from node_agent.training import lora_sft
    from node_agent.training.pairs import Languages, read_pairs, split
    from node_agent.training.supervisor import read_base_shapes
    from treaty.adapter import AdapterShape
    from treaty.recipe import initial_arrays

    lora_sft.settle(1)
    base, tokenizer = lora_sft.load_base(model_dir, RECIPE.precision)
    model = lora_sft.attach(base, AdapterShape.of(RECIPE))
    parts = split(read_pairs(pairs), RECIPE.heldout_pairs)
    train, heldout = (
        [lora_sft.encode(tokenizer, RECIPE.evaluation, pair, Languages("English", "French")) for pair in given]
        for given in (parts.train, parts.heldout)
    )
    arrays = initial_arrays(RECIPE, read_base_shapes(model_dir))
    seconds = []
    for number in range(1, 21):
        began = time.perf_counter()
        lora_sft.write_arrays(model, arrays)
        lora_sft.evaluate(model, heldout)
        lora_sft.train(model, train, RECIPE, lora_sft.Place(number, 0))
        lora_sft.delta_from(model, arrays)
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)


if __name__ == "__main__":
    main()
