"""The outbox in SQL: rows that a commit leaves behind for somebody to carry out, at least once."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

from sqlalchemy import Connection, delete, select, update

from controlplane.store.ports.directives import Outbox, OutboxMessage
from controlplane.store.sql.runner import Run
from controlplane.store.sql.tables import outbox
from controlplane.store.sql.values import insert_new, micros


class SqlOutbox(Outbox):
    def __init__(self, run: Run, clock: Callable[[], datetime]) -> None:
        self._run = run
        self._clock = clock

    async def add(self, topic: str, key: str, payload: bytes) -> None:
        now = micros(self._clock())
        row = {"topic": topic, "key": key, "payload": payload, "attempts": 0, "created_at": now}
        await self._run.write(
            lambda connection: insert_new(connection, outbox, row | {"held_until": 0, "is_done": False})
        )

    async def take(self, topic: str, *, limit: int = 32, lease_seconds: int = 30) -> tuple[OutboxMessage, ...]:
        now = self._clock()

        def work(connection: Connection) -> tuple[OutboxMessage, ...]:
            free = select(outbox).where(
                outbox.c.topic == topic, outbox.c.is_done.is_(False), outbox.c.held_until <= micros(now)
            )
            rows = connection.execute(free.order_by(outbox.c.id).limit(limit)).all()
            held = update(outbox).where(outbox.c.id.in_([row.id for row in rows]))
            until = micros(now + timedelta(seconds=lease_seconds))
            connection.execute(held.values(held_until=until, attempts=outbox.c.attempts + 1))
            return tuple(OutboxMessage(r.id, r.topic, r.key, bytes(r.payload), r.attempts + 1) for r in rows)

        return await self._run.write(work)

    async def ack(self, message_id: int) -> None:
        await self._change(message_id, is_done=True, payload=b"")

    async def release(self, message_id: int, *, retry_after_seconds: int = 0) -> None:
        await self._change(message_id, held_until=micros(self._clock() + timedelta(seconds=retry_after_seconds)))

    async def prune(self, before: datetime) -> int:
        is_old = delete(outbox).where(outbox.c.is_done.is_(True), outbox.c.created_at < micros(before))
        return await self._run.write(lambda connection: connection.execute(is_old).rowcount)

    async def _change(self, message_id: int, **values: int | bytes) -> None:
        row = update(outbox).where(outbox.c.id == message_id, outbox.c.is_done.is_(False)).values(**values)
        await self._run.write(lambda connection: connection.execute(row).close())
