"""Act 3, its other half: an agent against a coordinator that offers it versions which nobody rightly signed.

The agent is a copy of FR's as it joined, so that nothing of this stays in FR; the coordinator is a hostile program with
all of the coordinator's keys. Whoever holds those still cannot bring a version in.
"""

from __future__ import annotations

import asyncio
import base64
import json
import shutil
import sys
from pathlib import Path
from typing import Final

from examples.demo.cast import Cast
from examples.demo.findings import Refusal
from examples.demo.programs import DemoFailed
from examples.demo.settings import DNS, PUBLISHERS
from examples.demo.steps_publishing import ref

VICTIM: Final = "FR"
START_SECONDS: Final = 30
ANSWER_SECONDS: Final = 60


def keep_a_copy(cast: Cast) -> None:
    """Copy FR's home as it is now, joined and not yet running."""
    shutil.copytree(cast.home(VICTIM), _copy(cast))


def refuse_forged_versions(cast: Cast) -> None:
    with cast.telling.step("3. a hostile coordinator offers unsigned, under-signed, tampered and foreign versions"):
        offers = cast.run_dir / "false" / "offers"
        offers.mkdir(parents=True)
        for name, envelope in forgeries(cast, fetch_manifest(cast, "1.0.0")).items():
            (offers / f"{name}.json").write_bytes(envelope)
        daemon = cast.programs.start(
            "hostile-coordinator", Path(sys.executable).name, "-m", "examples.demo.hostile_coordinator",
            "--home", cast.coordinator_home, "--charter", cast.charter, "--offers", offers,
        )  # fmt: skip
        cast.programs.wait_until("the hostile coordinator listens", lambda: bool(_told(daemon.log)), START_SECONDS)
        membership = json.loads((_copy(cast) / "membership.json").read_text())
        membership["coordinator"] = f"{DNS}:{_told(daemon.log)[0]['port']}"
        (_copy(cast) / "membership.json").write_text(json.dumps(membership, separators=(",", ":"), sort_keys=True))
        cast.programs.start("victim", "foedus-agent", "run", "--home", _copy(cast))
        wanted = {path.stem for path in offers.iterdir()}
        cast.programs.wait_until(
            "the agent answers every offer", lambda: len(_told(daemon.log)) > len(wanted), ANSWER_SECONDS
        )
        cast.programs.stop("victim")
        cast.programs.stop("hostile-coordinator")
        _note(cast, {str(said["offer"]): said["codes"] for said in _told(daemon.log)[1:]}, wanted)


def fetch_manifest(cast: Cast, version: str) -> bytes:
    """The signed manifest as the coordinator holds it."""
    from controlplane.cli.client import connected
    from controlplane.cli.settings import Context

    known = cast.identity("operator")
    context = Context(*(known[f"FOEDUS_{name}"] for name in ("COORDINATOR", "CERT", "KEY", "CA", "CHARTER")))

    async def fetch() -> bytes:
        async with connected(context, "0" * 32) as client:
            return await client.manifest(ref(version))

    return asyncio.run(fetch())


def forgeries(cast: Cast, signed: bytes) -> dict[str, bytes]:
    """The version without a signature, with one of two, changed after signing, and signed by impostors."""
    from treaty import statement
    from treaty.keys import read_signing_key

    envelope = json.loads(signed)
    payload = base64.b64decode(envelope["payload"])
    changed = payload.replace(b'"Apache-2.0"', b'"Apache-2.1"')
    if changed == payload:
        raise DemoFailed("the manifest holds no licence to tamper with")
    keys = [read_signing_key(cast.signing_key("false/publishers", name)) for name in PUBLISHERS[:2]]
    return {
        "unsigned": _encoded({**envelope, "signatures": []}),
        "under-signed": _encoded({**envelope, "signatures": envelope["signatures"][:1]}),
        "tampered": _encoded({**envelope, "payload": base64.b64encode(changed).decode()}),
        "foreign": statement.sign(statement.unverified(signed), keys),
    }


def _encoded(envelope: dict[str, object]) -> bytes:
    return json.dumps(envelope, separators=(",", ":"), sort_keys=True).encode()


def _told(log: Path) -> list[dict[str, object]]:
    """The lines of JSON that the hostile coordinator has printed so far."""
    return [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{") and line.endswith("}")]


def _note(cast: Cast, answers: dict[str, object], wanted: set[str]) -> None:
    """Raises: DemoFailed: an offer was accepted."""
    for offer in sorted(wanted):
        codes = answers.get(offer)
        if not isinstance(codes, list) or not codes:
            raise DemoFailed(f"the agent did not refuse the {offer} version: {codes}")
        cast.findings.refusals.append(Refusal(VICTIM, "model.admit", tuple(codes)))
        cast.telling.say(f"{offer}: refused, {', '.join(codes)}")


def _copy(cast: Cast) -> Path:
    return cast.run_dir / "false" / "victim"
