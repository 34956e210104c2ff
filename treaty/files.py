"""Files that a person names: read whole and bounded, and named again by whatever is wrong in them.

What a file says is refused by parsers that know bytes, not paths; `about` puts the path before their line, so that the
person who gave three files knows which one is meant.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from treaty.errors import InvalidInput, LimitExceeded, NotFound, TrustError

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


def first_line(path: Path, what: str) -> bytes:
    """The first line of a small file, for example a passphrase. Raises: InvalidInput: there is none."""
    lines = read_file(path, what, 4096).splitlines()
    if not lines or not lines[0]:
        raise InvalidInput(f"{path} holds no {what}")
    return lines[0]


@contextmanager
def about(place: object) -> Iterator[None]:
    """Put `place`, a file or a line of one, before what the body refuses, where the line does not name it yet."""
    try:
        yield
    except (InvalidInput, TrustError) as err:
        if str(place) in err.message:
            raise
        raise type(err)(f"{place}: {err.message}", remedy=err.remedy, code=err.code) from err
