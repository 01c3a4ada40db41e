"""How long one connection may take: a write without progress, and the closing handshake.

Compiled with deadlines.pxd, because the transport is, which is made of it.
"""

from __future__ import annotations

from typing import Any

from .turn import Member
from .wire import monotonic

__all__ = ["Deadlines"]

#: Seconds that a loop which was held up gets to see that a socket has become writable.
_GRACE = 0.05

#: Times `close_timeout` that a closing connection has at the most, where the peer takes what waits.
_PERIODS = 12


class Deadlines(Member):
    """The timers of a `Transport`.

    Attributes:
        ended: the socket is closed.
        write_timed_out: because of `write_timeout`.
    """

    __slots__ = (
        "_close_timer", "_loop", "_overdue", "_progress_at", "_write_timeout", "_write_timer", "ended",
        "write_timed_out",
    )  # fmt: skip

    def __init__(self, loop: Any, write_timeout: float | None) -> None:
        """Args: loop: the hub's; write_timeout: seconds until a write that does not move ends it, or None."""
        self._loop = loop
        self._write_timeout = -1.0 if write_timeout is None else write_timeout
        self._write_timer: Any = None
        self._close_timer: Any = None
        #: When a write began to wait, or moved last and waits again; -1 since it moved.
        self._progress_at = -1.0
        #: The time of a write that waits is over, and it gets `_GRACE`.
        self._overdue = False
        self.ended = self.write_timed_out = False

    def end(self, detail: str) -> None:
        """Close the socket now."""
        raise NotImplementedError

    def crash(self, error: BaseException) -> None:
        """Something raised in a callback."""
        raise NotImplementedError

    # A write

    def _watch_write(self) -> None:
        """A write waits: give it `write_timeout` from the last progress on."""
        if self._progress_at < 0:
            self._progress_at = monotonic()
        if self._write_timeout >= 0 and self._write_timer is None:
            self._overdue = False
            self._start_write_timer(self._write_timeout)

    def _start_write_timer(self, seconds: float) -> None:
        # libuv counts in milliseconds, and warns of less.
        self._write_timer = self._loop.timer(max(seconds, 0.001))
        self._write_timer.start(self._on_write_timeout)

    def _stop_write_timer(self) -> None:
        if self._write_timer is not None:
            self._write_timer.stop()
            self._write_timer.close()
            self._write_timer = None

    def _on_write_timeout(self) -> None:
        """The write timer's callback: nothing has moved, or something has and it starts again."""
        try:
            self._stop_write_timer()
            left = self._progress_at + self._write_timeout - monotonic()
            # Timers are exact to a fraction of a millisecond, not to the last digit.
            if left > self._write_timeout * 0.001:
                self._overdue = False
                self._start_write_timer(left)
            elif not self._overdue:
                # The loop may have been held up, and the peer have read meanwhile: the watcher has its
                # turn. To try here would move bytes into what the kernel has left, which is no progress.
                self._overdue = True
                self._start_write_timer(_GRACE)
            else:
                self.write_timed_out = True
                self.end(f"a write made no progress for {self._write_timeout:g} seconds (write_timeout)")
        except BaseException as error:
            self.crash(error)

    # The closing handshake

    def set_close_deadline(self, timeout: float | None, periods: int = _PERIODS) -> None:
        """Give the closing handshake a deadline in seconds, unless it has one.

        While bytes wait that the peer does take, it gets another one, up to `periods` in all.
        """
        if timeout is not None and self._close_timer is None and not self.ended:
            self._close_timer = self._loop.timer(timeout)
            self._close_timer.start(self._on_close_timeout, timeout, periods)

    def cancel_deadline(self) -> None:
        """Take the deadline off."""
        if self._close_timer is not None:
            self._close_timer.stop()
            self._close_timer.close()
            self._close_timer = None

    def _on_close_timeout(self, timeout: float, periods: int) -> None:
        """The close timer's callback."""
        raise NotImplementedError
