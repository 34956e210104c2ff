"""The store on SQL: the nouns over one runner, and transactions of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime

from sqlalchemy import Engine

from controlplane.store.port import Store, Transaction
from controlplane.store.ports.resources import WatchEvent
from controlplane.store.sql.artifacts import SqlArtifacts
from controlplane.store.sql.directives import SqlDirectives, SqlEpochs
from controlplane.store.sql.engine import database_url, is_in_memory, open_engine
from controlplane.store.sql.errors import translated
from controlplane.store.sql.resources import SqlResources
from controlplane.store.sql.rounds import SqlRounds
from controlplane.store.sql.runner import Run, Runner
from controlplane.store.sql.schema import migrate
from controlplane.store.sql.trust import SqlTrust
from controlplane.store.sql.watch import watch
from treaty.resources import AnyKind


class SqlTransaction(Transaction):
    """The nouns over one `Run`: the store's own, or an open transaction's."""

    def __init__(self, run: Run, clock: Callable[[], datetime]) -> None:
        self._resources = SqlResources(run, clock)
        self._directives = SqlDirectives(run, clock)
        self._epochs = SqlEpochs(run, clock)
        self._rounds = SqlRounds(run, clock)
        self._trust = SqlTrust(run, clock)
        self._artifacts = SqlArtifacts(run, clock)

    @property
    def resources(self) -> SqlResources:
        return self._resources

    @property
    def directives(self) -> SqlDirectives:
        return self._directives

    @property
    def epochs(self) -> SqlEpochs:
        return self._epochs

    @property
    def rounds(self) -> SqlRounds:
        return self._rounds

    @property
    def trust(self) -> SqlTrust:
        return self._trust

    @property
    def artifacts(self) -> SqlArtifacts:
        return self._artifacts


class SqlStore(SqlTransaction, Store):
    def __init__(self, runner: Runner, clock: Callable[[], datetime]) -> None:
        super().__init__(runner, clock)
        self._runner = runner
        self._clock = clock

    @classmethod
    async def open(cls, url: str, clock: Callable[[], datetime]) -> SqlStore:
        """See `controlplane.store.open.open_store`."""
        parsed = database_url(url)
        engine = open_engine(parsed)
        try:
            await asyncio.to_thread(_bring_up, engine)
        except BaseException:
            await asyncio.to_thread(engine.dispose)
            raise
        return cls(Runner(engine, is_shared=is_in_memory(parsed)), clock)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Transaction]:
        async with self._runner.transaction() as run:
            yield SqlTransaction(run, self._clock)

    def watch(self, kind: AnyKind | None, since_version: int) -> AsyncIterator[WatchEvent]:
        return watch(self._runner, kind, since_version)

    async def close(self) -> None:
        await self._runner.close()


def _bring_up(engine: Engine) -> None:
    with translated(engine), engine.begin() as connection:
        migrate(connection)
