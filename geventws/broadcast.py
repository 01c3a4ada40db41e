"""One message to many connections, encoded once, waiting for none of them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from .exceptions import ConnectionClosed
from .protocol.shared import SharedMessage
from .websocket import WebSocket, as_payload, send_to_all

__all__ = ["Apart", "broadcast"]


class Apart:
    """A WebSocket that a broadcast reaches by itself: not open yet, or in another thread."""

    __slots__ = ()

    def send_shared(self, shared: SharedMessage, compress: bool | None) -> None:
        """Send without waiting; `is_slow` was asked first."""
        raise NotImplementedError


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
    # There are few classes, whatever the number of connections.
    kinds = set(map(type, receivers))
    for kind in kinds:
        if not issubclass(kind, WebSocket):
            odd = next(ws for ws in receivers if type(ws) is kind)
            raise TypeError(f"connections takes an iterable of WebSockets, and {odd!r} is none")
    slow: list[WebSocket] = []
    if any(issubclass(kind, Apart) for kind in kinds):
        apart: list[Any] = [ws for ws in receivers if isinstance(ws, Apart)]
        receivers = [ws for ws in receivers if not isinstance(ws, Apart)]
        for ws in apart:
            _send_apart(ws, shared, compress, slow)
    return slow + send_to_all(receivers, shared, compress)


def _send_apart(ws: Any, shared: SharedMessage, compress: bool | None, slow: list[WebSocket]) -> None:
    """Send to one of those that are apart, unless it is closed or slow."""
    if ws.closed:
        return
    if ws.is_slow():
        slow.append(ws)
        ws.handle_slow()
        return
    try:
        ws.send_shared(shared, compress)
    except ConnectionClosed:
        # It ended between the lines above; the next broadcast does not find it any more.
        pass
