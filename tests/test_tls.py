"""TLS on the same way as plain TCP: records that hold many frames, writes that stop and go on, ends."""

from __future__ import annotations

import contextlib
import os
import random
import ssl
import time
from typing import Any

import gevent
import gevent.ssl
import pytest
from support import (
    PATIENCE,
    LoopCounter,
    RawClient,
    Session,
    binary,
    close,
    make_websocket,
    opened,
    ping,
    serve,
    socket_pair,
    text,
    tls_contexts,
    wait_until,
)

from geventws.exceptions import ConnectionClosedOK
from geventws.turn import READ_SIZE
from geventws.websocket import WebSocket

pytestmark = pytest.mark.usefixtures("no_leaks")


def echo(ws: WebSocket) -> None:
    for message in ws:
        ws.send(message)


def test_an_echo_of_each_size() -> None:
    with opened(echo, tls=True) as session:
        for size in (0, 1, 125, 126, 16_383, 16_384, 16_385, 65_535, 65_536, 200_000, 1024 * 1024):
            message = random.Random(size).randbytes(size)
            sending = gevent.spawn(session.peer.send, binary(message))
            session.peer.expect(0x82, message)
            sending.get(timeout=PATIENCE)


@pytest.mark.parametrize("frames", [2, 100, 2000])
def test_a_record_that_holds_many_frames(frames: int) -> None:
    """One TLS record of 16 KiB at most: what is decrypted and not told of by any watcher is handled too."""
    with opened(echo, tls=True) as session:
        gevent.sleep(0)
        session.peer.send(*[text(f"{number:02}"[:2]) for number in range(frames)])
        for number in range(frames):
            session.peer.expect(0x81, f"{number:02}"[:2].encode())


@pytest.mark.parametrize("max_queue", [1, 16, None])
def test_more_than_one_read_takes(max_queue: int | None) -> None:
    """400,000 bytes of small frames at once: more than a turn reads, and than the queue holds."""
    count = 4 * READ_SIZE // 12
    with opened(tls=True, max_queue=max_queue) as session:
        sending = gevent.spawn(session.peer.send, *[binary(b"%06d" % number) for number in range(count)])
        for number in range(count):
            assert session.ws.receive(PATIENCE) == b"%06d" % number
        sending.get(timeout=PATIENCE)
        session.peer.send(ping(b"end"))
        session.peer.expect(0x8A, b"end")


def test_exactly_one_read() -> None:
    """The bytes fill the buffer to the last: whether more is there is looked up, and nothing is lost."""
    for spare in (-1, 0, 1):
        with opened(echo, tls=True, max_message_size=None) as session:
            message = bytes(READ_SIZE - 14 + spare)
            assert len(binary(message)) == READ_SIZE + spare
            session.peer.send(binary(message))
            session.peer.expect(0x82, message)


def test_a_slow_reader_gets_everything() -> None:
    """40 messages of 1 MiB to a peer that reads in pieces and pauses; senders wait and go on."""
    with opened(tls=True, small=True, write_limit=100_000) as session:

        def send() -> None:
            for number in range(40):
                session.ws.send(bytes([number]) * 1024 * 1024)
                largest.append(session.ws.write_buffer_size)

        largest: list[int] = []
        sending = gevent.spawn(send)
        for number in range(40):
            if number % 10 == 0:
                gevent.sleep(0.01)
            session.peer.expect(0x82, bytes([number]) * 1024 * 1024)
        sending.get(timeout=PATIENCE)
        assert max(largest) <= 100_000 + 1024 * 1024 + 10
        assert session.ws.write_buffer_size == 0


def test_many_small_messages_to_a_slow_reader() -> None:
    """Writes stop at every possible place of records that were joined of many frames; none is torn."""
    with opened(tls=True, small=True, write_limit=50_000) as session:
        rng = random.Random(1)
        messages = [rng.randbytes(rng.choice((0, 1, 10, 200, 5000, 20_000))) for _ in range(2000)]

        def send() -> None:
            for message in messages:
                session.ws.send(message)

        sending = gevent.spawn(send)
        for message in messages:
            if rng.random() < 0.02:
                gevent.sleep(0.001)
            session.peer.expect(0x82, message)
        sending.get(timeout=PATIENCE)


