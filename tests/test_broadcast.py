"""One message to many connections."""

from __future__ import annotations

import contextlib
import zlib
from collections.abc import Iterator
from typing import Any

import gevent
import pytest
from gevent.exceptions import BlockingSwitchOutError
from support import DEFLATE, PATIENCE, Session, close, opened, text, wait_until

from geventws import broadcast

pytestmark = pytest.mark.usefixtures("no_leaks")


@contextlib.contextmanager
def many(count: int, **options: Any) -> Iterator[list[Session]]:
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(opened(**options)) for _ in range(count)]


def block(session: Session) -> int:
    """Send until the peer takes no more; returns how many bytes stand before what comes next."""
    size = 0
    while session.ws.write_buffer_size <= 1000:
        session.ws.send(bytes(256 * 1024))
        size += 256 * 1024
    return size


def test_everyone_gets_it_once() -> None:
    with many(20) as sessions:
        connections = {session.ws for session in sessions}
        assert broadcast(connections, "Hello") == []
        assert broadcast(iter(connections), b"bytes") == []
        assert broadcast([], "nobody") == []
        for session in sessions:
            session.peer.expect(0x81, b"Hello")
            session.peer.expect(0x82, b"bytes")
            assert session.ws.messages_sent == 2


def test_one_websocket_is_no_iterable_of_them() -> None:
    with opened() as session:
        session.peer.send(text("first"))
        with pytest.raises(TypeError, match=r"an iterable of WebSockets; for one use ws.send\(\)"):
            broadcast(session.ws, "Hello")  # type: ignore[arg-type]
        # It was not received in there.
        assert session.ws.receive(timeout=PATIENCE) == "first"
        assert session.ws.messages_sent == 0


@pytest.mark.parametrize("item", [None, 5, "letter"])
def test_what_is_no_websocket_is_named_before_anything_is_sent(item: Any) -> None:
    with opened() as session:
        with pytest.raises(TypeError, match=f"and {item!r} is none"):
            broadcast([session.ws, item], "Hello")
        assert session.ws.messages_sent == 0
        broadcast([session.ws], "Hello")
        session.peer.expect(0x81, b"Hello")


def test_it_is_encoded_once(pure_only: None, monkeypatch: pytest.MonkeyPatch) -> None:
    import geventws.protocol.shared

    made = []
    build_frame = geventws.protocol.shared.build_frame

    def count(*arguments: Any) -> bytes:
        made.append(arguments)
        return build_frame(*arguments)

    monkeypatch.setattr(geventws.protocol.shared, "build_frame", count)
    with many(10) as sessions:
        broadcast([session.ws for session in sessions], "Hello")
        assert len(made) == 1


@pytest.mark.parametrize("name", DEFLATE)
def test_compressed_with_and_without_context(name: str) -> None:
    """Each peer can inflate what it gets, between messages of its own."""
    with many(5, deflate=DEFLATE[name]) as sessions:
        for index, session in enumerate(sessions):
            for _ in range(index):
                session.ws.send("Hello, only you")
        for _ in range(3):
            assert broadcast([session.ws for session in sessions], "Hello, Hello, everyone") == []
        broadcast([session.ws for session in sessions], "plain", compress=False)
        for index, session in enumerate(sessions):
            inflater = zlib.decompressobj(-15)
            for number in range(index + 3):
                first, payload = session.peer.read_frame()
                assert first == 0xC1
                if name == "deflate-no-context":
                    inflater = zlib.decompressobj(-15)
                data = inflater.decompress(payload + b"\0\0\xff\xff")
                assert data == (b"Hello, only you" if number < index else b"Hello, Hello, everyone")
            session.peer.expect(0x81, b"plain")


def test_without_context_the_compressed_frame_is_shared() -> None:
    with many(3, deflate=DEFLATE["deflate-no-context"]) as sessions:
        broadcast([session.ws for session in sessions], "Hello" * 100)
        assert len({session.peer.read_frame() for session in sessions}) == 1


def test_plain_and_compressed_connections_in_one_broadcast() -> None:
    with opened() as plain, opened(deflate=DEFLATE["deflate"]) as compressed:
        broadcast([plain.ws, compressed.ws], "Hello")
        plain.peer.expect(0x81, b"Hello")
        assert compressed.peer.read_frame()[0] == 0xC1


