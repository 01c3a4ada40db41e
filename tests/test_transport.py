"""The wire of one connection, without greenlets: bytes, watchers, timers and ends."""

from __future__ import annotations

import contextlib
import logging
import random
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import gevent
import pytest
from streams import encode
from support import (
    LoopCounter,
    RawClient,
    binary,
    close,
    opened,
    ping,
    pong,
    socket_pair,
    text,
    wait_until,
)

from geventws.protocol.closing import Phase
from geventws.protocol.connection import Connection, Event
from geventws.receiver import Receiver
from geventws.transport import LINGER_BYTES, Transport
from geventws.turn import READ_SIZE

pytestmark = pytest.mark.usefixtures("no_leaks")


class Recorder(Receiver):
    """Takes all events at once; echoes messages. Ends TCP behind a closing handshake."""

    def __init__(self, core: Connection) -> None:
        self.core = core
        self.transport: Any = None
        self.messages: list[Any] = []
        self.inputs = 0
        self.drained = 0
        self.ends: list[str] = []
        self.errors: list[BaseException] = []
        self.on_message: Callable[[], None] = lambda: None
        self.on_drained: Callable[[], None] = lambda: None

    def handle_input(self) -> None:
        assert self.transport.corked
        self.inputs += 1
        terminal = False
        while event := self.core.next_event():
            if event == Event.MESSAGE:
                self.messages.append(self.core.message)
                if self.core.phase == Phase.OPEN:
                    self.core.send(self.core.message)
                self.on_message()
            terminal = terminal or event in (Event.CLOSE, Event.FAILED)
        if terminal:
            self.core.next_event()
            self.transport.finish(5.0)

    def handle_drained(self) -> None:
        self.drained += 1
        self.on_drained()

    def handle_end(self, detail: str) -> None:
        self.ends.append(detail)
        self.core.receive_end()

    def handle_error(self, error: BaseException) -> None:
        self.errors.append(error)


class Link:
    """A transport, what it tells, and the peer."""

    def __init__(self, small: bool, write_timeout: float | None, **core: Any) -> None:
        self.socket, ours = socket_pair(small)
        self.peer = RawClient(ours)
        self.core = Connection(**core)
        self.receiver = Recorder(self.core)
        self.transport = Transport(self.socket, self.core, self.receiver, gevent.get_hub(), write_timeout)
        self.receiver.transport = self.transport

    def write(self, data: bytes) -> None:
        """Write bytes that stand for frames."""
        self.core.out.append(data)
        self.core.out_size += len(data)
        self.transport.flush()


@contextlib.contextmanager
def linked(small: bool = False, write_timeout: float | None = 10.0, **core: Any) -> Iterator[Link]:
    link = Link(small, write_timeout, **core)
    try:
        link.transport.start(b"")
        yield link
    finally:
        link.transport.end("")
        link.peer.close()


def test_input_reaches_the_protocol_and_answers_the_peer() -> None:
    with linked() as link:
        link.peer.send(text("Hello"))
        link.peer.expect(0x81, b"Hello")
        assert link.receiver.messages == ["Hello"]
        assert link.transport.bytes_received == len(text("Hello"))
        assert link.transport.bytes_sent == 7
        assert not link.transport.corked


def test_early_data_is_handled_first() -> None:
    link = Link(False, None)
    try:
        link.peer.send(text("second"))
        link.transport.start(text("first"))
        link.peer.expect(0x81, b"first")
        link.peer.expect(0x81, b"second")
    finally:
        link.transport.end("")
        link.peer.close()


def test_early_data_may_be_a_part_of_a_frame() -> None:
    link = Link(False, None)
    try:
        link.transport.start(text("Hello")[:3])
        link.peer.send(text("Hello")[3:])
        link.peer.expect(0x81, b"Hello")
    finally:
        link.transport.end("")
        link.peer.close()


def test_frames_of_one_segment_are_answered_in_one_segment() -> None:
    """The answers to 200 frames arrive all at once: after the first wait, a single recv has them."""
    with linked() as link:
        link.peer.send(*[text(f"{number:04}") for number in range(200)])
        answers = link.peer.socket.recv(100_000)
        assert answers == b"".join(b"\x81\x04%04d" % number for number in range(200))


