"""The processes of bench/pull.py: a chunk server, a pulling agent and a raw sender, each in one of its own.

    serve HOME        gRPC over mutual TLS from a DirectoryStore; prints its port
    agent HOME PORT   pulls once; prints {"seconds": …, "peak_bytes": …}
    raw BYTES         sends BYTES to whoever connects, as fast as a socket takes them; prints its port

HOME holds `manifest`, `store/` and `tls/` as bench/pull.py lays them out.
"""

from __future__ import annotations

import asyncio
import json
import resource
import shutil
import socket
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import grpc

from treaty.manifest import parse_manifest
from treaty.names import Digest
from treaty.wire import credentials, limits
from treaty.wire.v1.transfer_pb2 import FetchRequest

CONNECTIONS = 4


async def serve(home: Path) -> None:
    from controlplane.artifacts.directory_store import DirectoryStore
    from controlplane.artifacts.serving import frames

    store = DirectoryStore(home / "store")
    listed = set(parse_manifest((home / "manifest").read_bytes()).chunk_bytes)

    async def fetch(request: FetchRequest, _context: object) -> AsyncIterator[bytes]:
        chunks = [Digest(chunk) for chunk in request.chunk_digests]
        assert listed.issuperset(chunks)
        async for frame in frames(store, chunks):
            yield frame

    def identity() -> credentials.ServerIdentity:
        tls = home / "tls"
        key, shown, clients = ((tls / name).read_bytes() for name in ("server.key", "server.pem", "client-ca.pem"))
        return credentials.ServerIdentity(key, shown, (clients,))

    server = grpc.aio.server(options=limits.server_options(max_connection_age_seconds=3600))
    handler: grpc.RpcMethodHandler[FetchRequest, bytes] = grpc.unary_stream_rpc_method_handler(
        fetch, request_deserializer=FetchRequest.FromString
    )
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("treaty.wire.v1.Artifacts", {"Fetch": handler}),)
    )
    port = server.add_secure_port("127.0.0.1:0", credentials.mutual_server_credentials(identity))
    await server.start()
    print(port, flush=True)
    await server.wait_for_termination()


async def agent(home: Path, port: int) -> None:
    from node_agent.fetch import GrpcChunkSource, fetch_call
    from node_agent.pull import pull
    from node_agent.shelf import Shelf

    manifest = parse_manifest((home / "manifest").read_bytes())
    tls, here = home / "tls", home / "agent"
    shutil.rmtree(here, ignore_errors=True)
    shelf = Shelf(here / "shelf", here / "staging")
    identity = credentials.ClientIdentity((tls / "client.key").read_bytes(), (tls / "client.pem").read_bytes())
    server_ca = (tls / "server-ca.pem").read_bytes()
    started = time.perf_counter()
    # Not `localhost`: its ::1 may be another program's.
    named = [("grpc.ssl_target_name_override", "localhost")]
    target = f"ipv4:127.0.0.1:{port}"
    channels = [credentials.mutual_channel(target, server_ca, identity, named) for _ in range(CONNECTIONS)]
    report = await pull(manifest, GrpcChunkSource([fetch_call(channel) for channel in channels]), shelf)
    seconds = time.perf_counter() - started
    assert report.fetched_bytes == sum(manifest.chunk_bytes.values())
    for channel in channels:
        await channel.close()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"seconds": seconds, "peak_bytes": peak}))


def raw(size: int) -> None:
    piece = bytes(2**20)
    with socket.create_server(("127.0.0.1", 0)) as server:
        print(server.getsockname()[1], flush=True)
        while True:
            connection, _ = server.accept()
            with connection:
                for _ in range(size // len(piece)):
                    connection.sendall(piece)


if __name__ == "__main__":
    role, *arguments = sys.argv[1:]
    if role == "serve":
        asyncio.run(serve(Path(arguments[0])))
    elif role == "agent":
        asyncio.run(agent(Path(arguments[0]), int(arguments[1])))
    else:
        raw(int(arguments[0]))
