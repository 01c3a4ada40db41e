"""Who is let in: connections in all, of one address, without a request; and what is left when all is full."""

from __future__ import annotations

import contextlib
import errno
import gc
import logging
import os
import socket as std_socket
from typing import Any

import gevent
import gevent.pool
import gevent.socket
import pytest
from asking import PLAIN, UPGRADE, ask, dial, quiet, read_answer
from support import HANDSHAKE, PATIENCE, RawClient, serve, text, tls_contexts, wait_until

import geventws.admission
import geventws.opening
from geventws import WebSocketServer

__all__ = ["quiet"]

pytestmark = pytest.mark.usefixtures("no_leaks")


def echo(ws: Any) -> None:
    for message in ws:
        ws.send(message)


def works(client: RawClient) -> None:
    client.send(text("hi"))
    client.expect(0x81, b"hi")


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def tls(on: bool) -> dict[str, Any]:
    return {"ssl_context": tls_contexts()[0]} if on else {}


class TestFull:
    def test_p0_19_silent_clients_take_no_place_of_an_open_connection(self) -> None:
        with serve(echo, max_connections=1) as server:
            silent = [dial(server.address) for _ in range(5)]
            wait_until(lambda: len(server._opening) == 5)
            with RawClient.connect(server.address) as client:
                works(client)
                # One of those that waited asks now: there is no place any more.
                silent[0].sendall(UPGRADE)
                assert read_answer(silent[0]).status == 503
            for sock in silent:
                sock.close()

    def test_p0_19_full_is_said_before_tls_where_nobody_can_be_told(self, monkeypatch: Any) -> None:
        monkeypatch.setattr(geventws.opening, "MAX_REFUSING", 2)
        with (
            serve(echo, max_connections=1, **tls(True)) as server,
            RawClient.connect(server.address, tls=True) as client,
        ):
            # These two could be told, if they did their handshake; no other waits behind them.
            silent = [dial(server.address) for _ in range(2)]
            wait_until(lambda: server._refusing == 2)
            closed = dial(server.address)
            assert closed.recv(100) == b""
            assert server.stats.unanswered == 1
            works(client)
            for sock in (closed, *silent):
                sock.close()
            wait_until(lambda: server._refusing == 0)
            assert ask(server.address, b"", tls=True).status == 503

    def test_p0_19_those_that_are_refused_are_limited_too(self, monkeypatch: Any) -> None:
        """Refusing takes until the peer has ended TCP: a flood of refused requests must not pile up."""
        monkeypatch.setattr(geventws.opening, "MAX_REFUSING", 3)
        with serve(echo) as server:
            socks = [dial(server.address) for _ in range(10)]
            for sock in socks:
                sock.sendall(PLAIN)
                assert sock.recv(1000).startswith(b"HTTP/1.1 426 ")
            # None has ended TCP; three are waited for.
            wait_until(lambda: server._serving == 3)
            assert server.stats.refused == server.stats.refusals[426] == 10
            for sock in socks:
                sock.close()

    def test_endless_answers_count_as_connections(self, monkeypatch: Any) -> None:
        """Those beyond the number that may be refused at a time take places of `max_connections`."""
        monkeypatch.setattr(geventws.admission, "MAX_REFUSING", 1)
        with serve(echo, max_connections=2) as server:
            server._refusing = server._serving = 4
            assert server._check_room() is not None
            server._serving = 3
            assert server._check_room() is None
            server._refusing = server._serving = 0


