"""A coordinator restored from yesterday, and what an auditor's export of today gives it back."""

from __future__ import annotations

import asyncio
import json
import shutil
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from controlplane.cli.log_export import read_export, write_export
from controlplane.core import opened
from controlplane.home import Home
from controlplane.recovery import RESTORING, Recovered, recover
from tests.builders.charters import CharterBuilder
from tests.controlplane.api.test_process import told
from tests.controlplane.api.test_submissions import submitted, tally
from tests.controlplane.api.world import World, agent, failure, home_of, load_charter, serving
from treaty.audit import Entry, Offered
from treaty.errors import ConflictError, FoedusError
from treaty.exit_codes import ExitCode
from treaty.receipt import sign_tally
from treaty.wire.v1 import operator_pb2

PAR = agent()
LYO = agent(PAR.nation, "lyo-1")


def silent(what: str, done: int, total: int) -> None:
    del what, done, total


async def export_of(there: World) -> Offered:
    """What `foedus audit export` writes."""
    record = there.coordinator.core.record
    note = (await record.publish()).note
    leaves = list(record.read(0, record.size))
    return Offered(note, [Entry(leaf.index, leaf.hash, leaf.salt, leaf.statement) for leaf in leaves])


async def a_day(folder: Path) -> tuple[Home, CharterBuilder, Offered, dict[str, object]]:
    """A home as it was yesterday, and of today: the export, and where the agent stands."""
    home, charters = home_of(folder)
    await load_charter(home, charters.signed())
    async with serving(home, charters) as before:
        for who in (PAR, LYO):
            await before.accept(who)
        await before.connect(PAR)
    shutil.copytree(home.root, folder / "yesterday")
    async with serving(home, charters) as today:
        today.agent_keys.update(before.agent_keys)
        stream = await today.connect(PAR)
        for sequence in range(3):
            await submitted(stream, sign_tally(tally(PAR, sequence + 1), today.agent_keys[PAR]))
        revoke = operator_pb2.RevokeAgentRequest(subject=str(LYO), reason="stolen")
        await today.operator().RevokeAgent(revoke)
        export = await export_of(today)
        head = today.coordinator.core.record.head(0).checkpoint
    shutil.rmtree(home.root)
    (folder / "yesterday").rename(home.root)
    stands = {
        "log_size": head.checkpoint.size,
        "log_root": head.checkpoint.root,
        "log_checkpoint_note": head.note,
    }
    return home, charters, export, stands


async def size_of(home: Home) -> int:
    """Entries in the record of a coordinator that is not running."""
    async with opened(home) as core:
        return core.record.size


async def test_a_recovered_coordinator_has_the_record_that_its_agents_saw_and_what_was_revoked(tmp_path: Path) -> None:
    home, charters, export, stands = await a_day(tmp_path)
    async with serving(home, charters) as restored:
        assert (await restored.connect(PAR, **stands)).welcome.is_behind
        before = restored.coordinator.core.record.size
    done = await recover(home, epoch=0, reason="disk replaced", export=export, tell=silent)
    assert (done.epoch, done.restored_entries) == (2, len(export.entries) - before)
    assert f"verified {len(export.entries)} log entries, the record has {before}" in done.was_halted_because
    async with serving(home, charters) as recovered:
        assert recovered.coordinator.core.record.size == len(export.entries)
        stream = await recovered.connect(PAR, **stands)
        assert (stream.welcome.is_behind, stream.welcome.epoch) == (False, 2)
        assert (await failure(recovered.connect(LYO))).details() == "REVOKED"


async def test_a_record_that_lacks_nothing_is_recovered_by_its_epoch_alone(tmp_path: Path) -> None:
    home, _, export, _ = await a_day(tmp_path)
    lost = len(export.entries) - await size_of(home)
    done = await recover(home, epoch=0, reason="disk replaced", export=export, tell=silent)
    assert done == Recovered(2, "", lost, (str(LYO),))
    assert await size_of(home) == len(export.entries)
    assert await recover(home, epoch=7, reason="again", export=export, tell=silent) == Recovered(7, "")


