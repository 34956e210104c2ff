"""A tiny random Llama trained for real, in a confined child. One warm trainer serves the whole file."""

from __future__ import annotations

import asyncio
import os
import select
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import pytest_asyncio

from node_agent.training.frames import Arrays
from node_agent.training.pairs import TextDataset
from node_agent.training.process import ConfinedChild
from node_agent.training.sandbox import SandboxMode
from node_agent.training.slots import TrainerSlots
from node_agent.training.supervisor import TrainerSupervisor, TrainOrder
from tests.builders.tiny_llama import base_shapes, write_pairs
from tests.node_agent.training.conftest import Room, make_room, tiny_recipe
from treaty.errors import InvalidInput, PreconditionFailed, Unavailable
from treaty.recipe import Precision, initial_arrays

pytestmark = [pytest.mark.torch, pytest.mark.asyncio(loop_scope="module")]

RECIPE = tiny_recipe()


@pytest.fixture(scope="module")
def shared_room(tmp_path_factory: pytest.TempPathFactory) -> Room:
    return make_room(tmp_path_factory.mktemp("room"))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def warm(shared_room: Room) -> AsyncIterator[TrainerSupervisor]:
    supervisor = shared_room.supervisor()
    await supervisor.prepare(shared_room.base, shared_room.dataset, Precision.FLOAT32)
    yield supervisor
    await supervisor.stop()


def start() -> Arrays:
    return initial_arrays(RECIPE, base_shapes())


async def test_rounds_lower_the_held_out_loss(warm: TrainerSupervisor) -> None:
    arrays, losses = start(), []
    for number in (1, 2, 3):
        result = await warm.train(TrainOrder(RECIPE, number, 0), arrays, timeout_seconds=60)
        losses.append(result.metrics["heldout_loss_micro"])
        arrays = {name: arrays[name] + change for name, change in result.delta.items()}
    after = await warm.evaluate(RECIPE, arrays, timeout_seconds=60)
    assert losses == sorted(losses, reverse=True)
    assert after.metrics["heldout_loss_micro"] < losses[0] * 0.8
    assert result.examples == RECIPE.examples


async def test_the_base_alone_is_measured_on_every_held_out_pair(warm: TrainerSupervisor) -> None:
    base = await warm.evaluate(RECIPE, None, timeout_seconds=60)
    assert base.metrics["heldout_pairs"] == RECIPE.heldout_pairs
    first = await warm.train(TrainOrder(RECIPE, 1, 0), start(), timeout_seconds=60)
    assert first.metrics["heldout_loss_micro"] == base.metrics["heldout_loss_micro"]


async def test_the_same_order_gives_the_same_bits_and_another_ordinal_does_not(warm: TrainerSupervisor) -> None:
    first, again, other = [
        (await warm.train(TrainOrder(RECIPE, 1, ordinal), start(), timeout_seconds=60)).delta for ordinal in (0, 0, 1)
    ]
    assert all(np.array_equal(first[name], again[name]) for name in first)
    assert any(not np.array_equal(first[name], other[name]) for name in first)


async def test_a_proximal_term_keeps_training_near_what_was_given(warm: TrainerSupervisor) -> None:
    free, held = [
        (await warm.train(TrainOrder(RECIPE, 1, 0, mu), start(), timeout_seconds=60)).delta for mu in (0, 1_000_000_000)
    ]
    assert sum(float((d**2).sum()) for d in held.values()) < 0.5 * sum(float((d**2).sum()) for d in free.values())


async def test_another_rank_fits_the_same_warm_base(warm: TrainerSupervisor) -> None:
    recipe = replace(RECIPE, rank=2, targets=("down_proj", "q_proj"))
    arrays = initial_arrays(recipe, base_shapes())
    result = await warm.train(TrainOrder(recipe, 1, 0), arrays, timeout_seconds=60)
    assert {name: value.shape for name, value in result.delta.items()} == {
        name: value.shape for name, value in arrays.items()
    }
    await warm.train(TrainOrder(RECIPE, 1, 0), start(), timeout_seconds=60)


async def test_arrays_of_another_adapter_are_refused_before_they_are_sent(warm: TrainerSupervisor) -> None:
    with pytest.raises(InvalidInput, match="names are not exactly the adapter's"):
        await warm.train(TrainOrder(replace(RECIPE, targets=("q_proj",)), 1, 0), start(), timeout_seconds=60)
    arrays = start()
    next(iter(arrays.values()))[0, 0] = np.inf
    with pytest.raises(InvalidInput, match="not finite"):
        await warm.evaluate(RECIPE, arrays, timeout_seconds=60)


async def test_too_few_pairs_is_a_code_and_the_trainer_lives_on(warm: TrainerSupervisor) -> None:
    with pytest.raises(PreconditionFailed) as refused:
        await warm.evaluate(replace(RECIPE, heldout_pairs=40), None, timeout_seconds=60)
    assert refused.value.code == "DATA_TOO_SMALL"
    await warm.evaluate(RECIPE, None, timeout_seconds=60)


