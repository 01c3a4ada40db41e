"""Sock: what flask-sock does, and what it does not."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from flask import Blueprint, Flask, abort, current_app, g, request, url_for
from flask import session as flask_session
from hosting import ask, host, host_threaded, plain
from support import RawClient, close, text, wait_until
from werkzeug.middleware.proxy_fix import ProxyFix

from geventws import WebSocket, WebSocketMiddleware
from geventws.flask import ConnectionClosed, Sock, SockWebSocket

pytestmark = pytest.mark.usefixtures("no_leaks")


@pytest.fixture
def app() -> Flask:
    app = Flask("app_under_test")
    app.secret_key = "secret"
    return app


@pytest.fixture(params=["pywsgi", "werkzeug"])
def hosted(request: Any) -> Any:
    return {"pywsgi": host, "werkzeug": host_threaded}[request.param]


def echo(ws: Any) -> None:
    while True:
        ws.send(ws.receive())


def finish(client: RawClient, code: int = 1000) -> None:
    client.send(close(code))
    client.expect_close(code)
    client.expect_end()


def test_echo_as_in_the_manual_of_flask_sock(app: Flask, hosted: Any, caplog: Any) -> None:
    Sock(app).route("/echo")(echo)
    app.get("/")(lambda: "page")
    with hosted(app) as server:
        with RawClient.connect(server.address, b"/echo") as client:
            client.send(text("x"), b"\x82\x81\0\0\0\0y")
            client.expect(0x81, b"x")
            client.expect(0x82, b"y")
            finish(client)
        assert plain(server).endswith(b"page")
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


def test_decorator_gives_the_function_back(app: Flask) -> None:
    assert Sock(app).route("/echo")(echo) is echo


def test_variables_query_and_contexts(app: Flask, hosted: Any) -> None:
    sock = Sock(app)
    app.config["X"] = "config"

    @app.before_request
    def before() -> None:
        g.x = "global"

    @sock.route("/room/<name>/<int:number>")
    def room(ws: Any, name: str, number: int) -> None:
        ws.send(
            [
                name,
                number,
                request.args["q"],
                current_app.config["X"],
                g.x,
                url_for("room", name="a", number=1),
            ]
        )

    with hosted(app) as server, RawClient.connect(server.address, b"/room/tea/7?q=query") as client:
        client.expect(0x81, b"['tea', 7, 'query', 'config', 'global', 'ws://localhost/room/a/1']")
        client.expect_close(1000)


def test_init_app_later_and_blueprints(app: Flask) -> None:
    sock = Sock()
    sock.route("/early")(lambda ws: ws.send("early"))
    blueprint = Blueprint("print", __name__, url_prefix="/print")
    sock.route("/deep", bp=blueprint, endpoint="deep")(lambda ws: ws.send(request.endpoint))
    app.register_blueprint(blueprint)
    sock.init_app(app)
    sock.route("/late", endpoint="late")(lambda ws: ws.send("late"))
    with host(app) as server:
        for path, said in ((b"/early", b"early"), (b"/print/deep", b"print.deep"), (b"/late", b"late")):
            with RawClient.connect(server.address, path) as client:
                client.expect(0x81, said)


def test_blueprint_alone_is_enough(app: Flask) -> None:
    blueprint = Blueprint("print", __name__)
    Sock().route("/deep", bp=blueprint)(echo)
    app.register_blueprint(blueprint)
    with host(app) as server, RawClient.connect(server.address, b"/deep") as client:
        finish(client)


def test_app_is_wrapped_once(app: Flask) -> None:
    Sock(app)
    wrapped = app.wsgi_app
    assert isinstance(wrapped, WebSocketMiddleware)
    app.wsgi_app = ProxyFix(app.wsgi_app)  # type: ignore[method-assign]
    outer = app.wsgi_app
    Sock(app).route("/echo")(echo)
    assert app.wsgi_app is outer
    with host(app) as server, RawClient.connect(server.address, b"/echo") as client:
        finish(client)


class TestRejection:
    def test_before_request(self, app: Flask, hosted: Any) -> None:
        Sock(app).route("/echo")(echo)

        @app.before_request
        def login() -> Any:
            return None if "token" in request.args else abort(401)

        with hosted(app) as server:
            assert ask(server, b"/echo").split(b" ", 2)[1] == b"401"
            with RawClient.connect(server.address, b"/echo?token=1") as client:
                finish(client)

    def test_unknown_path_and_plain_route(self, app: Flask) -> None:
        Sock(app).route("/echo")(echo)
        app.get("/page")(lambda: "page")
        with host(app) as server:
            assert ask(server, b"/unknown").split(b" ", 2)[1] == b"404"
            assert ask(server, b"/page").split(b" ", 2)[1] == b"400"
            assert plain(server, b"/echo").split(b" ", 2)[1] == b"400"

    def test_origin(self, app: Flask, caplog: Any) -> None:
        Sock(app).route("/echo")(echo)
        with host(app) as server:
            assert ask(server, b"/echo", b"Origin: http://evil.example\r\n").split(b" ", 2)[1] == b"403"


class TestTheEnd:
    def test_view_returns(self, app: Flask) -> None:
        Sock(app).route("/")(lambda ws: None)
        with host(app) as server, RawClient.connect(server.address) as client:
            client.expect_close(1000)

    def test_view_raises(self, app: Flask, hosted: Any, caplog: Any) -> None:
        @Sock(app).route("/")
        def view(ws: Any) -> None:
            ws.receive()
            raise ZeroDivisionError

        with hosted(app) as server, RawClient.connect(server.address) as client:
            client.send(text("x"))
            client.expect_close(1011)
            client.send(close(1011))
            client.expect_end()
        # Flask has logged it, and nobody else.
        records = [record for record in caplog.records if record.exc_info]
        assert [record.name for record in records] == ["app_under_test"]

    def test_peer_breaks_off(self, app: Flask, caplog: Any) -> None:
        left = []

        @Sock(app).route("/")
        def view(ws: Any) -> None:
            try:
                ws.receive()
            except ConnectionClosed as error:
                left.append((error.reason, error.message, ws.connected, str(error)))
                raise

        with host(app) as server:
            RawClient.connect(server.address).reset()
            wait_until(lambda: left)
            with RawClient.connect(server.address) as client:
                client.send(close(4001, b"bye"))
                client.expect_close(4001)
            wait_until(lambda: len(left) == 2)
        assert left[0][0] == 1006
        assert left[1] == (4001, "bye", False, "Connection closed: 4001 bye")
        assert caplog.records == []

    def test_exception_of_another_websocket_is_none_of_ours(self, app: Flask) -> None:
        @Sock(app).route("/")
        def view(ws: Any) -> None:
            raise ConnectionClosed(1000, "another")

        with host(app) as server, RawClient.connect(server.address) as client:
            client.expect_close(1011)

    def test_close_with_code_and_message(self, app: Flask) -> None:
        seen = []

        @Sock(app).route("/")
        def view(ws: Any) -> None:
            assert ws.connected
            assert (ws.close_reason, ws.close_message) == (1005, None)
            ws.close(4000, "enough")
            assert not ws.connected
            for use in (ws.close, ws.receive, lambda: ws.send("x")):
                with pytest.raises(ConnectionClosed):
                    use()
            seen.append(True)

        with host(app) as server, RawClient.connect(server.address) as client:
            assert client.expect_close(4000) == "enough"
            client.send(close(4000))
            client.expect_end()
        assert seen == [True]


def test_close_with_code_and_message_exchanged(app: Flask) -> None:
    caught = []

    @Sock(app).route("/")
    def view(ws: Any) -> None:
        try:
            ws.close("bye")
        except TypeError as error:
            caught.append(str(error))

    with host(app) as server, RawClient.connect(server.address) as client:
        client.expect_close(1000)
        client.expect_end()
    assert caught == ["close() takes an integer and a string, not 'bye' and None"]


def test_receive_with_a_timeout_gives_none(app: Flask) -> None:
    @Sock(app).route("/")
    def view(ws: Any) -> None:
        ws.send(f"{ws.receive(timeout=0)} {ws.receive(timeout=0.001)}")
        ws.send(ws.receive(timeout=20))

    with host(app) as server, RawClient.connect(server.address) as client:
        client.expect(0x81, b"None None")
        client.send(text("there"))
        client.expect(0x81, b"there")


def test_what_is_sent(app: Flask) -> None:
    @Sock(app).route("/")
    def view(ws: Any) -> None:
        for data in (b"bytes", bytearray(b"array"), memoryview(b"view"), "text", 42, None):
            ws.send(data)

    with host(app) as server, RawClient.connect(server.address) as client:
        for payload in (b"bytes", b"array", b"view"):
            client.expect(0x82, payload)
        for payload in (b"text", b"42", b"None"):
            client.expect(0x81, payload)


def test_options_from_the_config(app: Flask) -> None:
    @Sock(app).route("/")
    def view(ws: Any) -> None:
        ws.send(str(ws.subprotocol))
        ws.receive()

    # After the Sock was made; and with what only flask-sock has a use for.
    app.config["SOCK_SERVER_OPTIONS"] = {
        "subprotocols": "chat", "max_message_size": 10, "ping_interval": 25, "receive_bytes": 4096,
        "thread_class": None,
    }  # fmt: skip
    with host(app) as server:
        with RawClient.connect(server.address, headers=b"Sec-WebSocket-Protocol: x, chat\r\n") as client:
            client.expect(0x81, b"chat")
            client.send(text("12345678901"))
            client.expect_close(1009)
        app.config["SOCK_SERVER_OPTIONS"] = {"max_message_size": 20}
        with RawClient.connect(server.address) as client:
            client.expect(0x81, b"None")
            client.send(text("12345678901"))
            client.expect_close(1000)


def test_unknown_option_is_named(app: Flask, capfd: Any) -> None:
    Sock(app).route("/")(echo)
    app.config["SOCK_SERVER_OPTIONS"] = {"max_size": 10}
    with host(app) as server:
        assert ask(server).split(b" ", 2)[1] == b"500"
    assert "SOCK_SERVER_OPTIONS has no option 'max_size'" in capfd.readouterr().err


def test_broadcast_to_a_route_in_two_lines(app: Flask, hosted: Any) -> None:
    sock = Sock(app)

    @sock.route("/chat")
    def chat(ws: Any) -> None:
        for message in ws:
            sock.broadcast(message)

    @sock.route("/other")
    def other(ws: Any) -> None:
        for message in ws:
            sock.broadcast(message, endpoint="chat")

    with hosted(app) as server:
        one, two, three = (
            RawClient.connect(server.address, path) for path in (b"/chat", b"/chat", b"/other")
        )
        wait_until(lambda: len(sock.connections("chat")) == 2 and sock.connections("other"))
        assert all(isinstance(ws, WebSocket) for ws in sock.connections("chat"))
        one.send(text("from one"))
        for client in (one, two):
            client.expect(0x81, b"from one")
        three.send(text("from three"))
        for client in (one, two):
            client.expect(0x81, b"from three")
        for client in (one, two, three):
            finish(client)
            client.close()
        wait_until(lambda: not sock.connections("chat"))


def test_session_can_be_read(app: Flask) -> None:
    @app.get("/login")
    def login() -> str:
        flask_session["name"] = "Ann"
        return "in"

    @Sock(app).route("/who")
    def who(ws: Any) -> None:
        ws.send(flask_session["name"])

    with host(app) as server:
        answer = plain(server, b"/login")
        cookie = next(line for line in answer.split(b"\r\n") if line.startswith(b"Set-Cookie: "))
        fields = b"Cookie: " + cookie[12:].split(b";")[0] + b"\r\n"
        with RawClient.connect(server.address, b"/who", fields) as client:
            client.expect(0x81, b"Ann")


def test_adapter_holds_the_websocket(app: Flask) -> None:
    seen: list[Any] = []

    @Sock(app).route("/")
    def view(ws: Any) -> None:
        seen.append((isinstance(ws, SockWebSocket), ws.environ["PATH_INFO"], ws.websocket.request.path))

    with host(app) as server, RawClient.connect(server.address) as client:
        client.expect_close(1000)
    assert seen == [(True, "/", "/")]
