"""Rounds and contributions in SQL: each moves by compare-and-swap on its state."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from typing import cast

from sqlalchemy import Connection, Row, select, update

from controlplane.store.ports.rounds import ContributionState, Rounds, RoundState, StoredContribution, StoredRound
from controlplane.store.sql.runner import Run
from controlplane.store.sql.tables import contributions, rounds
from controlplane.store.sql.values import (
    insert_new,
    micros,
    micros_or_none,
    moment,
    moment_or_none,
    packed,
    unpacked,
)
from treaty.errors import ConflictError, NotFound
from treaty.names import PartyCode


class SqlRounds(Rounds):
    def __init__(self, run: Run, clock: Callable[[], datetime]) -> None:
        self._run = run
        self._clock = clock

    async def open(self, round_: StoredRound) -> StoredRound:
        begun = replace(round_, started_at=self._clock())

        def work(connection: Connection) -> StoredRound:
            if insert_new(connection, rounds, _round_row(begun)):
                return begun
            stored = _find(connection, round_.run, round_.round)
            if (stored.plan_digest, stored.arrays_digest) != (round_.plan_digest, round_.arrays_digest):
                raise ConflictError(f"round {round_.round} of {round_.run!r} began under another plan or other arrays")
            return stored

        return await self._run.write(work)

    async def save(self, round_: StoredRound, expected: RoundState) -> None:
        def work(connection: Connection) -> None:
            stored = _find(connection, round_.run, round_.round)
            if stored.state is not expected:
                raise ConflictError(f"round {round_.round} of {round_.run!r} is {stored.state}, not {expected}")
            row = _round_row(replace(round_, started_at=stored.started_at))
            this = update(rounds).where(rounds.c.run == round_.run, rounds.c.round == round_.round)
            connection.execute(this.values(**row))

        await self._run.write(work)

    async def find(self, run: str, round_: int) -> StoredRound:
        return await self._run.read(lambda connection: _find(connection, run, round_))

    async def of_run(self, run: str) -> tuple[StoredRound, ...]:
        query = select(rounds).where(rounds.c.run == run).order_by(rounds.c.round)
        return await self._run.read(lambda connection: tuple(map(_round, connection.execute(query).all())))

    async def contribute(self, contribution: StoredContribution, expected: ContributionState | None) -> None:
        await self._run.write(lambda connection: _contribute(connection, contribution, expected))

    async def contributions(self, run: str, round_: int) -> tuple[StoredContribution, ...]:
        query = select(contributions).where(contributions.c.run == run, contributions.c.round == round_)
        ordered = query.order_by(contributions.c.nation)
        return await self._run.read(lambda connection: tuple(map(_contribution, connection.execute(ordered).all())))


def _contribute(connection: Connection, wanted: StoredContribution, expected: ContributionState | None) -> None:
    columns = contributions.c
    this = (columns.run == wanted.run, columns.round == wanted.round, columns.nation == wanted.nation)
    row = connection.execute(select(contributions).where(*this)).one_or_none()
    stored = None if row is None else _contribution(row)
    if stored == wanted:
        return
    if (None if stored is None else stored.state) is not expected:
        found = "missing" if stored is None else stored.state
        raise ConflictError(f"the contribution of {wanted.nation} to round {wanted.round} is {found}")
    if stored is None:
        _find(connection, wanted.run, wanted.round)
        insert_new(connection, contributions, _contribution_row(wanted))
    else:
        connection.execute(update(contributions).where(*this).values(**_contribution_row(wanted)))


def _find(connection: Connection, run: str, round_: int) -> StoredRound:
    row = connection.execute(select(rounds).where(rounds.c.run == run, rounds.c.round == round_)).one_or_none()
    if row is None:
        raise NotFound(f"run {run!r} has no round {round_}")
    return _round(row)


def _round_row(round_: StoredRound) -> dict[str, object]:
    return {
        "run": round_.run,
        "round": round_.round,
        "state": round_.state.value,
        "plan_digest": round_.plan_digest,
        "deadline_at": micros(round_.deadline_at),
        "arrays_digest": round_.arrays_digest,
        "aggregate_digest": round_.aggregate_digest,
        "result_digest": round_.result_digest,
        "strategy_state": round_.strategy_state,
        "reason": round_.reason,
        "started_at": micros_or_none(round_.started_at),
        "finished_at": micros_or_none(round_.finished_at),
    }


def _round(row: Row[tuple[object, ...]]) -> StoredRound:
    return StoredRound(
        run=row.run,
        round=row.round,
        state=RoundState(row.state),
        plan_digest=row.plan_digest,
        deadline_at=moment(row.deadline_at),
        arrays_digest=row.arrays_digest,
        aggregate_digest=row.aggregate_digest,
        result_digest=row.result_digest,
        strategy_state=None if row.strategy_state is None else bytes(row.strategy_state),
        reason=row.reason,
        started_at=moment(row.started_at),
        finished_at=moment_or_none(row.finished_at),
    )


def _contribution_row(contribution: StoredContribution) -> dict[str, object]:
    return {
        "run": contribution.run,
        "round": contribution.round,
        "nation": contribution.nation,
        "agent": contribution.agent,
        "state": contribution.state.value,
        "update_digest": contribution.update_digest,
        "spool_path": contribution.spool_path,
        "examples": contribution.examples,
        "bytes": contribution.bytes,
        "receipt_digest": contribution.receipt_digest,
        "metrics": packed(contribution.metrics),
        "codes": packed(contribution.codes),
    }


def _contribution(row: Row[tuple[object, ...]]) -> StoredContribution:
    return StoredContribution(
        run=row.run,
        round=row.round,
        nation=PartyCode(row.nation),
        agent=row.agent,
        state=ContributionState(row.state),
        update_digest=row.update_digest,
        spool_path=row.spool_path,
        examples=row.examples,
        bytes=row.bytes,
        receipt_digest=row.receipt_digest,
        metrics=cast("dict[str, int]", unpacked(row.metrics)),
        codes=tuple(cast("list[str]", unpacked(row.codes))),
    )
