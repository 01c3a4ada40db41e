"""Many greenlets send on one connection, and are killed in the middle of it; a strict peer reads what comes.

Figures: 50 senders with 8 messages each of 1 B to 1 MiB, 400 messages and some 30 MB a variant; 500 kills
and 500 time-outs that reach a waiting `send`, for each variant.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import gevent
import pytest
from reader import VARIANTS, Reader, check, make, options_of
from support import PATIENCE, Session, opened

from geventws.exceptions import ConnectionClosed
from geventws.websocket import WebSocket

pytestmark = pytest.mark.usefixtures("no_leaks")


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
