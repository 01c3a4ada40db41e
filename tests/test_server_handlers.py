"""How handlers end, how they are ended, and what is left of them: nothing."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from typing import Any

import gevent
import gevent.event
import pytest
from asking import PLAIN, UPGRADE, ask, dial, quiet
from support import RawClient, close, serve, text, wait_until

from geventws import ConnectionClosed, ConnectionClosedError

__all__ = ["quiet"]

pytestmark = pytest.mark.usefixtures("no_leaks")


def echo(ws: Any) -> None:
    for message in ws:
        ws.send(message)


def still_serves(server: Any) -> None:
    """Another client is served as if nothing had happened."""
    wait_until(lambda: not server.connections and not server._serving)
    server._handler = echo
    with RawClient.connect(server.address, tls=server.ssl_enabled) as client:
        client.send(text("next"))
        client.expect(0x81, b"next")


def logged(caplog: Any) -> list[logging.LogRecord]:
    return [record for record in caplog.records if record.levelno >= logging.WARNING]


class Expected(Exception):
    """What handlers raise here."""


class TestEndings:
    def test_return_closes_with_1000(self, quiet: Any) -> None:
        with serve(lambda ws: None) as server, RawClient.connect(server.address) as client:
            client.expect_close(1000)
            client.send(close(1000))
            client.expect_end()
            client.close()
            still_serves(server)
            assert server.stats.closed_clean == 1

    @pytest.mark.parametrize(
        "error",
        [Expected("no"), SystemExit(3), SystemExit(), gevent.Timeout(), MemoryError(), StopIteration()],
        ids=repr,
    )
    def test_raising_closes_with_1011_and_logs_once(
        self, caplog: Any, capfd: Any, error: BaseException
    ) -> None:
        def handler(ws: Any) -> None:
            ws.receive()
            raise error

        with serve(handler) as server, RawClient.connect(server.address, b"/a%0ab") as client:
            client.send(text("go"))
            # The peer learns nothing of what went wrong.
            assert client.expect_close(1011) == "internal error"
            client.send(close(1011))
            client.expect_end()
            client.close()
            (record,) = logged(caplog)
            assert record.exc_info is not None
            assert record.exc_info[1] is error
            assert record.getMessage().isprintable()
            assert "/a\\nb" in record.getMessage()
            still_serves(server)
        # Not a second time by gevent.
        assert capfd.readouterr().err == ""

    def test_wrong_signature_inside_is_an_error_like_others(self, caplog: Any) -> None:
        with serve(lambda ws: echo()) as server, RawClient.connect(server.address) as client:
            client.expect_close(1011)
            client.send(close(1011))
            client.expect_end()
            client.close()
            (record,) = logged(caplog)
            assert record.exc_info is not None

    @pytest.mark.parametrize("code", [1000, 1001, 1002, 3000])
    def test_connection_closed_leaving_it_is_silent(self, quiet: Any, code: int) -> None:
        def handler(ws: Any) -> None:
            while True:
                ws.send(ws.receive())

        with serve(handler) as server, RawClient.connect(server.address) as client:
            client.send(close(code))
            client.expect_close(code)
            client.expect_end()
            client.close()
            still_serves(server)

    def test_connection_reset_under_it_is_silent(self, quiet: Any) -> None:
        with serve(echo) as server:
            client = RawClient.connect(server.address)
            client.reset()
            still_serves(server)
            assert (server.stats.closed_clean, server.stats.closed_unclean) == (0, 1)

    def test_connection_closed_of_another_connection_is_an_error(self, caplog: Any) -> None:
        """A proxy's upstream, a member of a room: this connection is still open, and something is wrong."""

        def handler(ws: Any) -> None:
            raise ConnectionClosedError(detail="upstream")

        with serve(handler) as server, RawClient.connect(server.address) as client:
            client.expect_close(1011)
            client.send(close(1011))
            client.expect_end()
            client.close()
            assert len(logged(caplog)) == 1

    def test_keyboard_interrupt_goes_through_to_the_main_greenlet(self) -> None:
        def handler(ws: Any) -> None:
            raise KeyboardInterrupt

        with serve(handler) as server:
            with contextlib.closing(dial(server.address)) as sock:
                sock.sendall(UPGRADE)
                with pytest.raises(KeyboardInterrupt):
                    # gevent raises it here, wherever the handler's greenlet was.
                    gevent.sleep(10)
                data = b""
                with contextlib.suppress(ConnectionResetError):
                    while chunk := sock.recv(4096):
                        data += chunk
                assert data.partition(b"\r\n\r\n")[2][:4] == b"\x88\x02\x03\xf3"
            still_serves(server)

    def test_handler_closes_itself_and_returns_later(self, quiet: Any) -> None:
        after = []

        def handler(ws: Any) -> None:
            ws.close(4000, "mine")
            after.append((ws.closed, ws.close_code, ws in server.connections))

        with serve(handler) as server, RawClient.connect(server.address) as client:
            assert client.expect_close(4000) == "mine"
            client.send(close(4000))
            client.expect_end()
            client.close()
            still_serves(server)
            assert after == [(True, 4000, False)]

    def test_handler_outlives_its_connection(self, quiet: Any) -> None:
        """The descriptor is free while the handler is still busy, and is not closed a second time."""
        go = gevent.event.Event()

        def handler(ws: Any) -> None:
            go.wait()

        with serve(handler) as server:
            client = RawClient.connect(server.address)
            client.reset()
            wait_until(lambda: not server.connections)
            # Its number is now that of others.
            socks = [dial(server.address) for _ in range(4)]
            wait_until(lambda: server.stats.accepted == 5)
            go.set()
            wait_until(lambda: server._serving == 4)
            for sock in socks:
                sock.sendall(PLAIN)
                assert sock.recv(100).startswith(b"HTTP/1.1 426 ")
                sock.close()

    def test_peer_never_answers_the_close(self, quiet: Any) -> None:
        with (
            serve(lambda ws: None, close_timeout=0.05) as server,
            RawClient.connect(server.address) as client,
        ):
            client.expect_close(1000)
            still_serves(server)
            assert server.stats.closed_unclean == 1

    def test_peer_floods_after_our_close(self, quiet: Any) -> None:
        with serve(lambda ws: None, close_timeout=0.2) as server, RawClient.connect(server.address) as client:
            client.expect_close(1000)

            def flood() -> None:
                with contextlib.suppress(OSError):
                    while True:
                        client.send(text("x" * 60000))

            flooding = gevent.spawn(flood)
            still_serves(server)
            flooding.get(timeout=20)

    def test_timeout_left_running_by_the_handler(self, quiet: Any) -> None:
        """It strikes while the WebSocket closes."""
        timeout = gevent.Timeout(0.05)

        def handler(ws: Any) -> None:
            timeout.start()

        with (
            contextlib.closing(timeout),
            serve(handler) as server,
            RawClient.connect(server.address) as client,
        ):
            client.expect_close(1000)
            client.expect_end()
            client.close()
            still_serves(server)


