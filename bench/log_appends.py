"""Durable appends to the record, beside what the disk alone would take for the very same bytes.

    python -m bench.log_appends [--entries 20000] [--statement-bytes 1000] [--submitters 64] [--repeat 3]
                                [--directory DIR] [--json]

Rows: `LogFiles.append` in groups of 1, 16 and 64 from one thread, and `GroupCommit` with many tasks that each wait for
their own index before they submit again. Statement, salt, checksums, SHA-256 and the Merkle tree are inside the time.
The floor writes equal bytes in equal groups into a fresh file on the same file system and calls fdatasync after each.
Floor and contender alternate, so that a busy moment of the machine falls on both; the best of `--repeat` counts.
Target: at least 5,000 durable appends a second through GroupCommit.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from bench import rows
from bench.rows import Row, say
from controlplane.record import GroupCommit, LogFiles
from treaty.log import Entry, new_entry

TARGET_PER_SECOND = 5_000
GROUPS = (1, 16, 64)
ORIGIN = "bench.example/log"


def main() -> None:
    arguments = _arguments()
    entries = [new_entry(os.urandom(arguments.statement_bytes)) for _ in range(arguments.entries)]
    few = entries[: max(500, len(entries) // 10)]  # one sync each is slow: a tenth of them tells the rate
    measured = []
    for group in GROUPS:
        sample = few if group == 1 else entries
        measured.append(_row(f"log appends, groups of {group}", _best(arguments, sample, group, _appending(group))))
        say(f"{measured[-1].work}: {measured[-1].ours}")
    submitters = arguments.submitters
    best = _best(arguments, entries, submitters, _submitting(submitters))
    measured.append(_row(f"log appends, {submitters} submitters", best, TARGET_PER_SECOND))
    rows.show(measured, as_json=arguments.json)


def _row(work: str, best: tuple[float, float], target: int = 0) -> Row:
    ours, floor = best
    row = Row(work, f"{ours:,.0f} /s", f"bare fdatasync {floor:,.0f} /s", f"{ours / floor:.2f}×")
    return replace(row, target=f"≥ {target:,} /s", is_met=ours >= target) if target else row


def _arguments() -> argparse.Namespace:
    parser = rows.parser(__doc__)
    parser.add_argument("--entries", type=int, default=20_000)
    parser.add_argument("--statement-bytes", type=int, default=1_000)
    parser.add_argument("--submitters", type=int, default=64)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--directory", type=Path, help="a file system to measure; the default is the temporary one")
    return parser.parse_args()


def _best(
    arguments: argparse.Namespace, entries: list[Entry], group: int, contender: Callable[[LogFiles, list[Entry]], None]
) -> tuple[float, float]:
    """Appends a second, ours and the floor's, each the best of the repeats."""
    ours = floor = 0.0
    for _ in range(arguments.repeat):
        with tempfile.TemporaryDirectory(prefix="foedus-bench-", dir=arguments.directory) as folder:
            with LogFiles.open(Path(folder) / "log", ORIGIN, Ed25519PrivateKey.generate()) as log:
                begun = time.perf_counter()
                contender(log, entries)
                ours = max(ours, len(entries) / (time.perf_counter() - begun))
                assert log.size == len(entries)
            written = sum(path.stat().st_size for path in Path(folder).rglob("*.segment"))
            floor = max(floor, len(entries) / _floor_seconds(Path(folder) / "floor", written, len(entries), group))
    return ours, floor


def _floor_seconds(path: Path, total_bytes: int, entries: int, group: int) -> float:
    """Seconds to write `total_bytes` in as many groups, each synced before the next."""
    block = os.urandom(total_bytes // entries * group)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        begun = time.perf_counter()
        for at in range(-(-entries // group)):
            os.pwrite(fd, block, at * len(block))
            os.fdatasync(fd)
        return time.perf_counter() - begun
    finally:
        os.close(fd)


def _appending(group: int) -> Callable[[LogFiles, list[Entry]], None]:
    def contend(log: LogFiles, entries: list[Entry]) -> None:
        for at in range(0, len(entries), group):
            log.append(entries[at : at + group])

    return contend


def _submitting(submitters: int) -> Callable[[LogFiles, list[Entry]], None]:
    async def submit_all(log: LogFiles, entries: list[Entry]) -> None:
        front = GroupCommit(log)
        source = iter(entries)

        async def submitter() -> None:
            for entry in source:
                await front.submit(entry)

        writer = asyncio.create_task(front.run())
        await asyncio.gather(*(submitter() for _ in range(submitters)))
        writer.cancel()
        await asyncio.wait([writer])

    return lambda log, entries: asyncio.run(submit_all(log, entries))


if __name__ == "__main__":
    main()
