"""Plants a sentence in every nation's data and looks for it in what is outside the nations.

A canary carries a mark that is nowhere else. It is looked for plainly, in base64 at its three offsets (both alphabets),
in hexadecimal, JSON-escaped, URL-escaped, in UTF-16, and in whatever gzip and zlib members unpack to, members inside
members included. What no search of bytes can see is said in the threat model: the values of tensors.
"""

from __future__ import annotations

import base64
import json
import secrets
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

BLOCK_BYTES: Final = 512 * 2**20
"""Larger files are read in pieces; the coordinator's are chunks of 4 MiB."""

OVERLAP_BYTES: Final = 4096
"""Longer than any form of a mark, so that one across a block's edge is seen."""

MAX_UNPACKED_BYTES: Final = 64 * 2**20
_STEP_BYTES: Final = 16 * 1024
MAX_NESTING: Final = 3
_GZIP: Final = b"\x1f\x8b\x08"
_ZLIB: Final = (b"\x78\x01", b"\x78\x5e", b"\x78\x9c", b"\x78\xda")


@dataclass(frozen=True, slots=True)
class Sighting:
    """Where a mark was seen, and in which form."""

    path: Path
    form: str


def new_mark() -> str:
    """Letters and digits only: they stand unchanged in a sentence, in JSON and in a URL."""
    return f"canary{secrets.token_hex(10)}"


def sentence(mark: str, nation: str) -> str:
    return f"The {nation} canary's name is “{mark}” & it stays at home"


def plant(source: Path, target: Path, mark: str, nation: str) -> int:
    """Copy the pairs of `source` to `target` with the canary as the first; how many pairs there are then.

    First, because the hostile trainer of the demo steals the first.
    """
    pair = {"source": sentence(mark, nation), "target": f"« {mark} »"}
    lines = [json.dumps(pair, ensure_ascii=False), *source.read_text(encoding="utf-8").splitlines()]
    target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    target.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return len(lines)


def forms(mark: str) -> dict[bytes, str]:
    """What to look for, and what each form is called."""
    raw = mark.encode("ascii")
    found = {
        raw: "raw",
        raw.hex().encode(): "hex",
        raw.hex().upper().encode(): "hex",
        "".join(f"\\u{byte:04x}" for byte in raw).encode(): "JSON-escaped",
        "".join(f"\\u{byte:04X}" for byte in raw).encode(): "JSON-escaped",
        "".join(f"%{byte:02x}" for byte in raw).encode(): "URL-escaped",
        "".join(f"%{byte:02X}" for byte in raw).encode(): "URL-escaped",
        mark.encode("utf-16-le"): "UTF-16",
    }
    for offset in range(3):
        # Leave out the groups of four that the neighbours' bits reach into.
        whole = raw[: len(raw) - (len(raw) + offset) % 3]
        encoded = base64.b64encode(b"\0" * offset + whole)[4 if offset else 0 :]
        found[encoded] = f"base64 at offset {offset}"
        found[encoded.replace(b"+", b"-").replace(b"/", b"_")] = f"base64 at offset {offset}"
    return found


def search(roots: list[Path], mark: str) -> tuple[list[Sighting], int]:
    """Every sighting in the files at and below `roots`, and how many bytes were looked through."""
    wanted = forms(mark)
    sightings, size = [], 0
    for path in _files(roots):
        try:
            names = set(_forms_in(path, wanted))
            size += path.stat().st_size
        except FileNotFoundError:
            continue  # a live database removes its journal between listing and opening
        sightings += [Sighting(path, form) for form in sorted(names)]
    return sightings, size


def _files(roots: list[Path]) -> Iterator[Path]:
    for root in roots:
        if root.is_file():
            yield root
        yield from (path for path in sorted(root.rglob("*")) if path.is_file() and not path.is_symlink())


def _forms_in(path: Path, wanted: dict[bytes, str]) -> Iterator[str]:
    with path.open("rb") as file:
        tail = b""
        while block := file.read(BLOCK_BYTES):
            data = tail + block
            yield from seen(data, wanted)
            tail = data[-OVERLAP_BYTES:]


def seen(data: bytes, wanted: dict[bytes, str], depth: int = 0) -> Iterator[str]:
    """The forms in `data` and in the packed members that begin in it."""
    yield from (name for needle, name in wanted.items() if needle in data)
    if depth >= MAX_NESTING:
        return
    view = memoryview(data)
    for magic, name, window in ((_GZIP, "gzip", 31), *((magic, "zlib", 15) for magic in _ZLIB)):
        start = data.find(magic)
        while start >= 0:
            unpacked = _unpacked(view[start:], window)
            yield from (f"{name}, {form}" for form in seen(unpacked, wanted, depth + 1))
            start = data.find(magic, start + 1)


def _unpacked(packed: memoryview, window: int) -> bytes:
    """What a member begins with, as far as it unpacks; next to nothing where the magic was chance."""
    inflater = zlib.decompressobj(window)
    pieces: list[bytes] = []
    size = 0
    for at in range(0, len(packed), _STEP_BYTES):
        try:
            pieces.append(inflater.decompress(packed[at : at + _STEP_BYTES], MAX_UNPACKED_BYTES))
        except zlib.error:
            break
        size += len(pieces[-1])
        if inflater.eof or size >= MAX_UNPACKED_BYTES:
            break
    return b"".join(pieces)
