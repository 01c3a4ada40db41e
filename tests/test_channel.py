"""Greenlets on one connection: who is woken with what, when reading pauses, and how exceptions end."""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import random
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gevent
import pytest
from gevent.event import Event
from gevent.exceptions import BlockingSwitchOutError
from greenlet import GreenletExit, greenlet
from support import (
    PATIENCE,
    LoopCounter,
    RawClient,
    Session,
    binary,
    close,
    frame,
    make_websocket,
    opened,
    ping,
    socket_pair,
    text,
    wait_until,
)

from geventws.channel import TURN_BUDGET
from geventws.exceptions import ConcurrencyError, ConnectionClosed, ConnectionClosedError, ConnectionClosedOK
from geventws.protocol.connection import Connection
from geventws.websocket import WebSocket

pytestmark = pytest.mark.usefixtures("no_leaks")


def forever(ws: WebSocket) -> None:
    """A handler that never receives."""
    ws.wait_closed()


def echo(ws: WebSocket) -> None:
    for message in ws:
        ws.send(message)


def errors(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]


# The hub acts without the handler


@pytest.mark.parametrize("discard", [False, True])
def test_pings_and_close_need_no_handler_and_one_turn(discard: bool) -> None:
    """A handler that never receives: Ping and Close are answered in the turn of the loop that reads them.

    The peer's socket is not gevent's here: between its sending and its looking the loop turns as often as
    the counter says. With `discard_messages` also behind 1000 messages that nobody receives.
    """
    with opened(forever) as session, LoopCounter() as turns:
        gevent.sleep(0)
        if discard:
            session.ws.discard_messages()
            for _ in range(10):
                session.peer.send(*[text("nobody reads this")] * 100)
                wait_until(lambda: session.ws.bytes_received and not session.ws.reading_paused)
            wait_until(lambda: session.ws.messages_discarded == 1000)
        plain = session.peer.socket._sock
        for sent, answer in ((ping(b"now"), b"\x8a\x03now"), (close(1001), b"\x88\x02\x03\xe9")):
            before = turns.count
            plain.send(sent)
            while not (found := session.peer.arrived()):
                gevent.sleep(0)
                assert turns.count - before <= 2
            assert found == answer
            plain.recv(100)
        assert session.ws.closed
        assert session.ws.close_code == 1001
        session.peer.close()
        session.ended()
        assert session.ws.messages_received == 0
        assert session.ws.messages_discarded == (1000 if discard else 0)


def test_discarding_begins_with_what_is_in_the_queue() -> None:
    with opened(max_queue=4) as session:
        session.peer.send(*[text("Hello")] * 10, ping(b"behind"))
        wait_until(lambda: session.ws.reading_paused)
        session.ws.discard_messages()
        session.peer.expect(0x8A, b"behind")
        assert session.ws.messages_discarded == 10
        assert not session.ws.reading_paused


# Receiving


def test_messages_come_in_order_and_whole() -> None:
    with opened() as session:
        session.peer.send(text("1"), binary(b"2"), text(""), binary(b""), text("\N{SNOWMAN}"))
        assert [session.ws.receive() for _ in range(5)] == ["1", b"2", "", b"", "\N{SNOWMAN}"]
        assert session.ws.messages_received == 5


def test_receive_with_a_timeout_loses_nothing() -> None:
    with opened() as session:
        for _ in range(3):
            with pytest.raises(TimeoutError, match=r"no message within 0\.01 seconds"):
                session.ws.receive(timeout=0.01)
        session.peer.send(text("Hello"))
        assert session.ws.receive(timeout=PATIENCE) == "Hello"


def test_receive_with_timeout_zero_looks_once() -> None:
    with opened() as session, LoopCounter() as turns:
        with pytest.raises(TimeoutError):
            session.ws.receive(timeout=0)
        assert turns.count <= 2
        session.peer.send(text("Hello"))
        # It is a poll: some call finds it.
        found = None
        for _ in range(100):
            try:
                found = session.ws.receive(timeout=0)
                break
            except TimeoutError:
                continue
        assert found == "Hello"


@pytest.mark.parametrize("timeout", [-1, float("nan"), -0.001])
def test_receive_refuses_an_impossible_timeout(timeout: float) -> None:
    with opened() as session, pytest.raises(ValueError, match="0 or more, or None"):
        session.ws.receive(timeout=timeout)


