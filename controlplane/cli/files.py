"""Files that a person names: read whole and bounded, written in one step, one clear line when they cannot be."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

from treaty.errors import ConflictError, InvalidInput, LimitExceeded, NotFound

MAX_BYTES: Final = 64 * 1024 * 1024
STANDARD: Final = Path("-")
"""Standard input or output, as everywhere."""


def read_file(path: Path, what: str, max_bytes: int = MAX_BYTES) -> bytes:
    """The bytes of `path` (`-`: standard input), which is a `what`.

    Raises: NotFound, LimitExceeded, InvalidInput: it cannot be read.
    """
    try:
        if path == STANDARD:
            data = sys.stdin.buffer.read(max_bytes + 1)
        else:
            with path.open("rb") as file:
                data = file.read(max_bytes + 1)
    except FileNotFoundError as err:
        raise NotFound(f"there is no {what} {path}", remedy="check the path") from err
    except OSError as err:
        raise InvalidInput(f"the {what} {path} cannot be read", remedy="check the path and its permissions") from err
    if len(data) > max_bytes:
        raise LimitExceeded(f"{path} has more than {max_bytes} bytes, too many for a {what}")
    return data


def write_file(path: Path, data: bytes, *, force: bool) -> None:
    """Write `data` to `path` (`-`: standard output) in one step.

    Raises: ConflictError: it exists and `force` is not given. InvalidInput: it cannot be written.
    """
    if path == STANDARD:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
        return
    if path.exists() and not force:
        raise ConflictError(f"{path} exists already", remedy="choose another name, or pass --force")
    partial = path.with_name(path.name + ".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(data)
        partial.replace(path)
    except OSError as err:
        raise InvalidInput(f"{path} cannot be written", remedy="check the folder and its permissions") from err
