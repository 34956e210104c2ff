"""Are an agent's signed counts whole, and do they cover what it receipted?

Rules:
1. tallies are numbered from 1 without a gap or a second one, and each begins where the one before ended;
2. together they count at least the bytes of the receipts that the coordinator confirmed in that time.

A tally counts messages as they left, so it is larger than what the messages were for; a smaller one is a lie.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from types import MappingProxyType
from typing import Final

from treaty.audit_signatures import Finding, SignedEntry
from treaty.border import ROUND_RESULT, UPDATE_CHUNK, UPDATE_OPENING
from treaty.receipt import Crossing, Receipt, Tally

TRANSFER_CLASSES: Final = MappingProxyType(
    {Crossing.UPDATE: (UPDATE_OPENING, UPDATE_CHUNK), Crossing.EVALUATION: (ROUND_RESULT,)}
)
"""Classes of a tally in which a receipted transfer is counted."""

_Tallies = list[tuple[SignedEntry, Tally]]


def check_tallies(tallies: Sequence[tuple[SignedEntry, Tally]], confirmed: Sequence[Receipt]) -> list[Finding]:
    """By both rules; `confirmed` are the receipts that rounds count."""
    by_agent: dict[tuple[str, str], _Tallies] = defaultdict(list)
    for entry, tally in tallies:
        by_agent[tally.nation, tally.agent].append((entry, tally))
    found: list[Finding] = []
    for (nation, agent), own in sorted(by_agent.items()):
        ordered = sorted(own, key=lambda pair: pair[1].sequence)
        found += _check_sequence(nation, ordered)
        transfers = [receipt for receipt in confirmed if (receipt.nation, receipt.agent) == (nation, agent)]
        found += _check_totals(nation, ordered, transfers)
    return found


def _check_sequence(nation: str, ordered: _Tallies) -> Iterable[Finding]:
    before: Tally | None = None
    for place, (entry, tally) in enumerate(ordered, start=1):
        if tally.sequence != place:
            yield Finding(entry.index, "tally", "TALLY_GAP", f"{nation}'s tally {place} is missing or there twice")
            return
        if before is not None and tally.since != before.until:
            text = f"{nation}'s tally {place} does not begin where the one before ended"
            yield Finding(entry.index, "tally", "TALLY_GAP", text)
        before = tally


def _check_totals(nation: str, ordered: _Tallies, confirmed: Sequence[Receipt]) -> Iterable[Finding]:
    """Rule 2. The newest tally may end between a receipt and its bytes: what it cannot cover yet is not held to it."""
    entry, last = ordered[-1]
    for crossing, classes in TRANSFER_CLASSES.items():
        told = sum(tally.classes.get(name, (0, 0))[1] for _, tally in ordered for name in classes)
        of_class = sorted((r for r in confirmed if r.crossing is crossing), key=lambda r: r.issued_at)
        # All but the last one before the tally's end have certainly left by then.
        covered = [receipt for receipt in of_class if receipt.issued_at < last.until][:-1]
        receipted = sum(receipt.size_bytes for receipt in covered)
        if told < receipted:
            text = f"{nation} tallied {told} bytes of {crossing}, its receipts say {receipted}"
            yield Finding(entry.index, "tally", "TALLY_BYTES", text)
