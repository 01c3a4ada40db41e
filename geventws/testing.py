"""For tests of handlers and applications with WebSockets: no server, no port, no thread.

::

    def test_echo():
        server, client = pair()
        gevent.spawn(echo, server)
        client.send("hello")
        assert client.receive(timeout=5) == "hello"

    def test_site():
        with Client(app) as client:
            ws = client.connect("/echo")
            ws.send("hello")
            assert ws.receive(timeout=5) == "hello"

In a conftest.py, `from geventws.testing import websocket_client` gives pytest a fixture: a function that
makes such a `Client`, all of which end with the test: what is open is closed with 1001.

Everything runs in the hub of the test's thread: give `receive` a timeout, so that a test fails instead of
hanging.
"""

from __future__ import annotations

import contextlib
import io
import logging
import socket
import sys
import urllib.parse
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any

import gevent
import gevent.socket
from gevent.event import AsyncResult

from .agreement import agree
from .client.asking import Asking, shared_keepalive
from .exceptions import ConnectionClosedError, InvalidStatus, OpenTimeout
from .options import SERVER_OPTIONS, Options, check_option_names, make_options
from .protocol.headers import Headers
from .protocol.http import Request, RequestParser, Response
from .protocol.uri import parse_uri
from .websocket import WebSocket
from .wsgi.takeover import Fields, StartResponse, Takeover, fields_of

if TYPE_CHECKING:
    from .agreement import Agreement

__all__ = ["Client", "pair"]

logger = logging.getLogger("geventws")

_OF_OPENING = "that is one for the opening handshake, and a pair is open from the start"
_OF_SERVERS = "that is one for servers, and there is none"
_OF_NETWORKS = "the application is called, and there is no network"
_OF_READING = "the application is called, and no head of HTTP is read"

#: Options that mean nothing to `pair`, and why.
_NOT_OF_PAIRS = dict.fromkeys(SERVER_OPTIONS, _OF_SERVERS) | {
    "max_head": _OF_OPENING,
    "max_headers": _OF_OPENING,
    "max_line": _OF_OPENING,
    "open_timeout": _OF_OPENING,
    "origins": _OF_OPENING,
    "process_request": _OF_OPENING,
    "subprotocols": "subprotocol=... says what both have agreed on",
}

#: Those that mean nothing to `Client.connect`, arguments of `geventws.connect` among them.
_NOT_OF_CLIENTS = (
    SERVER_OPTIONS
    | dict.fromkeys(("max_head", "max_headers", "max_line"), _OF_READING)
    | dict.fromkeys(
        ("max_redirects", "proxy", "server_hostname", "source_address", "ssl_context"), _OF_NETWORKS
    )
    | {"auth": "give Authorization in headers", "cookies": "give Cookie in headers"}
)


def pair(*, subprotocol: str | None = None, **options: Any) -> tuple[WebSocket, WebSocket]:
    """Return the two ends of an open WebSocket: the server's, which a handler gets, and the client's.

    They are made as `WebSocketServer` and `connect` make theirs, and have agreed on what those would.

    Args:
        subprotocol: what they have agreed on.
        options: see `Options`, for both: `compression`, `rate_limit`, `slow_consumer`, and those about sizes,
            queues, writing, Pings and closing. `ping_interval` is None by default here: no Pings. Those that
            are for servers or for the opening handshake are refused.

    Raises:
        TypeError, ValueError: for options that there are not, and values that are not possible.
    """
    check_option_names("pair()", options, others=("subprotocol",), refused=_NOT_OF_PAIRS)
    settings = Options(
        **({"ping_interval": None} | options), subprotocols=() if subprotocol is None else (subprotocol,)
    )
    asking = Asking(parse_uri("ws://localhost/"), settings)
    request = _parse(asking)
    agreement = agree(request, settings)
    _, response = _response_of(agreement)
    asking.check(response)
    ours, theirs = gevent.socket.socketpair()
    server = WebSocket(
        ours,
        agreement.connection(settings),
        request,
        settings,
        subprotocol=agreement.subprotocol,
        extensions=agreement.extensions,
        keepalive=shared_keepalive(settings),
    )
    return server, asking.open(theirs, response)


