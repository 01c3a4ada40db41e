"""A client that does what it must not: bytes as they are, to a server that may do anything with them."""

from __future__ import annotations

import contextlib
import itertools
import socket as std_socket
import struct
import time
from collections.abc import Iterable
from typing import Any

import gevent
import gevent.socket

__all__ = ["Wire", "exchange", "frame", "head", "request"]

#: Seconds that a server has for anything; far above what a busy machine takes.
PATIENCE = 30.0

_IP_BIND_ADDRESS_NO_PORT = 24

KEY = b"dGhlIHNhbXBsZSBub25jZQ=="


def frame(first: int, payload: bytes = b"") -> bytes:
    """A client's frame, masked with zeros."""
    return head(first, len(payload)) + payload


def head(first: int, size: int) -> bytes:
    """The head of a frame, with a payload of `size` bytes to follow, masked with zeros."""
    if size < 126:
        length = bytes((0x80 | size,))
    elif size < 65536:
        length = b"\xfe" + size.to_bytes(2, "big")
    else:
        length = b"\xff" + size.to_bytes(8, "big")
    return bytes((first,)) + length + b"\0\0\0\0"


def request(*lines: bytes, path: bytes = b"/", host: bytes = b"127.0.0.1") -> bytes:
    """An opening handshake, with further lines."""
    return b"\r\n".join(
        (
            b"GET %s HTTP/1.1" % path,
            b"Host: " + host,
            b"Upgrade: websocket",
            b"Connection: Upgrade",
            b"Sec-WebSocket-Version: 13",
            b"Sec-WebSocket-Key: " + KEY,
            *lines,
            b"",
            b"",
        )
    )