async def test_the_data_in_reach_is_a_copy(warm: TrainerSupervisor, shared_room: Room) -> None:
    copy = shared_room.root / "agent" / "trainer" / "input" / "pairs.jsonl"
    assert copy.read_bytes() == shared_room.dataset.path.read_bytes()
    assert copy.stat().st_nlink == 1
    assert copy.stat().st_ino != shared_room.dataset.path.stat().st_ino


async def test_a_trainer_rests_without_data_and_takes_up_another_run(
    warm: TrainerSupervisor, shared_room: Room
) -> None:
    folder = shared_room.root / "agent" / "trainer" / "input"
    first = await warm.train(TrainOrder(RECIPE, 1, 0), start(), timeout_seconds=60)
    child = _child(warm)
    await warm.rest()
    assert not list(folder.iterdir())
    with pytest.raises(Unavailable) as refused:
        await warm.train(TrainOrder(RECIPE, 1, 0), start(), timeout_seconds=60)
    assert refused.value.code == "CHILD_ENDED"
    await warm.prepare(shared_room.base, shared_room.dataset, Precision.FLOAT32)
    assert _child(warm) is child
    again = await warm.train(TrainOrder(RECIPE, 1, 0), start(), timeout_seconds=60)
    assert all(np.array_equal(first.delta[name], again.delta[name]) for name in first.delta)


async def test_a_resting_trainer_that_is_wanted_again_does_not_end_while_it_waits_for_a_slot(tmp_path: Path) -> None:
    room = make_room(tmp_path)
    slots = TrainerSlots(tmp_path / "slots", 1)
    supervisor = room.supervisor(slots=slots, idle_seconds=1)
    await supervisor.prepare(room.base, room.dataset, Precision.FLOAT32)
    child = _child(supervisor)
    await supervisor.rest()
    async with slots.hold(timeout_seconds=5):
        wanted = asyncio.ensure_future(supervisor.prepare(room.base, room.dataset, Precision.FLOAT32))
        is_over, _ = await asyncio.wait([wanted], timeout=1.5)  # longer than it may rest
        assert not is_over
    await wanted
    assert _child(supervisor) is child
    await supervisor.stop()


async def test_a_resting_trainer_is_not_handed_other_data(shared_room: Room, tmp_path: Path) -> None:
    supervisor = shared_room.supervisor()
    await supervisor.prepare(shared_room.base, shared_room.dataset, Precision.FLOAT32)
    first = _child(supervisor)
    await supervisor.rest()
    other = TextDataset(write_pairs(tmp_path / "other.jsonl"), shared_room.dataset.languages)
    await supervisor.prepare(shared_room.base, other, Precision.FLOAT32)
    assert _child(supervisor) is not first
    assert not first.is_running
    await supervisor.stop()


async def test_a_resting_trainer_ends_by_itself_and_at_once_where_it_may_not_rest(shared_room: Room) -> None:
    for seconds in (1, 0):
        supervisor = shared_room.supervisor(idle_seconds=seconds)
        await supervisor.prepare(shared_room.base, shared_room.dataset, Precision.FLOAT32)
        ended = os.pidfd_open(_child(supervisor).pid)
        await supervisor.rest()
        ready, _, _ = await asyncio.to_thread(select.select, [ended], [], [], 30 if seconds else 0)
        os.close(ended)
        assert ready
        await supervisor.stop()


async def test_a_trainer_that_may_have_spent_half_of_its_processor_time_does_not_rest(shared_room: Room) -> None:
    # Without a sandbox nothing ends it in between: to start takes longer than half a second.
    supervisor = shared_room.supervisor(sandbox=SandboxMode.NONE, cpu_seconds=1)
    await supervisor.prepare(shared_room.base, shared_room.dataset, Precision.FLOAT32)
    child = _child(supervisor)
    await supervisor.rest()
    assert not child.is_running
    with pytest.raises(PreconditionFailed, match="no trainer is running"):
        _ = supervisor.report


def _child(supervisor: TrainerSupervisor) -> ConfinedChild:
    assert supervisor._warm is not None
    return supervisor._warm.child


async def test_the_brake_ends_a_round_and_empties_the_folder(warm: TrainerSupervisor, shared_room: Room) -> None:
    """The last one here: it ends the warm trainer."""
    long = replace(RECIPE, steps=10_000)
    training = asyncio.ensure_future(warm.train(TrainOrder(long, 1, 0), start(), timeout_seconds=60))
    await asyncio.sleep(0)
    warm.brake()
    with pytest.raises(Unavailable) as refused:
        await training
    assert refused.value.code == "CHILD_ENDED"
    assert not list((shared_room.root / "agent" / "trainer" / "input").iterdir())


async def test_a_base_that_is_not_there_is_refused_before_anything_starts(shared_room: Room, tmp_path: Path) -> None:
    with pytest.raises(PreconditionFailed, match="holds no safetensors file"):
        await shared_room.supervisor().prepare(tmp_path, shared_room.dataset, Precision.FLOAT32)
