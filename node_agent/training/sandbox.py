"""Which layers stand between a child and everything else, and what is claimed about them.

| layer | keeps from the child | needs |
|---|---|---|
| `no-new-privileges` | set-uid programs, and is what the next two stand on | Linux |
| `landlock-N` | files but interpreter, libraries, model, data (read) and one scratch folder (write) | kernel ≥ 6.2 |
| `seccomp` | sockets of any family, other processes, new processes, io_uring, keys, file attributes | libseccomp 2 |
| `rlimits` | memory, processor time, file size beyond the stated bounds | Linux |
| `no-capabilities` | what root may do, where the agent runs as root | Linux |
| `bubblewrap` | the same once more: an own file tree without the rest, no network device | bwrap, namespaces |

The first four are required: without one the agent refuses to train, unless its admin set `sandbox: none`. The last two
are taken where the machine has them. Files, programs and the clock of the machine stay visible as far as listed; the
processor's caches and timing are not guarded against.
"""

from __future__ import annotations

import resource
import shutil
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from pathlib import Path

import node_agent
import treaty
from node_agent.training import kernel
from treaty.errors import PreconditionFailed
from treaty.fields import Fields
from treaty.strict_json import JsonObject, JsonValue

REQUIRED_LAYERS = frozenset({"no-new-privileges", "landlock", "seccomp", "rlimits"})
LAYER_FAMILIES = REQUIRED_LAYERS | {"no-capabilities", "bubblewrap"}

# What a dynamic linker, glibc and libgomp look for; whatever is not there is left out.
_SYSTEM_READS = ("/usr/lib", "/usr/lib64", "/usr/local/lib", "/lib", "/lib64", "/etc/ld.so.cache", "/dev/urandom")
_SYSTEM_SHARED = ("/dev/null",)


class SandboxMode(StrEnum):
    """An admin's choice for a nation's cluster."""

    REQUIRED = "required"
    NONE = "none"


class SandboxUnavailable(PreconditionFailed):
    """The machine cannot confine a child, or a probe got through: nothing is trained."""

    code = "SANDBOX_UNAVAILABLE"


@dataclass(frozen=True, slots=True)
class Confinement:
    """What one child may touch and use up. Sent to it as its first frame; it cannot widen it afterwards."""

    mode: SandboxMode
    reads: tuple[Path, ...]
    """Model, data and program; the interpreter and its libraries are added."""
    scratch: Path
    """The one folder it may write; emptied by the agent."""
    secrets: tuple[Path, ...]
    """Files that exist and that it must fail to open: the agent's keys and journal."""
    memory_bytes: int
    """RLIMIT_DATA. Not RLIMIT_AS: torch reserves gigabytes of addresses that it never touches."""
    cpu_seconds: int
    file_bytes: int = 64 * 2**20
    threads: int = 1

    def to_json(self) -> JsonObject:
        return {
            "mode": self.mode,
            "reads": [str(path) for path in self.reads],
            "scratch": str(self.scratch),
            "secrets": [str(path) for path in self.secrets],
            "memory_bytes": self.memory_bytes,
            "cpu_seconds": self.cpu_seconds,
            "file_bytes": self.file_bytes,
            "threads": self.threads,
        }

    @staticmethod
    def from_json(value: JsonValue) -> Confinement:
        given = Fields(value, "confinement")
        confinement = Confinement(
            mode=given.choice("mode", SandboxMode),
            reads=tuple(map(Path, given.texts("reads", max_items=64, max_chars=4096))),
            scratch=Path(given.text("scratch", 4096)),
            secrets=tuple(map(Path, given.texts("secrets", max_items=64, max_chars=4096))),
            memory_bytes=given.integer("memory_bytes", 1),
            cpu_seconds=given.integer("cpu_seconds", 1),
            file_bytes=given.integer("file_bytes", 1),
            threads=given.integer("threads", 1, 1024),
        )
        given.done()
        return confinement


@dataclass(frozen=True, slots=True)
class SandboxReport:
    """What was in force around one child, for the receipt. No layers means that the admin set `sandbox: none`."""

    layers: tuple[str, ...]
    """Sorted, for example `bubblewrap`, `landlock-7`, `no-capabilities`, `no-new-privileges`, `rlimits`, `seccomp`."""
    refused: tuple[str, ...]
    """What the probe tried inside the child and was refused, sorted."""


