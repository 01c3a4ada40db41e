"""Every limit is finite by default, and here each of them is reached.

`REACHED` is the table: for each option what a peer, or the application, observes when it is reached.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import gevent
import gevent.pool
import gevent.socket
import pytest
from asking import KEY_FIELDS, PLAIN, UPGRADE, ask, dial, get, quiet, read_answer
from support import PATIENCE, RawClient, frame, serve, text, tls_contexts, wait_until

from geventws import ConnectionClosed, Options, RateLimit

__all__ = ["quiet"]

pytestmark = pytest.mark.usefixtures("no_leaks")


def echo(ws: Any) -> None:
    for message in ws:
        ws.send(message)


def never(ws: Any) -> None:
    raise AssertionError("no handler may run")


def wait_closed(ws: Any) -> None:
    ws.wait_closed()


def the_websocket(server: Any) -> Any:
    wait_until(lambda: server.connections)
    (ws,) = server.connections
    return ws


def reach_max_message_size() -> None:
    with serve(echo, max_message_size=10) as server:
        with RawClient.connect(server.address) as client:
            client.send(text("x" * 10))
            client.expect(0x81, b"x" * 10)
            # The header alone: no byte of the payload is waited for.
            client.send(text("x" * 11)[:6])
            client.expect_close(1009)
        with RawClient.connect(server.address) as client:
            client.send(frame(0x01, b"x" * 6), frame(0x80, b"x" * 5)[:6])
            client.expect_close(1009)


def reach_max_fragments() -> None:
    with serve(echo, max_fragments=3) as server, RawClient.connect(server.address) as client:
        client.send(frame(0x01), frame(0x00), frame(0x80, b"x"))
        client.expect(0x81, b"x")
        # Empty ones count.
        client.send(frame(0x01), frame(0x00), frame(0x00), frame(0x00))
        client.expect_close(1009)


def reach_max_queue() -> None:
    with serve(wait_closed, max_queue=2) as server, RawClient.connect(server.address) as client:
        ws = the_websocket(server)
        client.send(text("a"))
        gevent.sleep(0.01)
        assert not ws.reading_paused
        client.send(text("a") * 2)
        wait_until(lambda: ws.reading_paused)


def reach_max_queue_bytes() -> None:
    with serve(wait_closed, max_queue_bytes=100) as server, RawClient.connect(server.address) as client:
        ws = the_websocket(server)
        client.send(text("a" * 99))
        gevent.sleep(0.01)
        assert not ws.reading_paused
        client.send(text("a") * 2)
        wait_until(lambda: ws.reading_paused)


def reach_write_limit() -> None:
    sent = []

    def flood(ws: Any) -> None:
        while len(sent) < 2000:
            ws.send(b"x" * 5000)
            sent.append(1)

    with serve(flood, write_limit=20_000) as server, RawClient.connect(server.address, small=True) as client:
        ws = the_websocket(server)
        wait_until(lambda: ws.write_buffer_size > 20_000)
        before = len(sent)
        for _ in range(20):
            gevent.sleep(0)
        assert len(sent) == before < 2000
        assert ws.write_buffer_size <= 20_000 + 5004
        for _ in range(2000):
            assert len(client.read_frame()[1]) == 5000
        client.expect_close(1000)


def reach_write_timeout() -> None:
    errors: list[ConnectionClosed] = []

    def flood(ws: Any) -> None:
        try:
            while True:
                ws.send(b"x" * 65536)
        except ConnectionClosed as error:
            errors.append(error)
            raise

    with serve(flood, write_timeout=0.1) as server, RawClient.connect(server.address, small=True):
        wait_until(lambda: errors and not server.connections)
        assert "(write_timeout)" in str(errors[0])


def reach_open_timeout() -> None:
    with serve(never, open_timeout=0.1) as server, contextlib.closing(dial(server.address)) as sock:
        assert sock.recv(100) == b""
        assert server.stats.failed_handshakes == 1


def reach_close_timeout() -> None:
    with serve(lambda ws: None, close_timeout=0.1) as server, RawClient.connect(server.address) as client:
        client.expect_close(1000)
        client.expect_end()
        assert server.stats.closed_unclean == 1


def reach_ping_interval() -> None:
    with serve(echo, ping_interval=0.1) as server, RawClient.connect(server.address) as client:
        assert client.read_frame()[0] == 0x89


def reach_ping_timeout() -> None:
    with (
        serve(echo, ping_interval=0.1, ping_timeout=0.1) as server,
        RawClient.connect(server.address) as client,
    ):
        assert client.read_frame()[0] == 0x89
        client.expect_close(1011)
        client.expect_end()


def reach_stop_timeout() -> None:
    with (
        serve(echo, stop_timeout=0.1, close_timeout=None) as server,
        RawClient.connect(server.address) as client,
    ):
        server.stop()
        client.expect_close(1001)
        client.expect_end()


def reach_max_connections() -> None:
    with serve(echo, max_connections=2) as server:
        clients = [RawClient.connect(server.address) for _ in range(2)]
        assert ask(server.address, UPGRADE).status == 503
        for client in clients:
            client.close()


def reach_max_connections_per_address() -> None:
    with serve(echo, max_connections_per_address=2) as server:
        clients = [RawClient.connect(server.address) for _ in range(2)]
        assert ask(server.address, UPGRADE).status == 503
        assert server.stats.refused_address == 1
        clients.pop().close()
        wait_until(lambda: len(server.connections) == 1)
        clients.append(RawClient.connect(server.address))
        for client in clients:
            client.close()


def reach_max_handshakes() -> None:
    with serve(echo, max_handshakes=2) as server:
        waiting = [dial(server.address) for _ in range(2)]
        wait_until(lambda: len(server._opening) == 2)
        latest = dial(server.address)
        # The one that waits longest makes room, and is told; the others go on.
        assert read_answer(waiting[0]).status == 503
        latest.sendall(UPGRADE)
        assert latest.recv(100).startswith(b"HTTP/1.1 101 ")
        waiting[1].sendall(UPGRADE)
        assert waiting[1].recv(100).startswith(b"HTTP/1.1 101 ")
        assert server.stats.dropped_handshakes == 1
        for sock in (latest, *waiting):
            sock.close()


def reach_rate_limit() -> None:
    with serve(echo, rate_limit=RateLimit(messages=1, burst=3)) as server:
        with RawClient.connect(server.address) as client:
            client.send(text("a") * 4)
            for _ in range(3):
                client.expect(0x81, b"a")
            client.expect_close(1008)
        wait_until(lambda: server.stats.closes["rate_limit"] == 1)


def reach_max_line() -> None:
    with serve(never, max_line=100) as server:
        # RFC 9110 section 15.5.15, RFC 6585 section 5.
        assert ask(server.address, get(b"Host: a", line=b"GET /%s HTTP/1.1" % (b"x" * 100))).status == 414
        assert ask(server.address, get(b"Host: a", b"X-A: " + b"x" * 100)).status == 431


def reach_max_headers() -> None:
    with serve(echo, max_headers=6) as server:
        RawClient.connect(server.address, headers=b"X-A: 1\r\n").close()
        assert ask(server.address, get(*KEY_FIELDS, b"X-A: 1", b"X-B: 2")).status == 431


def reach_max_head() -> None:
    with serve(echo, max_head=300) as server:
        pad = b"X-A: %s\r\n" % (b"x" * (300 - len(UPGRADE) - 7))
        assert len(UPGRADE + pad) == 300
        RawClient.connect(server.address, headers=pad).close()
        assert ask(server.address, UPGRADE[:-2] + b"X" + pad + b"\r\n").status == 431


REACHED: dict[str, Callable[[], None]] = {
    "max_message_size": reach_max_message_size,
    "max_fragments": reach_max_fragments,
    "max_queue": reach_max_queue,
    "max_queue_bytes": reach_max_queue_bytes,
    "write_limit": reach_write_limit,
    "write_timeout": reach_write_timeout,
    "open_timeout": reach_open_timeout,
    "close_timeout": reach_close_timeout,
    "ping_interval": reach_ping_interval,
    "ping_timeout": reach_ping_timeout,
    "stop_timeout": reach_stop_timeout,
    "max_connections": reach_max_connections,
    "max_connections_per_address": reach_max_connections_per_address,
    "max_handshakes": reach_max_handshakes,
    "rate_limit": reach_rate_limit,
    "max_line": reach_max_line,
    "max_headers": reach_max_headers,
    "max_head": reach_max_head,
}

#: Options that are no limits.
CHOICES = {"compression", "subprotocols", "origins", "slow_consumer", "process_request", "trusted_proxies"}

#: Limits that tell the operator when they are reached; the others are a peer's own business.
FOR_THE_OPERATOR = {"max_connections", "max_connections_per_address", "max_handshakes"}


class TestEveryLimit:
    def test_no_limit_is_forgotten(self) -> None:
        """Who adds an option says here what is observed when it is reached, or that it is no limit."""
        names = {field.name for field in dataclasses.fields(Options)}
        assert names == REACHED.keys() | CHOICES
        assert not REACHED.keys() & CHOICES

    @pytest.mark.parametrize("name", REACHED)
    def test_limited_by_default(self, name: str) -> None:
        """T-DEF: nothing is unlimited unless somebody has said so."""
        value = getattr(Options(), name)
        assert value is not None
        if name == "max_connections_per_address":
            # No more than of all addresses together.
            assert value == "max_connections"
            value = Options().max_connections
        if name == "rate_limit":
            value = value.controls * value.burst
        assert 0 < value < 2**32

    @pytest.mark.parametrize(("name", "reach"), REACHED.items(), ids=REACHED)
    def test_reached(self, caplog: Any, capfd: Any, name: str, reach: Callable[[], None]) -> None:
        caplog.set_level(logging.DEBUG, "geventws")
        reach()
        warnings = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
        assert len(warnings) == (name in FOR_THE_OPERATOR), warnings
        assert all(record.exc_info is None for record in caplog.records)
        assert capfd.readouterr().err == ""

    @pytest.mark.parametrize("name", REACHED)
    def test_none_lifts_it(self, quiet: Any, name: str) -> None:
        with serve(echo, **{name: None}) as server, RawClient.connect(server.address) as client:
            client.send(text("x" * 300), frame(0x01), *[frame(0x00)] * 10, frame(0x80, b"x"))
            client.expect(0x81, b"x" * 300)
            client.expect(0x81, b"x")


class TestHeads:
    """Limits count what came in all, however it was cut (T-HS1, T-HS2)."""

    @pytest.mark.parametrize(
        ("begin", "endless", "status"),
        [
            (b"GET /", b"x", 414),
            (b"", b"x", 414),
            (b"GET / HTTP/1.1\r\nX-A: ", b"x", 431),
            (b"GET / HTTP/1.1\r\nHost: a\r\n", b"X-A: 1\r\n", 431),
            (b"GET / HTTP/1.1\r\nHost: a\r\n", b"X-A: %s\r\n" % (b"x" * 4000), 431),
            (b"\r\n", b"\r\n", 400),
        ],
    )
    @pytest.mark.parametrize("size", [1, 1000, 65536])
    def test_endless(self, quiet: Any, begin: bytes, endless: bytes, status: int, size: int) -> None:
        with serve(never) as server, contextlib.closing(dial(server.address)) as sock:
            reading = gevent.spawn(read_answer, sock)
            data = begin
            sent = 0
            with contextlib.suppress(OSError):
                while not reading.ready() and sent < 4_000_000:
                    if len(data) < size:
                        data += endless * (size // len(endless) + 1)
                    sock.sendall(data[:size])
                    sent += size
                    data = data[size:]
                    if size > 1 or sent % 64 == 0:
                        gevent.sleep(0)
            assert reading.get(timeout=PATIENCE).status == status
            wait_until(lambda: server.stats.refused == 1)

    @pytest.mark.parametrize(("count", "status"), [(95, 101), (96, 431), (2000, 431)])
    def test_number_of_headers(self, quiet: Any, count: int, status: int) -> None:
        with serve(echo) as server, contextlib.closing(dial(server.address)) as sock:
            sock.sendall(get(*KEY_FIELDS, *[b"X-A: 1"] * count))
            assert sock.recv(100).startswith(b"HTTP/1.1 %d " % status)

    def test_a_byte_now_and_then_does_not_move_the_deadline(self, quiet: Any) -> None:
        with serve(never, open_timeout=0.3) as server, contextlib.closing(dial(server.address)) as sock:

            def trickle() -> None:
                with contextlib.suppress(OSError):
                    for octet in UPGRADE:
                        sock.sendall(bytes((octet,)))
                        gevent.sleep(0.02)
                    raise AssertionError("the whole request was taken")

            trickling = gevent.spawn(trickle)
            with contextlib.suppress(ConnectionResetError):
                assert sock.recv(100) == b""
            wait_until(lambda: server.stats.failed_handshakes == 1)
            sock.close()
            trickling.get(timeout=PATIENCE)

    def test_many_slow_heads_do_not_hold_up_others(self, quiet: Any) -> None:
        with serve(echo, open_timeout=1) as server:
            slow = [dial(server.address) for _ in range(300)]
            for sock in slow:
                sock.sendall(b"GET / HTTP/1.1\r\n")
            wait_until(lambda: len(server._opening) == 300)
            with RawClient.connect(server.address) as client:
                client.send(text("hi"))
                client.expect(0x81, b"hi")
            for sock in slow:
                assert sock.recv(1) == b""
                sock.close()
            wait_until(lambda: not server._serving)
            assert server.stats.failed_handshakes == 300


class TestMaxConnections:
    @pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
    def test_full_and_free_again(self, caplog: Any, tls: bool) -> None:
        options: dict[str, Any] = {"ssl_context": tls_contexts()[0]} if tls else {}
        with serve(echo, max_connections=2, **options) as server:
            clients = [RawClient.connect(server.address, tls=tls) for _ in range(2)]
            for _ in range(5):
                answer = ask(server.address, UPGRADE, tls=tls)
                assert (answer.status, answer.body) == (503, b"503 Service Unavailable\n")
            # One line for the operator, not one for each.
            (record,) = [record for record in caplog.records if record.levelno >= logging.WARNING]
            assert "max_connections" in record.getMessage()
            clients[0].close()
            wait_until(lambda: len(server.connections) == 1)
            with RawClient.connect(server.address, tls=tls) as client:
                client.send(text("hi"))
                client.expect(0x81, b"hi")
            clients[1].close()

    def test_answered_before_the_request(self) -> None:
        """Whoever is refused anyway may not occupy the server until `open_timeout`."""
        with serve(echo, max_connections=1) as server, RawClient.connect(server.address):
            assert ask(server.address, b"").status == 503

    def test_those_that_are_refused_keep_nobody_out(self) -> None:
        with serve(echo, max_connections=1) as server:
            client = RawClient.connect(server.address)
            refused = [dial(server.address) for _ in range(10)]
            for sock in refused:
                assert sock.recv(100).startswith(b"HTTP/1.1 503 ")
            client.close()
            wait_until(lambda: not server.connections)
            assert server._serving == 10, "they are still being shown out"
            RawClient.connect(server.address).close()
            for sock in refused:
                sock.close()


class TestPool:
    @pytest.mark.parametrize("spawn", [lambda: 2, lambda: gevent.pool.Pool(2)], ids=["size", "pool"])
    def test_full_lets_others_wait(self, quiet: Any, spawn: Any) -> None:
        with serve(echo, spawn=spawn()) as server:
            clients = [RawClient.connect(server.address) for _ in range(2)]
            waiting = dial(server.address)
            waiting.sendall(PLAIN)
            for client in clients:
                client.send(text("hi"))
                client.expect(0x81, b"hi")
            assert server.stats.accepted == 2
            clients[0].reset()
            # It fills and empties many times.
            assert waiting.recv(1000).startswith(b"HTTP/1.1 426 ")
            waiting.close()
            for _ in range(20):
                assert ask(server.address, PLAIN).status == 426
            clients[1].close()


SERVER_WITH_FEW_DESCRIPTORS = """
import logging, resource, sys
import gevent
from geventws import WebSocketServer

logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(levelname)s %(message)s")

def echo(ws):
    for message in ws:
        ws.send(message)

server = WebSocketServer(("127.0.0.1", 0), echo, backlog=256)
server.start()
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (32, hard))
print(server.server_port, flush=True)
server.serve_forever()
print(server.stats.opened, resource.getrusage(resource.RUSAGE_SELF).ru_utime, flush=True)
"""


def test_server_survives_the_want_of_descriptors() -> None:
    """T-FD: EMFILE at accept() disturbs no client, floods no log, burns no time, and passes."""
    with subprocess.Popen(
        [sys.executable, "-c", SERVER_WITH_FEW_DESCRIPTORS],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        try:
            assert process.stdout is not None
            address = ("127.0.0.1", int(process.stdout.readline()))
            first = RawClient.connect(address)
            crowd = [dial(address) for _ in range(100)]
            for sock in crowd:
                sock.sendall(UPGRADE)
            # Some are served, and the others wait.
            assert crowd[0].recv(100).startswith(b"HTTP/1.1 101 ")
            for _ in range(100):
                first.send(text("hi"))
                first.expect(0x81, b"hi")
                gevent.sleep(0.01)
            crowd[-1].setblocking(False)
            with pytest.raises(BlockingIOError):
                crowd[-1].recv(100)
            # As they leave, those that waited are served.
            for sock in crowd[:-1]:
                sock.close()
            crowd[-1].settimeout(PATIENCE)
            assert crowd[-1].recv(100).startswith(b"HTTP/1.1 101 ")
            crowd[-1].close()
            for _ in range(10):
                RawClient.connect(address).close()
            first.close()
            process.terminate()
            gevent.sleep(0)
            out, err = process.communicate(timeout=PATIENCE)
        finally:
            process.kill()
    assert process.returncode == 0, err
    opened, seconds = out.split()
    assert int(opened) >= 12
    # About a second of it all was spent waiting: a busy loop would show.
    assert float(seconds) < 5
    lines = err.decode().splitlines()
    # One in ten seconds, whatever the number of attempts.
    assert 1 <= len(lines) <= 6
    assert all(line.startswith("ERROR cannot accept connections, trying again: ") for line in lines), lines
    assert "Too many open files" in lines[0]


def test_accept_errors_of_the_peer_are_no_shortage(quiet: Any, monkeypatch: Any) -> None:
    """ECONNABORTED: that connection is gone, the next one is accepted at once, and nothing is said."""
    failures = [ConnectionAbortedError(103, "Software caused connection abort")]

    class Listener:
        """The listening socket, whose next connection is gone when it is accepted."""

        def __init__(self, sock: Any) -> None:
            self.sock = sock

        def __getattr__(self, name: str) -> Any:
            return getattr(self.sock, name)

        def _accept(self) -> Any:
            if failures:
                raise failures.pop()
            return self.sock._accept()

    with serve(echo) as server:
        monkeypatch.setattr(server, "socket", Listener(server.socket))
        assert ask(server.address, PLAIN).status == 426
        assert not failures
        assert server._timer is None
