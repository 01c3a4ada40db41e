"""The wire of one connection: a socket, a read watcher that stays started, one writer.

Reading and writing happen in the hub: the callbacks of the watchers move bytes between the socket
and the protocol, and tell a `Receiver` of it. No greenlet ever waits inside a read or a write, so
that none can be killed half way through a frame.

Rules of this file:

* A callback lets nothing out but what ends the process: an exception in a watcher's callback makes
  gevent stop that watcher in silence, and the connection would hang for ever.
* The descriptor is used by its number only while the socket is open here; watchers are closed before
  the socket is, since the number is used again at once.
* After a call to the receiver all state is stale: it may have closed the connection meanwhile.
* Bytes leave through `_write` alone. After an error nothing more is written.

Hot: compiled with transport.pxd (`benchmarks/`, every echo row).
"""

from __future__ import annotations

import logging
import socket
from typing import Any

from .deadlines import Deadlines
from .protocol.closing import Phase
from .protocol.connection import Connection
from .receiver import Receiver
from .turn import turn_of
from .wire import has_unread, monotonic, receive_block, receive_into, send_chunks

__all__ = ["Transport"]

logger = logging.getLogger("geventws")

#: Bytes gathered for one system call while input is still being handled ("corking").
CORK_LIMIT = 64 * 1024

#: Reads of one connection in one turn, where a large payload fills them all.
_LARGE_READS = 4

#: Bytes written for one connection in one turn, or little more; a peer that reads fast has no end otherwise.
_MOST_WRITTEN = 4 * 1024 * 1024

#: Bytes that are read away, at the most, while the peer ends TCP.
LINGER_BYTES = 32 * 1024 * 1024

_READ, _WRITE = 1, 2


