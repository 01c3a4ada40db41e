"""What the connections of one hub share: a buffer to receive into, and the turns in which they are served.

The loop tells of each connection that has something to receive; they are served behind the last of its
callbacks, in portions: all of a portion are read and handled, then all of it are written. That costs as many
system calls as writing each at once, and still a quarter of the server's time per message less: the code that
reads and the kernel's code that sends stay in the processor's caches by turns, and peers on the same machine
are woken once, not for each reply (`benchmarks/`, rows "small" and "thousand").

Hot: compiled with turn.pxd.
"""

from __future__ import annotations

import weakref
from typing import Any

from .protocol.block import give_back

__all__ = ["READ_SIZE", "Member", "Turn", "turn_of"]

#: Bytes read from one connection in one turn of the loop; another one's turn comes after that.
READ_SIZE = 128 * 1024

#: Up to twice as many connections are one portion. Of a thousand what the kernel keeps for the first is no
#: longer in the processor's cache when the last was read.
PORTION = 64

#: Seconds without a large message after which the memory that was kept for the next is given back.
MEMORY_KEPT = 5.0


class Member:
    """A connection as its hub's turns see it."""

    __slots__ = ()

    def serve(self) -> None:
        """Receive and handle what is there; raises only what ends the process."""
        raise NotImplementedError

    def flush(self) -> None:
        """Write what was put out; raises only what ends the process."""
        raise NotImplementedError


class Turn:
    """One hub's.

    Attributes:
        buffer: what all its connections receive into: one callback runs at a time.
        libuv: the loop is gevent's libuv loop. It stops watching where a socket has an error, such as a
            reset, and what is read first may be the data before it: a callback starts its watcher again.
    """

    __slots__ = (
        "_alone",
        "_iteration",
        "_large",
        "_loop",
        "_ready",
        "_serving",
        "_timer",
        "_writers",
        "buffer",
        "libuv",
    )

    def __init__(self, loop: Any) -> None:
        """Args: loop: the hub's, which runs callbacks behind the events that are ready."""
        self._loop = loop
        self.buffer = bytearray(READ_SIZE)
        self.libuv = "libuv" in type(loop).__module__
        #: Those that wait to be served, and those that were and have something to write.
        self._ready: list[Member] = []
        self._writers: list[Member] = []
        self._serving = False
        #: No turn but this one is known in which more than one was ready.
        self._alone = not self.libuv
        #: The turn in which one was served at once; libev counts them.
        self._iteration = -1
        #: A large message came since the timer last looked; it runs while memory is kept.
        self._large = False
        self._timer: Any = None

    def add(self, member: Member) -> None:
        """Have `member` served in this turn, or now if nobody else is there to wait for.

        Where one connection is ready at a time, the callback would be a tenth of the time that its peer waits
        for the reply (`benchmarks/`, row "latency").
        """
        if not self._ready:
            if self._alone:
                iteration = self._loop.iteration
                if iteration != self._iteration:
                    self._iteration = iteration
                    member.serve()
                    return
                self._alone = False
            self._loop.run_callback(self._serve_all)
        self._ready.append(member)

    def write(self, member: Member) -> None:
        """Have `member` flushed with its portion; now, if none is being served."""
        if self._serving:
            self._writers.append(member)
        else:
            member.flush()

    def note_large(self) -> None:
        """A part of a large message was received; `protocol/block.pyx` has memory kept for the next."""
        self._large = True
        # Not on another thread's loop, which may be destroyed meanwhile: the timer would keep all of this.
        if self._timer is None and self._loop.default:
            self._timer = self._loop.timer(MEMORY_KEPT, MEMORY_KEPT, ref=False)
            self._timer.start(self._on_timer)

    def _on_timer(self) -> None:
        if self._large:
            self._large = False
            return
        self._timer.close()
        self._timer = None
        give_back()

    def _serve_all(self) -> None:
        """The callback behind those that told of connections that are ready."""
        ready = self._ready
        self._ready = []
        self._alone = len(ready) == 1 and not self.libuv
        portion = len(ready)
        if portion > 2 * PORTION:
            portion = PORTION
            if not self.libuv:
                # libev tells of the first to be ready last; it would be late again and again.
                ready.reverse()
        left = portion
        self._serving = True
        try:
            for member in ready:
                member.serve()
                left -= 1
                if left == 0:
                    left = portion
                    self._write_all()
        finally:
            # Of those that were not served after an exception, the loop tells again.
            self._serving = False
            self._write_all()

    def _write_all(self) -> None:
        writers = self._writers
        self._writers = []
        done = 0
        try:
            for member in writers:
                done += 1
                member.flush()
        finally:
            for member in writers[done:]:
                self._loop.run_callback(member.flush)


_turns: weakref.WeakKeyDictionary[Any, Turn] = weakref.WeakKeyDictionary()


def turn_of(hub: Any) -> Turn:
    """Return the `Turn` of a hub."""
    turn = _turns.get(hub)
    if turn is None:
        turn = _turns[hub] = Turn(hub.loop)
    return turn