def test_both_ways_at_once() -> None:
    """2 MiB each way while neither side reads at first: reading and writing do not wait for each other."""
    with opened(echo, tls=True, small=True) as session:
        messages = [random.Random(number).randbytes(100_000) for number in range(40)]
        sending = gevent.spawn(session.peer.send, *map(binary, messages))
        gevent.sleep(0.02)
        for message in messages:
            session.peer.expect(0x82, message)
        sending.get(timeout=PATIENCE)


class Endless:
    """A TLS socket in which there is always something decrypted, and nothing else of one."""

    def __init__(self, sock: Any, data: bytes) -> None:
        self._sock = sock
        self._data = data
        self.reads = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)

    def unwrap(self) -> None:
        raise OSError

    def recv_into(self, free: memoryview) -> int:
        self.reads += 1
        free[:] = self._data
        return len(self._data)


def test_the_turns_of_a_peer_that_never_stops_do_not_add_up() -> None:
    """A callback of somebody else waits for one turn of it, however often the loop went round before."""
    theirs, ours = socket_pair()
    # A message that fills each read to the last byte; and a byte for the watcher, which fires every time.
    endless = Endless(theirs, binary(bytes(READ_SIZE - 14)))
    ours.sendall(b"x")
    ws = make_websocket(endless)
    ws.discard_messages()
    try:
        with LoopCounter() as turns:
            wait_until(lambda: turns.count >= 40)
        before = endless.reads
        gevent.sleep(0)
        assert endless.reads - before <= 4
        assert not ws.closed
    finally:
        ws.abort()
        ours.close()


@pytest.mark.parametrize("stalled", ["writing", "reading", "idle"])
def test_nothing_spins_while_the_peer_stalls(stalled: str) -> None:
    """The loop turns for other reasons only: in 0.3 s fewer than ten times, and next to no CPU."""
    with opened(tls=True, small=True, max_queue=1) as session:
        if stalled == "writing":
            session.ws.send(bytes(1024 * 1024))
            assert session.ws.write_buffer_size
        elif stalled == "reading":
            sending = gevent.spawn(session.peer.send, *[binary(bytes(1000))] * 1000)
            wait_until(lambda: session.ws.reading_paused)
        gevent.sleep(0.1)
        cpu = time.process_time()
        with LoopCounter() as turns:
            gevent.sleep(0.3)
            assert turns.count < 10
        # Not of the machine's speed: a loop that spins takes all of the 0.3 s.
        assert time.process_time() - cpu < 0.15
        if stalled == "reading":
            for _ in range(1000):
                session.ws.receive(PATIENCE)
            sending.get(timeout=PATIENCE)


def test_pausing_and_going_on_loses_nothing_that_was_decrypted() -> None:
    """What the TLS object holds when reading is paused is handled when it goes on, though no byte comes."""
    with opened(tls=True, max_queue=1) as session:
        for _ in range(20):
            session.peer.send(*[text("x")] * 1000)
            for _ in range(1000):
                assert session.ws.receive(PATIENCE) == "x"


def test_the_closing_handshake_and_close_notify() -> None:
    """The peer sees a proper end of TLS, not a truncation, and its own is not waited for."""
    with opened(echo, tls=True) as session:
        gevent.sleep(0)
        session.peer.socket.suppress_ragged_eofs = False
        session.peer.send(text("last"), close(1000))
        session.peer.expect(0x81, b"last")
        session.peer.expect_close(1000)
        session.peer.expect_end()
        session.peer.close()
        session.ended()
        assert isinstance(session.ws.close_error, ConnectionClosedOK)


def test_a_close_behind_much_that_waits() -> None:
    """The end of TCP comes behind the last byte: 4 MiB, a Close, close_notify."""
    with opened(tls=True, small=True, write_limit=None) as session:
        session.ws.send(bytes(4 * 1024 * 1024))
        closing = gevent.spawn(session.ws.close)
        session.peer.socket.suppress_ragged_eofs = False
        session.peer.expect(0x82, bytes(4 * 1024 * 1024))
        session.peer.expect_close(1000)
        session.peer.send(close(1000))
        session.peer.expect_end()
        session.peer.close()
        closing.get(timeout=PATIENCE)


