"""The helpers for users' tests, used as users do."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import gevent
import pytest
from flask import Flask, abort, make_response
from support import PATIENCE

import geventws
from geventws import ConnectionClosed, ConnectionClosedOK, InvalidStatus, OpenTimeout, WebSocketMiddleware
from geventws.flask import Sock
from geventws.testing import Client, pair, websocket_client

__all__ = ["websocket_client"]

pytestmark = pytest.mark.usefixtures("no_leaks")


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
        assert server.extensions == client.extensions == "permessage-deflate"
        client.send("x" * 100)
        assert server.receive(timeout=5) == "x" * 100
        assert client.bytes_sent < 50
        server.send("y" * 101)
        with pytest.raises(ConnectionClosed):
            client.receive(timeout=5)
        assert server.wait_closed(5)
        assert server.close_code == 1009


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
