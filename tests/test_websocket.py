"""The WebSocket that handlers hold: what it sends, and how it ends in every way it can."""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import warnings
import zlib
from collections.abc import Iterator
from typing import Any

import gevent
import pytest
from gevent.event import Event
from support import (
    DEFLATE,
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
    pong,
    socket_pair,
    text,
    wait_until,
)

from geventws import broadcast
from geventws.exceptions import (
    ConcurrencyError,
    ConnectionClosed,
    ConnectionClosedError,
    ConnectionClosedOK,
    PingTimeout,
)
from geventws.websocket import State, WebSocket, as_payload

pytestmark = pytest.mark.usefixtures("no_leaks")


class Text(str):
    """A subclass that lies about itself wherever it can."""

    def __str__(self) -> str:
        return "not this"

    def encode(self, *_: Any) -> bytes:
        return b"nor this"


class Bytes(bytes):
    def __bytes__(self) -> bytes:
        return b"not this"


def send(ws: WebSocket, how: str, data: Any) -> None:
    """Send in one of the ways there are."""
    if how == "broadcast":
        assert broadcast([ws], data) == []
    elif how == "send_fragments":
        ws.send_fragments([data])
    else:
        getattr(ws, how)(data)


# What it is


def test_facts_of_an_open_connection() -> None:
    with opened() as session:
        ws = session.ws
        assert ws.state is State.OPEN
        assert not ws.closed
        assert ws.close_code is None
        assert ws.close_reason is None
        assert ws.close_error is None
        assert ws.latency is None
        assert ws.request.path == "/test"
        assert ws.subprotocol is None
        assert ws.extensions == ""
        assert ws.bytes_received == ws.bytes_sent == ws.write_buffer_size == 0
        assert repr(ws).startswith(f"<WebSocket {ws.id} OPEN ('127.0.0.1', ")
        ws.nickname = "attributes of one's own"
        with opened() as other:
            assert other.ws.id != ws.id


def test_the_counts() -> None:
    with opened() as session:
        session.peer.send(text("Hello"), ping(b"12"))
        assert session.ws.recv() == "Hello"
        session.peer.expect(0x8A, b"12")
        session.ws.send("Hello")
        session.ws.send_fragments(["a", "b"])
        assert session.ws.bytes_received == len(text("Hello") + ping(b"12"))
        assert session.ws.bytes_sent == 4 + 7 + 3 + 3 + 2
        assert session.ws.messages_received == 1
        assert session.ws.messages_sent == 2


# Sending


@pytest.mark.parametrize(
    ("data", "first", "payload"),
    [
        ("Hello", 0x81, b"Hello"),
        ("", 0x81, b""),
        ("\N{SNOWMAN}\U0001f600", 0x81, b"\xe2\x98\x83\xf0\x9f\x98\x80"),
        (b"Hello", 0x82, b"Hello"),
        (b"", 0x82, b""),
        (bytearray(b"Hello"), 0x82, b"Hello"),
        (memoryview(b"Hello"), 0x82, b"Hello"),
        (memoryview(b"HxexlxlxoX")[::2], 0x82, b"Hello"),
        (memoryview(bytearray(b"\1\0\2\0")).cast("H"), 0x82, b"\1\0\2\0"),
        (Text("Hello"), 0x81, b"Hello"),
        (Bytes(b"Hello"), 0x82, b"Hello"),
    ],
)
@pytest.mark.parametrize("how", ["send", "send_fragments", "broadcast"])
def test_what_is_sent_for_what(data: Any, first: int, payload: bytes, how: str) -> None:
    with opened() as session:
        send(session.ws, how, data)
        if how == "send_fragments":
            first &= 0x7F
        session.peer.expect(first, payload)
        if how == "send_fragments":
            session.peer.expect(0x80, b"")


@pytest.mark.parametrize("data", [None, 1, 1.5, ["Hello"], {"a": 1}, object(), iter([b"a"]), range(3), print])
@pytest.mark.parametrize("how", ["send", "send_fragments", "ping", "broadcast"])
def test_what_cannot_be_sent_costs_no_byte(data: Any, how: str) -> None:
    with opened() as session:
        with pytest.raises(TypeError, match=f"not {type(data).__name__}"):
            send(session.ws, how, data)
        assert session.ws.bytes_sent == session.ws.write_buffer_size == 0
        assert session.ws.messages_sent == 0
        session.ws.send("still open")
        session.peer.expect(0x81, b"still open")


