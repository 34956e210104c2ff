"""How long the programs take to be there: coordinator to serving, agent to connected, `foedus --help` to the prompt.

    python -m bench.start [--repeat 5] [--json]

Coordinator and agent start from homes with a charter, policies and a membership, as after a restart of the machine:
from the start of the process until its port answers, and until the agent says that its session stands. The floor beside
them is the CPU time that the process took for it, which other work on the machine does not change. The help is measured
beside bare Python (`python -c pass`), in turn. The best of the repeats counts.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench import rows
from bench.rows import Row, say
from bench.stage import Stage, Start
from examples.demo.programs import BIN

TARGET_SECONDS = 2.0
TARGET_HELP_MILLISECONDS = 150


def main() -> None:
    parser = rows.parser(__doc__)
    parser.add_argument("--repeat", type=int, default=5)
    chosen = parser.parse_args()
    rows.show([*measure_processes(chosen.repeat), measure_help(2 * chosen.repeat)], as_json=chosen.json)


def measure_processes(repeat: int) -> list[Row]:
    """Both programs, started `repeat` times each."""
    serving: list[Start] = []
    connected: list[Start] = []
    with tempfile.TemporaryDirectory(prefix="foedus-bench-") as folder:
        stage = Stage(Path(folder))
        try:
            stage.found()
            stage.start_coordinator()
            stage.join()
            for code in ("FR", "DE"):
                stage.start_agent(code)
            stage.put_policies_in_force()
            for _ in range(repeat):
                stage.programs.stop_all()
                serving.append(stage.start_coordinator())
                connected.append(stage.start_agent("FR"))
                for name, start in (("coordinator serving", serving[-1]), ("agent connected", connected[-1])):
                    say(f"{name} after {start.seconds:.2f} s, of which on a CPU {start.cpu_seconds:.2f} s")
        finally:
            stage.close()
    return [
        _row("coordinator start to serving", min(serving)),
        _row("agent start to connected", min(connected)),
    ]


def _row(work: str, start: Start) -> Row:
    return Row(
        work,
        f"{start.seconds:.2f} s",
        f"CPU time {start.cpu_seconds:.2f} s",
        f"{start.seconds / start.cpu_seconds:.2f}×",
        f"≤ {TARGET_SECONDS:.0f} s",
        start.seconds <= TARGET_SECONDS,
    )


def measure_help(repeat: int) -> Row:
    """`foedus --help` and bare Python, in turn."""
    pairs = [
        (_milliseconds(BIN / "foedus", "--help"), _milliseconds(sys.executable, "-c", "pass")) for _ in range(repeat)
    ]
    ours, bare = (min(times) for times in zip(*pairs, strict=True))
    return Row(
        "foedus --help",
        f"{ours:.0f} ms",
        f"bare Python {bare:.0f} ms",
        f"+{ours - bare:.0f} ms",
        f"≤ +{TARGET_HELP_MILLISECONDS} ms",
        ours - bare <= TARGET_HELP_MILLISECONDS,
    )


def _milliseconds(*command: str | Path) -> float:
    began = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return (time.perf_counter() - began) * 1000


if __name__ == "__main__":
    main()
