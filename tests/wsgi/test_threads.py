"""Servers with a thread for each connection: each WebSocket in its thread, and others that use it."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import gevent
import pytest
from gevent._hub_local import get_hub_if_exists
from hosting import host_threaded, open_raw
from support import HANDSHAKE, PATIENCE, RawClient, close, text, wait_until

from geventws import (
    ConcurrencyError,
    ConnectionClosed,
    PingTimeout,
    Pong,
    WebSocket,
    WebSocketMiddleware,
    broadcast,
)
from geventws.wsgi.late import LateWebSocket
from geventws.wsgi.threads import ThreadedWebSocket, hub_of_this_thread

pytestmark = pytest.mark.usefixtures("no_leaks")


def nothing(environ: Any, start_response: Any) -> Any:
    start_response("404 Not Found", [("Content-Length", "0")])
    return []


def in_thread(function: Callable[[], Any]) -> Any:
    """Call it in a thread of the system without a hub, and return what it returns or raises."""
    outcome: list[Any] = []

    def run() -> None:
        try:
            outcome.append(function())
        except BaseException as error:
            outcome.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    # The test's own hub goes on meanwhile: its client is in it.
    wait_until(lambda: not thread.is_alive())
    return outcome[0]


class Room:
    """A handler that keeps its WebSockets and waits for messages."""

    def __init__(self) -> None:
        self.members: list[Any] = []
        self.received: list[Any] = []

    def __call__(self, ws: Any) -> None:
        self.members.append(ws)
        for message in ws:
            self.received.append(message)


def test_broadcast_reaches_the_other_threads() -> None:
    members: set[Any] = set()

    def chat(ws: Any) -> None:
        members.add(ws)
        try:
            for message in ws:
                broadcast(members, message)
        finally:
            members.discard(ws)

    with host_threaded(WebSocketMiddleware(nothing, chat)) as server:
        clients = [RawClient.connect(server.address) for _ in range(4)]
        wait_until(lambda: len(members) == 4)
        for number, client in enumerate(clients):
            client.send(text(f"hello {number}"))
            for other in clients:
                other.expect(0x81, b"hello %d" % number)
        for client in clients:
            client.send(close(1000))
            client.expect_close(1000)
            client.expect_end()
            client.close()
        wait_until(lambda: not members)


def test_handlers_send_to_each_other_without_a_deadlock() -> None:
    pair: list[Any] = []

    def handler(ws: Any) -> None:
        pair.append(ws)
        ws.receive()
        other = pair[0] if pair[1] is ws else pair[1]
        for number in range(50):
            other.send(f"{number}")
        ws.send("done")
        for _ in ws:
            pass

    with host_threaded(WebSocketMiddleware(nothing, handler)) as server:
        clients = [RawClient.connect(server.address) for _ in range(2)]
        wait_until(lambda: len(pair) == 2)
        for client in clients:
            client.send(text("go"))
        for client in clients:
            got = [client.read_frame()[1] for _ in range(51)]
            assert [message for message in got if message != b"done"] == [b"%d" % n for n in range(50)]
            client.send(close(1000))
            client.expect_close(1000)
            client.close()


def with_a_hub(function: Callable[[], Any]) -> Callable[[], Any]:
    """The same, in a thread that has a hub in which nothing else is alive; the hub goes with it."""

    def call() -> Any:
        with hub_of_this_thread():
            gevent.get_hub()
            return function()

    return call


def test_every_verb_from_a_thread_whose_hub_has_nothing_else() -> None:
    """Who waits for another thread is not in a deadlock."""
    room = Room()
    with host_threaded(WebSocketMiddleware(nothing, room)) as server:
        with RawClient.connect(server.address) as client:
            wait_until(lambda: room.members)
            ws = room.members[0]
            assert in_thread(with_a_hub(lambda: ws.send("one"))) is None
            assert in_thread(with_a_hub(lambda: ws.send_fragments(["two"]))) is None
            client.expect(0x81, b"one")
            client.expect(0x01, b"two")
            client.expect(0x80, b"")
            assert isinstance(in_thread(with_a_hub(lambda: ws.send(None))), TypeError)
            assert in_thread(with_a_hub(lambda: ws.wait_closed(0.01))) is False
            # More than one call of one thread at a time.
            both = with_a_hub(lambda: gevent.joinall([gevent.spawn(ws.wait_closed, 0.01) for _ in range(2)]))
            assert [greenlet.value for greenlet in in_thread(both)] == [False, False]
            # The first one is given up, and nothing is left behind that would wake the second.
            timed = with_a_hub(lambda: (gevent.with_timeout(0.01, ws.wait_closed, timeout_value="over"),
                                        ws.wait_closed(0.01)))  # fmt: skip
            assert in_thread(timed) == ("over", False)
            assert isinstance(in_thread(with_a_hub(lambda: ws.ping(b"p").wait(0.01))), PingTimeout)
            client.expect(0x89, b"p")
            assert in_thread(with_a_hub(ws.abort)) is None
            client.expect_end()


def test_others_are_told_that_one_has_left() -> None:
    """What its own thread does when its WebSocket is over: nothing is alive in that hub then."""
    members: set[Any] = set()
    told: list[Any] = []

    def chat(ws: Any) -> None:
        members.add(ws)
        try:
            for _ in ws:
                pass
        finally:
            members.discard(ws)
            for other in list(members):
                try:
                    told.append(other.send("one has left"))
                except BaseException as error:
                    told.append(error)

    with host_threaded(WebSocketMiddleware(nothing, chat)) as server:
        with RawClient.connect(server.address) as client, RawClient.connect(server.address) as other:
            wait_until(lambda: len(members) == 2)
            client.send(close(1000))
            client.expect_close(1000)
            other.expect(0x81, b"one has left")
            wait_until(lambda: told)
            assert told == [None]


@pytest.mark.parametrize("timeout", [None, PATIENCE])
def test_pong_is_waited_for_in_any_thread(timeout: float | None, monkeypatch: pytest.MonkeyPatch) -> None:
    room = Room()

    def wait(pong: Any) -> Any:
        return pong.wait(timeout), get_hub_if_exists()

    with host_threaded(WebSocketMiddleware(nothing, room)) as server:
        with RawClient.connect(server.address) as client:
            wait_until(lambda: room.members)
            ws = room.members[0]
            pong = in_thread(lambda: ws.ping(b"p"))
            assert isinstance(pong, Pong)
            waiting = threading.Thread(target=lambda: results.append(wait(pong)))
            results: list[Any] = []
            waiting.start()
            client.expect(0x89, b"p")
            client.send(b"\x8a\x81\0\0\0\0p")
            wait_until(lambda: results)
            waiting.join(PATIENCE)
            # And no hub was made for it, which nobody would destroy.
            assert results == [(pong.latency, None)]
            # What is known does not have to be asked of a thread that may be busy.
            with monkeypatch.context() as patch:
                patch.setattr(ThreadedWebSocket, "_ask", None)
                assert in_thread(lambda: wait(pong)) == (pong.latency, None)
            late = in_thread(lambda: ws.ping(b"q"))
            client.expect(0x89, b"q")
            assert isinstance(in_thread(lambda: late.wait(0.01)), PingTimeout)
            client.send(close(1000))
            client.expect_close(1000)
            assert isinstance(in_thread(lambda: late.wait(timeout)), ConnectionClosed)
            assert in_thread(lambda: wait(pong)) == (pong.latency, None)


def test_every_verb_from_a_thread_without_a_hub() -> None:
    room = Room()
    with host_threaded(WebSocketMiddleware(nothing, room)) as server:
        with RawClient.connect(server.address) as client:
            wait_until(lambda: room.members)
            ws = room.members[0]
            assert in_thread(lambda: ws.send("one")) is None
            assert in_thread(lambda: ws.send(bytearray(b"two"))) is None
            assert in_thread(lambda: ws.send_fragments(["th", "ree"])) is None
            client.expect(0x81, b"one")
            client.expect(0x82, b"two")
            client.expect(0x01, b"th")
            client.expect(0x00, b"ree")
            client.expect(0x80, b"")
            assert isinstance(in_thread(lambda: ws.send(None)), TypeError)
            assert isinstance(in_thread(lambda: ws.send("\ud800")), UnicodeEncodeError)
            assert isinstance(in_thread(ws.receive), ConcurrencyError)
            assert isinstance(in_thread(lambda: next(ws)), ConcurrencyError)
            assert in_thread(lambda: ws.wait_closed(0.01)) is False
            assert in_thread(ws.is_slow) is False
            assert in_thread(lambda: broadcast([ws], "all")) == []
            client.expect(0x81, b"all")
            pong = in_thread(lambda: ws.ping(b"p"))
            client.expect(0x89, b"p")
            client.send(b"\x8a\x81\0\0\0\0p")
            assert pong.wait(PATIENCE) > 0
            client.send(text("from here"))
            wait_until(lambda: room.received)

            closing = threading.Thread(target=lambda: ws.close(4000, "from elsewhere"))
            closing.start()
            assert client.expect_close(4000) == "from elsewhere"
            client.send(close(4000))
            client.expect_end()
            wait_until(lambda: not closing.is_alive())
            # Its thread and its hub are gone now, or will be in a moment.
            assert isinstance(in_thread(lambda: ws.send("late")), ConnectionClosed)
            assert in_thread(ws.wait_closed) is True
            assert in_thread(ws.close) is None
            assert in_thread(ws.abort) is None


def test_what_is_said_last_from_another_thread_is_answered() -> None:
    room = Room()
    with host_threaded(WebSocketMiddleware(nothing, room)) as server:
        with RawClient.connect(server.address) as client:
            wait_until(lambda: room.members)
            ws = room.members[0]
            assert in_thread(lambda: ws.end_sending(4000, "all said")) is None
            assert client.expect_close(4000) == "all said"
            client.send(text("an answer"), close(4000))
            client.expect_end()
            assert isinstance(in_thread(ws.end_sending), ConnectionClosed)
    assert room.received == ["an answer"]


def test_no_peer_ends_what_another_thread_has_said_last() -> None:
    """The deadline runs in the WebSocket's own loop, which has to be woken for it."""
    room = Room()
    options = {"close_timeout": 0.05, "ping_interval": None}
    with host_threaded(WebSocketMiddleware(nothing, room, **options)) as server:
        with RawClient.connect(server.address):
            wait_until(lambda: room.members)
            ws = room.members[0]
            assert in_thread(ws.end_sending) is None
            assert in_thread(lambda: ws.wait_closed(PATIENCE)) is True
        assert "close_timeout" in str(ws.close_error)


