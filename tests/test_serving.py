"""Agreeing on a connection, and running a handler to the end of it."""

from __future__ import annotations

import logging
import socket as std_socket
from collections.abc import Callable
from typing import Any

import gevent
import pytest
from gevent.event import Event
from support import HANDSHAKE, PATIENCE, RawClient, close, opened, serve, text, wait_until

from geventws.exceptions import ConnectionClosedError, InvalidHandshake, InvalidOrigin, InvalidUpgrade
from geventws.options import Compression, Options
from geventws.protocol.connection import Connection
from geventws.protocol.contexts import Deflater
from geventws.protocol.http import Request, RequestParser
from geventws.serving import agree, prepare_socket
from geventws.websocket import WebSocket

pytestmark = pytest.mark.usefixtures("no_leaks")


def logged(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]


# Agreeing


def parse(head: bytes) -> Request:
    parser = RequestParser(max_line=8192, max_headers=100, max_head=65536)
    found = parser.receive_data(head)
    assert found is not None
    return found


def request(headers: bytes = b"") -> Request:
    return parse(HANDSHAKE % (b"/", headers))


def test_the_key_of_the_rfc() -> None:
    """RFC 6455 section 1.3 has this key and its answer."""
    agreement = agree(request(), Options())
    assert b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n" in agreement.response()
    assert agreement.subprotocol is None
    assert agreement.extensions == ""
    assert b"X-One: 1\r\n" in agreement.response([("X-One", "1")])
    with pytest.raises(ValueError, match="X-One"):
        agreement.response([("X-One", "1\r\nX-Two: 2")])


def test_compression_is_agreed_where_both_want_it() -> None:
    offer = b"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n"
    assert agree(request(offer), Options()).extensions == ""
    assert agree(request(), Options(compression=True)).extensions == ""
    assert agree(request(offer), Options(compression=True)).extensions.startswith("permessage-deflate")
    fresh = agree(request(offer), Options(compression=Compression(context_takeover=False)))
    assert "server_no_context_takeover" in fresh.extensions


def test_the_connection_compresses_as_the_options_say() -> None:
    offer = b"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n"
    options = Options(compression=Compression(level=9, window_bits=10, mem_level=1, threshold=100))
    agreement = agree(request(offer), options)
    assert agreement.extensions.endswith("; server_max_window_bits=10; client_max_window_bits=10")
    core = agreement.connection(options)
    assert isinstance(core, Connection)
    text = "".join(str(number) for number in range(2000))
    deflater = Deflater(9, 10, 1, no_context_takeover=False)
    core.send(text)
    assert b"".join(core.out).endswith(deflater.deflate(text.encode()))
    core.out.clear()
    for size, compress in ((99, None), (100, None), (99, True), (100, False)):
        core.send("x" * size, compress)
    assert [frame[0] for frame in core.out] == [0x81, 0xC1, 0xC1, 0x81]


def test_the_connection_has_the_limits_of_the_options() -> None:
    core = agree(request(), Options(max_message_size=10)).connection(Options(max_message_size=10))
    assert isinstance(core, Connection)
    core.receive_data(b"\x82\x8b\0\0\0\0")
    while core.next_event():
        pass
    assert core.close_sent is not None
    assert core.close_sent.code == 1009


def test_subprotocols_by_the_order_of_the_server() -> None:
    offer = b"Sec-WebSocket-Protocol: b, a\r\n"
    assert agree(request(offer), Options(subprotocols=["a", "b"])).subprotocol == "a"
    assert agree(request(offer), Options(subprotocols=["c"])).subprotocol is None
    assert agree(request(), Options(subprotocols=["a"])).subprotocol is None
    with pytest.raises(ValueError, match="c"):
        agree(request(offer), Options(subprotocols=lambda asked, offered: "c"))


@pytest.mark.parametrize(
    ("headers", "kind"),
    [
        (b"Origin: https://elsewhere.example\r\n", InvalidOrigin),
        (b"Sec-WebSocket-Version: 12\r\n", InvalidHandshake),
        (b"Sec-WebSocket-Key: AAAA\r\n", InvalidHandshake),
    ],
)
def test_what_is_refused(headers: bytes, kind: type[Exception]) -> None:
    with pytest.raises(kind):
        agree(request(headers), Options())


