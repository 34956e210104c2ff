"""Bundles from a hostile or a late author: each is refused with its reason."""

from __future__ import annotations

import gzip
import io
import tarfile
from collections.abc import Callable
from datetime import timedelta

import pytest

import policies
from tests.policy.conftest import KEY, NOW, believed
from treaty.errors import BadSignature, Expired, FoedusError, InvalidInput, LimitExceeded, RollbackRefused, TrustError
from treaty.keys import new_signing_key
from treaty.names import digest_of
from treaty.policy import archive, bundle, exact_json
from treaty.policy.bundle import Accepted
from treaty.strict_json import JsonObject

FRENCH = policies.compiled("fr")
OTHER = new_signing_key()


def envelope(packed: bytes = FRENCH) -> bytes:
    return bundle.sign(packed, [KEY], not_before=NOW, not_after=NOW + timedelta(days=90))


def repacked(change: Callable[[dict[str, bytes]], None], name: str = "fr") -> bytes:
    files = archive.unpack(policies.compiled(name))
    change(files)
    return archive.pack(files)


def with_data(change: Callable[[JsonObject], None], name: str = "fr") -> bytes:
    def edit(files: dict[str, bytes]) -> None:
        data = exact_json.parse_object(files[archive.DATA], max_bytes=1 << 20)
        change(data)
        files[archive.DATA] = exact_json.dump(data)

    return repacked(edit, name)


def test_a_signed_bundle_is_believed() -> None:
    verified = believed(FRENCH, "fr")
    assert verified.bundle.authority == "nation.FR"
    assert verified.accepted == Accepted(1, digest_of(FRENCH))
    assert believed(FRENCH, "fr", last=verified.accepted).bundle.revision == 1


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"threshold": 2, "keys": [KEY.verification, OTHER.verification]}, BadSignature, "1 valid signatures of the 2"),
        ({"keys": [OTHER.verification]}, BadSignature, "0 valid signatures of the 1"),
        ({"authority": "nation.DE"}, TrustError, r"is not the one of nation\.DE"),
        ({"authority": "treaty"}, TrustError, "is not the one of treaty"),
        ({"last": Accepted(2, digest_of(FRENCH))}, RollbackRefused, "has revision 1, but 2 is in force"),
        ({"last": Accepted(1, digest_of(b"another"))}, RollbackRefused, "another bundle of revision 1 is in force"),
        ({"now": NOW + timedelta(days=90)}, Expired, r"valid from 2025-11-24T16:00:00Z to 2026-02-22T16:00:00Z"),
        ({"now": NOW - timedelta(seconds=1)}, Expired, "valid from"),
        ({"packed": policies.compiled("de")}, TrustError, "about another bundle"),
    ],
)
def test_a_bundle_is_refused_for_what_its_signed_statement_says(
    changed: dict[str, object], error: type[FoedusError], message: str
) -> None:
    arguments = {
        "packed": FRENCH,
        "envelope": envelope(),
        "authority": "nation.FR",
        "keys": [KEY.verification],
        "threshold": 1,
        "last": None,
        "now": NOW,
    } | changed
    with pytest.raises(error, match=message):
        bundle.verify(**arguments)  # type: ignore[arg-type]


def test_an_expired_bundle_is_taken_up_again_after_a_restart() -> None:
    verified = bundle.verify(
        FRENCH,
        envelope(),
        authority="nation.FR",
        keys=[KEY.verification],
        threshold=1,
        last=Accepted(1, digest_of(FRENCH)),
        now=NOW + timedelta(days=365),
        is_restart=True,
    )
    assert verified.not_after == NOW + timedelta(days=90)


