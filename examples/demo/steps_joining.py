"""Act 2: coordinators with swapped keys are refused; the nations join and are accepted; policies come into force."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import policies
from examples.demo.cast import Cast
from examples.demo.programs import DemoFailed
from examples.demo.settings import (
    CODES,
    COMPANION,
    DNS,
    DOMAIN,
    FOUNDERS,
    HOSTILE,
    NATIONS,
    PUBLISHERS,
    TINY_MINIMUMS,
    NationSettings,
)
from examples.demo.steps_charter import POLICY_KEYS, charter_words, init_coordinator, new_key
from examples.demo.steps_forgery import keep_a_copy

SWAPS: Final = {"publishers": "FR", "policy": "DE", "log": "IT", "nation": "JP"}
"""What is swapped, and whose agent meets it; an agent of its own for each that runs at the same time."""
WAIT_SECONDS: Final = 30


def refuse_swapped_keys(cast: Cast) -> None:
    """Four impostors, each with one office's keys swapped in the charter that it shows to a nation's agent.

    The true founders sign none of these charters, so an impostor brings founders of its own: the pinned digest is what
    an agent has against it.
    """
    with cast.telling.step("2. coordinators that swapped publisher, policy, log or nation keys: refused at join"):
        offices = [
            *(("false/founders", name.lower()) for name in FOUNDERS),
            *(("false/publishers", name) for name in PUBLISHERS),
            *(("false/policy", name) for name in POLICY_KEYS),
        ]
        cast.several(lambda office: new_key(cast, *office), offices)
        cast.programs.run(
            "foedus-agent", "--home", cast.run_dir / "false/home", "init", "--root-dir", cast.run_dir / "false/root",
            "--nation", SWAPS["nation"], "--domain", DOMAIN, "--agent", "false-1",
        )  # fmt: skip
        cast.several(lambda swap: _meet_impostor(cast, swap), SWAPS)


def _meet_impostor(cast: Cast, swap: str) -> None:
    folder = f"false/coordinator-{swap}"
    home = cast.run_dir / folder
    init_coordinator(cast, folder)
    charter = cast.run_dir / "false" / f"charter-{swap}.json"
    words = charter_words(
        cast,
        founders="false/founders",
        publishers="false/publishers" if swap == "publishers" else "publishers",
        policy="false/policy" if swap == "policy" else "policy",
        coordinator=folder,
        replaced={SWAPS["nation"]: "false/home"} if swap == "nation" else None,
    )
    cast.foedus("charter", "init", *words, "--out", charter)
    keys = [cast.signing_key("false/founders", founder.lower()) for founder in FOUNDERS[:2]]
    cast.foedus("charter", "sign", charter, "--key", keys[0], "--key", keys[1])
    cast.programs.run("foedus-coordinator", "charter", "--home", home, charter)
    name = f"impostor-{swap}"
    cast.start_coordinator(home, name)
    try:
        words = ["join", *_where(cast, home), "--charter", cast.charter_digest]
        refused = cast.programs.refused("foedus-agent", "--home", cast.home(SWAPS[swap]), *words)
    finally:
        cast.programs.stop(name)
    if "not the pinned" not in refused.err or (cast.home(SWAPS[swap]) / "membership.json").exists():
        raise DemoFailed(f"{SWAPS[swap]} refused the impostor with {swap} keys for another reason:\n{refused.err}")
    cast.telling.say(f"{swap} keys swapped: {SWAPS[swap]}'s agent finds another charter than the pinned one")


def _where(cast: Cast, home: Path) -> list[str]:
    return [
        "--coordinator", f"{DNS}:{cast.endpoint('grpc', home)[1]}",
        "--reach", f"{DNS}:{cast.endpoint('reach', home)[1]}",
    ]  # fmt: skip


def join(cast: Cast) -> None:
    """Each joins through its own relay and is let in only once an operator said so."""
    with cast.telling.step("2. five nations join; an operator accepts each; neither alone suffices"):
        cast.each_nation(lambda nation: _join(cast, nation))
        cast.several(lambda nation: cast.foedus("agent", "accept", spiffe_id(nation)), NATIONS)
        cast.telling.say("the operator accepted all five")
        keep_a_copy(cast)
        for code in CODES:
            write_settings(cast, code)
            cast.start_agent(code)
        for code in CODES:
            cast.wait_connected(code)
        cast.telling.say("all five are connected")


def _join(cast: Cast, nation: NationSettings) -> None:
    grpc_port, reach_port = cast.relayed(nation.code)
    words = ["--coordinator", f"{DNS}:{grpc_port}", "--reach", f"{DNS}:{reach_port}"]
    done = cast.agent(nation.code, "join", *words, "--charter", cast.charter_digest)
    waiting = [line for line in done.err.splitlines() if line.startswith("waiting")]
    if not waiting:
        raise DemoFailed(f"{nation.code} was let in before an operator accepted it:\n{done.err}")
    cast.telling.say(f"{nation.code}: {waiting[0].partition(';')[0]}")


def spiffe_id(nation: NationSettings) -> str:
    return f"spiffe://{nation.code.lower()}.{DOMAIN}/agent/{nation.agent}"


def write_settings(cast: Cast, code: str, **changed: object) -> None:
    """What the admin sets for the demo: a tap to inspect, tallies on request, trainers that take turns."""
    path = cast.home(code) / "settings.yaml"
    kept = [line for line in path.read_text().splitlines() if line.split(":")[0] in ("nation", "domain", "agent")]
    cast.tap(code).parent.mkdir(exist_ok=True)
    settings = {
        "tap": cast.tap(code),
        "slots_directory": cast.run_dir / "slots",
        "log_level": "info",
        "address_ranges": "127.0.0.0/8,::1/128",
        **(TINY_MINIMUMS if code in (COMPANION, HOSTILE) else {}),
        **changed,
    }
    path.write_text("\n".join([*kept, *(f"{name}: {value}" for name, value in settings.items())]) + "\n")


def put_policies_in_force(cast: Cast) -> None:
    """The treaty's bundle by its two keys; each nation's overlay by its own person."""
    with cast.telling.step("2. the treaty's policy and five overlays, signed and in force"):
        folder = cast.run_dir / "bundles"
        folder.mkdir()
        sign = ("policy", "sign", "--out", folder, "--bundle")
        keys = [word for name in POLICY_KEYS for word in ("--key", cast.signing_key("policy", name))]
        cast.foedus(*sign, policies.compiled_path("treaty"), *keys)
        cast.telling.say(cast.foedus("policy", "push", folder / "treaty-1.tar.gz", folder / "treaty-1.json").out)
        cast.each_nation(lambda nation: _load_overlay(cast, nation, folder))
        cast.programs.wait_until("every agent decides under both policies", lambda: _are_in_force(cast), WAIT_SECONDS)
        cast.telling.say("both policies are in force in all five; in each, both must allow")


def _load_overlay(cast: Cast, nation: NationSettings, folder: Path) -> None:
    compiled = policies.compiled_path(nation.code.lower())
    authority = f"nation.{nation.code}"
    cast.foedus(
        "policy", "sign", "--out", folder, "--bundle", compiled, "--authority", authority,
        "--key", cast.person_key(nation.code),
    )  # fmt: skip
    stem = folder / f"{authority}-1"
    cast.agent(nation.code, "policy", "load", f"{stem}.tar.gz", "--envelope", f"{stem}.json")


def _are_in_force(cast: Cast) -> bool:
    for code in CODES:
        revisions = cast.agent_json(code, "status")["policies"]
        if not (revisions["treaty_revision"] and revisions["overlay_revision"]):
            return False
    return True
