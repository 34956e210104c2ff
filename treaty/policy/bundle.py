"""A policy bundle as something signed: by its own authority, with a revision that never goes back and an end.

OPA's own bundle signatures have neither, so the archive's digest is the subject of a statement of ours. `verify`
believes a bundle when
1. the envelope is signed by the threshold of the keys that may speak for the authority (the charter's treaty-policy
   role, or a nation's persons with the power to sign overlays: the caller resolves them);
2. the statement is about exactly these bytes and this authority;
3. the revision is not below the last one accepted, and at the same revision it is the same bundle;
4. `now` lies within its validity (an expired one may be taken up again after a restart, to go on serving only);
5. the archive unpacks within its bounds, and is what the statement says of it: revision, compiled policy, sources;
6. it keeps to its own part of the policy tree.

Running its vectors is not done here: see `treaty.policy.decider`. No clock and no I/O: `now` is an argument.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from treaty import statement
from treaty.errors import Expired, InvalidInput, RollbackRefused, TrustError
from treaty.fields import Fields, timestamp_text
from treaty.keys import SigningKey, VerificationKey
from treaty.names import Digest, digest_of, nation_code
from treaty.policy import archive, exact_json
from treaty.policy.engine import TREATY, Program
from treaty.policy.registers import check_treaty
from treaty.policy.vectors import VectorTable, parse_table
from treaty.statement import Statement, StatementKind
from treaty.strict_json import MAX_INTEGER, JsonObject, canonical

MAX_DATA_BYTES = 4 * 1024 * 1024
MAX_VECTORS_BYTES = 8 * 1024 * 1024
_PACKAGE = re.compile(r"package ([a-z][a-z0-9_]*(?:\.[a-z][a-z0-9_]*)*)", re.ASCII)


@dataclass(frozen=True, slots=True)
class Accepted:
    """What was last put in force for an authority; journaled by whoever verifies."""

    revision: int
    digest: Digest


@dataclass(frozen=True, slots=True)
class Bundle:
    """A bundle's content. `digest` is that of its bytes."""

    digest: Digest
    program: Program
    vectors: VectorTable

    @property
    def authority(self) -> str:
        return self.program.authority

    @property
    def revision(self) -> int:
        return self.program.revision


@dataclass(frozen=True, slots=True)
class VerifiedBundle:
    """A bundle that its authority signed, and for how long. `statement_digest` names the signed word in the record."""

    bundle: Bundle
    not_before: datetime
    not_after: datetime
    statement_digest: Digest

    @property
    def accepted(self) -> Accepted:
        return Accepted(self.bundle.revision, self.bundle.digest)


def authority_of_nation(nation: str) -> str:
    return f"nation.{nation_code(nation)}"


def read_bundle(packed: bytes) -> Bundle:
    """Read what a bundle says. Nothing is believed: an author's tools and `verify` use it.

    Raises: InvalidInput, LimitExceeded: as `treaty.policy.archive`, or what is inside is not of the declared shape.
    """
    files = archive.unpack(packed)
    manifest = Fields(exact_json.parse_object(files[archive.MANIFEST], max_bytes=64 * 1024), "manifest")
    revision_text = manifest.text("revision", 16)
    if not re.fullmatch(r"[1-9]\d{0,14}", revision_text, re.ASCII):
        raise InvalidInput("the bundle's revision is not a number of at least 1")
    roots = manifest.texts("roots", max_items=1, min_items=1, max_chars=64)
    manifest.integer("rego_version", 1, 1)
    authority = manifest.mapping("metadata")
    program = Program(
        authority=_authority(authority.text("authority", 16)),
        revision=int(revision_text),
        modules=_modules(files),
        wasm=files[archive.WASM],
        data=exact_json.parse_object(files[archive.DATA], max_bytes=MAX_DATA_BYTES),
    )
    authority.done()
    manifest.done()
    _check_roots(program, roots[0])
    table = exact_json.parse_object(files[archive.VECTORS], max_bytes=MAX_VECTORS_BYTES)
    return Bundle(digest_of(packed), program, parse_table(table))


def sign(packed: bytes, keys: Sequence[SigningKey], *, not_before: datetime, not_after: datetime) -> bytes:
    """The envelope for a bundle, signed by `keys`. More are added by `treaty.statement.add_signature`."""
    bundle = read_bundle(packed)
    predicate: JsonObject = {
        "authority": bundle.authority,
        "revision": bundle.revision,
        "not_before": timestamp_text(not_before),
        "not_after": timestamp_text(not_after),
        "wasm_digest": digest_of(bundle.program.wasm),
        "rego_digest": rego_digest(bundle.program.modules),
    }
    return statement.sign(Statement(StatementKind.POLICY_BUNDLE, bundle.authority, bundle.digest, predicate), keys)