@pytest.mark.parametrize(("frames", "chunks"), [(16, 16), (300, 35)])
def test_answers_leave_in_one_system_call(
    pure_only: None, monkeypatch: pytest.MonkeyPatch, frames: int, chunks: int
) -> None:
    """Frames in one segment: one receive, one send; behind 32 of them the answers are joined."""
    import geventws.transport

    calls = []
    send_chunks = geventws.transport.send_chunks

    def count(descriptor: int, chunks: list[bytes], offset: int, last: bool) -> int:
        calls.append(len(chunks))
        return send_chunks(descriptor, chunks, offset, last)

    monkeypatch.setattr(geventws.transport, "send_chunks", count)
    with linked() as link:
        link.peer.send(*[text("Hello")] * frames)
        for _ in range(frames):
            link.peer.expect(0x81, b"Hello")
    assert calls == [chunks]


def test_a_peer_that_reads_fast_gets_a_share_of_each_turn(
    pure_only: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    import geventws.transport

    share = geventws.transport._MOST_WRITTEN
    monkeypatch.setattr(
        geventws.transport,
        "send_chunks",
        lambda _, chunks, offset, last: min(64 * 1024, sum(map(len, chunks)) - offset),
    )
    with opened(write_limit=4 * share) as session:
        session.ws.send(bytes(2 * share))
        left = session.ws.write_buffer_size
        assert share - 256 * 1024 < left <= share + 14
        wait_until(lambda: session.ws.write_buffer_size < left)
        wait_until(lambda: session.ws.write_buffer_size == 0)


def test_a_turn_reads_a_bounded_part_of_a_flood() -> None:
    """Each turn of the loop reads from one connection 1.5 MiB at most, and that only of a large payload."""
    size = 8 * 1024 * 1024
    with linked(max_message_size=None) as link, LoopCounter() as turns:
        sending = gevent.spawn(link.peer.send, binary(bytes(size)))
        wait_until(lambda: link.receiver.messages)
        sending.get(timeout=10)
        assert turns.count >= 5
    with linked() as link, LoopCounter() as turns:
        sending = gevent.spawn(link.peer.send, *[text("x" * 1000)] * 1000)
        wait_until(lambda: len(link.receiver.messages) == 1000)
        sending.get(timeout=10)
        # What is small is read once a turn, READ_SIZE at most.
        assert 1_000_000 // READ_SIZE <= link.receiver.inputs <= turns.count + 1


@pytest.mark.parametrize("size", [4095, 4096, 65_535, 65_536, 300_000, 3_000_000])
def test_large_messages_one_after_the_other(size: int) -> None:
    """Their payloads are received to where they stay, and what is behind them is not lost."""
    octets = random.Random(size).randbytes(size)
    letters = "".join(map(chr, random.Random(size).choices(range(32, 127), k=size)))
    greek = "κόσμε" * (size // 10) + "x" * (size % 10)
    with linked(max_message_size=None) as link:
        sending = gevent.spawn(
            link.peer.send,
            encode(0x82, octets, b"\x37\xfa\x21\x3d"),
            text("between"),
            encode(0x81, letters.encode(), b"\x37\xfa\x21\x3d"),
            binary(octets),
            text(greek),
            ping(b"p"),
        )
        for expected in (octets, b"between", letters.encode(), octets, greek.encode()):
            assert link.peer.read_frame()[1] == expected
        link.peer.expect(0x8A, b"p")
        sending.get(timeout=10)
        assert link.receiver.messages == [octets, "between", letters, octets, greek]


def test_text_that_is_not_utf8_fails_a_large_frame_before_its_end() -> None:
    with linked() as link:
        frame = binary(b"a" * 50_000 + b"\xff" + b"a" * 50_000)
        link.peer.send(b"\x81" + frame[1:60_000])
        link.peer.expect_close(1007)


def test_a_paused_transport_reads_nothing_until_it_goes_on() -> None:
    with linked() as link, LoopCounter() as turns:
        link.transport.pause()
        assert link.transport.paused
        link.peer.send(text("Hello"))
        wait_until(lambda: turns.count > 5)
        assert link.receiver.messages == []
        link.transport.resume()
        assert not link.transport.paused
        link.peer.expect(0x81, b"Hello")


def test_a_paused_transport_makes_the_peer_wait() -> None:
    """The peer of a paused transport gets rid of what the system's buffers hold, and no more."""
    with linked(small=True) as link:
        link.transport.pause()
        link.peer.socket.settimeout(0)
        sent = 0
        with contextlib.suppress(BlockingIOError):
            while True:
                sent += link.peer.socket.send(bytes(4096))
        assert 0 < sent < 4 * 1024 * 1024
        assert link.transport.bytes_received == 0


def test_pausing_in_the_middle_of_input() -> None:
    with linked() as link:
        link.receiver.on_message = link.transport.pause
        link.peer.send(text("1"), text("2"))
        link.peer.expect(0x81, b"1")
        link.peer.expect(0x81, b"2")
        link.peer.send(text("3"))
        gevent.sleep(0)
        assert link.receiver.messages == ["1", "2"]
        link.receiver.on_message = lambda: None
        link.transport.resume()
        link.peer.expect(0x81, b"3")


def test_what_the_socket_does_not_take_is_written_later_in_order() -> None:
    with linked(small=True) as link:
        for number in range(64):
            link.write(bytes([number]) * 65536)
        assert link.transport.blocked
        assert 0 < link.core.out_size < 64 * 65536
        left = b"".join(link.core.out)
        assert len(left) >= link.core.out_size
        received = link.peer.read_bytes(64 * 65536)
        assert received == b"".join(bytes([number]) * 65536 for number in range(64))
        wait_until(lambda: not link.transport.blocked)
        assert link.core.out == []
        assert link.core.out_size == 0
        assert link.receiver.drained
        assert link.transport.bytes_sent == 64 * 65536


def test_a_stalled_write_does_not_spin() -> None:
    """While the peer takes nothing, no watcher calls back: turns of the loop have other reasons."""
    with linked(small=True) as link:
        link.write(bytes(4 * 1024 * 1024))
        wait_until(lambda: link.transport.blocked)
        gevent.sleep(0.1)  # the system may still move some from one of its buffers to the other
        before = link.receiver.drained
        with LoopCounter() as turns:
            gevent.sleep(0.3)
            assert turns.count < 10
        assert link.receiver.drained - before < 3


def test_a_write_without_progress_ends_the_connection() -> None:
    with linked(small=True, write_timeout=0.1) as link:
        link.write(bytes(4 * 1024 * 1024))
        wait_until(lambda: link.receiver.ends)
        assert link.receiver.ends == ["a write made no progress for 0.1 seconds (write_timeout)"]
        assert link.transport.write_timed_out
        assert link.transport.ended


def test_a_write_with_progress_goes_on() -> None:
    """A peer that takes something more often than write_timeout may take as long as it likes."""
    with linked(small=True, write_timeout=0.4) as link:
        link.write(bytes(1024 * 1024))
        assert link.transport.blocked
        for _ in range(64):
            gevent.sleep(0.01)  # in sum longer than the limit
            link.peer.read_bytes(16 * 1024)
        assert link.receiver.ends == []
        assert not link.transport.write_timed_out


def test_a_held_up_loop_is_no_fault_of_the_peer() -> None:
    """The loop stands still for longer than write_timeout while the peer reads: the write goes on."""
    with linked(small=True, write_timeout=0.2) as link:
        link.write(bytes(1024 * 1024))
        assert link.transport.blocked
        # Not gevent's sleep: this holds up everything, as a handler that computes does.
        time.sleep(0.3)
        link.peer.socket._sock.recv(256 * 1024)
        time.sleep(0.1)
        gevent.sleep(0.01)
        assert link.receiver.ends == []


def test_without_a_write_timeout_a_stalled_write_waits() -> None:
    with linked(small=True, write_timeout=None) as link:
        link.write(bytes(4 * 1024 * 1024))
        gevent.sleep(0.05)
        assert link.transport.blocked
        assert link.receiver.ends == []


def test_the_end_of_tcp_without_a_close() -> None:
    with linked() as link:
        link.peer.close()
        wait_until(lambda: link.receiver.ends)
        assert link.receiver.ends == ["the peer ended TCP without a Close frame"]
        assert link.transport.ended


def test_a_reset() -> None:
    with linked() as link:
        link.peer.reset()
        wait_until(lambda: link.receiver.ends)
        assert link.receiver.ends == ["the peer reset TCP"]


def test_a_reset_right_behind_data() -> None:
    """The loop learns of both at once, and nothing is answered: the reset is not forgotten over the data."""
    with linked() as link:
        link.peer.send(pong(b"nobody asked"))
        link.peer.reset()
        wait_until(lambda: link.receiver.ends)
        assert link.receiver.ends == ["the peer reset TCP"]
        assert link.transport.bytes_received == 18


def test_a_write_to_a_peer_that_is_gone() -> None:
    with linked() as link:
        link.transport.pause()
        link.peer.reset()
        link.write(b"\x81\x00")
        link.write(b"\x81\x00")
        wait_until(lambda: link.receiver.ends)
        assert link.receiver.ends in (["the peer reset TCP"], ["the peer ended TCP"])
        assert link.transport.ended


def test_what_came_before_a_failed_write_is_still_received() -> None:
    """The peer says its last words, closes and is gone; our write fails; its words count all the same."""
    with linked() as link:
        link.peer.send(text("last words"), close(1001, b"bye"))
        link.peer.reset()
        link.write(b"\x81\x00")
        link.write(b"\x81\x00")
        wait_until(lambda: link.receiver.ends)
        assert link.receiver.messages == ["last words"]
        assert link.core.close_received.code == 1001


def test_after_the_end_nothing_is_written_or_told() -> None:
    with linked() as link:
        link.transport.end("enough")
        link.transport.end("again")
        link.write(b"\x81\x00")
        link.transport.resume()
        link.transport.finish(1.0)
        link.transport.set_close_deadline(0.001)
        link.transport.take()
        gevent.sleep(0.01)
        assert link.receiver.ends == ["enough"]
        assert link.receiver.inputs <= 1
        link.peer.expect_end()


def test_the_closing_handshake_ends_tcp_in_order() -> None:
    with linked() as link:
        link.peer.send(text("last"), close(1000))
        link.peer.expect(0x81, b"last")
        link.peer.expect_close(1000)
        link.peer.expect_end()
        # Nothing comes behind a Close, so there is nothing to wait for.
        wait_until(lambda: link.receiver.ends)
        assert link.receiver.ends == [""]


def test_the_end_comes_behind_the_last_byte() -> None:
    """8 MiB wait when TCP is to be ended: a slow peer reads all of it and then the end, no reset."""
    size = 8 * 1024 * 1024
    with linked(small=True) as link:
        link.write(bytes(size))
        link.transport.finish(60.0)
        received = 0
        while data := link.peer.socket.recv(100_000):
            received += len(data)
        assert received == size


def test_a_half_closed_peer_gets_all_that_was_written() -> None:
    """RFC 9293: who has ended its own side may still read. 4 MiB wait when the peer's end comes."""
    size = 4 * 1024 * 1024
    with linked(small=True) as link:
        link.write(bytes(size))
        assert link.transport.blocked
        link.peer.send(close(1000))
        link.peer.socket.shutdown(socket.SHUT_WR)
        received = 0
        while data := link.peer.socket.recv(100_000):
            received += len(data)
        assert received == size + len(b"\x88\x02\x03\xe8")
        wait_until(lambda: link.receiver.ends)
        assert link.receiver.ends == [""]


def test_what_comes_behind_our_end_does_not_destroy_our_last_bytes() -> None:
    """The peer sends 8 MiB without looking; the Close that fails the connection arrives all the same."""
    with linked(max_message_size=1000) as link:
        sending = gevent.spawn(link.peer.send, binary(bytes(8 * 1024 * 1024)))
        assert "max_message_size" in link.peer.expect_close(1009)
        link.peer.expect_end()
        sending.get(timeout=20)
        link.peer.close()
        wait_until(lambda: link.receiver.ends)


def test_a_peer_that_never_ends_is_cut_by_the_deadline() -> None:
    with linked() as link:
        link.peer.send(b"\x89")
        link.transport.finish(0.05)
        link.peer.expect_end()
        wait_until(lambda: link.receiver.ends)
        # Both sides had all they needed: no error.
        assert link.receiver.ends == [""]


def test_a_flood_behind_our_end_is_bounded() -> None:
    """What is read away is LINGER_BYTES at the most; then the peer gets a reset."""
    with linked() as link:
        link.transport.finish(None)
        link.peer.expect_end()
        sent = 0
        with contextlib.suppress(ConnectionError):
            while sent < 4 * LINGER_BYTES:
                link.peer.socket.sendall(bytes(1024 * 1024))
                sent += 1024 * 1024
        assert LINGER_BYTES / 2 < sent < 2 * LINGER_BYTES
        wait_until(lambda: link.receiver.ends)


def test_a_closing_handshake_that_is_not_done_in_time() -> None:
    with linked() as link:
        link.core.send_close(1000)
        link.transport.flush()
        link.transport.set_close_deadline(0.05)
        link.transport.set_close_deadline(500.0)  # it has one
        wait_until(lambda: link.receiver.ends)
        assert link.receiver.ends == ["the closing handshake took longer than 0.05 seconds (close_timeout)"]


def test_a_cancelled_deadline_ends_nothing() -> None:
    with linked() as link:
        link.transport.set_close_deadline(0.01)
        link.transport.cancel_deadline()
        gevent.sleep(0.03)
        assert link.receiver.ends == []


def test_the_close_deadline_begins_when_our_close_is_written() -> None:
    """While bytes wait and some move, write_timeout watches; the deadline is not of the peer's making."""
    with linked(small=True, write_timeout=5.0) as link:
        link.write(bytes(512 * 1024))
        link.core.send_close(1000)
        link.transport.set_close_deadline(0.05, 10_000)
        received = b""
        while not received.endswith(b"\x88\x02\x03\xe8"):
            gevent.sleep(0.002)
            received += link.peer.socket.recv(64 * 1024)
        assert len(received) == 512 * 1024 + 4


@pytest.mark.parametrize("place", ["input", "drained"])
def test_an_exception_in_a_callback_ends_this_connection_only(place: str) -> None:
    with linked(small=True) as link, linked() as other:

        def fail() -> None:
            raise LookupError("forced")

        if place == "input":
            link.receiver.on_message = fail
            link.peer.send(text("Hello"))
        else:
            link.receiver.on_drained = fail
            link.write(bytes(1024 * 1024))
            link.peer.socket.recv(1024 * 1024)
        wait_until(lambda: link.receiver.ends, "the end")
        assert [type(error) for error in link.receiver.errors] == [LookupError]
        assert link.receiver.ends == ["an internal error"]
        other.peer.send(text("Hello"))
        other.peer.expect(0x81, b"Hello")


def test_an_exception_while_an_exception_is_handled(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Even then the connection ends, gevent sees nothing of it, and it stands in the log."""
    hub = gevent.get_hub()
    escaped: list[Any] = []
    monkeypatch.setattr(hub, "handle_error", lambda *arguments: escaped.append(arguments), raising=False)

    class Broken(Recorder):
        def handle_error(self, error: BaseException) -> None:
            raise ValueError("while handling it")

        def handle_end(self, detail: str) -> None:
            super().handle_end(detail)
            raise ValueError("at the end, too")

    sock, ours = socket_pair()
    with RawClient(ours) as peer, caplog.at_level(logging.ERROR, "geventws"):
        core = Connection()
        receiver = Broken(core)
        transport = Transport(sock, core, receiver, hub, 10.0)
        receiver.transport = transport
        receiver.on_message = lambda: 1 // 0  # type: ignore[assignment, return-value]
        transport.start(text("Hello"))
        wait_until(lambda: transport.ended)
        with contextlib.suppress(ConnectionError):
            peer.expect_end()
    assert escaped == []
    assert caplog.records


def test_a_reused_descriptor_is_not_touched() -> None:
    """The connection is ended in the middle of its own input, and its number belongs to another socket."""
    with linked() as link:
        number = link.socket.fileno()
        others: list[Any] = []

        def end_and_reuse() -> None:
            if not others:
                link.write(bytes(100))
                link.transport.end("enough")
                others.extend(socket.socketpair())

        link.receiver.on_message = end_and_reuse
        link.peer.send(text("1"), text("2"), text("3"))
        wait_until(lambda: others)
        try:
            assert number in (others[0].fileno(), others[1].fileno())
            others[0].sendall(b"to the second")
            others[1].sendall(b"to the first")
            for _ in range(20):
                gevent.sleep(0.001)
            link.transport.flush()
            link.transport.resume()
            assert others[0].recv(100) == b"to the first"
            assert others[1].recv(100) == b"to the second"
            assert link.transport.ended
        finally:
            for other in others:
                other.close()


def test_pings_of_a_peer_that_does_not_read_are_held() -> None:
    """2 MiB of Pings while nothing can be written: one is kept, and it is answered with the latest."""
    with linked(small=True) as link:
        link.write(bytes(4 * 1024 * 1024))
        assert link.transport.blocked
        waiting = link.core.out_size
        for number in range(200):
            link.peer.send(*[ping(b"%06d" % (100 * number + index)) for index in range(100)])
        wait_until(lambda: link.transport.bytes_received == 20_000 * 12)
        assert link.core.out_size <= waiting
        assert len(link.core.out) == 1
        link.peer.read_bytes(4 * 1024 * 1024)
        link.peer.expect(0x8A, b"019999")
        # From here on each one is answered again.
        link.peer.send(ping(b"a"), ping(b"b"))
        link.peer.expect(0x8A, b"a")
        link.peer.expect(0x8A, b"b")


def test_last_received_moves_with_each_byte() -> None:
    with linked() as link:
        first = link.transport.last_received
        gevent.sleep(0.01)
        link.peer.send(text("Hello")[:1])
        wait_until(lambda: link.transport.last_received > first)
        second = link.transport.last_received
        gevent.sleep(0.01)
        link.transport.pause()
        link.transport.resume()
        assert link.transport.last_received > second


def test_a_step_of_the_clock_moves_nothing() -> None:
    """Times are of the monotonic clock: setting the machine's clock must not look like a silent peer."""
    with linked() as link:
        link.peer.send(text("Hello"))
        link.peer.expect(0x81, b"Hello")
        assert abs(link.transport.last_received - time.monotonic()) < 60
