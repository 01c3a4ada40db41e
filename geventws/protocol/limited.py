"""A connection whose peer may send only so much in a second.

The rates are token buckets. The protocol has no clock: whoever makes the connection gives one.

Compiled with limited.pxd, because it overrides what is compiled there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..exceptions import RateExceeded
from .connection import Connection

if TYPE_CHECKING:
    from ..options import RateLimit

__all__ = ["Bucket", "LimitedConnection"]


class Bucket:
    """Holds `rate` times `burst` tokens at the most, and gets `rate` of them in a second."""

    __slots__ = ("_at", "_left", "_rate", "_size")

    def __init__(self, rate: float, burst: float, now: float) -> None:
        """Args: rate: tokens a second; burst: seconds; now: the time, in seconds of any clock."""
        self._rate = rate
        self._size = rate * burst
        if self._size < 1:
            # One of something always goes.
            self._size = 1
        self._left = self._size
        self._at = now

    def take(self, count: float, now: float) -> bool:
        """Take tokens out; False if there are not so many."""
        self._left += (now - self._at) * self._rate
        if self._left > self._size:
            self._left = self._size
        self._at = now
        if self._left < count:
            return False
        self._left -= count
        return True


class LimitedConnection(Connection):
    """A `Connection` that is failed with 1008 when its peer exceeds a rate.

    Buckets are made when there is something to count: most connections never see a control frame.
    """

    __slots__ = ("_bytes", "_clock", "_controls", "_counts", "_limit", "_messages_left", "_pongs_due")

    def __init__(self, limit: RateLimit, clock: Callable[[], float], **arguments: Any) -> None:
        """Args: limit: the rates; clock: gives the time in seconds; arguments: as for `Connection`."""
        Connection.__init__(self, **arguments)
        self._limit = limit
        #: Messages are counted, which by default they are not: it is asked for each of them.
        self._counts = limit.messages is not None or limit.bytes is not None
        self._clock = clock
        self._controls: Bucket | None = None
        self._messages_left: Bucket | None = None
        self._bytes: Bucket | None = None
        #: Pings of ours that are not answered; RFC 6455 section 5.5.3 lets a peer leave some out.
        self._pongs_due = 0

    def next_event(self) -> int:
        """As `Connection.next_event`."""
        event = Connection.next_event(self)
        if event == 1 and self._counts:
            error = self._count_message()
            if error is not None:
                self.message = None
                self._deferred = error
                self._go_inert()
                return 4
        return event

    def _count_message(self) -> RateExceeded | None:
        """Count the message that has come; returns the violation that it is, or None."""
        limit = self._limit
        now = self._clock()
        if limit.messages is not None:
            if self._messages_left is None:
                self._messages_left = Bucket(limit.messages, limit.burst, now)
            if not self._messages_left.take(1, now):
                return RateExceeded(f"more than {limit.messages:g} messages a second (rate_limit)")
        if limit.bytes is not None:
            if self._bytes is None:
                self._bytes = Bucket(limit.bytes, limit.burst, now)
            if not self._bytes.take(self.message_size, now):
                return RateExceeded(f"more than {limit.bytes:g} bytes a second (rate_limit)")
        return None

    def send_ping(self, payload: bytes) -> None:
        """As `Connection.send_ping`."""
        Connection.send_ping(self, payload)
        self._pongs_due += 1

    def _control(self, opcode: int, payload: bytes) -> int:
        """As `Connection._control`, if it is not one too many."""
        rate = self._limit.controls
        if opcode == 0xA and self._pongs_due > 0:
            self._pongs_due -= 1
        elif opcode != 8 and rate is not None:
            now = self._clock()
            if self._controls is None:
                self._controls = Bucket(rate, self._limit.burst, now)
            if not self._controls.take(1, now):
                raise RateExceeded(f"more than {rate:g} control frames a second (rate_limit)")
        return Connection._control(self, opcode, payload)
