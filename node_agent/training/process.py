"""One confined child: start it, prove its confinement, exchange frames with it, end it.

Rules:
1. the child gets two pipes, an empty environment, an own session and a capped file for what it prints; nothing else;
2. it is usable only after it reported the required layers and every probe as refused;
3. each exchange has a deadline; a deadline missed, a malformed frame or a cancelled caller ends the child, since what
   it would say next could answer anything;
4. of an error the code counts, from a closed list, never a text. What it printed stays in the nation.

Used for trainers (`supervisor`) and for serving (`node_agent.runtime.local`); what a reply may contain is for them.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, NoReturn

import node_agent
from node_agent.training import launch, sandbox
from node_agent.training.frames import Frame, Limits, PipeEnd
from node_agent.training.probe import PROBES
from node_agent.training.sandbox import Confinement, SandboxMode, SandboxReport, SandboxUnavailable
from treaty.errors import FoedusError, InvalidInput, PreconditionFailed, ResourceExhausted, TrustError, Unavailable

MAX_PRINTED_BYTES = 256 * 1024
"""What is kept of a child's standard error, in the agent's own folder."""

NO_ARRAYS = Limits(header_bytes=64 * 1024, body_bytes=0)

START_SECONDS = 60.0
STOP_SECONDS = 5.0

CHILD_CODES: dict[str, type[FoedusError]] = {
    "SANDBOX_UNAVAILABLE": SandboxUnavailable,
    "MODEL_UNUSABLE": PreconditionFailed,
    "DATA_UNUSABLE": PreconditionFailed,
    "DATA_TOO_SMALL": PreconditionFailed,
    "ARRAYS_UNUSABLE": InvalidInput,
    "VALUES_NOT_FINITE": InvalidInput,
    "OUT_OF_MEMORY": ResourceExhausted,
    "TRAINER_UNUSABLE": PreconditionFailed,
    "TRAINER_FAILED": PreconditionFailed,
}
"""Every error that a child can report; any other word from it is a breach."""


class ChildBreach(TrustError):
    """The child said something that it must not be able to say, or broke the frame format. It was ended."""

    code = "CHILD_BREACH"


@dataclass(frozen=True, slots=True)
class ChildSpec:
    """How to start one child."""

    program: str
    """A module of ours, or the absolute path of a file that the admin named."""
    confinement: Confinement
    input_dir: Path
    """Below `confinement.reads`; empty until the probe has passed."""
    printed: Path
    """Where its standard error goes, capped; overwritten at each start."""


class ConfinedChild:
    """A running child. One exchange at a time; any breach ends it. Pipes are read and written in a thread, which a kill
    frees at once: the pipe's other end closes with the child."""

    def __init__(self, process: subprocess.Popen[bytes], pipe: PipeEnd) -> None:
        self._process = process
        self._pipe = pipe
        self.report = SandboxReport((), ())

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None

    @property
    def pid(self) -> int:
        """Of the outermost process: bubblewrap's where that is a layer."""
        return self._process.pid

    async def exchange(self, frame: Frame, *, expect: str, timeout_seconds: float, limits: Limits = NO_ARRAYS) -> Frame:
        """Send `frame` and await the one reply, of type `expect` and within `limits`.

        Raises:
            Unavailable: no answer in time, or the child ended; it is gone afterwards.
            ChildBreach: the reply is malformed, of another type or an undeclared error; likewise.
            the class that `CHILD_CODES` names: the child said why it cannot; it lives on.
        """
        try:
            async with asyncio.timeout(timeout_seconds):
                reply = await asyncio.to_thread(self._round_trip, frame, limits)
        except TimeoutError:
            await self.stop()
            raise Unavailable("the child did not answer in time and was ended", code="CHILD_TIMEOUT") from None
        except (EOFError, OSError, ValueError) as err:
            await self.stop()
            raise Unavailable("the child ended before it answered", code="CHILD_ENDED") from err
        except InvalidInput as err:
            await self.stop()
            raise ChildBreach("the child's frame is malformed or beyond its limits", code=err.code) from err
        except asyncio.CancelledError:
            await asyncio.shield(self.stop())
            raise
        if reply.type == "error":
            await self._raise_error(reply)
        if reply.type != expect:
            await self.breach("REPLY_UNEXPECTED", "the child sent another type of frame than it was asked for")
        return reply

    def _round_trip(self, frame: Frame, limits: Limits) -> Frame:
        self._pipe.send(frame)
        reply = self._pipe.receive(limits)
        if reply is None:
            raise EOFError
        return reply

    async def _raise_error(self, reply: Frame) -> NoReturn:
        code = reply.fields.get("code")
        if set(reply.fields) != {"code"} or not isinstance(code, str) or code not in CHILD_CODES or reply.arrays:
            await self.breach("ERROR_UNDECLARED", "the child reported an error that is not one of the declared codes")
        raise CHILD_CODES[str(code)]("the child could not do what it was asked for", code=str(code))

    async def breach(self, code: str, message: str) -> NoReturn:
        """End the child and raise ChildBreach. The message is ours and repeats nothing of what the child said."""
        await self.stop()
        raise ChildBreach(message, code=code)

    def kill(self) -> None:
        """End the child and whatever it started, now. Idempotent; does not wait."""
        if self._process.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)

    async def stop(self) -> None:
        """Kill and wait until it is gone. Idempotent."""
        self.kill()
        with suppress(subprocess.TimeoutExpired):  # stuck in the kernel: it is killed as soon as it comes out
            await asyncio.to_thread(self._process.wait, STOP_SECONDS)
        self._pipe.close()


