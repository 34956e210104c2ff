"""What a benchmark says in the end: rows of work, ours, peer or floor, ratio, target and whether it was met.

Every benchmark is a program of its own (`python -m bench.NAME`) with the same ending: details go to standard error as
they come, the rows to standard output, as a table or, with `--json`, as one line that `python -m bench` collects.
A target that is missed is a fact and not a failure: the program ends with 0.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass


@dataclass(frozen=True, slots=True)
class Row:
    """One measured thing. Texts carry their units; `is_met` is None where there is nothing to reach."""

    work: str
    ours: str
    peer: str = ""
    ratio: str = ""
    target: str = ""
    is_met: bool | None = None

    @property
    def cells(self) -> tuple[str, ...]:
        verdict = "" if self.is_met is None else "yes" if self.is_met else "no"
        return (self.work, self.ours, self.peer, self.ratio, self.target, verdict)


HEADINGS = ("work", "ours", "peer or floor", "ratio", "target", "met")


def parser(description: str | None) -> argparse.ArgumentParser:
    """The parser that every benchmark starts from."""
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--json", action="store_true", help="print the rows as one line of JSON")
    return made


def say(text: str) -> None:
    """A detail on the way."""
    print(text, file=sys.stderr, flush=True)


def show(rows: Sequence[Row], *, as_json: bool) -> None:
    """The rows, on standard output."""
    print(json.dumps([asdict(row) for row in rows], ensure_ascii=False) if as_json else table(rows), flush=True)


def parse(line: str) -> list[Row]:
    """What `show` printed as JSON."""
    return [Row(**row) for row in json.loads(line)]


def table(rows: Sequence[Row]) -> str:
    """The rows in columns; the first is aligned left, the rest as they come."""
    lines = [HEADINGS, *(row.cells for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEADINGS))]
    padded = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    return "\n".join([padded[0], "-" * max(map(len, padded)), *padded[1:]])
