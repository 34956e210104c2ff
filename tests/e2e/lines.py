"""A nation's line to the coordinator that a test can cut, stall and mend: loopback TCP, bytes passed on unread.

A cut line drops what is connected and every new connection at once, as a firewall that resets does. A stalled one lets
a number of bytes through and then nothing, in either direction, as a route that swallows packets does. Ports stay.
"""

from __future__ import annotations

import socket
import threading
from contextlib import suppress

BUFFER_BYTES = 16 * 1024
LOOPBACK = "127.0.0.1"


class Line:
    """Listens on one port for each target and carries connections on to it until it is closed."""

    def __init__(self, *targets: int) -> None:
        self._listeners = [socket.create_server((LOOPBACK, 0)) for _ in targets]
        self._live: set[socket.socket] = set()
        self._changed = threading.Condition()
        self._is_cut = False
        self._allowance: int | None = None
        self.passed = 0
        """Bytes so far, both directions together."""
        for listener, target in zip(self._listeners, targets, strict=True):
            threading.Thread(target=self._accept, args=(listener, target), daemon=True).start()

    @property
    def ports(self) -> list[int]:
        return [int(listener.getsockname()[1]) for listener in self._listeners]

    @property
    def is_stalled(self) -> bool:
        """Whether the allowance of `stall_after` is spent."""
        with self._changed:
            return self._allowance is not None and self._allowance <= 0

    def cut(self) -> None:
        with self._changed:
            self._is_cut = True
            dropped, self._live = self._live, set()
            self._changed.notify_all()
        for each in dropped:
            _shut(each)

    def stall_after(self, count: int) -> None:
        """Pass `count` more bytes, give or take one read, and then nothing."""
        with self._changed:
            self._allowance = count

    def mend(self) -> None:
        with self._changed:
            self._is_cut, self._allowance = False, None
            self._changed.notify_all()

    def close(self) -> None:
        """Idempotent."""
        self.cut()
        for listener in self._listeners:
            _shut(listener)

    def _accept(self, listener: socket.socket, target: int) -> None:
        while True:
            try:
                agent, _ = listener.accept()
            except OSError:
                return  # closed
            threading.Thread(target=self._carry, args=(agent, target), daemon=True).start()

    def _carry(self, agent: socket.socket, target: int) -> None:
        if self._is_cut:
            _shut(agent)
            return
        try:
            coordinator = socket.create_connection((LOOPBACK, target))
        except OSError:
            _shut(agent)  # nobody there: the agent sees what it would see without a line
            return
        ends = {agent, coordinator}
        with self._changed:
            is_cut = self._is_cut
            if not is_cut:
                self._live |= ends
        if not is_cut:
            back = threading.Thread(target=self._pump, args=(coordinator, agent), daemon=True)
            back.start()
            self._pump(agent, coordinator)
            back.join()
        with self._changed:
            self._live -= ends
        for end in ends:
            _shut(end)

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        """Carry one direction until its end, then close that half only."""
        try:
            while data := source.recv(BUFFER_BYTES):
                self._await_leave(len(data))
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            _shut(source)
            _shut(sink)

    def _await_leave(self, count: int) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._is_cut or self._allowance is None or self._allowance > 0)
            if self._allowance is not None:
                self._allowance -= count
            self.passed += count


def _shut(opened: socket.socket) -> None:
    with suppress(OSError):
        opened.shutdown(socket.SHUT_RDWR)
    opened.close()
