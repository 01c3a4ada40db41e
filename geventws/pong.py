"""Pings that wait for their Pongs (RFC 6455 sections 5.5.2 and 5.5.3)."""

from __future__ import annotations

import time
from collections import deque
from typing import Any

from gevent.event import Event

from .exceptions import ConnectionClosed, PingTimeout

__all__ = ["Pong", "PongQueue"]


class Pong:
    """The Pong that a Ping waits for.

    Attributes:
        payload: what the Ping carried.
        latency: the round trip in seconds, None until it came.
    """

    __slots__ = ("_done", "_error", "_sent", "latency", "payload")

    def __init__(self, payload: bytes) -> None:
        self.payload = payload
        self.latency: float | None = None
        self._sent = time.perf_counter()
        self._error: ConnectionClosed | None = None
        self._done = Event()

    def __repr__(self) -> str:
        state = "waiting" if self.latency is None else f"{self.latency:.6f} s"
        return f"<Pong {self.payload!r} {state}>"

    def wait(self, timeout: float | None = None) -> float:
        """Wait for the Pong.

        Args:
            timeout: seconds; None waits as long as the connection lasts.

        Returns:
            The round trip in seconds.

        Raises:
            PingTimeout: if it did not come in time.
            ConnectionClosed: if the connection ended before it came.
        """
        self._done.wait(timeout)
        if self.latency is not None:
            return self.latency
        if self._error is not None:
            raise self._error
        raise PingTimeout(f"no pong within {timeout:g} seconds")

    def _receive(self) -> float:
        self.latency = time.perf_counter() - self._sent
        self._done.set()
        return self.latency

    def _end(self, error: ConnectionClosed) -> None:
        self._error = error
        self._done.set()


class PongQueue:
    """The Pings of one connection that were not answered yet, in their order."""

    __slots__ = ("_count", "_own", "_waiting")

    def __init__(self) -> None:
        self._waiting: deque[Pong] = deque()
        self._count = 0
        #: The Pong of the keepalive's latest Ping.
        self._own: Pong | None = None

    def add(self, payload: bytes) -> Pong:
        """Remember a Ping that is being sent."""
        pong = Pong(payload)
        self._waiting.append(pong)
        return pong

    def add_own(self) -> bytes:
        """Remember a Ping of the keepalive, instead of the one before; returns its payload, a new one.

        A peer that never answers, and shows in other ways that it lives, must not make this grow.
        """
        if self._own is not None and self._own in self._waiting:
            self._waiting.remove(self._own)
        self._count += 1
        self._own = self.add(b"keepalive %d" % self._count)
        return self._own.payload

    def receive(self, payload: bytes) -> float | None:
        """Take a Pong: it answers the first Ping of its payload, and those before that.

        Returns:
            The round trip in seconds, or None if it answers nothing.
        """
        waiting = self._waiting
        # RFC 6455 section 5.5.3: a peer may answer only the most recent of several Pings, and may send
        # Pongs that answer nothing.
        for index, pong in enumerate(waiting):
            if pong.payload == payload:
                for _ in range(index):
                    waiting.popleft()._receive()
                return waiting.popleft()._receive()
        return None

    def end(self, error: Any) -> None:
        """The connection is over: none of them will be answered."""
        while self._waiting:
            self._waiting.popleft()._end(error)
