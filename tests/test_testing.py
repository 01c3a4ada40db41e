"""The helpers for users' tests, used as users do."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import gevent
import pytest
from flask import Flask, abort, make_response
from gevent.event import Event
from support import PATIENCE, wait_until

import geventws
from geventws import (
    Compression,
    ConnectionClosed,
    ConnectionClosedOK,
    InvalidStatus,
    NegotiationError,
    OpenTimeout,
    Options,
    RateLimit,
    WebSocketMiddleware,
    broadcast,
)
from geventws.agreement import Agreement
from geventws.flask import Sock
from geventws.options import OPTION_NAMES
from geventws.protocol.contexts import Deflater
from geventws.testing import Client, pair, websocket_client

__all__ = ["websocket_client"]

pytestmark = pytest.mark.usefixtures("no_leaks")


#: What is agreed on with `Compression(context_takeover=False, window_bits=9)`.
FRESH_AND_SMALL = (
    "permessage-deflate; server_no_context_takeover; client_no_context_takeover; server_max_window_bits=9; "
    "client_max_window_bits=9"
)


def echo(ws: Any) -> None:
    for message in ws:
        ws.send(message)


def nothing(environ: Any, start_response: Any) -> Any:
    start_response("404 Not Found", [("X-Why", "none")])
    return [b"not ", b"here"]


class TestPair:
    def test_handler(self) -> None:
        server, client = pair()
        handler = gevent.spawn(echo, server)
        for message in ("text", b"bytes"):
            client.send(message)
            assert client.receive(timeout=5) == message
        client.close(4000, "done")
        with pytest.raises(ConnectionClosed):
            handler.get(timeout=5)
        assert server.close_code == 4000
        assert server.wait_closed(5)

    def test_options_of_both(self) -> None:
        server, client = pair(compression=True, subprotocol="chat", max_message_size=100)
        assert server.subprotocol == client.subprotocol == "chat"
        assert server.extensions == client.extensions
        assert server.extensions == "permessage-deflate; server_max_window_bits=12; client_max_window_bits=12"
        client.send("x" * 100)
        assert server.receive(timeout=5) == "x" * 100
        assert client.bytes_sent < 50
        server.send("y" * 101)
        with pytest.raises(ConnectionClosed):
            client.receive(timeout=5)
        assert server.wait_closed(5)
        assert server.close_code == 1009

    def test_handshake_was_made(self) -> None:
        server, client = pair(subprotocol="chat")
        assert server.request.headers["Sec-WebSocket-Protocol"] == "chat"
        assert client.request.headers["Sec-WebSocket-Protocol"] == "chat"
        assert client.response.status == 101
        assert client.response.headers["Sec-WebSocket-Protocol"] == "chat"
        client.close()

    def test_subprotocol_that_is_none(self) -> None:
        with pytest.raises(ValueError, match="'a, b' is not a token"):
            pair(subprotocol="a, b")


class TestOptionsOfAPair:
    """Each of them counts as on a server and on a client, or is refused."""

    @pytest.mark.parametrize(
        ("option", "code"),
        [
            ({"max_message_size": 99}, 1009),
            ({"max_fragments": 2}, 1009),
            ({"rate_limit": RateLimit(messages=1, burst=1.0)}, 1008),
        ],
    )
    @pytest.mark.parametrize("deflate", [None, True], ids=["plain", "compressed"])
    @pytest.mark.parametrize("from_client", [True, False], ids=["to server", "to client"])
    def test_limits(self, option: Any, code: int, deflate: Any, from_client: bool) -> None:
        server, client = pair(compression=deflate, **option)
        sender, receiver = (client, server) if from_client else (server, client)
        with contextlib.suppress(ConnectionClosed):
            for _ in range(5):
                sender.send_fragments(["x" * 50] * 3)
        with contextlib.suppress(ConnectionClosed):
            while True:
                receiver.receive(timeout=PATIENCE)
        sender.abort()
        assert receiver.wait_closed(PATIENCE)
        assert receiver.close_error.sent.code == code

    @pytest.mark.parametrize(
        ("compression", "extensions"),
        [
            (None, ""),
            (Compression(window_bits=15), "permessage-deflate"),
            (
                Compression(context_takeover=False, window_bits=9),
                FRESH_AND_SMALL,
            ),
        ],
    )
    def test_compression(self, compression: Any, extensions: str) -> None:
        server, client = pair(compression=compression)
        assert server.extensions == client.extensions == extensions
        text = "".join(str(number) for number in range(1000))
        sizes = []
        for sender, receiver in [(server, client), (client, server)] * 2:
            before = sender.bytes_sent
            sender.send(text)
            assert receiver.receive(timeout=PATIENCE) == text
            sizes.append(sender.bytes_sent - before)
        # The second time the window has it, if there is one and it is large enough.
        again = compression is not None and compression.window_bits == 15
        assert (max(sizes[2:]) < 100) == again
        assert (max(sizes) < len(text) * 0.7) == (compression is not None)
        client.close()

    # Levels that are zlib's: ISA-L may make another size of the same bytes (docs/performance.md).
    @pytest.mark.parametrize(("level", "mem_level"), [(7, 5), (9, 1), (9, 9)])
    def test_compression_is_set_as_said(self, level: int, mem_level: int) -> None:
        server, client = pair(compression=Compression(level=level, mem_level=mem_level, threshold=100))
        text = "".join(str(number) for number in range(2000))
        for sender, receiver in [(server, client), (client, server)]:
            mask = 4 if sender is client else 0
            sender.send("x" * 99)
            assert receiver.receive(timeout=PATIENCE) == "x" * 99
            assert sender.bytes_sent == 2 + mask + 99
            sender.send(text)
            assert receiver.receive(timeout=PATIENCE) == text
            deflater = Deflater(level, 12, mem_level, no_context_takeover=False)
            payload = len(deflater.deflate(text.encode()))
            assert receiver.bytes_received == 2 + mask + 99 + 4 + mask + payload
        client.close()

    @pytest.mark.parametrize("option", [{"max_queue": 3}, {"max_queue_bytes": 3}])
    def test_queue(self, option: Any) -> None:
        server, client = pair(**option)
        for _ in range(100):
            client.send("x")
        wait_until(lambda: server.reading_paused)
        assert server.messages_received < 100
        for _ in range(100):
            assert server.receive(timeout=PATIENCE) == "x"
        client.close()

    def test_write_limit_and_write_timeout(self) -> None:
        server, client = pair(max_queue=1, write_limit=10, write_timeout=0.05)
        with contextlib.suppress(ConnectionClosed):
            while True:
                client.send("x" * 1000)
        assert client.write_timed_out
        server.abort()

    @pytest.mark.parametrize(("what", "closed"), [("close", True), ("skip", False)])
    def test_slow_consumer(self, what: str, closed: bool) -> None:
        server, client = pair(max_queue=1, write_limit=10, slow_consumer=what)
        while not client.times_slow:
            broadcast([client], "x" * 1000)
        assert client.closed == closed
        client.abort()
        server.abort()

    def test_close_timeout(self) -> None:
        server, client = pair(max_queue=1, close_timeout=0.01)
        for _ in range(3):
            client.send("x")
        wait_until(lambda: server.reading_paused)
        client.close()
        assert client.close_code == 1006
        server.abort()

    def test_ping_interval(self) -> None:
        server, client = pair(ping_interval=0.05)
        wait_until(lambda: server.latency is not None and client.latency is not None)
        client.close()

    def test_ping_timeout(self) -> None:
        server, client = pair(max_queue=1, ping_interval=0.05, ping_timeout=0.05)
        for _ in range(3):
            client.send("x")
        # The server does not read the Ping, as nobody takes its messages.
        assert client.wait_closed(PATIENCE)
        assert "ping_timeout" in str(client.close_error)
        server.abort()

    #: What the tests above are about.
    COUNT = frozenset({
        "close_timeout", "compression", "max_fragments", "max_message_size", "max_queue", "max_queue_bytes",
        "ping_interval", "ping_timeout", "rate_limit", "slow_consumer", "write_limit", "write_timeout",
    })  # fmt: skip

    @pytest.mark.parametrize("name", sorted(OPTION_NAMES - COUNT))
    def test_what_means_nothing_is_refused(self, name: str) -> None:
        with pytest.raises(TypeError, match=rf"^pair\(\) has no option '{name}': "):
            pair(**{name: getattr(Options(), name)})


class TestOptionsOfTheClient:
    #: What the other tests are about, here and of a pair.
    COUNT = TestOptionsOfAPair.COUNT | {"open_timeout", "subprotocols"}

    @pytest.mark.parametrize("name", sorted(OPTION_NAMES - COUNT))
    def test_what_means_nothing_is_refused(self, name: str) -> None:
        with Client(WebSocketMiddleware(nothing, echo)) as client, pytest.raises(TypeError) as caught:
            client.connect(**{name: getattr(Options(), name)})
        assert str(caught.value).startswith(f"Client.connect() has no option {name!r}: ")

    def test_rate_limit(self) -> None:
        def flood(ws: Any) -> None:
            for _ in range(5):
                ws.send("x")
            with contextlib.suppress(ConnectionClosed):
                ws.receive()

        with Client(WebSocketMiddleware(nothing, flood)) as client:
            ws = client.connect(rate_limit=RateLimit(messages=1, burst=1.0))
            assert ws.wait_closed(PATIENCE)
            assert ws.close_error.sent.code == 1008

    def test_compression(self) -> None:
        with Client(WebSocketMiddleware(nothing, echo, compression=Compression(window_bits=15))) as client:
            ws = client.connect(compression=Compression(context_takeover=False, window_bits=9))
            assert ws.extensions == FRESH_AND_SMALL
            ws.send("hello" * 100)
            assert ws.receive(timeout=PATIENCE) == "hello" * 100

    def test_ping_interval(self) -> None:
        with Client(WebSocketMiddleware(nothing, echo)) as client:
            ws = client.connect(ping_interval=0.05)
            wait_until(lambda: ws.latency is not None)

    def test_subprotocols(self) -> None:
        with Client(WebSocketMiddleware(nothing, echo, subprotocols=["chat"])) as client:
            assert client.connect(subprotocols=["x", "chat"]).subprotocol == "chat"
            for wrong in ("chat", lambda request, offered: "chat"):
                with pytest.raises(TypeError, match="subprotocols takes a list of"):
                    client.connect(subprotocols=wrong)

    def test_open_timeout(self) -> None:
        def app(environ: Any, start_response: Any) -> Any:
            gevent.sleep(3600)

        client = Client(WebSocketMiddleware(app), timeout=PATIENCE)
        with pytest.raises(OpenTimeout, match=r"0\.01 seconds"):
            client.connect(open_timeout=0.01)
        client._timeout = 0.01
        with pytest.raises(TimeoutError, match="1 handlers have not ended"):
            client.close()

    def test_answer_that_opens_nothing(self) -> None:
        """What `connect` would not take for an open WebSocket is none here either."""

        class Wrong(WebSocketMiddleware):
            def _decide(self, environ: Any, takeover: Any) -> Any:
                decision = super()._decide(environ, takeover)
                decision[0].agreement = Agreement(environ["HTTP_SEC_WEBSOCKET_KEY"], "other", None)
                return decision

        with (
            Client(Wrong(nothing, echo)) as client,
            pytest.raises(NegotiationError, match="'other', which was not offered"),
        ):
            client.connect(subprotocols=["chat"])


class TestClient:
    def test_application_that_takes_the_websocket(self) -> None:
        def app(environ: Any, start_response: Any) -> Any:
            ws = environ.get("wsgi.websocket")
            ws.send(f"{ws.request.path} {ws.request.query} {ws.request.headers['X-Y']} {environ['extra']}")
            return []

        with Client(WebSocketMiddleware(app)) as client:
            ws = client.connect("/caf%C3%A9?a=b", headers={"X-Y": "z"}, environ={"extra": 1})
            assert ws.receive(timeout=5) == "/café a=b z 1"
            with pytest.raises(ConnectionClosedOK):
                ws.receive(timeout=5)

    def test_handler_and_several_at_once(self) -> None:
        with Client(WebSocketMiddleware(nothing, echo, compression=True, subprotocols=["b"])) as client:
            one = client.connect(subprotocols=["a", "b"], compression=True)
            two = client.connect()
            assert (one.subprotocol, two.subprotocol) == ("b", None)
            assert one.extensions.startswith("permessage-deflate")
            assert two.extensions == ""
            for ws in (one, two):
                ws.send("hello" * 100)
                assert ws.receive(timeout=5) == "hello" * 100
            one.close()
            assert one.close_code == 1000

    def test_rejection(self) -> None:
        with Client(WebSocketMiddleware(nothing)) as client:
            with pytest.raises(InvalidStatus, match="answered 404") as caught:
                client.connect()
            assert caught.value.response.status == 404
            assert caught.value.response.body == b"not here"
            assert caught.value.response.headers["X-Why"] == "none"

    def test_path_that_is_none(self) -> None:
        with Client(WebSocketMiddleware(nothing, echo)) as client:
            for path in ("chat", "@host/", ""):
                with pytest.raises(ValueError, match="path begins with a slash, not "):
                    client.connect(path)

    def test_origin(self) -> None:
        with Client(WebSocketMiddleware(nothing, echo)) as client:
            with pytest.raises(InvalidStatus, match="403"):
                client.connect(origin="https://evil.example")
            client.connect(origin="https://localhost").close()

    def test_exceptions(self, caplog: Any) -> None:
        def app(environ: Any, start_response: Any) -> Any:
            if environ["PATH_INFO"] == "/late":
                environ["wsgi.websocket"].accept()
            raise ZeroDivisionError

        with Client(WebSocketMiddleware(app)) as client:
            with pytest.raises(ZeroDivisionError):
                client.connect()
            assert caplog.records == []
            ws = client.connect("/late")
            with pytest.raises(ConnectionClosed):
                ws.receive(timeout=5)
            assert ws.close_code == 1011
            assert len(caplog.records) == 1

    @pytest.mark.parametrize("kind", [gevent.Timeout, gevent.GreenletExit, SystemExit])
    def test_exceptions_that_are_no_errors(self, kind: Any) -> None:
        def app(environ: Any, start_response: Any) -> Any:
            raise kind

        with Client(WebSocketMiddleware(app)) as client, pytest.raises(kind):
            client.connect()

    def test_status_that_is_none(self) -> None:
        def app(environ: Any, start_response: Any) -> Any:
            start_response("OK", [])
            return []

        with Client(WebSocketMiddleware(app)) as client, pytest.raises(ValueError, match="'OK'"):
            client.connect()

    def test_handler_that_cannot_be_killed(self, caplog: Any) -> None:
        released = Event()

        def stubborn(ws: Any) -> None:
            while not released.ready():
                with contextlib.suppress(BaseException):
                    released.wait()

        app = WebSocketMiddleware(nothing, stubborn)
        message = "1 handlers have not ended within 0.05 seconds, and 1 cannot be killed"
        with pytest.raises(TimeoutError, match=message), Client(app, timeout=0.05) as client:
            client.connect()
        other = Client(app, timeout=0.05)
        other.connect()
        # Leaving `with` by an exception of the test's: that is the one to be seen.
        other.__exit__(AssertionError, AssertionError(), None)
        assert [message in record.getMessage() for record in caplog.records] == [True]
        released.set()
        gevent.joinall([*client._calls, *other._calls], timeout=PATIENCE, raise_error=True)

    @pytest.mark.parametrize("name", ["auth", "cookies", "proxy", "ssl_context"])
    def test_arguments_of_connect_that_mean_nothing(self, name: str) -> None:
        with Client(WebSocketMiddleware(nothing, echo)) as client, pytest.raises(TypeError) as caught:
            client.connect(**{name: None})
        assert str(caught.value).startswith(f"Client.connect() has no option {name!r}: ")

    def test_dropped(self) -> None:
        def app(environ: Any, start_response: Any) -> Any:
            environ["wsgi.websocket"].abort()
            return []

        with Client(WebSocketMiddleware(app)) as client, pytest.raises(ConnectionClosed, match="dropped"):
            client.connect()

    def test_no_answer(self) -> None:
        def app(environ: Any, start_response: Any) -> Any:
            gevent.sleep(3600)

        client = Client(WebSocketMiddleware(app), timeout=0.01)
        with pytest.raises(OpenTimeout, match=r"0\.01 seconds"):
            client.connect()
        with pytest.raises(TimeoutError, match="1 handlers have not ended"):
            client.close()

    def test_flask(self) -> None:
        app = Flask("site")
        sock = Sock(app)

        @app.before_request
        def login() -> None:
            from flask import request

            if "token" not in request.cookies:
                abort(make_response("who?", 401))

        @sock.route("/room/<name>")
        def room(ws: Any, name: str) -> None:
            ws.send(name)
            ws.send(ws.receive())

        with Client(app) as client:
            with pytest.raises(InvalidStatus) as caught:
                client.connect("/room/tea")
            assert (caught.value.response.status, caught.value.response.body) == (401, b"who?")
            ws = client.connect("/room/tea", headers=[("Cookie", "token=1")])
            assert ws.receive(timeout=5) == "tea"
            ws.send("more")
            assert ws.receive(timeout=5) == "more"
            assert ws.response.headers["Upgrade"] == "websocket"


def test_fixture(websocket_client: Any) -> None:
    ws = websocket_client(WebSocketMiddleware(nothing, echo)).connect()
    ws.send("x")
    assert ws.receive(timeout=5) == "x"


USERS_TESTS = """
import gevent
import pytest
from gevent.event import Event

