"""The child replaced by a program that knows our code: every way out is tried for real, and stopped, but one."""

from __future__ import annotations

import socket
from pathlib import Path

import numpy as np
import pytest

from node_agent.training.privacy import clipped_update
from node_agent.training.process import ChildBreach
from node_agent.training.replies import TrainResult, open_channel_bits
from node_agent.training.sandbox import SandboxMode
from node_agent.training.supervisor import TrainerSupervisor, TrainOrder
from tests.builders.tiny_llama import base_shapes
from tests.node_agent.training import hostile_trainer
from tests.node_agent.training.conftest import Room, tiny_recipe
from treaty.errors import PreconditionFailed
from treaty.names import PartyCode, digest_of, run_id
from treaty.recipe import adapter_shapes, initial_arrays
from treaty.update import UpdateSpec
from treaty.update_layout import TensorSpec

STOPPED_BY_THE_AGENT = {
    "metric_name": "METRIC_UNDECLARED",
    "metric_text": "METRIC_NOT_INTEGER",
    "metric_number": "METRIC_OUT_OF_RANGE",
    "metric_off_grid": "METRIC_OUT_OF_RANGE",
    "examples_claim": "METRIC_OUT_OF_RANGE",
    "tensor_name": "ARRAY_UNDECLARED",
    "extra_tensor": "FRAME_TOO_LARGE",
    "tensor_shape": "ARRAY_SHAPE",
    "not_finite": "VALUES_NOT_FINITE",
    "extra_field": "FIELD_UNDECLARED",
    "error_text": "ERROR_UNDECLARED",
    "error_note": "ERROR_UNDECLARED",
    "frame_type": "REPLY_UNEXPECTED",
    "huge_claim": "FRAME_TOO_LARGE",
}
STOPPED_BY_THE_KERNEL = ("outside_file", "input_file", "unix_socket", "ip_socket", "file_time", "helper_process")


PROGRAM = str(Path(hostile_trainer.__file__).resolve())


def hostile(room: Room) -> TrainerSupervisor:
    return room.supervisor(program=PROGRAM)


async def attempt(supervisor: TrainerSupervisor, room: Room, name: str) -> TrainResult:
    recipe = tiny_recipe(seed=[attack.__name__ for attack in hostile_trainer.ATTACKS].index(name))
    await supervisor.prepare(room.base, room.dataset, recipe.precision)
    order = TrainOrder(recipe, round=1, ordinal=0)
    return await supervisor.train(order, initial_arrays(recipe, base_shapes()), timeout_seconds=30)


@pytest.mark.parametrize(("name", "code"), STOPPED_BY_THE_AGENT.items())
async def test_an_answer_that_carries_text_is_dropped_and_its_trainer_ended(room: Room, name: str, code: str) -> None:
    supervisor = hostile(room)
    with pytest.raises(ChildBreach) as refused:
        await attempt(supervisor, room, name)
    assert refused.value.code == code
    assert "record number" not in str(refused.value)
    with pytest.raises(PreconditionFailed, match="no trainer is running"):
        _ = supervisor.report
    assert not list((room.root / "agent" / "trainer" / "input").iterdir())


async def test_files_sockets_attributes_and_processes_are_refused_by_the_kernel(room: Room) -> None:
    heard: list[bytes] = []
    with socket.socket(socket.AF_UNIX) as unix, socket.socket() as ip:
        unix.bind(str(room.root / "agent" / "leak.sock"))
        ip.bind(("127.0.0.1", 0))
        with room.dataset.path.open("a") as file:
            file.write(f'{{"source": "port {ip.getsockname()[1]}", "target": "x"}}\n')
        for listener in (unix, ip):
            listener.listen()
            listener.settimeout(0)
        supervisor = hostile(room)
        for name in STOPPED_BY_THE_KERNEL:
            with pytest.raises(PreconditionFailed) as refused:
                await attempt(supervisor, room, name)
            assert refused.value.code == "TRAINER_FAILED", name
        for listener in (unix, ip):
            with pytest.raises(BlockingIOError):
                heard.append(listener.accept()[0].recv(1))
        await supervisor.stop()
    assert heard == []
    assert not list(room.root.rglob("leak.txt"))


async def test_without_a_sandbox_the_same_program_writes_outside(room: Room) -> None:
    """What the layers are for: the attempt above is real."""
    supervisor = room.supervisor(program=PROGRAM, sandbox=SandboxMode.NONE)
    await attempt(supervisor, room, "outside_file")
    assert supervisor.report.layers == ()
    await supervisor.stop()
    assert (room.root / "agent" / "leak.txt").read_text().startswith("record number")


async def test_the_signs_of_values_carry_a_sentence_out_and_the_channel_is_stated(room: Room) -> None:
    supervisor = hostile(room)
    result = await attempt(supervisor, room, "tensor_values")
    await supervisor.stop()
    recipe = tiny_recipe()
    shapes = adapter_shapes(recipe, base_shapes())
    spec = UpdateSpec(
        run_id=run_id("run-1"),
        round=1,
        base_digest=digest_of(b"base"),
        tensors=tuple(TensorSpec(name, shape) for name, shape in shapes.items()),
        clip_norm_micro=1_000_000,
        value_bits=24,
        chunk_bytes=64 * 1024,
        max_examples=recipe.examples,
        max_cohort=5,
    )
    update = clipped_update(result, spec, PartyCode("FR"))
    sent = np.concatenate(update.chunks)
    letters = np.packbits(sent[: 8 * len("record number 0")] > 0).tobytes()
    assert letters.decode() == "record number 0"
    bits = open_channel_bits("train", shapes)
    assert bits["tensor-values"] == 32 * sum(a * b for a, b in shapes.values())
    assert bits["metric-values"] < 64