@pytest.mark.parametrize("kind", [ThreadedWebSocket, LateWebSocket])
def test_each_verb_of_a_websocket_is_thought_of(kind: type) -> None:
    """A method that one of these inherits works on a connection that is another thread's, or not there."""
    for name, value in vars(WebSocket).items():
        # Those of the connection ring are called in the thread's own hub.
        if callable(value) and not name.startswith(("_", "handle_")) and name != "put_shared":
            assert name in vars(kind), name


def test_threads_that_send_are_told_of_the_end() -> None:
    """Each that is told takes its request back, while the next ones are told."""
    waiting: list[threading.Thread] = []

    def handler(ws: Any) -> None:
        def send() -> None:
            with contextlib.suppress(ConnectionClosed):
                while True:
                    ws.send("tick")

        threads = [threading.Thread(target=send, daemon=True) for _ in range(20)]
        waiting.extend(threads)
        for thread in threads:
            thread.start()
        ws.receive()

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with host_threaded(WebSocketMiddleware(nothing, handler)) as server:
            for _ in range(10):
                with RawClient.connect(server.address) as client:
                    client.expect(0x81, b"tick")
                    client.reset()
                wait_until(lambda: not any(thread.is_alive() for thread in waiting))
    finally:
        sys.setswitchinterval(interval)
    assert len(waiting) == 200
    assert [line for kind, line in server.lines if kind == "error"] == []