class Wire:
    """One connection; a greenlet reads and keeps what the server says, unless it is told not to.

    Attributes:
        socket: gevent's.
        data: all that came and is no HTTP head; only its first `keep` bytes.
        received: how many bytes came.
        status: of the answer, or 0.
        code: of the Close frame that came; 0 if none came.
        ended: TCP is over: "end" or "reset".
        sent: bytes that the system has taken.
        ping_bytes: bytes of Pings that came; they are answered unless `silent` is set.
    """

    def __init__(self, port: int, *, reading: bool = True, small: bool = False, keep: int = 1 << 16) -> None:
        self.data = bytearray()
        self.head = b""
        self.received = 0
        self.status = 0
        self.code = 0
        self.ended = ""
        self.sent = 0
        self.ping_bytes = 0
        self.silent = False
        self._keep = keep
        self._skip = 0
        self._partial = bytearray()
        self._reader: Any = None
        self.socket = gevent.socket.socket()
        self.socket.settimeout(PATIENCE)
        try:
            if small:
                self.socket.setsockopt(std_socket.SOL_SOCKET, std_socket.SO_RCVBUF, 4096)
            self.socket.setsockopt(std_socket.IPPROTO_TCP, std_socket.TCP_NODELAY, 1)
            # From many addresses: one alone runs out of ports, which rest for a minute after use.
            self.socket.setsockopt(std_socket.IPPROTO_IP, _IP_BIND_ADDRESS_NO_PORT, 1)
            self.socket.bind((_source(), 0))
            self.socket.connect(("127.0.0.1", port))
        except BaseException:
            self.socket.close()
            raise
        if reading:
            self.read()

    @classmethod
    def open(
        cls, port: int, *lines: bytes, path: bytes = b"/", reading: bool = True, small: bool = False
    ) -> Wire:
        """Open a WebSocket."""
        wire = cls(port, reading=False, small=small)
        try:
            wire.socket.sendall(request(*lines, path=path))
            wire._read_head()
            if wire.status != 101:
                raise ConnectionError(f"refused: {wire.head[:200]!r}")
        except BaseException:
            wire.close()
            raise
        if reading:
            wire.read()
        return wire

    def _read_head(self) -> None:
        data = b""
        while b"\r\n\r\n" not in data:
            more = self.socket.recv(1)
            if not more:
                raise ConnectionError(f"TCP ended behind {data!r}")
            data += more
        self.head = data
        self.status = int(data[9:12])

    def read(self) -> None:
        """Begin to read."""
        self._reader = gevent.spawn(self._read)

    def _read(self) -> None:
        self.socket.settimeout(None)
        try:
            while data := self.socket.recv(1 << 18):
                self.received += len(data)
                self.data += data[: max(0, self._keep - len(self.data))]
                if self.status == 101:
                    self._parse(data)
            self.ended = "end"
        except OSError:
            self.ended = "reset"

    def _parse(self, data: bytes) -> None:
        """Look for a Close frame; payloads of other frames are skipped."""
        if self._skip >= len(data):
            self._skip -= len(data)
            return
        self._partial += data[self._skip :]
        self._skip = 0
        buffer, at = self._partial, 0
        while len(buffer) - at >= 2:
            size, start = buffer[at + 1] & 0x7F, 2
            if size >= 126:
                start = 4 if size == 126 else 10
                if len(buffer) - at < start:
                    break
                size = int.from_bytes(buffer[at + 2 : at + start], "big")
            if buffer[at] == 0x88:
                if len(buffer) - at < start + size:
                    break
                self.code = int.from_bytes(buffer[at + start : at + start + 2], "big") if size else 1005
            if buffer[at] == 0x89 and size < 126:
                if len(buffer) - at < start + size:
                    break
                self._answer(bytes(buffer[at + start : at + start + size]))
                self.ping_bytes += start + size
            at += start + size
        if at > len(buffer):
            self._skip = at - len(buffer)
        del buffer[:at]

    def _answer(self, payload: bytes) -> None:
        """Send a Pong, between two messages if that is where we are; who pours goes without."""
        if not self.silent:
            with contextlib.suppress(OSError):
                self.socket._sock.send(frame(0x8A, payload))

    def send(self, data: bytes) -> bool:
        """Send; False if the server has ended TCP."""
        try:
            self.socket.sendall(data)
        except OSError:
            return False
        self.sent += len(data)
        return True

    def pour(self, parts: Iterable[bytes], limit: float = 60.0) -> None:
        """Send one after the other, until the server has ended TCP, or takes no more for 2 s."""
        until = time.monotonic() + limit
        self.socket.settimeout(2.0)
        # A Pong would come into the middle of something.
        self.silent = True
        for part in parts:
            if self.ended or time.monotonic() > until or not self.send(part):
                return

    def dribble(self, data: bytes) -> None:
        """Send a byte at a time, a segment each; other greenlets run now and then."""
        raw = self.socket._sock
        for at in range(len(data)):
            try:
                raw.send(data[at : at + 1])
            except BlockingIOError:
                if not self.send(data[at : at + 1]):
                    return
            except OSError:
                return
            if at % 64 == 0:
                gevent.sleep(0)
        self.sent += len(data)

    def wait_code(self, seconds: float = PATIENCE) -> int:
        """Wait for a Close frame or the end of TCP; return the code, 0 if there is none."""
        self._wait(lambda: self.code or self.ended, seconds)
        return self.code

    def wait_end(self, seconds: float = PATIENCE) -> bool:
        """Wait until the server has ended TCP; tell whether it has."""
        self._wait(lambda: self.ended, seconds)
        return bool(self.ended)

    def wait_data(self, size: int, seconds: float = PATIENCE) -> bool:
        """Wait until so many bytes have come."""
        self._wait(lambda: self.received >= size or self.ended, seconds)
        return self.received >= size

    def _wait(self, condition: Any, seconds: float) -> None:
        until = time.monotonic() + seconds
        while not condition() and time.monotonic() < until:
            gevent.sleep(0.005)

    def alive(self) -> bool:
        """Whether the server answers a Ping on this connection."""
        before = self.received
        return self.send(frame(0x89, b"alive?")) and self.wait_data(before + 8)

    def close(self) -> None:
        """End TCP."""
        if self._reader is not None:
            self._reader.kill()
        self.socket.close()

    def reset(self) -> None:
        """End TCP with a reset."""
        with contextlib.suppress(OSError):
            self.socket.setsockopt(std_socket.SOL_SOCKET, std_socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def verdict(self) -> str:
        """How the server has answered, in a word."""
        if self.code:
            return str(self.code)
        return {"end": "EOF", "reset": "reset", "": "open"}[self.ended]


_numbers = itertools.count(1)


def _source() -> str:
    """An address of the loopback network, another one each time."""
    number = next(_numbers)
    return f"127.{number // 60000 % 250 + 1}.{number // 250 % 240 + 1}.{number % 250 + 1}"


def exchange(port: int, data: bytes, seconds: float = PATIENCE) -> tuple[list[int], bytes, str]:
    """Send bytes, read to the end of TCP or for `seconds` behind the last byte.

    Returns:
        The status of each HTTP response that came, all bytes, and how TCP ended: "end", "reset" or "".
    """
    with Wire(port) as wire:
        wire.send(data)
        wire.wait_end(seconds)
        answer = bytes(wire.data)
    statuses = [int(part[:3]) for part in answer.split(b"HTTP/1.1 ")[1:] if part[:3].isdigit()]
    return statuses, answer, wire.ended
