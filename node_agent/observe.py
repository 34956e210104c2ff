"""Metrics and health for whoever runs this machine: HTTP on loopback (or a cluster's probe network), never outside.

    GET /metrics   Prometheus' text format
    GET /healthz   200 while the process serves its loop
    GET /readyz    200 while the coordinator is connected, else 503

Nothing here crosses the border by itself, and no name, path or text of the nation is in it. Requests are read up to
their first line and answered; there is nothing to configure and nothing to write.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Final

from node_agent.journal import SqliteJournal
from node_agent.state import AgentState, Phase
from treaty.errors import InvalidInput, PreconditionFailed

MAX_LINE_BYTES: Final = 2048
REQUEST_SECONDS: Final = 5.0


class Endpoint:
    def __init__(self, address: str, state: AgentState, journal: SqliteJournal) -> None:
        self._address = address
        self._state = state
        self._journal = journal
        self._server: asyncio.Server | None = None

    async def open(self) -> str:
        """Listen; the address that was taken, empty where the admin wants none.

        Raises: PreconditionFailed: the address is taken or not ours.
        """
        if not self._address:
            return ""
        host, _, port = self._address.rpartition(":")
        if not host or not port.isdigit():
            raise InvalidInput(f"metrics_address {self._address!r} is not host:port")
        try:
            self._server = await asyncio.start_server(self._serve, host.strip("[]"), int(port), limit=MAX_LINE_BYTES)
        except OSError as err:
            remedy = "set metrics_address to a free address, or to an empty text"
            raise PreconditionFailed(f"cannot listen on {self._address}", remedy=remedy) from err
        bound = self._server.sockets[0].getsockname()
        return f"{host}:{bound[1]}"

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(REQUEST_SECONDS):
                line = await reader.readline()
                status, body = self._answer(line.decode("latin-1").split(" "))
                head = f"HTTP/1.1 {status}\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n"
                writer.write(f"{head}Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body)
                await writer.drain()
        except (TimeoutError, ConnectionError, ValueError):
            pass
        finally:
            writer.close()

    def _answer(self, words: list[str]) -> tuple[str, bytes]:
        if len(words) < 2 or words[0] != "GET":
            return "405 Method Not Allowed", b"only GET\n"
        match words[1]:
            case "/metrics":
                return "200 OK", "".join(f"{line}\n" for line in self._metrics()).encode()
            case "/healthz":
                return "200 OK", b"ok\n"
            case "/readyz":
                is_ready = self._state.phase is Phase.ONLINE
                return ("200 OK", b"connected\n") if is_ready else ("503 Service Unavailable", b"not connected\n")
        return "404 Not Found", b"no such page\n"

    def _metrics(self) -> Iterator[str]:
        state = self._state
        yield from _gauge("foedus_agent_connected", "1 while the coordinator is connected", state.phase is Phase.ONLINE)
        yield from _gauge("foedus_agent_brake_on", "1 while the brake is on", state.is_brake_on)
        yield from _gauge("foedus_agent_open_directives", "directives accepted and not done", len(state.open))
        yield from _gauge("foedus_agent_outbox", "statements that wait", len(self._journal.outbox.waiting()))
        counts = self._journal.crossings.counts()
        for name, index in (("messages", 0), ("bytes", 1)):
            metric = f"foedus_agent_outbound_{name}_total"
            yield f"# HELP {metric} {name} that left this nation, by class"
            yield f"# TYPE {metric} counter"
            yield from (f'{metric}{{class="{kind}"}} {values[index]}' for kind, values in counts.items())


def _gauge(name: str, text: str, value: int) -> Iterator[str]:
    yield f"# HELP {name} {text}"
    yield f"# TYPE {name} gauge"
    yield f"{name} {int(value)}"