def test_every_verb_when_its_thread_is_gone() -> None:
    room = Room()
    with host_threaded(WebSocketMiddleware(nothing, room)) as server:
        with RawClient.connect(server.address) as client:
            client.send(close(1000))
            client.expect_close(1000)
            client.expect_end()
    ws = room.members[0]
    for use in (lambda: ws.send("x"), lambda: ws.send_fragments(["x"]), ws.ping):
        with pytest.raises(ConnectionClosed):
            use()
    assert ws.wait_closed(0) is True
    assert ws.close() is None
    assert ws.abort() is None
    assert ws.begin_close(1000, "") is None
    assert broadcast([ws], "x") == []


def test_from_a_thread_whose_own_greenlets_go_on() -> None:
    room = Room()
    with (
        host_threaded(WebSocketMiddleware(nothing, room)) as server,
        RawClient.connect(server.address) as client,
    ):
        wait_until(lambda: room.members)
        # In the hub of the test, which also has to run the client.
        ticks = []

        def tick() -> None:
            while True:
                ticks.append(1)
                # Not 0: a loop that is never idle hardly lets go of the interpreter's lock.
                gevent.sleep(0.001)

        ticker = gevent.spawn(tick)
        # Did the ticker stand still while this thread sends, this would not end.
        sent = 0
        while sent < 20 or len(ticks) < 3:
            room.members[0].send(f"{sent}")
            sent += 1
        ticker.kill()
        for number in range(sent):
            client.expect(0x81, b"%d" % number)


def test_abort_from_elsewhere() -> None:
    room = Room()
    with (
        host_threaded(WebSocketMiddleware(nothing, room)) as server,
        RawClient.connect(server.address) as client,
    ):
        wait_until(lambda: room.members)
        in_thread(room.members[0].abort)
        assert room.members[0].closed
        client.expect_end()


