"""Pings for silent peers, and the end of those that stay silent."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import textwrap
import time
from typing import Any

import gevent
import pytest
from gevent.event import Event
from support import (
    PATIENCE,
    LoopCounter,
    binary,
    close,
    opened,
    pong,
    serve,
    text,
    wait_until,
)

from geventws.exceptions import ConnectionClosedError
from geventws.keepalive import Keepalive
from geventws.websocket import WebSocket

pytestmark = pytest.mark.usefixtures("no_leaks")


def keepalive(interval: float, timeout: float | None) -> Keepalive:
    return Keepalive(gevent.get_hub(), interval, timeout)


def test_a_silent_peer_gets_a_ping_and_then_1011() -> None:
    kept = keepalive(0.05, 0.1)
    with opened(keepalive=kept) as session:
        begun = time.monotonic()
        first, payload = session.peer.read_frame()
        assert first == 0x89
        assert time.monotonic() - begun >= 0.04
        assert len(payload) <= 125
        assert "ping_timeout" in session.peer.expect_close(1011)
        assert time.monotonic() - begun >= 0.13
        session.peer.expect_end()
        assert session.ws.wait_closed(PATIENCE)
        assert session.ws.close_code == 1006
        assert kept.timeouts == 1
        with pytest.raises(ConnectionClosedError, match=r"no answer to a Ping within 0\.1 seconds"):
            session.ws.receive()


def test_a_pong_is_life_and_its_latency_is_kept() -> None:
    kept = keepalive(0.05, 0.3)
    with opened(keepalive=kept) as session:
        for _ in range(4):
            first, payload = session.peer.read_frame()
            assert first == 0x89
            session.peer.send(pong(payload))
        wait_until(lambda: session.ws.latency is not None)
        assert kept.timeouts == 0
        assert not session.ws.closed


def test_a_timeout_longer_than_the_interval_delays_no_ping() -> None:
    """A proxy in between counts on something that moves."""
    kept = keepalive(0.05, 2 * PATIENCE)
    with opened(keepalive=kept) as session:
        for _ in range(4):
            first, payload = session.peer.read_frame()
            assert first == 0x89
            session.peer.send(pong(payload))
        assert not session.ws.closed


def test_a_peer_has_its_whole_timeout_where_that_is_longer_than_the_interval() -> None:
    kept = keepalive(0.05, 0.3)
    with opened(keepalive=kept) as session:
        first, _ = session.peer.read_frame()
        assert first == 0x89
        begun = time.monotonic()
        # Nothing more is asked of who has not answered yet.
        assert "0.3 seconds (ping_timeout)" in session.peer.expect_close(1011)
        assert time.monotonic() - begun >= 0.27
        assert session.ws.wait_closed(PATIENCE)


def test_any_byte_is_life() -> None:
    """A large message that comes byte by byte, and no Pong: the peer is alive, and not even asked."""
    kept = keepalive(0.3, 0.3)
    with opened(keepalive=kept) as session:
        message = binary(bytes(20))
        receiving = gevent.spawn(session.ws.receive)
        for octet in message:
            session.peer.send(bytes((octet,)))
            gevent.sleep(0.04)
        # 28 bytes at 0.04 s: several intervals in sum.
        assert receiving.get(timeout=PATIENCE) == bytes(20)
        assert kept.timeouts == 0
        assert session.peer.arrived() == b""


def test_a_byte_instead_of_the_pong_is_life() -> None:
    kept = keepalive(0.05, 0.2)
    with opened(keepalive=kept) as session:
        session.ws.discard_messages()
        for _ in range(4):
            assert session.peer.read_frame()[0] == 0x89
            session.peer.send(text("no pong"))
        assert kept.timeouts == 0


def test_a_handler_that_works_keeps_its_healthy_peer() -> None:
    """The queue is full for more than three intervals and time-outs: nothing is held against the peer.

    Then the handler receives everything, and the watch goes on: the peer that falls silent is found.
    """
    kept = keepalive(0.05, 0.05)
    with opened(keepalive=kept, max_queue=2) as session:
        session.peer.send(*[text(str(number)) for number in range(10)])
        wait_until(lambda: session.ws.reading_paused)
        gevent.sleep(0.3)
        assert not session.ws.closed
        assert kept.timeouts == 0
        assert [session.ws.receive(PATIENCE) for _ in range(10)] == [str(number) for number in range(10)]
        assert session.peer.read_frame()[0] == 0x89
        session.peer.expect_close(1011)
        assert kept.timeouts == 1


def test_a_pause_in_the_middle_of_a_ping_clears_it() -> None:
    """The Ping is out when the queue fills: its Pong stands behind what is not read, and is not missed."""
    kept = keepalive(0.05, 0.1)
    with opened(keepalive=kept, max_queue=1) as session:
        payload = session.peer.read_frame()[1]
        session.peer.send(text("1"), text("2"), pong(payload))
        wait_until(lambda: session.ws.reading_paused)
        gevent.sleep(0.25)
        assert not session.ws.closed
        assert [session.ws.receive(PATIENCE) for _ in range(2)] == ["1", "2"]
        wait_until(lambda: session.ws.latency is not None)


def test_a_loop_that_was_held_up_is_no_fault_of_the_peer() -> None:
    """The Pong is in our socket when a handler computes for longer than the time-out: it is read first."""
    kept = keepalive(0.1, 0.2)
    with opened(keepalive=kept) as session:
        payload = session.peer.read_frame()[1]
        # From here on the loop stands still; not gevent's sleep.
        session.peer.socket._sock.send(pong(payload))
        time.sleep(0.6)
        assert session.peer.read_frame()[0] == 0x89
        assert kept.timeouts == 0
        assert session.ws.latency is not None


def test_without_a_timeout_it_asks_and_ends_nothing() -> None:
    kept = keepalive(0.03, None)
    with opened(keepalive=kept) as session:
        payloads = [session.peer.read_frame() for _ in range(5)]
        assert {first for first, _ in payloads} == {0x89}
        assert len({payload for _, payload in payloads}) == 5
        assert not session.ws.closed


def test_it_needs_no_handler() -> None:
    """A handler that never receives: the Pongs are seen all the same."""
    # Seconds, not less: this process is the peer too, and may be kept waiting.
    kept = keepalive(0.04, 1.5)
    with opened(lambda ws: ws.wait_closed(), keepalive=kept) as session:
        for _ in range(3):
            first, payload = session.peer.read_frame()
            assert first == 0x89
            session.peer.send(pong(payload))
        assert kept.timeouts == 0


def test_no_ping_behind_a_close() -> None:
    kept = keepalive(0.03, 0.05)
    with opened(keepalive=kept, close_timeout=0.3) as session:
        session.ws.begin_close(1000, "")
        assert session.peer.read_frames() == [(0x88, b"\x03\xe8")]
        assert kept.timeouts == 0
        assert "close_timeout" in str(session.ws.close_error)


def test_many_connections_cost_one_timer_and_leave_none() -> None:
    kept = keepalive(0.2, 0.2)
    sessions = []
    try:
        for _ in range(30):
            manager = opened(keepalive=kept)
            sessions.append((manager, manager.__enter__()))
        for _, session in sessions:
            assert session.peer.read_frame()[0] == 0x89
    finally:
        for manager, _ in sessions:
            manager.__exit__(None, None, None)
    assert kept.timeouts == 0
    with LoopCounter() as turns:
        gevent.sleep(0.3)
        # Far fewer than one for each; libuv takes one more to sleep.
        assert turns.count <= 6


def test_an_idle_connection_costs_no_turn_of_its_own() -> None:
    """Between two looks of the shared timer, 1/20 of the interval apart, nothing happens."""
    kept = keepalive(10.0, 10.0)
    with opened(keepalive=kept), LoopCounter() as turns:
        gevent.sleep(0.3)
        assert turns.count <= 4


class Watched:
    """As much of a connection as a keepalive sees."""

    def __init__(self, number: int) -> None:
        self.id = number
        self.keepalive_slot = -1
        self.last_received = time.monotonic()
        self.reading_paused = False
        self.closed = False
        self.pings = 0
        self.failed = False
        self.broken = False

    def send_keepalive(self) -> None:
        if self.broken:
            raise LookupError("forced")
        self.pings += 1

    def fail_timeout(self, detail: str) -> None:
        self.failed = True


def test_an_exception_for_one_connection_disturbs_no_other(caplog: pytest.LogCaptureFixture) -> None:
    kept = keepalive(0.04, 0.08)
    watched: list[Any] = [Watched(number) for number in range(5)]
    watched[1].broken = True
    for ws in watched:
        kept.add(ws)
    wait_until(lambda: all(ws.failed for ws in watched if not ws.broken))
    assert [ws.pings for ws in watched] == [1, 0, 1, 1, 1]
    assert len([record for record in caplog.records if record.levelno >= logging.ERROR]) == 1


def test_who_was_removed_is_not_looked_at() -> None:
    kept = keepalive(0.03, 0.03)
    watched: list[Any] = [Watched(number) for number in range(3)]
    for ws in watched:
        kept.add(ws)
    kept.remove(watched[1])
    kept.remove(watched[1])
    wait_until(lambda: watched[0].failed and watched[2].failed)
    assert watched[1].pings == 0
    assert not watched[1].failed


CLIENT = textwrap.dedent(
    """
    import socket, sys, struct
    sock = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
    sock.sendall(b"GET / HTTP/1.1\\r\\nHost: localhost\\r\\nConnection: Upgrade\\r\\nUpgrade: websocket\\r\\n"
                 b"Sec-WebSocket-Version: 13\\r\\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\\r\\n\\r\\n")
    while True:
        data = sock.recv(4096)
        if not data:
            break
        # Answers Pings of fewer than 126 bytes, one a segment.
        if data[0] == 0x89:
            sock.sendall(bytes((0x8A, 0x80 | data[1], 0, 0, 0, 0)) + data[2:])
    """
)


def test_a_stopped_client_process_is_found() -> None:
    """SIGSTOP: its system goes on acknowledging, it does not answer any more."""
    connected, answered = Event(), []

    def handler(ws: WebSocket) -> None:
        connected.set()
        try:
            ws.receive()
        except ConnectionClosedError as error:
            answered.append(str(error))

    with serve(handler, ping_interval=0.1, ping_timeout=1.0) as server:
        child = subprocess.Popen([sys.executable, "-c", CLIENT, str(server.server_port)])
        try:
            assert connected.wait(PATIENCE)
            ws = next(iter(server.connections))
            wait_until(lambda: ws.latency is not None)
            os.kill(child.pid, signal.SIGSTOP)
            wait_until(lambda: answered)
            assert "ping_timeout" in answered[0]
            wait_until(lambda: not server.connections)
        finally:
            os.kill(child.pid, signal.SIGCONT)
            child.kill()
            child.wait()


def test_a_killed_client_process_is_noticed_at_once() -> None:
    with serve(lambda ws: ws.wait_closed(), ping_interval=None) as server:
        child = subprocess.Popen([sys.executable, "-c", CLIENT, str(server.server_port)])
        try:
            wait_until(lambda: server.connections)
        finally:
            child.kill()
            child.wait()
        wait_until(lambda: not server.connections)


def test_a_clean_close_with_a_ping_under_way_is_clean() -> None:
    kept = keepalive(0.03, 0.2)
    with opened(keepalive=kept) as session:
        assert session.peer.read_frame()[0] == 0x89
        session.peer.send(close(1000))
        while session.peer.read_frame()[0] != 0x88:
            pass
        gevent.sleep(0.3)
        session.peer.close()
        assert session.ws.wait_closed(PATIENCE)
        assert session.ws.close_code == 1000
        assert type(session.ws.close_error).__name__ == "ConnectionClosedOK"
        assert kept.timeouts == 0
