"""What a crash or a bad disk leaves behind: cut off where nobody was promised it, refused where somebody was."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from zlib import crc32

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from controlplane.record import LogFiles
from tests.controlplane.record.builders import KEY, ORIGIN, entries, entry, every_byte, opened, segments
from treaty.errors import BadSignature, Corrupt
from treaty.log import Checkpoint, Entry, sign_checkpoint

REPOSITORY = Path(__file__).resolve().parents[3]

APPENDS_FOREVER = """
import sys
from pathlib import Path
from tests.controlplane.record.builders import entry, opened
log = opened(Path(sys.argv[1]), segment_bytes=20_000)
number = log.size
while True:
    indices = log.append([entry(number + at) for at in range(7)])
    number += 7
    if number % 35 == 0:
        log.publish()
    print(indices[-1], flush=True)
"""

APPENDS_UNTIL_FULL = """
import resource, sys
from pathlib import Path
from tests.controlplane.record.builders import entry, opened
from treaty.errors import ResourceExhausted
log = opened(Path(sys.argv[1]))
log.append([entry(0), entry(1)])
size = next((Path(sys.argv[1]) / "segments").glob("*.segment")).stat().st_size
resource.setrlimit(resource.RLIMIT_FSIZE, (size + 100, resource.RLIM_INFINITY))
try:
    log.append([entry(2), entry(3)])
except ResourceExhausted as err:
    print(err, flush=True)
