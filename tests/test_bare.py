"""bare.py: a socket of the system behaves for a greenlet as one of gevent would."""

from __future__ import annotations

import errno
import socket as std_socket
from collections.abc import Callable
from typing import Any

import gevent
import gevent.socket
import pytest
from scripted import Connection, scripted
from support import PATIENCE

from geventws.bare import BareSocket, gevent_socket

pytestmark = pytest.mark.usefixtures("no_leaks")


def talk(script: Callable[[Connection], Any], use: Callable[[BareSocket], Any]) -> Any:
    """Connect to a scripted server, and return what `use` returns."""
    with scripted(script) as server, gevent.Timeout(PATIENCE):
        sock = BareSocket(std_socket.AF_INET)
        try:
            assert sock.address is None
            sock.connect(server.address)
            assert sock.address == sock.socket.getpeername() == server.address
            return use(sock)
        finally:
            sock.close()


def test_bytes_that_come_later_are_waited_for() -> None:
    def script(connection: Connection) -> None:
        gevent.sleep(0)
        connection.send(b"late")

    assert talk(script, lambda sock: (sock.recv(100), sock.recv(100))) == (b"late", b"")


def test_more_is_sent_than_the_system_takes_at_once() -> None:
    data = bytes(range(256)) * 40_000

    def script(connection: Connection) -> None:
        connection.send(b"same" if connection.read_bytes(len(data)) == data else b"else")

    def use(sock: BareSocket) -> bytes:
        sock.sendall(data)
        return sock.recv(100)

    assert talk(script, use) == b"same"


def test_refused() -> None:
    with std_socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        sock = BareSocket(std_socket.AF_INET)
        with pytest.raises(ConnectionRefusedError) as caught:
            sock.connect(closed.getsockname())
        sock.close()
    assert caught.value.errno == errno.ECONNREFUSED
    assert sock.address is None


def test_connecting_that_takes_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    """A peer on this machine has mostly answered by the second look; here the system is asked later."""
    script = lambda connection: connection.send(b"x")  # noqa: E731
    with scripted(script) as server, gevent.Timeout(PATIENCE):
        sock = BareSocket(std_socket.AF_INET)
        answers = [errno.EINPROGRESS, errno.EALREADY]
        real = sock.socket

        class Slow:
            def connect_ex(self, address: Any) -> int:
                found = real.connect_ex(address)
                return answers.pop(0) if answers else found

            def fileno(self) -> int:
                return int(real.fileno())

        sock.socket = Slow()
        sock.connect(server.address)
        sock.socket = real
        assert answers == []
        assert sock.recv(1) == b"x"
        sock.close()


def test_killed_while_it_waits() -> None:
    with scripted() as server:
        sock = BareSocket(std_socket.AF_INET)
        sock.connect(server.address)
        reading = gevent.spawn(sock.recv, 1)
        gevent.sleep(0)
        reading.kill(timeout=PATIENCE)
        assert reading.dead
        sock.close()


def test_gevent_takes_it_over() -> None:
    def use(sock: BareSocket) -> bytes:
        taken = gevent_socket(sock)
        assert isinstance(taken, gevent.socket.socket)
        # The descriptor is not its own any more.
        sock.close()
        with taken:
            return bytes(taken.recv(1))

    assert talk(lambda connection: connection.send(b"x"), use) == b"x"
