"""A real PostgreSQL of our own: a fresh cluster in a folder of its own, on a Unix socket only.

`initdb` refuses root, so as root it runs as the package's user `postgres`.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg

# The server is never killed, only its clients are, so it need not wait for a disk.
_SERVER_OPTIONS = "-c listen_addresses='' -c shared_buffers=16MB -c max_connections=60 -c fsync=off"


def binaries() -> Path | None:
    """The folder with `initdb` and `pg_ctl`, the newest if there are several; None if there is none."""
    packaged = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    on_path = shutil.which("initdb")
    found = [*([Path(on_path).resolve()] if on_path else []), *packaged]
    return next((path.parent for path in reversed(found) if (path.parent / "pg_ctl").exists()), None)


@dataclass(frozen=True, slots=True)
class Server:
    folder: Path
    bin: Path

    def url(self, database: str) -> str:
        return f"postgresql://postgres@/{database}?host={self.folder}"

    def create_database(self, name: str) -> str:
        self.run("createdb", "-h", str(self.folder), "-U", "postgres", name)
        return self.url(name)

    def emptied(self) -> str:
        """The default database with nothing in it: sooner done than another database."""
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute("DROP SCHEMA public CASCADE")
            connection.execute("CREATE SCHEMA public")
        return self.url("postgres")

    def run(self, program: str, *arguments: str) -> None:
        as_user = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
        command = [*as_user, str(self.bin / program), *arguments]
        done = subprocess.run(command, cwd=self.folder, capture_output=True, text=True, timeout=60, check=False)
        if done.returncode:
            raise RuntimeError(f"{program} failed: {done.stderr}")


@contextmanager
def running(bin_folder: Path) -> Iterator[Server]:
    # A Unix socket's path has at most 107 characters, so not under pytest's deep folders.
    folder = Path(tempfile.mkdtemp(prefix="foedus-pg-"))
    server = Server(folder, bin_folder)
    data = folder / "data"
    if os.geteuid() == 0:
        user = pwd.getpwnam("postgres")
        os.chown(folder, user.pw_uid, user.pw_gid)
    try:
        server.run("initdb", "-D", str(data), "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "-N")
        options = f"{_SERVER_OPTIONS} -k {folder}"
        server.run("pg_ctl", "start", "-w", "-D", str(data), "-l", str(folder / "log"), "-o", options)
        try:
            yield server
        finally:
            server.run("pg_ctl", "stop", "-w", "-m", "immediate", "-D", str(data))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