def test_a_timeout_of_the_application_is_its_own() -> None:
    """A gevent.Timeout around receive leaves it as it is, also where it is shorter than ours."""
    with opened() as session:
        with pytest.raises(gevent.Timeout) as caught, gevent.Timeout(0.01) as timer:
            session.ws.receive(timeout=PATIENCE)
        assert caught.value is timer
        session.peer.send(text("Hello"))
        assert session.ws.receive(timeout=PATIENCE) == "Hello"


@pytest.mark.parametrize("seed", range(5))
def test_random_timeouts_and_kills_lose_no_message(seed: int) -> None:
    """1000 messages, received by greenlets that time out or are killed at random moments; none is lost.

    A greenlet may be killed while it has a message in its hands: it keeps it in a list before anything
    can interrupt it, as receive() has returned by then.
    """
    rng = random.Random(seed)
    total = 1000
    received: list[str] = []

    def receive(ws: WebSocket, timeout: float | None) -> None:
        try:
            while True:
                received.append(ws.receive(timeout))
        except TimeoutError:
            pass

    def send(peer: Any) -> None:
        number = 0
        while number < total:
            count = min(rng.choice((1, 1, 2, 5, 40)), total - number)
            peer.send(*[text(str(number + index)) for index in range(count)])
            number += count
            gevent.sleep(rng.choice((0, 0, 0.001, 0.002)))

    with opened(max_queue=rng.choice((1, 4, 16, None))) as session:
        sending = gevent.spawn(send, session.peer)
        with gevent.Timeout(PATIENCE):
            while len(received) < total:
                timeout = rng.choice((None, 0, 0.001, 0.001, 0.003))
                receiver = gevent.spawn(receive, session.ws, timeout)
                if timeout is None or rng.random() < 0.5:
                    gevent.sleep(rng.choice((0, 0.001, 0.001, 0.004)))
                    receiver.kill()
                else:
                    receiver.join()
        sending.get()
        assert received == [str(number) for number in range(total)]


def test_a_killed_receiver_leaves_the_message_to_the_next() -> None:
    """The kill and the message come in the same turn of the loop, in either order."""
    with opened() as session:
        for _ in range(20):
            received: list[Any] = []
            first = gevent.spawn(lambda received=received: received.append(session.ws.receive()))
            gevent.sleep(0)
            session.peer.send(text("Hello"))
            first.kill(block=False)
            first.join()
            second = gevent.spawn(lambda received=received: received.append(session.ws.receive(PATIENCE)))
            if not received:
                second.join()
            assert received == ["Hello"]
            second.kill()


def test_only_one_greenlet_receives() -> None:
    with opened() as session:
        first = gevent.spawn(session.ws.receive)
        gevent.sleep(0)
        with pytest.raises(ConcurrencyError, match="another greenlet is receiving"):
            session.ws.receive()
        with pytest.raises(ConcurrencyError):
            next(iter(session.ws))
        session.peer.send(text("Hello"))
        assert first.get(timeout=PATIENCE) == "Hello"
        session.peer.send(text("again"))
        assert session.ws.receive(PATIENCE) == "again"


def test_messages_before_the_end_are_received_first() -> None:
    with opened() as session:
        session.peer.send(text("1"), text("2"), close(1000, b"bye"))
        wait_until(lambda: session.ws.closed)
        assert session.ws.receive() == "1"
        assert session.ws.receive() == "2"
        for _ in range(2):
            with pytest.raises(ConnectionClosedOK, match="received 1000"):
                session.ws.receive()


def test_messages_before_a_reset_are_received_first() -> None:
    with opened() as session:
        session.peer.send(text("1"), text("2"))
        session.peer.reset()
        assert session.ws.wait_closed(PATIENCE)
        assert [session.ws.receive(), session.ws.receive()] == ["1", "2"]
        with pytest.raises(ConnectionClosedError, match="reset"):
            session.ws.receive()


def test_a_waiting_receiver_learns_of_the_end() -> None:
    for end, kind in (
        (lambda peer: peer.send(close(1000)), ConnectionClosedOK),
        (lambda peer: peer.send(close(1011)), ConnectionClosedError),
        (lambda peer: peer.close(), ConnectionClosedError),
        (lambda peer: peer.reset(), ConnectionClosedError),
    ):
        with opened() as session:
            receiver = gevent.spawn(session.ws.receive)
            gevent.sleep(0)
            end(session.peer)
            receiver.join(PATIENCE)
            assert type(receiver.exception) is kind


