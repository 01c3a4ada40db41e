"""Pings that wait for their Pongs (RFC 6455 sections 5.5.2 and 5.5.3)."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Any

from gevent.event import Event

from .exceptions import ConnectionClosed, PingTimeout
from .options import check_timeout

__all__ = ["Pong", "PongQueue"]

#: Pings of one connection that wait for their Pongs; beyond it the oldest give up.
MAX_WAITING = 1024


class Pong:
    """The Pong that a Ping waits for.

    Attributes:
        payload: what the Ping carried.
        latency: the round trip in seconds, None until it came.
    """

    __slots__ = ("_done", "_error", "_sent", "do", "latency", "payload")

    def __init__(self, payload: bytes) -> None:
        self.payload = payload
        self.latency: float | None = None
        self._sent = time.perf_counter()
        self._error: ConnectionClosed | PingTimeout | None = None
        self._done = Event()
        #: Where a WebSocket lives in one of several threads: has that one call a function.
        self.do: Callable[[Callable[[], float]], float] | None = None

    def __repr__(self) -> str:
        if self.latency is not None:
            state = f"{self.latency:.6f} s"
        else:
            state = "waiting" if self._error is None else "did not come"
        return f"<Pong {self.payload!r} {state}>"

    def wait(self, timeout: float | None = None) -> float:
        """Wait for the Pong.

        Args:
            timeout: seconds; None waits as long as the connection lasts. In another thread than the
                WebSocket's, they begin when that one turns to it.

        Returns:
            The round trip in seconds.

        Raises:
            PingTimeout: if it did not come in time.
            ConnectionClosed: if the connection ended before it came.
            TypeError, ValueError: for a timeout that is no number or negative.
        """
        check_timeout(timeout)
        # Its own thread may be busy: what is known is not asked there.
        if self.do is None or self.latency is not None or self._error is not None:
            return self._wait(timeout)
        return self.do(lambda: self._wait(timeout))

    def _wait(self, timeout: float | None) -> float:
        # Not where it is known: another thread, which may ask when this one has gone, would get a hub by it.
        if self.latency is None and self._error is None:
            self._done.wait(timeout)
        if self.latency is not None:
            return self.latency
        error = self._error
        if error is not None:
            # One for each who waits: a shared one would collect all of their tracebacks.
            raise type(error)(*error.args)
        raise PingTimeout(f"no pong within {timeout:g} seconds")

    def _receive(self) -> float:
        self.latency = time.perf_counter() - self._sent
        self._done.set()
        return self.latency

    def _end(self, error: ConnectionClosed | PingTimeout) -> None:
        self._error = error
        self._done.set()


class PongQueue:
    """The Pings of one connection that were not answered yet, in their order.

    A peer that never answers, and shows in other ways that it lives, cannot make it grow: the oldest
    give up, and the keepalive has one at a time.
    """

    __slots__ = ("_count", "_own", "_payloads", "_waiting")

    def __init__(self) -> None:
        self._waiting: deque[Pong] = deque()
        #: How many of each payload wait: a Pong that answers nothing is known at once.
        self._payloads: dict[bytes, int] = {}
        self._count = 0
        #: The Pong of the keepalive's latest Ping.
        self._own: Pong | None = None

    def add(self, payload: bytes) -> Pong:
        """Remember a Ping that is being sent."""
        if len(self._waiting) >= MAX_WAITING:
            self._pop()._end(PingTimeout(f"{MAX_WAITING} later pings were sent and none was answered"))
        pong = Pong(payload)
        self._waiting.append(pong)
        self._payloads[payload] = self._payloads.get(payload, 0) + 1
        return pong

    def add_own(self) -> bytes:
        """Remember a Ping of the keepalive, instead of the one before; returns its payload, a new one."""
        if self._own is not None and self._own in self._waiting:
            self._waiting.remove(self._own)
            self._uncount(self._own)
        self._count += 1
        self._own = self.add(b"keepalive %d" % self._count)
        return self._own.payload

    def _pop(self) -> Pong:
        """Take the oldest off."""
        pong = self._waiting.popleft()
        self._uncount(pong)
        return pong

    def _uncount(self, pong: Pong) -> None:
        left = self._payloads[pong.payload] - 1
        if left:
            self._payloads[pong.payload] = left
        else:
            del self._payloads[pong.payload]

    def receive(self, payload: bytes) -> float | None:
        """Take a Pong: it answers the first Ping of its payload, and those before that.

        Returns:
            The round trip in seconds, or None if it answers nothing.
        """
        # RFC 6455 section 5.5.3: a peer may answer only the most recent of several Pings, and may send
        # Pongs that answer nothing.
        if payload not in self._payloads:
            return None
        while True:
            pong = self._pop()
            latency = pong._receive()
            if pong.payload == payload:
                return latency

    def end(self, error: Any) -> None:
        """The connection is over: none of them will be answered."""
        while self._waiting:
            self._pop()._end(error)
