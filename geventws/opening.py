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

from .admission import MAX_REFUSING, Admission
from .agreement import Agreement, agree
from .bare import gevent_socket, send_all, wait_ready
from .endings import STOPPING, close_cause, count_end, log_end
from .exceptions import InvalidHandshake, OpenTimeout
from .keepalive import Keepalive
from .protocol.handshake import error_response
from .protocol.http import Request, RequestParser, Response
from .serving import REFUSAL_LINES, Lines, send_last, shorten
from .tlssocket import wrap_tls
from .websocket import WebSocket

if TYPE_CHECKING:
    import ssl

    from .options import Options
    from .routing import Router

__all__ = ["Opened", "Opener"]

logger = logging.getLogger("geventws")

_RECEIVE_SIZE = 16 * 1024

#: Seconds for the TLS handshake of a connection that is to be refused.
_REFUSE_SECONDS = 2.0

Opened = tuple[WebSocket, Callable[..., Any], dict[str, Any]]


class Opener(Admission):
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
        self._handler = handler
        self._match = getattr(handler, "match", None)
        self._context = context
        self._keepalive: Keepalive | None = None
        self._refusal_log = Lines(logger, REFUSAL_LINES)
        #: What the open ones are counted by, where `max_connections_per_address` is set.
        self._keys: dict[WebSocket, str] = {}
        Admission.__init__(self, listener, options, backlog=backlog, spawn=spawn)

    def _open(self, sock: Any, address: Any) -> Opened | None:
        """Do the opening handshake; None if it failed, and the socket is closed."""
        opened = None
        key = ""
        try:
            self.prepare(sock)
            refusal = self._check_room()
            if refusal is None and self._addresses is not None:
                key = self._addresses.key(address)
                if key:
                    refusal = self._enter(key)
                    if refusal is not None:
                        key = ""
            if refusal is not None:
                self._turn_away(sock, address, refusal)
                return None
            if self._context is not None:
                # Closed below, where wrapping it fails.
                sock = gevent_socket(sock)
                sock = wrap_tls(self._context, sock)
            opened = self._handshake(sock, address, key)
        except OpenTimeout as error:
            self.stats.failed_handshakes += 1
            self.stats.open_timeouts += 1
            self._refusal_log.log(logging.INFO, "%s: %s", _name(address), str(error))
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
                if key and self._addresses is not None:
                    self._addresses.leave(key)
        return opened

    def _turn_away(self, sock: Any, address: Any, refusal: InvalidHandshake) -> None:
        """Answer 503 without waiting for a request, or only close where many are being answered already."""
        if self._refusing >= MAX_REFUSING:
            self.stats.unanswered += 1
            sock.close()
            return
        try:
            if self._context is not None:
                self._refusing += 1
                try:
                    sock = gevent_socket(sock)
                    sock = wrap_tls(self._context, sock)
                    with gevent.Timeout(_REFUSE_SECONDS, TimeoutError("no TLS handshake in time")):
                        sock.do_handshake()
                finally:
                    self._refusing -= 1
            self._log_refusal(address, refusal)
            self._refuse(sock, error_response(refusal).serialize())
        finally:
            sock.close()

    def _handshake(self, sock: Any, address: Any, key: str) -> Opened | None:
        """Read the request and answer it; `key` is what the connection is counted by, or ""."""
        options = self.options
        parser = RequestParser(
            max_line=options.max_line, max_headers=options.max_headers, max_head=options.max_head
        )
        start = bytearray()
        try:
            request = self._receive_request(sock, parser, start)
            # It was away from the others that it is counted among, if it had to wait.
            refusal = self._check_room()
            if refusal is not None:
                raise refusal
            request.remote_address = address
            client_key = ""
            if self._addresses is not None and not key:
                client_key = self._enter_client(request)
        except InvalidHandshake as error:
            # Details are for the log; the peer gets none of its own bytes back.
            self._log_refusal(address, error)
            # RFC 9110 section 9.3.2: no content in answer to HEAD.
            self._refuse(sock, error_response(error).serialize(include_body=start != b"HEAD "))
            return None
        try:
            decision = self._decide(request)
            if isinstance(decision, bytes):
                self._refuse(sock, decision)
                return None
            handler, arguments, agreement = decision
            send_all(sock, agreement.response(), options.write_timeout)
            ws = self._make(sock, request, agreement, parser.leftover)
            if key or client_key:
                self._keys[ws] = key or client_key
                client_key = ""
        finally:
            if client_key and self._addresses is not None:
                self._addresses.leave(client_key)
        self.stats.opened += 1
        self.connections.add(ws)
        if self._stopping:
            ws.begin_close(1001, STOPPING)
        return ws, handler, arguments

    def _make(self, sock: Any, request: Request, agreement: Agreement, early_data: bytes) -> WebSocket:
        """Return the WebSocket that was agreed on."""
        options = self.options
        return WebSocket(
            sock,
            agreement.connection(options),
            request,
            options,
            subprotocol=agreement.subprotocol,
            extensions=agreement.extensions,
            keepalive=self._get_keepalive(),
            on_end=self._on_end,
            early_data=early_data,
        )

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
            while True:
                try:
                    data = sock.recv(_RECEIVE_SIZE)
                except BlockingIOError:
                    if timer is None:
                        timer = self._begin_waiting(sock)
                    wait_ready(sock, 1)
                    continue
                except OSError:
                    if not self._stopping and sock in self._opening:
                        raise
                    data = b""
                if not data and self._stopping:
                    # `stop` has woken us.
                    raise InvalidHandshake(STOPPING, status=503)
                if timer is not None and sock not in self._opening:
                    # Whatever came meanwhile: nothing more can be read.
                    raise InvalidHandshake("others have to be let in (max_handshakes)", status=503)
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
                self._opening.pop(sock, None)

    def _decide(self, request: Request) -> tuple[Callable[..., Any], dict[str, Any], Agreement] | bytes:
        """Choose handler and agreement for a request, or the answer that refuses it."""
        name, path = _name(request.remote_address), request.path
        try:
            try:
                found = self._choose(request)
                if not isinstance(found, Response):
                    return *found, agree(request, self.options)
                level = logging.INFO if found.status >= 400 else logging.DEBUG
                self._refusal_log.log(level, "%s: answered %r with %d", name, path, found.status)
            except InvalidHandshake as error:
                self._refusal_log.log(
                    logging.INFO, "%s: refused %r with %d: %s", name, path, error.status, str(error)
                )
                found = error_response(error)
            # It may have been changed into what cannot be sent.
            return found.serialize(include_body=request.method != "HEAD")
        except (KeyboardInterrupt, gevent.GreenletExit):
            raise
        except BaseException:
            # `process_request`, or a callable among the options; even its SystemExit ends nothing else.
            logger.exception("%s: deciding on %r raised", name, shorten(path))
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
        stats = self.stats
        stats.refused += 1
        status = int(answer[9:12])
        stats.refusals[status] = stats.refusals.get(status, 0) + 1
        # Where many wait for their peer to end TCP, the others do not: some may not get to see the answer.
        linger = self._refusing < MAX_REFUSING
        self._refusing += 1
        try:
            send_last(gevent_socket(sock), answer, self.options.write_timeout, linger=linger)
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
        if self._keys and self._addresses is not None:
            key = self._keys.pop(ws, None)
            if key is not None:
                self._addresses.leave(key)
        cause = close_cause(ws)
        count_end(self.stats, ws, cause)
        log_end(ws, cause)

    def _log_refusal(self, address: Any, error: InvalidHandshake) -> None:
        """Log a refusal without a request."""
        self._refusal_log.log(
            logging.INFO, "%s: refused with %d: %s", _name(address), error.status, str(error)
        )


def _name(address: Any) -> str:
    """Return a peer's address for the log."""
    if not isinstance(address, tuple):
        return "a Unix socket"
    host, port = address[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
