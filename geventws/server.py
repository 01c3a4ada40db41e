"""The standalone server: a gevent StreamServer whose greenlets open WebSockets and run handlers."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import gevent
from gevent.event import Event
from greenlet import getcurrent

from .accepting import Greenlets
from .endings import STOPPING
from .opening import Opener
from .options import Options, check_option_names
from .routing import check_handler
from .serving import TLS_NAMES, make_tls_context, run_handler, wake_reader
from .stats import Stats

if TYPE_CHECKING:
    from .routing import Router

__all__ = ["Stats", "WebSocketServer"]


class WebSocketServer(Opener):
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
        others = {*TLS_NAMES, "backlog", "spawn", "ssl_context"}
        check_option_names("WebSocketServer()", options, others=others)
        if isinstance(handler, type) or not callable(getattr(handler, "match", None)):
            check_handler(handler)
        chosen = Options(**options)
        self._spawn_with = _check_spawn(spawn)
        self._cut = False
        self._signals = 0
        self._changed = Event()
        super().__init__(
            listener,
            handler,
            chosen,
            context=make_tls_context(ssl_context, tls),
            backlog=backlog,
            spawn=self._spawn_with,
        )

    @property
    def ssl_enabled(self) -> bool:
        """Whether this server speaks TLS."""
        return self._context is not None

    # One connection

    def handle(self, sock: Any, address: Any) -> None:
        """Serve one connection, from its first byte to its last; called in its greenlet.

        Args:
            sock: its socket: of the system and non-blocking, or one of gevent.
            address: the peer, as `accept` gives it.
        """
        self.stats.accepted += 1
        self._serving += 1
        try:
            opened = self._open(sock, address)
            if opened is not None:
                ws, handler, arguments = opened
                run_handler(ws, handler, arguments)
        finally:
            self._serving -= 1
            if self._stopping:
                self._changed.set()

    _own_handle = handle

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
            ws.begin_close(1001, STOPPING)
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


def _check_spawn(spawn: Any) -> Any:
    """Return what StreamServer takes as `spawn`."""
    if isinstance(spawn, str) and spawn == "default":
        return Greenlets()
    if isinstance(spawn, int) and not isinstance(spawn, bool):
        if spawn < 1:
            raise ValueError(f"spawn takes a pool, its size (1 or more) or a function, not {spawn!r}")
    elif not callable(spawn) and not hasattr(spawn, "spawn"):
        # StreamServer's None would run handlers in the hub, where nothing can wait.
        raise TypeError(f"spawn takes a pool, its size or a function such as gevent.spawn, not {spawn!r}")
    return spawn
