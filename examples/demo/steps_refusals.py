"""Act 7: what must not happen does not: a purpose that DE forbids, and a trainer that wants sentences outside."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

from examples.demo.cast import Cast
from examples.demo.findings import Blocked, OpenChannel, Refusal
from examples.demo.programs import DemoFailed
from examples.demo.settings import CODES, COMPANION, HOSTILE, PURPOSE, RECIPE, REFUSED_PURPOSE, SEED, TINY_RECIPE
from examples.demo.steps_joining import write_settings
from examples.demo.steps_runs import TRAINING, run_words

FORBIDDEN: Final = "forbidden"
THEFT: Final = "theft"
REFUSING: Final = "DE"


def refuse_purpose(cast: Cast) -> None:
    """All five are needed, DE's overlay says no: nothing is stored and nothing is loaded."""
    with cast.telling.step(f"7. a run for {REFUSED_PURPOSE}: stopped at its quorum by {REFUSING}'s overlay"):
        words = [*run_words(FORBIDDEN, "train", REFUSED_PURPOSE, CODES, RECIPE), "--rounds", 1]
        refused = cast.foedus_refused("run", "start", *words, "--yes")
        cast.telling.say(refused.err)
        planned = cast.programs.attempt("foedus", "run", "plan", *words, "-o", "json", env=cast.identity("operator"))
        answers = json.loads(planned.out)["nations"]
        denied = {code: tuple(answer["codes"]) for code, answer in answers.items() if answer["verdict"] != "allow"}
        if set(denied) != {REFUSING} or f"{REFUSING}-001" not in denied[REFUSING]:
            raise DemoFailed(f"only {REFUSING} should have refused, by its overlay; refused have {denied}")
        cast.findings.refusals.append(Refusal(REFUSING, "dataset.use", denied[REFUSING]))
        cast.foedus_refused("get", "federatedruns", FORBIDDEN)
        cast.telling.say(
            f"{REFUSING} refused with {', '.join(denied[REFUSING])}; no run was stored, nothing was loaded"
        )


def stop_hostile_trainer(cast: Cast) -> None:
    """One way out a round, tried for real by a program in the trainer's place; the agent goes on after each."""
    from node_agent.training.replies import open_channel_bits
    from tests.node_agent.training import hostile_trainer

    attacks = [attack.__name__ for attack in hostile_trainer.ATTACKS if attack.__name__ != "tensor_values"]
    with cast.telling.step(f"7. {HOSTILE}'s trainer replaced by a hostile one: {len(attacks)} ways out, one a round"):
        _replace_trainer(cast, str(Path(hostile_trainer.__file__).resolve()))
        words = run_words(THEFT, "train", PURPOSE, tuple(sorted((COMPANION, HOSTILE))), TINY_RECIPE, quorum=1)
        words[words.index("--seed") + 1] = 0
        cast.follow(
            "run", "start", *words, "--rounds", len(attacks), "--yes", "--follow",
            say=lambda line: cast.telling.say(line) if line.startswith(f"{HOSTILE} ") and "Failed" in line else None,
        )  # fmt: skip
        _note_blocked(cast, attacks)
        _replace_trainer(cast, None)
        shapes = _adapter_shapes(cast)
        for channel, bits in open_channel_bits("train", shapes).items():
            cast.findings.open_channels.append(OpenChannel(channel, bits))
            cast.telling.say(
                f"open: {channel}, at most {bits:,} bits a round; only noise narrows it (not in this version)"
            )


def _replace_trainer(cast: Cast, program: str | None) -> None:
    cast.stop_agent(HOSTILE)
    write_settings(cast, HOSTILE, **({"trainer_program": program} if program else {}))
    cast.start_agent(HOSTILE)
    cast.wait_connected(HOSTILE)


def _note_blocked(cast: Cast, attacks: list[str]) -> None:
    """Raises: DemoFailed: an attempt was not refused, or left something behind."""
    status = cast.resource("federatedruns", THEFT)["status"]
    refused = [entry["codes"] for entry in status["refusals"] if entry["nation"] == HOSTILE]
    through = [done["round"] for done in status["roundsDone"] if HOSTILE in done["nations"]]
    if through or len(refused) < len(attacks):
        raise DemoFailed(f"{len(refused)} of {len(attacks)} ways out were refused; through came rounds {through}")
    for attack, codes in zip(attacks, refused, strict=False):
        cast.findings.blocked.append(Blocked(attack.replace("_", "-"), ",".join(codes)))
        cast.telling.say(f"{attack.replace('_', ' '):15} stopped: {', '.join(codes)}")
    leaks = list(cast.home(HOSTILE).rglob("leak*"))
    if leaks:
        raise DemoFailed(f"the hostile trainer left {leaks}")


def _adapter_shapes(cast: Cast) -> dict[str, tuple[int, int]]:
    """Of the training run's adapter, as its recorded plan states them."""
    from treaty.recipe import adapter_shapes, parse_recipe
    from treaty.safetensors_header import read_header

    recipe = parse_recipe(
        {"recipe": "lora-sft", "seed": SEED, **RECIPE, "targets": str(RECIPE["targets"]).split(",")}  # type: ignore[dict-item]
    )
    header = read_header(cast.prepared / "model" / "model.safetensors")
    if not cast.resource("federatedruns", TRAINING)["status"].get("planDigest"):
        raise DemoFailed("the training run has no plan")
    return adapter_shapes(recipe, {tensor.name: tensor.shape for tensor in header.tensors})