@pytest.mark.parametrize("deflate", [None, *DEFLATE.values()], ids=["plain", *DEFLATE])
@pytest.mark.parametrize("how", ["send", "send_fragments", "broadcast", "ping"])
def test_a_lone_surrogate_costs_no_byte(deflate: Any, how: str) -> None:
    with opened(deflate=deflate) as session:
        bad: Any = "a\ud800b"
        with pytest.raises(UnicodeEncodeError):
            send(session.ws, how, bad)
        assert session.ws.bytes_sent == session.ws.write_buffer_size == 0
        # A compressor that had seen half of it would spoil what follows.
        session.ws.send("still whole", compress=True)
        payload = session.peer.read_frame()[1]
        if deflate is not None:
            payload = zlib.decompressobj(-15).decompress(payload + b"\0\0\xff\xff")
        assert payload == b"still whole"


def test_bytes_may_be_changed_behind_send() -> None:
    with opened(small=True) as session:
        data = bytearray(b"a" * 1_000_000)
        session.ws.send(data)
        data[:] = b"b" * 1_000_000
        session.peer.expect(0x82, b"a" * 1_000_000)


@pytest.mark.parametrize("compress", [None, True, False])
def test_compress_says_whether(compress: bool | None) -> None:
    with opened(deflate=DEFLATE["deflate"]) as session:
        session.ws.send("Hello", compress=compress)
        first = session.peer.read_frame()[0]
        assert first == (0x81 if compress is False else 0xC1)


def test_send_behind_the_end_raises_what_ended_it() -> None:
    with opened() as session:
        session.peer.reset()
        assert session.ws.wait_closed(PATIENCE)
        for use in (
            lambda: session.ws.send("x"),
            lambda: session.ws.send_fragments(["x"]),
            session.ws.ping,
            session.ws.receive,
            lambda: next(iter(session.ws)),
        ):
            with pytest.raises(ConnectionClosedError, match="the peer reset TCP"):
                use()
        assert broadcast([session.ws], "x") == []


# Fragments


def test_a_message_in_fragments() -> None:
    with opened() as session:
        session.ws.send_fragments(["a", "", "b"])
        session.ws.send_fragments(iter([b"c", bytearray(b"d")]))
        for first, payload in (
            (1, b"a"),
            (0, b""),
            (0, b"b"),
            (0x80, b""),
            (2, b"c"),
            (0, b"d"),
            (0x80, b""),
        ):
            session.peer.expect(first, payload)


@pytest.mark.parametrize("name", DEFLATE)
def test_a_compressed_message_in_fragments(name: str) -> None:
    with opened(deflate=DEFLATE[name]) as session:
        session.ws.send_fragments(["Hello ", "you " * 1000, "there"])
        frames = [session.peer.read_frame() for _ in range(4)]
        assert [first for first, _ in frames] == [0x41, 0, 0, 0x80]
        data = b"".join(payload for _, payload in frames)
        assert zlib.decompressobj(-15).decompress(data + b"\0\0\xff\xff") == (
            b"Hello " + b"you " * 1000 + b"there"
        )


def test_each_fragment_leaves_when_it_is_given() -> None:
    with opened() as session:

        def fragments() -> Iterator[str]:
            yield "a"
            session.peer.expect(1, b"a")
            yield "b"
            session.peer.expect(0, b"b")

        session.ws.send_fragments(fragments())
        session.peer.expect(0x80, b"")


