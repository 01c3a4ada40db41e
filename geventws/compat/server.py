"""`geventwebsocket.server`: a WSGI server with WebSockets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gevent.pywsgi import WSGIServer

from .clients import Clients
from .handler import WebSocketHandler
from .logging import create_logger

if TYPE_CHECKING:
    import logging

__all__ = ["WebSocketServer"]


class WebSocketServer(WSGIServer):  # type: ignore[misc]
    """A gevent.pywsgi.WSGIServer whose handler class is `WebSocketHandler`.

    ::

        WebSocketServer(("127.0.0.1", 8000), Resource([("/", Echo)])).serve_forever()

    Attributes:
        clients: the open WebSockets: a dict of `Client` by address.
        debug, debug_log_format: whether and how `logger` writes to standard error.
    """

    handler_class = WebSocketHandler
    debug_log_format = (
        "-" * 80 + "\n%(levelname)s in %(module)s [%(pathname)s:%(lineno)d]:\n%(message)s\n" + "-" * 80
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Args:
        args, kwargs: as for WSGIServer.
        debug: log all to standard error.
        pre_start_hook: called with the handler of each request; a true result means that it is an
            ordinary one, whatever it asks for.
        """
        self.debug: bool = kwargs.pop("debug", False)
        self.pre_start_hook: Any = kwargs.pop("pre_start_hook", None)
        self.clients = Clients()
        self._logger: logging.Logger | None = None
        super().__init__(*args, **kwargs)

    @property
    def logger(self) -> logging.Logger:
        """The logger."""
        if self._logger is None:
            self._logger = create_logger("geventwebsocket.server", self.debug, self.debug_log_format)
        return self._logger
