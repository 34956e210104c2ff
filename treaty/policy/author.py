"""From a folder of Rego to a bundle, with a real OPA: checked strictly, compiled, packed the same way every time.

A policy's folder holds `data.json`, Rego below it, tests beside the rules (`*_test.rego`, `testing/`: not shipped) and
`vectors/data.json`, in a layout that plain `opa test FOLDER` runs. An overlay is built together with the library of
overlays, so it may be data alone. Here a policy is refused that reads data other than its own and the registers, or
that calls what the embedded engine does not offer. OPA runs as a child process; nothing is fetched.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from treaty.errors import InvalidInput, NotFound, PreconditionFailed
from treaty.policy import archive, exact_json
from treaty.policy.bundle import MAX_DATA_BYTES, MAX_VECTORS_BYTES, authority_of_nation, read_bundle
from treaty.policy.engine import OVERLAY, TREATY
from treaty.strict_json import JsonObject, JsonValue

OPA_SECONDS = 120
OPA_REMEDY = "install OPA 1.x, put it on PATH or name it; the project's own: python tools/parts.py opa"
_MAX_OPA_OUTPUT_CHARS = 2000


def find_opa(name: str = "opa") -> Path:
    """The OPA to use. Raises: NotFound."""
    found = shutil.which(name)
    if found is None:
        raise NotFound(f"no OPA found as {name!r}", remedy=OPA_REMEDY)
    return Path(found)


def build(folder: Path, revision: int, *, opa: Path, libraries: Sequence[Path] = ()) -> bytes:
    """The bundle of the policy in `folder` (with `libraries` merged in), carrying `revision`.

    Raises: NotFound: no policy or no OPA there. InvalidInput: the data are malformed.
    PreconditionFailed: OPA, or one of our own rules for bundles, refuses it.
    """
    data = exact_json.parse_object(_read(folder / archive.DATA), max_bytes=MAX_DATA_BYTES)
    slot, own = _slot(data)
    own["revision"] = revision
    vectors = exact_json.parse_object(_read(folder / "vectors" / "data.json"), max_bytes=MAX_VECTORS_BYTES)
    modules = _sources([folder, *libraries])
    entrypoint = f"foedus/{slot}/decision"
    files = {
        **modules,
        archive.DATA: exact_json.dump(data) + b"\n",
        archive.VECTORS: exact_json.dump(vectors) + b"\n",
        archive.MANIFEST: exact_json.dump(_manifest(slot, own, revision)) + b"\n",
        archive.WASM: _compile(modules, slot, entrypoint, opa),
    }
    packed = archive.pack(files)
    read_bundle(packed)
    return packed


def _manifest(slot: str, own: JsonObject, revision: int) -> JsonObject:
    # The compiled policy is not listed: an OPA that was built without a WebAssembly engine would refuse the bundle, and
    # one that has it would not run the Rego that people read.
    authority = TREATY if slot == TREATY else authority_of_nation(str(own.get("nation")))
    return {
        "revision": str(revision),
        "roots": [f"foedus/{slot}"],
        "rego_version": 1,
        "metadata": {"authority": authority},
    }


def _slot(data: JsonObject) -> tuple[str, JsonObject]:
    foedus = data.get("foedus")
    if isinstance(foedus, dict) and len(foedus) == 1:
        for slot in (TREATY, OVERLAY):
            own = foedus.get(slot)
            if isinstance(own, dict):
                return slot, own
    raise InvalidInput("data.json holds neither a treaty nor an overlay", remedy='it begins {"foedus": {"overlay": …}}')


def _sources(folders: Sequence[Path]) -> dict[str, bytes]:
    modules: dict[str, bytes] = {}
    for folder in folders:
        for path in sorted(folder.rglob("*.rego")):
            name = path.relative_to(folder).as_posix()
            if name.endswith("_test.rego") or name.startswith("testing/"):
                continue
            if name in modules:
                raise InvalidInput(f"{name} is both in the policy and in its library", remedy="rename it")
            modules[name] = path.read_bytes()
    if not modules:
        raise NotFound(f"no Rego found in {folders[0]}")
    return modules


def _compile(modules: dict[str, bytes], slot: str, entrypoint: str, opa: Path) -> bytes:
    with tempfile.TemporaryDirectory(prefix="foedus-policy-") as temporary:
        stage, built = Path(temporary) / "stage", Path(temporary) / "bundle.tar.gz"
        for name, source in modules.items():
            target = stage / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(source)
        _run(opa, ["check", "--strict", "--bundle", "."], stage)
        _check_reads(
            _run(opa, ["deps", "--format", "json", "--data", ".", f"data.foedus.{slot}.decision"], stage), slot
        )
        _run(opa, ["build", "--target", "wasm", "--entrypoint", entrypoint, "--output", str(built), "."], stage)
        return archive.member(built.read_bytes(), f"/{archive.WASM}")


def _check_reads(output: bytes, slot: str) -> None:
    """Refuse rules that read another authority's tree: they would see it in OPA and not when compiled."""
    depends = exact_json.parse_object(output, max_bytes=16 * 1024 * 1024)
    for kind in ("base", "virtual"):
        references = depends.get(kind)
        for reference in references if isinstance(references, list) else []:
            path = _path(reference)
            if path[:1] == ["data"] and path[:3] not in (["data", "foedus", slot], ["data", "foedus", "registers"]):
                raise PreconditionFailed(
                    f"the policy reads {'.'.join(path)}, which is neither its own nor a register",
                    remedy=f"read below data.foedus.{slot} and data.foedus.registers only",
                )


def _path(reference: JsonValue) -> list[str]:
    terms = reference if isinstance(reference, list) else []
    return [str(term.get("value")) for term in terms if isinstance(term, dict)]


def _run(opa: Path, arguments: Sequence[str], folder: Path) -> bytes:
    try:
        done = subprocess.run([opa, *arguments], cwd=folder, capture_output=True, timeout=OPA_SECONDS, check=False)
    except FileNotFoundError as err:
        raise NotFound(f"no OPA at {opa}", remedy=OPA_REMEDY) from err
    except subprocess.TimeoutExpired as err:
        raise PreconditionFailed(f"'opa {arguments[0]}' did not end within {OPA_SECONDS} s") from err
    if done.returncode != 0:
        said = (done.stderr or done.stdout).decode("utf-8", "replace").strip()[:_MAX_OPA_OUTPUT_CHARS]
        raise PreconditionFailed(f"'opa {arguments[0]}' refuses the policy: {said}")
    return done.stdout


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError as err:
        raise NotFound(f"no {path.name} in {path.parent}") from err
