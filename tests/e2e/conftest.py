"""One small treaty for all of these tests: they run in one worker, one after the other, and each leaves it whole."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.ceremonies import joined_world, ready_world
from tests.e2e.treaty_world import CERTIFICATE_SECONDS, SPARE, TreatyWorld

REFERENCE = "reference"
"""The run that nobody disturbed; what the disturbed ones must equal."""


@pytest.fixture(scope="session")
def treaty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TreatyWorld]:
    """A treaty in which FR and DE serve version 1.0.0 and have registered their texts, and IT has joined."""
    world = ready_world(tmp_path_factory.mktemp("treaty"))
    yield world
    world.close()


@pytest.fixture(scope="session")
def reference(treaty: TreatyWorld) -> bytes:
    """The arrays of an undisturbed training run of two rounds."""
    treaty.start_run(REFERENCE)
    ended = treaty.run_ended(REFERENCE)
    assert ended["status"] == "True", ended
    return treaty.arrays(REFERENCE, 2)


@pytest.fixture(scope="session")
def joined(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TreatyWorld]:
    """A treaty of DE and IT, joined, for what a treaty does not survive; IT's certificates live for ten seconds."""
    world = joined_world(tmp_path_factory.mktemp("joined"), ("DE", SPARE))
    world.programs.stop(f"agent-{SPARE}")
    world.set_agent(SPARE, certificate_lifetime_seconds=CERTIFICATE_SECONDS)
    world.start_agent(SPARE)
    yield world
    world.close()
