"""An update is in the spool whole, once, or not at all; and no chunk store ever shows it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from controlplane.artifacts.directory_store import DirectoryStore
from controlplane.artifacts.spool import UpdateKey, UpdateSpool
from tests.controlplane.test_artifacts_store import files_limited_to
from treaty.errors import ConflictError, InvalidInput, LimitExceeded, NotFound, ResourceExhausted
from treaty.names import PartyCode, RunId, digest_of

RUN = RunId("run-1")
KEY = UpdateKey(RUN, 1, PartyCode("DE"))


@pytest.fixture
def spool(tmp_path: Path) -> UpdateSpool:
    return UpdateSpool(tmp_path)


def files(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


def put(spool: UpdateSpool, key: UpdateKey, header: bytes = b"{}", *chunks: bytes) -> None:
    with spool.begin(key, header) as writer:
        for chunk in chunks:
            writer.append(chunk)
        writer.commit()


def test_an_update_is_visible_only_when_whole(spool: UpdateSpool, tmp_path: Path) -> None:
    with spool.begin(KEY, b'{"h":1}') as writer:
        writer.append(b"first")
        with pytest.raises(NotFound, match="no update of DE for round 1 of run-1"):
            spool.path(KEY)
        writer.append(b"second")
        writer.commit()
    assert spool.path(KEY).read_bytes() == (7).to_bytes(8, "little") + b'{"h":1}' + b"firstsecond"
    assert spool.accepted(RUN, 1) == ("DE",)
    assert files(tmp_path) == ["runs/run-1/1/DE.update"]


def test_an_update_that_breaks_off_leaves_nothing(spool: UpdateSpool, tmp_path: Path) -> None:
    with spool.begin(KEY, b"{}") as writer:
        writer.append(b"first")
    assert files(tmp_path) == []
    assert spool.accepted(RUN, 1) == ()


def test_a_second_update_of_the_same_nation_and_round_is_refused_even_in_a_race(spool: UpdateSpool) -> None:
    with spool.begin(KEY, b"late") as late:
        put(spool, KEY, b"first")
        with pytest.raises(ConflictError, match="already accepted"):
            late.commit()
    with pytest.raises(ConflictError, match="already accepted"):
        spool.begin(KEY, b"again")
    assert spool.path(KEY).read_bytes()[8:] == b"first"


def test_a_full_disk_is_said_and_nothing_stays(spool: UpdateSpool, tmp_path: Path) -> None:
    with files_limited_to(50_000):
        with pytest.raises(ResourceExhausted, match="no space left while spooling an update"):
            put(spool, KEY, b"{}", os.urandom(40_000), os.urandom(40_000))
        with pytest.raises(ResourceExhausted, match="no space left"):
            spool.begin(KEY, bytes(60_000))
    assert files(tmp_path) == []


def test_what_a_crash_left_unfinished_is_removed_at_the_next_start(spool: UpdateSpool, tmp_path: Path) -> None:
    put(spool, KEY)
    (tmp_path / "incoming" / "x.partial").write_bytes(b"half")
    UpdateSpool(tmp_path)
    assert files(tmp_path) == ["runs/run-1/1/DE.update"]


def test_rounds_and_runs_are_deleted_alone(spool: UpdateSpool) -> None:
    other = RunId("run-2")
    for run, number in ((RUN, 1), (RUN, 2), (other, 1)):
        for nation in ("FR", "DE"):
            put(spool, UpdateKey(run, number, PartyCode(nation)))
    spool.delete_round(RUN, 1)
    assert spool.accepted(RUN, 1) == ()
    assert spool.accepted(RUN, 2) == ("DE", "FR")
    spool.delete_run(RUN)
    spool.delete_run(RUN)
    assert spool.runs() == (other,)
    assert spool.accepted(other, 1) == ("DE", "FR")


@pytest.mark.parametrize(("run", "number", "nation"), [("../x", 1, "FR"), ("run", 0, "FR"), ("run", 1, "../FR")])
def test_a_key_cannot_lead_out_of_the_spool(run: str, number: int, nation: str) -> None:
    with pytest.raises(InvalidInput):
        UpdateKey(RunId(run), number, PartyCode(nation))


def test_a_huge_header_is_refused_before_anything_is_written(spool: UpdateSpool, tmp_path: Path) -> None:
    with pytest.raises(LimitExceeded, match="header is larger"):
        spool.begin(KEY, bytes(2**20 + 1))
    assert files(tmp_path) == []


def test_a_pull_by_digest_never_finds_an_update(spool: UpdateSpool, tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path)  # even where both were given the same root
    put(spool, KEY, b"{}", b"values")
    for secret in (b"values", spool.path(KEY).read_bytes()):
        assert not store.has(digest_of(secret))
