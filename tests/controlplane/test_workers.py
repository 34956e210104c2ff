"""Workers: how many there may be, what becomes of one that hangs, and that none outlives its coordinator."""

from __future__ import annotations

import asyncio
import os
import select
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path

import pytest

from controlplane.federation.orders import MakeArrays, TakeStep
from controlplane.federation.worker import read_arrays
from controlplane.federation.workers import ORDER_SECONDS, SLOWEST_BYTES_PER_SECOND, Workers, reading_seconds
from treaty.errors import Unavailable
from treaty.names import RunId, digest_of
from treaty.recipe import DEFAULT_TEMPLATE, LoraSft, Precision
from treaty.update import UpdateSpec
from treaty.update_layout import TensorSpec

RECIPE = LoraSft(2, 4, ("q_proj",), 2, 4, 3000, 0, 16, Precision.FLOAT32, DEFAULT_TEMPLATE, 4)
SHAPES = {"model.layers.0.self_attn.q_proj.weight": (6, 4)}


def order(folder: Path, run: str) -> MakeArrays:
    return MakeArrays(RECIPE, SHAPES, folder / run / "arrays" / "0")


@pytest.fixture
async def hire(tmp_path: Path) -> AsyncIterator[Callable[..., Workers]]:
    hired: list[Workers] = []

    def made(limit: int, order_seconds: float = 60) -> Workers:
        hired.append(Workers(tmp_path, limit=limit, order_seconds=order_seconds))
        return hired[-1]

    yield made
    for workers in hired:
        await workers.close()


async def test_ten_runs_have_no_more_workers_than_the_bound(tmp_path: Path, hire: Callable[..., Workers]) -> None:
    workers = hire(limit=2)
    alive: list[int] = []

    async def give(run: RunId) -> None:
        await workers.make_arrays(run, order(tmp_path, run))
        alive.append(sum(process.returncode is None for process in workers._processes.values()))

    async with asyncio.TaskGroup() as tasks:
        for number in range(10):
            tasks.create_task(give(RunId(f"run-{number}")))
    assert len(alive) == 10
    assert max(alive) <= 2
    assert all(read_arrays(tmp_path / f"run-{number}" / "arrays" / "0") for number in range(10))


async def test_a_worker_that_hangs_is_ended_at_its_deadline_and_others_have_their_turn_before_it(
    tmp_path: Path, hire: Callable[..., Workers]
) -> None:
    workers = hire(limit=1, order_seconds=5)
    await workers.make_arrays(RunId("slow"), order(tmp_path, "slow"))
    hung = workers._processes[RunId("slow")]
    hung.send_signal(signal.SIGSTOP)
    ended: list[str] = []

    async def give(run: str) -> None:
        await workers.make_arrays(RunId(run), order(tmp_path, run))
        ended.append(run)

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(give("slow"))
        tasks.create_task(give("quick"))
    assert ended == ["quick", "slow"]
    assert hung.returncode == -signal.SIGKILL


def test_an_order_has_its_minute_and_time_for_each_byte_that_it_reads(tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    files = [tmp_path / "base" / "arrays.safetensors", tmp_path / "FR.update", tmp_path / "DE.update"]
    for file in files:
        file.touch()
        os.truncate(file, 10 * SLOWEST_BYTES_PER_SECOND)
    absent = tmp_path / "gone.update"
    spec = UpdateSpec(
        run_id=RunId("run-1"),
        round=1,
        base_digest=digest_of(b"arrays"),
        clip_norm_micro=1_000_000,
        tensors=(TensorSpec("w", (2, 2)),),
        max_examples=8,
        max_cohort=2,
    )
    step = TakeStep("FedAvg", {}, spec, (*files[1:], absent), tmp_path / "base", None, tmp_path, tmp_path, tmp_path)
    assert reading_seconds(step) == 30
    assert reading_seconds(order(tmp_path, "run-1")) == 0
    assert ORDER_SECONDS == 60


async def test_an_order_that_is_given_up_takes_its_worker_with_it(tmp_path: Path, hire: Callable[..., Workers]) -> None:
    workers, run = hire(limit=1), RunId("run-1")
    await workers.make_arrays(run, order(tmp_path, run))
    first = workers._processes[run]
    first.send_signal(signal.SIGSTOP)
    waiting = asyncio.ensure_future(workers.make_arrays(run, order(tmp_path, run)))
    while run not in workers._busy:
        await asyncio.wait([waiting], timeout=0.01)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert first.returncode == -signal.SIGKILL
    await workers.make_arrays(run, order(tmp_path, run))


async def test_a_worker_that_never_answers_is_unavailable_and_says_where_to_look(
    tmp_path: Path, hire: Callable[..., Workers]
) -> None:
    workers = hire(limit=1, order_seconds=0.01)
    with pytest.raises(Unavailable, match=r"the worker of run run-1 failed 2 times; see runs/run-1/worker\.log"):
        await workers.make_arrays(RunId("run-1"), order(tmp_path, "run-1"))
    assert not workers._processes


_COORDINATOR = """
import asyncio, sys
from pathlib import Path
from controlplane.federation.workers import Workers
from tests.controlplane.test_workers import order

async def main():
    folder = Path(sys.argv[1])
    workers = Workers(folder)
    await workers.make_arrays("run-1", order(folder, "run-1"))
    print(workers._processes["run-1"].pid, flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


async def test_a_worker_does_not_outlive_a_coordinator_that_was_killed(tmp_path: Path) -> None:
    coordinator = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _COORDINATOR, str(tmp_path), stdout=asyncio.subprocess.PIPE
    )
    assert coordinator.stdout is not None
    worker = int(await asyncio.wait_for(coordinator.stdout.readline(), 60))
    watched = os.pidfd_open(worker)
    try:
        os.kill(worker, signal.SIGSTOP)  # too busy to see that its input has ended
        coordinator.kill()
        await coordinator.wait()
        ended, _, _ = await asyncio.to_thread(select.select, [watched], [], [], 10)
        assert ended, "the worker is still there"
    finally:
        with suppress(ProcessLookupError):
            os.kill(worker, signal.SIGKILL)
        os.close(watched)
