"""A server that does what a test says, byte by byte: for the client's tests."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import socket as std_socket
from collections.abc import Callable, Iterator
from typing import Any

import gevent
import gevent.socket
from gevent.event import Event
from support import PATIENCE, reset, tls_contexts

__all__ = ["Connection", "Scripted", "full_backlog", "resolver", "scripted", "server_frame"]


def server_frame(first: int, payload: bytes = b"") -> bytes:
    """A server's frame of up to 65535 bytes: not masked."""
    length = bytes((len(payload),)) if len(payload) < 126 else b"\x7e" + len(payload).to_bytes(2, "big")
    return bytes((first,)) + length + payload


class Connection:
    """The server's end of one connection.

    Attributes:
        socket: gevent's.
        head: the request's head, once `read_head` has read it.
        sni: the name that the client asked for in TLS, or None.
    """

    def __init__(self, sock: Any) -> None:
        self.socket = sock
        self.head = b""
        self.sni: str | None = None
        self._buffer = b""

    def read_head(self) -> bytes:
        """Read a request to its empty line."""
        while b"\r\n\r\n" not in self._buffer:
            data = self.socket.recv(4096)
            if not data:
                raise EOFError(self._buffer)
            self._buffer += data
        self.head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
        return self.head

    def field(self, name: bytes) -> bytes | None:
        """The value of a field of the request, or None."""
        for line in self.head.split(b"\r\n")[1:]:
            found, _, value = line.partition(b":")
            if found.lower() == name.lower():
                return value.strip()
        return None

    def accept_value(self) -> bytes:
        """The answer to the request's key, by the book (RFC 6455 section 4.2.2)."""
        key = self.field(b"Sec-WebSocket-Key")
        assert key is not None
        return base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())

    def send(self, *parts: bytes) -> None:
        """Send bytes in one call."""
        self.socket.sendall(b"".join(parts))

    def open(self, *fields: bytes, behind: bytes = b"") -> None:
        """Read the request and accept it."""
        self.read_head()
        lines = [
            b"HTTP/1.1 101 Switching Protocols",
            b"Upgrade: websocket",
            b"Connection: Upgrade",
            b"Sec-WebSocket-Accept: " + self.accept_value(),
            *fields,
        ]
        self.send(b"\r\n".join([*lines, b"\r\n"]), behind)

    def answer(self, status: bytes, *fields: bytes, body: bytes = b"") -> None:
        """Read the request and answer it with something else."""
        self.read_head()
        lines = [b"HTTP/1.1 " + status, *fields, b"Content-Length: %d" % len(body), b"Connection: close"]
        self.send(b"\r\n".join([*lines, b"\r\n"]), body)

    def read_bytes(self, size: int) -> bytes:
        """Read exactly so many bytes; EOFError if TCP ends before."""
        while len(self._buffer) < size:
            data = self.socket.recv(65536)
            if not data:
                raise EOFError(self._buffer)
            self._buffer += data
        data, self._buffer = self._buffer[:size], self._buffer[size:]
        return data

    def read_frame(self) -> tuple[int, bytes]:
        """Read a client's frame: its first byte and its payload; it has to be masked."""
        first, length = self.read_bytes(2)
        assert length & 0x80, "a client masks everything"
        length &= 0x7F
        if length >= 126:
            length = int.from_bytes(self.read_bytes(2 if length == 126 else 8), "big")
        key = self.read_bytes(4)
        payload = self.read_bytes(length)
        return first, bytes(octet ^ key[i % 4] for i, octet in enumerate(payload))

    def read_end(self) -> None:
        """Read the end of TCP, and no byte before it."""
        assert not self._buffer
        assert self.socket.recv(1) == b""

    def has_ended(self) -> bool:
        """Tell whether the client has ended TCP by now, without waiting."""
        try:
            return bool(self.socket._sock.recv(1, std_socket.MSG_PEEK | std_socket.MSG_DONTWAIT) == b"")
        except BlockingIOError:
            return False

    def reset(self) -> None:
        """End TCP with a reset."""
        reset(self.socket)


class Scripted:
    """A listening socket, and a script for each connection that comes.

    Attributes:
        address: (host, port), or the path of a Unix socket.
        connections: the connections so far.
        failures: what scripts raised, but for the end of the connection.
    """

    def __init__(self, listener: Any, script: Callable[[Connection], Any] | None, tls: bool) -> None:
        self.address = listener.getsockname()
        self.connections: list[Connection] = []
        self.failures: list[BaseException] = []
        self._listener = listener
        self._script = script or self.hold
        self._tls = tls
        self._sockets: list[Any] = []
        self._greenlets = [gevent.spawn(self._accept)]
        self._released = Event()

    @property
    def uri(self) -> str:
        """Where to connect to, without a path."""
        return f"ws://127.0.0.1:{self.address[1]}"

    def _accept(self) -> None:
        while True:
            sock, _ = self._listener.accept()
            self._sockets.append(sock)
            self._greenlets.append(gevent.spawn(self._serve, sock))

    def _serve(self, sock: Any) -> None:
        sock.settimeout(PATIENCE)
        connection = Connection(sock)
        self.connections.append(connection)
        try:
            if self._tls:
                connection.socket = tls_contexts()[0].wrap_socket(
                    sock, server_side=True, do_handshake_on_connect=False
                )
                connection.socket.do_handshake()
            self._script(connection)
        except (OSError, EOFError):
            pass
        except Exception as error:
            self.failures.append(error)
        finally:
            connection.socket.close()

    def hold(self, connection: Connection) -> None:
        """Do nothing until the test is over; as a script, or in one."""
        self._released.wait(PATIENCE)

    def close(self) -> None:
        """End it all."""
        self._released.set()
        gevent.killall(self._greenlets, timeout=PATIENCE)
        # Those that were not served yet.
        for sock in (*self._sockets, self._listener):
            sock.close()


def resolver(*addresses: tuple[Any, ...]) -> Callable[..., list[Any]]:
    """A `getaddrinfo` that knows these addresses, whatever it is asked for."""
    found = [
        (
            std_socket.AF_INET6 if len(address) == 4 else std_socket.AF_INET,
            std_socket.SOCK_STREAM,
            6,
            "",
            address,
        )
        for address in addresses
    ]
    return lambda *args, **kwargs: found


@contextlib.contextmanager
def full_backlog(unix: str | None = None) -> Iterator[Any]:
    """Give the address of a socket that accepts nobody: Linux drops what comes, SYN after SYN, unanswered."""
    family = std_socket.AF_INET if unix is None else std_socket.AF_UNIX
    with contextlib.ExitStack() as sockets:
        full = sockets.enter_context(std_socket.socket(family))
        full.bind(("127.0.0.1", 0) if unix is None else unix)
        full.listen(0)
        for _ in range(3):
            waiting = sockets.enter_context(std_socket.socket(family))
            waiting.setblocking(False)
            waiting.connect_ex(full.getsockname())
        yield full.getsockname()


@contextlib.contextmanager
def scripted(
    script: Callable[[Connection], Any] | None = None, *, tls: bool = False, unix: str | None = None
) -> Iterator[Scripted]:
    """A server of that kind; without a script it accepts TCP and is silent."""
    listener = gevent.socket.socket(std_socket.AF_INET if unix is None else std_socket.AF_UNIX)
    listener.bind(("127.0.0.1", 0) if unix is None else unix)
    listener.listen(16)
    server = Scripted(listener, script, tls)
    try:
        yield server
        if server.failures:
            raise server.failures[0]
    finally:
        server.close()
