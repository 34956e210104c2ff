"""A planted sentence is found in every form that it could travel in, and nowhere where it is not."""

from __future__ import annotations

import base64
import gzip
import json
import os
import urllib.parse
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from examples.demo import canary

MARK = "canary0123456789abcdef0123"
SENTENCE = canary.sentence(MARK, "FR").encode()

FORMS: dict[str, Callable[[bytes], bytes]] = {
    "raw": lambda text: text,
    "hex": lambda text: text.hex().encode(),
    "hex in capitals": lambda text: text.hex().upper().encode(),
    "base64": base64.b64encode,
    "base64 one later": lambda text: base64.b64encode(b"x" + text),
    "base64 two later": lambda text: base64.b64encode(b"xy" + text),
    "base64 for URLs": lambda text: base64.urlsafe_b64encode(text),
    "JSON-escaped": lambda text: json.dumps({"note": text.decode()}).encode(),
    "JSON-escaped whole": lambda text: "".join(f"\\u{ord(c):04x}" for c in text.decode()).encode(),
    "URL-escaped": lambda text: urllib.parse.quote(text).encode(),
    "URL-escaped whole": lambda text: "".join(f"%{byte:02X}" for byte in text).encode(),
    "gzip": gzip.compress,
    "gzip in gzip": lambda text: gzip.compress(gzip.compress(text)),
    "gzip of base64": lambda text: gzip.compress(base64.b64encode(text)),
    "zlib": zlib.compress,
    "UTF-16": lambda text: text.decode().encode("utf-16-le"),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_canary_is_seen_in_each_form_within_other_bytes(tmp_path: Path, form: str) -> None:
    (tmp_path / "below").mkdir()
    hidden = tmp_path / "below" / "file"
    hidden.write_bytes(os.urandom(1001) + FORMS[form](SENTENCE) + os.urandom(1000))
    sightings, size = canary.search([tmp_path], MARK)
    assert {sighting.path for sighting in sightings} == {hidden}
    assert size == hidden.stat().st_size


def test_a_gzip_member_that_is_cut_off_is_still_looked_into(tmp_path: Path) -> None:
    packed = gzip.compress(SENTENCE * 3 + os.urandom(100_000))
    (tmp_path / "file").write_bytes(packed[: len(packed) // 2])
    sightings, _ = canary.search([tmp_path], MARK)
    assert "gzip, raw" in {sighting.form for sighting in sightings}


def test_nothing_is_seen_where_there_is_another_mark(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(
        gzip.compress(canary.sentence(canary.new_mark(), "FR").encode()) + os.urandom(2**20)
    )
    assert canary.search([tmp_path, tmp_path / "absent"], MARK) == ([], (tmp_path / "file").stat().st_size)


def test_planting_puts_the_canary_first_and_keeps_every_pair(tmp_path: Path) -> None:
    source, target = tmp_path / "source.jsonl", tmp_path / "data" / "FR.jsonl"
    source.write_text('{"source": "Hello", "target": "Bonjour"}\n', encoding="utf-8")
    assert canary.plant(source, target, MARK, "FR") == 2
    first, second = target.read_text(encoding="utf-8").splitlines()
    assert json.loads(first)["source"] == SENTENCE.decode()
    assert json.loads(second) == {"source": "Hello", "target": "Bonjour"}
    assert canary.search([target], MARK)[0] != []
