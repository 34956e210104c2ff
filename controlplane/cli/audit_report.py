"""An audit as a person and as a program reads it: the log, what did not hold, bytes by border and class, each sum."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from controlplane.cli import tables
from controlplane.cli.recomputing import Outcome, SumCheck
from controlplane.cli.terminal import mark, size
from treaty.audit import Audit
from treaty.errors import TrustError
from treaty.strict_json import JsonLike, JsonValue


def document(audit: Audit, sums: Sequence[SumCheck]) -> dict[str, JsonLike]:
    """The audit as JSON. `raw_records`: messages of a class that the border does not have; no other holds any."""
    said = audit.crossings
    flows: list[JsonValue] = [
        {
            "nation": flow.nation,
            "destination": flow.destination,
            "class": flow.name,
            "source": flow.source,
            "messages": flow.messages,
            "bytes": flow.bytes,
        }
        for flow in said.flows
    ]
    rounds: list[JsonValue] = [
        {
            "run": check.said.run,
            "round": check.said.round,
            "aggregate": check.said.aggregate,
            "outcome": str(check.outcome),
            "why": check.why,
        }
        for check in sums
    ]
    findings: list[JsonValue] = [
        {"index": found.index, "kind": found.kind, "code": found.code, "message": found.message}
        for found in audit.findings
    ]
    return {
        "log": {
            "origin": audit.checkpoint.origin,
            "size": audit.checkpoint.size,
            "root": audit.checkpoint.root.hex(),
            "consistent_from": audit.known_size,
            "forgotten": audit.forgotten,
            "verified": _holds(audit, sums),
        },
        "statements": dict(sorted(audit.kinds.items())),
        "receipts": {"verified": said.receipts, "uncounted": said.uncounted},
        "tallies": said.tallies,
        "borders": flows,
        "rounds": rounds,
        "raw_records": said.unlisted,
        "findings": findings,
    }


def text(audit: Audit, sums: Sequence[SumCheck], *, is_ascii: bool | None = None) -> str:
    """Several lines and two tables."""
    said, log = audit.crossings, audit.checkpoint
    good, bad = mark("done", is_ascii=is_ascii), mark("failed", is_ascii=is_ascii)
    since = f", extends the {audit.known_size} seen before" if audit.known_size else ""
    told = [
        f"{good} log {log.origin}: {log.size} entries, root {log.root.hex()[:16]}, checkpoint signed{since}",
        f"{good} {sum(audit.kinds.values())} statements signed by those entitled"
        + (f", {audit.forgotten} forgotten" if audit.forgotten else ""),
        f"{good} {said.receipts} receipts, {said.tallies} tallies"
        + (f"; {said.uncounted} receipts that no round counts" if said.uncounted else ""),
    ]
    if audit.findings:
        told[1:] = [
            f"{bad} entry {found.index} ({found.kind}): {found.message} [{found.code}]" for found in audit.findings
        ]
    if said.flows:
        rows = [["NATION", "TO", "CLASS", "FROM", "MESSAGES", "BYTES"]]
        rows += [[f.nation, f.destination, f.name, f.source, str(f.messages), str(f.bytes)] for f in said.flows]
        told += ["", tables.text_of(rows, sys.stdout), "", _totals(audit)]
    told += [_sum_line(check, good, bad) for check in sums if check.outcome is not Outcome.NO_SUM]
    return "\n".join(told)


def require_held(audit: Audit, sums: Sequence[SumCheck]) -> None:
    """Raises: TrustError: the record does not hold; says how much of it."""
    differing = [check for check in sums if check.outcome is Outcome.DIFFERS]
    if audit.findings:
        first = audit.findings[0]
        raise TrustError(
            f"the record does not hold: {len(audit.findings)} findings, the first at entry {first.index}: "
            f"{first.message}",
            code=first.code,
            remedy="keep the evidence: foedus audit export DIR",
        )
    if differing:
        check = differing[0]
        raise TrustError(f"the sum of round {check.said.round} of {check.said.run} does not hold: {check.why}")


def _holds(audit: Audit, sums: Sequence[SumCheck]) -> bool:
    return audit.holds and not any(check.outcome is Outcome.DIFFERS for check in sums)


def _totals(audit: Audit) -> str:
    sums = {
        source: sum(f.bytes for f in audit.crossings.flows if f.source == source) for source in ("receipt", "tally")
    }
    return (
        f"receipted {size(sums['receipt'])}; all messages of all classes {size(sums['tally'])} before TLS and HTTP/2; "
        f"raw records: {audit.crossings.unlisted}"
    )


def _sum_line(check: SumCheck, good: str, bad: str) -> str:
    icon = bad if check.outcome is Outcome.DIFFERS else good if check.outcome is Outcome.RECOMPUTED else "-"
    why = f" ({check.why})" if check.why else ""
    return f"{icon} sum of {check.said.run} round {check.said.round}: {check.outcome}{why}"
