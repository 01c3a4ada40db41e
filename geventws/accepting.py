"""Accepting connections: gevent's StreamServer, with less between the system and the greenlet.

What a connection needs it inherits from the listening socket, and it comes as a socket of the system,
without the two watchers of one of gevent: a handshake mostly finds its request there already and
never waits.

Compiled with accepting.pxd (`benchmarks/`, row "handshakes"). Besides speed that keeps frames off the
stack that gevent remembers of whoever spawns a greenlet.
"""

from __future__ import annotations

import _socket
import errno
import logging
from typing import TYPE_CHECKING, Any

from gevent.greenlet import Greenlet
from gevent.pool import Pool
from gevent.server import StreamServer

from .bare import gevent_socket
from .serving import TCP_FAMILIES, Throttle, prepare_socket, socket_options
from .stacks import keep_stacks

if TYPE_CHECKING:
    from .options import Options

__all__ = ["Acceptor", "Greenlets"]

#: Errors of accept() that concern the connection that was to be accepted, not us (accept(2)).
_PEER_ERRORS = frozenset({errno.ECONNABORTED, errno.EPROTO, errno.EPERM, errno.EINTR})

#: Seconds until the next attempt where accept() failed for want of descriptors or memory.
_ACCEPT_DELAYS = (0.05, 0.5)

#: Seconds between two log lines about the same shortage.
_LOG_INTERVAL = 10.0


class _Serving(Greenlet):  # type: ignore[misc]
    """A greenlet that does not remember the stack of its spawner, which is always the acceptor.

    Attributes:
        socket: closed when it is done, if it never began: nobody else does.
    """

    __slots__ = ("socket",)

    spawning_stack_limit = 0


class Greenlets(Pool):  # type: ignore[misc]
    """A Pool without a limit, and without what that would need."""

    def full(self) -> bool:
        """Tell that there is room."""
        return False

    def spawn(self, *args: Any, **kwargs: Any) -> Any:
        """Start a greenlet and keep it until it is done; as `Pool.spawn`."""
        greenlet = _Serving(*args, **kwargs)
        greenlet.rawlink(self._discard)
        self.greenlets.add(greenlet)
        self._empty_event.clear()
        greenlet.start()
        return greenlet

    def _discard(self, greenlet: Any) -> None:
        """A greenlet is done."""
        sock = getattr(greenlet, "socket", None)
        if sock is not None:
            sock.close()
        self.greenlets.discard(greenlet)
        self.dying.discard(greenlet)
        if not self.greenlets:
            self._empty_event.set()


class Acceptor(StreamServer):  # type: ignore[misc]
    """Accepts connections, and has `handle` called for each in a greenlet of its own.

    `handle` gets a non-blocking socket of the system, and closes it. Where a subclass has one of its own,
    that gets a socket of gevent, which is closed behind it, as with any StreamServer.
    """

    #: The `handle` that takes sockets of the system and closes them.
    _own_handle: Any = None

    def __init__(self, listener: Any, options: Options, *, backlog: int | None, spawn: Any) -> None:
        """Args: as for StreamServer; options: for what is set on the connections."""
        self.options = options
        self._accept_delay = _ACCEPT_DELAYS[0]
        self._accept_log = Throttle(_LOG_INTERVAL)
        self._bare = type(self).handle is type(self)._own_handle
        #: What the listening socket is, and so its connections are; and what those have inherited.
        self._kind = (0, 0, 0)
        self._inherited: tuple[int, int, int] | None = None
        super().__init__(listener, None, backlog=backlog, spawn=spawn)

    def init_socket(self) -> None:
        """Bind and listen where that is not done, and set what connections inherit."""
        super().init_socket()
        keep_stacks()
        listener = self.socket
        self._kind = (listener.family, listener.type, listener.proto)
        if listener.family in TCP_FAMILIES:
            # Instead of five system calls for each connection.
            for option in socket_options(self.options):
                listener.setsockopt(*option)
                self._inherited = option

    def do_read(self) -> Any:
        """Accept a connection; None if there is none. Overrides StreamServer's, which logs a traceback."""
        try:
            descriptor, address = self.socket._accept()
        except BlockingIOError:
            return None
        except OSError as error:
            if self.is_fatal_error(error):
                raise
            if error.errno not in _PEER_ERRORS:
                self._pause_accepting(error)
            return None
        self._accept_delay = _ACCEPT_DELAYS[0]
        sock = _socket.socket(*self._kind, descriptor)
        sock.setblocking(False)
        return sock if self._bare else gevent_socket(sock), address

    def _pause_accepting(self, error: OSError) -> None:
        """Try again later: there are no descriptors or no memory for another connection."""
        self.handle_shortage()
        self._accept_log.log(logging.ERROR, "cannot accept connections, trying again: %s", str(error))
        self.stop_accepting()
        # Where StreamServer keeps its own, so that stop_accepting() ends it.
        self._timer = self.loop.timer(self._accept_delay)
        self._timer.start(self._start_accepting_if_started)
        self._accept_delay = min(self._accept_delay * 2, _ACCEPT_DELAYS[1])

    def handle_shortage(self) -> None:
        """Called when there are no descriptors or no memory for another connection."""

    def do_handle(self, sock: Any, address: Any) -> None:
        """Have a connection served. Overrides StreamServer's, which closes the socket a second time."""
        if not self._bare:
            super().do_handle(sock, address)
            return
        try:
            greenlet = self._spawn(self._handle, sock, address)
        except BaseException:
            sock.close()
            raise
        if type(greenlet) is _Serving:
            greenlet.socket = sock
        elif hasattr(greenlet, "rawlink"):
            greenlet.rawlink(lambda _: sock.close())

    def prepare(self, sock: Any) -> None:
        """Set what a connection needs and has not inherited.

        It has not where it was in the backlog before this server, or the system does not do that.
        """
        if self._inherited is not None:
            level, name, value = self._inherited
            # The one that is set last stands for all.
            if sock.getsockopt(level, name) != value:
                prepare_socket(sock, self.options)
