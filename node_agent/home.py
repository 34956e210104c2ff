"""Where an agent's things lie, and that only one process uses them.

    HOME/settings.yaml       what the admin decides (node_agent.settings)
    HOME/membership.json     written by `join`: coordinator, Reach, pinned charter digest
    HOME/journal.db          what survives a crash; where the CLI and the running agent meet
    HOME/keys/agent.key      receipts, tallies, policy-answered consents
    HOME/tls/{ca.key,ca.pem} the nation's CA, which issues the agent's short certificates
    HOME/charter/0001.json   every charter version believed so far
    HOME/delegations/*.json  what the root handed on: persons and agents, envelopes
    HOME/{shelf,staging,scratch,policies,logs}/

The root key is not here: it lies in its own folder (`--root-dir`), which only `init` and `delegate` open.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from treaty.errors import ConflictError, NotFound

_PRIVATE = 0o700


@dataclass(frozen=True, slots=True)
class Folders:
    """Where things lie below the agent's home."""

    home: Path
    shelf: Path
    staging: Path
    scratch: Path
    policies: Path
    logs: Path


@dataclass(frozen=True, slots=True)
class Home:
    root: Path

    @property
    def settings(self) -> Path:
        return self.root / "settings.yaml"

    @property
    def membership(self) -> Path:
        return self.root / "membership.json"

    @property
    def descriptor(self) -> Path:
        return self.root / "descriptor.json"

    @property
    def journal(self) -> Path:
        return self.root / "journal.db"

    @property
    def agent_key(self) -> Path:
        return self.root / "keys" / "agent.key"

    @property
    def ca_key(self) -> Path:
        return self.root / "tls" / "ca.key"

    @property
    def ca(self) -> Path:
        return self.root / "tls" / "ca.pem"

    @property
    def charters(self) -> Path:
        return self.root / "charter"

    @property
    def delegations(self) -> Path:
        return self.root / "delegations"

    def folders(self) -> Folders:
        names = ("shelf", "staging", "scratch", "policies", "logs")
        return Folders(self.root, *(self.root / name for name in names))

    def make(self) -> None:
        """Create the folders, closed to others. Idempotent."""
        folders = self.folders()
        wanted = (self.root, folders.shelf, folders.staging, folders.scratch, folders.policies, folders.logs)
        for folder in (*wanted, self.root / "keys", self.root / "tls", self.charters, self.delegations):
            folder.mkdir(parents=True, exist_ok=True, mode=_PRIVATE)

    def require(self) -> None:
        """Raises: NotFound: `init` was never run here."""
        if not self.settings.is_file():
            raise NotFound(f"no agent in {self.root}", remedy="run 'foedus-agent init' first, or pass --home")

    @contextmanager
    def occupied(self) -> Iterator[None]:
        """Hold the home for this process; the kernel lets go when it dies, however it dies.

        Raises: ConflictError: another agent runs on it.
        """
        descriptor = os.open(self.root / "agent.lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as err:
            os.close(descriptor)
            raise ConflictError(f"an agent already runs on {self.root}", remedy="stop it first") from err
        try:
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, str(os.getpid()).encode(), 0)
            yield
        finally:
            os.close(descriptor)

    def is_occupied(self) -> bool:
        """Whether an agent runs on this home now."""
        return self.occupant() is not None

    def occupant(self) -> int | None:
        """The process id of the agent that runs on this home now, 0 in the moment before it has written it."""
        try:
            descriptor = os.open(self.root / "agent.lock", os.O_RDONLY)
        except FileNotFoundError:
            return None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return int(os.pread(descriptor, 20, 0) or b"0")
        else:
            return None
        finally:
            os.close(descriptor)


def write_atomically(path: Path, content: bytes, *, mode: int = 0o600) -> None:
    """Replace `path` by `content`: whole and durable, or not at all."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(mode)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
