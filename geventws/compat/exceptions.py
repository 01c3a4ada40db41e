"""`geventwebsocket.exceptions`: the errors, each an OSError too, as programs catch either."""

from __future__ import annotations

from ..exceptions import WebSocketError as _WebSocketError

__all__ = ["FrameTooLargeException", "ProtocolError", "WebSocketError"]


class WebSocketError(_WebSocketError, OSError):
    """The connection is over, or never was."""

    kind = "closed"


class ProtocolError(WebSocketError):
    """The peer broke the protocol."""

    kind = "protocol"


class FrameTooLargeException(ProtocolError):
    """A frame or message above a limit."""

    kind = "message.size"
