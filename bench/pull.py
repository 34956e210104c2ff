"""Pull 1 GiB over mutual TLS, verified and fsynced, against its peers in the same run.

    python -m bench.pull [--mebibytes 1024] [--repeat 3] [--directory DIR] [--json]

On loopback the peer is `curl` from nginx over mutual TLS, then `openssl dgst -sha256`; through a delaying proxy
(bench/delay_proxy.py, 1 Gbit/s) at 20 and 230 ms round trip it is a bare socket through the same proxy. The better of
the repeats counts for either side, measured in turn. Needs nginx, curl and openssl.
"""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from bench import rows
from bench.rows import Row, say
from controlplane.artifacts.directory_store import DirectoryStore
from treaty.label import Classification, label
from treaty.lineage import Lineage
from treaty.manifest import Description
from treaty.manifest_build import build, chunks_of
from treaty.names import PartyCode, agent_id
from treaty.wire.certificates import issue_client, issue_server, new_ca

MEBIBYTE = 2**20
TENSOR_MEBIBYTES = 64
DOMAIN = "bench.example"
TARGET_MEGABYTES = 300

NGINX = """
daemon off; worker_processes 1; pid {home}/nginx.pid; error_log {home}/nginx.log;
events {{}}
http {{
  access_log off; sendfile on;
  client_body_temp_path {home}/nginx-1; proxy_temp_path {home}/nginx-2; fastcgi_temp_path {home}/nginx-3;
  uwsgi_temp_path {home}/nginx-4; scgi_temp_path {home}/nginx-5;
  server {{
    listen 127.0.0.1:{port} ssl; root {home}/published;
    ssl_certificate {home}/tls/server.pem; ssl_certificate_key {home}/tls/server.key;
    ssl_client_certificate {home}/tls/client-ca.pem; ssl_verify_client on; ssl_protocols TLSv1.3;
  }}
}}
"""


def prepare(home: Path, mebibytes: int) -> None:
    """Lay out a version of random finite bf16 weights, its chunk store and the certificates."""
    published = home / "published"
    published.mkdir(parents=True)
    shape = TENSOR_MEBIBYTES * MEBIBYTE // 2
    count = mebibytes // TENSOR_MEBIBYTES
    entries = {
        f"layer.{number}": {
            "dtype": "BF16",
            "shape": [shape],
            "data_offsets": [number * shape * 2, (number + 1) * shape * 2],
        }
        for number in range(count)
    }
    header = json.dumps(entries).encode()
    random = np.random.default_rng(1)
    with (published / "model.safetensors").open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        for _ in range(count):
            # Without the top exponent bit no number is NaN or infinite.
            file.write((random.integers(0, 2**16, shape, np.uint16) & 0xBFFF).tobytes())
    about = Description(
        "bench", "1.0.0", None, "LlamaForCausalLM", "CC0-1.0", label(Classification.PUBLIC, ["FR"]), Lineage()
    )
    manifest = build(published, about)
    (home / "manifest").write_bytes(manifest.encoded)
    store = DirectoryStore(home / "store")
    for chunk, data in chunks_of(published, manifest):
        store.put(chunk, data, now=datetime.now(UTC))
    certify(home / "tls")


def certify(tls: Path) -> None:
    tls.mkdir()
    now = datetime.now(UTC)
    coordinator, nation = new_ca("coordinator", DOMAIN, now), new_ca("fr", DOMAIN, now)
    server = issue_server(coordinator, ["localhost"], now)
    client = issue_client(nation, agent_id(PartyCode("FR"), DOMAIN, "bench-1"), now)
    (tls / "server-ca.pem").write_bytes(coordinator.certificate_pem())
    (tls / "client-ca.pem").write_bytes(nation.certificate_pem())
    for name, issued in (("server", server), ("client", client)):
        (tls / f"{name}.pem").write_bytes(issued.certificate_pem())
        (tls / f"{name}.key").write_bytes(issued.key_pem())


@contextmanager
def process(*arguments: str) -> Iterator[int]:
    """A module of ours in a process of its own, which prints its port first."""
    with subprocess.Popen([sys.executable, "-m", *arguments], stdout=subprocess.PIPE, text=True) as child:
        try:
            assert child.stdout is not None
            yield int(child.stdout.readline())
        finally:
            child.terminate()


def our_pull(home: Path, port: int) -> tuple[float, int]:
    """Seconds and peak bytes of one agent's pull."""
    command = [sys.executable, "-m", "bench.pull_parts", "agent", str(home), str(port)]
    measured = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return measured["seconds"], measured["peak_bytes"]


