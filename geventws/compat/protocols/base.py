"""`geventwebsocket.protocols.base`: what stands between a WebSocket and its application."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..resource import WebSocketApplication

__all__ = ["BaseProtocol"]


class BaseProtocol:
    """Hands everything on to the application. A subclass may do something with it first.

    Attributes:
        PROTOCOL_NAME: the subprotocol that is agreed on where the client offers it, or "".
    """

    PROTOCOL_NAME = ""

    def __init__(self, app: WebSocketApplication) -> None:
        self._app = app

    def on_open(self) -> None:
        """The WebSocket is open."""
        self.app.on_open()

    def on_message(self, message: Any) -> None:
        """A message has come; None stands for the end."""
        self.app.on_message(message)

    def on_close(self, reason: Any = None) -> None:
        """It is over."""
        self.app.on_close(reason)

    @property
    def app(self) -> WebSocketApplication:
        """The application."""
        if not self._app:
            raise Exception("No application coupled")
        return self._app

    @property
    def handler(self) -> Any:
        """The handler of the request, None before there is a WebSocket."""
        ws = getattr(self.app, "ws", None)
        return None if ws is None else ws.handler

    @property
    def server(self) -> Any:
        """The server, None before there is a WebSocket."""
        handler = self.handler
        return None if handler is None else handler.server