@pytest.mark.parametrize("count", [1, 16, 17, TURN_BUDGET, TURN_BUDGET + 1, 1000])
@pytest.mark.parametrize("max_queue", [1, 16, None])
def test_messages_before_a_violation_are_answered_before_the_close(count: int, max_queue: int | None) -> None:
    """All of it in one segment: the handler that waits in receive answers each, then comes the Close."""
    with opened(echo, max_queue=max_queue) as session:
        gevent.sleep(0)
        session.peer.send(*[text(str(number)) for number in range(count)], frame(0x83))
        for number in range(count):
            session.peer.expect(0x81, str(number).encode())
        session.peer.expect_close(1002)
        session.peer.expect_end()
        assert session.ws.messages_sent == count


@pytest.mark.parametrize("max_queue", [1, 16, None])
def test_messages_before_a_close_are_answered_before_its_answer(max_queue: int | None) -> None:
    with opened(echo, max_queue=max_queue) as session:
        gevent.sleep(0)
        session.peer.send(*[text(str(number)) for number in range(300)], close(1000))
        for number in range(300):
            session.peer.expect(0x81, str(number).encode())
        session.peer.expect_close(1000)
        session.peer.expect_end()


def test_a_violation_behind_messages_that_nobody_receives_is_answered_at_once() -> None:
    with opened(forever) as session:
        session.peer.send(text("1"), text("2"), frame(0x83))
        session.peer.expect_close(1002)
        assert session.ws.receive() == "1"
        assert session.ws.receive() == "2"
        with pytest.raises(ConnectionClosedError, match="opcode"):
            session.ws.receive()
        with pytest.raises(ConnectionClosedError, match="opcode"):
            session.ws.send("late")


# Back-pressure


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize(
    ("limits", "size"),
    [
        ({"max_queue": 1}, 1),
        ({"max_queue": 16}, 1),
        ({"max_queue": None}, 1),
        ({"max_queue_bytes": 1}, 1),
        ({"max_queue": None, "max_queue_bytes": 10_000}, 1000),
        ({"max_queue": 3}, 100_000),
    ],
)
def test_a_full_queue_stops_the_peer_and_loses_nothing(limits: dict[str, Any], size: int, tls: bool) -> None:
    """2 MiB or 20,000 messages to a handler that receives now and then: the peer waits, the order stands.

    While the handler sleeps, what was received stays within the limits, the read buffer and the systems'
    buffers; the peer's sendall does not return.
    """
    count = 20_000 if size == 1 else 2 * 1024 * 1024 // size
    messages = [b"%08d" % number + bytes(max(size - 8, 0)) for number in range(count)]

    def send(peer: Any) -> None:
        for start in range(0, count, 1000):
            peer.send(*map(binary, messages[start : start + 1000]))

    with opened(small=True, tls=tls, write_timeout=None, **limits) as session:
        sending = gevent.spawn(send, session.peer)
        received = []
        if limits.get("max_queue") is not None or size > 1:
            wait_until(lambda: session.ws.reading_paused)
            gevent.sleep(0.01)
            held = session.ws.bytes_received
            gevent.sleep(0.02)
            assert session.ws.bytes_received == held
            assert held < 400_000
            assert size == 1 or not sending.dead
        for number in range(count):
            received.append(session.ws.receive(PATIENCE))
            if number % 1777 == 0:
                gevent.sleep(0.001)
        assert received == messages
        sending.get(timeout=PATIENCE)
        wait_until(lambda: not session.ws.reading_paused)


def test_the_size_of_the_queue_counts_in_bytes() -> None:
    with opened(max_queue=None, max_queue_bytes=1000) as session:
        session.peer.send(*[binary(bytes(100))] * 9)
        session.peer.send(ping(b"a"))
        session.peer.expect(0x8A, b"a")
        assert not session.ws.reading_paused
        session.peer.send(binary(bytes(100)), ping(b"b"))
        wait_until(lambda: session.ws.reading_paused)
        for _ in range(10):
            session.ws.receive()
        session.peer.expect(0x8A, b"b")
        assert not session.ws.reading_paused