def test_one_flipped_byte_is_another_bundle() -> None:
    flipped = bytearray(FRENCH)
    flipped[len(flipped) // 2] ^= 1
    with pytest.raises(TrustError, match="about another bundle"):
        bundle.verify(
            bytes(flipped),
            envelope(),
            authority="nation.FR",
            keys=[KEY.verification],
            threshold=1,
            last=None,
            now=NOW,
        )


def outside(data: JsonObject) -> None:
    data["elsewhere"] = {"registers": {}}


def of_the_treaty(data: JsonObject) -> None:
    data["foedus"]["treaty"] = {"registers": {}}  # type: ignore[index, call-overload]


def with_registers(data: JsonObject) -> None:
    data["foedus"]["overlay"]["registers"] = {"purposes": {}}  # type: ignore[index, call-overload]


def of_germany(data: JsonObject) -> None:
    data["foedus"]["overlay"]["nation"] = "DE"  # type: ignore[index, call-overload]


def with_another_revision(data: JsonObject) -> None:
    data["foedus"]["overlay"]["revision"] = 9  # type: ignore[index, call-overload]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (outside, "reach beyond foedus/overlay"),
        (of_the_treaty, "reach beyond foedus/overlay"),
        (with_registers, "an overlay sets no registers"),
        (of_germany, "names its own nation"),
        (with_another_revision, "another revision than its manifest"),
    ],
)
def test_a_bundle_speaks_of_its_own_part_only(change: Callable[[JsonObject], None], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        bundle.read_bundle(with_data(change))


@pytest.mark.parametrize(
    "source",
    [
        b"package foedus.treaty.checks.model.signed\n",
        b"package foedus.overlays\n",
        b"package  foedus.treaty\nx := `\npackage foedus.overlay\n`\n",
        b"# package foedus.overlay\npackage data\n",
        b"",
    ],
)
def test_a_module_of_another_package_is_refused(source: bytes) -> None:
    with pytest.raises(InvalidInput, match=r"evil\.rego is not in the package foedus\.overlay"):
        bundle.read_bundle(repacked(lambda files: files.update({"evil.rego": source})))


def member(name: str, **fields: object) -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    for field, value in fields.items():
        setattr(made, field, value)
    return made


@pytest.mark.parametrize(
    ("hostile", "message"),
    [
        (member("../escape.rego"), "a file that has no place in it"),
        (member("/etc/passwd"), "a file that has no place in it"),
        (member("a.rego", type=tarfile.SYMTYPE, linkname="/etc/passwd"), "not a plain file"),
        (member("a.rego", type=tarfile.LNKTYPE, linkname="main.rego"), "not a plain file"),
        (member("a.rego", type=tarfile.CHRTYPE), "not a plain file"),
        (member("a.rego", type=tarfile.FIFOTYPE), "not a plain file"),
        (member("a.rego", type=tarfile.DIRTYPE), "not a plain file"),
        (member("main.rego"), r"holds main\.rego twice"),
        (member("a.sh"), "a file that has no place in it"),
        (member("x/" * 9 + "a.rego"), "a file that has no place in it"),
    ],
)
def test_a_hostile_archive_is_refused(hostile: tarfile.TarInfo, message: str) -> None:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w") as made:
        for name, content in archive.unpack(FRENCH).items():
            made.addfile(member(name, size=len(content)), io.BytesIO(content))
        made.addfile(hostile)
    with pytest.raises(InvalidInput, match=message):
        archive.unpack(gzip.compress(target.getvalue()))


def test_sizes_are_bounded_before_anything_is_used() -> None:
    with pytest.raises(LimitExceeded, match="more than 8388608"):
        archive.unpack(bytes(archive.MAX_PACKED_BYTES + 1))
    with pytest.raises(LimitExceeded, match="unpacks to more than 33554432 bytes"):
        archive.unpack(gzip.compress(bytes(archive.MAX_UNPACKED_BYTES + 1)))
    many = {f"r{number}.rego": b"" for number in range(archive.MAX_FILES + 1)}
    with pytest.raises(LimitExceeded, match="more than 500 files"):
        archive.unpack(gzip.compress(archive.tar(many)))
    claim = archive.tar({"a.rego": b"x"}).replace(b"00000000001\x00", b"77777777777\x00", 1)
    with pytest.raises(InvalidInput):
        archive.unpack(gzip.compress(claim))


@pytest.mark.parametrize("cut", [0, 10, 100, 40_000])
def test_a_cut_archive_is_refused(cut: int) -> None:
    with pytest.raises(InvalidInput):
        archive.unpack(FRENCH[:cut])


def test_nothing_may_follow_the_archive() -> None:
    with pytest.raises(InvalidInput, match="something follows it"):
        archive.unpack(FRENCH + b"\0")


@pytest.mark.parametrize("name", sorted(archive.FIXED_FILES))
def test_each_part_of_a_bundle_is_needed(name: str) -> None:
    with pytest.raises(InvalidInput, match=f"the bundle lacks {name}"):
        bundle.read_bundle(repacked(lambda files: files.__delitem__(name)))


def test_data_nested_too_deep_is_refused() -> None:
    deep = b'{"foedus":' * 5000 + b"1" + b"}" * 5000
    with pytest.raises(LimitExceeded, match="nested deeper"):
        bundle.read_bundle(repacked(lambda files: files.update({archive.DATA: deep})))
