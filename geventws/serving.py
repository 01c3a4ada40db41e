"""What every face that serves has in common: agree on a connection, run its handler to the end."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import gevent

from .exceptions import ConnectionClosed
from .options import Compression
from .protocol.connection import Connection
from .protocol.deflate import DeflateParameters, negotiate_offer
from .protocol.handshake import accept_response, check_origin, check_request, select_subprotocol
from .protocol.headers import parse_extensions

if TYPE_CHECKING:
    from .options import Options
    from .protocol.http import Request
    from .websocket import WebSocket

__all__ = ["Agreement", "agree", "run_handler"]

logger = logging.getLogger("geventws")


@dataclasses.dataclass(frozen=True, slots=True)
class Agreement:
    """What the opening handshake comes to, before it is answered.

    Attributes:
        key: the client's Sec-WebSocket-Key.
        subprotocol: the subprotocol, or None.
        deflate: the parameters of permessage-deflate, or None.
    """

    key: str
    subprotocol: str | None
    deflate: DeflateParameters | None

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
        compression = options.compression
        if not isinstance(compression, Compression):
            compression = Compression()
        return Connection(
            max_message_size=options.max_message_size,
            max_fragments=options.max_fragments,
            deflate=self.deflate,
            level=compression.level,
            mem_level=compression.mem_level,
            threshold=compression.threshold,
        )


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


def run_handler(ws: WebSocket, handler: Callable[..., Any], arguments: Mapping[str, Any]) -> None:
    """Run a handler in this greenlet until it is done, and close its WebSocket.

    A handler that returns closes with 1000, one that raises with 1011 and a logged traceback.
    `ConnectionClosed` leaving it is the normal end. A killed one closes with 1001. Only
    KeyboardInterrupt goes further than this: even SystemExit ends nothing but the handler.
    """
    code, reason = 1011, ""
    try:
        handler(ws, **arguments)
        code = 1000
    except ConnectionClosed:
        code = 1000
    except gevent.GreenletExit:
        code = 1001
    except KeyboardInterrupt:
        raise
    except BaseException:
        reason = "internal error"
        logger.exception("connection %d: the handler of %r raised", ws.id, ws.request.path)
    finally:
        ws.begin_close(code, reason)
    ws.wait_closed()
