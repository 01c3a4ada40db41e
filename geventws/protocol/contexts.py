"""Messages through DEFLATE and back (RFC 7692 section 7.2): the compression contexts of a connection.

Both directions keep no more than the LZ77 window between messages, as plain bytes, and have a stream of
zlib's only while a message is under way. Frames, RSV1 and the choice of which messages to compress are
the business of others.

Hot: compiled with contexts.pxd (`benchmarks/run.py`, row "deflate").
"""

from __future__ import annotations

import sys
import zlib
from typing import Any

from ..exceptions import InvalidPayload, MessageTooBig, RemoteProtocolError
from . import isal

__all__ = ["Deflater", "Inflater"]

# zlib inflates any window, but takes none below 512 bytes for a raw stream.
_SMALLEST_WINDOW_BITS = 9

# The end of an empty block without compression, which a sync flush leaves behind.
_FLUSH_TAIL = b"\x00\x00\xff\xff"
# An empty block with BFINAL set: zlib reports the end of the stream behind it, and only there.
_END_OF_STREAM = b"\x03\x00"
_TAIL_AND_END = _FLUSH_TAIL + _END_OF_STREAM
_EMPTY_MESSAGE = b"\x00"

# Bytes that zlib gets at a time. At the end of a stream it copies all that is left of its input, so
# a frame made of nothing but two-byte final blocks would otherwise cost the square of its size.
_SLICE = 16 * 1024
# Blocks with BFINAL set that one message may have. Behind each follows a new zlib object, for as
# little as two bytes from the peer. An encoder that ends its stream with each message makes one.
_MAX_FINAL_BLOCKS = 16
# Larger limits than any bytes object can reach: the same as none, and zlib cannot be told.
_UNLIMITED = sys.maxsize >> 1

# Windows up to this are put into a new stream for each message. For larger ones that takes longer
# than compressing a typical message does, and zlib's stream is kept.
_MOST_REFILLED_BITS = 13