def test_no_message_comes_between_fragments() -> None:
    """Other senders wait, in their order; Pings do not; a broadcast goes right behind, and does not wait."""
    with opened() as session:
        go_on = Event()

        def fragments() -> Iterator[str]:
            yield "a"
            go_on.wait()
            yield "b"

        sending = [gevent.spawn(session.ws.send_fragments, fragments())]
        gevent.sleep(0)
        sending.append(gevent.spawn(session.ws.send, "1"))
        gevent.sleep(0)
        sending.append(gevent.spawn(session.ws.send_fragments, ["2"]))
        gevent.sleep(0)
        sending.append(gevent.spawn(session.ws.send, "3"))
        gevent.sleep(0)
        assert broadcast([session.ws], "broadcast") == []
        session.ws.ping(b"ping")
        go_on.set()
        gevent.joinall(sending, PATIENCE, raise_error=True)
        for first, payload in (
            (1, b"a"),
            (0x89, b"ping"),
            (0, b"b"),
            (0x80, b""),
            (0x81, b"broadcast"),
            (0x81, b"1"),
            (1, b"2"),
            (0x80, b""),
            (0x81, b"3"),
        ):
            session.peer.expect(first, payload)


def test_a_ping_does_not_wait_for_fragments_when_the_buffer_is_full() -> None:
    """It waits for room in the buffer, and not for the iterable of somebody else's message."""
    with opened(small=True, write_limit=1000) as session:
        go_on = Event()

        def fragments() -> Iterator[bytes]:
            yield bytes(1024 * 1024)
            go_on.wait()
            yield b"b"

        sending = gevent.spawn(session.ws.send_fragments, fragments())
        wait_until(lambda: session.ws.write_buffer_size > 1000)
        pinging = gevent.spawn(session.ws.ping, b"ping")
        gevent.sleep(0)
        session.peer.expect(2, bytes(1024 * 1024))
        session.peer.expect(0x89, b"ping")
        pinging.get(timeout=PATIENCE)
        go_on.set()
        sending.get(timeout=PATIENCE)


def test_a_broadcast_behind_fragments_keeps_its_choice_of_compression() -> None:
    with opened(deflate=DEFLATE["deflate"]) as session:

        def fragments() -> Iterator[str]:
            yield "a"
            broadcast([session.ws], "plain" * 100, compress=False)
            broadcast([session.ws], "compressed" * 100)

        session.ws.send_fragments(fragments())
        assert [session.peer.read_frame()[0] for _ in range(4)] == [0x41, 0x80, 0x81, 0xC1]


def test_fragments_of_a_broadcast_count_as_waiting() -> None:
    with opened(write_limit=1000, slow_consumer="skip") as session:

        def fragments() -> Iterator[str]:
            yield "a"
            assert broadcast([session.ws], "x" * 700) == []
            assert broadcast([session.ws], "y" * 700) == []
            assert broadcast([session.ws], "z" * 700) == [session.ws]
            yield "b"

        session.ws.send_fragments(fragments())
        assert session.ws.times_slow == 1
        frames = [session.peer.read_frame() for _ in range(5)]
        assert [payload[:1] for _, payload in frames] == [b"a", b"b", b"", b"x", b"y"]


def test_sending_inside_its_own_iterable_is_an_error() -> None:
    """It could only wait for itself. The iterable may go on all the same."""
    with opened() as session:
        errors: list[Exception] = []

        def fragments() -> Iterator[str]:
            yield "a"
            for use in (lambda: session.ws.send("x"), lambda: session.ws.send_fragments(["x"])):
                try:
                    use()
                except ConcurrencyError as error:
                    errors.append(error)
            session.ws.ping(b"p")
            yield "b"

        session.ws.send_fragments(fragments())
        assert len(errors) == 2
        for first, payload in ((1, b"a"), (0x89, b"p"), (0, b"b"), (0x80, b"")):
            session.peer.expect(first, payload)


@pytest.mark.parametrize("fragments", [[], (), iter([])])
def test_no_fragment_at_all(fragments: Any) -> None:
    with opened() as session:
        with pytest.raises(ValueError, match="at least one"):
            session.ws.send_fragments(fragments)
        session.ws.send("still open")
        session.peer.expect(0x81, b"still open")


@pytest.mark.parametrize("fragments", ["abc", "", b"abc", bytearray(b"abc"), memoryview(b"abc")])
def test_a_message_is_no_iterable_of_fragments(fragments: Any) -> None:
    with opened() as session:
        with pytest.raises(TypeError, match=rf"not one {type(fragments).__name__}; for that use send\(\)"):
            session.ws.send_fragments(fragments)
        session.ws.send("still open")
        session.peer.expect(0x81, b"still open")


