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
import socket
import sys
import urllib.parse
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any

import gevent
import gevent.socket
from gevent.event import AsyncResult

from .exceptions import ConnectionClosedError, InvalidStatus, OpenTimeout
from .options import Compression, Options, make_options
from .protocol.connection import Connection
from .protocol.deflate import DeflateParameters
from .protocol.handshake import ClientHandshake
from .protocol.headers import Headers
from .protocol.http import Request, RequestParser, Response
from .protocol.uri import parse_uri
from .websocket import WebSocket
from .wsgi.takeover import Fields, StartResponse, Takeover

if TYPE_CHECKING:
    from .serving import Agreement

__all__ = ["Client", "pair"]

_OFFER = "permessage-deflate; client_max_window_bits"


def pair(*, subprotocol: str | None = None, **options: Any) -> tuple[WebSocket, WebSocket]:
    """Return the two ends of an open WebSocket: the server's, which a handler gets, and the client's.

    Args:
        subprotocol: what they have agreed on.
        options: see `Options`, for both. With `compression` both have agreed on permessage-deflate.
    """
    settings = make_options("pair()", {"ping_interval": None} | options, others=("subprotocol",))
    deflate = DeflateParameters() if settings.compression is not None else None
    request = Request("GET", "/", {"Host": "localhost"})
    ours, theirs = gevent.socket.socketpair()
    return (
        _open(ours, False, request, settings, deflate, subprotocol),
        _open(theirs, True, request, settings, deflate, subprotocol),
    )


def _open(
    sock: Any,
    client: bool,
    request: Request,
    options: Options,
    deflate: DeflateParameters | None,
    subprotocol: str | None,
    response: Response | None = None,
) -> WebSocket:
    """Make one end."""
    compression = options.compression
    settings = compression if isinstance(compression, Compression) else Compression()
    core = Connection(
        client=client,
        max_message_size=options.max_message_size,
        max_fragments=options.max_fragments,
        deflate=deflate,
        level=settings.level,
        mem_level=settings.mem_level,
        threshold=settings.threshold,
    )
    extensions = deflate.header() if deflate is not None else ""
    return WebSocket(
        sock, core, request, options, subprotocol=subprotocol, extensions=extensions, response=response
    )


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
            options: see `Options`, for this end; with `compression` permessage-deflate is offered.

        Returns:
            The WebSocket. Its attribute `response` is the 101 with its fields.

        Raises:
            InvalidStatus: the application has answered something else; `response` is what.
            ConnectionClosed: the application has dropped the connection.
            OpenTimeout: it has done nothing in time.
            TypeError, ValueError: for arguments that cannot be.
        """
        if not path.startswith("/"):
            # It would become a part of the host.
            raise ValueError(f"path begins with a slash, not {path!r}")
        settings = make_options(
            "Client.connect()", {"ping_interval": None} | options, others=Client.connect.__kwdefaults__ or ()
        )
        handshake = ClientHandshake(
            parse_uri(f"ws://localhost{path}"),
            headers=headers,
            subprotocols=subprotocols,
            origin=origin,
            extensions_offer=_OFFER if settings.compression is not None else None,
        )
        request = RequestParser(max_line=None, max_headers=None, max_head=None).receive_data(
            handshake.request()
        )
        assert request is not None
        ours, theirs = gevent.socket.socketpair()
        takeover = _TestTakeover(theirs)
        call = gevent.spawn(self._call, _make_environ(request, takeover) | dict(environ or {}), takeover)
        self._calls.append(call)
        try:
            takeover.outcome.wait(self._timeout)
            if not takeover.outcome.ready():
                raise OpenTimeout(f"the application has not answered within {self._timeout:g} seconds")
            outcome = takeover.outcome.get()
            if isinstance(outcome, BaseException):
                raise outcome
        except BaseException:
            ours.close()
            raise
        response, agreement = outcome
        ws = _open(ours, True, request, settings, agreement.deflate, agreement.subprotocol, response)
        self._websockets.append(ws)
        return ws

    def _call(self, environ: dict[str, Any], takeover: _TestTakeover) -> None:
        """Call the application as a server does."""
        answer = _Answer()
        body = b""
        try:
            result = self._app(environ, answer.start_response)
            try:
                body = b"".join(result)
            finally:
                getattr(result, "close", lambda: None)()
        except Exception as error:
            if takeover.outcome.ready():
                raise
            takeover.outcome.set(error)
        finally:
            dropped = takeover.dropped
            takeover.socket.close()
        if not takeover.outcome.ready():
            if dropped:
                takeover.outcome.set(
                    ConnectionClosedError(None, None, None, "the application has dropped it")
                )
            else:
                response = answer.response(body)
                takeover.outcome.set(InvalidStatus(f"the application answered {response.status}", response))

    def close(self) -> None:
        """Close all WebSockets that are open, with 1001, and wait for the application.

        Raises:
            TimeoutError: a handler does not end; it was killed.
        """
        try:
            for ws in self._websockets:
                ws.begin_close(1001, "the test is over")
            left = len(self._calls) - len(gevent.joinall(self._calls, timeout=self._timeout))
            gevent.killall(self._calls)
        finally:
            for ws in self._websockets:
                ws.abort()
        if left:
            raise TimeoutError(f"{left} handlers have not ended within {self._timeout:g} seconds")

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


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
        outcome: what `connect` waits for: the 101 and the agreement, or an exception.
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
        head = agreement.response(headers).decode("latin-1")
        pairs = [line.partition(": ")[::2] for line in head.split("\r\n")[1:-2]]
        start_response("101 Switching Protocols", pairs)
        self.outcome.set((Response._received(101, "Switching Protocols", Headers(pairs), b""), agreement))

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
