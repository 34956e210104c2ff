"""A log to test on: its name, its key, its entries."""

from __future__ import annotations

from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from controlplane.record import LogFiles
from treaty.log import Entry

ORIGIN = "coordinator.alliance.example/log"
KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))


def opened(directory: Path, *, segment_bytes: int = 1 << 20) -> LogFiles:
    return LogFiles.open(directory, ORIGIN, KEY, segment_bytes=segment_bytes)


def entry(number: int) -> Entry:
    """The same entry for the same number: salt and statement both tell which."""
    return Entry(number.to_bytes(32, "little"), f"statement {number:06d} of a nation".encode())


def entries(begin: int, end: int) -> list[Entry]:
    return [entry(number) for number in range(begin, end)]


def segments(directory: Path) -> list[Path]:
    return sorted((directory / "segments").glob("*.segment"))


def every_byte(directory: Path) -> bytes:
    """All that the log's directory holds, names left out."""
    return b"".join(path.read_bytes() for path in sorted(directory.rglob("*")) if path.is_file())
