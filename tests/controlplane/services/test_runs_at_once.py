"""Several open runs, each on its own: what holds one up, or ends it, is no other's."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from controlplane.federation.worker import read_arrays
from tests.controlplane.services.run_world import DE, FR, World, run_world
from treaty.names import RunId
from treaty.resources.meta import is_true

HELD, OTHER = RunId("held"), RunId("other")
SECONDS = 60
"""A test that would wait forever ends, on a machine with much else to do."""


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with run_world(tmp_path) as made:
        yield made


@asynccontextmanager
async def moving(world: World) -> AsyncIterator[None]:
    """The reconciler's loop, as a task of the process, for the length of the body."""
    async with asyncio.timeout(SECONDS), asyncio.TaskGroup() as tasks:
        loop = tasks.create_task(world.reconciler.run())
        yield
        loop.cancel()


async def both_collecting(world: World) -> None:
    for name in (HELD, OTHER):
        await world.start(name, rounds=1)
        await world.until(name, 1)


async def answer(world: World, name: str) -> None:
    for nation in (FR, DE):
        await world.send(nation, seed=len(name), name=name)


async def brought_to_its_end(world: World, name: str) -> None:
    await world.until(name, 2)
    for nation in (FR, DE):
        await world.report(nation, 2, name)
    assert is_true((await world.ended(name)).conditions, "Succeeded")


async def test_a_run_whose_worker_hangs_holds_up_no_other_and_goes_on_when_it_can(world: World) -> None:
    async with moving(world):
        await both_collecting(world)
        hung = world.workers._processes[HELD]
        hung.send_signal(signal.SIGSTOP)
        await answer(world, HELD)
        await answer(world, OTHER)
        await brought_to_its_end(world, OTHER)
        assert (await world.status(HELD)).round == 1
        hung.send_signal(signal.SIGCONT)
        await brought_to_its_end(world, HELD)


async def test_a_run_whose_worker_dies_is_taken_up_by_another_and_disturbs_nobody(world: World) -> None:
    async with moving(world):
        await both_collecting(world)
        dying, other = world.workers._processes[HELD], world.workers._processes[OTHER]
        dying.send_signal(signal.SIGSTOP)
        await answer(world, HELD)
        dying.kill()
        await answer(world, OTHER)
        await brought_to_its_end(world, OTHER)
        await brought_to_its_end(world, HELD)
        assert other.pid != dying.pid


async def test_a_loop_that_is_cancelled_leaves_no_worker_at_work_and_the_run_goes_on_afterwards(world: World) -> None:
    async with moving(world):
        await both_collecting(world)
        hung = world.workers._processes[HELD]
        hung.send_signal(signal.SIGSTOP)
        await answer(world, HELD)
        while HELD not in world.workers._busy:
            await world.status(HELD)
    assert hung.returncode == -signal.SIGKILL
    async with moving(world):
        await brought_to_its_end(world, HELD)
    assert read_arrays(world.home / "runs" / HELD / "arrays" / "1")


async def test_a_run_is_moved_by_one_task_at_a_time_however_often_it_is_woken(world: World) -> None:
    async with moving(world):
        await both_collecting(world)
        hung = world.workers._processes[HELD]
        hung.send_signal(signal.SIGSTOP)
        await answer(world, HELD)
        await answer(world, OTHER)  # each piece of news wakes the loop while the first run is moving
        await brought_to_its_end(world, OTHER)
        assert [task.get_name() for task in asyncio.all_tasks()].count(f"run {HELD}") == 1
        hung.send_signal(signal.SIGCONT)
        await brought_to_its_end(world, HELD)
