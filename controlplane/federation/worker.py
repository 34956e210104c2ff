"""The run's worker: a process per run, the only place where Flower is imported.

It reads orders from its standard input, answers on its standard output, keeps nothing between two orders that is not
in a file, and ends when its input or its coordinator does. It opens no network connection and knows no nation but by
the name of a file.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from controlplane.federation import frames
from controlplane.federation.orders import MakeArrays, Order, StepTaken, TakeStep, parse_order
from controlplane.federation.orphan import end_with
from treaty.errors import Corrupt, FoedusError, ResourceExhausted
from treaty.recipe import initial_arrays
from treaty.strict_json import JsonObject

ARRAYS_FILE = "arrays.safetensors"

Arrays = dict[str, NDArray[np.float32]]


def main() -> None:
    """Serve orders until the input ends. The only argument is the coordinator's process id."""
    end_with(int(sys.argv[1]))
    orders, answers = sys.stdin.buffer, os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    # Whatever a library prints must not be taken for an answer.
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    while (document := _read(orders)) is not None:
        answers.write(frames.encode(_answer(document)))
        answers.flush()


def _read(stream: BinaryIO) -> JsonObject | None:
    prefix = stream.read(frames.LENGTH_BYTES)
    if len(prefix) < frames.LENGTH_BYTES:
        return None
    return frames.decode(stream.read(frames.frame_length(prefix)))


def _answer(document: JsonObject) -> JsonObject:
    try:
        return {"ok": _carry_out(parse_order(document))}
    except FoedusError as err:
        return {"error": {"code": err.code, "message": str(err)}}


def _carry_out(order: Order) -> JsonObject:
    match order:
        case MakeArrays():
            write_arrays(initial_arrays(order.recipe, order.base_shapes), order.out)
            return {}
        case TakeStep():
            return _take_step(order).to_json()


def _take_step(order: TakeStep) -> StepTaken:
    # Flower's import takes seconds: after the first arrays are out and the nations are busy with them.
    from controlplane.federation.aggregate import aggregate
    from controlplane.federation.compat import adopt_identity
    from controlplane.federation.spool_reader import SpoolReader
    from controlplane.federation.strategies import OwnDelta, StrategyState, step
    from controlplane.federation.strategy_spec import strategy_spec
    from controlplane.federation.strategy_state import load_state, save_state

    adopt_identity(order.spec.run_id)
    spec = strategy_spec(order.strategy, order.parameters)
    state = load_state(order.state.path, order.state.digest) if order.state is not None else StrategyState()
    exact = aggregate(order.updates, order.spec, order.sum_path)
    own: list[OwnDelta] = []
    for path in order.updates if spec.keeps_all else ():
        with SpoolReader(path) as reader:
            own.append(OwnDelta(reader.header.nation, reader.header.examples, reader.read_delta()))
    base = read_arrays(order.base)
    ordered = {tensor.name: base[tensor.name] for tensor in order.spec.tensors}
    done = step(spec, state, round_number=order.spec.round, base=ordered, came=own if spec.keeps_all else exact)
    write_arrays(done.arrays, order.out)
    return StepTaken(exact.digest, save_state(done.state, order.state_path))


def read_arrays(folder: Path) -> Arrays:
    """Raises: Corrupt: the folder's arrays cannot be read."""
    try:
        arrays: Arrays = load_file(folder / ARRAYS_FILE)
    except (OSError, SafetensorError) as err:
        raise Corrupt(f"the global arrays in {folder.name} cannot be read") from err
    return arrays


def write_arrays(arrays: Arrays, folder: Path) -> None:
    """Make `folder` hold exactly these arrays. Appears whole, by rename; what was there is replaced.

    Raises: ResourceExhausted: no disk space; nothing changed.
    """
    partial = folder.with_name(folder.name + ".partial")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        save_file(arrays, partial / ARRAYS_FILE)
        with (partial / ARRAYS_FILE).open("rb") as file:
            os.fsync(file.fileno())
        shutil.rmtree(folder, ignore_errors=True)
        partial.rename(folder)
        descriptor = os.open(folder.parent, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as err:
        shutil.rmtree(partial, ignore_errors=True)
        raise ResourceExhausted("the global arrays could not be written", remedy="free disk space") from err


if __name__ == "__main__":
    main()