from geventws import WebSocketMiddleware
from geventws.testing import websocket_client

ended = []
clients = []


def nothing(environ, start_response):
    start_response("404 Not Found", [])
    return []


def echo(ws):
    # Ends when the peer closes normally, and raises otherwise.
    for message in ws:
        ws.send(message)
    ended.append(ws.close_code)


def stubborn(ws):
    while not release.ready():
        try:
            release.wait()
        except gevent.GreenletExit:
            ended.append("killed")
            raise


release = Event()


def test_two_clients_and_three_connections(websocket_client):
    first = websocket_client(WebSocketMiddleware(nothing, echo))
    second = websocket_client(WebSocketMiddleware(nothing, echo))
    clients[:] = [first.connect(), first.connect(), second.connect()]
    for ws in clients:
        ws.send("x")
        assert ws.receive(timeout=5) == "x"
    assert not any(ws.closed for ws in clients)


def test_all_were_over_when_that_one_was():
    assert all(ws.wait_closed(0) for ws in clients)
    assert ended == [1001, 1001, 1001]


def test_one_that_does_not_end(websocket_client):
    ended.clear()
    first = websocket_client(WebSocketMiddleware(nothing, stubborn), timeout=0.2)
    second = websocket_client(WebSocketMiddleware(nothing, echo))
    clients[:] = [first.connect(), second.connect()]


def test_the_others_were_ended_all_the_same():
    assert all(ws.wait_closed(0) for ws in clients)
    assert sorted(ended, key=str) == [1001, "killed"]
"""


def test_fixture_ends_everything_behind_each_test(tmp_path: Path) -> None:
    file = tmp_path / "test_users.py"
    file.write_text(USERS_TESTS, encoding="utf-8")
    done = subprocess.run(
        [
            sys.executable,
            "-W",
            "error",
            "-m",
            "pytest",
            "-p",
            "no:cacheprovider",
            "-q",
            "--tb=short",
            str(file),
        ],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(geventws.__file__).parents[1])},
    )
    # The error is that of the one handler that did not end.
    assert "4 passed, 1 error" in done.stdout, done.stdout + done.stderr
    assert "TimeoutError: 1 handlers have not ended within 0.2 seconds" in done.stdout
