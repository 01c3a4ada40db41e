"""A gunicorn worker with WebSockets: `gunicorn -k geventws.gunicorn.GeventWebSocketWorker app:app`.

It is gunicorn's own pywsgi worker with our handler. The middleware works on `-k gevent` as it is; here
clients are told when the worker stops, at once and not when `graceful_timeout` is over.
"""

from __future__ import annotations

from typing import Any

import gevent
from gunicorn.workers.ggevent import GeventPyWSGIWorker, PyWSGIHandler, PyWSGIServer

from .pywsgi import WebSocketHandler

__all__ = ["GeventWebSocketWorker"]


class GunicornWebSocketHandler(WebSocketHandler, PyWSGIHandler):  # type: ignore[misc]
    """Our handler, with gunicorn's environ and access log."""


class GeventWebSocketWorker(GeventPyWSGIWorker):  # type: ignore[misc]
    """Gives the application its WebSockets in `environ["wsgi.websocket"]`, as `WebSocketMiddleware` does.

    On SIGTERM and on a reload all WebSockets get 1001; the worker ends when they have answered,
    `graceful_timeout` at the latest.
    """

    wsgi_handler = GunicornWebSocketHandler

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._servers: list[Any] = []

    def server_class(self, *args: Any, **kwargs: Any) -> Any:
        """Make the server of one listening socket."""
        server = PyWSGIServer(*args, **kwargs)
        self._servers.append(server)
        return server

    def handle_exit(self, sig: Any, frame: Any) -> None:
        """SIGTERM: gunicorn stops within a second; clients are told now, and new ones go to other workers."""
        super().handle_exit(sig, frame)
        self._close_servers_soon()

    def handle_quit(self, sig: Any, frame: Any) -> None:
        """SIGQUIT and SIGINT: gunicorn ends in a moment."""
        self._close_servers_soon()
        super().handle_quit(sig, frame)

    def _close_servers_soon(self) -> None:
        # A signal comes at any point of any greenlet: in the event loop, nothing is half done.
        gevent.get_hub().loop.run_callback(self._close_servers)

    def _close_servers(self) -> None:
        # Our handler has seen to it that this tells their WebSockets.
        for server in self._servers:
            server.close()
