"""The founders' ceremony, offline and real: keys, descriptors, a charter signed two of three, and its successor."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import MappingProxyType

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.controlplane.cli.conftest import Foedus
from treaty import statement
from treaty.charter import Coordinator, Role, parse_charter
from treaty.delegation import coordinator_descriptor, nation_descriptor
from treaty.keys import new_signing_key
from treaty.names import PartyCode
from treaty.wire.certificates import new_ca

DOMAIN = "treaty.example"


@pytest.fixture
def folder(tmp_path: Path, foedus: Foedus) -> Path:
    """Keys f1 f2 f3 p1 t1 and descriptors of the coordinator, FR, DE and IT."""
    now = datetime.now(UTC)
    for name in ("f1", "f2", "f3", "p1", "t1"):
        assert foedus("key", "new", name, "--out", tmp_path).code == 0
    log_key = new_signing_key()
    ca = new_ca("coordinator", DOMAIN, now).certificate_pem().decode()
    hub = Coordinator(PartyCode("EU"), PartyCode("BE"), ca, ("localhost",), Role((log_key.verification,), 1))
    (tmp_path / "hub.json").write_bytes(coordinator_descriptor(hub, log_key))
    for code in ("fr", "de", "it"):
        nation_ca = new_ca(code, DOMAIN, now).certificate_pem().decode()
        descriptor = nation_descriptor(PartyCode(code.upper()), [new_signing_key()], 1, nation_ca)
        (tmp_path / f"{code}.json").write_bytes(descriptor)
    return tmp_path


def draft(foedus: Foedus, folder: Path, *more: object) -> Path:
    out = folder / "charter.json"
    founders = [word for name in ("f1", "f2", "f3") for word in ("--founder", folder / f"{name}.pub")]
    said = foedus(
        *("charter", "init", "--treaty", "demo", "--domain", DOMAIN, *founders, "--threshold", 2),
        *("--publisher", folder / "p1.pub", "--treaty-policy", folder / "t1.pub"),
        *("--coordinator", folder / "hub.json", "--nation", folder / "fr.json", "--body", "EU:BE:FR,DE", "-o", out),
        *more,
    )
    assert said.code == 0, said.err
    return out


def sign(foedus: Foedus, folder: Path, file: Path, *names: str) -> None:
    for name in names:
        assert foedus("charter", "sign", file, "--key", folder / f"{name}.key").code == 0


def test_a_charter_holds_once_enough_founders_signed_it(foedus: Foedus, folder: Path) -> None:
    file = draft(foedus, folder)
    assert foedus("charter", "add-nation", file, folder / "de.json").out == "2 nations: DE, FR\n"
    refused = foedus("charter", "verify", file)
    assert refused.code == 4
    assert refused.err.startswith(
        "error: 0 of the 2 founders that the charter needs have signed it\n  foedus charter sign"
    )
    sign(foedus, folder, file, "f1")
    assert foedus("charter", "verify", file).code == 4
    said = foedus("charter", "sign", file, "--key", folder / "f3.key")
    assert said.out == "charter version 1: 2 of 2 founders have signed\n"
    digest = foedus("charter", "digest", file).out.strip()
    assert foedus("charter", "verify", file, "--pin", digest).out == f"charter demo version 1 holds: {digest}\n"


def test_each_step_of_the_ceremony_answers_in_json_where_it_is_asked(foedus: Foedus, folder: Path) -> None:
    file = draft(foedus, folder)

    def told(*arguments: object) -> dict[str, object]:
        return dict(json.loads(foedus("charter", *arguments, "-o", "json").out))

    assert told("add-nation", file, folder / "de.json")["nations"] == ["DE", "FR"]
    sign(foedus, folder, file, "f1")
    signed = told("sign", file, "--key", folder / "f2.key")
    digest = foedus("charter", "digest", file).out.strip()
    assert signed == {"version": 1, "digest": digest, "signed": 2, "needed": 2}
    assert told("verify", file) == {"treaty": "demo", "version": 1, "digest": digest}
    assert told("digest", file) == {"version": 1, "digest": digest}


def test_a_strangers_signature_does_not_count(foedus: Foedus, folder: Path) -> None:
    file = draft(foedus, folder)
    sign(foedus, folder, file, "f1", "p1")
    assert foedus("charter", "verify", file).err.startswith("error: 1 of the 2 founders")


def test_a_stranger_who_signs_is_told_so(foedus: Foedus, folder: Path) -> None:
    file = draft(foedus, folder)
    said = foedus("charter", "sign", file, "--key", folder / "p1.key")
    assert "is no founder's of this version; it counts only if the one before names it" in said.err


def test_another_digest_than_the_pinned_one_is_refused(foedus: Foedus, folder: Path) -> None:
    file = draft(foedus, folder)
    sign(foedus, folder, file, "f1", "f2")
    said = foedus("charter", "verify", file, "--pin", "sha256:" + "0" * 64)
    assert said.code == 4
    assert "not the pinned sha256:0000" in said.err


def test_the_next_version_needs_the_old_and_the_new_founders(foedus: Foedus, folder: Path) -> None:
    file, following = draft(foedus, folder), folder / "charter-2.json"
    sign(foedus, folder, file, "f1", "f2")
    assert foedus("charter", "next", file, "-o", following, "--nation", folder / "it.json").code == 0
    sign(foedus, folder, following, "f2", "f3")
    assert "version 2 holds" in foedus("charter", "verify", following, "--follows", file).out
    skipping = folder / "charter-3.json"
    assert foedus("charter", "next", following, "-o", skipping).code == 0
    sign(foedus, folder, skipping, "f1", "f2")
    refused = foedus("charter", "verify", skipping, "--follows", file)
    assert refused.code == 4
    assert "charter version 3 does not follow 1" in refused.err


def test_a_signed_charter_is_not_changed_any_more(foedus: Foedus, folder: Path) -> None:
    file = draft(foedus, folder)
    sign(foedus, folder, file, "f1")
    before = file.read_bytes()
    said = foedus("charter", "add-nation", file, folder / "de.json")
    assert said.code == 7
    assert "is signed already" in said.err
    assert file.read_bytes() == before


def test_a_draft_is_not_overwritten_without_force(foedus: Foedus, folder: Path) -> None:
    file = draft(foedus, folder)
    again = foedus("charter", "next", file, "-o", file)
    assert again.code == 7
    assert "exists already" in again.err


def test_what_is_shown_is_the_charter_itself(foedus: Foedus, folder: Path) -> None:
    file = draft(foedus, folder)
    shown = foedus("charter", "show", file)
    assert "Founders:      2 of 3; 0 of 2 signed" in shown.out
    assert "Bodies:        EU in BE: FR, DE" in shown.out
    document = json.loads(foedus("charter", "show", file, "-o", "json").out)
    assert document["bodies"]["EU"] == {"host": "BE", "members": ["FR", "DE"]}


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--body", "EU-BE-FR", "is not a body"),
        ("--body", "EU:Belgium:FR", "is not a nation code"),
        ("--nation", "hub.json", "is a coordinator's descriptor"),
        ("--expires-days", "0", "a charter lives 1 to 3650 days"),
        ("--threshold", "4", "cannot have threshold 4"),
    ],
)
def test_a_mistake_in_a_draft_is_told(foedus: Foedus, folder: Path, option: str, value: str, message: str) -> None:
    given = folder / value if value.endswith(".json") else value
    out = folder / "other.json"
    said = foedus(
        *("charter", "init", "--treaty", "demo", "--domain", DOMAIN, "--founder", folder / "f1.pub"),
        *("--publisher", folder / "p1.pub", "--treaty-policy", folder / "t1.pub", "-o", out),
        *("--coordinator", folder / "hub.json", option, given),
    )
    assert said.code == 2
    assert message in said.err
    assert not out.exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ("charter", "digest", "bad.json"),
        ("charter", "sign", "bad.json", "--key", "f1.key"),
        ("charter", "publish", "bad.json"),
        ("charter", "next", "bad.json", "-o", "out.json"),
        ("charter", "add-nation", "bad.json", "fr.json"),
        ("charter", "add-nation", "charter.json", "bad.json"),
        ("policy", "add-signature", "bad.json", "--key", "t1.key"),
        ("policy", "push", "fr.json", "bad.json"),
    ],
)
def test_the_file_that_cannot_be_read_is_named(foedus: Foedus, folder: Path, arguments: tuple[str, ...]) -> None:
    draft(foedus, folder)
    (folder / "bad.json").write_text("{")
    identity = ("--coordinator", "localhost:1", "--cert", folder / "c", "--key", folder / "c", "--ca", folder / "c")
    paths = [folder / word if "." in word else word for word in arguments]
    said = foedus(*identity, *paths)
    assert said.code == 2
    assert said.err.splitlines()[0] == f"error: {folder / 'bad.json'}: not a JSON text: line 1, column 2"


def test_a_pin_is_held_against_the_file_and_names_it(foedus: Foedus, folder: Path) -> None:
    file = draft(foedus, folder)
    sign(foedus, folder, file, "f1", "f2")
    said = foedus("charter", "verify", file, "--pin", "sha256:" + "0" * 64)
    assert said.err.startswith(f"error: {file}: the charter shown is sha256:")
    assert "coordinator" not in said.err


def elsewhere(folder: Path, code: str, domain: str) -> Path:
    """A nation's descriptor, its CA made for `domain`."""
    ca = new_ca(code, domain, datetime.now(UTC)).certificate_pem().decode()
    path = folder / f"{code}-elsewhere.json"
    path.write_bytes(nation_descriptor(PartyCode(code.upper()), [new_signing_key()], 1, ca))
    return path


