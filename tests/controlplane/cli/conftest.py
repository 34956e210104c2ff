"""The program as a person runs it: arguments in, exit code, standard output and standard error out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from controlplane.cli.__main__ import run


class Ran(NamedTuple):
    code: int
    out: str
    err: str


Foedus = Callable[..., Ran]


@pytest.fixture
def foedus(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Foedus:
    """Runs one command with a configuration of its own and nothing from the environment."""
    for name in ("COORDINATOR", "CERT", "KEY", "CA", "CHARTER", "CONTEXT"):
        monkeypatch.delenv(f"FOEDUS_{name}", raising=False)
    monkeypatch.setenv("FOEDUS_CONFIG", str(tmp_path / "config.yaml"))

    def ran(*arguments: object) -> Ran:
        capsys.readouterr()
        code = run([str(argument) for argument in arguments])
        said = capsys.readouterr()
        return Ran(code, said.out, said.err)

    return ran
