"""The clients of a soak: made of sockets and a strict parser of their own; they check all that they get."""

from __future__ import annotations

import contextlib
import gc
import random
import re
import socket as std_socket
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import gevent
import gevent.socket
from judge import Outstanding, Senders, Violation, make_message
from streams import exclusive_or
from support import HANDSHAKE, RawClient, close, reset

__all__ = ["LIVES", "Resident", "Talker", "Traffic"]

_IP_BIND_ADDRESS_NO_PORT = 24

_OFFERS = (
    b"",
    b"",
    b"permessage-deflate",
    b"permessage-deflate; client_max_window_bits",
    b"permessage-deflate; server_no_context_takeover; client_no_context_takeover",
    b"permessage-deflate; server_no_context_takeover",
    b"permessage-deflate; server_max_window_bits=10",
)

#: TCP ended in another way than behind two Closes.
_TORN = (ConnectionError, EOFError)


class Talker(RawClient):
    """A client that masks with a key for each frame, compresses where it may, and puts messages together.

    Attributes:
        pongs: payloads of Pongs, in order.
        pings: how many Pings were answered.
        bytes: of messages, received.
    """

    def __init__(self, sock: Any, rng: random.Random) -> None:
        super().__init__(sock)
        self.rng = rng
        self.pongs: list[bytes] = []
        self.pings = 0
        self.bytes = 0
        self._deflater: Any = None
        self._inflater: Any = None
        self._first = 0
        self._parts: list[bytes] = []

    @classmethod
    def open(
        cls,
        port: int,
        path: str,
        rng: random.Random,
        *,
        patience: float,
        tls: Any = None,
        offer: bytes = b"",
        small: bool = False,
    ) -> Talker:
        """Connect and do the opening handshake; `patience`: seconds that anything may take."""
        sock = gevent.socket.socket()
        try:
            sock.settimeout(patience)
            if small:
                sock.setsockopt(std_socket.SOL_SOCKET, std_socket.SO_RCVBUF, 4096)
            # From many addresses: one alone runs out of ports, which rest for a minute after use.
            sock.setsockopt(std_socket.IPPROTO_IP, _IP_BIND_ADDRESS_NO_PORT, 1)
            source = f"127.{rng.randrange(1, 255)}.{rng.randrange(256)}.{rng.randrange(1, 255)}"
            sock.bind((source, 0))
            sock.connect(("127.0.0.1", port))
            sock.setsockopt(std_socket.IPPROTO_TCP, std_socket.TCP_NODELAY, 1)
            if tls is not None:
                sock = tls.wrap_socket(sock, server_hostname="localhost")
            talker = cls(sock, rng)
            header = b"Sec-WebSocket-Extensions: %s\r\n" % offer if offer else b""
            sock.sendall(HANDSHAKE % (path.encode(), header))
            while b"\r\n\r\n" not in talker._buffer:
                if not talker._fill():
                    raise EOFError(f"the server ended TCP after {bytes(talker._buffer)!r}")
            head, _, rest = bytes(talker._buffer).partition(b"\r\n\r\n")
            if not head.startswith(b"HTTP/1.1 101 "):
                raise Violation(f"refused: {head[:200]!r}")
            talker._buffer = bytearray(rest)
            talker._agree(head.lower(), bool(offer))
        except BaseException:
            sock.close()
            raise
        return talker

    def _agree(self, head: bytes, offered: bool) -> None:
        if b"permessage-deflate" not in head:
            return
        if not offered:
            raise Violation("the server compresses, and nobody offered it")
        bits = [
            int(found.group(1)) if (found := re.search(name + rb"_max_window_bits=(\d+)", head)) else 15
            for name in (b"client", b"server")
        ]
        self._client_bits, self._server_bits = bits
        self._client_keeps = b"client_no_context_takeover" not in head
        self._server_keeps = b"server_no_context_takeover" not in head
        self._deflater = zlib.compressobj(6, zlib.DEFLATED, -self._client_bits)
        self._inflater = zlib.decompressobj(-self._server_bits)

    def send_frame(self, first: int, payload: bytes) -> None:
        """Send one frame, masked with a random key."""
        key = self.rng.randbytes(4)
        size = len(payload)
        if size < 126:
            length = bytes((0x80 | size,))
        elif size < 65536:
            length = b"\xfe" + size.to_bytes(2, "big")
        else:
            length = b"\xff" + size.to_bytes(8, "big")
        self.send(bytes((first,)) + length + key + exclusive_or(payload, key))

    def send_message(self, opcode: int, message: bytes) -> None:
        """Send a message: whole or in fragments with Pings between, compressed or not."""
        rng = self.rng
        if self._deflater is not None and rng.random() < 0.8:
            opcode |= 0x40
            message = (self._deflater.compress(message) + self._deflater.flush(zlib.Z_SYNC_FLUSH))[:-4]
            if not self._client_keeps:
                self._deflater = zlib.compressobj(6, zlib.DEFLATED, -self._client_bits)
        if rng.random() < 0.7:
            self.send_frame(0x80 | opcode, message)
            return
        cuts = sorted(rng.randint(0, len(message)) for _ in range(rng.choice((1, 2, 5))))
        parts = [message[a:b] for a, b in zip([0, *cuts], [*cuts, len(message)], strict=True)]
        for index, part in enumerate(parts):
            last = index == len(parts) - 1
            self.send_frame((0x80 if last else 0) | (0 if index else opcode), part)
            if rng.random() < 0.2 and not last:
                self.send_frame(0x89, b"between")

    def read_message(self) -> tuple[int, bytes]:
        """Read up to the end of a message, or a Close (8, its payload); answers Pings meanwhile."""
        while True:
            head, payload = self.read_frame()
            opcode = head & 0x0F
            if opcode >= 8:
                if head & 0xF0 != 0x80 or len(payload) > 125 or opcode > 10:
                    raise Violation(f"a control frame {head:#x} of {len(payload)} bytes")
                if opcode == 8:
                    return 8, payload
                if opcode == 9:
                    self.pings += 1
                    self.send_frame(0x8A, payload)
                else:
                    self.pongs.append(payload)
                continue
            if (opcode == 0) != (self._first != 0) or opcode > 2:
                raise Violation(f"a frame {head:#x} behind one that began with {self._first:#x}")
            if head & 0x40 and (self._inflater is None or not opcode):
                raise Violation("RSV1 where nothing is compressed")
            self._first = self._first or head
            self._parts.append(payload)
            if not head & 0x80:
                continue
            message = b"".join(self._parts)
            self._parts = []
            if self._first & 0x40:
                message = self._inflater.decompress(message + b"\0\0\xff\xff")
                if not self._server_keeps:
                    self._inflater = zlib.decompressobj(-self._server_bits)
            opcode, self._first = self._first & 0x0F, 0
            self.bytes += len(message)
            return opcode, message

    def read_close(self, code: int) -> None:
        """The next thing must be a Close with this code; answer it, and read the end of TCP."""
        opcode, payload = self.read_message()
        if opcode != 8 or int.from_bytes(payload[:2], "big") != code:
            raise Violation(f"awaited a Close with {code}, got {opcode} {payload[:60]!r}")
        self.send_frame(0x88, payload[:2])
        self.read_end()

    def read_end(self) -> None:
        """TCP must end now, without another byte."""
        try:
            head, payload = self.read_frame()
        except EOFError:
            return
        raise Violation(f"a frame {head:#x} {payload[:60]!r} behind the Close")

    def end_well(self) -> None:
        """Begin the closing handshake, and read to the end of TCP."""
        self.send_frame(0x88, b"\x03\xe8")
        while True:
            opcode, payload = self.read_message()
            if opcode == 8:
                break
        if payload[:2] != b"\x03\xe8":
            raise Violation(f"closed with {payload!r}")
        self.read_end()