@pytest.mark.parametrize("fragments", [["a", b"b"], [b"a", "b"], ["a", 1], [b"a", None], ["a", "\ud800"]])
def test_a_bad_fragment_behind_a_good_one_closes(fragments: list[Any]) -> None:
    with opened() as session:
        with pytest.raises((TypeError, UnicodeEncodeError)):
            session.ws.send_fragments(fragments)
        assert session.peer.read_frame()[1] == b"a"
        assert session.peer.expect_close(1011) == "a message could not be completed"
        with pytest.raises(ConnectionClosedError):
            session.ws.send("late")


def test_an_iterable_that_raises() -> None:
    with opened() as session:
        others = []

        def fragments() -> Iterator[str]:
            yield "a"
            others.append(gevent.spawn(session.ws.send, "waits"))
            gevent.sleep(0)
            raise LookupError("forced")

        with pytest.raises(LookupError, match="forced"):
            session.ws.send_fragments(fragments())
        session.peer.expect(1, b"a")
        session.peer.expect_close(1011)
        others[0].join(PATIENCE)
        assert isinstance(others[0].exception, ConnectionClosed)


def test_an_iterable_that_raises_before_anything_was_sent() -> None:
    with opened() as session:

        def fragments() -> Iterator[str]:
            raise LookupError("forced")
            yield "a"

        with pytest.raises(LookupError):
            session.ws.send_fragments(fragments())
        with pytest.raises(TypeError):
            session.ws.send_fragments(None)  # type: ignore[arg-type]
        session.ws.send("still open")
        session.peer.expect(0x81, b"still open")


@pytest.mark.parametrize("where", ["iterable", "buffer"])
def test_a_kill_in_the_middle_of_fragments(where: str) -> None:
    """Between two fragments: the message cannot be completed, the peer sees whole frames and a 1011."""
    with opened(small=True, write_limit=1000) as session:

        def fragments() -> Iterator[bytes]:
            yield bytes(300_000 if where == "buffer" else 10)
            if where == "iterable":
                Event().wait()
            yield b"never"

        sending = gevent.spawn(session.ws.send_fragments, fragments())
        waiting = gevent.spawn(session.ws.send, "waits")
        gevent.sleep(0.005)
        sending.kill()
        session.peer.expect(2, bytes(300_000 if where == "buffer" else 10))
        session.peer.expect_close(1011)
        waiting.join(PATIENCE)
        assert isinstance(waiting.exception, ConnectionClosed)


def test_a_kill_before_the_first_fragment_was_sent() -> None:
    with opened() as session:

        def fragments() -> Iterator[bytes]:
            Event().wait()
            yield b"never"

        sending = gevent.spawn(session.ws.send_fragments, fragments())
        gevent.sleep(0)
        waiting = gevent.spawn(session.ws.send, "waited")
        gevent.sleep(0)
        sending.kill()
        session.peer.expect(0x81, b"waited")
        waiting.get(timeout=PATIENCE)


def test_the_peer_closes_in_the_middle_of_fragments() -> None:
    with opened() as session:

        def fragments() -> Iterator[str]:
            yield "a"
            session.peer.send(close(1000))
            wait_until(lambda: session.ws.closed)
            yield "b"

        with pytest.raises(ConnectionClosedOK):
            session.ws.send_fragments(fragments())
        session.peer.expect(1, b"a")
        session.peer.expect_close(1000)


def test_we_close_in_the_middle_of_fragments() -> None:
    with opened() as session:

        def fragments() -> Iterator[str]:
            yield "a"
            session.ws.begin_close(1001, "")
            yield "b"

        with pytest.raises(ConnectionClosed):
            session.ws.send_fragments(fragments())
        session.peer.expect(1, b"a")
        session.peer.expect_close(1001)


# Iterating


