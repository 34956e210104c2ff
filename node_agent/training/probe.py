"""Tries, from inside a confined child, everything that it must not be able to do.

Run by `launch` after the layers are applied and before any stranger's code and any data are there. Each attempt stands
for a class of reach; it counts as refused only if the kernel said so (EPERM, EACCES, or that the file is not there, as
inside bubblewrap). An attempt that fails for another reason is not a refusal: it proves nothing.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
from collections.abc import Callable
from pathlib import Path

from node_agent.training import kernel
from node_agent.training.sandbox import Confinement

_REFUSALS = frozenset({errno.EPERM, errno.EACCES})
_HIDDEN = _REFUSALS | {errno.ENOENT, errno.EROFS}

PROBES = frozenset(
    {
        *("ip-socket", "unix-socket", "netlink-socket", "socket-pair", "read-secret", "write-outside", "write-input"),
        *(
            "change-attributes",
            "ptrace",
            "process-memory",
            "io-uring",
            "keyring",
            "new-process",
            "new-program",
            "signal",
        ),
    }
)
"""What every report must list as refused; a shorter list is not believed."""


def run(confinement: Confinement, input_dir: Path, agent_pid: int) -> list[str]:
    """The names of the attempts that were refused, sorted."""
    own_file = str(Path(__file__).resolve())
    attempts: dict[str, tuple[Callable[[], object], frozenset[int]]] = {
        "ip-socket": (lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM), _REFUSALS),
        "unix-socket": (lambda: socket.socket(socket.AF_UNIX, socket.SOCK_STREAM), _REFUSALS),
        "netlink-socket": (lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW), _REFUSALS),
        "socket-pair": (socket.socketpair, _REFUSALS),
        "read-secret": (lambda: _read_any(confinement.secrets), _HIDDEN),
        "write-outside": (lambda: _write(confinement.scratch.parent / "probe"), _HIDDEN),
        "write-input": (lambda: _write(input_dir / "probe"), _HIDDEN),
        "change-attributes": (lambda: os.utime(own_file), _REFUSALS),
        "ptrace": (lambda: _call("ptrace", 0, 0, 0, 0), _REFUSALS),
        "process-memory": (_read_own_memory, _REFUSALS),
        "io-uring": (lambda: _call("io_uring_setup", 1, None), _REFUSALS),
        "keyring": (lambda: _call("keyctl", 0, -3, 0), _REFUSALS),
        "new-process": (_fork, _REFUSALS),
        "new-program": (_execute, _REFUSALS),
        "signal": (lambda: os.kill(agent_pid, 0), _REFUSALS),
    }
    return sorted(name for name, (attempt, refusals) in attempts.items() if _is_refused(attempt, refusals))


def _is_refused(attempt: Callable[[], object], refusals: frozenset[int]) -> bool:
    try:
        attempt()
    except OSError as err:
        return err.errno in refusals
    return False


def _read_any(secrets: tuple[Path, ...]) -> None:
    """Succeed if one secret opens, fail as the last one fails; no secrets, nothing proven."""
    refusal: OSError | None = None
    for secret in secrets:
        try:
            secret.open("rb").close()
        except OSError as err:
            if err.errno not in _HIDDEN:
                raise
            refusal = err
        else:
            return
    if refusal:
        raise refusal


def _write(path: Path) -> None:
    path.write_bytes(b"probe")
    path.unlink()


def _call(name: str, *arguments: object) -> None:
    result = kernel.syscall(kernel.syscall_number(name), *arguments)
    if result < 0:
        raise OSError(-result, name)


def _read_own_memory() -> None:
    """process_vm_readv of this very process: allowed to anyone who is not forbidden the call."""
    there, here = ctypes.create_string_buffer(b"x", 1), ctypes.create_string_buffer(1)
    remote = (ctypes.c_uint64 * 2)(ctypes.addressof(there), 1)
    local = (ctypes.c_uint64 * 2)(ctypes.addressof(here), 1)
    _call("process_vm_readv", os.getpid(), local, ctypes.c_ulong(1), remote, ctypes.c_ulong(1), ctypes.c_ulong(0))


def _fork() -> None:
    if os.fork() == 0:
        os._exit(0)


def _execute() -> None:
    os.execv("/nonexistent", ["/nonexistent"])  # noqa: S606 - unconfined it says ENOENT, which is no refusal