def test_reading_goes_on_when_the_queue_is_empty_though_nobody_waits() -> None:
    """The handler takes what is in the queue and then only sends: a Ping behind it all is answered."""
    with opened(max_queue=4) as session:
        session.peer.send(*[text("Hello")] * 7, ping(b"behind"))
        wait_until(lambda: session.ws.reading_paused)
        for _ in range(4):
            session.ws.receive()
        session.peer.expect(0x8A, b"behind")
        assert not session.ws.reading_paused
        session.peer.send(close(1000))
        session.peer.expect_close(1000)
        assert [session.ws.receive() for _ in range(3)] == ["Hello"] * 3


def test_a_flooding_peer_leaves_the_others_their_turns() -> None:
    """One peer has 200,000 messages of a byte under way. Another one's ping-pong goes on between them.

    A turn of the loop takes one read of at most 128 KiB from the flood, below 19,000 of its messages; two
    turns at the most lie between two messages of the other, whose peer needs one to answer.
    """
    counts: list[int] = []

    def count(ws: WebSocket) -> None:
        for _ in ws:
            flooded[0] += 1

    def note(ws: WebSocket) -> None:
        for message in ws:
            counts.append(flooded[0])
            ws.send(message)

    flooded = [0]
    with opened(count) as busy, opened(note) as calm:
        flood = text("x") * 200_000
        sending = gevent.spawn(busy.peer.send, flood)
        while flooded[0] < 200_000:
            calm.peer.send(text("Hello"))
            calm.peer.expect(0x81, b"Hello")
        sending.get(timeout=PATIENCE)
        assert len(counts) >= 4
        assert max(after - before for before, after in itertools.pairwise(counts)) <= 2 * 19_000


def test_a_handler_that_works_for_long_keeps_its_peer() -> None:
    """The queue is full for a while: nothing is lost when the handler comes back to it."""
    with opened(max_queue=2) as session:
        session.peer.send(*[text(str(number)) for number in range(10)], ping(b"end"))
        wait_until(lambda: session.ws.reading_paused)
        gevent.sleep(0.02)
        assert [session.ws.receive(PATIENCE) for _ in range(10)] == [str(number) for number in range(10)]
        session.peer.expect(0x8A, b"end")


# Sending


def fill(ws: WebSocket, size: int = 1024 * 1024) -> bytes:
    """Send until the peer takes no more and the limit is reached; returns what was sent."""
    sent = b""
    while ws.write_buffer_size <= 1000:
        ws.send(bytes(size))
        sent += bytes(size)
    return sent


def test_send_waits_above_the_limit_and_goes_on_below() -> None:
    with opened(small=True, write_limit=1000) as session:
        fill(session.ws)
        sending = gevent.spawn(session.ws.send, "last")
        gevent.sleep(0.01)
        assert not sending.dead
        assert session.ws.messages_sent == 1
        while (found := session.peer.read_frame()) != (0x81, b"last"):
            assert found[0] == 0x82
        sending.get(timeout=PATIENCE)


def test_waiting_senders_go_on_in_their_order() -> None:
    """40 greenlets wait; more come while those are served; none overtakes."""
    with opened(small=True, write_limit=1000) as session:
        fill(session.ws)
        order: list[int] = []

        def send(number: int) -> None:
            order.append(number)
            session.ws.send(b"%04d" % number + bytes(3000))
            if number < 40:
                later.append(gevent.spawn(send, number + 40))

        later: list[Any] = []
        greenlets = [gevent.spawn(send, number) for number in range(40)]
        gevent.sleep(0)
        session.peer.read_frame()
        received = [int(session.peer.read_frame()[1][:4]) for _ in range(80)]
        gevent.joinall(greenlets + later, PATIENCE, raise_error=True)
        assert received == order
        assert received[:40] == list(range(40))


@pytest.mark.parametrize("interrupt", [GreenletExit, gevent.Timeout, ValueError])
def test_an_exception_while_send_waits_means_that_nothing_was_sent(interrupt: type[BaseException]) -> None:
    with opened(small=True, write_limit=1000) as session:
        sent = fill(session.ws)
        before = session.ws.write_buffer_size, session.ws.messages_sent
        caught: list[BaseException] = []

        def send() -> None:
            try:
                session.ws.send("interrupted")
            except BaseException as error:
                caught.append(error)

        victims = [gevent.spawn(send) for _ in range(3)]
        behind = gevent.spawn(session.ws.send, "behind")
        gevent.sleep(0)
        for victim in victims:
            victim.kill(interrupt() if interrupt is not gevent.Timeout else gevent.Timeout())
        assert [type(error) for error in caught] == [interrupt] * 3
        assert (session.ws.write_buffer_size, session.ws.messages_sent) == before
        session.peer.expect(0x82, sent)
        session.peer.expect(0x81, b"behind")
        behind.get(timeout=PATIENCE)