def wait_in_receive(ws: Any, _: RawClient) -> None:
    ws.receive()


def wait_in_iteration(ws: Any, _: RawClient) -> None:
    for _message in ws:
        pass


def wait_in_send(ws: Any, _: RawClient) -> None:
    while True:
        ws.send(b"x" * 100_000)


def wait_in_fragments(ws: Any, _: RawClient) -> None:
    def fragments() -> Any:
        yield b"one"
        gevent.sleep(100)

    ws.send_fragments(fragments())


def wait_for_pong(ws: Any, _: RawClient) -> None:
    ws.ping().wait()


def wait_in_close(ws: Any, _: RawClient) -> None:
    ws.close(4001)


def wait_in_wait_closed(ws: Any, _: RawClient) -> None:
    ws.wait_closed()


def wait_asleep(ws: Any, _: RawClient) -> None:
    gevent.sleep(100)


WAITS: dict[str, tuple[Callable[[Any, RawClient], None], int]] = {
    "receive": (wait_in_receive, 1001),
    "iteration": (wait_in_iteration, 1001),
    "send": (wait_in_send, 1001),
    "fragments": (wait_in_fragments, 1011),
    "pong": (wait_for_pong, 1001),
    "close": (wait_in_close, 4001),
    "wait_closed": (wait_in_wait_closed, 1001),
    "sleep": (wait_asleep, 1001),
}


