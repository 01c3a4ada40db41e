"""Rates: what a peer may send in a second, by a clock that the test sets."""

from __future__ import annotations

from typing import Any

import pytest

from geventws import RateExceeded
from geventws.options import RateLimit
from geventws.protocol.closing import Phase
from geventws.protocol.connection import Event
from geventws.protocol.limited import Bucket, LimitedConnection

#: Masked with a key of zeros.
PING = b"\x89\x80\0\0\0\0"
PONG = b"\x8a\x80\0\0\0\0"
TEXT = b"\x81\x81\0\0\0\0a"
CLOSE = b"\x88\x82\0\0\0\0\x03\xe8"


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def limited(**limits: Any) -> tuple[LimitedConnection, Clock]:
    clock = Clock()
    return LimitedConnection(RateLimit(**limits), clock), clock


def feed(connection: LimitedConnection, data: bytes) -> list[int]:
    """Feed bytes and return the events that are told."""
    connection.receive_data(data)
    events = []
    while True:
        event = connection.next_event()
        if event == Event.NEED_DATA:
            return events
        events.append(event)


class TestBucket:
    def test_holds_a_burst_and_fills_at_its_rate(self) -> None:
        bucket = Bucket(10, 2, 0)
        assert all(bucket.take(1, 0) for _ in range(20))
        assert not bucket.take(1, 0)
        assert not bucket.take(1, 0.09)
        assert bucket.take(1, 0.2)
        assert bucket.take(20, 100)
        assert not bucket.take(1, 100)

    def test_one_always_goes(self) -> None:
        bucket = Bucket(0.1, 1, 0)
        assert bucket.take(1, 0)
        assert not bucket.take(1, 9.9)
        assert bucket.take(1, 10)

    def test_what_is_too_much_takes_nothing(self) -> None:
        bucket = Bucket(10, 1, 0)
        assert not bucket.take(11, 0)
        assert bucket.take(10, 0)


class TestMessages:
    def test_above_the_rate_fails_with_1008_behind_those_before_it(self) -> None:
        connection, _ = limited(messages=1, burst=2)
        assert feed(connection, TEXT * 3) == [Event.MESSAGE, Event.MESSAGE, Event.FAILED]
        assert connection.message is None
        assert connection.phase == Phase.FAILED
        assert connection.out == [b"\x88\x2c\x03\xf0more than 1 messages a second (rate_limit)"]
        assert isinstance(connection.error, RateExceeded)
        assert connection.error.close_code == 1008
        # Nothing behind it is looked at.
        assert feed(connection, TEXT) == []

    def test_time_lets_more_through(self) -> None:
        connection, clock = limited(messages=2, burst=1)
        for _ in range(50):
            assert feed(connection, TEXT * 2) == [Event.MESSAGE, Event.MESSAGE]
            clock.now += 1
        assert feed(connection, TEXT * 3)[-1] == Event.FAILED

    def test_fragments_are_one_message(self) -> None:
        connection, _ = limited(messages=1, burst=1)
        fragments = b"\x01\x80\0\0\0\0" + b"\x00\x80\0\0\0\0" * 50 + b"\x80\x80\0\0\0\0"
        assert feed(connection, fragments) == [Event.MESSAGE]

    def test_any_number_by_default(self) -> None:
        connection, _ = limited()
        assert feed(connection, TEXT * 1000) == [Event.MESSAGE] * 1000


class TestBytes:
    def test_above_the_rate(self) -> None:
        connection, clock = limited(bytes=10, burst=1)
        assert feed(connection, TEXT * 10) == [Event.MESSAGE] * 10
        clock.now += 0.5
        assert feed(connection, TEXT * 6) == [Event.MESSAGE] * 5 + [Event.FAILED]
        assert "10 bytes a second (rate_limit)" in str(connection.error)

    def test_empty_messages_have_none(self) -> None:
        connection, _ = limited(bytes=1, burst=1)
        assert feed(connection, b"\x81\x80\0\0\0\0" * 100) == [Event.MESSAGE] * 100


class TestControls:
    def test_p0_15_pings_above_the_rate(self) -> None:
        connection, clock = limited(controls=10, burst=1)
        assert feed(connection, PING * 10) == []
        assert connection.out == [b"\x8a\0"] * 10
        assert feed(connection, PING) == [Event.FAILED]
        assert "10 control frames a second (rate_limit)" in str(connection.error)
        connection, clock = limited(controls=10, burst=1)
        for _ in range(20):
            assert feed(connection, PING * 10) == []
            clock.now += 1

    def test_pongs_that_nobody_asked_for_count(self) -> None:
        connection, _ = limited(controls=10, burst=1)
        assert feed(connection, PONG * 11) == [Event.PONG] * 10 + [Event.FAILED]

    def test_answers_to_our_pings_do_not(self) -> None:
        connection, _ = limited(controls=10, burst=1)
        for _ in range(100):
            connection.send_ping(b"")
        assert feed(connection, PONG * 100 + PING * 10) == [Event.PONG] * 100
        assert feed(connection, PONG) == [Event.FAILED]

    def test_a_close_goes_always(self) -> None:
        connection, _ = limited(controls=10, burst=1)
        assert feed(connection, PING * 10 + CLOSE) == [Event.CLOSE]
        assert connection.close_received is not None

    def test_none(self) -> None:
        connection, _ = limited(controls=None)
        assert feed(connection, PING * 200_000) == []

    def test_between_fragments(self) -> None:
        connection, _ = limited(controls=10, burst=1)
        assert feed(connection, b"\x01\x80\0\0\0\0" + PING * 11) == [Event.FAILED]

    def test_held_pings_count_too(self) -> None:
        connection, _ = limited(controls=10, burst=1)
        connection.hold_pongs = True
        assert feed(connection, PING * 11) == [Event.FAILED]


@pytest.mark.parametrize("client", [False, True])
def test_it_is_a_connection_like_others(client: bool) -> None:
    connection = LimitedConnection(RateLimit(), Clock(), client=client, max_message_size=10)
    frame = b"\x82\x0b" if client else b"\x82\x8b\0\0\0\0"
    assert feed(connection, frame + b"x" * 11) == [Event.FAILED]
    assert connection.error is not None
    assert connection.error.close_code == 1009
