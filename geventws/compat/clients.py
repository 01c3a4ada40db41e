"""The WebSockets of a server, as `server.clients` has them: the way to broadcast in gevent-websocket.

::

    for client in ws.handler.server.clients.values():
        client.ws.send(message)
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .websocket import WebSocket

__all__ = ["Client", "Clients"]


class Client:
    """An open WebSocket and its address. Attributes of your own may be set on it.

    Attributes:
        address: the address of the other end.
        ws: the WebSocket.
    """

    def __init__(self, address: Any, ws: WebSocket) -> None:
        self.address = address
        self.ws = ws


class Clients(dict[Any, Any]):
    """A dict of clients by address. Loops go over what was in it when they began.

    A `send` may wait, and meanwhile others come and go: a loop over the dict itself would raise.
    """

    __slots__ = ()

    def __iter__(self) -> Iterator[Any]:
        return iter(list(dict.keys(self)))

    def keys(self) -> Any:
        """The addresses."""
        return list(dict.keys(self))

    def values(self) -> Any:
        """The clients."""
        return list(dict.values(self))

    def items(self) -> Any:
        """Both."""
        return list(dict.items(self))

    def add(self, address: Any, client: Client) -> Any:
        """Put a client in, and return its key: its address, if that is one."""
        # Unix sockets have none, or all the same.
        key = address if address and address not in self else (address, id(client))
        self[key] = client
        return key
