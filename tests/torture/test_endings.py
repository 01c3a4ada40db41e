"""Connections that end in every way, in any phase, many at once; and what is left of them: nothing.

Figures: 800 connections with a reset in eight phases; 400 connections of which both sides end each other at
random, 20 at a time; 1500 connections one after the other, of which no object and no descriptor stays.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import random
from collections.abc import Callable
from typing import Any

import gevent
import pytest
from support import (
    HANDSHAKE,
    PATIENCE,
    RawClient,
    Session,
    binary,
    close,
    frame,
    make_websocket,
    ping,
    reset,
    serve,
    socket_pair,
    text,
    wait_until,
    wrap_pair,
)

from geventws.exceptions import ConnectionClosed
from geventws.serving import run_handler
from geventws.websocket import State, WebSocket

pytestmark = pytest.mark.usefixtures("no_leaks")


def echo(ws: WebSocket) -> None:
    for message in ws:
        ws.send(message)


def before_the_request(address: Any) -> Any:
    sock = gevent.socket.socket()
    sock.connect(address)
    return sock


def in_the_request(address: Any) -> Any:
    sock = before_the_request(address)
    sock.sendall((HANDSHAKE % (b"/", b""))[:50])
    return sock


def behind_the_request(address: Any) -> Any:
    sock = before_the_request(address)
    sock.sendall(HANDSHAKE % (b"/", b""))
    return sock


def behind_the_answer(address: Any) -> Any:
    return RawClient.connect(address).socket


def in_a_header(address: Any) -> Any:
    client = RawClient.connect(address)
    client.send(b"\x82\xff\0\0")
    return client.socket


def in_a_frame(address: Any) -> Any:
    client = RawClient.connect(address)
    client.send(binary(bytes(5000))[:3000])
    return client.socket


def with_replies_under_way(address: Any) -> Any:
    client = RawClient.connect(address, small=True)
    client.send(*[binary(bytes(50_000))] * 10)
    return client.socket


def in_the_closing_handshake(address: Any) -> Any:
    client = RawClient.connect(address)
    client.send(close(1000))
    return client.socket


@pytest.mark.parametrize(
    "begin",
    [
        before_the_request,
        in_the_request,
        behind_the_request,
        behind_the_answer,
        in_a_header,
        in_a_frame,
        with_replies_under_way,
        in_the_closing_handshake,
    ],
)
def test_a_hundred_resets_in_each_phase(
    begin: Callable[[Any], Any], caplog: pytest.LogCaptureFixture
) -> None:
    """No traceback, no descriptor, and the next client is served."""
    rng = random.Random(begin.__name__)
    with serve(echo) as server:
        for _ in range(100):
            sock = begin(server.address)
            if rng.random() < 0.5:
                gevent.sleep(rng.choice((0, 0.001)))
            reset(sock)
        with RawClient.connect(server.address) as client:
            client.send(text("Hello"))
            client.expect(0x81, b"Hello")
        wait_until(lambda: not server.connections)
        assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


PEER_ENDS = ["close", "close and go", "end", "half close", "reset", "garbage", "too big", "stall", "flood"]
OUR_ENDS = ["return", "raise", "close", "abort", "kill", "wait", "drop", "receive"]


class Expected(Exception):
    """What handlers here raise on purpose."""


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("seed", range(2))
def test_both_sides_end_at_random(seed: int, tls: bool, caplog: pytest.LogCaptureFixture) -> None:
    """100 connections a run, 20 at a time: each is over in the end, told so once, and its waiters too.

    What is logged at the level of errors is what handlers raised on purpose, and nothing else.
    """
    rng = random.Random(seed)
    told: dict[int, int] = {}
    raised = [0]

    def on_end(ws: WebSocket) -> None:
        told[ws.id] = told.get(ws.id, 0) + 1

    def handler(ws: WebSocket) -> None:
        end = rng.choice(OUR_ENDS)
        for _ in range(rng.randrange(5)):
            with contextlib.suppress(TimeoutError):
                ws.send(bytes(rng.choice((0, 10, 3000, 100_000))))
                ws.receive(rng.choice((0, 0.001, 0.003)))
        if end == "raise":
            raised[0] += 1
            raise Expected
        if end == "close":
            ws.close(rng.choice((1000, 1001, 3000)))
        elif end == "abort":
            ws.abort()
        elif end == "kill":
            gevent.getcurrent().kill(block=False)
            ws.receive()
        elif end == "wait":
            # Without this a full queue would hide the peer's end from a handler that does not receive.
            ws.discard_messages()
            ws.wait_closed()
        elif end == "drop":
            ws.discard_messages()
            ws.wait_closed(0.01)
        elif end == "receive":
            for _ in ws:
                ws.ping()

    def peer_side(peer: RawClient) -> None:
        end = rng.choice(PEER_ENDS)
        for _ in range(rng.randrange(5)):
            peer.send(rng.choice((text("x"), ping(b"y"), binary(bytes(5000)), frame(0x01, b"begun")[:4])))
            if rng.random() < 0.5:
                gevent.sleep(rng.choice((0, 0.001)))
        if end in ("close", "close and go"):
            peer.send(close(rng.choice((1000, 1001, 4000, None))))
        if end == "half close":
            gevent.socket.socket.shutdown(peer.socket, 1)
        elif end == "reset":
            peer.reset()
            return
        elif end == "garbage":
            peer.send(rng.randbytes(100))
        elif end == "too big":
            peer.send(binary(bytes(2 * 1024 * 1024)))
        elif end == "stall":
            gevent.sleep(0.02)
        elif end == "flood":
            peer.send(*[binary(bytes(1000))] * 500)
        if end not in ("end", "close and go"):
            # If our side waits as well, this one goes first.
            peer.socket.settimeout(0.05)
            while peer.socket.recv(100_000):
                pass

    def one() -> None:
        sock, ours = socket_pair(small=rng.random() < 0.5)
        if tls:
            sock, ours = wrap_pair(sock, ours)
        peer = RawClient(ours)
        ws = make_websocket(
            sock,
            on_end=on_end,
            close_timeout=0.1,
            write_timeout=0.2,
            max_queue=rng.choice((1, 16)),
            write_limit=rng.choice((1000, 1_000_000)),
        )
        running = gevent.spawn(run_handler, ws, handler, {})
        waiting = [gevent.spawn(ws.wait_closed) for _ in range(2)]
        try:
            with contextlib.suppress(OSError):
                peer_side(peer)
        finally:
            peer.close()
        gevent.joinall([running, *waiting], PATIENCE, raise_error=True)
        assert all(waiter.value is True for waiter in waiting)
        assert running.dead
        assert ws.state is State.CLOSED
        assert ws.close_error is not None
        assert ws.write_buffer_size == 0
        with pytest.raises(ConnectionClosed):
            ws.send("late")
        assert told.pop(ws.id) == 1

    pool = gevent.pool.Pool(20)
    runs = [pool.spawn(one) for _ in range(100)]
    gevent.joinall(runs, 25, raise_error=True)
    assert all(run.dead for run in runs)
    assert told == {}
    serious = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(serious) == raised[0]
    assert all(record.exc_info and record.exc_info[0] is Expected for record in serious)


def test_no_object_stays_of_1500_connections() -> None:
    """Opened, used and ended in five ways; the garbage collector is asked once, at the end."""

    def one(how: int) -> None:
        sock, ours = socket_pair()
        session = Session(make_websocket(sock), RawClient(ours), echo)
        session.peer.send(text("Hello"))
        session.peer.expect(0x81, b"Hello")
        if how == 0:
            session.peer.send(close(1000))
            session.peer.expect_close(1000)
        elif how == 1:
            session.peer.reset()
        elif how == 2:
            session.peer.send(frame(0x83))
            session.peer.expect_close(1002)
        elif how == 3:
            session.ws.abort()
        session.peer.close()
        session.ended()

    for number in range(100):
        one(number % 5)
    gc.collect()
    objects = len(gc.get_objects())
    descriptors = len(os.listdir("/proc/self/fd"))
    for number in range(1500):
        one(number % 5)
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) == descriptors
    assert len(gc.get_objects()) - objects < 150


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_descriptors_are_reused_all_the_time(tls: bool) -> None:
    """300 connections, of which a handler aborts each in the middle of its input and opens the next.

    The numbers are used again at once; every byte reaches the connection that it was sent on.
    """
    arrived: list[str] = []

    def one(number: int) -> None:
        def handler(ws: WebSocket) -> None:
            for message in ws:
                arrived.append(message)
                if message.endswith("2"):
                    ws.send("x" * 1000)
                    ws.abort()
                    if number < 300:
                        following.append(gevent.spawn(one, number + 1))
                    ws.wait_closed()
                    return

        sock, ours = socket_pair()
        if tls:
            sock, ours = wrap_pair(sock, ours)
        session = Session(make_websocket(sock), RawClient(ours), handler)
        gevent.sleep(0)
        session.peer.send(*[text(f"{number} {index}") for index in range(10)])
        session.ended()
        session.peer.close()

    following = [gevent.spawn(one, 1)]
    with gevent.Timeout(25):
        for spawned in following:
            spawned.get()
    assert arrived == [f"{number} {index}" for number in range(1, 301) for index in range(3)]
