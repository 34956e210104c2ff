"""Files that a command writes: in one step, one clear line when they cannot be. Reading is `treaty.files`."""

from __future__ import annotations

import sys
from pathlib import Path

from treaty.errors import ConflictError, InvalidInput
from treaty.files import STANDARD


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
