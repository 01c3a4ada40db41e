"""Other middlewares around ours: it works, or there is a clear error before any byte."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import pytest
from hosting import ask, host, host_threaded, open_raw
from support import HANDSHAKE, RawClient, close, text, wait_until
from werkzeug.debug import DebuggedApplication
from werkzeug.middleware.proxy_fix import ProxyFix

from geventws import WebSocketMiddleware


def app(environ: Any, start_response: Any) -> Any:
    ws = environ.get("wsgi.websocket")
    path = environ["PATH_INFO"]
    if path == "/raise":
        raise ZeroDivisionError
    if ws is None or path == "/reject":
        start_response("200 OK", [("Content-Length", "5")])
        return [b"plain"]
    if path == "/late-raise":
        ws.accept()
        raise ZeroDivisionError
    for message in ws:
        ws.send(message)
    return []


class Session:
    """As session middlewares do: a wrapped start_response that adds a cookie."""

    def __init__(self, app: Any) -> None:
        self.app = app

    def __call__(self, environ: Any, start_response: Any) -> Any:
        def with_cookie(status: str, headers: Any, exc_info: Any = None) -> Any:
            return start_response(status, [*headers, ("Set-Cookie", "session=1")], exc_info)

        return self.app(environ, with_cookie)


class Generator:
    """As profilers and tracers do: a generator around the iterable."""

    def __init__(self, app: Any) -> None:
        self.app = app

    def __call__(self, environ: Any, start_response: Any) -> Any:
        iterable = self.app(environ, start_response)
        try:
            yield from iterable
        finally:
            getattr(iterable, "close", lambda: None)()


class Buffering:
    """As WebOb does: the whole response is made before the server hears of it."""

    def __init__(self, app: Any) -> None:
        self.app = app

    def __call__(self, environ: Any, start_response: Any) -> Any:
        captured: list[Any] = []
        output = io.BytesIO()

        def capture(*arguments: Any) -> Any:
            captured[:] = arguments
            return output.write

        iterable = self.app(environ, capture)
        try:
            output.writelines(iterable)
        finally:
            getattr(iterable, "close", lambda: None)()
        start_response(*captured)
        return [output.getvalue()]


class Catching:
    """As error pages do: an exception becomes a response, which goes on as if nothing was."""

    def __init__(self, app: Any) -> None:
        self.app = app

    def __call__(self, environ: Any, start_response: Any) -> Any:
        try:
            return self.app(environ, start_response)
        except Exception as error:
            start_response("500 Internal Server Error", [("Content-Length", "4")], (type(error), error, None))
            return [b"oops"]


TRANSPARENT = {
    "ProxyFix": ProxyFix,
    "DebuggedApplication": DebuggedApplication,
    "session": Session,
    "generator": Generator,
    "catching": Catching,
    "all": lambda inner: DebuggedApplication(ProxyFix(Session(Generator(Catching(inner))))),
}

HOSTS = {"pywsgi": host, "werkzeug": host_threaded}


@pytest.fixture(params=HOSTS)
def hosted(request: pytest.FixtureRequest) -> Callable[[Any], Any]:
    return HOSTS[request.param]


@pytest.mark.parametrize("outer", TRANSPARENT.values(), ids=TRANSPARENT)
def test_transparent(outer: Any, hosted: Any) -> None:
    with hosted(outer(WebSocketMiddleware(app))) as server:
        with RawClient.connect(server.address) as client:
            client.send(text("x"))
            client.expect(0x81, b"x")
            client.send(close(1000))
            client.expect_close(1000)
            client.expect_end()
        assert ask(server, b"/reject").endswith(b"plain")
        if server.__class__.__name__ == "WSGIServer":
            wait_until(lambda: len(server.access) == 2)
            assert ['" 101 ' in server.access[0], '" 200 ' in server.access[1]] == [True, True]


def test_cookie_of_a_session_middleware_is_on_the_101() -> None:
    with host(Session(WebSocketMiddleware(app))) as server, RawClient.connect(server.address) as client:
        assert b"Set-Cookie: session=1" in client.head
        client.send(close(1000))
        client.expect_close(1000)


def test_proxy_fix_gives_address_and_host() -> None:
    seen = []

    def look(environ: Any, start_response: Any) -> Any:
        request = environ["wsgi.websocket"].request
        seen.append((request.remote_address[0], request.host))
        start_response("404 Not Found", [("Content-Length", "0")])
        return []

    with host(ProxyFix(WebSocketMiddleware(look), x_host=1)) as server:
        fields = b"X-Forwarded-For: 192.0.2.7\r\nX-Forwarded-Host: front.example\r\nOrigin: https://front.example\r\n"
        assert ask(server, fields=fields).startswith(b"HTTP/1.1 404 ")
    assert seen == [("192.0.2.7", "front.example")]


@pytest.mark.parametrize("inner", ["application", "handler"])
def test_buffering_is_an_error_before_any_byte(inner: str, capfd: Any) -> None:
    handler = (lambda ws: ws.send("x")) if inner == "handler" else None
    with host(Buffering(WebSocketMiddleware(app, handler))) as server:
        answer = ask(server)
    assert answer.startswith(b"HTTP/1.1 500 ")
    assert "make WebSocketMiddleware the outermost one" in capfd.readouterr().err


def test_buffering_passes_rejections() -> None:
    with host(Buffering(WebSocketMiddleware(app))) as server:
        assert ask(server, b"/reject").endswith(b"plain")


def test_exception_that_another_middleware_answers_ends_the_connection(hosted: Any) -> None:
    smuggled = b"GET /reject HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with hosted(Catching(WebSocketMiddleware(app))) as server:
        with open_raw(server, HANDSHAKE % (b"/raise", b"") + smuggled) as client:
            data = b""
            while chunk := client.socket.recv(65536):
                data += chunk
        assert data.startswith(b"HTTP/1.1 500 ")
        assert data.endswith(b"oops")


def test_exception_after_the_101_is_ours(hosted: Any, caplog: Any) -> None:
    with hosted(DebuggedApplication(Catching(WebSocketMiddleware(app)))) as server:
        with RawClient.connect(server.address, b"/late-raise") as client:
            client.expect_close(1011)
            client.send(close(1011))
            client.expect_end()
    assert [record.exc_info[0] for record in caplog.records if record.name == "geventws"] == [
        ZeroDivisionError
    ]
