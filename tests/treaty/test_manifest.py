"""A manifest is its canonical bytes, follows from the files alone and cannot contradict itself."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.treaty.model_folder import description, model_folder, safetensors
from treaty.chunking import CHUNK_BYTES
from treaty.errors import InvalidInput, LimitExceeded, RollbackRefused
from treaty.label import Classification, derived_label, label
from treaty.manifest import Manifest, check_newer, parse_manifest
from treaty.manifest_build import build, chunks_of
from treaty.model_files import check_paths
from treaty.names import PartyCode, digest_of
from treaty.strict_json import canonical

DIGEST = "sha256:" + "0" * 64


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    weights = safetensors({"a": ("F32", [4], bytes(16)), "b": ("U8", [3], b"abc")})
    return build(model_folder(tmp_path / "model", weights), description())


def changed(manifest: Manifest, **members: object) -> bytes:
    return canonical({**json.loads(manifest.encoded), **members})  # type: ignore[dict-item]


def changed_file(manifest: Manifest, index: int, **members: object) -> bytes:
    files = json.loads(manifest.encoded)["files"]
    files[index].update(members)
    return changed(manifest, files=files)


def test_a_manifest_comes_back_from_its_bytes_with_the_same_digest(manifest: Manifest) -> None:
    again = parse_manifest(manifest.encoded)
    assert again == manifest
    assert again.digest == manifest.digest == digest_of(manifest.encoded)
    assert again.ref == "tiny-llama@1.0.0"
    assert [file.path for file in again.files] == ["config.json", "model.safetensors", "tokenizer.json"]


def test_its_chunks_are_the_bytes_of_the_folder(manifest: Manifest, tmp_path: Path) -> None:
    chunks = dict(chunks_of(tmp_path / "model", manifest))
    assert {chunk: len(data) for chunk, data in chunks.items()} == manifest.chunk_bytes
    for file in manifest.files:
        assert b"".join(chunks[chunk] for chunk in file.chunks) == (tmp_path / "model" / file.path).read_bytes()


def test_a_file_that_changes_between_building_and_sending_is_refused(manifest: Manifest, tmp_path: Path) -> None:
    (tmp_path / "model" / "tokenizer.json").write_text("[]")
    with pytest.raises(InvalidInput, match=r"'tokenizer\.json' changed since its manifest was built"):
        dict(chunks_of(tmp_path / "model", manifest))


def test_versions_that_differ_in_one_tensor_share_the_chunks_of_the_others(tmp_path: Path) -> None:
    big = os.urandom(2 * CHUNK_BYTES + 4)
    first = {"small": ("U8", [3], b"abc"), "big": ("U8", [len(big)], big)}
    second = {"small": ("U8", [5], b"other"), "big": ("U8", [len(big)], big)}
    one = build(model_folder(tmp_path / "1", safetensors(first)), description("1.0.0"))
    two = build(model_folder(tmp_path / "2", safetensors(second, pad=9)), description("1.1.0"))
    assert one.files[1].digest != two.files[1].digest
    assert one.files[1].chunks[-3:] == two.files[1].chunks[-3:]
    assert [piece.bytes for piece in one.files[1].pieces()][-3:] == [CHUNK_BYTES, CHUNK_BYTES, 4]


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"format": "foedus.dev/manifest/v2"}, "not of format"),
        ({"name": "Tiny Llama"}, "not a resource name"),
        ({"version": "1.0"}, "not a version"),
        ({"base": DIGEST}, "base is not among the parents"),
        ({"licence": "Apache 2.0; rm"}, "not an SPDX identifier"),
        ({"label": {"classification": "cosmic", "rel_to": []}}, "not one of public"),
        ({"label": {"classification": "public", "rel_to": ["FR", "DE"]}}, "not sorted"),
        ({"totals": {"bytes": 1, "chunks": 1, "files": 1}}, "totals do not agree"),
        ({"files": []}, "no files"),
        ({"surprise": 1}, "unknown field: 'surprise'"),
        ({"evaluations": [{"name": "perplexity", "value_micro": 1, "examples": 0}]}, "'examples' is not between"),
        ({"evaluations": [{"name": "perplexity", "value_micro": True, "examples": 1}]}, "not an integer"),
        ({"lineage": {"parents": [DIGEST, DIGEST], "run": None, "datasets": []}}, "named twice"),
    ],
)
def test_a_manifest_that_says_something_else_is_refused(
    manifest: Manifest, members: dict[str, object], message: str
) -> None:
    with pytest.raises(InvalidInput, match=message):
        parse_manifest(changed(manifest, **members))


@pytest.mark.parametrize(
    ("index", "members", "message"),
    [
        (0, {"path": "../config.json"}, "not a path"),
        (0, {"path": "/config.json"}, "not a path"),
        (0, {"path": "a//config.json"}, "not a path"),
        (0, {"path": ".hidden.json"}, "not a path"),
        (0, {"path": "modeling.py"}, "not a kind of file"),
        (0, {"path": "pytorch_model.bin"}, "not a kind of file"),
        (0, {"path": "Tokenizer.json"}, "differ in case only|totals"),
        (0, {"bytes": 2**53 - 1}, "number of chunks that its size does not have"),
        (0, {"bytes": CHUNK_BYTES + 1}, "number of chunks"),
        (0, {"digest": "md5:00"}, "not a digest"),
        (1, {"header_bytes": 8}, "impossible header length"),
        (1, {"tensors": []}, "do not add up"),
        (1, {"tensors": [{"name": "a", "dtype": "F32", "shape": [2**52, 2**52]}]}, "absurd shape"),
    ],
)
def test_a_file_that_contradicts_itself_is_refused(
    manifest: Manifest, index: int, members: dict[str, object], message: str
) -> None:
    with pytest.raises(InvalidInput, match=message):
        parse_manifest(changed_file(manifest, index, **members))


def test_one_digest_cannot_have_two_sizes(manifest: Manifest) -> None:
    shared = manifest.files[0].digest
    with pytest.raises(InvalidInput, match="one digest two sizes"):
        parse_manifest(changed_file(manifest, 2, digest=shared, chunks=[shared]))


def test_other_bytes_for_the_same_value_are_refused(manifest: Manifest) -> None:
    with pytest.raises(InvalidInput, match="not in canonical form"):
        parse_manifest(manifest.encoded + b" ")
    with pytest.raises(LimitExceeded, match="more than"):
        parse_manifest(b" " * (5 * 2**20 + 1))


def test_paths_cannot_collide_on_any_file_system() -> None:
    with pytest.raises(InvalidInput, match="differ in case only"):
        check_paths(["A.json", "a.json"])
    with pytest.raises(InvalidInput, match="also a folder"):
        check_paths(["a.json", "a.json/b.json"])


def test_a_link_and_a_configuration_that_names_code_are_not_published(tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "m", safetensors({"a": ("U8", [1], b"x")}))
    (folder / "config.json").write_text('{"auto_map": {"AutoModel": "modeling.Evil"}}')
    with pytest.raises(InvalidInput, match="names code to import"):
        build(folder, description())
    (folder / "config.json").unlink()
    (folder / "config.json").symlink_to("/etc/hostname")
    with pytest.raises(InvalidInput, match="not a regular file"):
        build(folder, description())


@pytest.mark.parametrize(("older", "newer"), [("1.9.0", "1.10.0"), ("1.0.0-rc.1", "1.0.0"), ("1.0.0-2", "1.0.0-10")])
def test_versions_only_grow(older: str, newer: str) -> None:
    check_newer(older, newer)
    with pytest.raises(RollbackRefused, match=f"version {older} is not newer than {newer}"):
        check_newer(newer, older)
    with pytest.raises(RollbackRefused, match="not newer"):
        check_newer(older, older)


def test_what_is_made_from_labelled_things_is_at_least_as_strict_as_each() -> None:
    base = label(Classification.PUBLIC, ["FR", "DE", "EU"])
    data = label(Classification.CONFIDENTIAL, ["FR", "IT"])
    made = derived_label([base], [data])
    assert made == label(Classification.CONFIDENTIAL, ["FR"])
    assert made.is_at_least(base)
    assert made.is_at_least(data)
    assert not base.is_at_least(made)
    with pytest.raises(InvalidInput, match="at least one parent or dataset"):
        derived_label([], [])


def test_a_label_releases_to_those_it_names_and_to_members_of_bodies_it_names() -> None:
    for_the_union = label(Classification.RESTRICTED, ["EU"])
    members = {PartyCode("EU"): {PartyCode("FR")}}
    assert for_the_union.is_releasable_to(PartyCode("FR"), members)
    assert not for_the_union.is_releasable_to(PartyCode("FR"))
    assert not for_the_union.is_releasable_to(PartyCode("JP"), members)