def test_iteration_ends_with_a_normal_close() -> None:
    for code in (1000, 1001, None):
        with opened() as session:
            session.peer.send(text("1"), binary(b"2"), close(code))
            assert list(session.ws) == ["1", b"2"]
            assert list(session.ws) == []


@pytest.mark.parametrize("code", [1002, 1008, 1011, 3000, 4999])
def test_iteration_raises_behind_another_close(code: int) -> None:
    with opened() as session:
        session.peer.send(text("1"), close(code, b"why"))
        messages = iter(session.ws)
        assert next(messages) == "1"
        with pytest.raises(ConnectionClosedError) as caught:
            next(messages)
        assert caught.value.code == code
        assert caught.value.reason == "why"


def test_iteration_raises_where_tcp_was_cut() -> None:
    with opened() as session:
        session.peer.send(text("1"))
        session.peer.close()
        messages = iter(session.ws)
        assert next(messages) == "1"
        with pytest.raises(ConnectionClosedError, match="without a Close frame"):
            next(messages)


# Closing: every way it can end, and the facts behind it


def facts(ws: WebSocket) -> tuple[Any, ...]:
    return ws.state.name, ws.closed, ws.close_code, ws.close_reason, type(ws.close_error)


def test_the_peer_closes() -> None:
    with opened() as session:
        session.peer.send(close(1001, b"bye"))
        session.peer.expect_close(1001)
        session.peer.expect_end()
        assert session.ws.wait_closed(PATIENCE)
        assert facts(session.ws) == ("CLOSED", True, 1001, "bye", ConnectionClosedOK)
        error = session.ws.close_error
        assert error is not None
        assert error.received_first is True
        assert str(error) == "received 1001 (going away) 'bye', then sent 1001 (going away)"


def test_the_peer_closes_without_a_code() -> None:
    with opened() as session:
        session.peer.send(close(None))
        session.peer.expect(0x88, b"")
        session.peer.close()
        assert session.ws.wait_closed(PATIENCE)
        assert facts(session.ws) == ("CLOSED", True, 1005, "", ConnectionClosedOK)


def test_we_close() -> None:
    with opened() as session:
        closing = gevent.spawn(session.ws.close, 4000, "done")
        assert session.peer.expect_close(4000) == "done"
        assert session.ws.state is State.CLOSING
        session.peer.send(close(4000))
        session.peer.expect_end()
        # The peer has not ended its side of TCP, and need not: it has said all there was.
        closing.get(timeout=PATIENCE)
        assert facts(session.ws) == ("CLOSED", True, 4000, "", ConnectionClosedError)
        error = session.ws.close_error
        assert error is not None
        assert error.received_first is False


def test_both_close_at_once() -> None:
    with opened() as session:
        session.peer.send(close(1001))
        # The peer's Close is in our socket by now, and was not read.
        closing = gevent.spawn(session.ws.close, 1000)
        session.peer.expect_close(1000)
        session.peer.expect_end()
        session.peer.close()
        closing.get(timeout=PATIENCE)
        assert facts(session.ws) == ("CLOSED", True, 1001, "", ConnectionClosedOK)
        # One Close each: ours was not answered with a second one.
        error = session.ws.close_error
        assert error is not None
        assert error.sent is not None
        assert error.sent.code == 1000


def test_close_with_bad_arguments_sends_nothing() -> None:
    with opened() as session:
        for code, reason, kind in (
            (1005, "", ValueError),
            (1006, "", ValueError),
            (999, "", ValueError),
            (5000, "", ValueError),
            (1000, "x" * 124, ValueError),
            (1000, "\N{SNOWMAN}" * 42, ValueError),
            (True, "", TypeError),
            ("1000", "", TypeError),
            (1000, b"bye", TypeError),
            (1000, None, TypeError),
        ):
            with pytest.raises(kind):
                session.ws.close(code, reason)  # type: ignore[arg-type]
        assert not session.ws.closed
        assert session.ws.bytes_sent == 0


def test_close_twice_and_by_many() -> None:
    with opened() as session:
        closing = [gevent.spawn(session.ws.close, 1000 + number) for number in range(4)]
        session.peer.expect_close(1000)
        session.peer.send(close(1000))
        session.peer.expect_end()
        session.peer.close()
        gevent.joinall(closing, PATIENCE, raise_error=True)
        session.ws.close()
        session.ws.abort()
        assert facts(session.ws) == ("CLOSED", True, 1000, "", ConnectionClosedOK)


