"""How the small treaty comes to be, step by step as people do it: charter, joining, policies, a version, its rollout.

What the tests do again later (`publish`, `begin_rollout`, `push_policy`) stands here once.
"""

from __future__ import annotations

import io
import json
import socket
import tarfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

import policies
from tests.builders.tiny_llama import build_tiny_llama, write_pairs
from tests.e2e.lines import LOOPBACK, Line
from tests.e2e.processes import eventually
from tests.e2e.treaty_world import (
    AGENTS,
    DATASET,
    DNS,
    DOMAIN,
    LABEL,
    LEARNERS,
    MODEL,
    PURPOSE,
    TreatyWorld,
    new_world,
)
from treaty.chunking import CHUNK_BYTES

PADDING_CHUNKS = 12


def sign_and_serve(world: TreatyWorld) -> None:
    """Keys, homes, a charter signed by both founders; the coordinator serves."""
    for name in ("eu", "nato", "pub-1", "pub-2", "policy-1"):
        world.foedus("key", "new", name, "--out", world.root / "keys")
    _at_once(["coordinator", *world.codes], lambda who: _make_home(world, who))
    public = {"founder": ("eu", "nato"), "publisher": ("pub-1", "pub-2"), "treaty-policy": ("policy-1",)}
    words = [
        word for role, names in public.items() for name in names
        for word in (f"--{role}", world.key(name).with_suffix(".pub"))
    ]  # fmt: skip
    for code in world.codes:
        words += ["--nation", world.home(code) / "descriptor.json"]
    members = ",".join(sorted(world.codes))
    world.foedus(
        "charter", "init", "--treaty", "tiny", "--domain", DOMAIN, *words, "--threshold", 2,
        "--publishers-threshold", 2,
        "--policy-threshold", 1, "--coordinator", world.coordinator_home / "descriptor.json",
        "--body", f"EU:BE:{members}", "--body", f"NATO:BE:{members}", "--out", world.charter,
    )  # fmt: skip
    world.foedus("charter", "sign", world.charter, "--key", world.key("eu"), "--key", world.key("nato"))
    world.charter_digest = world.foedus("charter", "digest", world.charter).out.strip()
    world.coordinator("charter", world.charter)
    for role in ("operator", "publisher", "auditor"):
        world.coordinator("certificate", "--role", role, "--name", f"{role}-1", "--out", world.root / "people")
    ports = {name: _free_port() for name in ("grpc_address", "reach_address")}
    settings = "".join(f"{name}: 127.0.0.1:{port}\n" for name, port in ports.items())
    (world.coordinator_home / "settings.yaml").write_text(settings)
    world.start_coordinator()
    for code in world.codes:
        world.lines[code] = Line(*ports.values())


def _make_home(world: TreatyWorld, who: str) -> None:
    if who == "coordinator":
        world.coordinator("init", "--party", "EU", "--host", "BE", "--domain", DOMAIN, "--dns", DNS)
        return
    root = world.root / who / "root"
    person = world.root / who
    world.agent(who, "init", "--root-dir", root, "--nation", who, "--domain", DOMAIN, "--agent", AGENTS[who])
    world.foedus("key", "new", "person", "--out", person)
    public = person / "person.pub"
    world.agent(
        who, "delegate", "person", "--root-dir", root, "--public-key", public, "--powers", "consent,overlay"
    )  # fmt: skip
    world.set_agent(who)


def join(world: TreatyWorld) -> None:
    """Every nation joins by its own line, an operator accepts it, and the policies come into force."""
    _at_once(world.codes, lambda code: _join(world, code))
    bundles = world.root / "bundles"
    bundles.mkdir()
    push_policy(world, 1)
    _at_once(world.codes, lambda code: _load_overlay(world, code, bundles))
    for code in world.codes:
        eventually(f"{code} decides under both policies", lambda: all(world.status(code)["policies"].values()), 40)  # noqa: B023


def push_policy(world: TreatyWorld, revision: int) -> None:
    """Sign the treaty's bundle as that revision and put it in force."""
    stem = world.root / "bundles" / f"treaty-{revision}"
    bundle = world.root / f"bundle-{revision}.tar.gz"
    bundle.write_bytes(with_revision(policies.compiled_path("treaty"), revision))
    world.foedus("policy", "sign", "--out", stem.parent, "--bundle", bundle, "--key", world.key("policy-1"))
    world.foedus("policy", "push", f"{stem}.tar.gz", f"{stem}.json")


def with_revision(bundle: Path, revision: int) -> bytes:
    """The same compiled policy under another revision, as its author would build it next."""
    packed = io.BytesIO()
    with tarfile.open(bundle) as source, tarfile.open(fileobj=packed, mode="w:gz") as target:
        for member in source:
            content = source.extractfile(member)
            data = content.read() if content else b""
            if member.name == ".manifest":
                data = json.dumps({**json.loads(data), "revision": str(revision)}).encode()
            if member.name == "data.json":
                value = json.loads(data)
                value["foedus"]["treaty"]["revision"] = revision
                data = json.dumps(value).encode()
            member.size = len(data)
            target.addfile(member, io.BytesIO(data))
    return packed.getvalue()