class TestAddresses:
    def test_p1_36_one_address(self, caplog: Any) -> None:
        with serve(echo, max_connections_per_address=2) as server:
            clients = [RawClient.connect(server.address) for _ in range(2)]
            for _ in range(3):
                assert ask(server.address, b"").status == 503
            # Another address of this machine.
            other = gevent.socket.socket()
            other.settimeout(PATIENCE)
            other.bind(("127.0.0.2", 0))
            other.connect(server.address)
            other.sendall(UPGRADE)
            assert other.recv(100).startswith(b"HTTP/1.1 101 ")
            other.close()
            (line,) = warnings(caplog)
            assert "refusing connections of 127.0.0.1: 2 are open (max_connections_per_address)" in line
            assert server.stats.refused_address == 3
            for client in clients:
                client.close()
            wait_until(lambda: not server.connections)
            assert len(server._addresses) == 0

    @pytest.mark.parametrize("way", ["silent", "refused", "failed", "reset", "open"])
    def test_all_are_counted_out(self, quiet: Any, way: str) -> None:
        with serve(echo, max_connections_per_address=1, open_timeout=0.2) as server:
            for _ in range(3):
                with contextlib.closing(dial(server.address)) as sock:
                    if way == "refused":
                        sock.sendall(PLAIN)
                    elif way == "failed":
                        sock.sendall(b"nonsense\r\n\r\n")
                    elif way == "open":
                        sock.sendall(UPGRADE)
                    if way == "reset":
                        sock.setsockopt(std_socket.SOL_SOCKET, std_socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                    else:
                        sock.recv(1000)
                wait_until(lambda: not server._serving)
                assert len(server._addresses) == 0
            assert server.stats.refused_address == 0

    def test_p1_36_clients_of_a_trusted_proxy_are_told_apart(self, caplog: Any) -> None:
        with serve(echo, max_connections_per_address=1, trusted_proxies=["127.0.0.1"]) as server:

            def connect(client: bytes) -> RawClient:
                return RawClient.connect(server.address, headers=b"X-Forwarded-For: %s\r\n" % client)

            clients = [connect(b"192.0.2.%d" % number) for number in range(5)]
            forged = UPGRADE[:-2] + b"X-Forwarded-For: 198.51.100.1, 192.0.2.3\r\n\r\n"
            assert ask(server.address, forged).status == 503
            # The refused one is not counted, and a decision against one counts it out.
            plain = PLAIN[:-2] + b"X-Forwarded-For: 192.0.2.9\r\n\r\n"
            assert ask(server.address, plain).status == ask(server.address, plain).status == 426
            clients.pop().close()
            wait_until(lambda: len(server.connections) == 4)
            clients.append(connect(b"192.0.2.4"))
            for client in clients:
                works(client)
                client.close()
            wait_until(lambda: not server.connections)
            assert len(server._addresses) == 0
            assert not server._keys

    def test_p0_12_nobody_else_is_believed(self) -> None:
        with serve(echo, max_connections_per_address=1) as server, RawClient.connect(server.address):
            forged = UPGRADE[:-2] + b"X-Forwarded-For: 192.0.2.3\r\n\r\n"
            assert ask(server.address, forged).status == 503

    def test_a_unix_socket_has_none(self, tmp_path: Any) -> None:
        listener = gevent.socket.socket(std_socket.AF_UNIX)
        path = str(tmp_path / "socket")
        listener.bind(path)
        listener.listen()
        server = WebSocketServer(listener, echo, max_connections_per_address=1)
        server.start()
        try:
            for _ in range(2):
                sock = dial(path, family=std_socket.AF_UNIX)
                sock.sendall(UPGRADE)
                assert sock.recv(100).startswith(b"HTTP/1.1 101 ")
                sock.close()
        finally:
            server.stop(PATIENCE)


class TestHandshakes:
    @pytest.mark.parametrize("on", [False, True], ids=["plain", "tls"])
    def test_p0_03_who_asks_is_served_beside_many_that_do_not(self, caplog: Any, on: bool) -> None:
        """A flood of half-open handshakes: each new one drops the oldest, and nobody else waits."""
        with serve(echo, max_handshakes=20, open_timeout=20, **tls(on)) as server:
            silent = []
            for number in range(60):
                sock = dial(server.address)
                silent.append(sock)
                if not on and number % 2:
                    sock.sendall(b"GET / HTTP/1.1\r\n")
                if number % 10 == 9:
                    with RawClient.connect(server.address, tls=on) as client:
                        works(client)
            wait_until(lambda: server.stats.dropped_handshakes >= 40)
            assert len(server._opening) <= 20
            # The first ones have been told, where that is possible.
            assert silent[0].recv(100).startswith(b"" if on else b"HTTP/1.1 503 ")
            assert len(warnings(caplog)) == 1
            assert "(max_handshakes)" in warnings(caplog)[0]
            for sock in silent:
                sock.close()
            wait_until(lambda: not server._serving)
            assert not server._opening

    def test_dropped_in_the_middle_of_a_head(self, quiet: Any) -> None:
        with serve(echo) as server:
            sock = dial(server.address)
            sock.sendall(UPGRADE[:-1])
            wait_until(lambda: server._opening)
            server._drop_oldest()
            # RFC 9110 section 15.6.4; what it sends now is read by nobody.
            sock.sendall(UPGRADE[-1:])
            assert read_answer(sock).status == 503
            sock.close()
            assert server.stats.opened == 0


class Shortage:
    """The listening socket, where accept() fails for a while."""

    def __init__(self, sock: Any, number: int, times: int) -> None:
        self.sock = sock
        self.number = number
        self.left = times

    def __getattr__(self, name: str) -> Any:
        return getattr(self.sock, name)

    def _accept(self) -> Any:
        if self.left:
            self.left -= 1
            raise OSError(self.number, os.strerror(self.number))
        return self.sock._accept()


class TestShortage:
    @pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM])
    def test_p0_19_accepting_goes_on_after_a_shortage(
        self, caplog: Any, monkeypatch: Any, number: int
    ) -> None:
        with serve(echo) as server:
            monkeypatch.setattr(server, "socket", Shortage(server.socket, number, 3))
            with RawClient.connect(server.address) as client:
                works(client)
            assert server.stats.accept_failures == 3
        # One line, whatever the number of attempts, and no traceback.
        (record,) = [record for record in caplog.records if record.levelno >= logging.WARNING]
        assert record.getMessage().startswith("cannot accept connections, trying again: ")
        assert record.exc_info is None

    def test_p0_19_those_that_have_waited_long_make_room(self, monkeypatch: Any) -> None:
        with serve(echo, open_timeout=20) as server:
            old = dial(server.address)
            wait_until(lambda: server._opening)
            (key,) = server._opening
            server._opening[key] -= 5
            young = dial(server.address)
            wait_until(lambda: len(server._opening) == 2)
            monkeypatch.setattr(server, "socket", Shortage(server.socket, errno.EMFILE, 2))
            with RawClient.connect(server.address) as client:
                works(client)
            assert read_answer(old).status == 503
            young.sendall(UPGRADE)
            assert young.recv(100).startswith(b"HTTP/1.1 101 ")
            assert server.stats.dropped_handshakes == 1
            old.close()
            young.close()