class Traffic:
    """What all clients of a soak share.

    Attributes:
        ports: of the plain server, and of the one with TLS.
        patience: seconds that a client waits for anything.
        patient: there is time for lives that take half a minute.
        running: clients go on while it is true.
        violations: what was found, the first ones.
        ended: how many connections ended, by life.
        messages, bytes: that came back or arrived, and were checked.
    """

    def __init__(self, ports: list[int], context: Any, seed: int, *, patience: float, patient: bool) -> None:
        self.ports = ports
        self.patience = patience
        self.patient = patient
        self.running = True
        self.violations: list[str] = []
        self.found = 0
        self.ended: dict[str, int] = {}
        self.messages = 0
        self.bytes = 0
        self._numbers = 0
        self._long = 0
        self._context = context
        self._seed = seed

    def rng(self) -> random.Random:
        """A generator of its own for each connection, from the seed."""
        return random.Random(f"{self._seed} {self.number()}")

    def number(self) -> int:
        """A number that nobody else has."""
        self._numbers += 1
        return self._numbers

    def open(self, path: str, rng: random.Random, **options: Any) -> Talker:
        """Connect, with TLS or without, compressed or not."""
        tls = rng.random() < 0.3
        return Talker.open(
            self.ports[tls],
            path,
            rng,
            patience=self.patience,
            tls=self._context if tls else None,
            offer=rng.choice(_OFFERS),
            **options,
        )

    @contextlib.contextmanager
    def noted(self, life: str) -> Iterator[None]:
        """Count a life, and note what was wrong in it."""
        try:
            yield
        except (Violation, AssertionError) as error:
            self.note(f"{life}: {error}")
        except (OSError, EOFError, zlib.error) as error:
            self.note(f"{life}: {type(error).__name__}: {error}")
        self.ended[life] = self.ended.get(life, 0) + 1

    def note(self, what: str) -> None:
        """Keep a violation."""
        self.found += 1
        if len(self.violations) < 20:
            self.violations.append(what)

    def churn(self) -> None:
        """Live one life after the other, until it is over."""
        while self.running:
            rng = self.rng()
            (life,) = rng.choices([*LIVES], [weight for _, weight in LIVES.values()])
            if life in LONG:
                if self._long >= MOST_LONG or (life == "silent" and not self.patient):
                    continue
                self._long += 1
            try:
                with self.noted(life):
                    LIVES[life][0](self, rng)
            finally:
                self._long -= life in LONG
            gevent.sleep(rng.random() * 0.05)


