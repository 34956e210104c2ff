"""`python -m examples.demo`: plays the acts one after the other and stops every program, however it ends."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from examples.demo import (
    prepare,
    steps_audit,
    steps_charter,
    steps_datasets,
    steps_forgery,
    steps_joining,
    steps_publishing,
    steps_refusals,
    steps_rollout,
    steps_runs,
    steps_second_version,
)
from examples.demo.cast import Cast
from examples.demo.programs import DemoFailed, stopped_by_signals, undisturbed
from examples.demo.telling import Telling

ROOT: Final = Path(__file__).resolve().parents[2]
INTERRUPTED: Final = 130

ACTS: Final[Sequence[Callable[[Cast], None]]] = (
    steps_charter.make_keys_and_homes,
    steps_charter.sign_charter,
    steps_joining.refuse_swapped_keys,
    steps_joining.join,
    steps_joining.put_policies_in_force,
    steps_publishing.publish_first_version,
    steps_forgery.refuse_forged_versions,
    steps_rollout.roll_out_first_version,
    steps_datasets.register_datasets,
    steps_runs.evaluate,
    steps_runs.train,
    steps_refusals.refuse_purpose,
    steps_refusals.stop_hostile_trainer,
    steps_second_version.publish_run,
    steps_second_version.take_back_broken_version,
    steps_second_version.refuse_older_version,
    steps_audit.audit,
    steps_audit.look_for_canaries,
    steps_audit.write_report,
)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m examples.demo", description="the whole main job on one machine")
    parser.add_argument("--folder", type=Path, default=ROOT / ".demo", help="what it makes; its run/ is wiped first")
    parser.add_argument("--cache", type=Path, default=ROOT / ".cache" / "demo", help="model and texts, kept")
    arguments = parser.parse_args()
    telling = Telling()
    with stopped_by_signals():
        try:
            play(arguments.folder.resolve(), arguments.cache.resolve(), telling)
        except DemoFailed as err:
            print(f"\nthe demo failed after {telling.elapsed:.0f} s\n{err}", file=sys.stderr, flush=True)
            return 1
        except KeyboardInterrupt:
            print("\ninterrupted; everything that was started is stopped", file=sys.stderr, flush=True)
            return INTERRUPTED
    return 0


def play(folder: Path, cache: Path, telling: Telling) -> None:
    """All acts, from nothing. Raises: DemoFailed: something did not happen as it must."""
    with telling.step("0. the model and the texts"):
        prepared = prepare.prepare(cache)
        texts = ", ".join(f"{nation} {pairs}" for nation, pairs in prepared.pairs.items())
        telling.say(f"model {prepared.model_bytes / 1e6:.0f} MB; pairs {texts}")
    cast = Cast(folder, cache, telling)
    try:
        for act in ACTS:
            act(cast)
    finally:
        with undisturbed():
            cast.close()


if __name__ == "__main__":
    sys.exit(main())
