"""Programs are shown as typed when they fail, and none outlives the demo, nor does what it started."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from examples.demo import programs
from examples.demo.programs import DemoFailed, Programs

PYTHON = Path(sys.executable).name

PARENT = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True)
print(child.pid, flush=True)
time.sleep(60)
"""


@pytest.fixture
def typed(tmp_path: Path) -> Programs:
    return Programs({"FOEDUS_CONFIG": str(tmp_path / "config.yaml")}, tmp_path / "logs")


def test_a_failure_shows_the_command_its_error_and_the_logs(typed: Programs, tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "agent-FR.log").touch()
    with pytest.raises(DemoFailed) as failed:
        typed.run(PYTHON, "-c", "import sys; sys.exit('error: no such nation')")
    said = str(failed.value)
    assert f"{PYTHON} -c 'import sys" in said
    assert "exit code 1" in said
    assert "error: no such nation" in said
    assert str(tmp_path / "logs" / "agent-FR.log") in said


def test_what_should_be_refused_and_is_not_fails(typed: Programs) -> None:
    with pytest.raises(DemoFailed, match="should have been refused"):
        typed.refused(PYTHON, "-c", "print('fine')")


def test_breaking_is_no_refusal(typed: Programs) -> None:
    with pytest.raises(DemoFailed, match="ZeroDivisionError"):
        typed.refused(PYTHON, "-c", "1 / 0")


def test_followed_lines_are_handed_on_as_they_come(typed: Programs) -> None:
    seen: list[str] = []
    done = typed.follow(seen.append, PYTHON, "-c", "import sys; print('one'); print('two', file=sys.stderr)")
    assert {line.strip() for line in seen} == {"one", "two"}
    assert done.code == 0


def test_a_program_that_ends_by_itself_is_noticed_with_the_end_of_its_log(typed: Programs) -> None:
    typed.start("agent-FR", PYTHON, "-c", "print('disk full'); raise SystemExit(3)")
    with pytest.raises(DemoFailed, match=r"agent-FR ended by itself with 3[^$]*disk full"):
        typed.wait_until("it connects", lambda: False, 10)


def test_stopping_reaches_what_a_program_started_in_a_group_of_its_own(typed: Programs) -> None:
    daemon = typed.start("agent-FR", PYTHON, "-c", PARENT)
    typed.wait_until("it says its child", lambda: daemon.log.read_text().strip().isdigit(), 10)
    child = int(daemon.log.read_text())
    typed.stop_all()
    typed.stop_all()
    assert daemon.process.poll() is not None
    assert not programs._is_running(child)
