"""Flask: `Sockets`, with the interface of flask-sockets, which has not worked since Werkzeug 2.

An app that uses flask-sockets changes one import. It brings its middleware, so that any server will do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, TypeVar

from flask import Blueprint, Flask
from werkzeug.exceptions import HTTPException
from werkzeug.routing import Map, Rule

from ..wsgi.middleware import WebSocketMiddleware
from .middleware import CompatMiddleware

if TYPE_CHECKING:
    from ..wsgi.late import LateWebSocket, Upgrade
    from ..wsgi.takeover import StartResponse

__all__ = ["Sockets"]

_View = TypeVar("_View", bound=Callable[..., Any])

_KEY = "geventws.compat.sockets"


class Sockets:
    """WebSocket routes beside those of a Flask app.

    ::

        sockets = Sockets(app)

        @sockets.route("/echo")
        def echo(ws):
            while not ws.closed:
                message = ws.receive()
                if message is not None:
                    ws.send(message)

    A view is called with a `geventws.compat.WebSocket` and the URL's variables, in the application and
    request context. Requests for other paths go to the Flask app.

    Attributes:
        url_map: the routes; converters may be added to it.
        blueprints: those that were registered, by name.
    """

    def __init__(self, app: Flask | None = None) -> None:
        self.url_map = Map()
        self.blueprints: dict[str, Blueprint] = {}
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask) -> None:
        """Put the routes in front of an app."""
        app.wsgi_app = _SocketsMiddleware(app, self)

    def route(self, rule: str, **options: Any) -> Callable[[_View], _View]:
        """Return a decorator that makes a function the view of a WebSocket route.

        Args:
            rule: the URL rule.
            options: as for `add_url_rule`.
        """

        def decorate(view: _View) -> _View:
            self.add_url_rule(rule, options.pop("endpoint", None), view, **options)
            return view

        return decorate

    def add_url_rule(self, rule: str, endpoint: str | None, view: Callable[..., Any], **options: Any) -> None:
        """Add a route; the endpoint's name is not used, nor are options other than `defaults`."""
        self.url_map.add(Rule(rule, endpoint=view, websocket=True, defaults=options.get("defaults")))

    def register_blueprint(self, blueprint: Blueprint, **options: Any) -> None:
        """Add the routes of a blueprint, which are WebSocket routes here.

        Args:
            blueprint: the blueprint.
            options: as for `Flask.register_blueprint`: `url_prefix`.

        Raises:
            ValueError: if there is another one of this name.
        """
        known = self.blueprints.setdefault(blueprint.name, blueprint)
        if known is not blueprint:
            raise ValueError(f"another blueprint is registered as {blueprint.name!r} already")
        state = blueprint.make_setup_state(self, options, True)
        for deferred in blueprint.deferred_functions:
            deferred(state)


class _SocketsMiddleware(CompatMiddleware):
    """Serves the routes of a `Sockets`; anything else is the app's."""

    def __init__(self, app: Flask, sockets: Sockets) -> None:
        super().__init__(app.wsgi_app)
        self._flask = app
        self._sockets = sockets

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        if getattr(environ.get("wsgi.websocket"), "handler", None) is not None:
            # The handler class has accepted it: it does not see this behind another middleware.
            try:
                environ[_KEY] = self._sockets.url_map.bind_to_environ(environ).match()
            except HTTPException:
                return self.app(environ, start_response)
            nothing: Iterable[bytes] = self.call(environ, start_response)
            return nothing
        return super().__call__(environ, start_response)

    def _serve_late(
        self,
        environ: dict[str, Any],
        start_response: StartResponse,
        upgrade: Upgrade,
        ws: LateWebSocket,
        outermost: bool,
    ) -> Iterable[bytes]:
        try:
            environ[_KEY] = self._sockets.url_map.bind_to_environ(environ).match()
        except HTTPException:
            # Not before the app has said what it thinks of it: a 404, or a route of a `Sock`.
            return WebSocketMiddleware._serve_late(self, environ, start_response, upgrade, ws, outermost)
        return super()._serve_late(environ, start_response, upgrade, ws, outermost)

    def call(self, environ: dict[str, Any], start_response: Any) -> Any:
        """Call the view."""
        view, values = environ[_KEY]
        with self._flask.app_context(), self._flask.request_context(environ):
            view(environ["wsgi.websocket"], **values)
        return []