def test_the_peer_never_answers_our_close() -> None:
    with opened(close_timeout=0.05) as session:
        session.ws.close()
        session.peer.expect_close(1000)
        session.peer.expect_end()
        assert facts(session.ws) == ("CLOSED", True, 1006, "", ConnectionClosedError)
        assert "close_timeout" in str(session.ws.close_error)


def test_the_peer_never_ends_tcp() -> None:
    """Both Closes went: a clean end, though TCP was cut at the deadline."""
    with opened(close_timeout=0.05) as session:
        session.peer.send(close(1000))
        assert session.ws.wait_closed(PATIENCE)
        session.peer.expect_close(1000)
        session.peer.expect_end()
        assert facts(session.ws) == ("CLOSED", True, 1000, "", ConnectionClosedOK)


def test_the_peer_floods_behind_our_close() -> None:
    """What comes is dropped, message by message, until the deadline."""
    with opened(close_timeout=0.2) as session:

        def flood() -> None:
            with contextlib.suppress(ConnectionError):
                while True:
                    session.peer.send(binary(bytes(60_000)) * 10)

        gevent.sleep(0)
        flooding = gevent.spawn(flood)
        gevent.sleep(0.01)
        session.ws.close()
        flooding.join(PATIENCE)
        assert flooding.dead
        assert facts(session.ws)[:3] == ("CLOSED", True, 1006)
        with pytest.raises(ConnectionClosedError):
            session.ws.receive()


def test_a_close_behind_messages_that_nobody_receives() -> None:
    """We close with a full queue: the peer's answer stands behind all of it and is found."""
    with opened(max_queue=2) as session:
        session.peer.send(*[text("Hello")] * 1000)
        wait_until(lambda: session.ws.reading_paused)
        closing = gevent.spawn(session.ws.close)
        session.peer.expect_close(1000)
        session.peer.send(close(1000))
        session.peer.expect_end()
        session.peer.close()
        closing.get(timeout=PATIENCE)
        assert facts(session.ws)[2:] == (1000, "", ConnectionClosedOK)


def test_the_peer_half_closes_without_a_close() -> None:
    with opened() as session:
        session.peer.send(text("last"))
        session.peer.socket.shutdown(1)
        assert session.ws.wait_closed(PATIENCE)
        assert facts(session.ws) == ("CLOSED", True, 1006, "", ConnectionClosedError)
        assert session.ws.receive() == "last"
        session.peer.expect_end()


def test_the_peer_half_closes_behind_its_close() -> None:
    with opened() as session:
        session.peer.send(close(1000))
        session.peer.socket.shutdown(1)
        session.peer.expect_close(1000)
        session.peer.expect_end()
        assert session.ws.wait_closed(PATIENCE)
        assert facts(session.ws)[2:] == (1000, "", ConnectionClosedOK)


PHASES = ["open", "in a header", "in a frame", "in a message", "we closed", "it closed", "failed", "blocked"]


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_the_peer_resets_in_any_phase(phase: str, tls: bool, caplog: pytest.LogCaptureFixture) -> None:
    with opened(small=True, tls=tls) as session, caplog.at_level(logging.INFO, "geventws"):
        waiting = gevent.spawn(session.ws.receive)
        gevent.sleep(0)
        if phase == "in a header":
            session.peer.send(b"\x82\xfe\x01")
        elif phase == "in a frame":
            session.peer.send(binary(bytes(1000))[:500])
        elif phase == "in a message":
            session.peer.send(frame(0x02, b"begun"))
        elif phase == "we closed":
            session.ws.begin_close(1000, "")
            session.peer.expect_close(1000)
        elif phase == "it closed":
            session.peer.send(close(1000))
            session.peer.expect_close(1000)
        elif phase == "failed":
            session.peer.send(frame(0x83))
            session.peer.expect_close(1002)
        elif phase == "blocked":
            session.ws.send(bytes(1024 * 1024))
        session.peer.reset()
        assert session.ws.wait_closed(PATIENCE)
        waiting.join(PATIENCE)
        assert isinstance(waiting.exception, ConnectionClosed)
        assert session.ws.state is State.CLOSED
        assert session.ws.close_code == (1000 if phase == "it closed" else 1006)
        with pytest.raises(ConnectionClosed):
            session.ws.send("late")
        assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_a_message_that_is_too_big_is_answered_whatever_is_under_way() -> None:
    """16 MiB are announced and sent in full; the peer looks only then, and finds 1009 and an orderly end."""
    with opened() as session:
        session.peer.send(binary(bytes(16 * 1024 * 1024)))
        session.peer.expect_close(1009)
        session.peer.expect_end()
        assert session.ws.bytes_received < 1024 * 1024


