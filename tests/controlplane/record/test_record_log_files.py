"""The log on disk: what it returns, proves, publishes and forgets."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.controlplane.record.builders import KEY, ORIGIN, entries, entry, every_byte, opened, segments
from treaty.errors import InvalidInput, NotFound, PreconditionFailed
from treaty.log import (
    EMPTY_ROOT,
    Entry,
    Tree,
    follow,
    leaf_hash,
    tile_path,
    verify_checkpoint,
    verify_inclusion,
)
from treaty.log.tiles import decode_bundle


def reference(count: int) -> Tree:
    return Tree(leaf_hash(one.data) for one in entries(0, count))


def test_a_new_log_is_empty_and_has_signed_that(tmp_path: Path) -> None:
    with opened(tmp_path) as log:
        assert log.size == 0
        assert log.checkpoint().checkpoint.size == 0
        assert log.checkpoint().checkpoint.root == EMPTY_ROOT
        assert log.append([]) == []


def test_what_was_appended_is_there_after_reopening_with_its_proofs(tmp_path: Path) -> None:
    with opened(tmp_path) as log:
        assert log.append(entries(0, 3)) == [0, 1, 2]
        assert log.append(entries(3, 7)) == [3, 4, 5, 6]
    with opened(tmp_path) as log:
        assert log.size == 7
        assert log.root(7) == reference(7).root()
        for index in range(7):
            leaf = log.entry(index)
            assert (leaf.index, leaf.salt, leaf.statement) == (index, entry(index).salt, entry(index).statement)
            verify_inclusion(leaf.hash, index, 7, log.inclusion(index, 7), log.root(7))
        assert log.append([entry(7)]) == [7]


def test_segments_rotate_and_read_back_as_one_log(tmp_path: Path) -> None:
    with opened(tmp_path, segment_bytes=400) as log:
        for number in range(20):
            log.append([entry(number)])
        log.publish()
    assert len(segments(tmp_path)) > 3
    with opened(tmp_path, segment_bytes=400) as log:
        assert log.root(20) == reference(20).root()
        assert [log.entry(index).statement for index in range(20)] == [one.statement for one in entries(0, 20)]


def test_a_published_checkpoint_is_signed_stored_and_extends_the_one_before(tmp_path: Path) -> None:
    with opened(tmp_path) as log:
        log.append(entries(0, 5))
        assert log.checkpoint().checkpoint.size == 0  # durable is not yet published
        first = log.publish()
        log.append(entries(5, 9))
        second = log.publish()
        assert log.publish() is second
        believed = verify_checkpoint((log.public_directory / "checkpoint").read_bytes(), ORIGIN, KEY.public_key())
        assert believed == second.checkpoint == log.checkpoint().checkpoint
        assert follow(first.checkpoint, believed, log.consistency(5, 9)) == second.checkpoint


def test_tiles_and_bundles_lie_where_the_format_says_and_hold_no_statement(tmp_path: Path) -> None:
    with opened(tmp_path) as log:
        log.append(entries(0, 200))
        log.publish()
        public = log.public_directory
        assert (public / tile_path(0, 0, 200)).stat().st_size == 200 * 32
        log.append(entries(200, 600))
        log.publish()
        tree = reference(600)
        assert (public / tile_path(0, 1)).read_bytes() == tree.hashes(0, 256, 512)
        assert (public / tile_path(0, 2, 88)).read_bytes() == tree.hashes(0, 512, 600)
        assert (public / tile_path(1, 0, 2)).read_bytes() == tree.hashes(8, 0, 2)
        bundle = decode_bundle((public / tile_path(None, 2, 88)).read_bytes(), 88)
        assert bundle == [one.data for one in entries(512, 600)]
        assert not (public / tile_path(0, 0, 200)).exists()  # the full tile took its place
        log.append(entries(600, 800))
        log.publish()
        for index, width in ((2, 256), (3, 32)):
            bundle = decode_bundle((public / tile_path(None, index, width)).read_bytes(), width)
            assert bundle == [one.data for one in entries(256 * index, 256 * index + width)]
    assert b"statement" not in every_byte(public)


def test_full_tiles_lost_from_the_public_directory_are_written_again(tmp_path: Path) -> None:
    with opened(tmp_path) as log:
        log.append(entries(0, 600))
        log.publish()
        public = log.public_directory
    (public / tile_path(0, 1)).unlink()
    with opened(tmp_path) as log:
        log.append(entries(600, 601))
        log.publish()
    assert (public / tile_path(0, 1)).read_bytes() == reference(601).hashes(0, 256, 512)
    assert (public / tile_path(0, 2, 89)).read_bytes() == reference(601).hashes(0, 512, 601)


def test_a_forgotten_statement_is_gone_from_the_disk_and_its_proof_stays(tmp_path: Path) -> None:
    with opened(tmp_path) as log:
        log.append(entries(0, 6))
        before = log.publish().checkpoint
        assert entry(2).statement in every_byte(tmp_path)
        log.forget(2)
        log.forget(2)
        assert entry(2).statement not in every_byte(tmp_path)
        assert entry(2).salt not in every_byte(tmp_path)
    with opened(tmp_path) as log:
        leaf = log.entry(2)
        assert leaf.is_forgotten
        assert leaf.salt is None
        assert leaf.hash == leaf_hash(entry(2).data)
        verify_inclusion(leaf.hash, 2, 6, log.inclusion(2, 6), before.root)
        assert log.checkpoint().checkpoint == before
        others = [0, 1, 3, 4, 5]
        assert [log.entry(index).statement for index in others] == [entry(index).statement for index in others]


def test_an_entry_offered_again_is_found_where_it_was_recorded(tmp_path: Path) -> None:
    with opened(tmp_path) as log:
        log.append(entries(0, 5))
        assert log.index_of(entry(3)) == 3
        with pytest.raises(NotFound, match="no leaf of the log has this hash"):
            log.index_of(Entry(entry(3).salt, b"another statement"))


def test_questions_beyond_the_log_are_refused_and_change_nothing(tmp_path: Path) -> None:
    with opened(tmp_path) as log:
        log.append(entries(0, 3))
        for ask in (log.entry, log.forget):
            for index in (3, -1):
                with pytest.raises(NotFound, match=f"the log has no leaf {index}"):
                    ask(index)
        with pytest.raises(InvalidInput, match="size 4 is outside the log, which has 3 leaves"):
            log.inclusion(0, 4)
        with pytest.raises(InvalidInput, match="size 4 is outside the log, which has 3 leaves"):
            log.consistency(1, 4)
        large = Entry(bytes(32), bytes(1024 * 1024))
        with pytest.raises(InvalidInput, match="a group holds at most 16777216 bytes"):
            log.append([large] * 17)
        assert log.size == 3
    assert not (tmp_path / "forgetting").exists()


def test_two_processes_cannot_have_the_log_open(tmp_path: Path) -> None:
    with opened(tmp_path), pytest.raises(PreconditionFailed, match="another process has the log open"):
        opened(tmp_path)
    with opened(tmp_path) as log:
        assert log.size == 0


def test_a_closed_log_records_nothing(tmp_path: Path) -> None:
    log = opened(tmp_path)
    log.append([entry(0)])
    log.close()
    with pytest.raises(PreconditionFailed, match="the log is closed"):
        log.append([entry(1)])
    with pytest.raises(PreconditionFailed, match="the log is closed"):
        log.entry(0)
    with pytest.raises(PreconditionFailed, match="the log is closed"):
        log.publish()


def test_statements_are_readable_by_the_coordinator_alone(tmp_path: Path) -> None:
    with opened(tmp_path) as log:
        log.append([entry(0)])
    assert (tmp_path / "segments").stat().st_mode & 0o077 == 0
    assert segments(tmp_path)[0].stat().st_mode & 0o077 == 0
