"""`geventwebsocket.gunicorn.workers`: `-k geventwebsocket.gunicorn.workers.GeventWebSocketWorker`.

gunicorn reads its configuration file before it looks for the worker: `geventws.compat.install()` stands
there.
"""

from __future__ import annotations

from ...gunicorn import GeventWebSocketWorker as _GeventWebSocketWorker
from ...gunicorn import GunicornWebSocketHandler
from ..handler import WebSocketHandler

__all__ = ["GeventWebSocketWorker"]


class _Handler(WebSocketHandler, GunicornWebSocketHandler):
    """The handler, with gunicorn's environ and access log."""


class GeventWebSocketWorker(_GeventWebSocketWorker):
    """gunicorn's pywsgi worker with our handler; on SIGTERM and on a reload all WebSockets get 1001."""

    wsgi_handler = _Handler