def program_reads() -> tuple[Path, ...]:
    """Interpreter, libraries and our own two packages, as far as they exist."""
    packages = [Path(package.__path__[0]) for package in (node_agent, treaty)]
    prefixes = [Path(sys.prefix), Path(sys.base_prefix)]
    return tuple(path for path in _distinct([*prefixes, *packages, *map(Path, _SYSTEM_READS)]) if path.exists())


def check_secrets_are_apart(confinement: Confinement) -> None:
    """Refuse a layout where what must be hidden lies below what must be readable, or is not there to be probed.

    Raises: SandboxUnavailable.
    """
    readable = [path.resolve() for path in (*program_reads(), *confinement.reads, confinement.scratch)]
    for secret in confinement.secrets:
        if not secret.is_file():
            raise SandboxUnavailable("a file that the probe must fail to read does not exist")
        if any(secret.resolve().is_relative_to(path) for path in readable):
            raise SandboxUnavailable(
                "the agent's secrets lie in a folder that the trainer may read",
                remedy="move the agent's state folder out of the interpreter, model and data folders",
            )


def apply(confinement: Confinement) -> list[str]:
    """Confine this process, now and for good. Called in the child, before any thread. Returns the layers in force.

    Raises: OSError: a required layer is not to be had.
    """
    layers = ["no-new-privileges", "rlimits", "seccomp"]
    kernel.check_single_threaded()
    kernel.forbid_new_privileges()
    kernel.limit(
        {
            resource.RLIMIT_DATA: confinement.memory_bytes,
            resource.RLIMIT_CPU: confinement.cpu_seconds,
            resource.RLIMIT_FSIZE: confinement.file_bytes,
            resource.RLIMIT_CORE: 0,
            resource.RLIMIT_NOFILE: 512,
            # Counted over everything that this user runs, so it is a far bound only; seccomp allows no process at all.
            resource.RLIMIT_NPROC: 8192,
        }
    )
    try:
        kernel.drop_capabilities()
        layers.append("no-capabilities")
    except OSError:
        pass  # already without them in some containers; not required
    shared = [path for path in map(Path, _SYSTEM_SHARED) if path.exists()]
    abi = kernel.restrict_paths([*program_reads(), *confinement.reads], [confinement.scratch, *shared])
    layers.append(f"landlock-{abi}")
    kernel.filter_syscalls()
    return layers


def check_layers(layers: Iterable[str]) -> tuple[str, ...]:
    """The layers that a child reports, sorted. Raises SandboxUnavailable when a required one is missing."""
    names = sorted(layers)
    families = {name.rsplit("-", 1)[0] if name.startswith("landlock-") else name for name in names}
    if missing := REQUIRED_LAYERS - families or families - LAYER_FAMILIES:
        raise SandboxUnavailable(f"the sandbox lacks {', '.join(sorted(missing))}", remedy=REMEDY)
    return tuple(names)


REMEDY = "use a kernel with Landlock and install libseccomp2, or accept the risk with `sandbox: none`"


def wrapped(command: Sequence[str], confinement: Confinement) -> list[str]:
    """`command` inside bubblewrap, where that works on this machine; else as it is."""
    bwrap = shutil.which("bwrap")
    if confinement.mode is SandboxMode.NONE or bwrap is None or not _works(bwrap):
        return list(command)
    binds = [
        argument
        for path in _distinct([*program_reads(), *confinement.reads])
        if not str(path).startswith("/dev/")
        for argument in ("--ro-bind", str(path), str(path))
    ]
    scratch = ["--bind", str(confinement.scratch), str(confinement.scratch)]
    return [*_bwrap(bwrap), *binds, *scratch, "--", *command]


def _bwrap(bwrap: str) -> list[str]:
    return [bwrap, "--unshare-all", "--die-with-parent", "--new-session", "--cap-drop", "ALL", "--dev", "/dev"]


@cache
def _works(bwrap: str) -> bool:
    """Whether this machine lets bubblewrap make its namespaces; asked once."""
    roots = ("/usr", "/bin", "/lib", "/lib64")
    binds = [argument for root in roots for argument in ("--ro-bind-try", root, root)]
    command = [*_bwrap(bwrap), *binds, "--", "/bin/true"]
    try:
        return subprocess.run(command, capture_output=True, check=False, timeout=10).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def _distinct(paths: Iterable[Path]) -> list[Path]:
    """Without repeats and without paths below another one."""
    unique = list(dict.fromkeys(paths))
    return [path for path in unique if not any(path != other and path.is_relative_to(other) for other in unique)]