class TestKilledBeforeTheFirstTurn:
    @pytest.mark.parametrize("spawn", ["default", 5, gevent.pool.Pool], ids=["default", "size", "pool"])
    def test_its_socket_is_closed(self, quiet: Any, spawn: Any) -> None:
        """A ResourceWarning, which is an error here, would tell of a socket that is left to the collector."""
        pool = spawn() if callable(spawn) else spawn
        server = WebSocketServer(("127.0.0.1", 0), echo, spawn=pool)
        server.init_socket()
        try:
            sock = dial(server.address)
            accepted = None
            while accepted is None:
                gevent.sleep(0.001)
                accepted = server.do_read()
            server.do_handle(*accepted)
            del accepted
            (greenlet,) = server.pool.greenlets
            greenlet.kill()
            del greenlet
            gc.collect()
            assert sock.recv(1) == b""
            sock.close()
            assert server.stats.accepted == 0
        finally:
            server.stop(0)


def test_a_flood_of_bad_requests_is_not_one_of_log_lines(caplog: Any) -> None:
    """T-LOG2."""
    caplog.set_level(logging.INFO, "geventws")
    with serve(echo) as server:
        before = logging.getLogger("geventws").handlers
        for _ in range(400):
            assert ask(server.address, b"nonsense\r\n\r\n").status == 400
        assert server.stats.refusals == {400: 400}
        seconds = {int(record.created) for record in caplog.records}
        # Fifty in each second of another clock; those that were left out are told of.
        assert len(caplog.records) <= 50 * (len(seconds) + 1)
        assert logging.getLogger("geventws").handlers == before


@pytest.mark.parametrize(
    "request_",
    [
        b"GET /" + b"\x81" * 8000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
        (HANDSHAKE % (b"/", b"Connection: %s\r\n" % (b"x" * 8000) * 6)).replace(b": Upgrade", b": y"),
        HANDSHAKE % (b"/" + b"%00" * 2500, b"Origin: http://evil.example\r\n"),
    ],
    ids=["target", "connection", "path"],
)
def test_a_line_about_a_bad_request_is_short(caplog: Any, request_: bytes) -> None:
    """Fifty of 56 KiB in a second would be a quarter of a terabyte of log in a day."""
    caplog.set_level(logging.INFO, "geventws")
    with serve(echo) as server:
        assert ask(server.address, request_).status >= 400
    lines = [record.getMessage() for record in caplog.records if "127.0.0.1" in record.getMessage()]
    assert len(lines) == 1
    assert len(lines[0]) < 4000
    assert "characters" in lines[0]