def test_slow_peer_is_seen_from_elsewhere() -> None:
    room = Room()
    middleware = WebSocketMiddleware(
        nothing, room, write_limit=100_000, slow_consumer="close", write_timeout=None
    )
    with host_threaded(middleware) as server, RawClient.connect(server.address, small=True) as client:
        wait_until(lambda: room.members)
        ws = room.members[0]
        message = b"x" * 50_000
        slow: list[Any] = []
        until = time.monotonic() + PATIENCE
        while not slow:
            slow = broadcast([ws], message)
            assert time.monotonic() < until
        assert slow == [ws]
        assert ws.times_slow == 1
        frames = client.read_frames()
        assert frames[-1][0] == 0x88
        assert frames[-1][1][:2] == (1013).to_bytes(2, "big")


def test_shutdown_from_the_main_thread() -> None:
    room = Room()
    middleware = WebSocketMiddleware(nothing, room, stop_timeout=PATIENCE)
    with host_threaded(middleware) as server:
        clients = [RawClient.connect(server.address) for _ in range(3)]
        wait_until(lambda: len(room.members) == 3)
        stopping = gevent.spawn(middleware.shutdown)
        for client in clients:
            client.expect_close(1001)
            client.send(close(1001))
            client.expect_end()
            client.close()
        stopping.get(timeout=PATIENCE)
        assert middleware.connections == set()


def test_late_accept_and_rejection() -> None:
    def app(environ: Any, start_response: Any) -> Any:
        ws = environ["wsgi.websocket"]
        if environ["PATH_INFO"] == "/no":
            return nothing(environ, start_response)
        ws.colour = "blue"
        for message in ws:
            ws.send(message + ws.colour)
        return []

    from hosting import ask

    with host_threaded(WebSocketMiddleware(app)) as server:
        assert ask(server, b"/no").startswith(b"HTTP/1.1 404 ")
        with RawClient.connect(server.address) as client:
            client.send(text("x"))
            client.expect(0x81, b"xblue")
            client.send(close(1000))
            client.expect_close(1000)
            client.expect_end()
        wait_until(lambda: sum('" 101 ' in line for _, line in server.lines) == 1)
    assert not [line for kind, line in server.lines if kind == "error"]


def test_keepalive_in_its_thread() -> None:
    room = Room()
    middleware = WebSocketMiddleware(nothing, room, ping_interval=0.05, ping_timeout=0.05)
    with host_threaded(middleware) as server, RawClient.connect(server.address) as client:
        first, payload = client.read_frame()
        assert first == 0x89
        assert payload.startswith(b"keepalive")
        # Never answered.
        assert client.read_frames()[-1][1][:2] == (1011).to_bytes(2, "big")


def test_only_its_own_thread_accepts() -> None:
    shared: list[Any] = []
    done = threading.Event()

    def app(environ: Any, start_response: Any) -> Any:
        shared.append(environ["wsgi.websocket"])
        assert done.wait(PATIENCE)
        return nothing(environ, start_response)

    with host_threaded(WebSocketMiddleware(app)) as server:
        with open_raw(server, HANDSHAKE % (b"/", b"")) as client:
            wait_until(lambda: shared)
            for use in (lambda: shared[0].send("x"), shared[0].accept):
                with pytest.raises(ConcurrencyError, match="accept\\(\\) there"):
                    use()
            assert not shared[0].closed
            done.set()
            assert client.read_bytes(12) == b"HTTP/1.1 404"
            client.socket.recv(1000)


def test_broadcast_passes_over_those_that_another_thread_has_not_accepted() -> None:
    kept: list[Any] = []
    answer = threading.Event()

    def app(environ: Any, start_response: Any) -> Any:
        ws = environ["wsgi.websocket"]
        kept.append(ws)
        if environ["PATH_INFO"] == "/slow":
            assert answer.wait(PATIENCE)
            return nothing(environ, start_response)
        ws.accept()
        for _ in ws:
            assert broadcast(kept, "to all") == []
        return nothing(environ, start_response)

    with (
        host_threaded(WebSocketMiddleware(app)) as server,
        open_raw(server, HANDSHAKE % (b"/slow", b"")) as slow,
    ):
        wait_until(lambda: kept)
        with RawClient.connect(server.address) as client:
            client.send(text("x"))
            client.expect(0x81, b"to all")
            client.send(close(1000))
            client.expect_close(1000)
            client.expect_end()
        answer.set()
        assert slow.read_bytes(12) == b"HTTP/1.1 404"
        slow.socket.recv(1000)
