from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from node_agent.training.slots import TrainerSlots, default_slots
from treaty.errors import Unavailable


async def test_as_many_hold_a_slot_as_there_are(tmp_path: Path) -> None:
    slots = TrainerSlots(tmp_path / "slots", 2)
    async with slots.hold(timeout_seconds=1) as first, slots.hold(timeout_seconds=1) as second:
        assert {first, second} == {0, 1}
        with pytest.raises(Unavailable, match="no trainer slot became free in time") as refused:
            async with slots.hold(timeout_seconds=0.01):
                pass
    assert refused.value.code == "TRAINER_BUSY"


async def test_a_waiter_gets_the_slot_that_is_given_back(tmp_path: Path) -> None:
    slots = TrainerSlots(tmp_path / "slots", 1)
    order: list[str] = []

    async def wait() -> None:
        async with slots.hold(timeout_seconds=10):
            order.append("second")

    async with slots.hold(timeout_seconds=1):
        waiting = asyncio.ensure_future(wait())
        await asyncio.sleep(0)
        order.append("first")
    await waiting
    assert order == ["first", "second"]


def test_the_default_is_cores_by_threads_and_never_none() -> None:
    assert default_slots(1).count >= 1
    assert default_slots(1000).count == 1
