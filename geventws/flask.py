"""Flask: `Sock`, with the interface and the manners of flask-sock.

An app that uses flask-sock changes one import. Under it lies the middleware, so that a view may be refused
before the upgrade (`before_request`, a login) with whatever response Flask gives.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from flask import Blueprint, Flask, Response, request

from .broadcast import broadcast as _broadcast
from .exceptions import ConnectionClosed as _ConnectionClosed
from .exceptions import WebSocketError
from .options import Options, make_options
from .protocol.closing import Close
from .wsgi.middleware import WebSocketMiddleware

if TYPE_CHECKING:
    from .websocket import WebSocket
    from .wsgi.takeover import StartResponse

__all__ = ["ConnectionClosed", "Sock", "SockWebSocket"]

_View = TypeVar("_View", bound=Callable[..., Any])

#: What flask-sock takes besides; there is no thread, event or selector here that could be of another class.
_IGNORED = frozenset({"event_class", "receive_bytes", "selector_class", "thread_class"})


class ConnectionClosed(WebSocketError, RuntimeError):
    """The connection is over. A view need not catch it.

    Attributes:
        reason: the close code.
        message: the close reason.
    """

    kind = "closed"

    def __init__(self, reason: int = 1005, message: str | None = None) -> None:
        super().__init__(reason, message)
        self.reason = reason
        self.message = message

    def __str__(self) -> str:
        return f"Connection closed: {self.reason} {self.message or ''}"


class SockWebSocket:
    """What a view gets: a WebSocket with the manners of flask-sock.

    Attributes:
        websocket: the `WebSocket` itself, with all that it can do.
        environ: the request's environ.
    """

    def __init__(self, websocket: WebSocket) -> None:
        self.websocket = websocket
        self.environ = websocket.request.environ

    @property
    def connected(self) -> bool:
        """Whether messages can be sent."""
        return not self.websocket.closed

    @property
    def subprotocol(self) -> str | None:
        """The subprotocol agreed on, or None."""
        return self.websocket.subprotocol

    @property
    def close_reason(self) -> int:
        """The close code; 1005 while it is open."""
        code = self.websocket.close_code
        return 1005 if code is None else code

    @property
    def close_message(self) -> str | None:
        """The close reason; None while it is open."""
        return self.websocket.close_reason

    def send(self, data: Any) -> None:
        """Send bytes-like data as a binary message, anything else as text.

        Raises:
            ConnectionClosed: if it is closed.
        """
        if not isinstance(data, (bytes, bytearray, memoryview)):
            data = str(data)
        try:
            self.websocket.send(data)
        except _ConnectionClosed as error:
            raise ConnectionClosed(error.code, error.reason) from None

    def receive(self, timeout: float | None = None) -> Any:
        """Return the next message, or None if none has come in `timeout` seconds.

        Raises:
            ConnectionClosed: if it is closed.
        """
        try:
            return self.websocket.receive(timeout)
        except TimeoutError:
            return None
        except _ConnectionClosed as error:
            raise ConnectionClosed(error.code, error.reason) from None

    def close(self, reason: int | None = None, message: str | None = None) -> None:
        """Close; does not wait for the peer.

        Args:
            reason: the close code; None for 1000.
            message: the close reason.

        Raises:
            ConnectionClosed: if it is closed already.
            TypeError, ValueError: for a code or reason that may not be sent.
        """
        if not self.connected:
            raise ConnectionClosed(self.close_reason, self.close_message)
        code, text = reason or 1000, message or ""
        if not isinstance(code, int) or not isinstance(text, str):
            raise TypeError(f"close() takes an integer and a string, not {reason!r} and {message!r}")
        # Here, and not in the thread that it may belong to.
        Close(code, text).serialize()
        self.websocket.begin_close(code, text)

    def __iter__(self) -> Iterator[Any]:
        """Receive messages to the end of the connection."""
        try:
            while True:
                yield self.websocket.receive()
        except _ConnectionClosed:
            return


class Sock:
    """WebSocket routes for a Flask app.

    ::

        sock = Sock(app)

        @sock.route("/echo")
        def echo(ws):
            while True:
                ws.send(ws.receive())

    Options stand in `app.config["SOCK_SERVER_OPTIONS"]`, see `Options`. What is not possible there is told,
    by a TypeError or ValueError, when the app or a route is given, or else when the first WebSocket comes.
    """

    def __init__(self, app: Flask | None = None) -> None:
        self.app: Flask | None = None
        self.bp: Blueprint | None = None
        self._connections: dict[str, set[WebSocket]] = {}
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask) -> None:
        """Serve the routes of an app that was not given at first."""
        if self.bp is not None:
            app.register_blueprint(self.bp)
        self.app = app
        _wrap(app)

    def route(self, path: str, bp: Blueprint | None = None, **options: Any) -> Callable[[_View], _View]:
        """Return a decorator that makes a function the view of a WebSocket route.

        It is called with a `SockWebSocket` and the URL's variables, in the application and request
        context, after the functions of `before_request`. When it returns the WebSocket is closed with
        1000, when it raises with 1011; it ends quietly when the peer is gone.

        Args:
            path: the URL rule.
            bp: a blueprint to put the route on, which the app registers.
            options: as for `Flask.route`.
        """

        def decorate(view: _View) -> _View:
            @functools.wraps(view)
            def websocket_route(*args: Any, **values: Any) -> Response:
                return self._serve(view, args, values)

            holder: Flask | Blueprint
            if bp is not None:
                bp.record_once(lambda state: _wrap(state.app))
                holder = bp
            elif self.app is not None:
                _wrap(self.app)
                holder = self.app
            else:
                if self.bp is None:
                    self.bp = Blueprint("__geventws_sock", __name__)
                holder = self.bp
            holder.route(path, **(options | {"websocket": True}))(websocket_route)
            return view

        return decorate

    def _serve(self, view: Callable[..., Any], args: tuple[Any, ...], values: dict[str, Any]) -> Response:
        ws = request.environ.get("wsgi.websocket")
        if ws is None:
            raise RuntimeError("this app's Sock is not the one that serves it: call sock.init_app(app)")
        # A handler with gevent-websocket's manners, further out, has accepted it and put its own around it.
        accepted = getattr(ws, "websocket", None)
        connections = self._connections.setdefault(request.endpoint or "", set())
        try:
            if accepted is None:
                ws.accept()
            else:
                ws = accepted
            connections.add(ws)
            view(SockWebSocket(ws), *args, **values)
        except (ConnectionClosed, _ConnectionClosed):
            if not ws.closed:
                # That of another one.
                raise
        finally:
            connections.discard(ws)
        # Nobody sees it: the middleware closes the WebSocket.
        return Response()

    def connections(self, endpoint: str | None = None) -> list[WebSocket]:
        """Return the open WebSockets of a route.

        Args:
            endpoint: the route's, by default the name of its function; None, in a view, for its own.
        """
        name = request.endpoint if endpoint is None else endpoint
        return list(self._connections.get(name or "", ()))

    def broadcast(self, message: Any, endpoint: str | None = None) -> list[WebSocket]:
        """Send a message to all WebSockets of a route, without waiting for any; see `geventws.broadcast`."""
        return _broadcast(self.connections(endpoint), message)


class _FlaskMiddleware(WebSocketMiddleware):
    """The middleware of an app, with the options that stand in its config."""

    def __init__(self, app: Flask) -> None:
        super().__init__(app.wsgi_app)
        self._flask = app
        self._configured: dict[str, Any] = {}
        self.configure()

    def configure(self) -> None:
        """Take the options as they stand in the config now."""
        configured = self._flask.config.get("SOCK_SERVER_OPTIONS")
        if configured is None:
            configured = {}
        elif not isinstance(configured, Mapping):
            raise TypeError(f"SOCK_SERVER_OPTIONS takes a mapping of names to values, not {configured!r}")
        if configured != self._configured:
            self.options = _make_options(configured)
            self._configured = dict(configured)

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        if "HTTP_UPGRADE" in environ:
            # They may be set at any time before the first request.
            self.configure()
        return super().__call__(environ, start_response)


def _make_options(configured: dict[str, Any]) -> Options:
    """Read SOCK_SERVER_OPTIONS."""
    options = {name: value for name, value in configured.items() if name not in _IGNORED}
    if isinstance(options.get("subprotocols"), str):
        options["subprotocols"] = [options["subprotocols"]]
    return make_options("SOCK_SERVER_OPTIONS", options, others=_IGNORED)


def _wrap(app: Flask) -> None:
    """Put the middleware around an app, once; it takes what stands in the config by now."""
    middleware = app.extensions.get("geventws")
    if middleware is None:
        app.extensions["geventws"] = app.wsgi_app = _FlaskMiddleware(app)
    else:
        middleware.configure()