def test_a_slow_peer_is_closed_with_1013_and_nobody_waits() -> None:
    with many(2, small=True, write_limit=1000, slow_consumer="close") as (slow, fast):
        size = block(slow)
        connections = [slow.ws, fast.ws]
        switched: list[bool] = []
        gevent.get_hub().loop.run_callback(switched.append, True)
        assert broadcast(connections, "Hello") == [slow.ws]
        # Nothing else ran meanwhile: it has not waited.
        assert switched == []
        assert slow.ws.times_slow == 1
        assert slow.ws.closed
        assert broadcast(connections, "again") == []
        fast.peer.expect(0x81, b"Hello")
        fast.peer.expect(0x81, b"again")
        while size:
            size -= len(slow.peer.read_frame()[1])
        assert "write_limit" in slow.peer.expect_close(1013)
        slow.peer.send(close(1013))
        slow.peer.expect_end()


def test_a_slow_peer_is_skipped() -> None:
    with many(2, small=True, write_limit=1000, slow_consumer="skip") as (slow, fast):
        size = block(slow)
        assert broadcast([slow.ws, fast.ws], "missed") == [slow.ws]
        assert broadcast([slow.ws, fast.ws], "missed") == [slow.ws]
        assert slow.ws.times_slow == 2
        fast.peer.expect(0x81, b"missed")
        while size:
            size -= len(slow.peer.read_frame()[1])
        wait_until(lambda: slow.ws.write_buffer_size == 0)
        assert broadcast([slow.ws, fast.ws], "seen") == []
        slow.peer.expect(0x81, b"seen")
        fast.peer.expect(0x81, b"missed")
        fast.peer.expect(0x81, b"seen")


def test_what_waits_for_slow_peers_is_bounded() -> None:
    """1000 broadcasts of 10 kB to a peer that never reads: no more than the limit and one message wait."""
    with opened(small=True, write_limit=100_000, slow_consumer="skip") as session:
        for _ in range(1000):
            broadcast([session.ws], bytes(10_000))
            assert session.ws.write_buffer_size <= 100_000 + 10_004
        assert session.ws.times_slow > 900


def test_closed_and_closing_connections_are_passed_over() -> None:
    with many(4) as (closed, closing, aborted, open_one):
        closed.peer.send(close(1000))
        closed.peer.expect_close(1000)
        closing.ws.begin_close(1000, "")
        aborted.ws.abort()
        sessions = (closed, closing, aborted, open_one)
        assert broadcast([session.ws for session in sessions], "Hello") == []
        open_one.peer.expect(0x81, b"Hello")
        closing.peer.expect_close(1000)
        assert closing.peer.arrived() == b""


def test_a_peer_that_is_gone_disturbs_nobody() -> None:
    with many(3) as sessions:
        sessions[1].peer.reset()
        for _ in range(3):
            assert broadcast([session.ws for session in sessions], "Hello") == []
        for session in (sessions[0], sessions[2]):
            for _ in range(3):
                session.peer.expect(0x81, b"Hello")
        assert sessions[1].ws.wait_closed(PATIENCE)


def test_the_set_may_change_meanwhile() -> None:
    connections = set()

    with many(5) as sessions:
        for session in sessions:
            connections.add(session.ws)

        def each() -> Iterator[Any]:
            yield from list(connections)
            connections.clear()

        assert broadcast(each(), "Hello") == []
        for session in sessions:
            session.peer.expect(0x81, b"Hello")


def test_it_works_in_a_callback_of_the_event_loop() -> None:
    """It never waits, so it may be called where waiting is not possible."""
    results: list[Any] = []

    def call(connections: list[Any]) -> None:
        try:
            results.append(broadcast(connections, "Hello"))
        except BlockingSwitchOutError as error:
            results.append(error)

    with opened(small=True, write_limit=1000) as slow, opened() as fast:
        block(slow)
        gevent.get_hub().loop.run_callback(call, [slow.ws, fast.ws])
        fast.peer.expect(0x81, b"Hello")
        assert results == [[slow.ws]]


def test_to_the_connection_whose_message_is_being_handled() -> None:
    """In its order among the replies, and in one segment with them."""
    with opened(lambda ws: [(ws.send("1"), broadcast([ws], "2"), ws.send("3")) for _ in ws]) as session:
        gevent.sleep(0)
        session.peer.send(text("go"))
        session.peer.expect(0x81, b"1")
        session.peer.expect(0x81, b"2")
        session.peer.expect(0x81, b"3")
