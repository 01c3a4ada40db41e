"""The handler for gevent.pywsgi: the middleware around any application, and a stop that tells its clients."""

from __future__ import annotations

from typing import Any

import gevent
import pytest
from gevent.pywsgi import WSGIServer
from hosting import ask, host, open_raw, plain
from support import HANDSHAKE, RawClient, close, text, wait_until

from geventws import WebSocketMiddleware
from geventws.pywsgi import WebSocketHandler

pytestmark = pytest.mark.usefixtures("no_leaks")


def app(environ: Any, start_response: Any) -> Any:
    ws = environ.get("wsgi.websocket")
    if ws is None:
        start_response("200 OK", [("Content-Length", "5")])
        return [b"plain"]
    for message in ws:
        ws.send(message)
    return []


def test_application_gets_its_websockets() -> None:
    with host(app, handler_class=WebSocketHandler) as server:
        for _ in range(2):
            with RawClient.connect(server.address) as client:
                client.send(text("x"))
                client.expect(0x81, b"x")
                client.send(close(1000))
                client.expect_close(1000)
                client.expect_end()
        assert plain(server).endswith(b"plain")
        wait_until(lambda: len(server.access) == 3)
        assert ['" 101 ' in line for line in server.access] == [True, True, False]


def test_options_in_a_subclass() -> None:
    class Handler(WebSocketHandler):
        options = {"max_message_size": 3, "origins": None}  # noqa: RUF012

    with host(app, handler_class=Handler) as server:
        with RawClient.connect(server.address, headers=b"Origin: http://other.example\r\n") as client:
            client.send(text("long"))
            client.expect_close(1009)
    with host(app, handler_class=WebSocketHandler) as server:
        assert ask(server, fields=b"Origin: http://other.example\r\n").startswith(b"HTTP/1.1 403 ")


def test_application_with_a_middleware_is_left_as_it_is() -> None:
    own = WebSocketMiddleware(app, origins=None)
    with host(own, handler_class=WebSocketHandler) as server:
        with RawClient.connect(server.address, headers=b"Origin: http://other.example\r\n") as client:
            wait_until(lambda: len(own.connections) == 1)
            client.send(close(1000))
            client.expect_close(1000)


def test_plain_requests_keep_the_connection() -> None:
    with host(app, handler_class=WebSocketHandler) as server:
        with open_raw(server, b"") as client:
            for _ in range(2):
                client.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
                data = b""
                while not data.endswith(b"plain"):
                    data += client.read_bytes(1)
            client.send(HANDSHAKE % (b"/", b""))
            data = b""
            while not data.endswith(b"\r\n\r\n"):
                data += client.read_bytes(1)
            assert data.startswith(b"HTTP/1.1 101 ")
            client.send(close(1000))
            client.expect_close(1000)
            client.expect_end()


@pytest.mark.parametrize("application", [app, WebSocketMiddleware(app)], ids=["plain", "with a middleware"])
@pytest.mark.parametrize("how", ["stop", "close"])
def test_stopping_the_server_tells_its_clients(application: Any, how: str) -> None:
    with host(application, handler_class=WebSocketHandler) as server:
        clients = [RawClient.connect(server.address) for _ in range(3)]
        for client in clients:
            client.send(text("x"))
            client.expect(0x81, b"x")
        stopping = gevent.spawn(getattr(server, how))
        for client in clients:
            assert client.expect_close(1001) == "the server is stopping"
            client.send(close(1001))
            client.expect_end()
            client.close()
        stopping.get(timeout=10)


def test_stopping_a_server_without_a_pool() -> None:
    server = WSGIServer(
        ("127.0.0.1", 0), app, log=None, handler_class=WebSocketHandler, environ={"SERVER_NAME": "localhost"}
    )
    server.start()
    with RawClient.connect(server.address) as client:
        client.send(text("x"))
        client.expect(0x81, b"x")
        server.stop()
        client.expect_close(1001)
        client.send(close(1001))
        client.expect_end()


def test_client_that_does_not_answer_is_cut_after_stop_timeout() -> None:
    with host(app, handler_class=WebSocketHandler) as server, RawClient.connect(server.address) as client:
        client.send(text("x"))
        client.expect(0x81, b"x")
        server.stop(timeout=0.01)
        assert not server.pool
        client.expect_close(1001)
        client.expect_end()


def test_stock_server_with_a_pool_kills_what_is_left() -> None:
    """Without our handler: its greenlets are killed when `stop()` has waited, which tells their clients."""
    with host(WebSocketMiddleware(app)) as server, RawClient.connect(server.address) as client:
        client.send(text("x"))
        client.expect(0x81, b"x")
        server.stop(timeout=0.01)
        client.expect_close(1001)
        client.send(close(1001))
        client.expect_end()


def test_server_that_only_accepts() -> None:
    """As processes do that were forked behind `init_socket`; it counts as not started for gevent."""
    server = WSGIServer(
        ("127.0.0.1", 0), app, log=None, handler_class=WebSocketHandler, environ={"SERVER_NAME": "localhost"}
    )
    server.init_socket()
    server.start_accepting()
    with RawClient.connect(server.address) as client:
        client.send(text("x"))
        client.expect(0x81, b"x")
        server.stop()
        client.expect_close(1001)
        client.send(close(1001))
        client.expect_end()


def test_server_that_was_stopped_can_be_started_again() -> None:
    server = WSGIServer(
        ("127.0.0.1", 0), app, log=None, handler_class=WebSocketHandler, environ={"SERVER_NAME": "localhost"}
    )
    for _ in range(2):
        server.start()
        with RawClient.connect(server.address) as client:
            client.send(text("x"))
            client.expect(0x81, b"x")
            server.stop()
            client.expect_close(1001)
            client.send(close(1001))
            client.expect_end()
        address = server.address
        server.set_listener(address)


def test_request_on_a_kept_connection_while_stopping_gets_503() -> None:
    with host(app, handler_class=WebSocketHandler) as server:
        with open_raw(server, b"") as client:
            client.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            data = b""
            while not data.endswith(b"plain"):
                data += client.read_bytes(1)
            server.close()
            client.send(HANDSHAKE % (b"/", b""))
            assert client.read_bytes(12) == b"HTTP/1.1 503"


def test_one_that_opens_as_the_server_stops_is_told() -> None:
    go = gevent.event.Event()

    def slow(environ: Any, start_response: Any) -> Any:
        go.wait()
        return app(environ, start_response)

    with host(slow, handler_class=WebSocketHandler) as server:
        with open_raw(server, b"") as client:
            client.send(HANDSHAKE % (b"/", b""))
            wait_until(lambda: len(server.pool) == 1)
            gevent.sleep(0.001)
            server.close()
            go.set()
            data = b""
            while not data.endswith(b"\r\n\r\n"):
                data += client.read_bytes(1)
            assert data.startswith((b"HTTP/1.1 101 ", b"HTTP/1.1 503 "))
            if data.startswith(b"HTTP/1.1 101 "):
                client.expect_close(1001)
