"""The middleware behind gevent-websocket's names: the upgrade is accepted before the application is called.

On servers with a handler class (gevent.pywsgi, gunicorn's pywsgi worker) handler.py uses it; on others -
`gunicorn -k gevent`, Werkzeug's - it is put around an application by hand.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from ..exceptions import ConnectionClosed
from ..protocol.headers import parse_token_list
from ..protocol.http import Response
from ..wsgi.middleware import WebSocketMiddleware
from .clients import Clients
from .handling import Handling
from .installing import options_in_force
from .logging import create_logger
from .resource import knows_no_app

if TYPE_CHECKING:
    from ..websocket import WebSocket
    from ..wsgi.late import LateWebSocket, Upgrade
    from ..wsgi.takeover import StartResponse

__all__ = ["CompatMiddleware"]


class CompatMiddleware(WebSocketMiddleware):
    """Gives an application its WebSockets in `environ["wsgi.websocket"]` as gevent-websocket does.

    For an application that was written for gevent-websocket, on a server that `WebSocketMiddleware` works
    on::

        app = geventws.compat.CompatMiddleware(app)  # gunicorn -k gevent module:app

    Attributes:
        server: what `ws.handler.server` is where the server has no handler of ours: `clients`,
            `application`, `logger`.
    """

    def __init__(self, app: Callable[..., Any], **options: Any) -> None:
        """Wrap an application.

        Args:
            app: the WSGI application, such as a `Resource`.
            options: see `Options`; those that are not given are those of `install`.
        """
        super().__init__(app, None, **(options_in_force() | options))
        self.server = Server(app)

    def _decide(self, environ: dict[str, Any], takeover: Any) -> Any:
        decision = super()._decide(environ, takeover)
        if not isinstance(decision, Response) and knows_no_app(self.app, environ.get("PATH_INFO", "")):
            # It would raise, behind the 101.
            return Response(404)
        return decision

    def _serve_late(
        self,
        environ: dict[str, Any],
        start_response: StartResponse,
        upgrade: Upgrade,
        ws: LateWebSocket,
        outermost: bool,
    ) -> Iterable[bytes]:
        handler = environ.get("geventws.handler")
        if not isinstance(handler, Handling):
            handler = _Handler(self.server, environ, upgrade.takeover.socket, ws.request.remote_address)
        try:
            ws.accept(self._choose_subprotocol(environ))
        except ConnectionClosed as error:
            return self._give_up(upgrade, error)
        finally:
            self._pending.discard(ws)
        try:
            handler.opened(ws, self)
            if not handler.runs_itself(self):
                handler.run_websocket()
        except BaseException:
            # Of a subclass. The server closes the socket next.
            ws.begin_close(1011, "internal error")
            handler.finish()
            raise
        return []

    def _choose_subprotocol(self, environ: dict[str, Any]) -> str | None:
        """Return the subprotocol of the path's application, if the client offers it."""
        app_protocol = getattr(self.app, "app_protocol", None)
        if app_protocol is None:
            return None
        name = app_protocol(environ["PATH_INFO"])
        header = "Sec-WebSocket-Protocol"
        offered = parse_token_list([environ.get("HTTP_SEC_WEBSOCKET_PROTOCOL", "")], header)
        return name if name in offered else None

    def call(self, environ: dict[str, Any], start_response: Any) -> Any:
        """Call the application, with the WebSocket in its environ."""
        return self.app(environ, start_response)

    def run(self, ws: WebSocket, serve: Callable[[WebSocket], None]) -> None:
        """Run what serves an accepted WebSocket, to the end of TCP."""
        self._run(ws, serve, {})


class Server:
    """Stands for the server where that has nothing of ours.

    Attributes:
        application: the application.
        clients: the open WebSockets.
        logger: for the application's use.
    """

    def __init__(self, application: Any) -> None:
        self.application = application
        self.clients = Clients()
        self.logger = create_logger("geventwebsocket.server")


class _Handler(Handling):
    """Stands for the handler of a request where the server has none of ours."""

    def __init__(self, server: Server, environ: dict[str, Any], sock: Any, address: Any) -> None:
        self.server = server
        self.application = server.application
        self.environ = environ
        self.socket = sock
        self.client_address = address
