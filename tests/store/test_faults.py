"""A writer killed with SIGKILL, a full disk, a damaged file, a later version, a database that is gone."""

from __future__ import annotations

import asyncio
import signal
import sqlite3
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import inspect

from controlplane.store import Store, open_store
from controlplane.store.sql.engine import database_url, open_engine
from controlplane.store.sql.schema import HEAD, MIGRATIONS
from controlplane.store.sql.tables import metadata
from tests.store import postgres
from tests.store.builders import PAR, digest, rollout
from treaty.errors import Corrupt, InvalidInput, PreconditionFailed, ResourceExhausted, Unavailable
from treaty.names import DirectiveNumber
from treaty.resources import ROLLOUT


@asynccontextmanager
async def writer(url: str, mode: str) -> AsyncIterator[asyncio.subprocess.Process]:
    arguments = ("-m", "tests.store.killed_writer", url, mode)
    process = await asyncio.create_subprocess_exec(sys.executable, *arguments, stdout=asyncio.subprocess.PIPE)
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def line(process: asyncio.subprocess.Process) -> str:
    assert process.stdout is not None
    async with asyncio.timeout(30):
        return (await process.stdout.readline()).decode().strip()


async def test_a_writer_killed_inside_a_transaction_leaves_the_old_state(store: Store, url: str) -> None:
    await store.resources.create(rollout("kept"))
    async with writer(url, "inside") as process:
        assert await line(process) == "ready"
        process.send_signal(signal.SIGKILL)
        await process.wait()
    page = await store.resources.list(ROLLOUT)
    assert ([item.name for item in page.items], page.resource_version) == (["kept"], 1)
    assert await store.directives.next_number(PAR) == DirectiveNumber(1, 1)


async def test_a_writer_killed_anywhere_leaves_whole_transactions_and_all_it_reported(store: Store, url: str) -> None:
    reported = -1
    async with writer(url, "between") as process:
        while reported < 20:
            reported = int(await line(process))
        process.send_signal(signal.SIGKILL)
        await process.wait()
    names = [item.name for item in (await store.resources.list(ROLLOUT)).items]
    assert names == [f"r{number:05}" for number in range(len(names))]
    assert await store.directives.highest(PAR) == DirectiveNumber(1, len(names))
    assert len(names) >= reported + 1


async def test_reopening_finds_everything_and_migrates_nothing(store: Store, url: str) -> None:
    created = await store.resources.create(rollout())
    await store.close()
    again = await open_store(url)
    assert await again.resources.get(ROLLOUT, "r1") == created
    await again.close()


async def test_the_migrations_make_exactly_the_tables(store: Store, url: str) -> None:
    assert ScriptDirectory(str(MIGRATIONS)).get_heads() == [HEAD]
    engine = open_engine(database_url(url))
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
    engine.dispose()


async def test_a_database_of_an_earlier_version_is_brought_up_and_keeps_what_it_held(url: str) -> None:
    engine = open_engine(database_url(url))
    with engine.begin() as connection:
        config = Config()
        config.set_main_option("script_location", str(MIGRATIONS))
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
        connection.exec_driver_sql("UPDATE epochs SET halted_because = 'kept'")
        assert inspect(connection).has_table("outbox")
    opened = await open_store(url)
    assert (await opened.epochs.current()).halted_because == "kept"
    await opened.close()
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
    engine.dispose()


async def test_two_coordinators_may_open_a_new_database_at_once(url: str) -> None:
    stores = await asyncio.gather(*(open_store(url) for _ in range(2)))
    for opened in stores:
        assert (await opened.epochs.current()).number == 1
        await opened.close()


async def test_a_database_of_a_later_version_is_refused_and_left_alone(store: Store, url: str) -> None:
    await store.close()
    engine = open_engine(database_url(url))
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    engine.dispose()
    with pytest.raises(PreconditionFailed, match="belongs to a later version of this program"):
        await open_store(url)


