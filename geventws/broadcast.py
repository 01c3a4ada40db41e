"""One message to many connections, encoded once, waiting for none of them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from .protocol.shared import SharedMessage
from .websocket import WebSocket, as_payload, send_to_all

__all__ = ["broadcast"]


def broadcast(
    connections: Iterable[WebSocket], message: Any, *, compress: bool | None = None
) -> list[WebSocket]:
    """Send a message to many connections without waiting for any.

    A peer that is slow (a `send` to it would have to wait: `write_limit`) is closed with 1013 or left
    out this time, as its server's option `slow_consumer` says. Connections that are closed already are
    passed over.

    Args:
        connections: where to; it is copied first.
        message: str as text; bytes, bytearray or memoryview as binary.
        compress: as for `WebSocket.send`.

    Returns:
        The connections that were slow: closed or skipped.

    Raises:
        TypeError: for connections that are not WebSockets, and as `WebSocket.send` does.
        UnicodeEncodeError: as `WebSocket.send` does. Nothing was sent after any of them.
    """
    shared = SharedMessage(as_payload(message))
    if isinstance(connections, WebSocket):
        # Going through it would receive its messages.
        raise TypeError("connections takes an iterable of WebSockets; for one use ws.send()")
    receivers = list(connections)
    for ws in receivers:
        if not isinstance(ws, WebSocket):
            raise TypeError(f"connections takes an iterable of WebSockets, and {ws!r} is none")
    return send_to_all(receivers, shared, compress)
