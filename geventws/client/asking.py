"""The client's side of an opening handshake, whatever carries it: what is asked, and what opens then."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import gevent

from ..agreement import make_connection
from ..keepalive import Keepalive
from ..options import Compression
from ..protocol.deflate import accept_response, client_offer
from ..protocol.handshake import ClientHandshake
from ..protocol.headers import Headers
from ..protocol.http import Request
from ..websocket import WebSocket

if TYPE_CHECKING:
    from ..options import Options
    from ..protocol.deflate import DeflateParameters
    from ..protocol.http import Response
    from ..protocol.uri import URI

__all__ = ["Asking", "shared_keepalive"]


class Asking:
    """One request for a WebSocket.

    Next: send `request()`; give the answer to `check`, and the connection to `open`.
    """

    __slots__ = ("_compression", "_deflate", "_handshake", "_options", "_subprotocol", "_uri")

    def __init__(
        self,
        uri: URI,
        options: Options,
        *,
        headers: Headers | Iterable[tuple[str, str]] | Mapping[str, str] = (),
        origin: str | None = None,
    ) -> None:
        """Choose what is offered, by the options.

        Raises:
            TypeError, ValueError: for what cannot stand in a request.
        """
        compression = options.compression if isinstance(options.compression, Compression) else None
        assert not callable(options.subprotocols)
        self._uri = uri
        self._options = options
        self._compression = compression
        self._handshake = ClientHandshake(
            uri,
            headers=headers,
            subprotocols=options.subprotocols,
            extensions_offer=None if compression is None else client_offer(compression),
            origin=origin,
        )
        self._subprotocol: str | None = None
        self._deflate: DeflateParameters | None = None

    def request(self) -> bytes:
        """Return the request, for the network."""
        return self._handshake.request()

    def check(self, response: Response) -> None:
        """Check the server's answer.

        Raises:
            InvalidHandshake: it does not open the WebSocket that was asked for.
        """
        self._subprotocol, extensions = self._handshake.check_response(response)
        self._deflate = accept_response(extensions, self._compression)

    def open(
        self, sock: Any, response: Response, *, address: Any = None, early_data: bytes = b""
    ) -> WebSocket:
        """Return the WebSocket that was agreed on.

        Args:
            sock: its socket.
            response: what was given to `check`.
            address: the peer.
            early_data: bytes that came behind the response.
        """
        request = Request("GET", self._uri.resource_name, Headers(self._handshake.fields))
        # Not asked of the socket, which has forgotten it where the server has reset TCP by now.
        request.remote_address = address
        return WebSocket(
            sock,
            make_connection(self._options, self._deflate, client=True),
            request,
            self._options,
            subprotocol=self._subprotocol,
            extensions=response.headers.get("Sec-WebSocket-Extensions", "") or "",
            keepalive=shared_keepalive(self._options),
            early_data=early_data,
            response=response,
        )


_keepalives: weakref.WeakKeyDictionary[Any, weakref.WeakValueDictionary[Any, Keepalive]]
_keepalives = weakref.WeakKeyDictionary()


def shared_keepalive(options: Options) -> Keepalive | None:
    """Return the keepalive of this hub's connections with these times: one timer for all of them."""
    if options.ping_interval is None:
        return None
    hub = gevent.get_hub()
    times = options.ping_interval, options.ping_timeout
    of_hub = _keepalives.get(hub)
    if of_hub is None:
        of_hub = _keepalives[hub] = weakref.WeakValueDictionary()
    keepalive = of_hub.get(times)
    if keepalive is None:
        # Held by the connections it watches over.
        keepalive = of_hub[times] = Keepalive(hub, *times)
    return keepalive
