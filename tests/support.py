"""A WebSocket under test on a real TCP connection, and the raw peer at its other end.

Both ends live in one process and one hub. The peer speaks in bytes: it sends what a test says, in the
pieces that the test says, and reads frames with a strict parser of its own, so that nothing under
test checks itself. `opened` makes a connection without an HTTP handshake; `serve` and `RawClient.connect`
go the whole way.
"""

from __future__ import annotations

import contextlib
import functools
import socket as std_socket
import struct
from collections.abc import Callable, Iterator
from typing import Any

import gevent
import gevent.socket
import gevent.ssl

from geventws import WebSocketServer
from geventws.options import Compression, Options
from geventws.protocol.connection import Connection
from geventws.protocol.deflate import DeflateParameters
from geventws.protocol.http import Request
from geventws.serving import run_handler
from geventws.websocket import WebSocket

__all__ = [
    "LoopCounter",
    "RawClient",
    "Session",
    "binary",
    "close",
    "frame",
    "opened",
    "ping",
    "pong",
    "reset",
    "serve",
    "socket_pair",
    "text",
    "tls_contexts",
    "wait_until",
]

#: Every wait in here ends after these many seconds, far above what a busy machine takes.
PATIENCE = 20.0

HANDSHAKE = (
    b"GET %s HTTP/1.1\r\n"
    b"Host: localhost\r\n"
    b"Connection: Upgrade\r\n"
    b"Upgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    b"%s\r\n"
)


def frame(first: int, payload: bytes = b"") -> bytes:
    """A client's frame, masked with zeros: valid, and its payload stands in the bytes as it is."""
    size = len(payload)
    if size < 126:
        length = bytes((0x80 | size,))
    elif size < 65536:
        length = b"\xfe" + size.to_bytes(2, "big")
    else:
        length = b"\xff" + size.to_bytes(8, "big")
    return bytes((first,)) + length + b"\0\0\0\0" + payload


def text(message: str) -> bytes:
    """A text message in one frame."""
    return frame(0x81, message.encode())


def binary(message: bytes) -> bytes:
    """A binary message in one frame."""
    return frame(0x82, message)


def ping(payload: bytes = b"") -> bytes:
    """A Ping frame."""
    return frame(0x89, payload)


def pong(payload: bytes = b"") -> bytes:
    """A Pong frame."""
    return frame(0x8A, payload)


def close(code: int | None = 1000, reason: bytes = b"") -> bytes:
    """A Close frame."""
    return frame(0x88, b"" if code is None else code.to_bytes(2, "big") + reason)


