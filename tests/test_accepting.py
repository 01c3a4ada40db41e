"""Accepting connections: what they inherit, which socket `handle` gets, and the first answer."""

from __future__ import annotations

import _socket
import socket as std_socket
from collections.abc import Iterator
from typing import Any

import gevent
import gevent.socket
import pytest
from gevent.pool import Pool
from support import PATIENCE, RawClient, close, serve, socket_pair, text, wait_until

from geventws import WebSocketServer
from geventws.bare import gevent_socket, send_all

pytestmark = pytest.mark.usefixtures("no_leaks")

KEEPIDLE = (std_socket.IPPROTO_TCP, std_socket.TCP_KEEPIDLE)
NODELAY = (std_socket.IPPROTO_TCP, std_socket.TCP_NODELAY)


def echo(ws: Any) -> None:
    for message in ws:
        ws.send(message)


class Spy:
    """A `spawn` that keeps what it was given."""

    def __init__(self) -> None:
        self.sockets: list[Any] = []

    def __call__(self, handle: Any, sock: Any, *rest: Any) -> Any:
        self.sockets.append(sock)
        return gevent.spawn(handle, sock, *rest)


def talk(server: Any) -> RawClient:
    """Open a WebSocket and see that it works."""
    client = RawClient.connect(server.address)
    client.send(text("Hello"))
    client.expect(0x81, b"Hello")
    return client


def end(client: RawClient) -> None:
    client.send(close())
    client.expect_close(1000)
    client.expect_end()
    client.close()


class TestInheritance:
    """What every connection has, it has from the listening socket."""

    def test_connections_have_it(self) -> None:
        spy = Spy()
        with serve(echo, spawn=spy, ping_interval=17) as server:
            client = talk(server)
            assert spy.sockets[0].getsockopt(*KEEPIDLE) == 17
            assert spy.sockets[0].getsockopt(*NODELAY)
            end(client)

    def test_so_has_one_that_was_in_the_backlog_before(self) -> None:
        listener = gevent.socket.socket()
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        spy = Spy()
        early = std_socket.create_connection(listener.getsockname())
        server = WebSocketServer(listener, echo, spawn=spy, ping_interval=17)
        server.start()
        try:
            client = talk(server)
            wait_until(lambda: len(spy.sockets) == 2)
            # The first is `early`, which has sent nothing yet; its greenlet was started before the client's.
            assert [sock.getsockopt(*KEEPIDLE) for sock in spy.sockets] == [17, 17]
            end(client)
        finally:
            early.close()
            server.stop(PATIENCE)

    def test_a_unix_socket_needs_nothing(self, tmp_path: Any) -> None:
        listener = gevent.socket.socket(std_socket.AF_UNIX)
        listener.bind(str(tmp_path / "socket"))
        listener.listen()
        server = WebSocketServer(listener, echo)
        server.start()
        try:
            assert server._inherited is None
        finally:
            server.stop(PATIENCE)


class TestHandle:
    """Which socket `handle` gets."""

    def test_ours_gets_one_of_the_system(self) -> None:
        spy = Spy()
        with serve(echo, spawn=spy) as server:
            end(talk(server))
        (sock,) = spy.sockets
        assert type(sock) is _socket.socket
        assert sock.fileno() == -1, "it must be closed"

    def test_one_of_a_subclass_gets_one_of_gevent_that_is_closed_behind_it(self) -> None:
        seen = []

        class Server(WebSocketServer):
            def handle(self, sock: Any, address: Any) -> None:
                seen.append(sock)
                if len(seen) == 1:
                    sock.sendall(b"go away")
                    return
                super().handle(sock, address)

        server = Server(("127.0.0.1", 0), echo)
        server.start()
        try:
            with std_socket.create_connection(server.address, PATIENCE) as refused:
                refused = gevent.socket.socket(fileno=refused.detach())
                assert refused.recv(100) == b"go away"
                assert refused.recv(100) == b""
                refused.close()
            end(talk(server))
        finally:
            server.stop(PATIENCE)
        assert [type(sock) for sock in seen] == [gevent.socket.socket] * 2
        assert [sock.fileno() for sock in seen] == [-1, -1]

    def test_that_cannot_be_spawned(self, capsys: pytest.CaptureFixture[str]) -> None:
        sockets = []

        def spawn(handle: Any, sock: Any, *rest: Any) -> Any:
            sockets.append(sock)
            if len(sockets) == 1:
                raise RuntimeError("no greenlets left")
            return gevent.spawn(handle, sock, *rest)

        with serve(echo, spawn=spawn) as server:
            refused = gevent.socket.socket()
            refused.settimeout(PATIENCE)
            refused.connect(server.address)
            assert refused.recv(100) == b""
            refused.close()
            end(talk(server))
        assert sockets[0].fileno() == -1
        assert "no greenlets left" in capsys.readouterr().err


class TestGreenlets:
    """The default pool is one like others, without a limit."""

    def test_holds_those_that_run(self) -> None:
        with serve(echo) as server:
            assert isinstance(server.pool, Pool)
            assert len(server.pool) == 0
            assert not server.pool.full()
            clients = [talk(server) for _ in range(3)]
            assert len(server.pool) == 3
            assert not server.pool.join(timeout=0)
            for client in clients:
                end(client)
            assert server.pool.join(timeout=PATIENCE)
            assert len(server.pool) == 0

    def test_kills_those_that_have_not_begun(self) -> None:
        with serve(echo) as server:
            ran = []
            server.pool.spawn(ran.append, 1)
            server.pool.kill(timeout=PATIENCE)
            assert ran == []
            assert len(server.pool) == 0


class TestSendAll:
    """The 101 goes out at once, or waits within `write_timeout`."""

    @pytest.fixture
    def pair(self) -> Iterator[tuple[Any, Any]]:
        theirs, ours = socket_pair(small=True)
        ours = _socket.socket(ours.family, ours.type, ours.proto, ours.detach())
        ours.setblocking(False)
        yield ours, theirs
        ours.close()
        theirs.close()

    def test_at_once(self, pair: Any) -> None:
        ours, theirs = pair
        send_all(ours, b"Hello", None)
        assert theirs.recv(100) == b"Hello"

    def test_more_than_the_system_takes(self, pair: Any) -> None:
        ours, theirs = pair
        data = bytes(range(256)) * 8192
        sending = gevent.spawn(send_all, ours, data, PATIENCE)
        received = bytearray()
        with gevent.Timeout(PATIENCE):
            while len(received) < len(data):
                received += theirs.recv(65536)
        assert received == data
        sending.get(timeout=PATIENCE)

    def test_the_time_is_over(self, pair: Any) -> None:
        ours, _ = pair
        with pytest.raises(TimeoutError, match="timed out"):
            send_all(ours, bytes(4_000_000), 0.01)

    def test_the_peer_is_gone(self, pair: Any) -> None:
        ours, theirs = pair
        theirs.close()
        data = bytes(4_000_000)
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            send_all(ours, data, PATIENCE)

    def test_through_a_socket_of_gevent(self, pair: Any) -> None:
        ours, theirs = pair
        wrapped = gevent_socket(ours)
        assert ours.fileno() == -1
        assert gevent_socket(wrapped) is wrapped
        send_all(wrapped, b"Hello", 1)
        assert theirs.recv(100) == b"Hello"
        wrapped.close()
