"""WebSockets in a WSGI application, on the server that it runs on already."""

from __future__ import annotations

from .middleware import WebSocketMiddleware

__all__ = ["WebSocketMiddleware"]
