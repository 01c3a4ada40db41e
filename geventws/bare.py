"""Sockets of the system, for the short time of an opening handshake.

One of gevent's has two watchers, looks at its descriptor twice and asks for the size of its buffer before it
sends. Mostly what is waited for is there already, and a watcher is made when it is not.

Compiled with bare.pxd (`benchmarks/`, rows "handshakes" and "client-connect").
"""

from __future__ import annotations

import _socket
import errno
import os
from typing import Any

import gevent
import gevent.socket

__all__ = ["BareSocket", "gevent_socket", "send_all", "wait_ready"]

_READ, _WRITE = 1, 2

_UNDER_WAY = (errno.EINPROGRESS, errno.EALREADY)


class BareSocket:
    """What a client's opening handshake needs of a socket; whoever waits is a greenlet.

    Attributes:
        socket: that of the system, non-blocking.
        family: its address family.
        address: what it was connected to, or None.
    """

    __slots__ = ("address", "family", "socket")

    def __init__(self, family: int) -> None:
        """Args: family: of its addresses."""
        self.address: Any = None
        self.family = family
        self.socket = _socket.socket(family, _socket.SOCK_STREAM)
        self.socket.setblocking(False)

    def connect(self, address: Any) -> None:
        """Connect to a numeric address, or to the path of a Unix socket.

        Raises:
            OSError: if that is not possible; BlockingIOError for a Unix socket whose backlog is full.
        """
        sock = self.socket
        error = sock.connect_ex(address)
        if error == errno.EINPROGRESS:
            # A peer on the same machine has answered by now.
            error = sock.connect_ex(address)
        while error in _UNDER_WAY:
            wait_ready(sock, _WRITE)
            error = sock.connect_ex(address)
        if error and error != errno.EISCONN:
            raise OSError(error, os.strerror(error))
        self.address = address

    def recv(self, size: int) -> bytes:
        """Wait for bytes, and return what has come; b"" at the end of the stream."""
        sock = self.socket
        while True:
            wait_ready(sock, _READ)
            try:
                return sock.recv(size)
            except BlockingIOError:
                pass

    def sendall(self, data: bytes) -> None:
        """Send all of it."""
        send_all(self.socket, data, None)

    def setsockopt(self, level: int, name: int, value: int) -> None:
        """Set an option."""
        self.socket.setsockopt(level, name, value)

    def bind(self, address: Any) -> None:
        """Choose the address to connect from."""
        self.socket.bind(address)

    def close(self) -> None:
        """Close it, unless somebody has taken over its descriptor."""
        self.socket.close()


def wait_ready(sock: Any, events: int) -> None:
    """Wait until a socket can be read (1) or written (2)."""
    hub = gevent.get_hub()
    watcher = hub.loop.io(sock.fileno(), events)
    try:
        hub.wait(watcher)
    finally:
        watcher.close()


def send_all(sock: Any, data: bytes, timeout: float | None) -> None:
    """Send through a socket of gevent, or a non-blocking one of the system that mostly takes it at once.

    Raises:
        OSError: the peer is gone, or has not taken it within `timeout` seconds.
    """
    if not isinstance(sock, _socket.socket):
        sock.settimeout(timeout)
        sock.sendall(data)
        return
    sent = _send(sock, data)
    if sent == len(data):
        return
    with gevent.Timeout(timeout, TimeoutError("timed out")):
        while sent < len(data):
            wait_ready(sock, _WRITE)
            sent += _send(sock, data[sent:])


def _send(sock: _socket.socket, data: bytes) -> int:
    """Send what goes out at once, and return how much that was."""
    try:
        return sock.send(data)
    except BlockingIOError:
        return 0


def gevent_socket(sock: Any) -> Any:
    """Return a socket of gevent; one of the system is taken over."""
    if isinstance(sock, BareSocket):
        sock = sock.socket
    if not isinstance(sock, _socket.socket):
        return sock
    family, kind, protocol = sock.family, sock.type, sock.proto
    return gevent.socket.socket(family, kind, protocol, fileno=sock.detach())
