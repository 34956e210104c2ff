"""A TCP relay per agent: counts the bytes over its border in each direction, outside the agent.

TLS passes through unread; what is counted are payload bytes of TCP, so TLS records and HTTP/2 frames are in the sum,
TCP and IP headers are not. One relay carries all ports of one agent (the session's and Reach). Threads, since bulk
bytes pass: each direction of a connection is one blocking loop that lets go of the interpreter while it waits.
"""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

BUFFER_BYTES: Final = 256 * 1024
LOOPBACK: Final = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Passed:
    """Bytes so far: `out` left the agent, `into` reached it."""

    out: int
    into: int


class Relay:
    """Listens on loopback ports and carries each connection on to its target."""

    def __init__(self) -> None:
        self._out = self._into = 0
        self._lock = threading.Lock()
        self._listeners: list[socket.socket] = []
        self._connections: set[socket.socket] = set()
        self._is_closed = False

    def __enter__(self) -> Relay:
        return self

    def __exit__(self, *_raised: object) -> None:
        self.close()

    @property
    def passed(self) -> Passed:
        with self._lock:
            return Passed(self._out, self._into)

    def carry(self, target: tuple[str, int]) -> int:
        """Open a port whose connections go on to `target`; the port."""
        listener = socket.create_server((LOOPBACK, 0))
        self._listeners.append(listener)
        threading.Thread(target=self._accept, args=(listener, target), daemon=True).start()
        return int(listener.getsockname()[1])

    def close(self) -> None:
        """Close every port and connection. Idempotent."""
        with self._lock:
            self._is_closed = True
            opened = [*self._listeners, *self._connections]
        for each in opened:
            _shut(each)

    def _accept(self, listener: socket.socket, target: tuple[str, int]) -> None:
        while True:
            try:
                agent, _ = listener.accept()
            except OSError:
                return  # closed
            threading.Thread(target=self._connect, args=(agent, target), daemon=True).start()

    def _connect(self, agent: socket.socket, target: tuple[str, int]) -> None:
        try:
            coordinator = socket.create_connection(target)
        except OSError:
            agent.close()  # nobody there: the agent sees what it would see without a relay
            return
        with self._lock:
            self._connections |= {agent, coordinator}
            is_closed = self._is_closed
        for end in (agent, coordinator):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if is_closed:
                _shut(end)
        back = threading.Thread(target=self._pump, args=(coordinator, agent, False), daemon=True)
        back.start()
        self._pump(agent, coordinator, True)
        back.join()
        with self._lock:
            self._connections -= {agent, coordinator}
        agent.close()
        coordinator.close()

    def _pump(self, source: socket.socket, sink: socket.socket, is_outward: bool) -> None:
        """Carry one direction until its end, then close that half only."""
        buffer = memoryview(bytearray(BUFFER_BYTES))
        try:
            while count := source.recv_into(buffer):
                with self._lock:
                    self._out += count if is_outward else 0
                    self._into += 0 if is_outward else count
                sink.sendall(buffer[:count])
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            _shut(source)  # one half failed: the other must not hang on
            _shut(sink)


def _shut(opened: socket.socket) -> None:
    """Wake whoever waits on `opened` and let go of its port."""
    with suppress(OSError):  # not connected, or gone already
        opened.shutdown(socket.SHUT_RDWR)
    opened.close()