def test_waiting_senders_learn_of_the_end() -> None:
    with opened(small=True, write_limit=1000) as session:
        fill(session.ws)
        senders = [gevent.spawn(session.ws.send, "never") for _ in range(5)]
        senders.append(gevent.spawn(session.ws.ping))
        senders.append(gevent.spawn(session.ws.send_fragments, ["never"]))
        gevent.sleep(0)
        session.ws.abort()
        gevent.joinall(senders, PATIENCE)
        assert [type(sender.exception) for sender in senders] == [ConnectionClosedError] * 7


def test_a_write_that_makes_no_progress_ends_the_connection_unclean() -> None:
    with opened(small=True, write_limit=1000, write_timeout=0.1) as session:
        fill(session.ws)
        with pytest.raises(ConnectionClosedError, match="write_timeout"):
            session.ws.send("never")
        assert session.ws.close_code == 1006
        assert session.ws.wait_closed(0)


def test_a_reply_leaves_though_the_handler_goes_on_to_sleep() -> None:
    """Gathered replies leave at the end of the callback, whatever the handler does behind its send."""
    wake = Event()

    def handler(ws: WebSocket) -> None:
        ws.send(ws.receive())
        wake.wait()

    with opened(handler) as session:
        session.peer.send(text("Hello"))
        session.peer.expect(0x81, b"Hello")
        wake.set()


def test_replies_to_one_segment_are_one_segment() -> None:
    """100 messages at once to a handler that echoes: one recv of the peer has all answers."""
    with opened(echo) as session:
        gevent.sleep(0)
        session.peer.send(*[text("Hello")] * 100)
        assert session.peer.socket.recv(100_000) == b"\x81\x05Hello" * 100


# A callback of the event loop cannot wait


def in_thread(function: Callable[[], Any]) -> Any:
    """Run it in another thread, in its main greenlet and in another; return what it raised."""
    caught: list[BaseException | None] = []

    def run(nested: bool) -> None:
        try:
            if nested:
                gevent.spawn(run, False).join(PATIENCE)
            else:
                function()
                caught.append(None)
        except BaseException as error:
            caught.append(error)

    def in_both() -> None:
        run(False)
        run(True)
        gevent.get_hub().destroy(destroy_loop=True)

    thread = threading.Thread(target=in_both)
    thread.start()
    thread.join(PATIENCE)
    assert not thread.is_alive()
    return caught


def test_another_thread_cannot_wait() -> None:
    with opened(small=True, write_limit=1000) as session:
        fill(session.ws)
        for wait in session.ws.receive, lambda: session.ws.send("x"), session.ws.wait_closed:
            errors = in_thread(wait)
            assert [type(error) for error in errors] == [ConcurrencyError] * 2
            assert "in another thread than the one that made this WebSocket" in str(errors[0])
        session.peer.send(text("Hello"))
        assert session.ws.receive(timeout=PATIENCE) == "Hello"


