"""The layers, the probe and the pipes, with small programs in the child's place."""

from __future__ import annotations

import asyncio
import os
import select
import signal
import subprocess
import sys
import textwrap
from collections.abc import Mapping
from pathlib import Path

import pytest

from node_agent.training import process, sandbox
from node_agent.training.frames import Frame
from node_agent.training.probe import PROBES
from node_agent.training.process import ChildBreach, ChildSpec, ConfinedChild
from node_agent.training.sandbox import Confinement, SandboxMode, SandboxUnavailable
from treaty.errors import ResourceExhausted, Unavailable

HEADER = "from node_agent.training.frames import Frame\nimport os, sys, time\n"


def child_spec(root: Path, program: str, **changes: object) -> ChildSpec:
    """A child whose program's `main(pipe)` has the body `program`."""
    file = root / "program.py"
    body = textwrap.indent(textwrap.dedent(program), "    ")
    file.write_text(f"{HEADER}\ndef main(pipe):\n{body}\n")
    for folder in ("input", "scratch", "keys"):
        (root / folder).mkdir(exist_ok=True)
    (root / "keys" / "agent.key").write_text("secret")
    fields: dict[str, object] = {
        "mode": SandboxMode.REQUIRED,
        "reads": (root / "input", file),
        "scratch": root / "scratch",
        "secrets": (root / "keys" / "agent.key",),
        "memory_bytes": 2**30,
        "cpu_seconds": 60,
    }
    confinement = Confinement(**{**fields, **changes})  # type: ignore[arg-type]
    return ChildSpec(str(file), confinement, root / "input", root / "printed.log")


async def ask(child: ConfinedChild, timeout_seconds: float = 20) -> Mapping[str, object]:
    return (await child.exchange(Frame("ask"), expect="told", timeout_seconds=timeout_seconds)).fields


async def test_a_child_reports_its_layers_and_every_probe_refused(tmp_path: Path) -> None:
    child = await process.start(child_spec(tmp_path, "pipe.receive()"))
    await child.stop()
    assert set(child.report.refused) == PROBES
    assert {"no-new-privileges", "rlimits", "seccomp"} < set(child.report.layers)
    assert any(layer.startswith("landlock-") for layer in child.report.layers)


async def test_a_child_has_no_environment_of_ours_and_no_other_descriptors(tmp_path: Path) -> None:
    program = """
        def is_open(number):
            try:
                os.fstat(number)
            except OSError:
                return False
            return True
        pipe.receive()
        names = sorted(name for name in os.environ if name in ("PATH", "HOME", "USER", "PYTHONPATH", "SECRET"))
        pipe.send(Frame("told", {"names": names, "home": os.environ["HOME"], "open": sum(map(is_open, range(64)))}))
    """
    child = await process.start(child_spec(tmp_path, program))
    told = await ask(child)
    await child.stop()
    assert told["names"] == ["HOME"]
    assert told["home"] == str(tmp_path / "scratch")
    assert told["open"] == 5  # standard three, and one pipe each way


async def test_a_file_placed_later_is_readable_and_a_link_out_is_not(tmp_path: Path) -> None:
    program = """
        from pathlib import Path
        def read(path):
            try:
                return path.read_text()
            except OSError:
                return "refused"
        pipe.receive()
        folder = Path(sys.modules["__main__"].__dict__.get("input", %r))
        pipe.send(Frame("told", {path.name: read(path) for path in sorted(folder.iterdir())}))
    """
    child = await process.start(child_spec(tmp_path, program % str(tmp_path / "input")))
    (tmp_path / "input" / "later").write_text("data")
    (tmp_path / "input" / "link").symlink_to(tmp_path / "keys" / "agent.key")
    told = await ask(child)
    await child.stop()
    assert told == {"later": "data", "link": "refused"}


async def test_what_a_child_prints_stays_in_a_capped_file(tmp_path: Path) -> None:
    program = """
        pipe.receive()
        print("sentence" * 100_000)
        sys.stdout.flush()
        pipe.send(Frame("told"))
        pipe.receive()
    """
    child = await process.start(child_spec(tmp_path, program))
    assert await ask(child) == {}
    await child.stop()
    printed = (tmp_path / "printed.log").read_bytes()
    assert printed.startswith(b"sentence")
    assert len(printed) <= process.MAX_PRINTED_BYTES


async def test_a_child_that_does_not_answer_in_time_is_ended(tmp_path: Path) -> None:
    child = await process.start(child_spec(tmp_path, "pipe.receive(); time.sleep(60)"))
    with pytest.raises(Unavailable, match="did not answer in time and was ended"):
        await ask(child, timeout_seconds=0.2)
    assert not child.is_running


