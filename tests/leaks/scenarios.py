"""The lives of connections that are tried for leaks, each with both of its ends side by side.

A scenario is a handler of the server and a peer: a function that gets a connected `Peer`, whose
socket is closed when it returns. Peers are made of plain sockets, and run in a process of their own that
imports neither gevent nor geventws.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import socket
import ssl
import struct
import zlib
from collections.abc import Callable
from typing import Any

__all__ = ["PLANTED", "SCENARIOS", "Peer", "Scenario"]

#: Seconds that a peer waits for anything; far above what a busy machine takes.
PATIENCE = 60.0

KEY = b"\x37\xfa\x21\x3d"
CLOSED = b"\x03\xe8"

_IP_BIND_ADDRESS_NO_PORT = 24


@dataclasses.dataclass(frozen=True)
class Scenario:
    """One way that a connection goes.

    Attributes:
        handler: the server's side; gets the WebSocket.
        peer: the client's side; gets a `Peer`.
        headers: further lines of the request.
        status: the server's answer to the request.
        tls: over TLS.
        every: one connection for so many of the others, for those that take long.
        impatient: on a server that soon takes a silent peer for dead.
        at_once: connections at a time; more for those that wait.
    """

    handler: Callable[[Any], None]
    peer: Callable[[Peer], None]
    headers: bytes = b""
    status: int = 101
    tls: bool = False
    every: int = 1
    impatient: bool = False
    at_once: int = 4


@functools.cache
def frame(first: int, payload: bytes = b"", masked: bool = True) -> bytes:
    """A client's frame."""
    size, bit = len(payload), 0x80 if masked else 0
    if size < 126:
        head = struct.pack("!BB", first, bit | size)
    elif size < 65536:
        head = struct.pack("!BBH", first, bit | 126, size)
    else:
        head = struct.pack("!BBQ", first, bit | 127, size)
    if not masked:
        return head + payload
    return head + KEY + bytes(octet ^ KEY[i & 3] for i, octet in enumerate(payload))


