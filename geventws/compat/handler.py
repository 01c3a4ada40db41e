"""`geventwebsocket.handler`: the handler class for gevent.pywsgi, which most programs use."""

from __future__ import annotations

from typing import Any

from ..pywsgi import WebSocketHandler as _WebSocketHandler
from ..wsgi.requests import asks_for_websocket
from .clients import Client
from .handling import Handling
from .middleware import CompatMiddleware

__all__ = ["Client", "WebSocketHandler"]


class WebSocketHandler(Handling, _WebSocketHandler):
    """Accepts a WebSocket, and calls the application with it in `environ["wsgi.websocket"]`.

    ::

        WSGIServer(("127.0.0.1", 8000), app, handler_class=WebSocketHandler).serve_forever()

    The methods are called one by the other as in gevent-websocket: `run_application`, `upgrade_websocket`,
    `upgrade_connection`, `run_websocket`; a subclass may do something before and behind.

    Attributes:
        options: the options, see `Options`; set them in a subclass. Others are those of `install`.
    """

    SUPPORTED_VERSIONS = ("13",)
    GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"

    #: The middleware that is around the application for this handler.
    _own: Any = None

    def make_middleware(self, application: Any) -> CompatMiddleware:
        """Return the middleware to put around an application that has none."""
        return CompatMiddleware(application, **self.options)

    def run_application(self) -> None:
        """Serve a request: run the application, with a WebSocket where that is asked for."""
        hook = getattr(self.server, "pre_start_hook", None)
        own = self._house.wrap(self.application, self.make_middleware)
        if (hook is not None and hook(self)) or own is self.application:
            # As any request; and an application that has its WebSockets itself is left alone.
            super(_WebSocketHandler, self).run_application()
            return
        self._own = own
        self.result = self.upgrade_websocket()
        if self.websocket is not None:
            self.run_websocket()
            self.result = None
        elif self.status:
            self._refuse()
        else:
            self.result = None
            super(_WebSocketHandler, self).run_application()

    def _refuse(self) -> None:
        """Send the response that was begun instead of the 101."""
        self.result = self.result or []
        try:
            self.process_result()
        finally:
            close = getattr(self.result, "close", None)
            self.result = None
            if close is not None:
                close()

    def upgrade_websocket(self) -> Any:
        """Open the WebSocket that a request asks for, if it does.

        Returns:
            The body of the response that refuses it, for which `start_response` was called; else None.
        """
        return self.upgrade_connection() if asks_for_websocket(self.environ) else None

    def upgrade_connection(self) -> Any:
        """Check the handshake and answer it; then `websocket` is the WebSocket, also in the environ.

        Returns:
            As `upgrade_websocket`.
        """
        # Also where another class was put in this one's place when the environ was made.
        self.environ["geventws.handler"] = self
        return self._own(self.environ, self.start_response)

    def runs_itself(self, middleware: CompatMiddleware) -> bool:
        """See `Handling`."""
        return middleware is self._own

    def handle_one_request(self) -> Any:
        """Serve a request, and close the WebSocket that `prevent_wsgi_call` has left open."""
        try:
            return super().handle_one_request()
        finally:
            self.finish()

    def start_response(self, status: str, headers: Any, exc_info: Any = None) -> Any:
        """Begin a response (PEP 3333)."""
        write = super().start_response(status, headers, exc_info)
        self._prepare_response()
        return write

    def _prepare_response(self) -> None:
        """Keep a response from being framed, where there is a WebSocket; others call this too."""
        if self.environ.get("wsgi.websocket"):
            self.response_use_chunked = False
            self.close_connection = True
