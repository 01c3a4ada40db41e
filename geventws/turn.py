"""What the connections of one hub share: the buffer they receive into, and the end of the loop's turn.

Replies are written when the loop has handled all that was ready. That costs as many system calls as
writing each at once, and still a quarter of the server's time per message less: the code that reads
and the kernel's code that sends stay in the processor's caches by turns, and peers on the same machine
are woken once, not for each reply (`benchmarks/`, row "small").

Hot: compiled with turn.pxd.
"""

from __future__ import annotations

import weakref
from typing import Any

__all__ = ["READ_SIZE", "Turn", "Writer", "turn_of"]

#: Bytes read from one connection in one turn of the loop; another one's turn comes after that.
READ_SIZE = 128 * 1024


class Writer:
    """Something that has bytes to write at the end of the turn."""

    __slots__ = ()

    def flush(self) -> None:
        """Write them; raises only what ends the process."""
        raise NotImplementedError


class Turn:
    """One hub's.

    Attributes:
        buffer: what all its connections receive into: one callback runs at a time.
        libuv: the loop is gevent's libuv loop. It stops watching where a socket has an error, such as a
            reset, and what is read first may be the data before it: a callback starts its watcher again.
    """

    __slots__ = ("_alone", "_iteration", "_loop", "_writers", "buffer", "libuv")

    def __init__(self, loop: Any) -> None:
        """Args: loop: the hub's, which runs callbacks behind the events that are ready."""
        self._loop = loop
        self._writers: list[Writer] = []
        self.buffer = bytearray(READ_SIZE)
        self.libuv = "libuv" in type(loop).__module__
        #: No turn but this one is known in which more than one had something to write.
        self._alone = not self.libuv
        #: The turn in which one was flushed at once; libev counts them.
        self._iteration = -1

    def add(self, writer: Writer) -> None:
        """Have `writer` flushed at the end of this turn, or now if nobody else is there to wait for.

        Where one connection is ready at a time, the callback would be a tenth of the time that its peer waits
        for the reply (`benchmarks/`, row "latency").
        """
        if not self._writers:
            if self._alone:
                iteration = self._loop.iteration
                if iteration != self._iteration:
                    self._iteration = iteration
                    writer.flush()
                    return
                self._alone = False
            self._loop.run_callback(self._end)
        self._writers.append(writer)

    def _end(self) -> None:
        """The callback at the end of a turn."""
        writers = self._writers
        self._writers = []
        self._alone = len(writers) == 1 and not self.libuv
        done = 0
        try:
            for writer in writers:
                done += 1
                writer.flush()
        finally:
            for writer in writers[done:]:
                self.add(writer)


_turns: weakref.WeakKeyDictionary[Any, Turn] = weakref.WeakKeyDictionary()


def turn_of(hub: Any) -> Turn:
    """Return the `Turn` of a hub."""
    turn = _turns.get(hub)
    if turn is None:
        turn = _turns[hub] = Turn(hub.loop)
    return turn