def test_a_descriptor_of_another_domain_is_refused(foedus: Foedus, folder: Path) -> None:
    file = draft(foedus, folder)
    before = file.read_bytes()
    said = foedus("charter", "add-nation", file, elsewhere(folder, "de", "other.example"))
    assert said.code == 2
    assert said.err.startswith(
        "error: the CA of DE is constrained to de.other.example, and this charter needs de.treaty.example\n"
    )
    assert file.read_bytes() == before


def test_a_nations_descriptor_whose_ca_is_another_nations_is_refused(foedus: Foedus, folder: Path) -> None:
    file = draft(foedus, folder)
    ca = new_ca("kr", DOMAIN, datetime.now(UTC)).certificate_pem().decode()
    (folder / "jp.json").write_bytes(nation_descriptor(PartyCode("JP"), [new_signing_key()], 1, ca))
    said = foedus("charter", "add-nation", file, folder / "jp.json")
    assert said.code == 2
    assert "the CA of JP is constrained to kr.treaty.example" in said.err


def test_a_draft_for_another_domain_than_its_coordinators_is_refused(foedus: Foedus, folder: Path) -> None:
    out = folder / "other.json"
    said = foedus(
        *("charter", "init", "--treaty", "demo", "--domain", "other.example", "--founder", folder / "f1.pub"),
        *("--publisher", folder / "p1.pub", "--treaty-policy", folder / "t1.pub", "-o", out),
        *("--coordinator", folder / "hub.json"),
    )
    assert said.code == 2
    assert (
        "the CA of the coordinator is constrained to coordinator.treaty.example, "
        "and this charter needs coordinator.other.example" in said.err
    )
    assert not out.exists()