def curl_and_openssl(home: Path, port: int) -> float:
    target, tls = home / "curled", home / "tls"
    target.unlink(missing_ok=True)
    started = time.perf_counter()
    shown: list[str | Path] = [
        "--cacert",
        tls / "server-ca.pem",
        "--cert",
        tls / "client.pem",
        "--key",
        tls / "client.key",
    ]
    address = f"https://localhost:{port}/model.safetensors"
    subprocess.run(["curl", "-4", "-sS", "--fail", *shown, "-o", target, address], check=True)
    subprocess.run(["openssl", "dgst", "-sha256", target], check=True, capture_output=True)
    return time.perf_counter() - started


def raw_socket(port: int, size: int) -> float:
    buffer = bytearray(MEBIBYTE)
    started = time.perf_counter()
    received = 0
    with socket.create_connection(("127.0.0.1", port)) as connection:
        while received < size:
            received += connection.recv_into(buffer)
    return time.perf_counter() - started


@contextmanager
def nginx(home: Path) -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = int(free.getsockname()[1])
    (home / "nginx.conf").write_text(NGINX.format(home=home, port=port))
    with subprocess.Popen(["nginx", "-c", home / "nginx.conf", "-e", home / "nginx.log"]) as child:
        try:
            wait_for(port)
            yield port
        finally:
            child.terminate()


def wait_for(port: int) -> None:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise SystemExit("nginx did not start")


def row(name: str, size: int, pairs: list[tuple[float, float]], peer: str, target: float) -> Row:
    """The better of the repeats for either side; a ratio above 1 means that we are faster."""
    ours, theirs = (min(times) for times in zip(*pairs, strict=True))
    rate = size / MEBIBYTE
    return Row(
        f"pull {size // MEBIBYTE} MiB, {name}",
        f"{ours:.2f} s, {rate / ours:.0f} MiB/s",
        f"{peer} {theirs:.2f} s, {rate / theirs:.0f} MiB/s",
        f"{theirs / ours:.2f}×",
        f"≥ {target}×",
        theirs / ours >= target,
    )


def told(name: str, pair: tuple[float, float]) -> tuple[float, float]:
    say(f"{name}: ours {pair[0]:.2f} s, peer {pair[1]:.2f} s")
    return pair


def measure(home: Path, size: int, repeat: int) -> list[Row]:
    """All three lines, one after the other."""
    peaks: list[int] = []
    measured: list[Row] = []

    def ours(port: int) -> float:
        seconds, peak = our_pull(home, port)
        peaks.append(peak)
        return seconds

    with process("bench.pull_parts", "serve", str(home)) as port:
        with nginx(home) as web_port:
            pairs = [told("loopback", (ours(port), curl_and_openssl(home, web_port))) for _ in range(repeat)]
        measured.append(row("loopback", size, pairs, "curl+openssl", 1.5))
        with process("bench.pull_parts", "raw", str(size)) as raw_port:
            for milliseconds in (20, 230):
                name = f"{milliseconds} ms"
                with (
                    process("bench.delay_proxy", str(port), str(milliseconds)) as slow_port,
                    process("bench.delay_proxy", str(raw_port), str(milliseconds)) as slow_raw_port,
                ):
                    pairs = [told(name, (ours(slow_port), raw_socket(slow_raw_port, size))) for _ in range(repeat)]
                measured.append(row(name, size, pairs, "raw socket", 0.8))
    peak = max(peaks) / 1e6
    fits = peak < TARGET_MEGABYTES
    return [*measured, Row("pull, agent's memory", f"{peak:.0f} MB", target=f"< {TARGET_MEGABYTES} MB", is_met=fits)]


def require_programs() -> None:
    """Raises: SystemExit: a program of the peers is not here."""
    if missing := [name for name in ("nginx", "curl", "openssl") if shutil.which(name) is None]:
        raise SystemExit(f"{', '.join(missing)} not found; install: apt-get install nginx-light curl openssl")


def main() -> None:
    require_programs()
    parser = rows.parser(__doc__)
    parser.add_argument("--mebibytes", type=int, default=1024)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--directory", type=Path, default=None, help="where files lie; emptied afterwards")
    chosen = parser.parse_args()
    home = Path(tempfile.mkdtemp(prefix="foedus-bench-", dir=chosen.directory))
    home.chmod(0o755)  # nginx's worker is another user
    try:
        size = chosen.mebibytes * MEBIBYTE
        prepare(home, chosen.mebibytes)
        rows.show(measure(home, size, chosen.repeat), as_json=chosen.json)
    finally:
        shutil.rmtree(home)


if __name__ == "__main__":
    main()