async def start(spec: ChildSpec) -> ConfinedChild:
    """Start a child and return it confined, before anything secret is within its reach.

    Raises:
        SandboxUnavailable: a required layer is missing, or a probe got through.
        Unavailable: it did not come up in time.
    """
    if spec.confinement.mode is SandboxMode.REQUIRED:
        sandbox.check_secrets_are_apart(spec.confinement)
    root = str(Path(node_agent.__path__[0]).parent)
    command = [sys.executable, "-I", "-B", "-c", launch.BOOTSTRAP, root]
    wrapped = await asyncio.to_thread(sandbox.wrapped, command, spec.confinement)
    child = await asyncio.to_thread(_spawn, wrapped, spec)
    try:
        reply = await child.exchange(_order(spec), expect="confined", timeout_seconds=START_SECONDS)
        child.report = _believed(reply, spec.confinement.mode, is_wrapped=len(wrapped) != len(command))
    except BaseException:
        await asyncio.shield(child.stop())
        raise
    return child


def _order(spec: ChildSpec) -> Frame:
    return Frame(
        "confine",
        {
            "confinement": spec.confinement.to_json(),
            "program": spec.program,
            "input_dir": str(spec.input_dir),
            "agent_pid": os.getpid(),
        },
    )


def _believed(reply: Frame, mode: SandboxMode, *, is_wrapped: bool) -> SandboxReport:
    """What the launcher, which is our own code and runs before anybody else's, says about the layers."""
    if mode is SandboxMode.NONE:
        return SandboxReport((), ())
    layers, refused = reply.fields.get("layers"), reply.fields.get("refused")
    if not isinstance(layers, list) or not isinstance(refused, list):
        raise SandboxUnavailable("the child did not report its layers")
    if got_through := PROBES - set(map(str, refused)):
        raise SandboxUnavailable(f"the sandbox does not hold: {', '.join(sorted(got_through))}", remedy=sandbox.REMEDY)
    found = [*map(str, layers), *(["bubblewrap"] if is_wrapped else [])]
    return SandboxReport(sandbox.check_layers(found), tuple(sorted(map(str, refused))))


def _spawn(command: list[str], spec: ChildSpec) -> ConfinedChild:
    spec.printed.parent.mkdir(parents=True, exist_ok=True)
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            # One thread until the layers are on: a thread that is already there would stay outside them.
            env={"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"},
            start_new_session=True,
            cwd="/",
        )
    except OSError as err:
        raise Unavailable("the child could not be started") from err
    if process.stdin is None or process.stdout is None or process.stderr is None:
        raise Unavailable("the child has no pipes")
    threading.Thread(target=_keep_until_ended, args=(process, spec.printed), name="child-stderr", daemon=True).start()
    return ConfinedChild(process, PipeEnd(process.stdout, process.stdin))


def _keep_until_ended(process: subprocess.Popen[bytes], target: Path) -> None:
    """Keep what a child prints, and take its ending from the kernel whether or not anybody asks for it."""
    if process.stderr is not None:
        _keep_printed(process.stderr, target)
    process.wait()


def _keep_printed(source: IO[bytes], target: Path) -> None:
    """Copy what a child prints into `target` up to the cap, and read on so that it never blocks."""
    left = MAX_PRINTED_BYTES
    with source, target.open("wb") as kept:
        target.chmod(0o600)
        while piece := source.read1(65536):  # type: ignore[attr-defined]  # a BufferedReader
            kept.write(piece[:left])
            kept.flush()
            left = max(0, left - len(piece))
