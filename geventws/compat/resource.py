"""`geventwebsocket.resource`: paths, and an application object for each WebSocket."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from .exceptions import WebSocketError
from .protocols.base import BaseProtocol

if TYPE_CHECKING:
    from .websocket import WebSocket

__all__ = ["Resource", "WebSocketApplication"]


class WebSocketApplication:
    """One for each WebSocket; a subclass says what happens when it opens, gets a message and closes.

    Attributes:
        ws: the WebSocket.
        protocol_class: the class of `protocol`, which stands between the two.
    """

    protocol_class = BaseProtocol

    def __init__(self, ws: WebSocket) -> None:
        self.protocol = self.protocol_class(self)
        self.ws = ws

    def handle(self) -> None:
        """Run to the end of the WebSocket."""
        self.protocol.on_open()
        while True:
            try:
                self.protocol.on_message(self.ws.receive())
            except WebSocketError:
                if not self.ws.closed:
                    # That of another one.
                    raise
                self.protocol.on_close()
                break

    def on_open(self, *args: Any, **kwargs: Any) -> None:
        """The WebSocket is open."""

    def on_close(self, *args: Any, **kwargs: Any) -> None:
        """It is over. Called with a reason, which is None."""

    def on_message(self, message: Any, *args: Any, **kwargs: Any) -> None:
        """A message has come: str, or bytearray for a binary one. None, once, when the connection is over."""
        self.ws.send(message, **kwargs)

    @classmethod
    def protocol_name(cls) -> str:
        """Return the subprotocol, "" for none."""
        return cls.protocol_class.PROTOCOL_NAME


class Resource:
    """A WSGI application that chooses by path.

    ::

        Resource([("^/chat", ChatApplication), ("/", page)])

    A path is a regular expression that matches from the beginning. The first one that does wins: a class
    derived from `WebSocketApplication` for WebSockets, a WSGI application for everything else.
    """

    def __init__(self, apps: Iterable[tuple[str, Any]] | Mapping[str, Any] | None = None) -> None:
        """Args: apps: pairs of path and application, or a dict, in the order in which they are tried."""
        self.apps: Any = apps.items() if isinstance(apps, Mapping) else apps or []

    def _is_websocket_app(self, app: Any) -> bool:
        """Tell whether this is for WebSockets; subclasses override it for others that can."""
        return isinstance(app, type) and issubclass(app, WebSocketApplication)

    def _app_by_path(self, environ_path: str, is_websocket_request: bool) -> Any:
        for path, app in self.apps:
            if re.match(path, environ_path) and is_websocket_request == self._is_websocket_app(app):
                return app
        return None

    def app_protocol(self, path: str) -> str:
        """Return the subprotocol that is spoken on a path, "" for none."""
        protocol_name = getattr(self._app_by_path(path, True), "protocol_name", None)
        return protocol_name() if protocol_name is not None else ""

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Any:
        """Serve a request (PEP 3333)."""
        ws = environ.get("wsgi.websocket")
        app = self._app_by_path(environ["PATH_INFO"], ws is not None)
        if app is None:
            raise Exception("No apps defined")
        if ws is None:
            return app(environ, start_response)
        current = app(ws)
        # A subclass may have forgotten it.
        current.ws = ws
        current.handle()
        return []


def knows_no_app(resource: Any, path: str) -> bool:
    """Tell whether nobody is there for a WebSocket on this path, where that can be known beforehand."""
    # What a subclass does with a request is its own affair.
    if not isinstance(resource, Resource) or type(resource).__call__ is not Resource.__call__:
        return False
    return resource._app_by_path(path, True) is None