class Inflater:
    """Turns the compressed messages of the peer back (RFC 7692 section 7.2.2), within a limit.

    Feed the pieces of a message to `inflate`, however they are cut, then call `finish`. After an
    error nothing but `close` makes sense.

    Memory: while a message is under way, zlib's 7 KiB and 2**window_bits bytes. In between only
    the window itself, the last 2**window_bits bytes at most of what was inflated, and with
    `no_context_takeover` nothing. Before the first message: nothing.

    Every message gets a zlib object of its own that starts with the window of those before. RFC
    7692 asks for this in two places that one long stream cannot serve: a block with BFINAL set ends
    zlib's stream but not the peer's window (sections 7.2.1, 7.2.2 and 7.2.3.4), and only by ending
    a stream does zlib tell whether it stood between two blocks, as it must at the end of a
    message. This costs about a microsecond, and saves zlib's share for idle connections.

    Args:
        window_bits: what the peer may use at most, 8 to 15, as negotiated; 15 where it was not.
        no_context_takeover: the peer starts each message with an empty window.
    """

    __slots__ = (
        "_no_context_takeover",
        "_recent",
        "_size",
        "_stream",
        "_window",
        "_window_bits",
        "partial",
        "streams",
    )

    def __init__(self, window_bits: int, *, no_context_takeover: bool) -> None:
        #: Of the piece that `inflate` raised for.
        self.partial = b""
        self._window_bits = max(window_bits, _SMALLEST_WINDOW_BITS)
        self._no_context_takeover = no_context_takeover
        #: The window, up to the last piece that was inflated or up to `_recent`.
        self._window = b""
        #: What came behind it, where a message comes in many pieces; more than a window at times.
        self._recent: bytearray | None = None
        #: zlib's stream, or None between messages and behind a block with BFINAL set.
        self._stream: Any = None
        #: Streams begun in this message, and bytes that it yielded.
        self.streams = 0
        self._size = 0

    def inflate(self, data: bytes, max_length: int | None) -> bytes:
        """Inflate a piece of a message.

        Next: the following piece, or `finish` at the end of the message.

        Args:
            data: compressed bytes, cut anywhere.
            max_length: bytes that this message may still yield, 0 included; None is unlimited.

        Returns:
            What this piece yields, possibly nothing.

        Raises:
            MessageTooBig: more than `max_length` would come out; no more than one byte above was
                inflated.
            InvalidPayload: this is not DEFLATE data.

        Either way `partial` is what came out before, as far as zlib tells.
        """
        limit = -1 if max_length is None or max_length > _UNLIMITED else max_length + self._size
        if len(data) <= _SLICE:
            # The usual message: one piece, which zlib takes at once.
            output = self._inflate_slice(data, limit)
            stream = self._stream
            if stream is not None and not stream.eof and not stream.unconsumed_tail:
                return output
            pieces = [output]
            position = self._behind(data)
        else:
            pieces = []
            position = 0
        try:
            while position < len(data):
                piece = data[position : position + _SLICE]
                pieces.append(self._inflate_slice(piece, limit))
                position += self._behind(piece)
        except RemoteProtocolError:
            pieces.append(self.partial)
            self.partial = b"".join(pieces)
            raise
        return b"".join(pieces)

    def _inflate_slice(self, data: bytes, limit: int) -> bytes:
        """Inflate what zlib takes of `data`; `limit` is that of the whole message, -1 for none."""
        if not data:
            return data
        stream = self._stream
        if stream is None:
            stream = self._begin()
        # To zlib 0 means unlimited: it is asked for one byte more than there may be.
        ask = 0 if limit < 0 else limit - self._size + 1
        try:
            output: bytes = stream.decompress(data, ask)
        except zlib.error as error:
            self.partial = b""
            raise InvalidPayload(f"the compressed data is invalid: {error}", "payload.deflate") from error
        self._size += len(output)
        if self._size > limit >= 0:
            self.partial = output[: limit - self._size]
            raise MessageTooBig(
                f"a message that inflates to more than {limit} bytes (max_message_size)",
                self._size,
                limit,
            )
        if output:
            self._slide_window(output)
        return output

    def _behind(self, data: bytes) -> int:
        """Return how much of `data` zlib took; at the end of its stream, let go of it."""
        stream = self._stream
        if stream is None:
            return len(data)
        if stream.eof:
            # RFC 7692 section 7.2.1: a block with BFINAL set need not be the last of a message.
            self._stream = None
            return len(data) - len(stream.unused_data)
        return len(data) - len(stream.unconsumed_tail)

    def finish(self) -> None:
        """End the message: check that it is complete, and prepare for the next.

        This yields no data: when the last block is complete, all of it has been inflated.

        Raises:
            InvalidPayload: the message ends in the middle of a block.
        """
        stream = self._stream
        # Without a stream the message ended with a block that has BFINAL set, or without a byte.
        # Section 7.2.1 has such a sender append 0x00; the few that do not are understood all the
        # same, as there is no other way to read it.
        if stream is not None:
            try:
                # RFC 7692 section 7.2.2: append what the sender removed. Taken for data, it may
                # yield something, but it does not get to the end then.
                stream.decompress(_TAIL_AND_END, 1)
            except zlib.error as error:
                raise InvalidPayload(
                    f"the compressed message is incomplete: {error}", "payload.deflate"
                ) from error
            # The sender's last block may have BFINAL set, too: then it is that one which ends the stream.
            if not stream.eof or stream.unused_data not in (b"", _END_OF_STREAM):
                raise InvalidPayload(
                    "the compressed message ends in the middle of a block", "payload.deflate"
                )
            self._stream = None
        self.streams = 0
        self._size = 0
        if self._no_context_takeover:
            self._window = b""
            self._recent = None
        else:
            self._cut_window()

    def close(self) -> None:
        """Drop everything; what refers to earlier messages can not be inflated any more."""
        self.partial = b""
        self._stream = None
        self.streams = 0
        self._size = 0
        self._window = b""
        self._recent = None

    def _begin(self) -> Any:
        """Begin a stream with the window so far: for a message, or behind a block with BFINAL set."""
        self.streams += 1
        final_blocks = self.streams - 1
        if final_blocks > _MAX_FINAL_BLOCKS:
            self.partial = b""
            raise MessageTooBig(
                f"a compressed message of more than {_MAX_FINAL_BLOCKS} final blocks",
                final_blocks,
                _MAX_FINAL_BLOCKS,
                "message.final_blocks",
            )
        # RFC 7692 section 7.2.2: the window is that of the previous message, whichever blocks it was
        # made of. A peer whose compressor starts anew after BFINAL does not refer to it.
        self._cut_window()
        # To what a peer must not refer any more zlib still finds its way while it is output of the same
        # call. Such a peer is refused or understood, never read otherwise.
        self._stream = zlib.decompressobj(-self._window_bits, self._window)
        return self._stream

    def _slide_window(self, output: bytes) -> None:
        """Keep the last 2**window_bits bytes of all that was inflated, and up to as many before them.

        Cutting at every piece would copy the window for each fragment of one byte.
        """
        size = 1 << self._window_bits
        recent = self._recent
        if recent is None:
            if self._size == len(output):
                # The first piece, and most often the only one.
                self._window = slide(self._window, output, size)
                return
            recent = self._recent = bytearray(self._window)
        recent += output[-size:]
        if len(recent) > 2 * size:
            del recent[:-size]

    def _cut_window(self) -> None:
        """Have nothing but the window, and that as bytes."""
        if self._recent is not None:
            self._window = bytes(self._recent[-(1 << self._window_bits) :])
            self._recent = None