class TestKilled:
    @pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
    @pytest.mark.parametrize(("wait", "code"), WAITS.values(), ids=WAITS)
    def test_killed_while_it_waits(self, quiet: Any, wait: Any, code: int, tls: bool) -> None:
        found = []

        def handler(ws: Any) -> None:
            found.append(gevent.getcurrent())
            wait(ws, None)

        options: dict[str, Any] = {"write_limit": 1000}
        if tls:
            from support import tls_contexts

            options["ssl_context"] = tls_contexts()[0]
        with serve(handler, **options) as server:
            with RawClient.connect(server.address, tls=tls, small=wait is wait_in_send) as client:
                wait_until(lambda: found)
                for _ in range(10):
                    gevent.sleep(0)
                found[0].kill(block=False)
                while (frame := client.read_frame())[0] != 0x88:
                    # Whole frames, up to the Close.
                    assert frame[0] in (0x82, 0x89, 0x02)
                assert int.from_bytes(frame[1][:2], "big") == code
                client.send(close(code))
                client.expect_end()
                client.close()
            wait_until(lambda: found[0].dead)
            still_serves(server)

    def test_killed_before_its_first_turn(self, quiet: Any) -> None:
        with serve(echo) as server:
            client = RawClient.connect(server.address)
            for greenlet in list(server.pool):
                greenlet.kill(block=False)
            client.expect_close(1001)
            client.close()
            still_serves(server)

    @pytest.mark.parametrize("sent", [b"", b"GET / HTTP/1.1\r\nHost"])
    def test_killed_in_the_opening_handshake(self, quiet: Any, sent: bytes) -> None:
        with serve(echo) as server, contextlib.closing(dial(server.address)) as sock:
            sock.sendall(sent)
            wait_until(lambda: server._opening)
            for greenlet in list(server.pool):
                greenlet.kill()
            with contextlib.suppress(ConnectionResetError):
                assert sock.recv(100) == b""
            still_serves(server)
            assert server.stats.failed_handshakes == 1

    def test_killed_while_it_refuses(self, quiet: Any) -> None:
        with serve(echo) as server, contextlib.closing(dial(server.address)) as sock:
            sock.sendall(PLAIN)
            assert sock.recv(100).startswith(b"HTTP/1.1 426 ")
            for greenlet in list(server.pool):
                greenlet.kill()
            still_serves(server)
            stats = server.stats
            assert (stats.refused, stats.failed_handshakes, server._refusing) == (1, 0, 0)

    def test_killed_twice(self, quiet: Any) -> None:
        """Once in the handler, once more while it waits for the peer's Close: that ends it at once."""
        found = []

        def handler(ws: Any) -> None:
            found.append(gevent.getcurrent())
            ws.receive()

        with serve(handler, close_timeout=100) as server, RawClient.connect(server.address) as client:
            wait_until(lambda: found)
            found[0].kill(block=False)
            client.expect_close(1001)
            found[0].kill()
            client.expect_end()
            client.close()
            still_serves(server)


