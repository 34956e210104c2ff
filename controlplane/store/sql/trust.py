"""Charters, revocations and policy bundles in SQL."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from sqlalchemy import Connection, Row, insert, select

from controlplane.store.ports.trust import (
    Revocation,
    RevocationKind,
    StoredBundle,
    StoredCharter,
    Trust,
)
from controlplane.store.sql.runner import Run
from controlplane.store.sql.tables import charters, policy_bundles, revocations
from controlplane.store.sql.values import insert_new, micros, moment
from treaty.errors import ConflictError, NotFound, RollbackRefused
from treaty.names import Digest, PartyCode


class SqlTrust(Trust):
    def __init__(self, run: Run, clock: Callable[[], datetime]) -> None:
        self._run = run
        self._clock = clock

    async def add_charter(self, version: int, digest: Digest, envelope: bytes) -> None:
        now = micros(self._clock())
        row = {"version": version, "digest": digest, "envelope": envelope, "added_at": now}

        def work(connection: Connection) -> None:
            last = connection.execute(select(charters).order_by(charters.c.version.desc()).limit(1)).one_or_none()
            if last is not None:
                if (last.version, last.digest) == (version, digest):
                    return
                _refuse_out_of_order(last.version, version)
            connection.execute(insert(charters).values(**row))

        await self._run.write(work)

    async def charter(self, version: int | None = None) -> StoredCharter:
        query = select(charters).order_by(charters.c.version.desc()).limit(1)
        if version is not None:
            query = query.where(charters.c.version == version)

        def work(connection: Connection) -> StoredCharter:
            row = connection.execute(query).one_or_none()
            if row is None:
                raise NotFound("there is no charter" if version is None else f"there is no charter version {version}")
            return StoredCharter(row.version, row.digest, bytes(row.envelope), moment(row.added_at))

        return await self._run.read(work)

    async def revoke(self, kind: RevocationKind, subject: str, *, reason: str, revoked_by: str) -> None:
        now = micros(self._clock())
        row = {"kind": kind.value, "subject": subject, "reason": reason, "revoked_by": revoked_by, "revoked_at": now}
        await self._run.write(lambda connection: insert_new(connection, revocations, row))

    async def revocations(self) -> tuple[Revocation, ...]:
        query = select(revocations).order_by(revocations.c.revoked_at, revocations.c.kind, revocations.c.subject)
        return await self._run.read(lambda connection: tuple(map(_revocation, connection.execute(query).all())))

    async def add_bundle(
        self, authority: PartyCode, revision: int, *, digest: Digest, bundle: bytes, envelope: bytes
    ) -> None:
        now = micros(self._clock())
        row = {"authority": authority, "revision": revision, "digest": digest, "bundle": bundle, "envelope": envelope}

        def work(connection: Connection) -> None:
            last = _latest_bundle(connection, authority)
            if last is not None and last.revision == revision and last.digest == digest:
                return
            if last is not None and last.revision == revision:
                raise ConflictError(f"revision {revision} of {authority} is another bundle")
            if last is not None and last.revision > revision:
                raise RollbackRefused(f"revision {revision} of {authority} is older than {last.revision}")
            connection.execute(insert(policy_bundles).values(**row, added_at=now))

        await self._run.write(work)

    async def bundle(self, authority: PartyCode, revision: int | None = None) -> StoredBundle:
        def work(connection: Connection) -> StoredBundle:
            row = _latest_bundle(connection, authority, revision)
            if row is None:
                raise NotFound(f"there is no such policy bundle of {authority}")
            return StoredBundle(
                PartyCode(row.authority),
                row.revision,
                row.digest,
                bytes(row.bundle),
                bytes(row.envelope),
                moment(row.added_at),
            )

        return await self._run.read(work)


def _refuse_out_of_order(last: int, version: int) -> None:
    if version < last:
        raise RollbackRefused(f"charter version {version} is older than {last}")
    if version == last:
        raise ConflictError(f"another charter has version {version}")
    if version != last + 1:
        raise ConflictError(f"charter version {version} does not follow {last}", remedy=f"add version {last + 1} first")


def _latest_bundle(
    connection: Connection, authority: PartyCode, revision: int | None = None
) -> Row[tuple[object, ...]] | None:
    query = select(policy_bundles).where(policy_bundles.c.authority == authority)
    if revision is not None:
        query = query.where(policy_bundles.c.revision == revision)
    return connection.execute(query.order_by(policy_bundles.c.revision.desc()).limit(1)).one_or_none()


def _revocation(row: Row[tuple[object, ...]]) -> Revocation:
    return Revocation(RevocationKind(row.kind), row.subject, row.reason, row.revoked_by, moment(row.revoked_at))
