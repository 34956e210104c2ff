"""Who may touch the database when: one writer, a few readers, all on threads of their own.

`Run` is what a noun needs: somebody who carries its SQL to a connection. On the store each piece of work is a
transaction of its own; inside a transaction all pieces share its connection, reads included.
Rules: a piece of work runs to its end once it has begun, even if the awaiting task is cancelled; a cancelled
transaction is rolled back before the next one begins.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, asynccontextmanager
from contextvars import ContextVar
from typing import Protocol, TypeVar

from sqlalchemy import Connection, Engine

from controlplane.store.sql.engine import READERS, reading
from controlplane.store.sql.errors import translated
from treaty.errors import PreconditionFailed, Unavailable

T = TypeVar("T")
Work = Callable[[Connection], T]


class Run(Protocol):
    async def read(self, work: Work[T]) -> T: ...

    async def write(self, work: Work[T]) -> T: ...


class Commits:
    """Counts this process's commits and wakes who waits for one. Lives on the event loop."""

    def __init__(self) -> None:
        self.count = 0
        self._waiters: set[asyncio.Future[None]] = set()

    def ring(self) -> None:
        self.count += 1
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def wait(self, after: int, timeout_seconds: float) -> None:
        if self.count > after:
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.add(waiter)
        try:
            await asyncio.wait([waiter], timeout=timeout_seconds)
        finally:
            self._waiters.discard(waiter)


class OpenTransaction:
    """A `Run` on the writer's connection while its block is open."""

    def __init__(self, runner: Runner, threads: ThreadPoolExecutor, connection: Connection) -> None:
        self.runner = runner
        self._threads = threads
        self._connection = connection
        self.is_open = True

    async def read(self, work: Work[T]) -> T:
        return await self.write(work)

    async def write(self, work: Work[T]) -> T:
        if not self.is_open:
            raise PreconditionFailed("the transaction has ended", remedy="open another one")
        return await _to_the_end(_on(self._threads, lambda: _guarded(work, self._connection)))


_current: ContextVar[OpenTransaction | None] = ContextVar("foedus_store_transaction", default=None)


class Runner:
    """The store's own `Run`."""

    def __init__(self, engine: Engine, *, is_shared: bool) -> None:
        self._engine = engine
        self._reading = reading(engine)
        self._writer = ThreadPoolExecutor(1, "foedus-store-writer")
        # In memory there is one connection, so the writer's thread reads too.
        self._readers = self._writer if is_shared else ThreadPoolExecutor(READERS, "foedus-store-reader")
        self._turn = asyncio.Lock()
        self._is_closed = False
        self.commits = Commits()

    async def read(self, work: Work[T]) -> T:
        if self._readers is self._writer:
            return await self._alone(work)
        self._refuse_if_closed()
        self._refuse_inside_transaction()
        return await _on(self._readers, lambda: _in_transaction(self._reading, work))

    async def write(self, work: Work[T]) -> T:
        try:
            return await self._alone(work)
        finally:
            self.commits.ring()

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[OpenTransaction]:
        self._refuse_if_closed()
        self._refuse_inside_transaction()
        async with self._turn:
            connection = await _to_the_end(_on(self._writer, self._begun))
            transaction = OpenTransaction(self, self._writer, connection)
            token = _current.set(transaction)
            is_whole = False
            try:
                yield transaction
                is_whole = True
            finally:
                transaction.is_open = False
                _current.reset(token)
                await _to_the_end(_on(self._writer, lambda: _ended(connection, is_whole=is_whole)))
                self.commits.ring()

    async def close(self) -> None:
        if self._is_closed:
            return
        self._is_closed = True
        async with self._turn:
            await _to_the_end(asyncio.ensure_future(asyncio.to_thread(self._shut_down)))

    async def _alone(self, work: Work[T]) -> T:
        self._refuse_if_closed()
        self._refuse_inside_transaction()
        async with self._turn:
            return await _to_the_end(_on(self._writer, lambda: _in_transaction(self._engine, work)))

    def _begun(self) -> Connection:
        with translated(self._engine), ExitStack() as undone:
            connection = undone.enter_context(self._engine.connect())
            connection.begin()
            undone.pop_all()
            return connection

    def _shut_down(self) -> None:
        self._writer.shutdown()
        self._readers.shutdown()
        self._engine.dispose()

    def _refuse_if_closed(self) -> None:
        if self._is_closed:
            raise Unavailable("the store is closed")

    def _refuse_inside_transaction(self) -> None:
        current = _current.get()
        if current is not None and current.is_open and current.runner is self:
            raise PreconditionFailed(
                "a transaction is open in this task", remedy="use the transaction's own verbs inside its block"
            )


def _in_transaction(engine: Engine, work: Work[T]) -> T:
    with translated(engine), engine.begin() as connection:
        return work(connection)


def _ended(connection: Connection, *, is_whole: bool) -> None:
    """Commit what is whole; closing rolls back everything else."""
    with translated(connection.engine), connection:
        if is_whole:
            connection.commit()


def _guarded(work: Work[T], connection: Connection) -> T:
    with translated(connection.engine):
        return work(connection)


def _on(threads: ThreadPoolExecutor, work: Callable[[], T]) -> asyncio.Future[T]:
    return asyncio.get_running_loop().run_in_executor(threads, work)


async def _to_the_end(work: asyncio.Future[T]) -> T:
    """Await `work` although this task may be cancelled meanwhile; the cancellation follows when it is done."""
    interruption: asyncio.CancelledError | None = None
    while not work.done():
        try:
            await asyncio.wait([work])
        except asyncio.CancelledError as err:
            interruption = err
    if interruption is not None:
        raise interruption from work.exception()
    return work.result()