assert log.size == 2
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
assert log.append([entry(2)]) == [2]
assert log.publish().checkpoint.size == 3
"""


def child(script: str, directory: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", script, str(directory)], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True
    )


def filled(directory: Path, groups: int = 3) -> Path:
    """A log of `groups` groups of two entries, unpublished; returns its one segment."""
    with opened(directory) as log:
        for group in range(groups):
            log.append(entries(2 * group, 2 * group + 2))
    return segments(directory)[0]


def flip(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 0x20
    path.write_bytes(content)


def place_of(path: Path, number: int) -> int:
    return path.read_bytes().index(entry(number).statement)


def test_every_acknowledged_entry_survives_a_kill_in_the_middle_of_appending(tmp_path: Path) -> None:
    acknowledged = -1
    for lines in (1, 12, 40):
        process = child(APPENDS_FOREVER, tmp_path)
        assert process.stdout is not None
        for _ in range(lines):
            acknowledged = int(process.stdout.readline())
        process.send_signal(signal.SIGKILL)
        rest = process.communicate()[0].split()
        acknowledged = int(rest[-1]) if rest else acknowledged
        with opened(tmp_path, segment_bytes=20_000) as log:
            assert log.size > acknowledged
            assert log.checkpoint().checkpoint.size == log.size
            for index in range(log.size):
                assert log.entry(index).statement == entry(index).statement
            # The next child goes on from a whole number of its groups, wherever the kill fell.
            log.append(entries(log.size, -(-log.size // 35) * 35))


def test_a_tail_torn_at_any_byte_is_cut_back_to_the_last_whole_record(tmp_path: Path) -> None:
    segment = filled(tmp_path)
    whole = segment.read_bytes()
    (tmp_path / "public" / "checkpoint").unlink()
    header, record = 36, (len(whole) - 36) // 6
    for end in range(header, len(whole), 31):  # coprime to the record: cuts fall into each of its fields
        segment.write_bytes(whole[:end])
        with opened(tmp_path) as log:
            assert log.size == (end - header) // record
            assert segment.stat().st_size == header + log.size * record
            assert log.append([entry(log.size)]) == [log.size - 1]
        (tmp_path / "public" / "checkpoint").unlink()


def test_a_tail_that_the_power_cut_left_as_zeros_is_cut_off(tmp_path: Path) -> None:
    segment = filled(tmp_path)
    whole = segment.read_bytes()
    segment.write_bytes(whole + bytes(5000))
    with opened(tmp_path) as log:
        assert log.size == 6
    assert segment.read_bytes() == whole


@pytest.mark.parametrize("number", [0, 1, 2, 3])
def test_a_flipped_byte_before_a_later_group_is_damage_and_nothing_is_cut(tmp_path: Path, number: int) -> None:
    segment = filled(tmp_path)
    flip(segment, place_of(segment, number))
    damaged = segment.read_bytes()
    with pytest.raises(Corrupt, match=f"leaf {number} of the log is damaged and later ones are not; restore the log"):
        opened(tmp_path)
    assert segment.read_bytes() == damaged


@pytest.mark.parametrize("back", [1, 60, 100, 129])
def test_a_flipped_byte_in_the_last_record_is_damage_too_since_it_was_acknowledged(tmp_path: Path, back: int) -> None:
    segment = filled(tmp_path)
    flip(segment, segment.stat().st_size - back)
    with pytest.raises(Corrupt, match="leaf 5 of the log is damaged"):
        opened(tmp_path)


def test_a_statement_that_looks_like_a_record_is_not_taken_for_one(tmp_path: Path) -> None:
    segment = filled(tmp_path)
    record = segment.read_bytes()[36:]
    with opened(tmp_path / "other") as log:
        log.append([Entry(bytes(32), record)])
    other = segments(tmp_path / "other")[0]
    other.write_bytes(other.read_bytes()[:-10])
    with opened(tmp_path / "other") as log:
        assert log.size == 0


def test_a_flipped_byte_in_an_earlier_segment_and_a_missing_one_are_damage(tmp_path: Path) -> None:
    with opened(tmp_path, segment_bytes=300) as log:
        for number in range(9):
            log.append([entry(number)])
    first, second = segments(tmp_path)[:2]
    flip(first, first.stat().st_size - 1)
    with pytest.raises(Corrupt, match="of the log is damaged and later ones are not"):
        opened(tmp_path)
    flip(first, first.stat().st_size - 1)
    second.unlink()
    with pytest.raises(Corrupt, match="the segment of the log that begins with leaf 3 is missing"):
        opened(tmp_path)


def test_a_segment_without_its_header_is_damage(tmp_path: Path) -> None:
    flip(filled(tmp_path), 20)
    with pytest.raises(Corrupt, match="a segment of the log has no valid header"):
        opened(tmp_path)


def test_a_log_smaller_than_its_signed_checkpoint_does_not_open(tmp_path: Path) -> None:
    segment = filled(tmp_path)
    with opened(tmp_path) as log:
        log.publish()
    segment.write_bytes(segment.read_bytes()[:-1])
    with pytest.raises(Corrupt, match="a checkpoint of 6 leaves was signed and the disk holds 5; restore the log"):
        opened(tmp_path)


def test_a_log_with_another_past_than_it_signed_does_not_open(tmp_path: Path) -> None:
    filled(tmp_path)
    with opened(tmp_path) as log:
        rewritten = sign_checkpoint(Checkpoint(ORIGIN, 4, log.root(3)), KEY)
    (tmp_path / "public" / "checkpoint").write_bytes(rewritten.note)
    with pytest.raises(Corrupt, match="the first 4 leaves are not those that were signed"):
        opened(tmp_path)


def test_a_checkpoint_of_another_origin_or_key_or_of_no_sense_is_refused(tmp_path: Path) -> None:
    filled(tmp_path)
    with pytest.raises(Corrupt, match=r"not one of log elsewhere\.example/log by its key") as refused:
        LogFiles.open(tmp_path, "elsewhere.example/log", KEY)
    assert isinstance(refused.value.__cause__, BadSignature)
    with pytest.raises(Corrupt, match="by its key"):
        LogFiles.open(tmp_path, ORIGIN, Ed25519PrivateKey.from_private_bytes(bytes(32)))
    (tmp_path / "public" / "checkpoint").write_bytes(b"")
    with pytest.raises(Corrupt, match="by its key"):
        opened(tmp_path)


def test_a_forgetting_that_a_crash_interrupted_is_finished_at_the_next_opening(tmp_path: Path) -> None:
    segment = filled(tmp_path)
    content = bytearray(segment.read_bytes())
    at = place_of(segment, 2)
    content[at - 37 : at + 5] = b"\xff" * 42  # crc, kind, salt and the first bytes of the statement
    segment.write_bytes(content)
    (tmp_path / "forgetting").write_bytes(b"2\n")
    with opened(tmp_path) as log:
        assert log.entry(2).is_forgotten
        assert log.entry(3).statement == entry(3).statement
    assert entry(2).statement[5:] not in every_byte(tmp_path)
    assert not (tmp_path / "forgetting").exists()


@pytest.mark.parametrize(("note", "message"), [(b"two\n", "is damaged"), (b"6\n", "leaf 6 was being forgotten")])
def test_a_senseless_note_of_forgetting_is_refused(tmp_path: Path, note: bytes, message: str) -> None:
    filled(tmp_path)
    (tmp_path / "forgetting").write_bytes(note)
    with pytest.raises(Corrupt, match=message):
        opened(tmp_path)


def test_a_record_damaged_while_the_log_is_open_is_found_when_it_is_read(tmp_path: Path) -> None:
    segment = filled(tmp_path)
    with opened(tmp_path) as log:
        flip(segment, place_of(segment, 1))
        with pytest.raises(Corrupt, match="leaf 1 of the log does not read back as it was written"):
            log.entry(1)
        assert log.entry(0).statement == entry(0).statement


def test_a_statement_exchanged_on_disk_together_with_its_checksum_is_found_when_it_is_read(tmp_path: Path) -> None:
    segment = filled(tmp_path)
    content = bytearray(segment.read_bytes())
    at = place_of(segment, 1)
    body = slice(at - 33, at + len(entry(1).statement))  # kind, salt, statement; the checksum lies before them
    content[at : body.stop] = entry(5).statement
    content[body.start - 4 : body.start] = crc32(content[body]).to_bytes(4, "big")
    segment.write_bytes(content)
    with opened(tmp_path) as log:
        with pytest.raises(Corrupt, match="leaf 1 of the log holds another statement than was recorded"):
            log.entry(1)


def test_a_leaf_read_in_the_middle_of_a_write_is_read_again_after_it(tmp_path: Path) -> None:
    segment = filled(tmp_path)
    at = place_of(segment, 1)
    with opened(tmp_path) as log, ThreadPoolExecutor(1) as reader:
        with log._writing:
            flip(segment, at)
            reading = reader.submit(log.entry, 1)
            with pytest.raises(TimeoutError):  # it waits for the writer instead of crying damage
                reading.result(timeout=0.05)
            flip(segment, at)
        assert reading.result().statement == entry(1).statement


def test_a_full_disk_refuses_the_group_whole_and_the_log_goes_on_when_there_is_room(tmp_path: Path) -> None:
    process = child(APPENDS_UNTIL_FULL, tmp_path)
    output = process.communicate()[0]
    assert process.returncode == 0
    assert output == "no room left to append to the log; free some disk space, then retry\n"
    with opened(tmp_path) as log:
        assert [log.entry(index).statement for index in range(log.size)] == [one.statement for one in entries(0, 3)]


def test_a_disk_that_fails_stops_the_log_until_it_is_reopened(tmp_path: Path) -> None:
    log = opened(tmp_path)
    log.append([entry(0)])
    segment = log._segments[-1]
    healthy, (reading, writing) = segment._fd, os.pipe()
    try:
        segment._fd = writing  # a pipe takes no write at an offset and cannot be cut back: a broken disk
        with pytest.raises(Corrupt, match="the disk failed to append to the log"):
            log.append([entry(1)])
        segment._fd = healthy
        with pytest.raises(Corrupt, match="the log stopped after a disk error; check the disk, then restart"):
            log.append([entry(1)])
        assert log.size == 1
    finally:
        os.close(reading)
        os.close(writing)
    log.close()
    with opened(tmp_path) as log:
        assert log.append([entry(1)]) == [1]