class Transport(Deadlines):
    """Moves bytes between a socket and a `Connection`.

    Attributes:
        corked: replies are gathered; they leave when the input of this portion of the turn was handled.
        blocked: the socket takes nothing more at the moment.
        paused: reading is stopped, for the application has not received what came.
        last_received: when bytes came last, in seconds of `time.monotonic`.
        bytes_received, bytes_sent: counts, before TLS.
    """

    __slots__ = (
        "_broken", "_buffer", "_core", "_descriptor", "_finishing", "_hub", "_lingered", "_lingering",
        "_offset", "_peer_ended", "_read_watcher", "_receiver", "_socket", "_turn", "_write_watcher",
        "blocked", "bytes_received", "bytes_sent", "corked", "last_received", "paused",
    )  # fmt: skip

    def __init__(
        self, sock: Any, core: Connection, receiver: Receiver, hub: Any, write_timeout: float | None
    ) -> None:
        """Take over a connected socket of gevent, plain or after its TLS handshake, and close it at the end.

        Args:
            sock: the socket. It becomes non-blocking.
            core: the protocol of this connection.
            receiver: what is told of it.
            hub: gevent's hub of this thread.
            write_timeout: seconds without progress of a write until it is aborted; None for no limit.
        """
        Deadlines.__init__(self, hub.loop, write_timeout)
        if sock.gettimeout() != 0:
            sock.settimeout(0)
        self._socket = sock
        self._descriptor: int = sock.fileno()
        self._core = core
        core.direct = True
        self._receiver: Receiver | None = receiver
        self._hub = hub
        self._turn = turn_of(hub)
        self._buffer = self._turn.buffer
        self._read_watcher = self._loop.io(self._descriptor, _READ)
        self._write_watcher: Any = None
        #: Bytes of the first chunk that have left already.
        self._offset = 0
        #: TCP is to be ended when all has been written.
        self._finishing = False
        #: We have ended our side and read what still comes away, until the peer's end.
        self._lingering = False
        self._lingered = 0
        #: The peer ended its side while bytes for it still wait here.
        self._peer_ended = False
        #: Why nothing can be written any more, or ""; what the peer sent before that is still read.
        self._broken = ""
        self.corked = self.blocked = self.paused = False
        self.last_received = monotonic()
        self.bytes_received = self.bytes_sent = 0

    def start(self, data: bytes) -> None:
        """Begin to read, `data` first: what came behind the opening handshake."""
        self._read_watcher.start(self._on_readable)
        if data:
            self._core.receive_data(data)
            self._loop.run_callback(self.take)

    # Reading

    def _on_readable(self) -> None:
        """The read watcher's callback: `serve` follows, in this turn."""
        try:
            if self._turn.libuv:
                self._read_watcher.start(self._on_readable)
            self._turn.add(self)
        except BaseException as error:
            self.crash(error)

    def serve(self) -> None:
        """Receive and handle what is there; for the turn, in the hub."""
        try:
            if self.paused or self.ended:
                # By another connection's handler, since the loop told of it.
                return
            if self._lingering:
                self._read_away()
            else:
                self._read()
        except BaseException as error:
            self.crash(error)

    def _read(self) -> None:
        """Receive and hand over what came: once, or a few times while one large payload comes.

        Between those its pieces are unmasked while they are still in the processor's cache.
        """
        core = self._core
        for _ in range(_LARGE_READS):
            wanted = core.wanted
            count = self._receive_some(wanted)
            if count <= 0:
                return
            self.last_received = monotonic()
            self.bytes_received += count
            if self._finishing and self._is_too_much(count):
                self.end("")
                return
            behind = count
            if wanted:
                # The payload stands where it stays; only what is behind it is in the buffer.
                core.feed_block(min(count, wanted))
                self._turn.note_large()
                behind = max(count - wanted, 0)
            core.feed(self._buffer, behind)
            self._take(True)
            if count < wanted or core.wanted == 0 or self.paused or self.ended:
                return

    def _receive_some(self, wanted: int) -> int:
        """Receive what has come; a count that is not positive if there is nothing to hand over.

        Small functions around `_take`, and none with a `try` that need not be there: at each switch to a
        greenlet their room on the stack is copied, and up to 1032 bytes malloc keeps for the next time.
        """
        try:
            count = self._receive_block(wanted) if wanted else self._receive()
        except OSError as error:
            self.end(_describe(error))
            return -1
        if count == 0:
            self._receive_end()
        return count

    def _receive(self) -> int:
        """Receive into the buffer: the count, 0 at the end of the stream, -1 if nothing was there."""
        return receive_into(self._descriptor, self._buffer)

    def _receive_block(self, wanted: int) -> int:
        """Receive `wanted` bytes to where they stay, and what is behind them into the buffer."""
        return receive_block(self._descriptor, self._core.block, wanted, self._buffer)

    def _take(self, lent: bool) -> None:
        """Let the receiver take the protocol's events; what it answers leaves in one piece."""
        # Held here: it may end the connection, and compiled code does not hold what an attribute refers to.
        receiver = self._receiver
        self.corked = True
        if receiver is not None:
            receiver.handle_input()
        # After an exception `crash` does it; a `finally` would take room on the stack.
        self.corked = False
        if lent:
            self._core.keep()
        if self._core.out:
            self._turn.write(self)
        elif not self.ended:
            self.flush()

    def take(self) -> None:
        """Let the receiver go on with what was fed before; in the hub."""
        try:
            self._take(False)
        except BaseException as error:
            self.crash(error)

    def _receive_end(self) -> None:
        """The peer ended its side."""
        if self._finishing and self.blocked and not self._broken:
            # It may still read; what waits is written first.
            self._peer_ended = True
            self._read_watcher.stop()
        elif self._finishing:
            # RFC 6455 section 7.1.1: both Closes went; or we failed the connection.
            self.end("")
        else:
            self.end("the peer ended TCP without a Close frame")

    def _read_away(self) -> None:
        """Read what comes behind the end, so that the kernel does not answer it with a reset that
        would destroy our last bytes on their way (RFC 9112 section 9.6)."""
        try:
            count = receive_into(self._descriptor, self._buffer)
        except OSError:
            count = 0
        if count == 0 or self._is_too_much(max(count, 0)):
            self.end("")

    def _is_too_much(self, count: int) -> bool:
        """Count bytes that nobody looks at, and tell whether the peer has sent too many of them."""
        self._lingered += count
        return self._lingered > LINGER_BYTES

    def pause(self) -> None:
        """Stop reading; TCP makes the peer wait."""
        if not self.paused and not self.ended and not self._lingering:
            self.paused = True
            self._read_watcher.stop()

    def resume(self) -> None:
        """Read again."""
        if self.paused:
            self.paused = False
            if not self.ended:
                self.last_received = monotonic()
                self._read_watcher.start(self._on_readable)

    # Writing

    def flush_unless_corked(self) -> None:
        """Write now, unless the callback that is running will do so at its end."""
        if not self.corked:
            self.flush()

    def flush(self) -> None:
        """Write what the protocol has put out, as far as the socket takes it; never raises.

        May be called from any greenlet of the hub's thread.
        """
        if not self.blocked and not self.ended:
            try:
                self._write()
            except BaseException as error:
                self.crash(error)

    def _write(self) -> None:
        """Write until nothing is left or the socket takes no more, or this turn's share is written."""
        end = self.bytes_sent + _MOST_WRITTEN
        try:
            while True:
                count = self._send()
                if count <= 0:
                    break
                self.bytes_sent += count
                self._core.out_size -= count
                self._progress_at = -1.0
                if self.bytes_sent > end and self._core.out:
                    # The watcher tells in the next turn that the socket takes more.
                    count = -1
                    break
        except OSError as error:
            self._break(_describe(error))
            return
        if count < 0:
            self._block()
            return
        if self.blocked:
            self._unblock()
        if self._finishing and not self._lingering and (self._peer_ended or not self._core.awaits_end()):
            self._linger()

    def _break(self, detail: str) -> None:
        """Nothing can be written any more. The peer's last words may be here: in the hub, they are read."""
        self._broken = detail
        self.blocked = True
        self._core.hold_pongs = True
        self._core.out.clear()
        self._core.out_size = 0
        if self._write_watcher is not None:
            self._write_watcher.stop()
        self._stop_write_timer()
        self._loop.run_callback(self._on_broken)

    def _on_broken(self) -> None:
        """The callback behind a write that failed."""
        try:
            before = -1
            while self.bytes_received > before and not self.paused and not self.ended:
                before = self.bytes_received
                self._read()
            self.end(self._broken)
        except BaseException as error:
            self.crash(error)

    def _send(self) -> int:
        """Send what goes out at once: the bytes that left, 0 if nothing is left, -1 if none could."""
        chunks = self._core.out
        if not chunks:
            return 0
        # A client's end is not next (RFC 6455 section 7.1.1): the system would hold its Close for 200 ms.
        last = self._finishing and not self._core.awaits_end()
        count = send_chunks(self._descriptor, chunks, self._offset, last)
        if count > 0:
            self._remove(count)
        return count

    def _remove(self, count: int) -> None:
        """Take `count` bytes that have left off the protocol's chunks."""
        chunks = self._core.out
        if count == self._core.out_size:
            # Nearly always: the system took all.
            chunks.clear()
            self._offset = 0
            return
        count += self._offset
        whole = 0
        for chunk in chunks:
            if count < len(chunk):
                break
            count -= len(chunk)
            whole += 1
        del chunks[:whole]
        self._offset = count

    def _block(self) -> None:
        """Wait in the hub until the socket takes more."""
        self._wait_writable()
        if not self.blocked:
            self.blocked = True
            # A peer that does not read has its Pings remembered, not answered one by one.
            self._core.hold_pongs = True
        self._watch_write()

    def _wait_writable(self) -> None:
        if self._write_watcher is None:
            self._write_watcher = self._loop.io(self._descriptor, _WRITE)
        if not self._write_watcher.active:
            self._write_watcher.start(self._on_writable)

    def _unblock(self) -> None:
        """All that waited was written."""
        self.blocked = False
        if self._write_watcher is not None:
            self._write_watcher.stop()
        self._stop_write_timer()
        self._core.release_pongs()
        if self._core.out:
            self._write()

    def _on_writable(self) -> None:
        try:
            self._write()
            self._tell_drained()
        except BaseException as error:
            self.crash(error)

    def _tell_drained(self) -> None:
        # Held here, as in `_take`.
        receiver = self._receiver
        if receiver is not None:
            receiver.handle_drained()

    # Ending

    def finish(self, timeout: float | None) -> None:
        """End TCP in order when all has been written (RFC 6455 section 7.1.1).

        Args:
            timeout: seconds for the peer to end its side, where the handshake has no deadline yet; None
                for no limit.
        """
        if self._finishing or self.ended:
            return
        self._finishing = True
        self.resume()
        # Not at the end of the turn: nothing is gathered behind a Close, and mostly this is the end.
        self.flush()
        self.set_close_deadline(timeout)

    def _on_close_timeout(self, timeout: float, periods: int) -> None:
        """The close timer's callback."""
        try:
            if self._lingering or (self._core.awaits_end() and not self.blocked):
                self.end("")
            elif self.blocked and self._write_timeout >= 0 and periods > 1:
                # Our Close is not written yet: until it is, write_timeout watches. It sees any progress.
                self.cancel_deadline()
                self.set_close_deadline(timeout, periods - 1)
            else:
                self.end(f"the closing handshake took longer than {timeout:g} seconds (close_timeout)")
        except BaseException as error:
            self.crash(error)

    def _linger(self) -> None:
        """Everything is written: end our side, and wait for the peer's end where that matters."""
        self._lingering = True
        try:
            if self._peer_ended or self._end_output():
                self.end("")
        except OSError:
            self.end("")

    def _end_output(self) -> bool:
        """End our side; True if the peer has sent all it will, so that no reset can follow."""
        self._socket.shutdown(socket.SHUT_WR)
        # RFC 6455 section 5.5.1: nothing comes behind a Close. What did all the same would reset TCP.
        return self._core.phase == Phase.CLOSE_DONE and not has_unread(self._descriptor)

    def end(self, detail: str) -> None:
        """Close the socket now. May be called more than once and from any greenlet of the thread.

        Args:
            detail: why, where this is not the end of a closing handshake.
        """
        if self.ended:
            return
        self.ended = True
        self._descriptor = -1
        for watcher in (self._read_watcher, self._write_watcher, self._write_timer, self._close_timer):
            if watcher is not None:
                watcher.stop()
                watcher.close()
        try:
            self._socket.close()
        except OSError:
            pass
        receiver = self._receiver
        self._receiver = None
        self._core.out.clear()
        self._core.out_size = 0
        if receiver is not None:
            receiver.handle_end(detail)

    def crash(self, error: BaseException) -> None:
        """Something raised in a callback: this connection ends, no other is touched."""
        receiver = self._receiver
        self.corked = False
        try:
            try:
                if receiver is None:
                    logger.error("internal error behind the end of a connection", exc_info=error)
                else:
                    receiver.handle_error(error)
            finally:
                self.end("an internal error")
        except Exception:
            logger.exception("internal error while a connection was ended for another one")
        if isinstance(error, self._hub.SYSTEM_ERROR):
            raise error


def _describe(error: OSError) -> str:
    """Say what a socket's error means for the connection."""
    if isinstance(error, ConnectionResetError):
        return "the peer reset TCP"
    if isinstance(error, BrokenPipeError):
        return "the peer ended TCP"
    return f"{type(error).__name__}: {error}"