class Peer:
    """A client made of a blocking socket."""

    def __init__(self, address: tuple[str, int], source: str, name: str, scenario: Scenario) -> None:
        self.socket = socket.socket()
        try:
            self.socket.settimeout(PATIENCE)
            # From many addresses: one alone runs out of ports, which rest for a minute after use.
            self.socket.setsockopt(socket.IPPROTO_IP, _IP_BIND_ADDRESS_NO_PORT, 1)
            self.socket.bind((source, 0))
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.socket.connect(address)
            if scenario.tls:
                self.socket = _tls_context().wrap_socket(self.socket)
            self.buffer = b""
            self._open(name, scenario)
        except BaseException:
            self.socket.close()
            raise

    def _open(self, name: str, scenario: Scenario) -> None:
        self.socket.sendall(
            b"GET /%s HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n%s\r\n"
            % (name.encode(), scenario.headers)
        )
        while b"\r\n\r\n" not in self.buffer:
            self._fill()
        head, _, self.buffer = self.buffer.partition(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 %d " % scenario.status):
            raise AssertionError(f"answered with {head!r}")

    def _fill(self) -> None:
        data = self.socket.recv(65536)
        if not data:
            raise EOFError(f"TCP ended behind {self.buffer[:80]!r}")
        self.buffer += data

    def send(self, *frames: bytes) -> None:
        self.socket.sendall(b"".join(frames))

    def read(self, size: int) -> bytes:
        while len(self.buffer) < size:
            self._fill()
        data, self.buffer = self.buffer[:size], self.buffer[size:]
        return data

    def read_frame(self) -> tuple[int, bytes]:
        first, length = self.read(2)
        if length == 126:
            (length,) = struct.unpack("!H", self.read(2))
        elif length == 127:
            (length,) = struct.unpack("!Q", self.read(8))
        return first, self.read(length)

    def expect(self, first: int, payload: bytes) -> None:
        found = self.read_frame()
        if found != (first, payload):
            raise AssertionError(f"expected {first:#x} {payload[:80]!r}, got {found[0]:#x} {found[1][:80]!r}")

    def skip_to(self, first: int, payload: bytes) -> None:
        """Read frames up to this one."""
        while self.read_frame() != (first, payload):
            pass

    def read_close(self, code: int) -> None:
        """Read up to a Close with this code, answer it, and read the end of TCP."""
        while True:
            first, payload = self.read_frame()
            if first == 0x88:
                break
        if payload[:2] != struct.pack("!H", code):
            raise AssertionError(f"closed with {payload!r}, not {code}")
        self.send(frame(0x88, payload[:2]))
        self.read_end()

    def close(self) -> None:
        """Begin the closing handshake, and read to the end of TCP."""
        self.send(frame(0x88, CLOSED))
        self.skip_to(0x88, CLOSED)
        self.read_end()

    def read_end(self) -> None:
        """Read whatever comes, to the end of TCP."""
        try:
            while self.socket.recv(65536):
                pass
        except ConnectionError:
            pass

    def reset(self) -> None:
        """End with a reset instead of an end."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()


@functools.cache
def _tls_context() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


# The server's side


def echo(ws: Any) -> None:
    for message in ws:
        ws.send(message)


def echo_to_the_last(ws: Any) -> None:
    """Echo, where the peer does not close as it should."""
    from geventws import ConnectionClosed

    try:
        echo(ws)
    except ConnectionClosed:
        pass


def echo_slowly(ws: Any) -> None:
    """Let the queue fill before it is emptied, so that reading pauses and goes on."""
    import gevent

    gevent.sleep(0.002)
    echo(ws)


def close_at_once(ws: Any) -> None:
    ws.send("bye")
    ws.close(4000, "enough")


def return_after_one(ws: Any) -> None:
    ws.receive()


def leave_with(ws: Any) -> None:
    with ws:
        ws.receive()


def abort(ws: Any) -> None:
    ws.receive()
    ws.abort()


def fail(ws: Any) -> None:
    raise ValueError(ws.receive())


def be_killed(ws: Any) -> None:
    """End as a handler that somebody kills."""
    import gevent

    ws.receive()
    gevent.getcurrent().kill(block=False)
    ws.receive()


def exit_(ws: Any) -> None:
    """End as a handler that calls sys.exit()."""
    raise SystemExit(ws.receive())


def send_in_fragments(ws: Any) -> None:
    ws.send_fragments(["one", "two", "three"])
    ws.send_fragments(part for part in (b"one", b"two" * 1000))
    echo(ws)


def break_off_fragments(ws: Any) -> None:
    def parts() -> Any:
        yield "one"
        raise LookupError("no more")

    try:
        ws.send_fragments(parts())
    except LookupError:
        pass
    ws.wait_closed()


def ping(ws: Any) -> None:
    pong = ws.ping(b"are you there")
    waited = pong.wait(PATIENCE)
    ws.send("pong" if waited >= 0 else "no pong")
    # Not answered before the connection ends.
    ws.ping()
    echo(ws)


def give_up_waiting(ws: Any) -> None:
    import gevent

    try:
        ws.receive(timeout=0)
    except TimeoutError:
        ws.send("timeout")
    with gevent.Timeout(0.001, False):
        ws.receive()
    waiting = gevent.spawn(ws.receive)
    gevent.sleep(0)
    waiting.kill()
    ws.send("killed")
    echo(ws)


def discard(ws: Any) -> None:
    ws.discard_messages()
    ws.send("ready")
    ws.wait_closed()


def flood(ws: Any) -> None:
    """Send until the peer, who does not read, is gone."""
    from geventws import ConnectionClosed

    payload = bytes(65536)
    try:
        while True:
            ws.send(payload)
    except ConnectionClosed:
        pass


_room: set[Any] = set()


def join(ws: Any) -> None:
    from geventws import broadcast

    _room.add(ws)
    try:
        for message in ws:
            broadcast(_room, message)
    finally:
        _room.discard(ws)


_kept: list[object] = []


def leak(ws: Any) -> None:
    """What must be found: one object of the smallest size is kept for each connection."""
    _kept.append(float(ws.id))
    echo(ws)


# The client's side

_DEFLATE = b"Sec-WebSocket-Extensions: permessage-deflate\r\n"
_JSON = b'{"number": 1, "text": "the same again, the same again, the same again"}' * 20


def _deflate(payload: bytes) -> bytes:
    squeezer = zlib.compressobj(6, zlib.DEFLATED, -15)
    # RFC 7692 section 7.2.1: the last four octets are taken off.
    return (squeezer.compress(payload) + squeezer.flush(zlib.Z_SYNC_FLUSH))[:-4]


_DEFLATED = _deflate(_JSON)


def talk(peer: Peer) -> None:
    peer.send(frame(0x81, b"hello"), frame(0x82, b"\0\xff" * 100), frame(0x81, b"x" * 1000))
    peer.expect(0x81, b"hello")
    peer.expect(0x82, b"\0\xff" * 100)
    peer.expect(0x81, b"x" * 1000)
    peer.close()


def talk_at_length(peer: Peer) -> None:
    peer.send(frame(0x82, b"\x80" * 200_000), frame(0x81, "\u20ac".encode() * 30_000))
    peer.expect(0x82, b"\x80" * 200_000)
    peer.expect(0x81, "\u20ac".encode() * 30_000)
    peer.close()


def talk_compressed(peer: Peer) -> None:
    for _ in range(2):
        peer.send(frame(0xC1, _DEFLATED))
        first, payload = peer.read_frame()
        if first != 0xC1 or len(payload) > len(_JSON) // 2:
            raise AssertionError(f"{first:#x}, {len(payload)} bytes")
    peer.close()


def cut_compressed(peer: Peer) -> None:
    peer.send(frame(0x41, _DEFLATED[:10]))
    peer.reset()


def send_corrupt(peer: Peer) -> None:
    peer.send(frame(0xC1, b"\xff" * 50))
    peer.read_close(1007)


def talk_in_fragments(peer: Peer) -> None:
    peer.send(frame(0x01, b"one"), frame(0x89, b"between"), frame(0x00), frame(0x80, b"two"))
    peer.expect(0x8A, b"between")
    peer.expect(0x81, b"onetwo")
    peer.send(frame(0x02, b"never complete"))
    peer.close()


def say_and_be_closed(code: int) -> Callable[[Peer], None]:
    def say(peer: Peer) -> None:
        peer.send(frame(0x81, b"now"))
        peer.read_close(code)

    return say


def violate(code: int, *frames: bytes) -> Callable[[Peer], None]:
    def send(peer: Peer) -> None:
        peer.send(*frames)
        peer.read_close(code)

    return send


def be_aborted(peer: Peer) -> None:
    peer.send(frame(0x81, b"now"))
    peer.read_end()


def end_without_close(peer: Peer) -> None:
    peer.send(frame(0x81, b"hello"))
    peer.expect(0x81, b"hello")


def end_in_a_frame(peer: Peer) -> None:
    peer.send(frame(0x82, b"\x80" * 200_000)[:150_000])


def half_close(peer: Peer) -> None:
    """End one direction: what the server has to say still comes, and then it ends too."""
    peer.send(frame(0x81, b"hello"))
    peer.expect(0x81, b"hello")
    peer.socket.shutdown(socket.SHUT_WR)
    peer.read_end()


def answer_nothing(peer: Peer) -> None:
    """No Pong: the server ends that."""
    while (found := peer.read_frame())[0] == 0x89:
        pass
    if found[0] != 0x88 or found[1][:2] != b"\x03\xf3":
        raise AssertionError(f"expected a Close with 1011, got {found!r}")
    peer.read_end()


def reset_in_between(peer: Peer) -> None:
    peer.send(frame(0x81, b"hello") * 5)
    peer.reset()


def read_fragments(peer: Peer) -> None:
    peer.skip_to(0x80, b"")
    peer.skip_to(0x80, b"")
    peer.close()


def answer_ping(peer: Peer) -> None:
    peer.expect(0x89, b"are you there")
    peer.send(frame(0x8A, b"are you there"))
    peer.expect(0x81, b"pong")
    peer.send(frame(0x89, b"and you"))
    peer.skip_to(0x8A, b"and you")
    peer.close()


def be_waited_for(peer: Peer) -> None:
    peer.expect(0x81, b"timeout")
    peer.expect(0x81, b"killed")
    peer.send(frame(0x81, b"hello"))
    peer.expect(0x81, b"hello")
    peer.close()


def be_discarded(peer: Peer) -> None:
    peer.expect(0x81, b"ready")
    peer.send(frame(0x81, b"nobody reads this") * 10)
    peer.close()


def outrun(peer: Peer) -> None:
    peer.send(frame(0x81, b"quick") * 60)
    for _ in range(60):
        peer.expect(0x81, b"quick")
    peer.close()


def read_nothing(peer: Peer) -> None:
    peer.read(1000)
    peer.reset()


def talk_to_all(peer: Peer) -> None:
    # Others may talk in between.
    message = os.urandom(8).hex().encode()
    peer.send(frame(0x81, message))
    peer.skip_to(0x81, message)
    peer.close()


def be_refused(peer: Peer) -> None:
    peer.read_end()


SCENARIOS = {
    "text and binary": Scenario(echo, talk),
    "large messages": Scenario(echo, talk_at_length, every=4),
    "compressed": Scenario(echo, talk_compressed, _DEFLATE),
    "compressed, no context kept": Scenario(
        echo,
        talk_compressed,
        b"Sec-WebSocket-Extensions: permessage-deflate; client_no_context_takeover; "
        b"server_no_context_takeover\r\n",
    ),
    "compressed and cut": Scenario(echo_to_the_last, cut_compressed, _DEFLATE),
    "compressed and corrupt": Scenario(echo_to_the_last, send_corrupt, _DEFLATE),
    "fragments and a ping": Scenario(echo, talk_in_fragments),
    "close from the server": Scenario(close_at_once, say_and_be_closed(4000)),
    "the handler returns": Scenario(return_after_one, say_and_be_closed(1000)),
    "the handler leaves a with": Scenario(leave_with, say_and_be_closed(1000)),
    "the handler raises": Scenario(fail, say_and_be_closed(1011)),
    "abort from the server": Scenario(abort, be_aborted),
    "end without a close": Scenario(echo_to_the_last, end_without_close),
    "half-close": Scenario(echo_to_the_last, half_close),
    "the handler is killed": Scenario(be_killed, say_and_be_closed(1001)),
    "the handler exits": Scenario(exit_, say_and_be_closed(1011)),
    "no Pong": Scenario(echo_to_the_last, answer_nothing, impatient=True, every=10, at_once=32),
    "end in a frame": Scenario(echo_to_the_last, end_in_a_frame, every=4),
    "reset": Scenario(echo_to_the_last, reset_in_between),
    "a frame without a mask": Scenario(echo_to_the_last, violate(1002, frame(0x81, b"x", False))),
    "text that is not UTF-8": Scenario(
        echo_to_the_last, violate(1007, frame(0x01, b"x"), frame(0x80, b"\xff"))
    ),
    "a message too large": Scenario(
        echo_to_the_last, violate(1009, frame(0x02, bytes(200_000)), frame(0x80, bytes(100_000))), every=4
    ),
    "fragments from the server": Scenario(send_in_fragments, read_fragments),
    "fragments broken off": Scenario(break_off_fragments, say_and_be_closed(1011)),
    "a ping from the server": Scenario(ping, answer_ping),
    "waiting given up": Scenario(give_up_waiting, be_waited_for),
    "messages discarded": Scenario(discard, be_discarded),
    "reading paused": Scenario(echo_slowly, outrun),
    "writing blocked": Scenario(flood, read_nothing, every=10),
    "broadcast": Scenario(join, talk_to_all),
    "refused": Scenario(echo, be_refused, b"Sec-WebSocket-Version: 8\r\n", 400),
    "refused origin": Scenario(echo, be_refused, b"Origin: http://elsewhere.example\r\n", 403),
    "TLS": Scenario(echo, talk, tls=True, every=4),
    "TLS, end without a close": Scenario(echo_to_the_last, end_without_close, tls=True, every=4),
    "TLS, reset": Scenario(echo_to_the_last, reset_in_between, tls=True, every=4),
}

PLANTED = {"a planted leak": Scenario(leak, talk)}