def test_abort() -> None:
    ended: list[WebSocket] = []
    with opened(on_end=ended.append) as session:
        waiting = gevent.spawn(session.ws.receive)
        gevent.sleep(0)
        session.ws.abort()
        assert facts(session.ws) == ("CLOSED", True, 1006, "", ConnectionClosedError)
        assert ended == [session.ws]
        session.ws.abort()
        session.ws.close()
        assert ended == [session.ws]
        session.peer.expect_end()
        waiting.join(PATIENCE)
        assert "aborted here" in str(waiting.exception)


def test_abort_behind_a_closing_handshake_changes_nothing_about_it() -> None:
    with opened() as session:
        session.peer.send(close(1000))
        session.peer.expect_close(1000)
        session.ws.abort()
        assert facts(session.ws) == ("CLOSED", True, 1000, "", ConnectionClosedOK)


def test_wait_closed() -> None:
    with opened() as session:
        assert session.ws.wait_closed(0) is False
        assert session.ws.wait_closed(0.005) is False
        with pytest.raises(gevent.Timeout), gevent.Timeout(0.005):
            session.ws.wait_closed()
        waiting = [gevent.spawn(session.ws.wait_closed) for _ in range(5)]
        gevent.sleep(0)
        waiting[2].kill()
        session.peer.close()
        gevent.joinall(waiting, PATIENCE)
        assert [waiter.value for waiter in waiting if waiter is not waiting[2]] == [True] * 4
        assert session.ws.wait_closed() is True


@pytest.mark.parametrize(
    ("timeout", "error"), [(-1, ValueError), (float("nan"), ValueError), ("x", TypeError), (True, TypeError)]
)
def test_an_impossible_timeout(timeout: Any, error: type[Exception]) -> None:
    with opened() as session:
        for wait in session.ws.receive, session.ws.wait_closed:
            with pytest.raises(error, match="timeout takes seconds, 0 or more, or None, not"):
                wait(timeout)
        assert not session.ws.closed


def test_with_closes_with_1000() -> None:
    with opened() as session:

        def use() -> None:
            with session.ws as ws:
                assert ws is session.ws
                ws.send("Hello")

        using = gevent.spawn(use)
        session.peer.expect(0x81, b"Hello")
        session.peer.expect_close(1000)
        session.peer.send(close(1000))
        session.peer.expect_end()
        session.peer.close()
        using.get(timeout=PATIENCE)


@pytest.mark.parametrize("kind", [LookupError, SystemExit, gevent.GreenletExit])
def test_with_closes_with_1011_on_an_exception(kind: type[BaseException]) -> None:
    with opened(close_timeout=0.05) as session:

        def use() -> None:
            try:
                with session.ws:
                    raise kind("forced")
            except kind as error:
                caught.append(error)

        caught: list[BaseException] = []
        gevent.spawn(use).get(timeout=PATIENCE)
        session.peer.expect_close(1011)
        assert len(caught) == 1


def test_with_behind_the_end() -> None:
    with opened() as session:
        session.peer.send(close(1000))
        session.peer.expect_close(1000)
        session.peer.close()
        with pytest.raises(ConnectionClosedOK), session.ws as ws:
            ws.receive()
        assert session.ws.wait_closed(0)


# Pings