def _message(rng: random.Random, sender: int, number: int, bits: float = 15) -> tuple[int, bytes]:
    """A message with its opcode: some letters up to 2**bits, rarely half a megabyte."""
    size = 500_000 if rng.random() < 0.002 and bits > 14 else int(2 ** rng.uniform(0, bits))
    piece = rng.randbytes(min(size, 3000))
    if rng.random() < 0.5:
        return 1, make_message(sender, number, (piece.hex().encode() * (size // len(piece) + 1))[:size])
    return 2, make_message(sender, number, (piece * (size // len(piece) + 1))[:size])


def talk(traffic: Traffic, talker: Talker, count: int, start: int = 0) -> None:
    """Send messages, a few ahead of what comes back, and check what does."""
    rng, outstanding = talker.rng, Outstanding()
    window = rng.choice((1, 1, 4, 12))
    for number in range(start, start + count):
        opcode, message = _message(rng, 0, number)
        outstanding.sent(opcode, message)
        talker.send_message(opcode, message)
        while len(outstanding.waiting) >= window:
            _take(traffic, talker, outstanding)
        if rng.random() < 0.5:
            gevent.sleep(rng.random() * 0.05)
    while outstanding.waiting:
        _take(traffic, talker, outstanding)


def _take(traffic: Traffic, talker: Talker, outstanding: Outstanding) -> None:
    opcode, message = talker.read_message()
    if opcode == 8:
        raise Violation(f"closed with {message!r}, {len(outstanding.waiting)} messages had not come back")
    outstanding.came(opcode, message)
    traffic.messages += 1
    traffic.bytes += len(message)


# The lives of connections


def _echo_then(end: Callable[[Talker], None], path: str = "/echo", most: int = 30) -> Callable[..., None]:
    def life(traffic: Traffic, rng: random.Random) -> None:
        with traffic.open(path, rng, small=rng.random() < 0.1) as talker:
            talk(traffic, talker, rng.randrange(1, most))
            end(talker)

    return life


def _reset_under_way(talker: Talker) -> None:
    for number in range(5):
        talker.send_message(*_message(talker.rng, 1, number))
    reset(talker.socket)


def _cut_in_a_frame(talker: Talker) -> None:
    talker.send(b"\x82\xfe\x20\x00" + talker.rng.randbytes(talker.rng.randrange(1, 5000)))
    talker.close()


def _half_close(talker: Talker) -> None:
    # The whole of a TLS connection ends at once; of a plain one the answers still come.
    gevent.socket.socket.shutdown(talker.socket, std_socket.SHUT_WR)
    with contextlib.suppress(*_TORN, OSError):
        while talker.read_message()[0] != 8:
            pass


def _violate(code: int, *frames: bytes) -> Callable[[Talker], None]:
    def end(talker: Talker) -> None:
        talker.send(*frames)
        opcode, payload = talker.read_message()
        if opcode != 8 or int.from_bytes(payload[:2], "big") != code:
            raise Violation(f"awaited a Close with {code}, got {opcode} {payload[:60]!r}")
        with contextlib.suppress(ConnectionError):
            talker.send(close(code))
            talker.read_end()

    return end


def _be_closed(traffic: Traffic, rng: random.Random) -> None:
    count = rng.randrange(1, 20)
    with traffic.open(f"/close/{count}", rng) as talker:
        talk(traffic, talker, count)
        talker.read_close(4000)


def _feed(traffic: Traffic, rng: random.Random) -> None:
    count = rng.randrange(1, 20)
    with traffic.open(f"/feed/{count}", rng, small=rng.random() < 0.2) as talker:
        senders = Senders(from_start=True)
        while True:
            opcode, message = talker.read_message()
            if opcode == 8:
                break
            senders.came(message)
            traffic.messages += 1
            traffic.bytes += len(message)
        if message[:2] != b"\x03\xe8" or senders.next != dict.fromkeys(range(3), count):
            raise Violation(f"closed with {message!r} behind {senders.next} of {count} messages")
        talker.send_frame(0x88, message)
        talker.read_end()


def _join(traffic: Traffic, rng: random.Random) -> None:
    """Be in a room: say so many things, hear all of one's own and a row of every other's."""
    name, me = rng.randrange(3), traffic.number()
    with traffic.open(f"/room/{name}", rng) as talker:
        count, senders = rng.randrange(3, 15), Senders(from_start=False)

        def say() -> None:
            with contextlib.suppress(*_TORN):
                for number in range(count):
                    talker.send_message(1, make_message(me, number, rng.randbytes(300).hex().encode()))
                    gevent.sleep(rng.random() * 0.2)

        saying = gevent.spawn(say)
        try:
            while senders.next.get(me, 0) < count:
                opcode, message = talker.read_message()
                if opcode == 8:
                    raise Violation(f"put out of the room with {message!r}")
                senders.came(message)
                traffic.messages += 1
                traffic.bytes += len(message)
            talker.end_well()
        finally:
            saying.kill()


def _outrun_oneself(traffic: Traffic, rng: random.Random) -> None:
    """Be alone in a room, say much and read nothing, until one is put out for being slow."""
    number = traffic.number()
    with traffic.open(f"/room/slow-{number}", rng, small=True) as talker:
        senders = Senders(from_start=True)
        try:
            with contextlib.suppress(*_TORN):
                for index in range(300):
                    talker.send_message(2, make_message(number, index, rng.randbytes(60_000)))
            while True:
                opcode, message = talker.read_message()
                if opcode == 8:
                    break
                senders.came(message)
        except _TORN:
            return
        except AssertionError as error:
            # Cut where it stood.
            if "in the middle of a frame" in str(error):
                return
            raise
        if message[:2] != b"\x03\xf5":
            raise Violation(f"awaited a Close with 1013, got {message[:60]!r}")


def _say_nothing(traffic: Traffic, rng: random.Random) -> None:
    """Answer no Ping, and be ended for that."""
    with traffic.open("/echo", rng) as talker:
        while (frame := talker.read_frame())[0] != 0x88:
            if frame[0] != 0x89:
                raise Violation(f"awaited Pings, got {frame!r}")
        if frame[1][:2] != b"\x03\xf3":
            raise Violation(f"awaited a Close with 1011, got {frame!r}")


def _be_aborted(traffic: Traffic, rng: random.Random) -> None:
    with traffic.open("/abort", rng) as talker:
        opcode, message = _message(rng, 0, 0)
        with contextlib.suppress(*_TORN):
            talker.send_message(opcode, message)
            if talker.read_message() != (opcode, message):
                raise Violation("not what was sent came back")
            found, payload = talker.read_message()
            raise Violation(f"awaited the end of TCP, got {found} {payload[:60]!r}")


def _end_in_the_handshake(traffic: Traffic, rng: random.Random) -> None:
    with contextlib.closing(gevent.socket.socket()) as sock:
        sock.settimeout(traffic.patience)
        sock.connect(("127.0.0.1", traffic.ports[rng.random() < 0.5]))
        request = HANDSHAKE % (b"/echo", b"")
        sock.sendall(request[: rng.randrange(len(request))])
        if rng.random() < 0.5:
            reset(sock)


def _be_refused(traffic: Traffic, rng: random.Random) -> None:
    with contextlib.closing(gevent.socket.socket()) as sock:
        sock.settimeout(traffic.patience)
        sock.connect(("127.0.0.1", traffic.ports[0]))
        sock.sendall(HANDSHAKE % (b"/nowhere", b""))
        data = b""
        while more := sock.recv(65536):
            data += more
        if not data.startswith(b"HTTP/1.1 404 "):
            raise Violation(f"answered {data[:100]!r}")


#: What a connection does, and how often that is chosen.
LIVES: dict[str, tuple[Callable[[Traffic, random.Random], None], int]] = {
    "closed by the client": (_echo_then(Talker.end_well), 20),
    "closed by the server": (_be_closed, 10),
    "three senders at once": (_feed, 10),
    "in a room": (_join, 20),
    "too slow for a room": (_outrun_oneself, 1),
    "silent": (_say_nothing, 1),
    "Pings of the server": (_echo_then(Talker.end_well, "/ping"), 5),
    "reset with messages under way": (_echo_then(_reset_under_way), 5),
    "cut in a frame": (_echo_then(_cut_in_a_frame), 5),
    "end without a Close": (_echo_then(Talker.close), 5),
    "half-closed": (_echo_then(_half_close), 5),
    "the handler raises": (_echo_then(lambda talker: talker.read_close(1011), "/fail", 2), 2),
    "the handler is killed": (_echo_then(lambda talker: talker.read_close(1001), "/kill", 2), 2),
    "aborted by the server": (_be_aborted, 2),
    "a frame without a mask": (_echo_then(_violate(1002, b"\x81\x01x")), 2),
    "text that is not UTF-8": (_echo_then(_violate(1007, b"\x81\x81\0\0\0\0\xff")), 2),
    "a message too large": (_echo_then(_violate(1009, b"\x82\xff\0\0\0\0\x7f\0\0\0\0\0\0\0")), 2),
    "ended in the handshake": (_end_in_the_handshake, 3),
    "refused": (_be_refused, 2),
}

#: Lives that wait for a time-out of the server's, and how many clients may do so at a time.
LONG = ("silent", "too slow for a room")
MOST_LONG = 8


class Resident:
    """A connection that lasts as long as the soak, and is idle in its rests.

    Args:
        traffic: its soak.
        tls, offer: how it connects.
    """

    def __init__(self, traffic: Traffic, *, tls: Any, offer: bytes) -> None:
        self._traffic = traffic
        self._talker = Talker.open(
            traffic.ports[tls is not None],
            "/echo",
            traffic.rng(),
            patience=traffic.patience,
            tls=tls,
            offer=offer,
        )
        self._number = 0
        self._answering: Any = None

    def talk(self) -> None:
        """Send and check until the soak rests."""
        self._stop_answering()
        with self._traffic.noted("resident, rounds"):
            while self._traffic.running:
                talk(self._traffic, self._talker, 5, self._number)
                self._number += 5
                del self._talker.pongs[:]
        # Others may take longer than `ping_timeout` to come to their end.
        self.rest()

    def rest(self) -> None:
        """Answer Pings only."""
        if self._answering is None:
            self._answering = gevent.spawn(self._answer)

    def _answer(self) -> None:
        try:
            opcode, payload = self._talker.read_message()
        except (EOFError, OSError) as error:
            self._traffic.note(f"resident: {error!r} in a rest")
        else:
            self._traffic.note(f"resident: {opcode} {payload[:60]!r} came in a rest")

    def _stop_answering(self) -> None:
        if self._answering is not None:
            # In the middle of reading: what has come stays in the buffer.
            self._answering.kill()
            self._answering = None

    def end(self) -> None:
        """Close."""
        self._stop_answering()
        with self._traffic.noted("resident"):
            self._talker.end_well()
        self._talker.close()
        gc.collect()
