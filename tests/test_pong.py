"""Pings that wait for their Pongs."""

from __future__ import annotations

from typing import Any

import gevent
import pytest
from support import PATIENCE, opened, pong

from geventws.exceptions import ConnectionClosedError, PingTimeout
from geventws.pong import PongQueue
from geventws.protocol.closing import Close

pytestmark = pytest.mark.usefixtures("no_leaks")


def test_each_pong_answers_the_first_ping_of_its_payload() -> None:
    queue = PongQueue()
    first, second = queue.add(b"a"), queue.add(b"a")
    assert queue.receive(b"a") == first.latency
    assert second.latency is None
    assert queue.receive(b"a") == second.latency
    assert queue.receive(b"a") is None


def test_a_pong_answers_the_pings_before_it_too() -> None:
    """RFC 6455 section 5.5.3: a peer may answer only the most recent Ping."""
    queue = PongQueue()
    pongs = [queue.add(payload) for payload in (b"a", b"b", b"c", b"d")]
    latency = queue.receive(b"c")
    assert latency == pongs[2].latency
    assert [waiter.latency is not None for waiter in pongs] == [True, True, True, False]


@pytest.mark.parametrize(("timeout", "error"), [(-1, ValueError), ("1", TypeError)])
def test_waiting_refuses_an_impossible_timeout(timeout: Any, error: type[Exception]) -> None:
    waiter = PongQueue().add(b"a")
    with pytest.raises(error, match="0 or more, or None"):
        waiter.wait(timeout)


def test_a_pong_that_answers_nothing() -> None:
    queue = PongQueue()
    waiter = queue.add(b"a")
    assert queue.receive(b"") is None
    assert queue.receive(b"A") is None
    assert waiter.latency is None


def test_the_keepalive_remembers_its_latest_ping_only() -> None:
    """A peer that sends a byte now and then, and never a Pong, must not make the list grow."""
    queue = PongQueue()
    asked = queue.add(b"asked by the application")
    payloads = [queue.add_own() for _ in range(1000)]
    assert len(set(payloads)) == 1000
    assert all(len(payload) <= 125 for payload in payloads)
    assert len(queue._waiting) == 2
    assert queue.receive(payloads[0]) is None
    assert queue.receive(payloads[-1]) is not None
    assert asked.latency is not None
    assert queue.add_own() not in payloads
    assert len(queue._waiting) == 1


def test_the_end_reaches_all_that_wait() -> None:
    queue = PongQueue()
    pongs = [queue.add(b"a") for _ in range(3)]
    waiting = [gevent.spawn(waiter.wait) for waiter in pongs]
    gevent.sleep(0)
    assert repr(pongs[0]) == "<Pong b'a' waiting>"
    error = ConnectionClosedError(None, Close(1011, "why"), None, "over")
    queue.end(error)
    gevent.joinall(waiting, PATIENCE)
    told: list[Any] = [waiter.exception for waiter in waiting]
    assert [type(one) for one in told] == [ConnectionClosedError] * 3
    assert {str(one) for one in told} == {str(error)}
    assert repr(pongs[0]) == "<Pong b'a' did not come>"
    # Each has one of its own: a shared one would collect the tracebacks, and what they hold, of all.
    assert len({id(one) for one in [error, *told]}) == 4
    depths = set()
    for _ in range(3):
        with pytest.raises(ConnectionClosedError, match="over") as caught:
            pongs[0].wait()
        depths.add(len(caught.traceback))
        assert (caught.value.sent, caught.value.detail) == (Close(1011, "why"), "over")
    assert len(depths) == 1
    assert queue.receive(b"a") is None


def test_many_wait_for_one_pong() -> None:
    queue = PongQueue()
    asked = queue.add(b"a")
    waiting = [gevent.spawn(asked.wait, PATIENCE) for _ in range(3)]
    gevent.sleep(0)
    latency = queue.receive(b"a")
    gevent.joinall(waiting, PATIENCE, raise_error=True)
    assert [waiter.value for waiter in waiting] == [latency] * 3


@pytest.mark.parametrize("timeout", [0, 0.005])
def test_a_pong_that_is_late_is_still_taken(timeout: float) -> None:
    queue = PongQueue()
    asked = queue.add(b"a")
    with pytest.raises(PingTimeout, match=f"no pong within {timeout:g} seconds"):
        asked.wait(timeout)
    with pytest.raises(TimeoutError):
        asked.wait(timeout)
    assert "waiting" in repr(asked)
    queue.receive(b"a")
    assert asked.wait(timeout) == asked.latency
    assert repr(asked).startswith("<Pong b'a' 0.")


def test_pongs_in_order_on_a_connection() -> None:
    with opened() as session:
        asked = [session.ws.ping(b"%d" % number) for number in range(10)]
        for number in range(10):
            session.peer.expect(0x89, b"%d" % number)
        session.peer.send(pong(b"unsolicited"), *[pong(b"%d" % number) for number in range(5)])
        assert [waiter.wait(PATIENCE) > 0 for waiter in asked[:5]] == [True] * 5
        assert [waiter.latency for waiter in asked[5:]] == [None] * 5
        session.peer.send(pong(b"9"))
        assert asked[6].wait(PATIENCE) >= asked[9].wait(PATIENCE)
        assert session.ws.latency == asked[9].latency


def test_a_pong_is_seen_though_nobody_receives() -> None:
    with opened() as session:
        asked = session.ws.ping(b"a")
        session.peer.send(b"\x81\x80\0\0\0\0" * 3, pong(b"a"))
        assert asked.wait(PATIENCE) > 0
        assert [session.ws.receive() for _ in range(3)] == [""] * 3