async def test_a_full_disk_is_said_and_loses_nothing(tmp_path: Path, clock: Callable[[], datetime]) -> None:
    store = await open_store(f"sqlite:///{tmp_path}/small.db", clock=clock)
    created = await store.resources.create(rollout())
    await store._runner.write(  # type: ignore[attr-defined]
        lambda connection: connection.exec_driver_sql("PRAGMA max_page_count=1").close()
    )
    with pytest.raises(ResourceExhausted, match="the disk is full or the database is at its limit; free space"):
        await store.artifacts.add_manifest(digest("big"), bytes(4_000_000), owner="p", chunks=[])
    assert await store.resources.get(ROLLOUT, "r1") == created
    await store.resources.delete(ROLLOUT, "r1")
    await store.close()


async def test_a_file_that_is_no_database_is_corrupt(tmp_path: Path) -> None:
    (tmp_path / "x.db").write_bytes(b"not a database at all, but long enough to be looked at" * 100)
    with pytest.raises(Corrupt, match="damaged or is not a database; stop the coordinator and restore"):
        await open_store(f"sqlite:///{tmp_path}/x.db")


async def test_a_flipped_document_is_corrupt_and_disturbs_no_other(tmp_path: Path) -> None:
    store = await open_store(f"sqlite:///{tmp_path}/x.db")
    await store.resources.create(rollout("bad"))
    await store.resources.create(rollout("good"))
    await store.close()
    with sqlite3.connect(tmp_path / "x.db") as connection:
        connection.execute("UPDATE resources SET document = x'7b' WHERE name = 'bad'")
    connection.close()
    store = await open_store(f"sqlite:///{tmp_path}/x.db")
    with pytest.raises(Corrupt, match="a stored resource does not read"):
        await store.resources.get(ROLLOUT, "bad")
    assert (await store.resources.get(ROLLOUT, "good")).name == "good"
    await store.close()


async def test_what_is_no_database_url_is_refused() -> None:
    with pytest.raises(InvalidInput, match="not a database URL; use sqlite:////path"):
        await open_store("coordinator.db")
    with pytest.raises(InvalidInput, match="not a supported database"):
        await open_store("mysql://root@localhost/foedus")


async def test_a_missing_folder_and_an_absent_server_are_unavailable(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="the database's folder does not exist"):
        await open_store(f"sqlite:///{tmp_path}/none/x.db")
    with pytest.raises(Unavailable, match="the database could not be used now"):
        await open_store(f"postgresql://postgres@/none?host={tmp_path}")


@pytest.mark.postgres
async def test_a_lost_connection_is_unavailable_and_the_next_call_works(postgres_server: postgres.Server) -> None:
    url = postgres_server.create_database("lost")
    store = await open_store(url)
    kill = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'lost' AND pid <> pg_backend_pid()"

    async def write_after_losing_the_connection() -> None:
        async with store.transaction() as change:
            await change.resources.create(rollout("lost"))
            postgres_server.run("psql", "-h", str(postgres_server.folder), "-U", "postgres", "-d", "lost", "-c", kill)
            await change.resources.create(rollout("also-lost"))

    with pytest.raises(Unavailable):
        await write_after_losing_the_connection()
    assert (await store.resources.create(rollout("kept"))).metadata.resource_version == 1
    await store.close()


def file_modes(folder: Path) -> dict[str, int]:
    return {file.name: file.stat().st_mode & 0o777 for file in folder.iterdir()}


async def test_the_databases_files_are_for_their_owner_alone(tmp_path: Path) -> None:
    store = await open_store(f"sqlite:///{tmp_path}/x.db")
    await store.resources.create(rollout())
    modes = await asyncio.to_thread(file_modes, tmp_path)
    assert modes == {"x.db": 0o600, "x.db-wal": 0o600, "x.db-shm": 0o600}
    await store.close()
    with pytest.raises(Unavailable, match="the database's file cannot be opened"):
        await open_store(f"sqlite:///{tmp_path}/x.db/y.db")


async def test_a_store_in_memory_serves_the_same_verbs() -> None:
    store = await open_store("sqlite://")
    await store.resources.create(rollout())
    async with store.transaction() as change:
        await change.directives.next_number(PAR)
    assert await store.directives.highest(PAR) == DirectiveNumber(1, 1)
    await store.close()
