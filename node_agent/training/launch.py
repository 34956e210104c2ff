"""The first code in a child: take the pipes, confine, prove it, then hand over to the program.

    python -I -B -c BOOTSTRAP <folder of our packages>

The agent's first frame (`confine`) says what to confine and which program to run. The program is a Python module of
ours, or a file that the nation's admin named; either has `main(pipe)` and runs in this very process after the probe: it
cannot undo the layers and starts nothing else. Standard input is empty and standard output goes where errors go, so
nothing reaches the agent but frames.

No asyncio here (it needs socketpair), and heavy imports come after the layers, in the program.
"""

from __future__ import annotations

import gc
import importlib
import os
import runpy
import sys
from collections.abc import Callable
from pathlib import Path

from node_agent.training import kernel, probe, sandbox
from node_agent.training.frames import Frame, PipeEnd
from treaty.errors import FoedusError
from treaty.fields import Fields

BOOTSTRAP = "import sys; sys.path.insert(0, sys.argv[1]); from node_agent.training.launch import main; main()"

Program = Callable[[PipeEnd], None]

INCOMING_FD, OUTGOING_FD = 0, 1


def main() -> None:
    if sys.platform == "linux":
        kernel.die_with_parent()
    pipe = _take_pipes()
    order = pipe.receive()
    if order is None or order.type != "confine":
        raise SystemExit(2)
    given = Fields(order.fields, "confine")
    confinement = sandbox.Confinement.from_json(given.value("confinement"))
    program, input_dir = given.text("program", 4096), Path(given.text("input_dir", 4096))
    agent_pid = given.integer("agent_pid", 1)
    given.done()
    _settle_environment(confinement)
    layers: list[str] = []
    if confinement.mode is sandbox.SandboxMode.REQUIRED:
        try:
            layers = sandbox.apply(confinement)
        except OSError as err:
            print(f"a layer is not to be had: {err}", file=sys.stderr)  # noqa: T201 - the agent's local file
            pipe.send(Frame("error", {"code": "SANDBOX_UNAVAILABLE"}))
            raise SystemExit(3) from None
    # Until a model is loaded (`lora_sft.load_base`): collections take a sixth of the heavy imports' time, for nothing.
    gc.disable()
    refused = probe.run(confinement, input_dir, agent_pid) if layers else []
    pipe.send(Frame("confined", {"layers": [*layers], "refused": [*refused]}))
    load_program(program)(pipe)


def load_program(name: str) -> Program:
    """`main` of our module of that name, or of the file at that path.

    Raises: FoedusError: neither has one.
    """
    if name.startswith("/"):
        found = runpy.run_path(name).get("main")
    else:
        found = getattr(importlib.import_module(name), "main", None)
    if not callable(found):
        raise FoedusError("the trainer program has no main", code="TRAINER_UNUSABLE")
    return found  # type: ignore[no-any-return]


def _take_pipes() -> PipeEnd:
    incoming, outgoing = os.fdopen(os.dup(INCOMING_FD), "rb"), os.fdopen(os.dup(OUTGOING_FD), "wb")
    nowhere = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nowhere, 0)
    os.close(nowhere)
    os.dup2(2, 1)
    return PipeEnd(incoming, outgoing)


def _settle_environment(confinement: sandbox.Confinement) -> None:
    """The whole environment: offline, quiet, bounded threads, and every cache in the scratch folder."""
    threads, scratch = str(confinement.threads), str(confinement.scratch)
    os.environ.clear()
    os.environ.update(
        HOME=scratch,
        TMPDIR=scratch,
        HF_HOME=scratch,
        TORCHINDUCTOR_CACHE_DIR=scratch,
        HF_HUB_OFFLINE="1",
        HF_HUB_DISABLE_TELEMETRY="1",
        TRANSFORMERS_OFFLINE="1",
        TRANSFORMERS_VERBOSITY="error",
        TOKENIZERS_PARALLELISM="false",
        OMP_NUM_THREADS=threads,
        MKL_NUM_THREADS=threads,
        OPENBLAS_NUM_THREADS=threads,
    )
    os.chdir(scratch)