def test_a_founder_does_not_sign_a_charter_whose_ca_is_unconstrained(foedus: Foedus, folder: Path) -> None:
    file = draft(foedus, folder)
    charter = parse_charter(statement.unverified(file.read_bytes()).predicate)
    france = charter.nation(PartyCode("FR"))
    loose = replace(france, ca_pem=unconstrained_ca())
    nations = MappingProxyType({PartyCode("FR"): loose})
    file.write_bytes(statement.sign(replace(charter, nations=nations).statement(), []))
    before = file.read_bytes()
    said = foedus("charter", "sign", file, "--key", folder / "f1.key")
    assert said.code == 2
    assert "the CA of FR is constrained to no host, and this charter needs fr.treaty.example" in said.err
    assert file.read_bytes() == before


def unconstrained_ca() -> str:
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "loose")])
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    dated = builder.serial_number(1).not_valid_before(now).not_valid_after(now + timedelta(days=1))
    return dated.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()


def test_a_key_is_never_overwritten_and_a_passphrase_is_needed_again(foedus: Foedus, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("correct horse\n")
    made = foedus("key", "new", "ana", "--out", tmp_path, "--passphrase-file", secret, "-o", "json")
    key_id = json.loads(made.out)["keyId"]
    assert foedus("key", "new", "ana", "--out", tmp_path).code == 7
    assert foedus("key", "show", tmp_path / "ana.key").code == 2
    shown = foedus("key", "show", tmp_path / "ana.key", "--passphrase-file", secret, "-o", "name")
    assert shown.out.strip() == key_id
    assert (tmp_path / "ana.key").stat().st_mode & 0o777 == 0o600