def test_the_main_greenlet_waits_where_threads_are_patched() -> None:
    """There the identity of a thread is that of a greenlet."""
    program = (
        "from gevent import monkey; monkey.patch_all()\n"
        "from support import opened, text\n"
        "with opened() as session:\n"
        "    session.peer.send(text('Hello'))\n"
        "    print(session.ws.receive(timeout=20))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=Path(__file__).parent, capture_output=True, text=True, timeout=60,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )  # fmt: skip
    assert (done.stdout, done.stderr) == ("Hello\n", "")


def in_callback(function: Callable[[], Any]) -> Any:
    """Call a function in the hub; returns what it returns or raises."""
    results: list[Any] = []

    def run() -> None:
        try:
            results.append(function())
        except BaseException as error:
            results.append(error)

    gevent.get_hub().loop.run_callback(run)
    wait_until(lambda: results)
    return results[0]


def test_a_callback_can_do_all_that_need_not_wait() -> None:
    with opened(small=True, write_limit=1000) as session:
        ws, peer = session.ws, session.peer
        peer.send(text("Hello"))
        gevent.sleep(0.005)
        assert in_callback(ws.receive) == "Hello"
        assert isinstance(in_callback(ws.receive), BlockingSwitchOutError)
        assert isinstance(in_callback(lambda: ws.receive(timeout=0)), BlockingSwitchOutError)
        assert isinstance(in_callback(ws.wait_closed), BlockingSwitchOutError)
        assert in_callback(lambda: ws.send("from the hub")) is None
        peer.expect(0x81, b"from the hub")
        filled = len(fill(ws))
        assert isinstance(in_callback(lambda: ws.send("waits")), BlockingSwitchOutError)
        assert isinstance(in_callback(ws.ping), BlockingSwitchOutError)
        assert in_callback(lambda: ws.close(1001)) is None
        peer.expect(0x82, bytes(filled))
        peer.expect_close(1001)
        # Nothing of the failed calls is left: a greenlet may receive, and learns of the end.
        with pytest.raises(ConnectionClosed):
            ws.receive()


# Exceptions in the hub


class BrokenCore(Connection):
    """A protocol that raises in one of its methods, once it is told to."""

    broken = ""

    def feed(self, buffer: bytearray, end: int) -> None:
        if self.broken == "feed":
            raise LookupError("forced in feed")
        super().feed(buffer, end)

    def next_event(self) -> int:
        if self.broken == "next_event":
            raise LookupError("forced in next_event")
        return super().next_event()

    def keep(self) -> None:
        if self.broken == "keep":
            raise LookupError("forced in keep")
        super().keep()


@pytest.mark.parametrize("place", ["feed", "next_event", "keep"])
def test_an_exception_in_the_protocol_fails_its_connection_only(
    place: str, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    core = BrokenCore()
    with opened(echo, core=core) as session, opened(echo) as other:
        session.peer.send(text("Hello"))
        session.peer.expect(0x81, b"Hello")
        core.broken = place
        session.peer.send(text("Hello"))
        frames = session.peer.read_frames()
        assert frames[-1][0] == 0x88
        assert frames[-1][1] == b"\x03\xf3internal error"
        session.ended()
        assert len(errors(caplog)) == 1
        assert "internal error" in errors(caplog)[0]
        assert "forced" in caplog.text
        with pytest.raises(ConnectionClosedError, match="internal error"):
            session.ws.send("late")
        other.peer.send(text("Hello"))
        other.peer.expect(0x81, b"Hello")
        # gevent has seen nothing of it.
        assert "forced" not in capfd.readouterr().err


def raw(function: Callable[[], Any]) -> greenlet:
    """Start a greenlet of nobody's making but greenlet's: what it raises goes to whoever woke it."""
    hub = gevent.get_hub()
    made = greenlet(function, hub)
    hub.loop.run_callback(made.switch)
    gevent.sleep(0)
    return made


def test_a_raw_greenlet_that_raises_behind_receive(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    with opened() as session, opened(echo) as other:

        def receive() -> None:
            session.ws.receive()
            raise LookupError("forced")

        raw(receive)
        session.peer.send(text("Hello"), text("again"))
        session.peer.expect_close(1011)
        assert session.ws.wait_closed(PATIENCE)
        assert len(errors(caplog)) == 1
        other.peer.send(text("Hello"))
        other.peer.expect(0x81, b"Hello")
        assert "forced" not in capfd.readouterr().err


def test_a_raw_greenlet_that_aborts_and_raises(caplog: pytest.LogCaptureFixture) -> None:
    """Its connection is over by then; the exception still stands in the log, once."""
    with opened() as session:

        def receive() -> None:
            session.ws.receive()
            session.ws.abort()
            raise LookupError("forced")

        raw(receive)
        session.peer.send(text("Hello"))
        assert session.ws.wait_closed(PATIENCE)
        assert len(errors(caplog)) == 1
        assert "forced" in caplog.text


@pytest.mark.parametrize("waits_for", ["message", "room", "end", "fragments"])
def test_a_raw_greenlet_that_raises_when_it_is_woken_at_the_end(
    waits_for: str, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """Every other greenlet that waits is woken all the same."""
    with opened(small=True, write_limit=1000) as session:
        ws = session.ws
        fill(ws)
        wait = {
            "message": ws.receive,
            "room": lambda: ws.send("x"),
            "end": ws.wait_closed,
            "fragments": lambda: ws.send_fragments(["x"]),
        }[waits_for]

        def fail() -> None:
            try:
                wait()
            except ConnectionClosed:
                pass
            raise LookupError("forced")

        raw(fail)
        waiting = [gevent.spawn(ws.wait_closed), gevent.spawn(ws.send, "y"), gevent.spawn(ws.wait_closed)]
        if waits_for != "message":
            waiting.append(gevent.spawn(ws.receive))
        gevent.sleep(0)
        ws.abort()
        gevent.joinall(waiting, PATIENCE)
        assert all(waiter.dead for waiter in waiting)
        assert len(errors(caplog)) == 1
        assert "forced" not in capfd.readouterr().err


def test_a_raw_greenlet_that_raises_behind_send(caplog: pytest.LogCaptureFixture) -> None:
    with opened(small=True, write_limit=1000) as session:
        fill(session.ws)

        def send() -> None:
            session.ws.send("x")
            raise LookupError("forced")

        raw(send)
        behind = gevent.spawn(session.ws.send, "behind")
        while session.peer.socket.recv(1024 * 1024):
            pass
        assert session.ws.wait_closed(PATIENCE)
        behind.join(PATIENCE)
        assert behind.dead
        assert len(errors(caplog)) == 1


def test_a_raw_greenlet_that_raises_behind_fragments(caplog: pytest.LogCaptureFixture) -> None:
    """It waited for another greenlet's message to be complete."""
    with opened() as session:
        go_on = Event()

        def fragments() -> Any:
            yield "a"
            go_on.wait()
            yield "b"

        def send() -> None:
            session.ws.send("x")
            raise LookupError("forced")

        sending = gevent.spawn(session.ws.send_fragments, fragments())
        gevent.sleep(0)
        raw(send)
        go_on.set()
        sending.join(PATIENCE)
        assert session.ws.wait_closed(PATIENCE)
        assert len(errors(caplog)) == 1


def test_an_exception_in_on_end_holds_up_nobody(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    def on_end(ws: WebSocket) -> None:
        raise LookupError("forced")

    with opened(on_end=on_end) as session:
        waiting = [gevent.spawn(session.ws.wait_closed), gevent.spawn(session.ws.receive)]
        gevent.sleep(0)
        session.peer.close()
        gevent.joinall(waiting, PATIENCE)
        assert all(waiter.dead for waiter in waiting)
        assert len(errors(caplog)) == 1
        assert "forced" not in capfd.readouterr().err


def test_a_connection_may_be_forgotten_by_the_greenlet_that_it_has_just_woken() -> None:
    """Who receives ends the connection and lets go of it; the callback that woke it is still under way."""

    def receive(sessions: list[Any]) -> None:
        sessions[0].ws.receive()
        sessions[0].ws.abort()
        sessions.clear()

    def send(sessions: list[Any]) -> None:
        sessions[0].ws.send("x")
        sessions[0].ws.abort()
        sessions.clear()

    for _ in range(50):
        for use in (receive, send):
            sock, ours = socket_pair(small=True)
            sessions = [Session(make_websocket(sock, write_limit=1000), RawClient(ours), None)]
            peer = sessions[0].peer
            del sock, ours
            if use is send:
                fill(sessions[0].ws)
            running = gevent.spawn(use, sessions)
            gevent.sleep(0)
            peer.send(text("1"), text("2"))
            with contextlib.suppress(ConnectionError):
                while peer.socket.recv(65536):
                    pass
            running.get(timeout=PATIENCE)
            peer.close()


# Descriptors


def test_a_reused_descriptor_belongs_to_its_new_owner() -> None:
    """A handler aborts, and the number of its descriptor is given to a new socket at once."""
    taken: list[socket.socket] = []
    numbers: list[int] = []

    def handler(ws: WebSocket) -> None:
        ws.receive()
        ws.send(bytes(1000))
        ws.abort()
        taken.extend(socket.socketpair())
        taken[1].send(b"to the new owner")
        gevent.sleep(0.005)
        with pytest.raises(ConnectionClosed):
            ws.send("to the old one")

    with opened(handler) as session:
        numbers.append(session.ws._transport._socket.fileno() if hasattr(session.ws, "_transport") else -1)
        session.peer.send(*[text("Hello")] * 50)
        session.ended()
        try:
            assert numbers[0] in (-1, taken[0].fileno(), taken[1].fileno())
            taken[0].settimeout(PATIENCE)
            assert taken[0].recv(100) == b"to the new owner"
            taken[1].settimeout(0)
            with pytest.raises(BlockingIOError):
                taken[1].recv(100)
        finally:
            for sock in taken:
                sock.close()