class TestStats:
    def test_counts(self, quiet: Any) -> None:
        with serve(echo) as server:
            with RawClient.connect(server.address) as client:
                (ws,) = server.connections
                assert ws.request.path == "/"
                client.send(text("one"), text("two"), close())
                client.read_frames()
            ask(server.address, PLAIN)
            dial(server.address).close()
            client = RawClient.connect(server.address)
            client.send(b"\xff\xff")
            client.expect_close(1002)
            client.close()
            wait_until(lambda: not server._serving and server.stats.accepted == 4)
            stats = server.stats
            assert (stats.opened, stats.refused, stats.failed_handshakes) == (2, 1, 1)
            assert (stats.closed_clean, stats.closed_unclean) == (1, 1)
            assert (stats.messages_received, stats.messages_sent) == (2, 2)
            # Two messages and a Close; a violation of two bytes. The other way the same, and a Close.
            assert stats.bytes_received == 2 * 9 + 8 + 2
            assert stats.bytes_sent >= 2 * 5 + 4 + 4
            assert not server.connections

    def test_writes_that_time_out(self, quiet: Any) -> None:
        def flood(ws: Any) -> None:
            while True:
                ws.send(bytes(65536))

        with (
            serve(flood, write_limit=1000, write_timeout=0.05) as server,
            RawClient.connect(server.address, small=True) as client,
        ):
            wait_until(lambda: server.stats.closed_unclean == 1)
            assert (server.stats.write_timeouts, server.stats.ping_timeouts) == (1, 0)
            client.close()

    def test_pings_that_time_out(self, quiet: Any) -> None:
        with (
            serve(echo, ping_interval=0.05, ping_timeout=0.05) as server,
            RawClient.connect(server.address) as client,
        ):
            wait_until(lambda: server.stats.closed_unclean == 1)
            assert (server.stats.write_timeouts, server.stats.ping_timeouts) == (0, 1)
            client.close()

    def test_connections_hold_only_the_open_ones(self, quiet: Any) -> None:
        with serve(echo) as server:
            clients = [RawClient.connect(server.address) for _ in range(20)]
            wait_until(lambda: len(server.connections) == 20)
            for client in clients[:5]:
                client.send(close())
            for client in clients[5:10]:
                client.reset()
            for client in clients[10:15]:
                client.close()
            for client in clients[:5]:
                client.expect_close(1000)
                client.close()
            wait_until(lambda: len(server.connections) == 5)
            for ws in list(server.connections):
                ws.abort()
            assert not server.connections
            for client in clients:
                client.close()

    def test_connection_closed_error_tells_how_it_ended(self, quiet: Any) -> None:
        errors: list[ConnectionClosed] = []

        def handler(ws: Any) -> None:
            try:
                ws.receive()
            except ConnectionClosed as error:
                errors.append(error)
                raise

        with serve(handler) as server:
            with RawClient.connect(server.address) as client:
                client.send(close(1001, b"bye"))
                client.expect_close(1001)
            wait_until(lambda: errors)
            assert (errors[0].code, errors[0].reason) == (1001, "bye")


def end_with_close(address: Any) -> None:
    with RawClient.connect(address) as client:
        client.send(close())
        client.expect_close(1000)
        client.expect_end()
        client.close()


def end_with_reset(address: Any) -> None:
    RawClient.connect(address).reset()


def end_half(address: Any) -> None:
    import socket

    with RawClient.connect(address) as client:
        client.socket.shutdown(socket.SHUT_WR)
        client.read_frames()


def be_refused(address: Any) -> None:
    assert ask(address, PLAIN).status == 426


def end_before_the_request(address: Any) -> None:
    dial(address).close()


class TestCycles:
    @pytest.mark.parametrize(
        "cycle", [end_with_close, end_with_reset, end_half, be_refused, end_before_the_request]
    )
    def test_a_thousand_leave_nothing(self, quiet: Any, cycle: Callable[[Any], None]) -> None:
        """The fixture `no_leaks` compares descriptors and greenlets with those before."""
        with serve(echo) as server:
            for _ in range(1000):
                cycle(server.address)
            wait_until(lambda: server.stats.accepted == 1000 and not server._serving)
            assert not server.connections
            assert not server._opening
            assert len(server.pool) == 0
