"""What crossed which border, by class: receipts, rounds and tallies that were believed, held against each other.

Rules:
1. a round counts only receipted contributions: each nation's receipt is in the record, of this run, round and nation,
   for the very update, with the weight and the bytes that the coordinator says it received;
2. a round follows a recorded plan: its nations are in the plan's cohort, and receipts name the plan's destination;
3. a nation has one receipt for one transfer: two updates in one round are two claims about one thing;
4. an agent's tallies are whole and cover its receipts (`treaty.audit_tallies`);
5. nothing has a class for raw records.

Tallies count messages as they left, before TLS and HTTP/2; receipts count what the messages were for.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from treaty import border
from treaty.audit_signatures import Finding, SignedEntry
from treaty.audit_tallies import check_tallies
from treaty.errors import InvalidInput
from treaty.fields import Fields
from treaty.names import Digest, PartyCode, RunId, nation_code, run_id
from treaty.plan import MAX_COHORT, RunPlan, parse_plan
from treaty.receipt import Receipt, Tally
from treaty.statement import Statement, StatementKind
from treaty.strict_json import JsonValue


class Contribution(NamedTuple):
    """One nation's part of a round, as the coordinator stated it. `update` is None in an evaluation."""

    nation: PartyCode
    update: Digest | None
    receipt: Digest
    examples: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class RoundSaid:
    """A ROUND statement."""

    index: int
    run: RunId
    round: int
    plan: Digest
    aggregate: Digest | None
    started_at: datetime
    contributions: tuple[Contribution, ...]


class Flow(NamedTuple):
    """What left a nation for a party in one class; `source` is `receipt` or `tally`."""

    nation: PartyCode
    destination: PartyCode
    name: str
    source: str
    messages: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Crossings:
    """The record's word on every border. `uncounted` are receipts that no round counts: late, refused or not yet."""

    flows: tuple[Flow, ...]
    rounds: tuple[RoundSaid, ...]
    receipts: int
    tallies: int
    uncounted: int
    findings: tuple[Finding, ...]

    @property
    def unlisted(self) -> int:
        """Messages that agents counted under a class that the border does not have: only these could be raw records."""
        tallied = (flow for flow in self.flows if flow.source == "tally")
        return sum(flow.messages for flow in tallied if flow.name not in border.CLASSES)


def crossings(entries: Sequence[SignedEntry]) -> Crossings:
    """Collect and compare. Entries are believed already; what disagrees becomes a finding."""
    findings: list[Finding] = []
    receipts, tallies, plans, rounds = _collected(entries, findings)
    by_digest = {entry.digest: (entry, receipt) for entry, receipt in receipts}
    counted: set[Digest] = set()
    for said in rounds:
        findings += _check_round(said, plans, by_digest)
        counted.update(contribution.receipt for contribution in said.contributions)
    findings += _check_repeats(receipts)
    findings += check_tallies(tallies, [r for e, r in receipts if e.digest in counted])
    destination = next((plan.destination for plan in plans.values()), PartyCode(""))
    return Crossings(
        flows=(*_receipted(receipt for _, receipt in receipts), *_tallied([t for _, t in tallies], destination)),
        rounds=tuple(rounds),
        receipts=len(receipts),
        tallies=len(tallies),
        uncounted=sum(entry.digest not in counted for entry, _ in receipts),
        findings=tuple(sorted(findings, key=lambda finding: finding.index)),
    )


def parse_round(index: int, claimed: Statement) -> RoundSaid:
    """Read a ROUND statement strictly. Raises: InvalidInput."""
    fields = Fields(claimed.predicate, "round")
    said = RoundSaid(
        index=index,
        run=run_id(fields.text("run", 63)),
        round=fields.integer("round", 1),
        plan=fields.digest("plan"),
        aggregate=fields.optional_digest("aggregate"),
        started_at=fields.timestamp("started_at"),
        contributions=fields.list_of("nations", _contribution, max_items=MAX_COHORT),
    )
    fields.optional_digest("arrays_before")
    fields.optional_digest("arrays_after")
    fields.done()
    return said


def _contribution(value: JsonValue) -> Contribution:
    fields = Fields(value, "contribution")
    found = Contribution(
        nation=nation_code(fields.text("nation", 2)),
        update=fields.optional_digest("update"),
        receipt=fields.digest("receipt"),
        examples=fields.integer("examples"),
        size_bytes=fields.integer("bytes"),
    )
    fields.done()
    return found


_Receipts = list[tuple[SignedEntry, Receipt]]
_Tallies = list[tuple[SignedEntry, Tally]]


