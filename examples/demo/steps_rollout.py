"""Act 4: the version goes out in waves; an operator lets each wave begin, and JP's person consents."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from examples.demo.cast import Cast
from examples.demo.findings import Version
from examples.demo.programs import DemoFailed
from examples.demo.settings import CODES, ROLLOUT_DEADLINE_SECONDS, WAITS_FOR_A_PERSON, WAVES
from examples.demo.steps_publishing import condition, digest_of, model, ref, size_of

HEALTH: Final = ("--health-prompt", "The capital of France is")


def roll_out_first_version(cast: Cast) -> None:
    with cast.telling.step("4. rollout of 1.0.0 in three waves; gates: health, an operator's approval of each wave"):
        with noted_version(cast, "1.0.0"):
            roll_out(cast, "first", "1.0.0", *HEALTH, "--approval", "--fallback", "none")


def roll_out(cast: Cast, name: str, version: str, *words: object) -> dict[str, Any]:
    """Create a rollout, follow it to its end, answer for those who are waited for; the ended resource.

    Raises: DemoFailed: it did not succeed in all five nations.
    """
    begin(cast, name, version, *words)
    is_waiting_shown = follow(cast, name)
    ended = cast.resource("rollouts", name)
    if condition(ended, "Succeeded")["status"] != "True":
        raise DemoFailed(f"rollout {name} did not succeed: {ended['status']}")
    if not is_waiting_shown:
        raise DemoFailed(f"{WAITS_FOR_A_PERSON} did not wait for a person's consent in rollout {name}")
    for code in CODES:
        serving = cast.agent_json(code, "status")["serving"]
        if serving != digest_of(model(cast, version)):
            raise DemoFailed(f"{code} observes itself serving {serving}, not {ref(version)}")
    cast.telling.say(f"all five observe themselves serving {ref(version)}")
    return ended


def begin(cast: Cast, name: str, version: str, *words: object) -> None:
    waves = [word for wave, codes in WAVES for word in ("--wave", f"{wave}={','.join(codes)}")]
    cast.foedus(
        "rollout", "create", name, "--model", ref(version), *waves, "--concurrency", 2, "--soak", 1,
        "--deadline", ROLLOUT_DEADLINE_SECONDS, *words,
    )  # fmt: skip


def follow(cast: Cast, name: str) -> bool:
    """Show the rollout until it ends, and answer who is waited for; whether a person was."""
    waiting_waves = [wave for wave, _ in WAVES[1:]]
    was_waited_for = False

    def react(line: str) -> None:
        nonlocal was_waited_for
        cast.telling.say(line)
        if "AwaitingApproval" in line and waiting_waves:
            wave = waiting_waves.pop(0)
            cast.telling.say(cast.foedus("rollout", "resume", name, "--wave", wave).out)
        if line.startswith(f"{WAITS_FOR_A_PERSON} AwaitingConsent"):
            was_waited_for = True
            approve_as_person(cast, name)

    # It ends with 1 where the rollout was taken back, which some steps are about; they look at the nations themselves.
    cast.follow("rollout", "status", name, "--watch", say=_once(react), must_succeed=False)
    return was_waited_for


def approve_as_person(cast: Cast, rollout: str) -> None:
    """Show what the nation's admin sees, then sign with that person's own key."""
    code = WAITS_FOR_A_PERSON
    waiting = [entry for entry in cast.agent_json(code, "status")["approvals"] if entry["rollout"] == rollout]
    if not waiting:
        raise DemoFailed(f"{code}'s status shows nobody whom rollout {rollout} waits for")
    cast.telling.say(f"{code} waits for a person ({', '.join(waiting[0]['codes'])}); the person signs with their key:")
    seen = ("--version", waiting[0]["digest"])
    done = cast.agent(code, "approve", rollout, *seen, "--key", cast.person_key(code))
    cast.telling.say(done.err)


@contextmanager
def noted_version(cast: Cast, version: str) -> Iterator[None]:
    """Keep the version's size, and what came in over one nation's border meanwhile, as its relay counted it."""
    relay = cast.relays[WAVES[0][1][0]]
    before = relay.passed.into
    yield
    found = model(cast, version)
    transferred = relay.passed.into - before
    cast.findings.versions.append(Version(ref(version), digest_of(found), size_of(found), transferred))
    cast.telling.say(
        f"{ref(version)}: {size_of(found):,} bytes, {transferred:,} came in over {WAVES[0][1][0]}'s border"
    )


def _once(react: Callable[[str], None]) -> Callable[[str], None]:
    """A state that is told again (the tree repeats it) is reacted to once."""
    seen: set[str] = set()

    def first_time(line: str) -> None:
        told = line.rstrip()
        if told not in seen:
            seen.add(told)
            react(told)

    return first_time
