"""Entry point of `foedus-agent`.

    python -m node_agent.cli status

How a command ends is in `treaty.cli.ending`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from node_agent.cli.program import app
from treaty.cli.ending import run_app
from treaty.cli.program import silence_grpc


def main() -> None:
    silence_grpc()
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Run one command; the exit code."""
    return run_app(app, arguments, name="foedus-agent", extra="agent")


if __name__ == "__main__":
    main()