def _collected(
    entries: Sequence[SignedEntry], findings: list[Finding]
) -> tuple[_Receipts, _Tallies, dict[Digest, RunPlan], list[RoundSaid]]:
    receipts: _Receipts = []
    tallies: _Tallies = []
    plans: dict[Digest, RunPlan] = {}
    rounds: list[RoundSaid] = []
    for entry in entries:
        claimed = entry.statement
        try:
            if claimed.kind is StatementKind.RECEIPT:
                receipts.append((entry, entry.receipt()))
            elif claimed.kind is StatementKind.TALLY:
                tallies.append((entry, entry.tally()))
            elif claimed.kind is StatementKind.PLAN:
                plans[claimed.subject_digest] = parse_plan(claimed.predicate)
            elif claimed.kind is StatementKind.ROUND:
                rounds.append(parse_round(entry.index, claimed))
        except InvalidInput as err:
            findings.append(Finding(entry.index, str(claimed.kind), err.code, err.message))
    return receipts, tallies, plans, rounds


def _check_round(
    said: RoundSaid, plans: dict[Digest, RunPlan], receipts: dict[Digest, tuple[SignedEntry, Receipt]]
) -> list[Finding]:
    def wrong(code: str, message: str) -> Finding:
        return Finding(said.index, "round", code, f"round {said.round} of {said.run}: {message}")

    plan = plans.get(said.plan)
    if plan is None or plan.run != said.run:
        return [wrong("ROUND_PLAN", "its plan is not in the record")]
    found: list[Finding] = []
    for contribution in said.contributions:
        nation = contribution.nation
        if nation not in plan.cohort:
            found.append(wrong("ROUND_COHORT", f"{nation} is not in the plan's cohort"))
        known = receipts.get(contribution.receipt)
        if known is None:
            found.append(wrong("RECEIPT_MISSING", f"no receipt of {nation} is in the record"))
            continue
        found += [wrong(code, f"{nation}: {text}") for code, text in _disagreements(said, contribution, known[1], plan)]
    return found


def _disagreements(
    said: RoundSaid, contribution: Contribution, receipt: Receipt, plan: RunPlan
) -> Iterable[tuple[str, str]]:
    if (receipt.nation, receipt.run, receipt.round) != (contribution.nation, said.run, said.round):
        yield "RECEIPT_OTHER", "the receipt is of another nation, run or round"
    if contribution.update is not None and receipt.digest != contribution.update:
        yield "RECEIPT_DIGEST", "the receipt is for another update"
    if contribution.update is not None and receipt.examples != contribution.examples:
        yield "RECEIPT_EXAMPLES", f"{receipt.examples} examples receipted, {contribution.examples} counted"
    if receipt.size_bytes != contribution.size_bytes:
        yield "RECEIPT_BYTES", f"{receipt.size_bytes} bytes receipted, {contribution.size_bytes} received"
    if receipt.destination != plan.destination:
        yield "RECEIPT_DESTINATION", f"the receipt is for {receipt.destination}, the plan's is {plan.destination}"


def _check_repeats(receipts: _Receipts) -> list[Finding]:
    seen: dict[tuple[str, str, int, str], Digest] = {}
    found = []
    for entry, receipt in receipts:
        key = (receipt.nation, receipt.run, receipt.round, str(receipt.crossing))
        if seen.setdefault(key, receipt.digest) != receipt.digest:
            text = f"{receipt.nation} receipted two different transfers in round {receipt.round} of {receipt.run}"
            found.append(Finding(entry.index, "receipt", "RECEIPT_TWICE", text))
    return found


def _receipted(receipts: Iterable[Receipt]) -> list[Flow]:
    sums: dict[tuple[PartyCode, PartyCode, str], tuple[int, int]] = defaultdict(lambda: (0, 0))
    for receipt in receipts:
        key = (receipt.nation, receipt.destination, str(receipt.crossing))
        messages, size = sums[key]
        sums[key] = (messages + 1, size + receipt.size_bytes)
    return [Flow(*key, "receipt", messages, size) for key, (messages, size) in sorted(sums.items())]


def _tallied(tallies: Sequence[Tally], destination: PartyCode) -> list[Flow]:
    sums: dict[tuple[PartyCode, str], tuple[int, int]] = defaultdict(lambda: (0, 0))
    for tally in tallies:
        for name, (messages, size) in tally.classes.items():
            known = sums[tally.nation, name]
            sums[tally.nation, name] = (known[0] + messages, known[1] + size)
    return [
        Flow(nation, destination, name, "tally", messages, size)
        for (nation, name), (messages, size) in sorted(sums.items())
    ]
