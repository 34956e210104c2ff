"""What this terminal can show: colour, characters, and whether anybody is watching.

`NO_COLOR` is respected, a pipe gets plain text, and where the encoding has no marks, ASCII stands in. Data goes to
standard output; what is said about the work goes to standard error.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Protocol, TextIO

import typer

if TYPE_CHECKING:
    from rich.console import Console

MARKS: Final[Mapping[str, tuple[str, str]]] = MappingProxyType(
    {
        "done": ("✔", "+"),
        "failed": ("✖", "x"),
        "refused": ("⊘", "-"),
        "waiting": ("◷", "~"),
        "moving": ("◐", ">"),
        "pending": ("·", "."),
        "paused": ("⏸", "="),
        "branch": ("├─", "|-"),
        "last": ("└─", "`-"),
        "trunk": ("│ ", "| "),
    }
)
"""Each mark and what stands in for it where the encoding cannot say it."""

PIPE_WIDTH: Final = 4096
"""Nobody looks at a pipe: nothing is cut or wrapped there."""


def mark(name: str, *, is_ascii: bool | None = None) -> str:
    """A mark for standard output."""
    rich_text, plain = MARKS[name]
    return plain if (speaks_ascii_only() if is_ascii is None else is_ascii) else rich_text


def speaks_ascii_only() -> bool:
    encoding = getattr(sys.stdout, "encoding", None) or "ascii"
    return not encoding.lower().replace("-", "").startswith("utf")


def has_colour(stream: TextIO) -> bool:
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def console(stream: TextIO) -> Console:
    """A rich console for `stream` that says nothing on its own."""
    from rich.console import Console

    width = None if stream.isatty() else PIPE_WIDTH
    return Console(
        file=stream, no_color=not has_colour(stream), highlight=False, emoji=False, markup=False, width=width
    )


def say(line: str) -> None:
    """Tell the person something about the work."""
    typer.echo(line, err=True)


def age(since: datetime | None, now: datetime) -> str:
    """How long ago, as kubectl says it: `42s`, `5m`, `3h`, `4d`."""
    return "" if since is None else duration(max(now - since, timedelta(0)))


def duration(span: timedelta) -> str:
    seconds = int(span.total_seconds())
    if seconds < 120:
        return f"{seconds}s"
    minutes = seconds // 60
    if minutes < 180:
        return f"{minutes}m"
    hours = minutes // 60
    return f"{hours}h" if hours < 48 else f"{hours // 24}d"


def size(count: int) -> str:
    """Bytes for a person: `0 B`, `1.8 MB`. Decimal units, as they are transferred."""
    if count < 1000:
        return f"{count} B"
    value = float(count)
    for unit in ("kB", "MB", "GB", "TB"):
        value /= 1000
        if value < 999.95:
            return f"{value:.1f} {unit}"
    return f"{value:.1f} PB"


class Progress(Protocol):
    """Tells how far something is."""

    def advance(self, amount: int) -> None: ...


class _Bar:
    def __init__(self, advance: Callable[[int], None]) -> None:
        self._advance = advance

    def advance(self, amount: int) -> None:
        self._advance(amount)


class _Lines:
    """One line a tenth, for logs and pipes."""

    def __init__(self, what: str, total: int) -> None:
        self._what, self._total, self._done, self._told = what, total, 0, 0

    def advance(self, amount: int) -> None:
        self._done += amount
        tenth = 10 if self._done >= self._total else self._done * 10 // max(self._total, 1)
        if tenth > self._told:
            self._told = tenth
            say(f"{self._what}: {size(self._done)} of {size(self._total)}")


@contextmanager
def transfer(what: str, total: int) -> Iterator[Progress]:
    """Show the transfer of `total` bytes: a bar where somebody watches, plain lines elsewhere."""
    if not sys.stderr.isatty():
        yield _Lines(what, total)
        return
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn
    from rich.progress import Progress as RichProgress

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with RichProgress(*columns, TimeRemainingColumn(), console=console(sys.stderr)) as progress:
        task = progress.add_task(what, total=total)
        yield _Bar(lambda amount: progress.advance(task, amount))
