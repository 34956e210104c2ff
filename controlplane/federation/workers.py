"""The coordinator's hand on its workers: start one per run, give it orders, start it again if it died.

A worker keeps nothing that is not in a file, so a dead one is replaced and the order given again. Its standard error
goes to the run's folder. The environment is the bare minimum: no credential, telemetry off.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import structlog

from controlplane.federation import frames
from controlplane.federation.orders import MakeArrays, Order, StepTaken, TakeStep, parse_step_taken
from treaty.errors import Corrupt, FoedusError, LimitExceeded, PreconditionFailed, Unavailable
from treaty.fields import Fields
from treaty.names import RunId
from treaty.strict_json import JsonValue

log = structlog.get_logger(__name__)

ORDER_SECONDS = 600.0
ATTEMPTS = 2
_KEPT = ("PATH", "LANG", "LC_ALL", "TMPDIR", "PYTHONPATH", "VIRTUAL_ENV", "LD_LIBRARY_PATH")


class Workers:
    """One worker process per run that needs one."""

    def __init__(self, runs: Path) -> None:
        """`runs`: the folder that holds a folder per run."""
        self._runs = runs
        self._processes: dict[RunId, asyncio.subprocess.Process] = {}
        self._turns: dict[RunId, asyncio.Lock] = {}

    async def make_arrays(self, run: RunId, order: MakeArrays) -> None:
        Fields(await self._carry_out(run, order), "answer").done()

    async def take_step(self, run: RunId, order: TakeStep) -> StepTaken:
        return parse_step_taken(await self._carry_out(run, order))

    async def end(self, run: RunId) -> None:
        """Let the run's worker go. Idempotent."""
        self._turns.pop(run, None)
        process = self._processes.pop(run, None)
        if process is not None and process.returncode is None:
            process.kill()
            await process.wait()

    async def close(self) -> None:
        for run in tuple(self._processes):
            await self.end(run)

    async def _carry_out(self, run: RunId, order: Order) -> JsonValue:
        """Give an order and await its answer.

        Raises: PreconditionFailed and others: the worker's own refusal. Unavailable: it died or was silent, twice.
        """
        async with self._turns.setdefault(run, asyncio.Lock()):
            for attempt in range(1, ATTEMPTS + 1):
                try:
                    async with asyncio.timeout(ORDER_SECONDS):
                        return await self._exchange(run, order)
                except (TimeoutError, asyncio.IncompleteReadError, OSError, LimitExceeded) as err:
                    log.warning("run worker failed", run=run, attempt=attempt, exc_info=err)
                    await self._kill(run)
        raise Unavailable(f"the worker of run {run} failed {ATTEMPTS} times", remedy=f"see runs/{run}/worker.log")

    async def _exchange(self, run: RunId, order: Order) -> JsonValue:
        process = await self._process(run)
        if process.stdin is None or process.stdout is None:
            raise OSError("the worker has no pipes")
        process.stdin.write(frames.encode(order.to_json()))
        await process.stdin.drain()
        length = frames.frame_length(await process.stdout.readexactly(frames.LENGTH_BYTES))
        answer = Fields(frames.decode(await process.stdout.readexactly(length)), "answer")
        if answer.has("error"):
            raise _refusal(answer.mapping("error"))
        return answer.value("ok")

    async def _process(self, run: RunId) -> asyncio.subprocess.Process:
        process = self._processes.get(run)
        if process is not None and process.returncode is None:
            return process
        folder = self._runs / run
        folder.mkdir(parents=True, exist_ok=True)
        environment = {name: os.environ[name] for name in _KEPT if name in os.environ}
        environment |= {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1", "HOME": str(folder)}
        with (folder / "worker.log").open("ab") as errors:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-P",  # the working directory shadows no module
                "-m",
                "controlplane.federation.worker",
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=errors,
                env=environment,
            )
        self._processes[run] = process
        return process

    async def _kill(self, run: RunId) -> None:
        process = self._processes.pop(run, None)
        if process is not None and process.returncode is None:
            process.kill()
            await process.wait()


_REFUSALS: dict[str, type[FoedusError]] = {Corrupt.code: Corrupt, Unavailable.code: Unavailable}


def _refusal(error: Fields) -> FoedusError:
    code, message = error.text("code", 64), error.text("message", 4096)
    return _REFUSALS.get(code, PreconditionFailed)(message, code=code)