def verify(
    packed: bytes,
    envelope: bytes,
    *,
    authority: str,
    keys: Iterable[VerificationKey],
    threshold: int,
    last: Accepted | None,
    now: datetime,
    is_restart: bool = False,
) -> VerifiedBundle:
    """Believe a bundle by the rules in the module's docstring. `is_restart`: it was accepted before, on this very disk.

    Raises: BadSignature, TrustError, RollbackRefused, Expired, InvalidInput, LimitExceeded.
    """
    verified = statement.verify(envelope, StatementKind.POLICY_BUNDLE, keys, threshold)  # 1
    said = Fields(verified.statement.predicate, "policy bundle")
    if verified.statement.subject_digest != digest_of(packed):  # 2
        raise TrustError("the signed statement is about another bundle")
    if said.text("authority", 16) != authority:
        raise TrustError(f"the bundle is not the one of {authority}")
    revision = said.integer("revision", 1, MAX_INTEGER)
    if last is not None:  # 3
        _check_order(revision, digest_of(packed), last)
    not_before, not_after = said.timestamp("not_before"), said.timestamp("not_after")
    if not is_restart and not not_before <= now < not_after:  # 4
        raise Expired(
            f"the bundle of {authority} is valid from {timestamp_text(not_before)} to {timestamp_text(not_after)}",
            remedy="ask its authors for a current one, or check this clock",
        )
    bundle = read_bundle(packed)  # 5, 6
    _check_content(bundle, said, authority, revision)
    said.done()
    return VerifiedBundle(bundle, not_before, not_after, verified.digest)


def rego_digest(modules: Mapping[str, str]) -> Digest:
    """Names the sources: digest of the canonical object of file names and digests."""
    return digest_of(canonical({name: digest_of(source.encode("utf-8")) for name, source in modules.items()}))


def _check_order(revision: int, digest: Digest, last: Accepted) -> None:
    if revision < last.revision:
        raise RollbackRefused(f"the bundle has revision {revision}, but {last.revision} is in force")
    if revision == last.revision and digest != last.digest:
        raise RollbackRefused(f"another bundle of revision {revision} is in force already")


def _check_content(bundle: Bundle, said: Fields, authority: str, revision: int) -> None:
    is_as_said = (
        bundle.authority == authority
        and bundle.revision == revision
        and said.digest("wasm_digest") == digest_of(bundle.program.wasm)
        and said.digest("rego_digest") == rego_digest(bundle.program.modules)
    )
    if not is_as_said:
        raise TrustError("the bundle's content is not what its signed statement says")


def _authority(text: str) -> str:
    return text if text == TREATY else authority_of_nation(text.removeprefix("nation."))


def _modules(files: Mapping[str, bytes]) -> Mapping[str, str]:
    modules = {}
    for name in sorted(set(files) - archive.FIXED_FILES):
        try:
            modules[name] = files[name].decode("utf-8")
        except UnicodeDecodeError:
            raise InvalidInput(f"{name} in the bundle is not UTF-8") from None
    return modules


def _check_roots(program: Program, root: str) -> None:
    """A bundle speaks below its own root only: its manifest, each package and its data."""
    if root != program.root:
        raise InvalidInput(f"the bundle of {program.authority} claims the root {root!r}, not {program.root!r}")
    package = program.root.replace("/", ".")
    for name, source in program.modules.items():
        if not f"{_declared_package(source)}.".startswith(f"{package}."):
            raise InvalidInput(f"{name} is not in the package {package} or below it")
    expected: JsonObject = {"foedus": {program.slot: program.own_data | {"registers": program.own_registers}}}
    if exact_json.merge(program.data, {"foedus": {program.slot: {"registers": program.own_registers}}}) != expected:
        raise InvalidInput(f"the data of the bundle of {program.authority} reach beyond {root}")
    if program.own_data.get("revision") != program.revision:
        raise InvalidInput("the bundle's data carry another revision than its manifest")
    if program.authority == TREATY:
        check_treaty(program.own_registers)
    elif program.own_registers or program.own_data.get("nation") != program.authority.removeprefix("nation."):
        raise InvalidInput("an overlay sets no registers and names its own nation")


def _declared_package(source: str) -> str:
    """The package that a module declares on its first line of code; empty where it is not written plainly there."""
    for line in source.split("\n"):
        if line and not line.startswith("#"):
            declared = _PACKAGE.fullmatch(line)
            return declared[1] if declared else ""
    return ""
