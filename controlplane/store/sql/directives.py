"""Epochs and directives in SQL."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from sqlalchemy import ColumnElement, Connection, Row, and_, delete, insert, or_, select, update

from controlplane.store.ports.directives import Directives, DirectiveState, Epoch, Epochs, StoredDirective
from controlplane.store.sql.runner import Run
from controlplane.store.sql.tables import agent_numbers, directives, epochs
from controlplane.store.sql.values import micros, moment, moment_or_none
from treaty.errors import ConflictError, Corrupt, NotFound, PreconditionFailed
from treaty.names import DirectiveNumber


class SqlEpochs(Epochs):
    def __init__(self, run: Run, clock: Callable[[], datetime]) -> None:
        self._run = run
        self._clock = clock

    async def current(self) -> Epoch:
        return await self._run.read(_current)

    async def halt(self, reason: str) -> None:
        def work(connection: Connection) -> None:
            epoch = _current(connection)
            if not epoch.halted_because:
                row = update(epochs).where(epochs.c.number == epoch.number)
                connection.execute(row.values(halted_because=reason or "halted"))

        await self._run.write(work)

    async def take(self, number: int, reason: str) -> Epoch:
        now = self._clock()

        def work(connection: Connection) -> Epoch:
            current = _current(connection)
            if number <= current.number:
                raise ConflictError(f"epoch {number} is not higher than {current.number}", remedy="take a higher one")
            row = {"number": number, "started_at": micros(now), "reason": reason, "halted_because": ""}
            connection.execute(insert(epochs).values(**row))
            return Epoch(number, now, reason)

        return await self._run.write(work)


class SqlDirectives(Directives):
    def __init__(self, run: Run, clock: Callable[[], datetime]) -> None:
        self._run = run
        self._clock = clock

    async def next_number(self, agent: str) -> DirectiveNumber:
        return await self._run.write(lambda connection: _reserve(connection, agent))

    async def issue(self, agent: str, number: DirectiveNumber, subject: str, payload: bytes) -> StoredDirective:
        now = self._clock()
        return await self._run.write(lambda connection: _issue(connection, agent, number, subject, payload, now))

    async def live(self, agent: str) -> tuple[StoredDirective, ...]:
        query = select(directives).where(directives.c.agent == agent, directives.c.is_superseded.is_(False))
        ordered = query.order_by(directives.c.epoch, directives.c.counter)
        return await self._run.read(lambda connection: tuple(map(_stored, connection.execute(ordered).all())))

    async def find(self, agent: str, number: DirectiveNumber) -> StoredDirective:
        return await self._run.read(lambda connection: _find(connection, agent, number))

    async def mark_sent(self, agent: str, number: DirectiveNumber) -> None:
        is_pending = directives.c.state == DirectiveState.PENDING.value
        row = update(directives).where(_is(agent, number), is_pending).values(state=DirectiveState.SENT.value)
        await self._run.write(lambda connection: connection.execute(row).close())

    async def answer(self, agent: str, number: DirectiveNumber, *, is_acked: bool, reason: str = "") -> StoredDirective:
        now = self._clock()
        state = DirectiveState.ACKED if is_acked else DirectiveState.NACKED

        def work(connection: Connection) -> StoredDirective:
            old = _find(connection, agent, number)
            if old.state in (DirectiveState.ACKED, DirectiveState.NACKED):
                if (old.state, old.reason) == (state, reason):
                    return old
                raise ConflictError(f"directive {number} was answered {old.state} before")
            row = update(directives).where(_is(agent, number))
            connection.execute(row.values(state=state.value, reason=reason, answered_at=micros(now)))
            return _find(connection, agent, number)

        return await self._run.write(work)

    async def withdraw(self, agent: str, subject: str) -> None:
        await self._run.write(lambda connection: _supersede(connection, agent, subject))

    async def highest(self, agent: str) -> DirectiveNumber | None:
        query = select(agent_numbers.c.epoch, agent_numbers.c.counter).where(agent_numbers.c.agent == agent)

        def work(connection: Connection) -> DirectiveNumber | None:
            row = connection.execute(query).one_or_none()
            return None if row is None else DirectiveNumber(row.epoch, row.counter)

        return await self._run.read(work)

    async def prune(self, before: datetime) -> int:
        is_old = and_(directives.c.is_superseded.is_(True), directives.c.created_at < micros(before))
        return await self._run.write(lambda connection: connection.execute(delete(directives).where(is_old)).rowcount)


def _current(connection: Connection) -> Epoch:
    row = connection.execute(select(epochs).order_by(epochs.c.number.desc()).limit(1)).one_or_none()
    if row is None:
        raise Corrupt("the table of epochs is empty")
    return Epoch(row.number, moment(row.started_at), row.reason, row.halted_because)


def _reserve(connection: Connection, agent: str) -> DirectiveNumber:
    epoch = _current(connection)
    if epoch.halted_because:
        raise PreconditionFailed(
            f"the coordinator directs nothing in epoch {epoch.number}: {epoch.halted_because}",
            remedy="restore what is missing, then run `foedus-coordinator recover`",
        )
    row = connection.execute(select(agent_numbers).where(agent_numbers.c.agent == agent)).one_or_none()
    if row is None:
        number = DirectiveNumber(epoch.number, 1)
        connection.execute(insert(agent_numbers).values(agent=agent, epoch=number.epoch, counter=number.counter))
    else:
        number = DirectiveNumber(epoch.number, row.counter + 1 if row.epoch == epoch.number else 1)
        changed = update(agent_numbers).where(agent_numbers.c.agent == agent)
        connection.execute(changed.values(epoch=number.epoch, counter=number.counter))
    return number


def _issue(
    connection: Connection, agent: str, number: DirectiveNumber, subject: str, payload: bytes, now: datetime
) -> StoredDirective:
    known = connection.execute(select(directives).where(_is(agent, number))).one_or_none()
    if known is not None:
        if (known.subject, bytes(known.payload)) == (subject, payload):
            return _stored(known)
        raise ConflictError(f"number {number} was used for another directive to this agent")
    reserved = connection.execute(select(agent_numbers).where(agent_numbers.c.agent == agent)).one_or_none()
    if reserved is None or number > DirectiveNumber(reserved.epoch, reserved.counter):
        raise ConflictError(f"number {number} was not reserved for this agent")
    if (
        connection.scalar(select(directives.c.counter).where(_of(agent, subject), _is_after(number)).limit(1))
        is not None
    ):
        raise ConflictError(f"{subject} has a directive newer than {number} already")
    _supersede(connection, agent, subject)
    row = {
        "agent": agent,
        "epoch": number.epoch,
        "counter": number.counter,
        "subject": subject,
        "payload": payload,
        "state": DirectiveState.PENDING.value,
        "is_superseded": False,
        "created_at": micros(now),
    }
    connection.execute(insert(directives).values(**row))
    return _find(connection, agent, number)


def _supersede(connection: Connection, agent: str, subject: str) -> None:
    live = update(directives).where(_of(agent, subject), directives.c.is_superseded.is_(False))
    connection.execute(live.values(is_superseded=True))


def _find(connection: Connection, agent: str, number: DirectiveNumber) -> StoredDirective:
    row = connection.execute(select(directives).where(_is(agent, number))).one_or_none()
    if row is None:
        raise NotFound(f"no directive {number} was issued to this agent")
    return _stored(row)


def _is(agent: str, number: DirectiveNumber) -> ColumnElement[bool]:
    columns = directives.c
    return and_(columns.agent == agent, columns.epoch == number.epoch, columns.counter == number.counter)


def _of(agent: str, subject: str) -> ColumnElement[bool]:
    return and_(directives.c.agent == agent, directives.c.subject == subject)


def _is_after(number: DirectiveNumber) -> ColumnElement[bool]:
    in_epoch = and_(directives.c.epoch == number.epoch, directives.c.counter > number.counter)
    return or_(directives.c.epoch > number.epoch, in_epoch)


def _stored(row: Row[tuple[object, ...]]) -> StoredDirective:
    return StoredDirective(
        agent=row.agent,
        number=DirectiveNumber(row.epoch, row.counter),
        subject=row.subject,
        payload=bytes(row.payload),
        state=DirectiveState(row.state),
        is_superseded=row.is_superseded,
        created_at=moment(row.created_at),
        reason=row.reason,
        answered_at=moment_or_none(row.answered_at),
    )
