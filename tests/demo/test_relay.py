"""What passes a relay arrives unchanged and is counted, each way on its own."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from examples.demo.relay import LOOPBACK, Passed, Relay

QUESTION = os.urandom(300_000)
ANSWER = os.urandom(1_000_000)


def read_all(opened: socket.socket) -> bytes:
    pieces = []
    while piece := opened.recv(65536):
        pieces.append(piece)
    return b"".join(pieces)


@contextmanager
def server() -> Iterator[tuple[str, int]]:
    """Reads one question to its end, then answers."""
    with socket.create_server((LOOPBACK, 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                assert read_all(connection) == QUESTION
                connection.sendall(ANSWER)

        thread = threading.Thread(target=serve)
        thread.start()
        yield LOOPBACK, listener.getsockname()[1]
        thread.join()


def test_bytes_pass_unchanged_and_are_counted_by_direction() -> None:
    with server() as target, Relay() as relay, socket.create_connection((LOOPBACK, relay.carry(target))) as agent:
        agent.sendall(QUESTION)
        agent.shutdown(socket.SHUT_WR)
        assert read_all(agent) == ANSWER
        assert relay.passed == Passed(out=len(QUESTION), into=len(ANSWER))


def test_an_agent_sees_the_end_when_nobody_listens_behind_the_relay() -> None:
    with socket.create_server((LOOPBACK, 0)) as listener:
        gone = (LOOPBACK, int(listener.getsockname()[1]))
    with Relay() as relay, socket.create_connection((LOOPBACK, relay.carry(gone))) as agent:
        assert read_all(agent) == b""
        assert relay.passed == Passed(0, 0)


def test_a_closed_relay_lets_go_of_its_port_and_its_connections() -> None:
    with socket.create_server((LOOPBACK, 0)) as listener:
        relay = Relay()
        port = relay.carry((LOOPBACK, int(listener.getsockname()[1])))
        with socket.create_connection((LOOPBACK, port)) as agent:
            behind, _ = listener.accept()
            agent.sendall(b"hello")
            with behind:
                assert behind.recv(5) == b"hello"
                relay.close()
                assert behind.recv(1) == b""
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((LOOPBACK, port))
