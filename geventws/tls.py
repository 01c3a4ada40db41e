"""TLS on the same way as plain TCP: what is different about reading, writing and ending.

Traps that this file is about:

* A watcher tells of encrypted bytes. What is decrypted already, inside the TLS object, it never tells:
  so everything is read out, or another turn is scheduled.
* A write that could not be done is tried again with exactly the same bytes.
* Reading may want to write first, and the other way round.

Hot: compiled with tls.pxd, because it overrides what is compiled there.
"""

from __future__ import annotations

import ssl

from .transport import Transport

__all__ = ["TLSTransport"]

#: One write: at most a TLS record, small frames joined.
_CHUNK = 16 * 1024


class TLSTransport(Transport):
    """A `Transport` over an SSLSocket whose handshake is done; from gevent or the standard library."""

    __slots__ = ("_held", "_read_wants_write", "_scheduled", "_write_wants_read")

    def start(self, data: bytes) -> None:
        """Begin to read, `data` first: what came behind the opening handshake."""
        #: A write that must be tried again with exactly these bytes.
        self._held: bytes | None = None
        self._read_wants_write = False
        self._write_wants_read = False
        #: `_on_decrypted` is among the loop's callbacks.
        self._scheduled = False
        Transport.start(self, data)
        self._schedule()

    def resume(self) -> None:
        """Read again."""
        paused = self.paused
        Transport.resume(self)
        if paused and not self.ended:
            self._schedule()

    def _schedule(self) -> None:
        """Read in the loop's next turn: once, or the turns of a peer that never stops would add up."""
        if not self._scheduled:
            self._scheduled = True
            self._loop.run_callback(self._on_decrypted)

    def _on_decrypted(self) -> None:
        """The callback for bytes that may be in the TLS object, of which no watcher tells."""
        self._scheduled = False
        try:
            if not self.ended and not self._lingering and not self.paused:
                self._read()
        except BaseException as error:
            self.crash(error)

    def serve(self) -> None:
        """Receive and handle what is there; for the turn, in the hub."""
        try:
            if self._write_wants_read and not self._lingering:
                self._write_wants_read = False
                self._write()
                self._tell_drained()
            if self.ended or self.paused:
                return
            if self._lingering:
                self._read_away()
            else:
                self._read()
        except BaseException as error:
            self.crash(error)

    def _on_writable(self) -> None:
        """The write watcher's callback."""
        try:
            if self._read_wants_write:
                self._read_wants_write = False
                if not self.blocked:
                    self._write_watcher.stop()
                if not self.paused and not self._lingering:
                    self._read()
            if self.blocked and not self.ended:
                self._write()
            self._tell_drained()
        except BaseException as error:
            self.crash(error)

    def _receive(self) -> int:
        with memoryview(self._buffer) as view:
            return self._receive_views((view,))

    def _receive_block(self, wanted: int) -> int:
        # Held here: the view of it does not, and whatever Python code runs below may end the connection.
        block = self._core.block
        with block.room(wanted) as room, memoryview(self._buffer) as view:
            return self._receive_views((room, view))

    def _receive_views(self, views: tuple[memoryview, ...]) -> int:
        """Read out what is decrypted, into one view after the other."""
        filled = 0
        try:
            for view in views:
                start = 0
                count = -1
                while start < len(view) and count:
                    with view[start:] as free:
                        count = self._socket.recv_into(free)
                    start += count
                    filled += count
                if count == 0:
                    # The end of the stream; it comes again with the next read.
                    break
        except ssl.SSLWantReadError:
            return filled or -1
        except ssl.SSLWantWriteError:
            self._read_wants_write = True
            Transport._wait_writable(self)
            return filled or -1
        except OSError:
            # What came before the error is handed over first; it comes again.
            if not filled:
                raise
        if filled:
            self._schedule()
        return filled

    def _send(self) -> int:
        held = self._held
        if held is None:
            chunks = self._core.out
            if not chunks:
                return 0
            first = chunks[0]
            if self._offset or len(first) > _CHUNK:
                held = _octets(first[self._offset : self._offset + _CHUNK])
            else:
                size = 0
                parts = []
                for chunk in chunks:
                    size += len(chunk)
                    if size > _CHUNK:
                        break
                    parts.append(_octets(chunk))
                held = b"".join(parts)
            self._remove(len(held))
            self._held = held
        try:
            # Not `send`: with a timeout of 0 gevent's returns 0 where this tells what is wanted.
            count = int(self._socket.write(held))
        except ssl.SSLWantWriteError:
            return -1
        except ssl.SSLWantReadError:
            self._write_wants_read = True
            return -1
        self._held = held[count:] if count < len(held) else None
        return count

    def _wait_writable(self) -> None:
        if not self._write_wants_read:
            Transport._wait_writable(self)
        elif self._write_watcher is not None:
            self._write_watcher.stop()

    def _receive_end(self) -> None:
        if self._finishing and not self.blocked:
            # RFC 8446 section 6.1: the peer, which has ended first, may wait for our close_notify.
            try:
                self._socket.unwrap()
            except (OSError, ValueError):
                pass
        Transport._receive_end(self)

    def _end_output(self) -> bool:
        try:
            # Sends close_notify (RFC 8446 section 6.1); the peer's is not waited for.
            self._socket.unwrap()
        except (OSError, ValueError):
            pass
        # The rest is read away encrypted as it is: the peer's close_notify, at least.
        Transport._end_output(self)
        return False


def _octets(chunk: bytes | str) -> bytes:
    return chunk.encode("ascii") if isinstance(chunk, str) else chunk