def _join(world: TreatyWorld, code: str) -> None:
    grpc_port, reach_port = world.lines[code].ports
    world.agent(
        code, "join", "--coordinator", f"{DNS}:{grpc_port}", "--reach", f"{DNS}:{reach_port}",
        "--charter", world.charter_digest,
    )  # fmt: skip
    world.foedus("agent", "accept", world.agent_id(code))
    world.start_agent(code)


def _load_overlay(world: TreatyWorld, code: str, bundles: Path) -> None:
    authority = f"nation.{code}"
    overlay = ("--bundle", policies.compiled_path(code.lower()), "--key", world.root / code / "person.key")
    world.foedus("policy", "sign", "--out", bundles, "--authority", authority, *overlay)
    stem = bundles / f"{authority}-1"
    world.agent(code, "policy", "load", f"{stem}.tar.gz", "--envelope", f"{stem}.json")


def publish(world: TreatyWorld, version: str, source: Sequence[object], *words: object) -> None:
    """Publish and sign a version by both publishers. `source`: a folder, or none and `--from-run` in `words`."""
    world.foedus(
        "model", "publish", *source, "--name", MODEL, "--version", version, *words, "--key", world.key("pub-1"),
        role="publisher",
    )  # fmt: skip
    sign_version(world, version)


def sign_version(world: TreatyWorld, version: str) -> None:
    digest = manifest_digest(world, version)
    key = world.key("pub-2")
    world.foedus("model", "sign", f"{MODEL}@{version}", "--key", key, "--digest", digest, role="publisher")
    assert world.condition("ModelVersion", f"{MODEL}-{version}", "Ready")["status"] == "True"


def manifest_digest(world: TreatyWorld, version: str) -> str:
    return str(world.resource("ModelVersion", f"{MODEL}-{version}")["spec"]["manifestDigest"])


def begin_rollout(world: TreatyWorld, name: str, version: str, *words: object) -> None:
    """FR first, then DE."""
    waves = [word for code in LEARNERS for word in ("--wave", f"{code.lower()}={code}")]
    world.foedus(
        "rollout", "create", name, "--model", f"{MODEL}@{version}", *waves, "--deadline", 300,
        "--health-prompt", "hello",
        *(words or ("--fallback", "none")),
    )  # fmt: skip


def register_datasets(world: TreatyWorld) -> None:
    for code in LEARNERS:
        pairs = write_pairs(world.root / code / "pairs.jsonl", 40, language=code.lower())
        world.agent(
            code, "dataset", "add", DATASET, pairs, "--purpose", PURPOSE, "--language", code.lower(),
            "--class", "administrative-text",
        )  # fmt: skip


def joined_world(root: Path, codes: tuple[str, ...]) -> TreatyWorld:
    """A treaty whose nations have joined and serve nothing yet. Closed again where something on the way fails."""
    world = new_world(root, codes)
    try:
        sign_and_serve(world)
        join(world)
    except BaseException:
        world.close()
        raise
    return world


def ready_world(
    root: Path, codes: tuple[str, ...] = tuple(AGENTS), clocks: Mapping[str, Mapping[str, str]] | None = None
) -> TreatyWorld:
    """Everything up to where runs can start. Closed again where something on the way fails."""
    world = new_world(root, codes, clocks)
    try:
        sign_and_serve(world)
        join(world)
        publish(world, "1.0.0", [build_tiny_llama(root / "model")], *LABEL)
        begin_rollout(world, "first", "1.0.0")
        assert world.rollout_ended("first")["type"] == "Succeeded", world.resource("Rollout", "first")["status"]
        register_datasets(world)
    except BaseException:
        world.close()
        raise
    return world


def _free_port() -> int:
    with socket.create_server((LOOPBACK, 0)) as probe:
        return int(probe.getsockname()[1])


def _at_once(each: Sequence[str], act: Callable[[str], None]) -> None:
    with ThreadPoolExecutor(2) as pool:
        for _ in pool.map(act, each):
            continue


def padded(folder: Path, seed: int = 0) -> Path:
    """The model with one more tensor of twelve chunks, which no layer reads."""
    path = folder / "model.safetensors"
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header, body = json.loads(data[8 : 8 + length]), data[8 + length :]
    rows = PADDING_CHUNKS * CHUNK_BYTES // 2 // 1024
    values = np.random.default_rng(seed).normal(0, 1, (rows, 1024)).astype("<f4")
    more = (values.view("<u4") >> 16).astype("<u2").tobytes()
    header["padding.weight"] = {
        "dtype": "BF16",
        "shape": [rows, 1024],
        "data_offsets": [len(body), len(body) + len(more)],
    }
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(len(text).to_bytes(8, "little") + text + body + more)
    return folder