def test_a_ping_and_its_pong() -> None:
    with opened() as session:
        waiter = session.ws.ping(b"payload")
        session.peer.expect(0x89, b"payload")
        with pytest.raises(PingTimeout):
            waiter.wait(0.005)
        session.peer.send(pong(b"payload"))
        latency = waiter.wait(PATIENCE)
        assert 0 < latency < PATIENCE
        assert session.ws.latency == waiter.latency == latency


def test_a_str_as_the_payload_of_a_ping() -> None:
    with opened() as session:
        session.ws.ping("\N{SNOWMAN}")
        session.peer.expect(0x89, b"\xe2\x98\x83")
        session.ws.ping()
        session.peer.expect(0x89, b"")
        session.ws.ping(bytes(125))
        session.peer.expect(0x89, bytes(125))


@pytest.mark.parametrize("data", [bytes(126), "\N{SNOWMAN}" * 42])
def test_a_ping_that_is_too_long(data: Any) -> None:
    with opened() as session:
        with pytest.raises(ValueError, match="at most 125 bytes"):
            session.ws.ping(data)
        assert session.ws.bytes_sent == 0


def test_a_ping_that_is_meant_to_wait() -> None:
    with opened() as session:
        with pytest.raises(TypeError, match=r"a ping carries str, bytes, .*, not int; `Pong.wait` takes"):
            session.ws.ping(3)
        assert session.ws.bytes_sent == 0


def test_a_ping_that_the_end_overtakes() -> None:
    with opened() as session:
        waiters = [session.ws.ping(b"%d" % number) for number in range(3)]
        waiting = [gevent.spawn(waiter.wait) for waiter in waiters]
        gevent.sleep(0)
        session.peer.reset()
        gevent.joinall(waiting, PATIENCE)
        assert [type(waiter.exception) for waiter in waiting] == [ConnectionClosedError] * 3
        with pytest.raises(ConnectionClosedError, match="reset"):
            waiters[0].wait()


def test_as_payload_gives_exactly_str_or_bytes() -> None:
    for data in (Text("a"), Bytes(b"a"), bytearray(b"a"), memoryview(b"a")):
        assert type(as_payload(data)) in (str, bytes)
        assert as_payload(data) in ("a", b"a")


# Nothing is left


def one_life(how: int) -> None:
    sock, ours = socket_pair()
    session = Session(make_websocket(sock), RawClient(ours), lambda ws: [ws.send(message) for message in ws])
    gevent.sleep(0)
    session.peer.send(text("Hello"))
    session.peer.expect(0x81, b"Hello")
    if how == 0:
        session.peer.send(close(1000))
        session.peer.expect_close(1000)
        session.peer.close()
    elif how == 1:
        session.peer.reset()
    elif how == 2:
        session.peer.send(frame(0x83))
        session.peer.expect_close(1002)
        session.peer.close()
    else:
        session.ws.abort()
        session.peer.close()
    session.ended()


@pytest.mark.parametrize("how", range(4), ids=["close", "reset", "failed", "abort"])
def test_nothing_is_left_of_a_connection(how: int) -> None:
    """No descriptor, no watcher, no object after 20 lives; and none of it needs the garbage collector."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        one_life(how)
        gc.collect()
        gc.disable()
        try:
            descriptors = len(os.listdir("/proc/self/fd"))
            for _ in range(20):
                one_life(how)
                gevent.sleep(0.001)
            alive = [thing for thing in gc.get_objects() if type(thing) is WebSocket]
            assert len(alive) <= 1
            assert len(os.listdir("/proc/self/fd")) == descriptors
        finally:
            gc.enable()
            alive = []


def test_no_watcher_is_left() -> None:
    """With the connection over, nothing of it makes the loop turn or keeps it alive."""
    with opened(close_timeout=60.0, write_timeout=60.0) as session:
        session.ws.send("Hello")
        session.peer.send(close(1000))
        session.peer.expect(0x81, b"Hello")
        session.peer.expect_close(1000)
        session.peer.close()
        assert session.ws.wait_closed(PATIENCE)
        with LoopCounter() as turns:
            gevent.sleep(0.1)
            # A watcher that is always ready makes hundreds.
            assert turns.count < 10
