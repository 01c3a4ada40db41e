"""gevent-websocket's names: programs that `import geventwebsocket` run on geventws with one line more.

::

    import geventws.compat

    geventws.compat.install()  # before anything imports geventwebsocket

    from geventwebsocket import Resource, WebSocketApplication, WebSocketServer

After that `geventwebsocket` is this package, and its modules are the modules in here. What differs from
gevent-websocket 0.10.1 stands in docs/migrating.md; in short: the protocol is that of geventws, so that
what was wrong there is right here, and frames are not seen one by one.
"""

from __future__ import annotations

from .exceptions import FrameTooLargeException, ProtocolError, WebSocketError
from .handler import WebSocketHandler
from .installing import install
from .middleware import CompatMiddleware
from .resource import Resource, WebSocketApplication
from .server import WebSocketServer
from .utils import VERSION, get_version
from .websocket import WebSocket

__all__ = [
    "VERSION",
    "CompatMiddleware",
    "FrameTooLargeException",
    "ProtocolError",
    "Resource",
    "WebSocket",
    "WebSocketApplication",
    "WebSocketError",
    "WebSocketHandler",
    "WebSocketServer",
    "get_version",
    "install",
]
