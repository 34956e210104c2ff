"""The same contract on both databases: `store` is one after the other, each time empty."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from controlplane.store import Store, open_store
from tests.store import postgres

NOON = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


class Clock:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> datetime:
        return self.now

    def advance(self, seconds: int) -> None:
        self.now += timedelta(seconds=seconds)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[postgres.Server]:
    found = postgres.binaries()
    if found is None:
        line = "PostgreSQL is missing: install the package `postgresql` to run these tests"
        if os.environ.get("CI") == "true":
            pytest.fail(line)
        pytest.skip(line)
    with postgres.running(found) as server:
        yield server


DATABASES = [pytest.param("sqlite", id="sqlite"), pytest.param("postgres", id="postgres", marks=pytest.mark.postgres)]


@pytest.fixture(params=DATABASES)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/coordinator.db"
    server: postgres.Server = request.getfixturevalue("postgres_server")
    return server.emptied()


@pytest.fixture
async def store(url: str, clock: Callable[[], datetime]) -> AsyncIterator[Store]:
    opened = await open_store(url, clock=clock)
    yield opened
    await opened.close()
