"""The standalone server: a gevent StreamServer whose greenlets open WebSockets and run handlers."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import errno
import logging
import signal
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import gevent
from gevent.event import Event
from gevent.pool import Pool
from gevent.server import StreamServer
from greenlet import getcurrent

from .exceptions import InvalidHandshake, OpenTimeout
from .keepalive import Keepalive
from .options import Options
from .protocol.handshake import error_response
from .protocol.http import Request, RequestParser, Response
from .routing import check_handler
from .serving import (
    TLS_NAMES,
    Agreement,
    Throttle,
    agree,
    make_tls_context,
    prepare_socket,
    run_handler,
    send_last,
    wake_reader,
    wrap_tls,
)
from .stats import Stats
from .websocket import WebSocket

if TYPE_CHECKING:
    from .routing import Router

__all__ = ["Stats", "WebSocketServer"]

logger = logging.getLogger("geventws")

_OPTION_NAMES = {field.name for field in dataclasses.fields(Options)}

_RECEIVE_SIZE = 16 * 1024

#: Errors of accept() that concern the connection that was to be accepted, not us (accept(2)).
_PEER_ERRORS = frozenset({errno.ECONNABORTED, errno.EPROTO, errno.EPERM, errno.EINTR})

#: Seconds until the next attempt where accept() failed for want of descriptors or memory.
_ACCEPT_DELAYS = (0.05, 0.5)

#: Seconds between two log lines about the same shortage.
_LOG_INTERVAL = 10.0

_STOPPING = "the server is stopping"

Opened = tuple[WebSocket, Callable[..., Any], dict[str, Any]]


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
            listener: as StreamServer takes it: (host, port), a port, or a bound and listening socket of
                gevent, for Unix sockets too.
            handler: a function that gets the WebSocket, or a `Router`. When it returns, the WebSocket is
                closed with 1000; when it raises, with 1011.
            backlog: connections that the system keeps for us. Default: gevent's.
            spawn: a Pool, or its size: while it is full, clients wait; or a function as `gevent.spawn`.
                Default: no limit but `max_connections`.
            ssl_context: an SSLContext for TLS, of gevent or of the standard library; or give `certfile`
                and `keyfile`, and `ca_certs`, `cert_reqs`, `ciphers` as for StreamServer. Client
                certificates are checked where `cert_reqs` says so, with `ca_certs`.
            options: see `Options`.

        Raises:
            TypeError, ValueError: for options that do not exist, values that are not possible, and a
                handler that cannot take one argument or would not run, such as a coroutine function.
            OSError, ssl.SSLError: if certificate or key cannot be used.
        """
        tls = {name: options.pop(name) for name in TLS_NAMES & options.keys()}
        for name in options.keys() - _OPTION_NAMES:
            known = {*_OPTION_NAMES, *TLS_NAMES, "backlog", "spawn", "ssl_context"}
            similar = difflib.get_close_matches(name, known, 1)
            hint = f"; did you mean {similar[0]!r}?" if similar else ""
            raise TypeError(f"WebSocketServer() has no option {name!r}{hint}")
        if isinstance(handler, type) or not callable(getattr(handler, "match", None)):
            check_handler(handler)
        self.options = Options(**options)
        self.connections: set[WebSocket] = set()
        self.stats = Stats()
        self._handler = handler
        self._context = make_tls_context(ssl_context, tls)
        self._spawn_with = _check_spawn(spawn)
        self._keepalive: Keepalive | None = None
        #: Greenlets that serve a connection; and those among them that only tell it to go away.
        self._serving = 0
        self._refusing = 0
        #: Sockets from which a request is being read.
        self._opening: set[Any] = set()
        self._stopping = False
        self._cut = False
        self._signals = 0
        self._changed = Event()
        self._accept_delay = _ACCEPT_DELAYS[0]
        self._accept_log = Throttle(_LOG_INTERVAL)
        self._full_log = Throttle(_LOG_INTERVAL)
        super().__init__(listener, None, backlog=backlog, spawn=self._spawn_with)

    @property
    def ssl_enabled(self) -> bool:
        """Whether this server speaks TLS."""
        return self._context is not None

    # One connection

    def do_read(self) -> Any:
        """Accept a connection; None if there is none. Overrides StreamServer's, which logs a traceback."""
        try:
            accepted = super().do_read()
        except OSError as error:
            if self.is_fatal_error(error):
                raise
            if error.errno not in _PEER_ERRORS:
                self._pause_accepting(error)
            return None
        self._accept_delay = _ACCEPT_DELAYS[0]
        return accepted

    def _pause_accepting(self, error: OSError) -> None:
        """Try again later: there are no descriptors or no memory for another connection."""
        self._accept_log.log(logging.ERROR, "cannot accept connections, trying again: %s", str(error))
        self.stop_accepting()
        # Where StreamServer keeps its own, so that stop_accepting() ends it.
        self._timer = self.loop.timer(self._accept_delay)
        self._timer.start(self._start_accepting_if_started)
        self._accept_delay = min(self._accept_delay * 2, _ACCEPT_DELAYS[1])

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
            if self._stopping:
                self._changed.set()

    def _open(self, sock: Any, address: Any) -> Opened | None:
        """Do the opening handshake; None if it failed, and the socket is closed."""
        opened = None
        try:
            prepare_socket(sock, self.options)
            if self._context is not None:
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
        sock.settimeout(options.write_timeout)
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
            ws.begin_close(1001, _STOPPING)
        return ws, handler, arguments

    def _receive_request(self, sock: Any, parser: RequestParser, start: bytearray) -> Request:
        """Do TLS and read the request, both within `open_timeout`; `start` gets its first five bytes.

        Raises:
            InvalidHandshake: the request is to be refused.
            OSError: the peer is gone, does not speak TLS, or took too long.
        """
        timeout = self.options.open_timeout
        # One deadline from the first moment on, not one for each read.
        timer = gevent.Timeout.start_new(timeout)
        self._opening.add(sock)
        try:
            if self._context is not None:
                sock.do_handshake()
            self._check_capacity()
            request = None
            while request is None:
                try:
                    data = sock.recv(_RECEIVE_SIZE)
                except OSError:
                    if not self._stopping:
                        raise
                    data = b""
                if not data and self._stopping:
                    # `stop` has woken us.
                    raise InvalidHandshake(_STOPPING, status=503)
                if not data:
                    parser.receive_eof()
                    raise ConnectionError("the peer ended TCP without a request")
                start += data[: 5 - len(start)]
                request = parser.receive_data(data)
            return request
        except gevent.Timeout as expired:
            if expired is not timer:
                raise
            raise OpenTimeout(f"no complete request within {timeout:g} seconds (open_timeout)") from None
        finally:
            timer.close()
            self._opening.discard(sock)

    def _check_capacity(self) -> None:
        """Refuse with 503 where no connection can be added."""
        if self._stopping:
            raise InvalidHandshake(_STOPPING, status=503)
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
        match = getattr(self._handler, "match", None)
        if match is None:
            return self._handler, {}  # type: ignore[return-value]
        found = match(request.path)
        if found is None:
            raise InvalidHandshake("no handler for this path", status=404)
        return found  # type: ignore[no-any-return]

    def _refuse(self, sock: Any, answer: bytes) -> None:
        """Answer with something else than 101, and end TCP."""
        self.stats.refused += 1
        self._refusing += 1
        try:
            send_last(sock, answer, self.options.write_timeout)
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

    # Life of the server

    def start(self) -> None:
        """Bind, listen and accept; a server that was stopped can be started again."""
        if "_spawn" not in self.__dict__:
            # `close` has undone it.
            self.set_spawn(self._spawn_with)
        self._stopping = self._cut = False
        self._signals = 0
        super().start()

    def stop(self, timeout: float | None = None) -> None:
        """Stop in order: accept no more, send 1001 to all, wait for them, cut what is left.

        Requests that are under way are answered with 503. Handlers get `ConnectionClosed` when they
        next receive or send; those that are busy when the time is over are killed.

        Args:
            timeout: seconds to wait; None for the option `stop_timeout`.
        """
        self._stopping = True
        self.close()
        if timeout is None:
            timeout = self.options.stop_timeout
        for sock in list(self._opening):
            wake_reader(sock)
        for ws in list(self.connections):
            ws.begin_close(1001, _STOPPING)
        # A handler that stops its own server cannot wait for itself.
        own = 1 if self.pool is not None and getcurrent() in self.pool else 0
        with gevent.Timeout(timeout, False):
            while self._serving > own and not self._cut:
                self._changed.clear()
                self._changed.wait()
        for ws in list(self.connections):
            ws.abort()
        # Kills the handlers that are left.
        super().stop(0)

    def cut(self) -> None:
        """End all connections at once, without closing handshakes; a `stop` that waits goes on."""
        self._cut = True
        for ws in list(self.connections):
            ws.abort()
        self._changed.set()

    def serve_forever(self, stop_timeout: float | None = None) -> None:
        """Serve until `stop` is called; in the main thread also until SIGTERM or SIGINT, then stop in order.

        A second signal cuts the connections that are left.

        Args:
            stop_timeout: seconds that stopping may take; None for the option `stop_timeout`.
        """
        if not self.started:
            self.start()
        with self._signals_watched():
            super().serve_forever(stop_timeout)

    @contextlib.contextmanager
    def _signals_watched(self) -> Iterator[None]:
        """Let SIGTERM and SIGINT stop the server; only the main thread gets signals."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        previous = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
        watchers = [gevent.signal_handler(number, self._on_signal) for number in previous]
        try:
            yield
        finally:
            # Without a watcher libev goes back to what the system does: a signal that comes now would end us.
            blocked = signal.pthread_sigmask(signal.SIG_BLOCK, previous)
            for watcher in watchers:
                watcher.cancel()
            for number, handler in previous.items():
                # None: it was not installed from Python, and cannot be from here.
                if handler is not None:
                    signal.signal(number, handler)
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)

    def _on_signal(self) -> None:
        self._signals += 1
        if self._signals > 1:
            self.cut()
        # Ends `serve_forever`, which then calls `stop`.
        self.close()


def _name(address: Any) -> str:
    """Return a peer's address for the log."""
    if not isinstance(address, tuple):
        return "a Unix socket"
    host, port = address[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _check_spawn(spawn: Any) -> Any:
    """Return what StreamServer takes as `spawn`."""
    if isinstance(spawn, str) and spawn == "default":
        return Pool()
    if isinstance(spawn, int) and not isinstance(spawn, bool):
        if spawn < 1:
            raise ValueError(f"spawn takes a pool, its size (1 or more) or a function, not {spawn!r}")
    elif not callable(spawn) and not hasattr(spawn, "spawn"):
        # StreamServer's None would run handlers in the hub, where nothing can wait.
        raise TypeError(f"spawn takes a pool, its size or a function such as gevent.spawn, not {spawn!r}")
    return spawn
