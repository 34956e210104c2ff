"""Act 1: keys, homes, delegations, and a charter that two of three founders sign."""

from __future__ import annotations

import shutil

from examples.demo.cast import Cast
from examples.demo.programs import DemoFailed
from examples.demo.settings import (
    BODIES,
    CODES,
    COORDINATOR_HOST,
    COORDINATOR_PARTY,
    DNS,
    DOMAIN,
    FOUNDERS,
    FOUNDERS_THRESHOLD,
    PUBLISHERS,
    PUBLISHERS_THRESHOLD,
    NationSettings,
)

POLICY_KEYS = ("policy-1", "policy-2")


def make_keys_and_homes(cast: Cast) -> None:
    """Every key is made where it will be used; nobody copies a private key."""
    with cast.telling.step("1. keys, the coordinator's home, five nations' homes"):
        offices = [
            *(("founders", founder.lower()) for founder in FOUNDERS),
            *(("publishers", publisher) for publisher in PUBLISHERS),
            *(("policy", key) for key in POLICY_KEYS),
        ]
        cast.several(lambda office: new_key(cast, *office), offices)
        cast.telling.say(f"{len(offices)} keys of founders, publishers and the treaty's policy")
        init_coordinator(cast, "coordinator")
        cast.each_nation(lambda nation: init_nation(cast, nation))
        cast.telling.say(f"homes of {', '.join(CODES)}; roots and persons' keys are carried away to vaults")


def new_key(cast: Cast, office: str, name: str) -> None:
    cast.foedus("key", "new", name, "--out", cast.run_dir / office)


def init_coordinator(cast: Cast, folder: str) -> None:
    cast.programs.run(
        "foedus-coordinator", "init", "--home", cast.run_dir / folder, "--party", COORDINATOR_PARTY,
        "--host", COORDINATOR_HOST, "--domain", DOMAIN, "--dns", DNS,
    )  # fmt: skip


def init_nation(cast: Cast, nation: NationSettings) -> None:
    """Root, CA and agent key; the root delegates to a person; then root and person's key leave the machine."""
    carried_in = cast.home(nation.code).parent / "root"
    cast.agent(
        nation.code, "init", "--root-dir", carried_in, "--nation", nation.code, "--domain", DOMAIN,
        "--agent", nation.agent,
    )  # fmt: skip
    persons = cast.vault(nation.code) / "persons"
    cast.foedus("key", "new", "person-1", "--out", persons)
    cast.agent(
        nation.code, "delegate", "person", "--root-dir", carried_in, "--public-key", persons / "person-1.pub",
        "--powers", "consent,overlay",
    )  # fmt: skip
    shutil.move(carried_in, cast.vault(nation.code) / "root")


def sign_charter(cast: Cast) -> None:
    """Draft, one signature too few (refused), two; then the coordinator loads it and serves."""
    with cast.telling.step("1. the charter: drafted, signed by 2 of 3 founders, in force"):
        cast.foedus("charter", "init", *charter_words(cast), "--out", cast.charter)
        sign(cast, "eu")
        refused = cast.foedus_refused("charter", "verify", cast.charter)
        cast.telling.say(f"one signature: {first_line(refused.err)}")
        sign(cast, "nato")
        cast.telling.say(cast.foedus("charter", "verify", cast.charter).out)
        cast.charter_digest = cast.foedus("charter", "digest", cast.charter).out.strip()
        if not cast.charter_digest.startswith("sha256:"):
            raise DemoFailed(f"'foedus charter digest' printed no digest: {cast.charter_digest!r}")
        cast.programs.run("foedus-coordinator", "charter", "--home", cast.coordinator_home, cast.charter)
        for role in ("operator", "publisher", "auditor"):
            cast.programs.run(
                "foedus-coordinator", "certificate", "--home", cast.coordinator_home, "--role", role,
                "--name", f"{role}-1", "--out", cast.people,
            )  # fmt: skip
        cast.start_coordinator(cast.coordinator_home)
        host, port = cast.endpoint("grpc")
        cast.telling.say(f"the coordinator serves on {host}:{port}, as operator, publisher and auditor are told")


def sign(cast: Cast, founder: str) -> None:
    cast.foedus("charter", "sign", cast.charter, "--key", cast.signing_key("founders", founder))


def charter_words(
    cast: Cast,
    *,
    founders: str = "founders",
    publishers: str = "publishers",
    policy: str = "policy",
    coordinator: str = "coordinator",
    replaced: dict[str, str] | None = None,
) -> list[object]:
    """The words of `charter init`; another folder's name swaps that office's keys for those in it.

    `replaced` maps a nation's code to the folder of the home that speaks for it.
    """
    public = {
        "--founder": [cast.run_dir / founders / f"{name.lower()}.pub" for name in FOUNDERS],
        "--publisher": [cast.run_dir / publishers / f"{name}.pub" for name in PUBLISHERS],
        "--treaty-policy": [cast.run_dir / policy / f"{name}.pub" for name in POLICY_KEYS],
    }
    words: list[object] = ["--treaty", "demo", "--domain", DOMAIN]
    words += [word for option, files in public.items() for file in files for word in (option, file)]
    words += ["--threshold", FOUNDERS_THRESHOLD, "--publishers-threshold", PUBLISHERS_THRESHOLD]
    words += ["--policy-threshold", len(POLICY_KEYS)]
    words += ["--coordinator", cast.run_dir / coordinator / "descriptor.json"]
    for code in CODES:
        home = cast.run_dir / replaced[code] if replaced and code in replaced else cast.home(code)
        words += ["--nation", home / "descriptor.json"]
    for body, members in BODIES.items():
        words += ["--body", f"{body}:{COORDINATOR_HOST}:{','.join(members)}"]
    return words


def first_line(text: str) -> str:
    """What a refused command said, without what to do next."""
    lines = text.strip().splitlines()
    return lines[0] if lines else "(nothing)"