def test_a_plain_request_is_refused() -> None:
    with pytest.raises(InvalidUpgrade):
        agree(parse(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"), Options())


# Running a handler


def test_a_handler_that_returns_closes_with_1000() -> None:
    with opened(lambda ws: ws.send("done")) as session:
        session.peer.expect(0x81, b"done")
        session.peer.expect_close(1000)
        session.peer.send(close(1000))
        session.peer.expect_end()
        session.peer.close()
        session.ended()


@pytest.mark.parametrize(
    "error", [LookupError("forced"), SystemExit(3), MemoryError("forced"), RecursionError("forced")]
)
def test_a_handler_that_raises_closes_with_1011_and_is_logged_once(
    error: BaseException, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    def handler(ws: WebSocket) -> None:
        ws.receive()
        raise error

    with opened(handler, close_timeout=0.05) as session:
        session.peer.send(text("go"))
        assert session.peer.expect_close(1011) == "internal error"
        session.ended()
        assert len(logged(caplog)) == 1
        assert "'/test'" in logged(caplog)[0]
        assert type(error).__name__ in caplog.text
        # Neither printed by gevent nor raised anywhere else.
        assert capfd.readouterr().err == ""


def test_connection_closed_is_the_normal_end(caplog: pytest.LogCaptureFixture) -> None:
    with opened(lambda ws: ws.receive()) as session:
        session.peer.send(close(1001))
        session.peer.expect_close(1001)
        session.peer.close()
        session.ended()
    with opened(lambda ws: [ws.send("x") for _ in iter(lambda: gevent.sleep(0), 1)]) as session:
        session.peer.expect(0x81, b"x")
        session.peer.reset()
        session.ended()
    assert logged(caplog) == []


def test_connection_closed_of_another_connection_is_an_error(caplog: pytest.LogCaptureFixture) -> None:
    """This peer is well; that the handler stumbled over another one is for the log, and 1011 for this one."""
    with opened() as other, opened(lambda ws: other.ws.receive(), close_timeout=0.05) as session:
        other.peer.close()
        session.peer.expect_close(1011)
        session.ended()
        assert len(logged(caplog)) == 1


def test_a_killed_handler_closes_with_1001(caplog: pytest.LogCaptureFixture) -> None:
    with opened(lambda ws: ws.receive(), close_timeout=0.05) as session:
        gevent.sleep(0)
        assert session.greenlet is not None
        session.greenlet.kill(block=False)
        session.peer.expect_close(1001)
        session.ended()
        assert logged(caplog) == []


def test_a_handler_that_is_killed_again_while_it_closes() -> None:
    """The peer does not answer; the second kill does not wait for close_timeout and leaves nothing."""
    with opened(lambda ws: ws.receive(), close_timeout=None) as session:
        gevent.sleep(0)
        assert session.greenlet is not None
        session.greenlet.kill(block=False)
        session.peer.expect_close(1001)
        session.greenlet.kill(timeout=PATIENCE)
        assert session.greenlet.dead
        assert session.ws.wait_closed(0)


def test_messages_behind_the_handler_are_dropped() -> None:
    """It returns with a full queue and a peer that sends on: the peer's Close is still found."""
    with opened(lambda ws: ws.receive(), max_queue=1) as session:
        session.peer.send(*[text("x")] * 1000)
        session.peer.expect_close(1000)
        session.peer.send(*[text("x")] * 1000, close(1000))
        session.peer.expect_end()
        session.peer.close()
        session.ended()
        assert session.ws.close_code == 1000


def raise_system_exit(ws: WebSocket) -> None:
    ws.receive()
    raise SystemExit(1)


def kill_myself(ws: WebSocket) -> None:
    ws.receive()
    gevent.getcurrent().kill()


def abort_and_raise(ws: WebSocket) -> None:
    ws.receive()
    ws.abort()
    raise LookupError("forced")


#: Those that handlers have left running, for the test to close.
left_running: list[gevent.Timeout] = []


def leave_a_timeout_running(ws: WebSocket) -> None:
    ws.receive()
    left_running.append(gevent.Timeout.start_new(0.01))


def raise_timeout(ws: WebSocket) -> None:
    ws.receive()
    with gevent.Timeout(0.001):
        Event().wait()


def close_the_socket_behind_its_back(ws: WebSocket) -> None:
    ws.receive()
    ws.abort()
    ws.abort()
    ws.close()


@pytest.mark.parametrize(
    "handler",
    [
        raise_system_exit,
        kill_myself,
        abort_and_raise,
        leave_a_timeout_running,
        raise_timeout,
        close_the_socket_behind_its_back,
    ],
)
def test_nothing_that_a_handler_does_ends_the_server(handler: Callable[[Any], None]) -> None:
    """The others notice nothing, and the next one is served."""

    def by_path(ws: WebSocket) -> None:
        if ws.request.path == "/bad":
            handler(ws)
        else:
            for message in ws:
                ws.send(message)

    with (
        serve(by_path, close_timeout=0.1) as server,
        RawClient.connect(server.address) as other,
    ):
        for _ in range(3):
            with RawClient.connect(server.address, b"/bad") as client:
                client.send(text("go"))
                client.read_frames()
            other.send(text("Hello"))
            other.expect(0x81, b"Hello")
        with RawClient.connect(server.address) as later:
            later.send(text("Hello"))
            later.expect(0x81, b"Hello")
        wait_until(lambda: len(server.connections) <= 1)
    while left_running:
        left_running.pop().close()


def test_an_error_in_the_core_of_one_connection_ends_no_other() -> None:
    """50 connections come and go while one of them breaks the protocol each time; two stay throughout."""

    def echo(ws: WebSocket) -> None:
        for message in ws:
            ws.send(message)

    violations = (b"\x83\x80\0\0\0\0", b"\x81\x01a", b"\x89\xfe\0\x80\0\0\0\0", b"\xff" * 20)
    with (
        serve(echo, close_timeout=0.2) as server,
        RawClient.connect(server.address) as first,
        RawClient.connect(server.address) as second,
    ):
        for number in range(50):
            with RawClient.connect(server.address) as bad:
                bad.send(violations[number % 4])
                bad.expect_close(1002)
                bad.expect_end()
            for client in (first, second):
                client.send(text(str(number)))
                client.expect(0x81, str(number).encode())
        wait_until(lambda: len(server.connections) == 2)
        assert server.stats.opened == 52


def test_a_handler_in_a_greenlet_of_its_own_outlives_nothing() -> None:
    """A helper greenlet that the handler has left behind learns of the end like everybody else."""
    outcome: list[Any] = []

    def helper(ws: WebSocket) -> None:
        try:
            ws.receive()
        except ConnectionClosedError as error:
            outcome.append(error)

    def handler(ws: WebSocket) -> None:
        gevent.spawn(helper, ws)
        gevent.sleep(0)

    with opened(handler, close_timeout=0.05) as session:
        session.peer.expect_close(1000)
        session.ended()
        wait_until(lambda: outcome)


class TestPrepareSocket:
    """What is set on the socket of a connection."""

    @staticmethod
    def settings(**options: Any) -> dict[str, int]:
        with std_socket.socket() as sock:
            prepare_socket(sock, Options(**options))
            return {
                name: sock.getsockopt(level, getattr(std_socket, name))
                for level, name in (
                    (std_socket.IPPROTO_TCP, "TCP_NODELAY"),
                    (std_socket.SOL_SOCKET, "SO_KEEPALIVE"),
                    (std_socket.IPPROTO_TCP, "TCP_KEEPIDLE"),
                    (std_socket.IPPROTO_TCP, "TCP_KEEPINTVL"),
                    (std_socket.IPPROTO_TCP, "TCP_USER_TIMEOUT"),
                )
            }

    def test_dead_peer_is_found_by_the_system_in_the_time_of_the_keepalive(self) -> None:
        assert self.settings(ping_interval=7.5, ping_timeout=3) == {
            "TCP_NODELAY": 1,
            "SO_KEEPALIVE": 1,
            "TCP_KEEPIDLE": 8,
            "TCP_KEEPINTVL": 1,
            "TCP_USER_TIMEOUT": 11_000,
        }

    def test_peer_that_does_not_read_has_as_long_as_write_timeout(self) -> None:
        settings = self.settings(ping_interval=2, ping_timeout=2, write_timeout=60)
        assert settings["TCP_USER_TIMEOUT"] == 60_000
        assert self.settings(write_timeout=None)["TCP_USER_TIMEOUT"] == 0

    @pytest.mark.parametrize("options", [{"ping_interval": None}, {"ping_timeout": None}])
    def test_without_a_keepalive_nothing_is_ended(self, options: dict[str, Any]) -> None:
        settings = self.settings(**options)
        assert settings["TCP_NODELAY"] == 1
        assert settings["SO_KEEPALIVE"] == settings["TCP_USER_TIMEOUT"] == 0

    def test_times_of_any_length(self) -> None:
        assert self.settings(ping_interval=1e9, ping_timeout=1e9)["TCP_KEEPIDLE"] == 32767

    def test_unix_socket(self) -> None:
        with std_socket.socket(std_socket.AF_UNIX) as sock:
            prepare_socket(sock, Options())
