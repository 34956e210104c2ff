"""Entry point of `foedus` and `kubectl-foedus`: run one command, end with one line and one number.

    python -m controlplane.cli get nations

How a command ends is in `treaty.cli.ending`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from controlplane.cli.program import app
from treaty.cli.ending import run_app
from treaty.cli.program import silence_grpc


def main() -> None:
    silence_grpc()
    sys.exit(run(sys.argv[1:], name=program_name(sys.argv[0])))


def program_name(path: str) -> str:
    """How people call us: `kubectl foedus` where kubectl does."""
    name = Path(path).name
    if name.startswith("kubectl-"):
        return name.replace("-", " ", 1)
    return name if name and not name.startswith("__main__") else "foedus"


def run(arguments: Sequence[str], *, name: str = "foedus") -> int:
    """Run one command; the exit code."""
    return run_app(app, arguments, name=name, extra="coordinator")


if __name__ == "__main__":
    main()
