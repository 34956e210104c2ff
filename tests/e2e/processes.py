"""What a test does to real processes and how it waits for them: find, hold, kill, bound, and look until it is so."""

from __future__ import annotations

import os
import resource
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

LOOK_SECONDS = 0.05
_never = threading.Event()


def eventually(what: str, look: Callable[[], T], seconds: float = 60) -> T:
    """Look again and again until it is true, and return that. Raises: AssertionError: it was not within `seconds`."""
    deadline = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < deadline, f"waited {seconds:.0f} s in vain: {what}"
        _never.wait(LOOK_SECONDS)
    return found


def confined_children(pid: int, program: str) -> list[int]:
    """Descendants of the agent `pid` that work in the scratch folder of its `trainer` (or `serving`), confined."""
    parents, folders = {}, {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            folders[int(entry.name)] = str((entry / "cwd").readlink())
        except OSError:
            continue  # gone, or not ours
    below = {pid}
    while fresh := {child for child, parent in parents.items() if parent in below} - below:
        below |= fresh
    return sorted(child for child in below - {pid} if f"/scratch/{program}/" in folders.get(child, ""))


def is_alive(pid: int) -> bool:
    """Whether a process of that number runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def hold(pid: int) -> None:
    """Stop a process where it stands, until `release`."""
    os.kill(pid, signal.SIGSTOP)


def release(pid: int) -> None:
    """Let a held process go on; one that was ended meanwhile needs no release."""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGCONT)


@contextmanager
def full_disk(pid: int, file_bytes: int = 0) -> Iterator[None]:
    """Let a process write no file beyond `file_bytes`; an error of the kernel, as of a full disk, meets it."""
    soft, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (file_bytes, hard))
    try:
        yield
    finally:
        if is_alive(pid):
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (soft, hard))
