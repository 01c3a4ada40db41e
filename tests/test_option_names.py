"""An option name that is wrong is told with a hint: by every face alike, and as early as it can be known."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest
from flask import Blueprint, Flask

from geventws import WebSocketMiddleware, WebSocketServer, compat, connect, connect_forever
from geventws.compat.handler import WebSocketHandler as CompatHandler
from geventws.flask import Sock
from geventws.options import _ELSEWHERE, OPTION_NAMES
from geventws.pywsgi import WebSocketHandler
from geventws.serving import TLS_NAMES
from geventws.testing import Client, pair


def nothing(environ: Any, start_response: Any) -> Any:
    start_response("404 Not Found", [])
    return []


def handler(ws: Any) -> None: ...


def gunicorn_handler() -> type:
    pytest.importorskip("gunicorn")
    from geventws.gunicorn import GunicornWebSocketHandler

    return GunicornWebSocketHandler


def subclass(base: Callable[[], type]) -> Callable[..., Any]:
    return lambda **options: type("Mine", (base(),), {"options": options})


def flask_app(**options: Any) -> Any:
    app = Flask("site")
    app.config["SOCK_SERVER_OPTIONS"] = options
    return Sock(app)


def flask_route(**options: Any) -> Any:
    app = Flask("site")
    sock = Sock(app)
    app.config["SOCK_SERVER_OPTIONS"] = options
    return sock.route("/")(handler)


def flask_blueprint(**options: Any) -> Any:
    app = Flask("site")
    blueprint = Blueprint("chat", __name__)
    Sock().route("/", blueprint)(handler)
    app.config["SOCK_SERVER_OPTIONS"] = options
    app.register_blueprint(blueprint)


def flask_app_later(**options: Any) -> Any:
    """Set when all is made: the first upgrade tells it."""
    app = Flask("site")
    sock = Sock(app)
    sock.route("/")(handler)
    app.config["SOCK_SERVER_OPTIONS"] = options
    with Client(app) as client:
        client.connect("/")


def open_by_client(**options: Any) -> Any:
    with Client(WebSocketMiddleware(nothing, handler)) as client:
        return client.connect(**options)


#: What the message begins with, and how options get there.
FACES: dict[str, Callable[..., Any]] = {
    "WebSocketServer()": lambda **options: WebSocketServer(("127.0.0.1", 0), handler, **options),
    "connect()": lambda **options: connect("ws://127.0.0.1:1", **options),
    "connect_forever()": lambda **options: connect_forever("ws://127.0.0.1:1", **options),
    "WebSocketMiddleware()": lambda **options: WebSocketMiddleware(nothing, **options),
    "CompatMiddleware()": lambda **options: compat.CompatMiddleware(nothing, **options),
    "install()": compat.install,
    "pair()": pair,
    "Client.connect()": open_by_client,
}

OF_CLASSES: dict[str, Callable[..., Any]] = {
    "pywsgi": subclass(lambda: WebSocketHandler),
    "compat": subclass(lambda: CompatHandler),
    "gunicorn": subclass(gunicorn_handler),
}

OF_FLASK: dict[str, Callable[..., Any]] = {
    "app": flask_app, "route": flask_route, "blueprint": flask_blueprint, "first upgrade": flask_app_later,
}  # fmt: skip

ALL = [
    *((name, take) for name, take in FACES.items()),
    *(("Mine.options", take) for take in OF_CLASSES.values()),
    *(("SOCK_SERVER_OPTIONS", take) for take in OF_FLASK.values()),
]
IDS = [*FACES, *OF_CLASSES, *OF_FLASK]


@pytest.mark.parametrize(("face", "take"), ALL, ids=IDS)
class TestEveryFace:
    def test_wrong_name(self, face: str, take: Callable[..., Any]) -> None:
        with pytest.raises(TypeError) as caught:
            take(max_mesage_size=1)
        assert str(caught.value) == (
            f"{face} has no option 'max_mesage_size'; did you mean 'max_message_size'?"
        )

    def test_name_like_none(self, face: str, take: Callable[..., Any]) -> None:
        with pytest.raises(TypeError) as caught:
            take(max_message_size=1, xyzzy=1)
        assert str(caught.value) == f"{face} has no option 'xyzzy'"

    def test_wrong_value(self, face: str, take: Callable[..., Any]) -> None:
        with pytest.raises(ValueError, match="max_message_size takes a positive number of bytes"):
            take(max_message_size=0)


@pytest.mark.parametrize(
    ("face", "wrong", "meant"),
    [
        ("WebSocketServer()", "cert_file", "certfile"),
        ("connect()", "headrs", "headers"),
        ("connect_forever()", "max_retrys", "max_retries"),
        ("connect_forever()", "cokies", "cookies"),
        ("WebSocketMiddleware()", "handlers", "handler"),
        ("pair()", "subprotocl", "subprotocol"),
        ("Client.connect()", "header", "headers"),
        # What they are called in other libraries, where something else is spelt more alike.
        ("connect()", "max_size", "max_message_size"),
        ("connect()", "additional_headers", "headers"),
        ("connect()", "extra_headers", "headers"),
        ("connect()", "ssl", "ssl_context"),
        ("connect()", "sslopt", "ssl_context"),
        ("connect()", "protocols", "subprotocols"),
        ("WebSocketServer()", "max_payload", "max_message_size"),
        ("WebSocketServer()", "allowed_origins", "origins"),
        ("WebSocketServer()", "key", "keyfile"),
        ("pair()", "max_size", "max_message_size"),
    ],
)
def test_other_arguments_are_meant_too(face: str, wrong: str, meant: str) -> None:
    with pytest.raises(TypeError) as caught:
        FACES[face](**{wrong: 1})
    assert str(caught.value) == f"{face} has no option {wrong!r}; did you mean {meant!r}?"


@pytest.mark.parametrize("face", ["connect()", "connect_forever()", "WebSocketServer()", "Client.connect()"])
def test_timeout_may_be_another(face: str) -> None:
    with pytest.raises(TypeError) as caught:
        FACES[face](timeout=1)
    assert str(caught.value) == (
        f"{face} has no option 'timeout'; did you mean 'open_timeout'? receive() takes a timeout of its own"
    )


@pytest.mark.parametrize(
    ("face", "wrong"), [("pair()", "timeout"), ("connect()", "max_time"), ("connect()", "certfile")]
)
def test_nothing_is_meant_that_would_do_something_else(face: str, wrong: str) -> None:
    with pytest.raises(TypeError) as caught:
        FACES[face](**{wrong: 1})
    assert str(caught.value) == f"{face} has no option {wrong!r}"


def test_names_of_other_libraries_mean_what_there_is() -> None:
    """So that none of them is a hint at what was renamed since."""
    arguments = {*inspect.signature(connect).parameters, *TLS_NAMES, *OPTION_NAMES}
    assert {*_ELSEWHERE.values()} <= arguments
    assert not _ELSEWHERE.keys() & arguments


@pytest.mark.parametrize("options", [["ping_interval"], "ping_interval", 5, [], ""])
def test_no_mapping_in_flask(options: Any) -> None:
    app = Flask("site")
    app.config["SOCK_SERVER_OPTIONS"] = options
    with pytest.raises(TypeError, match="SOCK_SERVER_OPTIONS takes a mapping of names to values, not "):
        Sock(app)


@pytest.mark.parametrize("take", OF_CLASSES.values(), ids=OF_CLASSES)
def test_what_is_no_mapping(take: Callable[..., Any]) -> None:
    base = take().__mro__[1]
    with pytest.raises(TypeError, match=r"^Mine\.options takes a mapping of names to values, not "):
        type("Mine", (base,), {"options": [("max_message_size", 1)]})


def test_check_leaves_what_can_be_gone_through_once() -> None:
    class Handler(WebSocketHandler):
        options = {"subprotocols": iter(["chat"])}  # noqa: RUF012

    middleware = Handler.__new__(Handler).make_middleware(nothing)
    assert middleware.options.subprotocols == ("chat",)


def test_name_that_is_no_string() -> None:
    with pytest.raises(TypeError, match=r"^Mine\.options has no option 1$"):
        type("Mine", (WebSocketHandler,), {"options": {1: 2}})


def test_options_that_a_handler_computes_are_not_looked_at() -> None:
    class Handler(WebSocketHandler):
        @property
        def options(self) -> Any:  # type: ignore[override]
            raise AssertionError

    class Further(Handler): ...

    assert Further.options is Handler.options


def test_options_of_a_class_beside() -> None:
    class Settings:
        options = {"max_mesage_size": 1}  # noqa: RUF012

    with pytest.raises(TypeError, match=r"^Handler\.options has no option 'max_mesage_size'"):

        class Handler(Settings, WebSocketHandler): ...
