"""Manifests, their chunks and signatures, and grants in SQL."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime

from sqlalchemy import Connection, Row, delete, insert, select, update

from controlplane.store.ports.artifacts import Artifacts, ChunkReference, StoredManifest, StoredSignature
from controlplane.store.sql.runner import Run
from controlplane.store.sql.tables import grants, manifest_chunks, manifest_signatures, manifests
from controlplane.store.sql.values import insert_new, micros, moment
from treaty.errors import ConflictError, NotFound
from treaty.names import Digest, KeyId

# Half of what the oldest SQLite in use binds in one statement.
_BATCH = 500


class SqlArtifacts(Artifacts):
    def __init__(self, run: Run, clock: Callable[[], datetime]) -> None:
        self._run = run
        self._clock = clock

    async def add_manifest(
        self, digest: Digest, manifest: bytes, *, owner: str, chunks: Sequence[ChunkReference], is_ready: bool = False
    ) -> None:
        now = micros(self._clock())
        row = {"digest": digest, "manifest": manifest, "owner": owner, "is_ready": is_ready, "created_at": now}
        sizes = {chunk.digest: chunk.bytes for chunk in chunks}

        def work(connection: Connection) -> None:
            if insert_new(connection, manifests, row):
                references = [{"manifest": digest, "chunk": chunk, "bytes": size} for chunk, size in sizes.items()]
                if references:
                    connection.execute(insert(manifest_chunks), references)
            elif _find(connection, digest).manifest != manifest:
                raise ConflictError(f"{digest} is known with other bytes")

        await self._run.write(work)

    async def manifest(self, digest: Digest) -> StoredManifest:
        return await self._run.read(lambda connection: _find(connection, digest))

    async def drafts(self) -> tuple[StoredManifest, ...]:
        query = select(manifests).where(manifests.c.is_ready.is_(False))
        ordered = query.order_by(manifests.c.created_at, manifests.c.digest)
        return await self._run.read(lambda connection: tuple(map(_manifest, connection.execute(ordered).all())))

    async def mark_ready(self, digest: Digest) -> None:
        def work(connection: Connection) -> None:
            _find(connection, digest)
            connection.execute(update(manifests).where(manifests.c.digest == digest).values(is_ready=True))

        await self._run.write(work)

    async def drop_manifest(self, digest: Digest) -> None:
        row = delete(manifests).where(manifests.c.digest == digest)
        await self._run.write(lambda connection: connection.execute(row).close())

    async def sign(self, digest: Digest, key_id: KeyId, envelope: bytes) -> None:
        def work(connection: Connection) -> None:
            _find(connection, digest)
            row = {"manifest": digest, "key_id": key_id, "envelope": envelope}
            insert_new(connection, manifest_signatures, row)

        await self._run.write(work)

    async def signatures(self, digest: Digest) -> tuple[StoredSignature, ...]:
        columns = manifest_signatures.c
        query = select(manifest_signatures).where(columns.manifest == digest).order_by(columns.key_id)
        return await self._run.read(
            lambda connection: tuple(
                StoredSignature(row.key_id, bytes(row.envelope)) for row in connection.execute(query).all()
            )
        )

    async def chunks(self, digest: Digest) -> tuple[ChunkReference, ...]:
        columns = manifest_chunks.c
        query = select(manifest_chunks).where(columns.manifest == digest).order_by(columns.chunk)
        return await self._run.read(
            lambda connection: tuple(ChunkReference(row.chunk, row.bytes) for row in connection.execute(query).all())
        )

    async def unreferenced(self, chunks: Iterable[Digest]) -> tuple[Digest, ...]:
        asked = sorted(set(chunks))

        def work(connection: Connection) -> tuple[Digest, ...]:
            known: set[str] = set()
            for start in range(0, len(asked), _BATCH):
                some = manifest_chunks.c.chunk.in_(asked[start : start + _BATCH])
                known.update(connection.scalars(select(manifest_chunks.c.chunk).where(some).distinct()))
            return tuple(chunk for chunk in asked if chunk not in known)

        return await self._run.read(work)

    async def grant(self, agent: str, digest: Digest, subject: str) -> None:
        def work(connection: Connection) -> None:
            _find(connection, digest)
            insert_new(connection, grants, {"agent": agent, "subject": subject, "manifest": digest})

        await self._run.write(work)

    async def withdraw(self, agent: str, subject: str) -> None:
        row = delete(grants).where(grants.c.agent == agent, grants.c.subject == subject)
        await self._run.write(lambda connection: connection.execute(row).close())

    async def may_pull(self, agent: str, digest: Digest) -> bool:
        query = select(grants.c.manifest).where(grants.c.agent == agent, grants.c.manifest == digest)
        return await self._run.read(lambda connection: connection.scalar(query.limit(1)) is not None)


def _find(connection: Connection, digest: Digest) -> StoredManifest:
    row = connection.execute(select(manifests).where(manifests.c.digest == digest)).one_or_none()
    if row is None:
        raise NotFound("there is no such manifest")
    return _manifest(row)


def _manifest(row: Row[tuple[object, ...]]) -> StoredManifest:
    return StoredManifest(row.digest, bytes(row.manifest), row.owner, row.is_ready, moment(row.created_at))
