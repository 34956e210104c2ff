"""Acts 9 and 10: the record is verified, counts are compared, canaries are looked for; then the report."""

from __future__ import annotations

import json
from typing import Any, Final

from examples.demo import canary, report
from examples.demo.cast import Cast
from examples.demo.programs import DemoFailed
from examples.demo.settings import CODES, ROUNDS
from examples.demo.steps_refusals import THEFT
from examples.demo.steps_runs import TRAINING

TALLY_SECONDS: Final = 20

OVERHEAD_PARTS: Final = 0.02
"""TLS records (22 bytes of at most 16 KiB), HTTP/2 frames (9 bytes each): well below two bytes in a hundred."""

OVERHEAD_BYTES: Final = 2 * 2**20
"""For an agent's whole run: handshakes with certificates, headers of each call, window updates and acknowledgements of
the 270 MB and more that came in, and the few messages since the tally was signed."""


def audit(cast: Cast) -> None:
    """The auditor believes nobody: all is computed from the log, the charter and the coordinator's spool."""
    with cast.telling.step("9. the audit: log, receipts, tallies, sums recomputed, bytes over each border"):
        signed = _close_accounts(cast)
        words = ("audit", "verify", "--updates", cast.coordinator_home / "spool")
        found: dict[str, Any] = {}

        def has_all_tallies() -> bool:
            found.update(json.loads(cast.foedus(*words, "-o", "json", role="auditor").out))
            return int(found["tallies"]) >= signed

        cast.programs.wait_until(f"the record holds {signed} tallies", has_all_tallies, TALLY_SECONDS)
        for line in _headlines(cast.foedus(*words, role="auditor").out):
            cast.telling.say(line)
        _check_sums(found)
        for code in CODES:
            cast.agent(code, "log", "verify")
        cast.telling.say("each nation's own view of the log agrees")
        cast.findings.log_size, cast.findings.is_log_verified = found["log"]["size"], found["log"]["verified"]
        cast.findings.raw_records = found["raw_records"]
        if not found["log"]["verified"] or found["raw_records"] != 0:
            raise DemoFailed("the record does not hold")
        _compare_with_relays(cast, found["borders"])


def _close_accounts(cast: Cast) -> int:
    """Have every agent sign a tally now; how many tallies there are then, over all."""
    before = {code: len(cast.agent_json(code, "receipts")["tallies"]) for code in CODES}
    cast.several(lambda code: cast.agent(code, "receipts", "--tally"), CODES)
    total = 0
    for code in CODES:
        counts: list[int] = []

        def has_signed(code: str = code, counts: list[int] = counts) -> bool:
            counts.append(len(cast.agent_json(code, "receipts")["tallies"]))
            return counts[-1] > before[code]

        cast.programs.wait_until(f"{code} signs a tally", has_signed, TALLY_SECONDS)
        total += counts[-1]
    return total


def _headlines(text: str) -> list[str]:
    """The auditor's findings without the table by class (the report has it) and the hostile run's many sums."""
    lines = text.splitlines()
    blanks = [place for place, line in enumerate(lines) if not line.strip()]
    told = lines if not blanks else [*lines[: blanks[0]], *lines[blanks[-1] + 1 :]]
    return [line for line in told if f"sum of {THEFT}" not in line]


def _check_sums(found: dict[str, Any]) -> None:
    """Raises: DemoFailed: a training round's sum was not recomputed to the digest that was recorded."""
    outcomes = {each["round"]: each["outcome"] for each in found["rounds"] if each["run"] == TRAINING}
    if [outcomes.get(number) for number in range(1, ROUNDS + 1)] != ["recomputed"] * ROUNDS:
        raise DemoFailed(f"the sums of {TRAINING} were not recomputed: {outcomes}")


def _compare_with_relays(cast: Cast, borders: list[dict[str, Any]]) -> None:
    """What agents say left them against what the relays counted. Raises: DemoFailed: they do not agree."""
    for code in CODES:
        passed, found = cast.relays[code].passed, cast.findings.nations[code]
        tallied = [flow for flow in borders if flow["nation"] == code and flow["source"] == "tally"]
        found.bytes_out = {flow["class"]: int(flow["bytes"]) for flow in tallied}
        found.bytes_in, found.relay_bytes_out = passed.into, passed.out
        said = sum(found.bytes_out.values())
        overhead = passed.out - said
        cast.telling.say(
            f"{code}: {said:>10,} bytes out by its tallies, {passed.out:>10,} at the relay "
            f"(+{overhead:,} of TLS and HTTP/2), {passed.into / 1e6:.1f} MB in"
        )
        if not 0 <= overhead <= said * OVERHEAD_PARTS + OVERHEAD_BYTES:
            raise DemoFailed(f"{code}'s tallies and the relay differ by {overhead:,} bytes")


def look_for_canaries(cast: Cast) -> None:
    with cast.telling.step("9. canaries: all that left an agent and all that the coordinator holds is searched"):
        for code in CODES:
            if not canary.search([cast.data(code)], cast.mark)[0]:
                raise DemoFailed(f"the search does not even find the canary in {code}'s own data")
        outside = [cast.run_dir / "taps", cast.coordinator_home, cast.run_dir / "logs" / "coordinator.log"]
        sightings, size = canary.search(outside, cast.mark)
        cast.findings.canaries_found_outside = len(sightings)
        cast.telling.say(f"{size / 1e6:,.0f} MB searched in eight forms: {len(sightings)} canaries found outside")
        if sightings:
            raise DemoFailed(f"a canary was found outside: {sightings[:3]}")


def write_report(cast: Cast) -> None:
    with cast.telling.step("10. the report"):
        cast.findings.seconds = cast.telling.seconds()
        cast.findings.timeline = [(told.title, told.began, told.ended) for told in cast.telling.steps]
        page, data = report.write(cast.findings, cast.folder)
        cast.telling.say(f"{'nation':8}{'before':>8}{'round 1':>9}{'round 2':>9}{'MB out':>9}{'MB in':>9}")
        for code, found in cast.findings.nations.items():
            values = "".join(f"{value:9.1f}" for value in found.heldout_perplexity)
            out, into = sum(found.bytes_out.values()) / 1e6, found.bytes_in / 1e6
            cast.telling.say(f"{code:8}{values}{out:9.1f}{into:9.1f}")
        cast.telling.say(f"raw records that crossed, by the audit: {cast.findings.raw_records}")
        cast.telling.say(f"canaries found outside: {cast.findings.canaries_found_outside}")
        cast.telling.say(f"{data}")
        cast.telling.say(f"{page}")