def _parse(asking: Asking) -> Request:
    """Return what a server gets."""
    parser = RequestParser(max_line=None, max_headers=None, max_head=None)
    request = parser.receive_data(asking.request())
    assert request is not None
    return request


def _response_of(agreement: Agreement, headers: Fields = ()) -> tuple[list[tuple[str, str]], Response]:
    """Return the 101: its fields, and what a client gets."""
    fields = fields_of(agreement.response(headers))
    return fields, Response._received(101, "Switching Protocols", Headers(fields), b"")


class Client:
    """Opens WebSockets to a WSGI application that has them: a `WebSocketMiddleware`, or Flask with a `Sock`.

    What the application raises before it has accepted a WebSocket is raised by `connect`; what it raises
    after that is logged and closes with 1011, as on a server. Leaving `with` ends all that was opened.
    """

    def __init__(self, app: Callable[..., Any], *, timeout: float = 10.0) -> None:
        """Args:
        app: the application.
        timeout: seconds for each opening handshake, and for the end of all handlers.
        """
        self._app = app
        self._timeout = timeout
        self._calls: list[Any] = []
        self._websockets: list[WebSocket] = []

    def connect(
        self,
        path: str = "/",
        *,
        headers: Iterable[tuple[str, str]] | Mapping[str, str] = (),
        subprotocols: Iterable[str] = (),
        origin: str | None = None,
        environ: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> WebSocket:
        """Open a WebSocket, and return the client's end.

        Args:
            path: path and query, encoded as in a URI.
            headers: further fields of the request, such as a Cookie.
            subprotocols: names to offer.
            origin: the Origin, or None.
            environ: what the environ shall have besides.
            options: those that `geventws.connect` takes, for this end; with `compression` permessage-deflate
                is offered. `ping_interval` is None by default here: no Pings. `open_timeout` stands in place
                of the `timeout` of this client. `max_line`, `max_headers` and `max_head` are refused.

        Returns:
            The WebSocket. Its attribute `response` is the 101 with its fields.

        Raises:
            InvalidStatus: the application has answered something else; `response` is what.
            ConnectionClosed: the application has dropped the connection.
            InvalidHandshake: it has answered with a 101 that opens nothing.
            OpenTimeout: it has done nothing in time.
            TypeError, ValueError: for arguments that cannot be.
        """
        if not path.startswith("/"):
            # It would become a part of the host.
            raise ValueError(f"path begins with a slash, not {path!r}")
        if callable(subprotocols):
            raise TypeError("subprotocols takes a list of names; a callable is for servers, which choose")
        settings = make_options(
            "Client.connect()",
            {"ping_interval": None} | options | {"subprotocols": subprotocols},
            others=Client.connect.__kwdefaults__ or (),
            refused=_NOT_OF_CLIENTS,
        )
        timeout = settings.open_timeout if "open_timeout" in options else self._timeout
        asking = Asking(parse_uri(f"ws://localhost{path}"), settings, headers=headers, origin=origin)
        request = _parse(asking)
        ours, theirs = gevent.socket.socketpair()
        takeover = _TestTakeover(theirs)
        call = gevent.spawn(self._call, _make_environ(request, takeover) | dict(environ or {}), takeover)
        self._calls.append(call)
        try:
            takeover.outcome.wait(timeout)
            if not takeover.outcome.ready():
                raise OpenTimeout(f"the application has not answered within {timeout:g} seconds")
            outcome = takeover.outcome.get()
            if isinstance(outcome, BaseException):
                raise outcome
            asking.check(outcome)
        except BaseException:
            ours.close()
            raise
        ws = asking.open(ours, outcome)
        self._websockets.append(ws)
        return ws

    def _call(self, environ: dict[str, Any], takeover: _TestTakeover) -> None:
        """Call the application as a server does; have `connect` know how it ends."""
        answer = _Answer()
        outcome: BaseException | None = None
        try:
            result = self._app(environ, answer.start_response)
            try:
                body = b"".join(result)
            finally:
                getattr(result, "close", lambda: None)()
            if takeover.outcome.ready():
                return
            if takeover.dropped:
                outcome = ConnectionClosedError(None, None, None, "the application has dropped it")
            else:
                response = answer.response(body)
                outcome = InvalidStatus(f"the application answered {response.status}", response)
        except BaseException as error:
            # Not an Exception: a Timeout of the application's, or what ends a greenlet.
            if takeover.outcome.ready():
                raise
            outcome = error
        finally:
            takeover.socket.close()
            if outcome is not None:
                takeover.outcome.set(outcome)

    def close(self) -> None:
        """Close all WebSockets that are open, with 1001, and wait for the application.

        Raises:
            TimeoutError: a handler does not end; it was killed.
        """
        left = self._end()
        if left:
            raise TimeoutError(left)

    def _end(self) -> str:
        """End all handlers; return what there is to say about those that did not by themselves, or ""."""
        try:
            for ws in self._websockets:
                ws.begin_close(1001, "the test is over")
            left = len(self._calls) - len(gevent.joinall(self._calls, timeout=self._timeout))
            gevent.killall(self._calls, block=False)
            # One that holds on to its life is not waited for.
            still = len(self._calls) - len(gevent.joinall(self._calls, timeout=self._timeout))
        finally:
            for ws in self._websockets:
                ws.abort()
        if not left:
            return ""
        text = f"{left} handlers have not ended within {self._timeout:g} seconds"
        return f"{text}, and {still} cannot be killed: do they catch every exception?" if still else text

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        left = self._end()
        if left and error is None:
            raise TimeoutError(left)
        if left:
            # The error that the test has found is the one to be seen.
            logger.warning("%s", left)


class _Answer:
    """What an application says with start_response."""

    def __init__(self) -> None:
        self._status = ""
        self._headers: list[tuple[str, str]] = []
        self._written = b""

    def start_response(self, status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
        self._status = status
        self._headers = headers
        return self.write

    def write(self, data: bytes) -> None:
        self._written += data

    def response(self, body: bytes) -> Response:
        code, _, reason = self._status.partition(" ")
        return Response._received(int(code or 0), reason, Headers(self._headers), self._written + body)


class _TestTakeover(Takeover):
    """The connection: one end of a pair of sockets.

    Attributes:
        outcome: what `connect` waits for: the 101, or an exception.
    """

    def __init__(self, sock: Any) -> None:
        super().__init__(sock)
        self.outcome: AsyncResult = AsyncResult()

    # As a handler of ours: see takeover.find.
    def take_over(self) -> _TestTakeover:
        return self

    def take_early_data(self) -> bytes:
        return b""

    def send_head(
        self, start_response: StartResponse, agreement: Agreement, headers: Fields, timeout: float | None
    ) -> None:
        fields, response = _response_of(agreement, headers)
        start_response("101 Switching Protocols", fields)
        self.outcome.set(response)

    @property
    def dropped(self) -> bool:
        """Whether the connection was ended before there was an answer."""
        self.socket.settimeout(0)
        try:
            return len(self.socket.recv(1, socket.MSG_PEEK)) == 0
        except OSError:
            return False


def _make_environ(request: Request, takeover: _TestTakeover) -> dict[str, Any]:
    """Make the environ of a request (PEP 3333)."""
    path, _, query = request.target.partition("?")
    environ: dict[str, Any] = {
        "REQUEST_METHOD": "GET",
        "SCRIPT_NAME": "",
        "PATH_INFO": urllib.parse.unquote(path, "latin-1"),
        "QUERY_STRING": query,
        "SERVER_NAME": "localhost",
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "127.0.0.1",
        "REMOTE_PORT": "0",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": False,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
        "geventws.handler": takeover,
    }
    for name, value in request.headers.items():
        key = f"HTTP_{name.upper().replace('-', '_')}"
        environ[key] = f"{environ[key]},{value}" if key in environ else value
    return environ


try:
    import pytest
except ImportError:
    pass
else:

    @pytest.fixture
    def websocket_client() -> Iterator[Callable[..., Client]]:
        """A function that makes a `Client` for an application."""
        with contextlib.ExitStack() as stack:
            # Each of them, whatever the others raise.
            yield lambda app, **options: stack.enter_context(Client(app, **options))