class Deflater:
    """Compresses messages (RFC 7692 section 7.2.1).

    Memory: between messages only the window, the last 2**window_bits bytes at most of what was
    compressed, and with `no_context_takeover` nothing. While a message is under way zlib has (1 <<
    (window_bits + 2)) + (1 << (mem_level + 9)) bytes and 6 KiB, 38 KiB with 12 and 5. It keeps these
    from the first message on where `window_bits` is 14 or 15: 262 KiB with 15 and 8.

    A new stream that begins with the window of the one before it refers to the same bytes, and makes
    messages of the same size. That costs 4 µs for a window of 4 KiB; where more than a few dozen
    connections send by turns it costs nothing, as their streams would not stay in the processor's caches.

    Args:
        level: effort, from 1 (fast) to 9 (small). Up to 6 means the same where isal is installed.
        window_bits: size of the LZ77 window, 9 to 15, not above what was negotiated.
        mem_level: memory for hash tables and buffers, from 1 to 9.
        no_context_takeover: start each message with an empty window.
    """

    __slots__ = (
        "_keep_stream",
        "_level",
        "_mem_level",
        "_no_context_takeover",
        "_stream",
        "_window",
        "_window_bits",
    )

    def __init__(self, level: int, window_bits: int, mem_level: int, *, no_context_takeover: bool) -> None:
        self._level = level
        self._window_bits = window_bits
        self._mem_level = mem_level
        self._no_context_takeover = no_context_takeover
        self._keep_stream = window_bits > _MOST_REFILLED_BITS and not no_context_takeover
        self._stream: Any = None
        #: What the next stream begins with; empty where one is kept.
        self._window = b""

    @property
    def settings(self) -> tuple[int, int, int] | None:
        """What makes two contexts give messages alike: level, window bits, memory level.

        None where a message depends on those before it.
        """
        return (self._level, self._window_bits, self._mem_level) if self._no_context_takeover else None

    def deflate(self, payload: bytes | bytearray | memoryview) -> bytes:
        """Compress one whole message; every message that was compressed has to be sent."""
        return self.deflate_fragment(payload, True)

    def deflate_fragment(self, payload: bytes | bytearray | memoryview, fin: bool) -> bytes:
        """Compress a fragment of a message.

        The peer can inflate each fragment as soon as it has it. What an empty fragment that is not
        the last yields is empty too.

        Args:
            payload: the fragment's payload.
            fin: whether it is the last.
        """
        if len(payload) == 0:
            # RFC 7692 section 7.2.3.6: an empty block without compression, less its last four bytes.
            # Not by zlib, whose documentation has it skip a second flush in a row, and so that
            # an empty message makes no context. All that was sent before ends with whole bytes.
            compressed = _EMPTY_MESSAGE if fin else b""
        else:
            try:
                stream = self._stream
                if stream is None:
                    stream = self._stream = self._begin()
                compressed = stream.compress(payload)
                flushed: bytes = stream.flush(2)  # Z_SYNC_FLUSH
                if not self._keep_stream and not self._no_context_takeover:
                    self._window = slide(self._window, payload, 1 << self._window_bits)
            except BaseException:
                # The window would hold what the peer never got; without it we are right again.
                self.close()
                raise
            # RFC 7692 section 7.2.1: the last four bytes of a message's last flush are removed.
            if fin:
                flushed = flushed[:-4]
            compressed = compressed + flushed if compressed else flushed
        if fin and not self._keep_stream:
            self._stream = None
        return compressed

    def _begin(self) -> Any:
        """Begin a stream: with the window so far, from the beginning of a message on."""
        level, mem_level = self._level, self._mem_level
        make = zlib.compressobj
        if isal.isal_zlib is not None and level <= isal.MOST_LEVEL:
            # Level 2 takes as long and makes nothing smaller, 3 takes twice as long for 2 % less. More
            # memory than 2 stands for is there for larger blocks, and only slower to get.
            level, mem_level = 1, min(mem_level, 2)
            make = isal.isal_zlib.compressobj
        return make(level, zlib.DEFLATED, -self._window_bits, mem_level, 0, self._window)

    def close(self) -> None:
        """Drop the context.

        It is made anew when it is needed, and the peer does not notice: no message has to refer
        to those before. So this may be called at any time, to free the memory of an idle
        connection too.
        """
        self._stream = None
        self._window = b""


def slide(window: bytes, data: bytes | bytearray | memoryview, size: int) -> bytes:
    """Return the last `size` bytes of a window and of what came behind it."""
    if len(data) >= size:
        return bytes(data[-size:])
    if len(window) + len(data) <= size:
        return window + data
    return window[len(data) - size :] + data