def reset(sock: Any) -> None:
    """Close a socket so that the other side gets a reset instead of an end."""
    sock.setsockopt(std_socket.SOL_SOCKET, std_socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def wait_until(condition: Callable[[], Any], what: str = "") -> None:
    """Let the loop run until `condition()` holds."""
    with gevent.Timeout(PATIENCE, AssertionError(f"waited {PATIENCE:g} s for {what or condition}")):
        while not condition():
            gevent.sleep(0.001)


def socket_pair(small: bool = False, family: int = std_socket.AF_INET) -> tuple[Any, Any]:
    """Two connected sockets of gevent: TCP over loopback; `small` gives them the smallest buffers."""
    with contextlib.closing(gevent.socket.socket(family)) as listener:
        ours = gevent.socket.socket(family)
        if small:
            # Before connecting: the window is agreed on then.
            listener.setsockopt(std_socket.SOL_SOCKET, std_socket.SO_SNDBUF, 4096)
            listener.setsockopt(std_socket.SOL_SOCKET, std_socket.SO_RCVBUF, 4096)
            ours.setsockopt(std_socket.SOL_SOCKET, std_socket.SO_RCVBUF, 4096)
            ours.setsockopt(std_socket.SOL_SOCKET, std_socket.SO_SNDBUF, 4096)
        listener.bind(("127.0.0.1", 0))
        listener.listen(1)
        ours.connect(listener.getsockname())
        theirs, _ = listener.accept()
    theirs.setsockopt(std_socket.IPPROTO_TCP, std_socket.TCP_NODELAY, 1)
    ours.setsockopt(std_socket.IPPROTO_TCP, std_socket.TCP_NODELAY, 1)
    ours.settimeout(PATIENCE)
    return theirs, ours


@functools.cache
def tls_contexts() -> tuple[Any, Any]:
    """A server's and a client's SSLContext for "localhost"."""
    import trustme

    authority = trustme.CA()
    server = gevent.ssl.SSLContext(gevent.ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(server)
    client = gevent.ssl.SSLContext(gevent.ssl.PROTOCOL_TLS_CLIENT)
    authority.configure_trust(client)
    return server, client


def wrap_pair(theirs: Any, ours: Any) -> tuple[Any, Any]:
    """Do a TLS handshake between two connected sockets."""
    server, client = tls_contexts()
    theirs.settimeout(PATIENCE)
    serving = gevent.spawn(server.wrap_socket, theirs, server_side=True)
    ours = client.wrap_socket(ours, server_hostname="localhost")
    return serving.get(timeout=PATIENCE), ours


class RawClient:
    """A client made of a socket: sends bytes as they are, reads a server's frames one by one.

    Attributes:
        socket: gevent's; with a timeout, so that no read waits for ever.
        head: the server's answer to the opening handshake, where there was one.
    """

    def __init__(self, sock: Any) -> None:
        self.socket = sock
        self.head = b""
        self._buffer = bytearray()

    @classmethod
    def connect(
        cls, address: Any, path: bytes = b"/", headers: bytes = b"", *, tls: bool = False, small: bool = False
    ) -> RawClient:
        """Open a WebSocket to a server."""
        sock = gevent.socket.socket()
        if small:
            sock.setsockopt(std_socket.SOL_SOCKET, std_socket.SO_RCVBUF, 4096)
        try:
            sock.settimeout(PATIENCE)
            sock.connect(address)
            if tls:
                sock = tls_contexts()[1].wrap_socket(sock, server_hostname="localhost")
            client = cls(sock)
            client._open(path, headers)
        except BaseException:
            sock.close()
            raise
        return client

    def _open(self, path: bytes, headers: bytes) -> None:
        """Do the opening handshake."""
        self.socket.sendall(HANDSHAKE % (path, headers))
        while b"\r\n\r\n" not in self._buffer:
            assert self._fill(), f"the server ended TCP after {bytes(self._buffer)!r}"
        head, _, rest = self._buffer.partition(b"\r\n\r\n")
        self.head = bytes(head)
        self._buffer = bytearray(rest)
        assert head.startswith(b"HTTP/1.1 101 "), head

    def send(self, *frames: bytes) -> None:
        """Send bytes in one call."""
        self.socket.sendall(b"".join(frames))

    def _fill(self, size: int = 256 * 1024) -> bool:
        data = self.socket.recv(size)
        self._buffer += data
        return bool(data)

    def read_frame(self, size: int = 256 * 1024) -> tuple[int, bytes]:
        """Read one frame: its first byte and its payload. EOFError between frames, at the end of TCP.

        At most `size` bytes are received at a time. A frame that is cut, masked or of a length that is
        not minimal is an AssertionError.
        """
        buffer = self._buffer
        while True:
            if len(buffer) >= 2:
                assert not buffer[1] & 0x80, "a server masks nothing"
                assert not buffer[0] & 0x30
                length, start = buffer[1], 2
                if length >= 126:
                    start = 4 if length == 126 else 10
                    if len(buffer) >= start:
                        least = 126 if length == 126 else 65536
                        length = int.from_bytes(buffer[2:start], "big")
                        assert length >= least
                    else:
                        length = 2**62
                if len(buffer) >= start + length:
                    first, payload = buffer[0], bytes(memoryview(buffer)[start : start + length])
                    del buffer[: start + length]
                    return first, payload
            if not self._fill(size):
                if buffer:
                    raise AssertionError(f"TCP ended in the middle of a frame: {bytes(buffer[:40])!r}")
                raise EOFError

    def read_frames(self) -> list[tuple[int, bytes]]:
        """Read frames to the end of TCP."""
        frames = []
        while True:
            try:
                frames.append(self.read_frame())
            except EOFError:
                return frames

    def read_bytes(self, size: int) -> bytes:
        """Read exactly this many bytes as they are; EOFError if TCP ends before."""
        while len(self._buffer) < size:
            if not self._fill(min(size - len(self._buffer), 256 * 1024)):
                raise EOFError(f"{len(self._buffer)} bytes of {size}")
        data = bytes(self._buffer[:size])
        del self._buffer[:size]
        return data

    def expect(self, first: int, payload: bytes = b"") -> None:
        """Read one frame, which must be this one."""
        found = self.read_frame()
        assert found == (first, payload), (found[0], found[1][:80])

    def expect_close(self, code: int) -> str:
        """Read one frame, which must be a Close with `code`; returns its reason."""
        first, payload = self.read_frame()
        assert first == 0x88, (first, payload[:80])
        assert int.from_bytes(payload[:2], "big") == code, payload
        return payload[2:].decode()

    def expect_end(self) -> None:
        """Read the end of TCP, in order: not a reset, and no byte before it."""
        with contextlib.suppress(EOFError):
            raise AssertionError(self.read_frame())

    def arrived(self) -> bytes:
        """What has arrived by now, without waiting; it is not read."""
        try:
            return bytes(self._buffer) + self.socket._sock.recv(
                1024 * 1024, std_socket.MSG_PEEK | std_socket.MSG_DONTWAIT
            )
        except BlockingIOError:
            return bytes(self._buffer)

    def reset(self) -> None:
        """End TCP with a reset."""
        reset(self.socket)

    def close(self) -> None:
        """End TCP."""
        self.socket.close()

    def __enter__(self) -> RawClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Session:
    """One connection.

    Attributes:
        ws: the WebSocket under test.
        peer: the other end.
        greenlet: runs the handler as a server does, or None.
    """

    def __init__(self, ws: WebSocket, peer: RawClient, handler: Callable[[WebSocket], Any] | None) -> None:
        self.ws = ws
        self.peer = peer
        self.greenlet = None if handler is None else gevent.spawn(run_handler, ws, handler, {})

    def ended(self) -> None:
        """Wait until TCP is over and the handler is done."""
        assert self.ws.wait_closed(PATIENCE)
        if self.greenlet is not None:
            self.greenlet.get(timeout=PATIENCE)


#: What an opening handshake with compression agrees on, by the name of its variant.
DEFLATE = {
    "deflate": DeflateParameters(
        server_no_context_takeover=False,
        client_no_context_takeover=False,
        server_max_window_bits=12,
        client_max_window_bits=None,
    ),
    "deflate-no-context": DeflateParameters(
        server_no_context_takeover=True,
        client_no_context_takeover=True,
        server_max_window_bits=12,
        client_max_window_bits=None,
    ),
}


def make_websocket(
    sock: Any,
    *,
    deflate: DeflateParameters | None = None,
    core: Connection | None = None,
    keepalive: Any = None,
    on_end: Callable[[WebSocket], None] | None = None,
    early_data: bytes = b"",
    **options: Any,
) -> WebSocket:
    """A server's WebSocket on a connected socket, as behind an opening handshake."""
    chosen = Options(compression=Compression(threshold=0) if deflate else None, **options)
    if core is None:
        core = Connection(
            max_message_size=chosen.max_message_size, max_fragments=chosen.max_fragments, deflate=deflate
        )
    request = Request("GET", "/test", [("Host", "localhost")])
    request.remote_address = sock.getpeername()
    return WebSocket(sock, core, request, chosen, keepalive=keepalive, on_end=on_end, early_data=early_data)


@contextlib.contextmanager
def opened(
    handler: Callable[[WebSocket], Any] | None = None,
    *,
    small: bool = False,
    tls: bool = False,
    **options: Any,
) -> Iterator[Session]:
    """A WebSocket and its raw peer; `options` as for `make_websocket`. Nothing is left afterwards."""
    theirs, ours = socket_pair(small)
    if tls:
        theirs, ours = wrap_pair(theirs, ours)
    session = Session(make_websocket(theirs, **options), RawClient(ours), handler)
    try:
        yield session
    finally:
        session.ws.abort()
        session.peer.close()
        if session.greenlet is not None:
            session.greenlet.kill(timeout=PATIENCE)


@contextlib.contextmanager
def serve(handler: Any, **options: Any) -> Iterator[WebSocketServer]:
    """A server on a port of its own; its address is `.address`."""
    server = WebSocketServer(("127.0.0.1", 0), handler, **options)
    server.start()
    try:
        yield server
    finally:
        server.cut()
        server.stop(0.1)


class LoopCounter:
    """Counts the turns of the event loop: how often it has looked for input."""

    #: One for all: gevent's libuv loop does not survive the closing of such a watcher.
    _watcher: Any = None
    _turns = 0

    @classmethod
    def _on_check(cls) -> None:
        cls._turns += 1

    def __enter__(self) -> LoopCounter:
        cls = type(self)
        if cls._watcher is None:
            cls._watcher = gevent.get_hub().loop.check(ref=False)
            cls._watcher.start(cls._on_check)
        self._begun = cls._turns
        return self

    @property
    def count(self) -> int:
        """Turns since the `with` began."""
        return self._turns - self._begun

    def __exit__(self, *_: object) -> None:
        pass