async def test_a_cancelled_exchange_ends_the_child(tmp_path: Path) -> None:
    child = await process.start(child_spec(tmp_path, "pipe.receive(); time.sleep(60)"))
    asking = asyncio.ensure_future(ask(child))
    await asyncio.sleep(0)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert not child.is_running


def test_a_child_ends_with_the_one_that_started_it_even_where_it_was_stopped() -> None:
    child = "from node_agent.training import kernel; kernel.die_with_parent(); print(flush=True); input()"
    parent = (
        "import subprocess, sys\n"
        f"child = subprocess.Popen([sys.executable, '-c', {child!r}], stdin=subprocess.PIPE, stdout=subprocess.PIPE)\n"
        "child.stdout.readline()\n"
        "print(child.pid, flush=True)\n"
        "input()\n"
    )
    command = [sys.executable, "-c", parent]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as started:
        assert started.stdout is not None
        pid = int(started.stdout.readline())
        ended = os.pidfd_open(pid)
        os.kill(pid, signal.SIGSTOP)
        started.kill()
        ready, _, _ = select.select([ended], [], [], 10)
        os.close(ended)
    assert ready


async def test_a_confined_child_cannot_outlive_its_agent_by_asking(tmp_path: Path) -> None:
    program = """
        import ctypes
        pipe.receive()
        pipe.send(Frame("told", {"errno": -ctypes.CDLL(None, use_errno=True).prctl(1, 0, 0, 0, 0)}))
    """
    child = await process.start(child_spec(tmp_path, program))
    assert await ask(child) == {"errno": 1}
    await child.stop()


async def test_memory_beyond_the_limit_is_the_childs_loss(tmp_path: Path) -> None:
    program = """
        pipe.receive()
        try:
            held = bytearray(2**30)
        except MemoryError:
            pipe.send(Frame("error", {"code": "OUT_OF_MEMORY"}))
    """
    child = await process.start(child_spec(tmp_path, program, memory_bytes=512 * 2**20))
    with pytest.raises(ResourceExhausted) as refused:
        await ask(child)
    assert refused.value.code == "OUT_OF_MEMORY"
    await child.stop()


async def test_a_child_that_ends_is_unavailable_and_half_a_frame_is_no_frame(tmp_path: Path) -> None:
    child = await process.start(child_spec(tmp_path, "pipe.receive(); os.write(pipe._outgoing.fileno(), b'123')"))
    with pytest.raises(Unavailable, match="ended before it answered"):
        await ask(child)


async def test_a_header_that_is_not_strict_json_is_a_breach(tmp_path: Path) -> None:
    program = """
        pipe.receive()
        os.write(pipe._outgoing.fileno(), (9).to_bytes(4, "little") + bytes(4) + b'{"a":NaN}')
        pipe.receive()
    """
    child = await process.start(child_spec(tmp_path, program))
    with pytest.raises(ChildBreach) as refused:
        await ask(child)
    assert refused.value.code == "FRAME_MALFORMED"
    assert not child.is_running


async def test_secrets_within_a_readable_folder_stop_everything(tmp_path: Path) -> None:
    spec = child_spec(tmp_path, "pass", reads=(tmp_path,))
    with pytest.raises(SandboxUnavailable, match="secrets lie in a folder that the trainer may read; move the agent"):
        await process.start(spec)


async def test_a_probe_of_a_secret_that_is_not_there_would_prove_nothing(tmp_path: Path) -> None:
    spec = child_spec(tmp_path, "pass", secrets=(tmp_path / "keys" / "other.key",))
    with pytest.raises(SandboxUnavailable, match="must fail to read does not exist"):
        await process.start(spec)


async def test_no_secret_named_is_a_probe_that_got_through(tmp_path: Path) -> None:
    with pytest.raises(SandboxUnavailable, match="the sandbox does not hold: read-secret; use a kernel"):
        await process.start(child_spec(tmp_path, "pass", secrets=()))


def test_a_missing_required_layer_is_refused_by_name() -> None:
    with pytest.raises(SandboxUnavailable, match="the sandbox lacks landlock, seccomp"):
        sandbox.check_layers(["no-new-privileges", "rlimits", "bubblewrap"])


def test_an_unknown_layer_is_not_believed() -> None:
    with pytest.raises(SandboxUnavailable, match="the sandbox lacks magic"):
        sandbox.check_layers(["no-new-privileges", "rlimits", "landlock-7", "seccomp", "magic"])


def test_a_confinement_reads_back_what_it_wrote(tmp_path: Path) -> None:
    confinement = child_spec(tmp_path, "pass").confinement
    assert Confinement.from_json(confinement.to_json()) == confinement
