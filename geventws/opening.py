"""The server's side of an opening handshake: from an accepted connection to an open WebSocket.

Compiled with opening.pxd (`benchmarks/`, row "handshakes"). The greenlet that runs a handler has no frame of
this file on its stack, which it would keep while the handler waits.
"""

from __future__ import annotations

import _socket
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import gevent

from .accepting import Acceptor, gevent_socket, send_all, wait_ready
from .agreement import Agreement, agree
from .exceptions import InvalidHandshake, OpenTimeout
from .keepalive import Keepalive
from .protocol.handshake import error_response
from .protocol.http import Request, RequestParser, Response
from .serving import Throttle, send_last, wrap_tls
from .stats import Stats
from .websocket import WebSocket

if TYPE_CHECKING:
    import ssl

    from .options import Options
    from .routing import Router

__all__ = ["STOPPING", "Opened", "Opener"]

logger = logging.getLogger("geventws")

_RECEIVE_SIZE = 16 * 1024

#: Seconds between two log lines about the same shortage.
_LOG_INTERVAL = 10.0

STOPPING = "the server is stopping"

Opened = tuple[WebSocket, Callable[..., Any], dict[str, Any]]


class Opener(Acceptor):
    """Accepts connections and opens WebSockets on them."""

    def __init__(
        self,
        listener: Any,
        handler: Callable[..., Any] | Router,
        options: Options,
        *,
        context: ssl.SSLContext | None,
        backlog: int | None,
        spawn: Any,
    ) -> None:
        """Args: as for `WebSocketServer`; context: for TLS, or None."""
        self.connections: set[WebSocket] = set()
        self.stats = Stats()
        self._handler = handler
        self._match = getattr(handler, "match", None)
        self._context = context
        self._keepalive: Keepalive | None = None
        #: Greenlets that serve a connection; and those among them that only tell it to go away.
        self._serving = 0
        self._refusing = 0
        #: Sockets from which a request is awaited.
        self._opening: set[Any] = set()
        self._stopping = False
        self._full_log = Throttle(_LOG_INTERVAL)
        Acceptor.__init__(self, listener, options, backlog=backlog, spawn=spawn)

    def _open(self, sock: Any, address: Any) -> Opened | None:
        """Do the opening handshake; None if it failed, and the socket is closed."""
        opened = None
        try:
            self.prepare(sock)
            if self._context is not None:
                # Closed below, where wrapping it fails.
                sock = gevent_socket(sock)
                sock = wrap_tls(self._context, sock)
            opened = self._handshake(sock, address)
        except OpenTimeout as error:
            self.stats.failed_handshakes += 1
            logger.info("%s: %s", _name(address), str(error))
        except OSError as error:
            self.stats.failed_handshakes += 1
            # As text: whoever keeps log records would keep traceback, frames and socket with an exception.
            logger.debug("%s: the opening handshake failed: %s", _name(address), str(error))
        except BaseException:
            # Killed.
            self.stats.failed_handshakes += 1
            raise
        finally:
            if opened is None:
                sock.close()
        return opened

    def _handshake(self, sock: Any, address: Any) -> Opened | None:
        """Read the request and answer it."""
        options = self.options
        parser = RequestParser(
            max_line=options.max_line, max_headers=options.max_headers, max_head=options.max_head
        )
        start = bytearray()
        try:
            request = self._receive_request(sock, parser, start)
        except InvalidHandshake as error:
            # Details are for the log; the peer gets none of its own bytes back.
            logger.info("%s: refused with %d: %s", _name(address), error.status, str(error))
            # RFC 9110 section 9.3.2: no content in answer to HEAD.
            self._refuse(sock, error_response(error).serialize(include_body=start != b"HEAD "))
            return None
        request.remote_address = address
        decision = self._decide(request)
        if isinstance(decision, bytes):
            self._refuse(sock, decision)
            return None
        handler, arguments, agreement = decision
        send_all(sock, agreement.response(), options.write_timeout)
        ws = WebSocket(
            sock,
            agreement.connection(options),
            request,
            options,
            subprotocol=agreement.subprotocol,
            extensions=agreement.extensions,
            keepalive=self._get_keepalive(),
            on_end=self._on_end,
            early_data=parser.leftover,
        )
        self.stats.opened += 1
        self.connections.add(ws)
        if self._stopping:
            ws.begin_close(1001, STOPPING)
        return ws, handler, arguments

    def _receive_request(self, sock: Any, parser: RequestParser, start: bytearray) -> Request:
        """Do TLS and read the request, both within `open_timeout`; `start` gets its first five bytes.

        Raises:
            InvalidHandshake: the request is to be refused.
            OSError: the peer is gone, does not speak TLS, or took too long.
        """
        timer = None
        try:
            if not isinstance(sock, _socket.socket):
                timer = self._begin_waiting(sock)
                if self._context is not None:
                    sock.do_handshake()
            self._check_capacity()
            while True:
                try:
                    data = sock.recv(_RECEIVE_SIZE)
                except BlockingIOError:
                    if timer is None:
                        timer = self._begin_waiting(sock)
                    wait_ready(sock, 1)
                    continue
                except OSError:
                    if not self._stopping:
                        raise
                    data = b""
                if not data and self._stopping:
                    # `stop` has woken us.
                    raise InvalidHandshake(STOPPING, status=503)
                if not data:
                    parser.receive_eof()
                    raise ConnectionError("the peer ended TCP without a request")
                start += data[: 5 - len(start)]
                request = parser.receive_data(data)
                if request is not None:
                    return request
        except gevent.Timeout as expired:
            if expired is not timer:
                raise
            timeout = self.options.open_timeout
            raise OpenTimeout(f"no complete request within {timeout:g} seconds (open_timeout)") from None
        finally:
            if timer is not None:
                timer.close()
                self._opening.discard(sock)

    def _begin_waiting(self, sock: Any) -> gevent.Timeout:
        """Start the deadline of `open_timeout`: one for all, not one for each read."""
        self._opening.add(sock)
        return gevent.Timeout.start_new(self.options.open_timeout)

    def _check_capacity(self) -> None:
        """Refuse with 503 where no connection can be added."""
        if self._stopping:
            raise InvalidHandshake(STOPPING, status=503)
        limit = self.options.max_connections
        # Those that are being refused do not keep others out.
        if limit is not None and self._serving - self._refusing > limit:
            self._full_log.log(logging.WARNING, "refusing connections: %d are open (max_connections)", limit)
            raise InvalidHandshake(f"{limit} connections are open (max_connections)", status=503)

    def _decide(self, request: Request) -> tuple[Callable[..., Any], dict[str, Any], Agreement] | bytes:
        """Choose handler and agreement for a request, or the answer that refuses it."""
        name, path = _name(request.remote_address), request.path
        try:
            try:
                found = self._choose(request)
                if not isinstance(found, Response):
                    return *found, agree(request, self.options)
                level = logging.INFO if found.status >= 400 else logging.DEBUG
                logger.log(level, "%s: answered %r with %d", name, path, found.status)
            except InvalidHandshake as error:
                logger.info("%s: refused %r with %d: %s", name, path, error.status, str(error))
                found = error_response(error)
            # It may have been changed into what cannot be sent.
            return found.serialize(include_body=request.method != "HEAD")
        except (KeyboardInterrupt, gevent.GreenletExit):
            raise
        except BaseException:
            # `process_request`, or a callable among the options; even its SystemExit ends nothing else.
            logger.exception("%s: deciding on %r raised", name, path)
            response = Response(500, body="500 Internal Server Error\n")
            return response.serialize(include_body=request.method != "HEAD")

    def _choose(self, request: Request) -> tuple[Callable[..., Any], dict[str, Any]] | Response:
        """Choose the handler and its arguments, or another answer than 101."""
        if self.options.process_request is not None:
            response = self.options.process_request(request)
            if response is not None:
                if not isinstance(response, Response) or response.status == 101:
                    raise TypeError(
                        f"process_request returned {response!r}, not None or a Response other than 101"
                    )
                return response
        if self._match is None:
            return self._handler, {}  # type: ignore[return-value]
        found = self._match(request.path)
        if found is None:
            raise InvalidHandshake("no handler for this path", status=404)
        return found  # type: ignore[no-any-return]

    def _refuse(self, sock: Any, answer: bytes) -> None:
        """Answer with something else than 101, and end TCP."""
        self.stats.refused += 1
        self._refusing += 1
        try:
            send_last(gevent_socket(sock), answer, self.options.write_timeout)
        except gevent.GreenletExit:
            # Killed; there is nothing left to do.
            pass
        finally:
            self._refusing -= 1

    def _get_keepalive(self) -> Keepalive | None:
        interval = self.options.ping_interval
        if self._keepalive is None and interval is not None:
            self._keepalive = Keepalive(gevent.get_hub(), interval, self.options.ping_timeout)
        return self._keepalive

    def _on_end(self, ws: WebSocket) -> None:
        """A WebSocket's TCP is over."""
        self.connections.discard(ws)
        stats = self.stats
        if ws.close_code == 1006:
            stats.closed_unclean += 1
        else:
            stats.closed_clean += 1
        if ws.write_timed_out:
            stats.write_timeouts += 1
        if self._keepalive is not None:
            stats.ping_timeouts = self._keepalive.timeouts
        stats.slow_consumers += ws.times_slow
        stats.messages_received += ws.messages_received
        stats.messages_sent += ws.messages_sent
        stats.bytes_received += ws.bytes_received
        stats.bytes_sent += ws.bytes_sent


def _name(address: Any) -> str:
    """Return a peer's address for the log."""
    if not isinstance(address, tuple):
        return "a Unix socket"
    host, port = address[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
