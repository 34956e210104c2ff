"""Act 8: the aggregate becomes version 2 behind a gate; a scrambled version 3 fails that gate and is taken back."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Final

from examples.demo.cast import Cast
from examples.demo.findings import Refusal, Rollback
from examples.demo.programs import DemoFailed
from examples.demo.settings import CLASSIFICATION, CODES, PURPOSE, REL_TO, SEED, WAVES
from examples.demo.steps_publishing import add_second_signature, condition, digest_of, model, publish, ref
from examples.demo.steps_rollout import HEALTH, begin, follow, noted_version, roll_out
from examples.demo.steps_runs import TRAINING

GATE: Final = f"{PURPOSE}:0"
"""Held-out loss in the nation must not be worse than the fallback's."""

RETURN_SECONDS: Final = 120
"""A fallback is loaded again like any version."""

DATASETS: Final = [word for code in CODES for word in ("--dataset", f"{code}:{CLASSIFICATION}:{','.join(REL_TO)}")]


def publish_run(cast: Cast) -> None:
    with cast.telling.step("8. version 2.0.0 from the training run: base and adapter, signed, gated, rolled out"):
        publish(cast, "2.0.0", None, "--from-run", TRAINING, *DATASETS, "--keep", _adapter(cast))
        add_second_signature(cast, "2.0.0")
        with noted_version(cast, "2.0.0"):
            roll_out(cast, "second", "2.0.0", *HEALTH, "--evaluate", GATE, "--fallback", ref("1.0.0"))


def take_back_broken_version(cast: Cast) -> None:
    """Valid signatures, scrambled weights: the first wave's gate fails, nobody else ever sees it.

    It is measured and not prompted: scrambled weights may also answer a prompt with nothing.
    """
    with cast.telling.step("8. version 3.0.0, deliberately scrambled: fails the gate in the first wave, taken back"):
        scrambled = cast.run_dir / "adapters" / "scrambled"
        scramble(_adapter(cast), scrambled)
        publish(cast, "3.0.0", scrambled, "--base", ref("1.0.0"), *DATASETS)
        add_second_signature(cast, "3.0.0")
        with noted_version(cast, "3.0.0"):
            begin(cast, "third", "3.0.0", "--evaluate", GATE, "--fallback", ref("2.0.0"))
            follow(cast, "third")
        _check_taken_back(cast)


def refuse_older_version(cast: Cast) -> None:
    """1.0.0 again, in a nation that settled on 2.0.0: none of its consents names 1.0.0 any more."""
    with cast.telling.step("8. a nation settles on 2.0.0; the older 1.0.0, sent again: refused by its agent"):
        nation = WAVES[1][1][0]
        cast.foedus("rollout", "create", "settled", "--model", ref("2.0.0"), "--wave", nation, "--fallback", "none")
        follow(cast, "settled")
        cast.foedus("rollout", "create", "older", "--model", ref("1.0.0"), "--wave", nation, "--fallback", ref("2.0.0"))
        follow(cast, "older")
        entry = _entries(cast, "older")[nation]
        if entry["state"] != "Refused":
            raise DemoFailed(f"{nation} should have refused the older version; it is {entry}")
        found = [each for each in cast.agent_json(nation, "status")["rollouts"] if each["rollout"] == "older"]
        codes = tuple(found[-1]["codes"]) if found else ()
        cast.findings.refusals.append(Refusal(nation, "model.admit", codes))
        cast.telling.say(f"{nation} refused {ref('1.0.0')}: {', '.join(codes)}")


def scramble(source: Path, target: Path) -> None:
    """Copy an adapter with the values of each tensor shuffled and enlarged: well formed and useless."""
    import numpy as np
    from safetensors.numpy import load_file, save_file

    shutil.copytree(source, target)
    generator = np.random.default_rng(SEED)
    for path in sorted(target.glob("*.safetensors")):
        tensors = load_file(path)
        shuffled = {name: generator.permuted(value.reshape(-1)).reshape(value.shape) for name, value in tensors.items()}
        save_file({name: (value * 8).astype(tensors[name].dtype) for name, value in shuffled.items()}, path)


def _adapter(cast: Cast) -> Path:
    return cast.run_dir / "adapters" / "trained"


def _entries(cast: Cast, rollout: str) -> dict[str, dict[str, str]]:
    return {entry["nation"]: entry for entry in cast.resource("rollouts", rollout)["status"]["nations"]}


def _check_taken_back(cast: Cast) -> None:
    """Raises: DemoFailed: it was not taken back, or a later wave saw it."""
    if condition(cast.resource("rollouts", "third"), "Aborted")["status"] != "True":
        raise DemoFailed("the rollout of the scrambled version was not aborted")
    broken, good = digest_of(model(cast, "3.0.0")), digest_of(model(cast, "2.0.0"))
    cast.programs.wait_until(
        f"all five serve {ref('2.0.0')}",
        lambda: all(cast.agent_json(code, "status")["serving"] == good for code in CODES),
        RETURN_SECONDS,
    )
    entries = _entries(cast, "third")
    first, later = WAVES[0][1], [code for _, codes in WAVES[1:] for code in codes]
    reasons = []
    for code in CODES:
        status = cast.agent_json(code, "status")
        told = [each for each in status["rollouts"] if each["rollout"] == "third"]
        if code in later and (told or entries[code]["state"] != "Pending"):
            raise DemoFailed(f"{code} is in a later wave and saw the scrambled version: {entries[code]}")
        if code in first:
            reasons += [each for entry in told for each in entry["codes"]]
            cast.telling.say(f"{code} {entries[code]['state']}: {', '.join(told[-1]['codes']) if told else ''}")
    if "GATE_WORSE" not in reasons:
        raise DemoFailed(f"the scrambled version {broken} was taken back for another reason: {reasons}")
    cast.findings.rollback = Rollback(ref("3.0.0"), 1, "GATE_WORSE")
    cast.telling.say(f"all five serve {ref('2.0.0')} again; {', '.join(later)} never heard of {ref('3.0.0')}")