async def test_a_refused_export_changes_neither_record_nor_epoch(tmp_path: Path) -> None:
    home, charters, export, _ = await a_day(tmp_path)
    changed = replace(export, entries=[*export.entries[:-1], replace(export.entries[-1], leaf_hash=bytes(32))])
    with pytest.raises(FoedusError):
        await recover(home, epoch=0, reason="r", export=changed, tell=silent)
    async with serving(home, charters) as restored:
        core = restored.coordinator.core
        assert core.record.size < len(export.entries)
        current = await core.store.epochs.current()
        assert (current.number, current.halted_because) == (1, "")


async def test_a_coordinator_that_went_on_after_the_restore_is_not_recovered_from_an_export(tmp_path: Path) -> None:
    home, charters, export, _ = await a_day(tmp_path)
    async with serving(home, charters) as alone:
        await alone.operator().RevokeAgent(operator_pb2.RevokeAgentRequest(subject=str(LYO), reason="unaware"))
    with pytest.raises(ConflictError, match="the log went on by itself after the restore"):
        await recover(home, epoch=0, reason="r", export=export, tell=silent)


async def test_one_that_is_interrupted_directs_nothing_until_it_is_done_again(tmp_path: Path) -> None:
    home, charters, export, stands = await a_day(tmp_path)

    def pulled(what: str, done: int, total: int) -> None:
        if what == "restored":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        await recover(home, epoch=0, reason="r", export=export, tell=pulled)
    async with serving(home, charters) as half:
        assert (await half.coordinator.core.store.epochs.current()).halted_because == RESTORING
        assert half.coordinator.core.record.is_frozen
    done = await recover(home, epoch=0, reason="r", export=export, tell=silent)
    assert (done.epoch, done.was_halted_because) == (2, "")
    async with serving(home, charters) as recovered:
        assert not (await recovered.connect(PAR, **stands)).welcome.is_behind
        assert (await failure(recovered.connect(LYO))).details() == "REVOKED"


def test_the_command_restores_says_how_much_and_refuses_in_one_line(tmp_path: Path) -> None:
    home, _, export, _ = asyncio.run(a_day(tmp_path))
    write_export(tmp_path / "evidence", export, force=False)
    assert read_export(tmp_path / "evidence") == export
    verb = ("recover", "--home", str(home.root), "--reason", "disk replaced", "--record")
    absent = told(*verb, str(tmp_path / "nowhere"))
    assert absent.returncode == ExitCode.NOT_FOUND
    lost = len(export.entries) - asyncio.run(size_of(home))
    assert absent.stderr == f"error: there is no checkpoint {tmp_path / 'nowhere' / 'checkpoint'}\n  check the path\n"
    done = told(*verb, str(tmp_path / "evidence"))
    assert done.returncode == 0
    said = json.loads(done.stdout)
    assert (said["epoch"], said["put_in_force"], said["restored_entries"]) == (2, [str(LYO)], lost)
    assert done.stderr == ""
    write_export(tmp_path / "evidence", replace(export, entries=export.entries[:-1]), force=True)
    refused = told(*verb, str(tmp_path / "evidence"))
    assert refused.returncode == ExitCode.UNTRUSTED
    assert refused.stderr.startswith(f"error: the checkpoint covers {len(export.entries)} entries, ")


async def test_charter_versions_that_the_store_lost_are_in_force_again_though_one_has_expired_since(
    tmp_path: Path,
) -> None:
    home, charters = home_of(tmp_path)
    await load_charter(home, charters.signed())
    async with serving(home, charters):
        pass
    shutil.copytree(home.root, tmp_path / "yesterday")
    async with serving(home, charters) as today:
        trust, parties = today.coordinator.core.trust, today.coordinator.services.parties
        second, third = (replace(charters.charter(version), nations=trust.charter.nations) for version in (2, 3))
        expired = replace(second, expires_at=second.issued_at + timedelta(seconds=1))
        # As it was published, while it held.
        await trust.publish(charters.signed(expired), judged_at=expired.issued_at)
        await parties.adopt()
        await parties.publish_charter(charters.signed(third))
        export = await export_of(today)
    shutil.rmtree(home.root)
    (tmp_path / "yesterday").rename(home.root)
    done = await recover(home, epoch=0, reason="disk replaced", export=export, tell=silent)
    assert done.put_in_force == ("charter 2", "charter 3")
    async with serving(home, charters) as recovered:
        assert recovered.coordinator.core.trust.charter.version == 3
        assert recovered.coordinator.core.record.size == len(export.entries)
