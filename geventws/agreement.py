"""What a server and a client agree on in the opening handshake, and what comes of it.

Compiled with agreement.pxd (`benchmarks/`, row "handshakes").
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from time import monotonic
from typing import TYPE_CHECKING, Any

from .options import Compression
from .protocol.connection import Connection
from .protocol.deflate import DeflateParameters, negotiate_offer
from .protocol.handshake import accept_response, check_origin, check_request, select_subprotocol
from .protocol.headers import parse_extensions
from .protocol.limited import LimitedConnection

if TYPE_CHECKING:
    from .options import Options
    from .protocol.http import Request

__all__ = ["Agreement", "agree", "make_connection"]


class Agreement:
    """What the opening handshake comes to, before it is answered.

    Attributes:
        key: the client's Sec-WebSocket-Key.
        subprotocol: the subprotocol, or None.
        deflate: the parameters of permessage-deflate, or None.
    """

    __slots__ = ("deflate", "key", "subprotocol")

    def __init__(self, key: str, subprotocol: str | None, deflate: DeflateParameters | None) -> None:
        self.key = key
        self.subprotocol = subprotocol
        self.deflate = deflate

    @property
    def extensions(self) -> str:
        """The extensions as the response names them, "" for none."""
        return self.deflate.header() if self.deflate is not None else ""

    def response(self, headers: Iterable[tuple[str, str]] | Mapping[str, str] = ()) -> bytes:
        """Return the head of the 101 response.

        Raises:
            TypeError, ValueError: for header fields that cannot stand in it.
        """
        return accept_response(
            self.key, subprotocol=self.subprotocol, extensions=self.extensions or None, headers=headers
        )

    def connection(self, options: Options) -> Connection:
        """Return the protocol of the connection that was agreed on."""
        return make_connection(options, self.deflate)


def make_connection(
    options: Options, deflate: DeflateParameters | None, *, client: bool = False
) -> Connection:
    """Return the protocol of a connection.

    Args:
        options: see `Options`.
        deflate: the parameters of permessage-deflate, or None where that was not agreed on.
        client: the role: False for a server.
    """
    size, fragments, rate_limit = options.max_message_size, options.max_fragments, options.rate_limit
    if deflate is None and rate_limit is not None:
        # As it mostly is: nothing is made only to be taken apart again.
        return LimitedConnection(
            rate_limit, monotonic, client=client, max_message_size=size, max_fragments=fragments
        )
    arguments: dict[str, Any] = {"client": client, "max_message_size": size, "max_fragments": fragments}
    if deflate is not None:
        compression = options.compression if isinstance(options.compression, Compression) else Compression()
        arguments.update(
            deflate=deflate,
            level=compression.level,
            mem_level=compression.mem_level,
            threshold=compression.threshold,
        )
    if rate_limit is None:
        return Connection(**arguments)
    return LimitedConnection(rate_limit, monotonic, **arguments)


def agree(request: Request, options: Options) -> Agreement:
    """Check an upgrade request and choose what it offers, by the options (RFC 6455 section 4.2).

    Raises:
        InvalidHandshake: it is refused; the exception knows the HTTP status.
        ValueError: if `options.subprotocols` is a callable that chose what was not offered.
    """
    key = check_request(request)
    check_origin(request, options.origins)
    subprotocol = select_subprotocol(request, options.subprotocols)
    deflate = None
    if isinstance(options.compression, Compression):
        offers = request.headers.get_all("sec-websocket-extensions")
        if offers:
            # RFC 6455 section 9.1: a header that is not of its grammar fails the handshake.
            deflate = negotiate_offer(parse_extensions(offers), options.compression)
    return Agreement(key, subprotocol, deflate)
