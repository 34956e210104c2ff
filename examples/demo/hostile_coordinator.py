"""A coordinator that turned hostile: its own CA and address, and directives for versions that nobody rightly signed.

    python -m examples.demo.hostile_coordinator --home COORDINATOR --charter FILE --offers DIR

It serves agents of the charter by real mutual TLS, welcomes the first that connects, directs each of the offers in DIR
(`NAME.json`, a manifest's envelope) and prints one line of JSON per answer: `{"offer": …, "codes": […]}`. Its first
line says on which port it listens. It shows what an agent does against the one who holds all of the coordinator's keys.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import grpc

from examples.demo.settings import DNS, DOMAIN
from treaty import statement
from treaty.charter import Charter, parse_charter
from treaty.wire import credentials
from treaty.wire.certificates import issue_server, load_issued
from treaty.wire.v1 import session_pb2, session_pb2_grpc, types_pb2

ANSWER_SECONDS: Final = 20
PURPOSE: Final = "treaty-operation"


class HostileCoordinator(session_pb2_grpc.SessionServicer):
    """Directs every offer to whoever connects first; `answers` gets the codes, in order."""

    def __init__(self, charter: Charter, offers: dict[str, bytes]) -> None:
        self._charter = charter
        self._offers = offers
        self.answers: asyncio.Queue[tuple[str, list[str]]] = asyncio.Queue()

    async def Connect(self, request_iterator: Any, context: Any) -> None:  # type: ignore[override]  # noqa: N802
        first = await context.read()
        welcome = session_pb2.Welcome(
            nonce=first.hello.nonce,
            protocol=1,
            epoch=1,
            charter_digest=self._charter.digest,
            heartbeat_seconds=5,
        )
        await context.write(session_pb2.CoordinatorMessage(welcome=welcome))
        names = dict(enumerate(self._offers, start=1))
        for counter, name in names.items():
            directive = _deploy(counter, name, self._offers[name])
            await context.write(session_pb2.CoordinatorMessage(directive=directive))
        while (message := await context.read()) is not grpc.aio.EOF:
            if message.WhichOneof("body") == "acknowledgement":
                await self.answers.put(_answer(names, message.acknowledgement))


def _deploy(counter: int, name: str, envelope: bytes) -> session_pb2.Directive:
    deploy = session_pb2.Deploy(
        rollout=name,
        manifest_digest=statement.unverified(envelope).subject_digest,
        manifests=[envelope],
        deadline_seconds=60,
        purpose=PURPOSE,
    )
    number = types_pb2.DirectiveNumber(epoch=1, counter=counter)
    return session_pb2.Directive(number=number, trace_id="ab" * 16, deploy=deploy)


def _answer(names: dict[int, str], said: session_pb2.Acknowledgement) -> tuple[str, list[str]]:
    """The offer's name and the codes of its refusal; no codes where it was accepted."""
    codes = [said.refusal.code, *said.refusal.details] if said.HasField("refusal") else []
    return names.get(said.number.counter, "?"), sorted(set(codes))


async def serve(home: Path, charter: Charter, offers: dict[str, bytes]) -> None:
    """Serve until stopped. Raises: TimeoutError: an offer was not answered."""
    ca = load_issued((home / "tls" / "ca.key").read_bytes(), (home / "tls" / "ca.pem").read_bytes())
    issued = issue_server(ca, [DNS], datetime.now(UTC))
    cas = tuple(nation.ca_pem.encode("ascii") for nation in charter.nations.values())

    def identity() -> credentials.ServerIdentity:
        return credentials.ServerIdentity(issued.key_pem(), issued.certificate_pem(), cas)

    hostile = HostileCoordinator(charter, offers)
    server = grpc.aio.server()
    session_pb2_grpc.add_SessionServicer_to_server(hostile, server)  # type: ignore[no-untyped-call,unused-ignore]
    port = server.add_secure_port("127.0.0.1:0", credentials.mutual_server_credentials(identity))
    await server.start()
    _tell({"port": port})
    try:
        for _ in offers:
            async with asyncio.timeout(ANSWER_SECONDS):
                offer, codes = await hostile.answers.get()
            _tell({"offer": offer, "codes": codes})
        await server.wait_for_termination()
    finally:
        await server.stop(None)


def _tell(said: dict[str, object]) -> None:
    sys.stdout.write(json.dumps(said) + "\n")
    sys.stdout.flush()


def main() -> None:
    parser = argparse.ArgumentParser(description=f"a hostile coordinator of {DOMAIN}")
    for name in ("home", "charter", "offers"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    given = parser.parse_args()
    charter = parse_charter(statement.unverified(given.charter.read_bytes()).predicate)
    offers = {path.stem: path.read_bytes() for path in sorted(given.offers.glob("*.json"))}
    asyncio.run(serve(given.home, charter, offers))


if __name__ == "__main__":
    main()
