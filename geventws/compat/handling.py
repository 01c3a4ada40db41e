"""What the handler of a request is on all servers: its WebSocket, and its place among the others."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .clients import Client, Clients
from .exceptions import WebSocketError
from .logging import create_logger
from .websocket import Stream, WebSocket

if TYPE_CHECKING:
    import logging

    from ..websocket import WebSocket as _WebSocket
    from .middleware import CompatMiddleware

__all__ = ["Handling"]


class Handling:
    """A request, and the WebSocket that it has become.

    Attributes:
        server: the server; its `clients` are the open WebSockets.
        environ: the request's environ.
        client_address: the address of the other end.
        websocket: the WebSocket while it is served, else None.
        connection: the `geventws.WebSocket` below it.
        websocket_class: the class of `websocket`.
        prevent_wsgi_call: open the WebSocket, and do not call the application.
    """

    websocket: WebSocket | None = None
    connection: _WebSocket | None = None
    websocket_class: type[WebSocket] = WebSocket
    prevent_wsgi_call = False

    server: Any
    environ: dict[str, Any]
    client_address: Any
    socket: Any

    _socket: Any = None
    _client_key: Any = None
    _middleware: Any = None

    @property
    def logger(self) -> logging.Logger:
        """The server's logger."""
        if not hasattr(self.server, "logger"):
            self.server.logger = create_logger("geventwebsocket.handler")
        return self.server.logger  # type: ignore[no-any-return]

    @property
    def active_client(self) -> Client:
        """The one of `server.clients` that is this one's."""
        return self.server.clients[self._client_key]  # type: ignore[no-any-return]

    def runs_itself(self, middleware: CompatMiddleware) -> bool:
        """Tell whether it calls `run_websocket` by itself, where this middleware has opened the WebSocket."""
        return False

    def opened(self, connection: _WebSocket, middleware: CompatMiddleware) -> None:
        """The upgrade was accepted."""
        self.connection = connection
        self._middleware = middleware
        self._socket = self.socket
        # Where nobody is about to run it, whoever closes the socket brings it to its end first.
        end = self.finish if self.prevent_wsgi_call else connection.abort
        self.socket = _GuardedSocket(self.socket, end)
        self.websocket = self.websocket_class(self.environ, Stream(self), self)
        self.environ["wsgi.websocket"] = self.websocket
        self.environ["wsgi.websocket_version"] = self.websocket.version

    def run_websocket(self) -> None:
        """Run the application to its end, and that of the WebSocket."""
        if self.prevent_wsgi_call:
            return
        if not hasattr(self.server, "clients"):
            self.server.clients = Clients()
        self.finish(self._run_application)

    def finish(self, serve: Any = lambda _: None) -> None:
        """Close the WebSocket after `serve`, a function of the connection; TCP is over then."""
        connection, websocket = self.connection, self.websocket
        if connection is None:
            return
        try:
            self._middleware.run(connection, serve)
        finally:
            self.socket, self._socket = self._socket, None
            if websocket is not None:
                websocket._end()
            self.environ["wsgi.websocket"] = None
            self.connection = self.websocket = self._middleware = None

    def _run_application(self, connection: _WebSocket) -> None:
        clients = self.server.clients
        client = Client(self.client_address, self.websocket)  # type: ignore[arg-type]
        if isinstance(clients, Clients):
            self._client_key = clients.add(self.client_address, client)
        else:
            # One that the program has put there.
            self._client_key = self.client_address
            clients[self._client_key] = client
        try:
            self._call_application(connection)
        finally:
            clients.pop(self._client_key, None)

    def _call_application(self, connection: _WebSocket) -> None:
        status = ""

        def start_response(new: str, headers: Any, exc_info: Any = None) -> Any:
            nonlocal status
            status = new
            return lambda data: None

        result = None
        try:
            result = self._middleware.call(self.environ, start_response)
            for _ in result or ():
                # What comes behind the 101 is dropped.
                pass
        except WebSocketError:
            if not self.websocket.closed:  # type: ignore[union-attr]
                # That of another one.
                raise
        finally:
            close = getattr(result, "close", None)
            if close is not None:
                close()
        if status[:1] == "5":
            # A framework has turned an exception into this, and has logged it.
            connection.begin_close(1011, "internal error")


class _GuardedSocket:
    """A server's socket while a WebSocket uses it: whoever closes it ends that in order.

    A timeout has no effect: the socket is read in the event loop, which waits for nothing.
    """

    #: What pywsgi closes without asking.
    _sock = None

    def __init__(self, sock: Any, end: Callable[[], None]) -> None:
        self._socket = sock
        self._end = end

    def __getattr__(self, name: str) -> Any:
        return getattr(self._socket, name)

    def close(self) -> None:
        """End the WebSocket. The socket itself is the server's."""
        self._end()

    def shutdown(self, how: int) -> None:
        """End the WebSocket."""
        self._end()

    def setblocking(self, flag: Any) -> None:
        """Do nothing."""

    def settimeout(self, seconds: Any) -> None:
        """Do nothing."""
