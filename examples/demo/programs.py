"""Runs the project's real programs, as a person would type them, and stops every one of them in the end.

A command that fails where it should not ends the demo with the command, its standard error and the log files to read.
What is long-running (coordinator, agents) is started in a process group of its own and stopped gently, then surely,
together with whatever it started.
"""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

BIN: Final = Path(sys.executable).parent
COMMAND_SECONDS: Final = 120
FOLLOW_SECONDS: Final = 1800
"""A command that shows progress may take as long as the longest rounds do."""
STOP_SECONDS: Final = 8
TAIL_CHARS: Final = 3000
_PROXIES: Final = ("http_proxy", "https_proxy", "grpc_proxy", "all_proxy")


class DemoFailed(Exception):
    """Something did not happen as it must; carries all that a reader needs to look further."""


@dataclass(frozen=True, slots=True)
class Done:
    """What a command printed, and how it ended."""

    command: str
    out: str
    err: str
    code: int


@dataclass(slots=True)
class Daemon:
    """A long-running program and the file its output goes to."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path


@dataclass(slots=True)
class Programs:
    """`environment` is added to a clean one: no proxies, no telemetry, one thread per library."""

    environment: Mapping[str, str]
    logs: Path
    daemons: dict[str, Daemon] = field(default_factory=dict)

    def run(self, program: str, *words: object, env: Mapping[str, str] | None = None) -> Done:
        """Run a command to its end. Raises: DemoFailed: it did not end with 0, or not in time."""
        done = self.attempt(program, *words, env=env)
        if done.code:
            raise DemoFailed(self._failure(done))
        return done

    def refused(self, program: str, *words: object, env: Mapping[str, str] | None = None) -> Done:
        """Run a command that must be refused. Raises: DemoFailed: it was not, or it broke instead."""
        done = self.attempt(program, *words, env=env)
        if done.code == 0:
            raise DemoFailed(f"this should have been refused and was not:\n  {done.command}\n{done.out.strip()}")
        if "Traceback" in done.err:
            raise DemoFailed(self._failure(done))
        return done

    def attempt(self, program: str, *words: object, env: Mapping[str, str] | None = None) -> Done:
        command = [str(BIN / program), *map(str, words)]
        try:
            ended = subprocess.run(
                command,
                env=self._environment(env),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=COMMAND_SECONDS,
                check=False,
            )
        except FileNotFoundError as err:
            raise DemoFailed(f"there is no program {command[0]}; install the project first (make demo does)") from err
        except subprocess.TimeoutExpired as err:
            raise DemoFailed(f"no end within {COMMAND_SECONDS} s:\n  {shown(command)}{self._where_to_look()}") from err
        return Done(shown(command), ended.stdout, ended.stderr, ended.returncode)

    def follow(
        self,
        say: Callable[[str], None],
        program: str,
        *words: object,
        env: Mapping[str, str] | None = None,
        must_succeed: bool = True,
    ) -> Done:
        """Run a command and hand on every line of its output as it comes."""
        command = [str(BIN / program), *map(str, words)]
        lines: list[str] = []
        process = subprocess.Popen(
            command,
            env=self._environment(env),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            bufsize=1,
        )
        watchdog = threading.Timer(FOLLOW_SECONDS, process.kill)
        watchdog.start()
        try:
            for line in process.stdout or ():
                lines.append(line)
                if line.strip():
                    say(line)
            code = process.wait()
        finally:
            watchdog.cancel()
            process.kill()
            process.communicate()
        done = Done(shown(command), "".join(lines), "".join(lines), code)
        if code and must_succeed:
            raise DemoFailed(self._failure(done))
        return done

    def start(self, name: str, program: str, *words: object, env: Mapping[str, str] | None = None) -> Daemon:
        """Start a long-running program in a process group of its own."""
        self.logs.mkdir(parents=True, exist_ok=True)
        log = self.logs / f"{name}.log"
        with log.open("ab") as output:
            process = subprocess.Popen(
                [str(BIN / program), *map(str, words)],
                env=self._environment(env),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.daemons[name] = Daemon(name, process, log)
        return self.daemons[name]

    def check_alive(self) -> None:
        """Raises: DemoFailed: a long-running program has ended by itself."""
        for daemon in self.daemons.values():
            if daemon.process.poll() is not None:
                tail = daemon.log.read_text("utf-8", "replace")[-TAIL_CHARS:]
                code = daemon.process.returncode
                raise DemoFailed(f"{daemon.name} ended by itself with {code}; its log {daemon.log} ends with:\n{tail}")

    def wait_until(self, what: str, is_so: Callable[[], bool], seconds: float) -> None:
        """Look again and again until `is_so`. Raises: DemoFailed: it was not within `seconds`."""
        deadline = time.monotonic() + seconds
        while not is_so():
            self.check_alive()
            if time.monotonic() > deadline:
                raise DemoFailed(f"waited {seconds:.0f} s in vain: {what}{self._where_to_look()}")
            time.sleep(0.2)

    def stop(self, name: str) -> None:
        """Stop one long-running program and all that it started. Idempotent."""
        daemon = self.daemons.pop(name, None)
        if daemon is not None:
            _stop([daemon])

    def stop_all(self) -> None:
        """Stop all of them, at once. Idempotent."""
        daemons, self.daemons = list(self.daemons.values()), {}
        _stop(daemons)

    def _environment(self, more: Mapping[str, str] | None) -> dict[str, str]:
        inherited = {name: value for name, value in os.environ.items() if name.lower() not in _PROXIES}
        quiet = {
            "OMP_NUM_THREADS": "1",
            "PYTHONUNBUFFERED": "1",
            "NO_COLOR": "1",
            "COLUMNS": "150",
            "HF_HUB_OFFLINE": "1",
            "FLWR_TELEMETRY_ENABLED": "0",
            "FLWR_DISABLE_UPDATE_CHECK": "1",
        }
        return {**inherited, **quiet, **self.environment, **(more or {})}

    def _failure(self, done: Done) -> str:
        said = (done.err.strip() or done.out.strip() or "(it printed nothing)")[-TAIL_CHARS:]
        return f"this command failed with exit code {done.code}:\n  {done.command}\n{said}{self._where_to_look()}"

    def _where_to_look(self) -> str:
        logs = "\n".join(f"  {path}" for path in sorted(self.logs.glob("*.log")))
        return f"\nlog files:\n{logs}" if logs else ""


def shown(command: Sequence[str]) -> str:
    """A command as a person would type it."""
    return shlex.join([Path(command[0]).name, *command[1:]])


@contextmanager
def stopped_by_signals() -> Iterator[None]:
    """Let SIGTERM end the demo as Ctrl-C does, so that its programs are stopped."""

    def interrupt(_number: int, _frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def undisturbed() -> Iterator[None]:
    """A second Ctrl-C, while everything is being stopped, must leave nothing running."""
    before = [(number, signal.signal(number, signal.SIG_IGN)) for number in (signal.SIGINT, signal.SIGTERM)]
    try:
        yield
    finally:
        for number, handler in before:
            signal.signal(number, handler)


def _stop(daemons: Sequence[Daemon]) -> None:
    started = {pid for daemon in daemons for pid in _descendants(daemon.process.pid)}
    for daemon in daemons:
        if daemon.process.poll() is None:
            daemon.process.terminate()
    deadline = time.monotonic() + STOP_SECONDS
    for daemon in daemons:
        try:
            daemon.process.wait(max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            daemon.process.kill()
            daemon.process.wait()
    # The same process still, not another that was given its number.
    left = [pid for pid, born in started if _born(pid) == born]
    for pid in left:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    while any(_is_running(pid) for pid in left) and time.monotonic() < deadline + 1:
        time.sleep(0.02)


def _descendants(pid: int) -> set[tuple[int, str]]:
    """Process ids below `pid` with their start times."""
    parents: dict[int, int] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        stat = _stat(int(folder.name))
        if stat:
            parents[int(folder.name)] = int(stat[1])
    found: set[int] = set()
    frontier = {pid}
    while frontier:
        frontier = {child for child, parent in parents.items() if parent in frontier} - found
        found |= frontier
    return {(child, _born(child)) for child in found}


def _born(pid: int) -> str:
    """When the process began, in ticks since boot; empty where there is none."""
    stat = _stat(pid)
    return stat[19] if stat else ""


def _is_running(pid: int) -> bool:
    """A zombie has ended and only waits for its parent to look."""
    stat = _stat(pid)
    return bool(stat) and stat[0] != "Z"


def _stat(pid: int) -> list[str]:
    """Fields of /proc/PID/stat from the third (state) on; none where the process is gone or no /proc is there."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []
