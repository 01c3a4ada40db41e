"""The standalone server: a gevent StreamServer whose greenlets open WebSockets and run handlers."""

from __future__ import annotations

import dataclasses
import difflib
import logging
import signal
import socket
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import gevent
from gevent import ssl
from gevent.event import Event
from gevent.pool import Pool
from gevent.server import StreamServer

from .exceptions import InvalidHandshake, OpenTimeout
from .keepalive import Keepalive
from .options import Options
from .protocol.handshake import error_response
from .protocol.http import Request, RequestParser, Response
from .serving import agree, run_handler
from .websocket import WebSocket

if TYPE_CHECKING:
    from .routing import Router

__all__ = ["Stats", "WebSocketServer"]

logger = logging.getLogger("geventws")

_OPTION_NAMES = {field.name for field in dataclasses.fields(Options)}

#: What StreamServer takes for TLS, besides `ssl_context`.
_TLS_NAMES = {"keyfile", "certfile", "ca_certs", "cert_reqs", "ciphers"}

#: Seconds and bytes that the rest of a refused request is read for, so that the answer arrives.
_LINGER_SECONDS = 2
_LINGER_BYTES = 256 * 1024

_RECEIVE_SIZE = 16 * 1024


@dataclasses.dataclass(slots=True)
class Stats:
    """Counts since the server was made.

    Attributes:
        accepted: TCP connections.
        opened: WebSockets.
        refused: upgrades and other requests that were answered with an HTTP status.
        failed_handshakes: connections that ended before a request was read: TLS errors, time-outs.
        closed_clean, closed_unclean: WebSockets that ended with a closing handshake, or without.
        slow_consumers: how often a broadcast found a peer that does not keep up.
        messages_received, messages_sent, bytes_received, bytes_sent: of the WebSockets that ended.
    """

    accepted: int = 0
    opened: int = 0
    refused: int = 0
    failed_handshakes: int = 0
    closed_clean: int = 0
    closed_unclean: int = 0
    slow_consumers: int = 0
    messages_received: int = 0
    messages_sent: int = 0
    bytes_received: int = 0
    bytes_sent: int = 0


class WebSocketServer(StreamServer):  # type: ignore[misc]
    """Serves WebSockets, one greenlet for each.

    Example::

        WebSocketServer(("127.0.0.1", 8888), echo).serve_forever()

    Attributes:
        connections: the WebSockets that are open, a set.
        stats: counts, see `Stats`.
        options: the options in force, an `Options`.
    """

    def __init__(
        self,
        listener: Any,
        handler: Callable[..., Any] | Router,
        *,
        backlog: int | None = None,
        spawn: Any = "default",
        ssl_context: Any = None,
        **options: Any,
    ) -> None:
        """Make a server; `serve_forever` or `start` begins.

        Args:
            listener: as StreamServer takes it: (host, port), a port, or a listening socket of
                gevent, for Unix sockets too.
            handler: a function that gets the WebSocket, or a `Router`. When it returns, the WebSocket is
                closed with 1000; when it raises, with 1011.
            backlog: connections that the system keeps for us. Default: gevent's.
            spawn: as StreamServer takes it, but a pool that is full lets clients wait.
            ssl_context: an SSLContext for TLS; or give `certfile` and `keyfile`, and `ca_certs`,
                `cert_reqs`, `ciphers` as for StreamServer.
            options: see `Options`.

        Raises:
            TypeError, ValueError: for options that do not exist or values that are not possible.
            OSError, ssl.SSLError: if certificate or key cannot be used.
        """
        tls = {name: options.pop(name) for name in _TLS_NAMES & options.keys()}
        for name in options.keys() - _OPTION_NAMES:
            similar = difflib.get_close_matches(name, _OPTION_NAMES | _TLS_NAMES, 1)
            hint = f"; did you mean {similar[0]!r}?" if similar else ""
            raise TypeError(f"WebSocketServer() has no option {name!r}{hint}")
        if not callable(handler) and not hasattr(handler, "match"):
            raise TypeError(f"handler takes a function or a Router, not {handler!r}")
        self.options = Options(**options)
        self.connections: set[WebSocket] = set()
        self.stats = Stats()
        self._handler = handler
        self._context = _make_context(ssl_context, tls)
        self._keepalive: Keepalive | None = None
        self._stopping = False
        self._serving = 0
        self._idle = Event()
        super().__init__(listener, None, backlog=backlog, spawn=Pool() if spawn == "default" else spawn)

    @property
    def ssl_enabled(self) -> bool:
        """Whether this server speaks TLS."""
        return self._context is not None

    # One connection

    def handle(self, sock: Any, address: Any) -> None:
        """Serve one connection, from its first byte to its last; called in its greenlet."""
        self.stats.accepted += 1
        self._serving += 1
        try:
            opened = self._open(sock, address)
            if opened is not None:
                run_handler(*opened)
        finally:
            self._serving -= 1
            if not self._serving:
                self._idle.set()

    def _open(self, sock: Any, address: Any) -> tuple[WebSocket, Callable[..., Any], dict[str, Any]] | None:
        """Do the opening handshake; None if it failed."""
        # One deadline for TLS and request head together, from the first moment on.
        timer = gevent.Timeout.start_new(self.options.open_timeout)
        wrapped = sock
        try:
            try:
                if sock.family in (socket.AF_INET, socket.AF_INET6):
                    # A frame goes out when it is written; corking is done here, not by the kernel.
                    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                if self._context is not None:
                    wrapped = _wrap(self._context, sock)
                    wrapped.do_handshake()
                return self._handshake(wrapped, address)
            except InvalidHandshake as error:
                # Details are for the log; the peer gets none of its own bytes back.
                logger.info("%s: refused with %d: %s", _name(address), error.status, error)
                self._refuse(wrapped, error_response(error))
            except OSError as error:
                self.stats.failed_handshakes += 1
                logger.debug("%s: the opening handshake failed: %s", _name(address), error)
        except gevent.Timeout as expired:
            if expired is not timer:
                raise
            self.stats.failed_handshakes += 1
            late = OpenTimeout(
                f"no complete request within {self.options.open_timeout} seconds (open_timeout)"
            )
            logger.info("%s: %s", _name(address), late)
        finally:
            timer.close()
        if wrapped is not sock:
            wrapped.close()
        return None

    def _handshake(
        self, sock: Any, address: Any
    ) -> tuple[WebSocket, Callable[..., Any], dict[str, Any]] | None:
        """Read the request and answer it."""
        options = self.options
        parser = RequestParser(
            max_line=options.max_line, max_headers=options.max_headers, max_head=options.max_head
        )
        request = None
        while request is None:
            data = sock.recv(_RECEIVE_SIZE)
            if not data:
                parser.receive_eof()
                self.stats.failed_handshakes += 1
                sock.close()
                return None
            request = parser.receive_data(data)
        request.remote_address = address
        try:
            found = self._decide(request)
            if not isinstance(found, Response):
                agreement = agree(request, options)
        except InvalidHandshake as error:
            logger.info("%s: refused %r with %d: %s", _name(address), request.path, error.status, error)
            found = error_response(error)
        except Exception:
            # `process_request`, or a callable among the options.
            logger.exception("%s: deciding on %r raised", _name(address), request.path)
            found = Response(500, body="500 Internal Server Error\n")
        if isinstance(found, Response):
            self._refuse(sock, found, request.method != "HEAD")
            return None
        handler, arguments = found
        sock.sendall(agreement.response())
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
            ws.begin_close(1001, "the server is stopping")
        return ws, handler, arguments

    def _decide(self, request: Request) -> tuple[Callable[..., Any], dict[str, Any]] | Response:
        """Choose the handler for a request, or the response that refuses it."""
        options = self.options
        if self._stopping:
            return Response(503, body="503 the server is stopping\n")
        if options.max_connections is not None and self._serving > options.max_connections:
            logger.warning("refused with 503: %d connections (max_connections)", options.max_connections)
            return Response(503, body="503 too many connections\n")
        if options.process_request is not None:
            response = options.process_request(request)
            if response is not None:
                if not isinstance(response, Response):
                    raise TypeError(f"process_request returned {response!r}, not None or a Response")
                return response
        if hasattr(self._handler, "match"):
            found = self._handler.match(request.path)
            if found is None:
                return Response(404, body="404 Not Found\n")
            return found
        return self._handler, {}

    def _refuse(self, sock: Any, response: Response, include_body: bool = True) -> None:
        """Send a response and end TCP behind it, so that it arrives whatever else was sent here."""
        self.stats.refused += 1
        try:
            sock.sendall(response.serialize(include_body=include_body))
            with gevent.Timeout(_LINGER_SECONDS, False):
                sock.shutdown(socket.SHUT_WR)
                # RFC 9112 section 9.6: bytes that nobody read would make the kernel reset TCP, and the
                # reset destroy the answer.
                left = _LINGER_BYTES
                while left > 0:
                    data = sock.recv(_RECEIVE_SIZE)
                    if not data:
                        break
                    left -= len(data)
        except OSError:
            pass
        finally:
            sock.close()

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
        stats.slow_consumers += ws.times_slow
        stats.messages_received += ws.messages_received
        stats.messages_sent += ws.messages_sent
        stats.bytes_received += ws.bytes_received
        stats.bytes_sent += ws.bytes_sent

    # Life of the server

    def stop(self, timeout: float | None = None) -> None:
        """Stop in order: accept no more, send 1001 to all, wait for them, cut what is left.

        Args:
            timeout: seconds to wait; None for the option `stop_timeout`.
        """
        self._stopping = True
        self.close()
        if timeout is None:
            timeout = self.options.stop_timeout
        for ws in list(self.connections):
            ws.begin_close(1001, "the server is stopping")
        if self._serving:
            self._idle.clear()
            self._idle.wait(timeout)
        for ws in list(self.connections):
            ws.abort()
        # Handlers that are still busy, and handshakes; a second for them to clean up.
        super().stop(0)

    def cut(self) -> None:
        """End all connections at once, without closing handshakes."""
        for ws in list(self.connections):
            ws.abort()
        self._idle.set()

    def serve_forever(self, stop_timeout: float | None = None) -> None:
        """Serve until `stop` is called; in the main thread also until SIGTERM or SIGINT, then stop in order.

        A second signal cuts the connections that are left.

        Args:
            stop_timeout: seconds that stopping may take; None for the option `stop_timeout`.
        """
        if threading.current_thread() is not threading.main_thread():
            super().serve_forever(stop_timeout)
            return
        previous = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
        watchers = [gevent.signal_handler(number, self._on_signal) for number in previous]
        try:
            super().serve_forever(stop_timeout)
        finally:
            for watcher in watchers:
                watcher.cancel()
            for number, handler in previous.items():
                if handler is not None:
                    signal.signal(number, handler)

    def _on_signal(self) -> None:
        if self._stopping:
            self.cut()
        self._stopping = True
        self.close()


def _name(address: Any) -> str:
    """Return a peer's address for the log."""
    if isinstance(address, tuple) and len(address) >= 2:
        return f"{address[0]}:{address[1]}"
    return "a Unix socket"


def _make_context(context: Any, tls: dict[str, Any]) -> Any:
    """Return the SSLContext to serve with, or None."""
    if context is not None:
        if tls:
            raise TypeError(f"give ssl_context or {', '.join(sorted(tls))}, not both")
        return context
    if not tls:
        return None
    if tls.get("certfile") is None:
        raise TypeError("TLS needs certfile (and keyfile), or ssl_context")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tls["certfile"], tls.get("keyfile"))
    if tls.get("ca_certs") is not None:
        context.load_verify_locations(tls["ca_certs"])
    if tls.get("cert_reqs") is not None:
        context.verify_mode = tls["cert_reqs"]
    if tls.get("ciphers") is not None:
        context.set_ciphers(tls["ciphers"])
    return context


def _wrap(context: Any, sock: Any) -> Any:
    """Return the TLS socket of a server, before its handshake."""
    if isinstance(context, ssl.SSLContext):
        return context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
    # A context of the standard library would make a socket that blocks the whole process.
    return ssl.SSLSocket(sock=sock, server_side=True, do_handshake_on_connect=False, _context=context)
