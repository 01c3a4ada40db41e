"""Many greenlets send on one connection, and are killed in the middle of it; a strict peer reads what comes.

Figures: 50 senders with 8 messages each of 1 B to 1 MiB, 400 messages and some 30 MB a variant; 500 kills
and 500 time-outs that reach a waiting `send`, for each variant.
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable
from typing import Any

import gevent
import pytest
from support import DEFLATE, PATIENCE, RawClient, Session, close, opened, pong

from geventws.exceptions import ConnectionClosed
from geventws.websocket import WebSocket

pytestmark = pytest.mark.usefixtures("no_leaks")

VARIANTS = ["plain", "deflate", "deflate-no-context", "tls", "tls-deflate"]


def options_of(variant: str) -> dict[str, Any]:
    return {"tls": variant.startswith("tls"), "deflate": DEFLATE.get(variant.removeprefix("tls-"))}


class Reader:
    """Reads a server's frames, slowly, and keeps the messages. A violation is an AssertionError.

    Attributes:
        messages: the payloads of all messages so far, in order.
        close: the code of the Close frame, or None.
        end: "" while TCP lasts, then "end" or "reset".
    """

    def __init__(self, peer: RawClient, variant: str, rng: random.Random, pause: float) -> None:
        self._peer = peer
        self._rng = rng
        self._pause = pause
        self._compressed = "deflate" in variant
        self._keeps_context = "no-context" not in variant
        self._inflater = zlib.decompressobj(-12)
        self.messages: list[bytes] = []
        self.close: int | None = None
        self.end = ""

    def run(self) -> None:
        """Read to the end of TCP and end it too; answers Pings and the Close."""
        try:
            self._run()
            self.end = "end"
        except ConnectionError:
            self.end = "reset"
        finally:
            self._peer.close()

    def _run(self) -> None:
        first = 0
        parts: list[bytes] = []
        while True:
            if self._rng.random() < 0.1:
                gevent.sleep(0.001 + self._rng.random() * self._pause)
            try:
                head, payload = self._peer.read_frame(self._rng.choice((5000, 65_536, 500_000)))
            except EOFError:
                return
            assert self.close is None, "a frame behind the Close"
            opcode = head & 0x0F
            if opcode >= 8:
                # RFC 6455 section 5.5.
                assert head & 0xF0 == 0x80
                assert len(payload) <= 125
                self._control(opcode, payload)
                continue
            # RFC 6455 section 5.4, RFC 7692 section 6.
            assert (opcode == 0) == (first != 0), "a frame of another message among fragments"
            assert opcode in (0, 1, 2)
            assert not head & 0x40 or (self._compressed and opcode)
            first = first or head
            parts.append(payload)
            if head & 0x80:
                self._keep(first, b"".join(parts))
                first = 0
                parts = []

    def _keep(self, first: int, message: bytes) -> None:
        if first & 0x40:
            message = self._inflater.decompress(message + b"\0\0\xff\xff")
            assert not self._inflater.unconsumed_tail
            if not self._keeps_context:
                self._inflater = zlib.decompressobj(-12)
        if first & 0x0F == 1:
            message.decode()
        self.messages.append(message)

    def _control(self, opcode: int, payload: bytes) -> None:
        assert opcode in (8, 9)
        if opcode == 8:
            self.close = int.from_bytes(payload[:2], "big")
        try:
            self._peer.send(close(1000) if opcode == 8 else pong(payload))
        except OSError:
            pass


def make(sender: int, number: int, rng: random.Random, bits: int = 20) -> str | bytes:
    """A message of 1 B to 2**bits B and a head: it can be told from all others, and told whole."""
    size = int(2 ** (rng.random() * bits))
    body = rng.randbytes(min(size, 2000)).hex()
    body = (body * (size // len(body) + 1))[:size]
    message = f"{sender:04} {number:04} {zlib.crc32(body.encode()):08x} {body}"
    return message if rng.random() < 0.5 else message.encode()


def check(message: bytes) -> tuple[int, int]:
    """Return sender and number of a message that arrived whole."""
    sender, number, checksum, body = message.split(b" ", 3)
    assert int(checksum, 16) == zlib.crc32(body), "a message of parts of others"
    return int(sender), int(number)


@pytest.mark.parametrize("ending", ["all", "close", "abort"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_fifty_senders_at_once(variant: str, ending: str) -> None:
    """Every message arrives whole and each sender's in its order, whatever ends the connection, and when.

    With "all", everything arrives. With "close", a Close is put among them by one more greenlet: what
    arrives of each sender is a beginning of what it sent, then comes the Close and nothing else. With
    "abort", TCP is dropped: likewise, and the last frame may be cut.
    """
    rng = random.Random(f"{variant} {ending}")
    sent: dict[int, int] = dict.fromkeys(range(50), 0)

    def send(ws: WebSocket, sender: int) -> None:
        for number in range(8):
            message = make(sender, number, rng)
            try:
                if number % 4 == 3:
                    third = len(message) // 3
                    ws.send_fragments([message[:third], message[third : 2 * third], message[2 * third :]])
                else:
                    ws.send(message)
            except ConnectionClosed:
                return
            sent[sender] += 1
            if rng.random() < 0.3:
                gevent.sleep(0)

    def ping(ws: WebSocket) -> None:
        for number in range(50):
            try:
                ws.ping(b"%d" % number)
            except ConnectionClosed:
                return
            gevent.sleep(0.001)

    with opened(small=True, write_limit=200_000, close_timeout=20.0, **options_of(variant)) as session:
        reader = Reader(session.peer, variant, rng, 0.002)
        reading = gevent.spawn(reader.run)
        senders = [gevent.spawn(send, session.ws, sender) for sender in range(50)]
        senders.append(gevent.spawn(ping, session.ws))
        if ending != "all":
            while len(reader.messages) < 150:
                gevent.sleep(0.001)
            if ending == "close":
                session.ws.begin_close(1000, "")
            else:
                session.ws.abort()
        gevent.joinall(senders, PATIENCE, raise_error=True)
        if ending == "all":
            assert set(sent.values()) == {8}
            session.ws.close()
        else:
            session.ws.wait_closed(PATIENCE)
        session.peer.socket.settimeout(PATIENCE)
        if ending == "abort":
            # The last frame may be cut: TCP ended in the middle of it.
            reading.join(PATIENCE)
            assert reading.dead
            assert reading.exception is None or "in the middle of a frame" in str(reading.exception)
        else:
            reading.get(timeout=PATIENCE)
        arrived: dict[int, list[int]] = {sender: [] for sender in range(50)}
        for message in reader.messages:
            sender, number = check(message)
            arrived[sender].append(number)
        for sender, numbers in arrived.items():
            assert numbers == list(range(len(numbers)))
            assert len(numbers) <= sent[sender] + (ending != "all")
        if ending == "all":
            assert len(reader.messages) == 400
        if ending == "abort":
            assert reader.close is None
        else:
            assert reader.close == 1000
            assert reader.end == "end"


def kill(victim: gevent.Greenlet) -> None:
    victim.kill(block=False)


def time_out(victim: gevent.Greenlet) -> None:
    victim.kill(gevent.Timeout(), block=False)


@pytest.mark.parametrize("interrupt", [kill, time_out])
@pytest.mark.parametrize("variant", ["plain", "deflate", "tls"])
def test_five_hundred_interruptions_of_send(
    variant: str, interrupt: Callable[[gevent.Greenlet], None]
) -> None:
    """500 kills, or time-outs, that find their greenlet inside `send`, at random moments, to a slow peer.

    No frame is torn and nothing of an interrupted message arrives; the connection serves on, and what
    was not interrupted arrives whole and once.
    """
    rng = random.Random(f"{variant} {interrupt.__name__}")
    completed: set[tuple[int, int]] = set()
    interrupted: set[tuple[int, int]] = set()

    def send(ws: WebSocket, number: int) -> None:
        name = divmod(number, 1000)
        message = make(*name, rng, 16)
        try:
            ws.send(message)
        except (gevent.GreenletExit, gevent.Timeout):
            interrupted.add(name)
            return
        completed.add(name)

    with opened(small=True, write_limit=20_000, **options_of(variant)) as session:
        reader = Reader(session.peer, variant, rng, 0.001)
        reading = gevent.spawn(reader.run)
        running: dict[int, gevent.Greenlet] = {}
        number = 0
        with gevent.Timeout(PATIENCE):
            while len(interrupted) < 500:
                while len(running) < 12:
                    running[number] = gevent.spawn(send, session.ws, number)
                    number += 1
                for _ in range(rng.randrange(8)):
                    gevent.sleep(rng.choice((0, 0, 0.001)))
                for victim in rng.sample(sorted(running), 2):
                    interrupt(running[victim])
                gevent.sleep(0)
                running = {key: one for key, one in running.items() if not one.dead}
        gevent.joinall(list(running.values()), PATIENCE, raise_error=True)
        assert not session.ws.closed
        last = make(9999, 0, rng)
        session.ws.send(last)
        session.ws.close()
        reading.get(timeout=PATIENCE)
        assert reader.end == "end"
        arrived = [check(message) for message in reader.messages]
        assert arrived.pop() == (9999, 0)
        assert len(arrived) == len(set(arrived))
        assert set(arrived) == completed
        assert len(completed) > 50


@pytest.mark.parametrize("variant", ["plain", "deflate", "tls"])
def test_interruptions_of_fragments_leave_whole_frames(variant: str) -> None:
    """60 connections on which `send_fragments` is killed at a random moment, with other senders waiting.

    The peer sees whole frames: either a complete message, or a beginning of one and then a Close with 1011.
    Who waited has sent, or gets ConnectionClosed.
    """
    rng = random.Random(variant)
    seen = {"complete": 0, "closed": 0, "untouched": 0}

    def fragments() -> Any:
        for _ in range(5):
            if rng.random() < 0.7:
                gevent.sleep(0)
            yield bytes(rng.choice((1, 1000, 30_000)))

    def one(session: Session) -> None:
        reader = Reader(session.peer, variant, rng, 0.001)
        reading = gevent.spawn(reader.run)
        victim = gevent.spawn(session.ws.send_fragments, fragments())
        others = [gevent.spawn(session.ws.send, b"x" * 1000) for _ in range(3)]
        for _ in range(rng.randrange(12)):
            gevent.sleep(0)
        victim.kill()
        gevent.joinall(others, PATIENCE)
        for other in others:
            assert other.exception is None or isinstance(other.exception, ConnectionClosed)
        session.ws.close()
        reading.get(timeout=PATIENCE)
        assert reader.end == "end"
        if reader.close == 1011:
            seen["closed"] += 1
        else:
            assert reader.close == 1000
            assert [other.exception for other in others] == [None] * 3
            assert reader.messages.count(b"x" * 1000) == 3
            seen["complete" if len(reader.messages) == 4 else "untouched"] += 1

    for _ in range(60):
        with opened(small=True, write_limit=5000, **options_of(variant)) as session:
            one(session)
    assert seen["complete"] >= 1
    assert seen["closed"] >= 5
