"""Keepalive: a Ping to every peer that is silent, and the end of those that stay so.

One timer serves all connections of a server. They stand in slots by the time at which they are to
be looked at next, so that a turn touches only those that are due, and bytes that come cost a
connection nothing but the time stamp it keeps anyway.

Needs no help from the application: Pongs are seen whether or not it receives.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from .wire import monotonic

if TYPE_CHECKING:
    from .channel import Channel

__all__ = ["Keepalive"]

logger = logging.getLogger("geventws")

#: A slot's share of the shortest time that is kept: how late a Ping may be.
_SHARE = 20


class Keepalive:
    """Watches over the connections of one hub.

    A peer from which no byte came for `interval` seconds gets a Ping; if none comes for `timeout`
    seconds after that, the connection is ended with 1011. While the application's own full queue is what
    keeps bytes from being seen, nothing is held against the peer.
    """

    __slots__ = (
        "__weakref__",
        "_held_up",
        "_hub",
        "_interval",
        "_next",
        "_slots",
        "_started",
        "_tick",
        "_timeout",
        "_timer",
        "timeouts",
    )  # fmt: skip

    def __init__(self, hub: Any, interval: float, timeout: float | None) -> None:
        """Args: interval, timeout: seconds; a timeout of None sends Pings and never ends anything."""
        self._hub = hub
        self._interval = interval
        self._timeout = timeout
        shortest = interval if timeout is None else min(interval, timeout)
        self._tick = shortest / _SHARE
        self._slots: dict[int, dict[Channel, float]] = {}
        self._next = 0
        self._timer: Any = None
        self._started = 0.0
        #: The loop was held up, so that the last tick was left out.
        self._held_up = False
        #: Connections ended because no byte came in time.
        self.timeouts = 0

    def add(self, ws: Channel) -> None:
        """Begin to watch a connection."""
        self._put(ws, monotonic() + self._interval, -1.0)

    def remove(self, ws: Channel) -> None:
        """Watch it no more."""
        slot = self._slots.get(ws.keepalive_slot)
        if slot is not None:
            slot.pop(ws, None)
            if not slot:
                del self._slots[ws.keepalive_slot]
                if not self._slots:
                    self._stop()
        ws.keepalive_slot = -1

    def _put(self, ws: Channel, due: float, pinged_at: float) -> None:
        """Look at a connection at `due`; `pinged_at` is -1 unless a Ping is under way."""
        number = max(_ceiling(due / self._tick), self._next)
        ws.keepalive_slot = number
        slot = self._slots.get(number)
        if slot is None:
            slot = self._slots[number] = {}
        slot[ws] = pinged_at
        if self._timer is None:
            self._next = int(monotonic() / self._tick)
            self._start()

    def _start(self) -> None:
        self._timer = self._hub.loop.timer(self._tick)
        self._timer.start(self._on_tick)
        self._started = monotonic()

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.stop()
            self._timer.close()
            self._timer = None

    def _on_tick(self) -> None:
        """The timer's callback: look at all that are due."""
        now = monotonic()
        last = int(now / self._tick)
        self._stop()
        late = now - self._started > 2 * self._tick
        self._held_up = late and not self._held_up
        if self._held_up:
            # The loop was held up. What came meanwhile is read first: it has not looked since.
            self._start()
            return
        try:
            # More than one, where the loop was held up.
            for number in sorted(number for number in self._slots if number <= last):
                for ws, pinged_at in self._slots.pop(number, {}).items():
                    if ws.keepalive_slot == number:
                        try:
                            self._check(ws, pinged_at, now)
                        except Exception:
                            logger.exception("connection %d: internal error in the keepalive", ws.id)
            self._next = last + 1
        finally:
            if self._slots and self._timer is None:
                self._start()

    def _check(self, ws: Channel, pinged_at: float, now: float) -> None:
        heard = ws.last_received
        if ws.reading_paused:
            self._put(ws, now + self._interval, -1.0)
        elif pinged_at >= 0 and heard < pinged_at:
            assert self._timeout is not None
            if pinged_at + self._timeout > now + self._tick / 2:
                # Looked at because of the interval, which is shorter: the Ping has its time.
                self._put(ws, pinged_at + self._timeout, pinged_at)
                return
            self.timeouts += 1
            ws.fail_timeout(f"no answer to a Ping within {self._timeout:g} seconds (ping_timeout)")
        elif heard + self._interval > now + self._tick / 2:
            self._put(ws, heard + self._interval, -1.0)
        else:
            ws.send_keepalive()
            if self._timeout is None:
                self._put(ws, now + self._interval, -1.0)
            elif not ws.closed:
                # One who answers gets the next Ping after the interval, however long he might have taken.
                self._put(ws, now + min(self._interval, self._timeout), now)
            else:
                # Closing: its own deadline watches over it.
                ws.keepalive_slot = -1


def _ceiling(number: float) -> int:
    """Round up a number that is not negative."""
    whole = int(number)
    return whole if whole == number else whole + 1
