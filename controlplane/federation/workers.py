"""The coordinator's hand on its workers: start one per run, give it orders, start it again if it died.

Rules:
1. a worker keeps nothing that is not in a file, so a dead one is replaced and the order given again;
2. at most `limit` workers are alive, whatever the number of runs: an order waits for its turn, first come, first
   served, and an idle worker of another run makes room. One that hangs gives its turn up at its deadline and queues
   again behind the others; the deadline follows what the order has to read, so that those who wait behind hung workers
   of small runs wait for a minute, whatever a large run needs;
3. an order that nobody waits for any longer takes its worker with it: a late answer would be taken for the next one's;
4. a worker does not outlive this process.

Its standard error goes to the run's folder. The environment is the bare minimum: no credential, telemetry off.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import Final

import structlog

from controlplane.federation import frames
from controlplane.federation.orders import MakeArrays, Order, StepTaken, TakeStep, parse_step_taken
from treaty.errors import Corrupt, FoedusError, LimitExceeded, PreconditionFailed, Unavailable
from treaty.fields import Fields
from treaty.names import RunId
from treaty.strict_json import JsonValue

log = structlog.get_logger(__name__)

ORDER_SECONDS: Final = 60.0
"""For an order that reads next to nothing: to start a worker takes a second or two, on an overrun machine ten."""
SLOWEST_BYTES_PER_SECOND: Final = 4 * 2**20
"""What an order may take beside, for each byte that it reads. On a healthy disk a step does a hundred times as much
(`bench/aggregate.py`)."""
ATTEMPTS = 2
MAX_WORKERS: Final = 2
"""A step reads, hashes and adds on up to four threads and holds its arrays several times over (base, mean, result, two
moments; with a robust strategy one delta for each nation too), so memory decides. Two, and not one: a worker that hangs
then leaves the others a turn, and one that waits for the disk leaves the processors to the other."""
_KEPT = ("PATH", "LANG", "LC_ALL", "TMPDIR", "PYTHONPATH", "VIRTUAL_ENV", "LD_LIBRARY_PATH")


class Workers:
    """A worker process for each run that needs one, within the bound."""

    def __init__(self, runs: Path, *, limit: int = MAX_WORKERS, order_seconds: float = ORDER_SECONDS) -> None:
        """`runs`: the folder that holds a folder per run."""
        self._runs = runs
        self._order_seconds = order_seconds
        self._limit = limit
        self._slots = asyncio.Semaphore(limit)
        self._busy: set[RunId] = set()
        self._processes: dict[RunId, asyncio.subprocess.Process] = {}
        self._turns: dict[RunId, asyncio.Lock] = {}

    async def make_arrays(self, run: RunId, order: MakeArrays) -> None:
        Fields(await self._carry_out(run, order), "answer").done()

    async def take_step(self, run: RunId, order: TakeStep) -> StepTaken:
        return parse_step_taken(await self._carry_out(run, order))

    async def end(self, run: RunId) -> None:
        """Let the run's worker go. Idempotent."""
        self._turns.pop(run, None)
        await self._kill(run)

    async def close(self) -> None:
        """Let all go, when nobody gives orders any longer."""
        for run in tuple(self._processes):
            await self.end(run)

    async def _carry_out(self, run: RunId, order: Order) -> JsonValue:
        """Give an order and await its answer.

        Raises: PreconditionFailed and others: the worker's own refusal. Unavailable: it died or was silent, twice.
        """
        async with self._turns.setdefault(run, asyncio.Lock()):
            for attempt in range(1, ATTEMPTS + 1):
                async with self._slots:
                    try:
                        return await self._attempt(run, order)
                    except (TimeoutError, asyncio.IncompleteReadError, OSError, LimitExceeded) as err:
                        log.warning("run worker failed", run=run, attempt=attempt, exc_info=err)
        raise Unavailable(f"the worker of run {run} failed {ATTEMPTS} times", remedy=f"see runs/{run}/worker.log")

    async def _attempt(self, run: RunId, order: Order) -> JsonValue:
        """One exchange within its time; a worker that did not answer is ended (rules 2 and 3)."""
        self._busy.add(run)
        is_answered = False
        try:
            seconds = self._order_seconds + await asyncio.to_thread(reading_seconds, order)
            async with asyncio.timeout(seconds):
                answer = await self._exchange(run, order)
            is_answered = True
        finally:
            self._busy.discard(run)
            if not is_answered:
                await asyncio.shield(self._kill(run))
        if answer.has("error"):
            raise _refusal(answer.mapping("error"))
        return answer.value("ok")

    async def _exchange(self, run: RunId, order: Order) -> Fields:
        process = await self._process(run)
        if process.stdin is None or process.stdout is None:
            raise OSError("the worker has no pipes")
        process.stdin.write(frames.encode(order.to_json()))
        await process.stdin.drain()
        length = frames.frame_length(await process.stdout.readexactly(frames.LENGTH_BYTES))
        return Fields(frames.decode(await process.stdout.readexactly(length)), "answer")

    async def _process(self, run: RunId) -> asyncio.subprocess.Process:
        process = self._processes.get(run)
        if process is not None and process.returncode is None:
            return process
        await self._make_room()
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
                str(os.getpid()),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=errors,
                env=environment,
            )
        self._processes[run] = process
        return process

    async def _make_room(self) -> None:
        """End idle workers until this one may start: who asks has its turn, so where all places are taken some idle."""
        while len(self._processes.keys() | self._busy) > self._limit:
            idle = [run for run in self._processes if run not in self._busy]
            if not idle:
                return
            await self._kill(idle[0])

    async def _kill(self, run: RunId) -> None:
        process = self._processes.pop(run, None)
        if process is not None and process.returncode is None:
            process.kill()
            await process.wait()


def reading_seconds(order: Order) -> float:
    """What an order may take for the files that it reads: a step's updates and arrays."""
    if isinstance(order, MakeArrays):
        return 0.0
    read = (*order.updates, *order.base.glob("*"))
    return sum(path.stat().st_size for path in read if path.is_file()) / SLOWEST_BYTES_PER_SECOND


_REFUSALS: dict[str, type[FoedusError]] = {Corrupt.code: Corrupt, Unavailable.code: Unavailable}


def _refusal(error: Fields) -> FoedusError:
    code, message = error.text("code", 64), error.text("message", 4096)
    return _REFUSALS.get(code, PreconditionFailed)(message, code=code)
