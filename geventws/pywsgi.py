"""gevent.pywsgi with WebSockets: a handler class for `gevent.pywsgi.WSGIServer`.

Beside the middleware, which works on a stock WSGIServer too, it adds one thing: when the server is
stopped, every client is told.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from gevent.pywsgi import WSGIHandler

from .endings import STOPPING
from .options import check_options
from .wsgi.middleware import WebSocketMiddleware
from .wsgi.takeover import PyWSGITakeover

__all__ = ["WebSocketHandler"]


class WebSocketHandler(WSGIHandler):  # type: ignore[misc]
    """Gives the application its WebSockets in `environ["wsgi.websocket"]`, as `WebSocketMiddleware` does.

    ::

        from gevent.pywsgi import WSGIServer

        WSGIServer(("127.0.0.1", 8000), app, handler_class=WebSocketHandler).serve_forever()

    An application that is wrapped in a `WebSocketMiddleware` already, or is a Flask app with a `Sock`, is
    left as it is. The server's `stop()` and `close()` send 1001 to all WebSockets; `stop()` then waits
    for them as for all its greenlets (`stop_timeout`, a second by default).

    Attributes:
        options: the options for the middleware, see `Options`; set them in a subclass. What is not possible
            there is told when the subclass is made: TypeError, ValueError.
    """

    options: ClassVar[Mapping[str, Any]] = {}

    application: Any

    _known_house: _House | None = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        # Otherwise the first request would tell it, and each one after that: by a 500.
        name = f"{cls.__name__}.options"
        options: Any = cls.options
        if isinstance(options, Mapping):
            check_options(name, options)
        elif not hasattr(options, "__get__"):
            # Not computed for each handler either.
            raise TypeError(f"{name} takes a mapping of names to values, not {options!r}")

    @property
    def _house(self) -> _House:
        # Not in __init__: a handler of another class may have become one of this. Not a cached_property: that
        # asks for the instance's __dict__, after which Python 3.11 takes longer for each of its attributes.
        house = self._known_house
        if house is None:
            house = self._known_house = _house_of(self.server)
        return house

    def get_environ(self) -> dict[str, Any]:
        """Return the environ of a request; in it, this handler."""
        environ: dict[str, Any] = super().get_environ()
        environ["geventws.handler"] = self
        return environ

    def run_application(self) -> None:
        """Run the application with WebSockets around it."""
        self.application = self._house.wrap(self.application, self.make_middleware)
        super().run_application()

    def make_middleware(self, application: Any) -> WebSocketMiddleware:
        """Return the middleware to put around an application that has none."""
        return WebSocketMiddleware(application, **self.options)

    def take_over(self) -> HandlerTakeover:
        """Return how the connection is taken over; for the middleware."""
        return HandlerTakeover(self, self._house)


class HandlerTakeover(PyWSGITakeover):
    """The connection of our own handler."""

    def __init__(self, handler: WebSocketHandler, house: _House) -> None:
        super().__init__(handler.socket, handler.rfile)
        self._house = house

    @property
    def stopping(self) -> bool:  # type: ignore[override]
        """Whether its server is being stopped."""
        return self._house.stopping

    def opened(self, ws: Any) -> None:
        """See `Takeover`."""
        self._house.connections.add(ws)
        if self._house.stopping:
            ws.begin_close(1001, STOPPING)

    def ended(self, ws: Any) -> None:
        """See `Takeover`."""
        self._house.connections.discard(ws)


class _House:
    """What the handlers of one server share.

    Attributes:
        connections: its open WebSockets.
    """

    def __init__(self, server: Any) -> None:
        self.connections: set[Any] = set()
        self._server = weakref.ref(server)
        self._wrapped: tuple[Any, Any] = (None, None)
        # What a server calls first when it is stopped; it has no other hook for its handlers.
        close = server.close

        def close_all() -> None:
            close()
            self.close_all()

        server.close = close_all

    @property
    def stopping(self) -> bool:
        """Whether the server is stopped, or about to be."""
        server = self._server()
        return server is None or server.closed

    def close_all(self) -> None:
        """Send 1001 to all."""
        for ws in list(self.connections):
            ws.begin_close(1001, STOPPING)

    def wrap(self, application: Any, make: Callable[[Any], WebSocketMiddleware]) -> Any:
        """Return the application with WebSockets around it, unless it has them itself."""
        known, wrapped = self._wrapped
        if known is not application:
            own = (application, getattr(application, "wsgi_app", None))
            if any(isinstance(app, WebSocketMiddleware) for app in own):
                wrapped = application
            else:
                wrapped = make(application)
            self._wrapped = application, wrapped
        return wrapped


_houses: weakref.WeakKeyDictionary[Any, _House] = weakref.WeakKeyDictionary()


def _house_of(server: Any) -> _House:
    house = _houses.get(server)
    if house is None:
        house = _houses[server] = _House(server)
    return house