def test_a_flood_does_not_destroy_the_close_that_fails_it() -> None:
    with opened(tls=True) as session:
        flooding = gevent.spawn(session.peer.send, binary(bytes(16 * 1024 * 1024)))
        session.peer.expect_close(1009)
        session.peer.expect_end()
        gevent.joinall([flooding], PATIENCE)
        assert flooding.dead


#: A record of application data that nobody has encrypted.
SPOILT = b"\x17\x03\x03\x00\x20" + bytes(32)


def test_bytes_that_are_not_tls() -> None:
    """Someone in between spoils a record: the connection ends, with a reason, and nothing else does."""
    with opened(tls=True) as session, opened(echo, tls=True) as other:
        session.peer.send(text("good"))
        assert session.ws.receive(PATIENCE) == "good"
        os.write(session.peer.socket.fileno(), SPOILT)
        assert session.ws.wait_closed(PATIENCE)
        assert "SSL" in str(session.ws.close_error)
        other.peer.send(text("Hello"))
        other.peer.expect(0x81, b"Hello")


def test_messages_before_spoilt_bytes_are_received() -> None:
    with opened(tls=True) as session:
        session.peer.send(text("good"))
        os.write(session.peer.socket.fileno(), SPOILT)
        assert session.ws.wait_closed(PATIENCE)
        assert session.ws.receive() == "good"


def test_the_peer_ends_tls_without_a_close_frame() -> None:
    with opened(tls=True) as session:
        session.peer.send(text("good"))
        session.peer.socket.settimeout(0.0)
        with contextlib.suppress(OSError):
            # Sends close_notify, and would wait for the other one.
            session.peer.socket.unwrap()
        assert session.ws.wait_closed(PATIENCE)
        assert session.ws.receive() == "good"
        assert session.ws.close_code == 1006


def test_tls_1_2() -> None:
    server, client = tls_contexts()
    context = gevent.ssl.SSLContext(gevent.ssl.PROTOCOL_TLS_CLIENT)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    theirs, ours = socket_pair(small=True)
    theirs.settimeout(PATIENCE)
    serving = gevent.spawn(server.wrap_socket, theirs, server_side=True)
    ours = context.wrap_socket(ours)
    sock = serving.get(timeout=PATIENCE)
    assert sock.version() == "TLSv1.2"
    del client
    session = Session(make_websocket(sock), RawClient(ours), echo)
    try:
        message = random.Random(1).randbytes(1024 * 1024)
        sending = gevent.spawn(session.peer.send, binary(message), close(1000))
        session.peer.expect(0x82, message)
        session.peer.expect_close(1000)
        session.peer.expect_end()
        sending.get(timeout=PATIENCE)
        session.peer.close()
        session.ended()
    finally:
        session.ws.abort()
        session.peer.close()


def test_a_server_of_tls() -> None:
    def handler(ws: Any) -> None:
        ws.send(ws.receive())

    with (
        serve(handler, ssl_context=tls_contexts()[0]) as server,
        RawClient.connect(server.address, tls=True) as client,
    ):
        client.send(text("Hello"))
        client.expect(0x81, b"Hello")
        client.expect_close(1000)
        client.send(close(1000))
        client.expect_end()


def test_early_data_in_the_record_of_the_request() -> None:
    """A client need not wait for the answer to its request before it sends frames."""
    with serve(echo, ssl_context=tls_contexts()[0]) as server:
        sock = gevent.socket.socket()
        sock.settimeout(PATIENCE)
        sock.connect(server.address)
        wrapped = tls_contexts()[1].wrap_socket(sock, server_hostname="localhost")
        request = (
            b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        with RawClient(wrapped) as client:
            client.send(request, *[text("early")] * 1000)
            while b"\r\n\r\n" not in client._buffer:
                assert client._fill()
            del client._buffer[: client._buffer.index(b"\r\n\r\n") + 4]
            for _ in range(1000):
                client.expect(0x81, b"early")
