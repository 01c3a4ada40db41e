"""Messages (RFC 6455 sections 5.4, 5.6 and 8.1): frames put together, within limits.

Rules of this file: what a data frame may be in its message, and how large, is checked at its
header; text is checked as its bytes come, inside a frame that is not complete too; control frames
never come here.

Hot: compiled with messages.pxd (`benchmarks/micro.py`, row "decode").
"""

from __future__ import annotations

from ..exceptions import InvalidFrame, InvalidPayload, MessageTooBig, RemoteProtocolError
from .block import Block
from .contexts import Inflater
from .frames import FrameReader

__all__ = ["MessageReader"]

#: Bytes of one read that go straight to where they stay: masked ones, which are unmasked while they are in
#: the processor's cache, and those of a server, which are left as they come.
_MOST_DIRECT = 256 * 1024
_MOST_UNMASKED = 1024 * 1024

#: From this many missing bytes on that is worth it.
_LEAST_DIRECT = 4 * 1024


class MessageReader:
    """Puts the data frames of one direction together.

    Attributes:
        size: bytes of the message that was returned last, after inflating.
        final_blocks: its blocks with BFINAL, behind which another stream had to begin.
        block: what is here of the message that comes in pieces, or None.
    """

    __slots__ = (
        "_compressed",
        "_fragments",
        "_inflater",
        "_max_fragments",
        "_max_size",
        "_max_wire_size",
        "_text",
        "_wire_size",
        "block",
        "expect_continuation",
        "final_blocks",
        "size",
    )

    def __init__(self, max_size: int | None, max_fragments: int | None, inflater: Inflater | None) -> None:
        """Args: max_size: bytes; max_fragments: frames; both None for no limit. inflater: None where
        permessage-deflate was not agreed.

        Raises:
            ValueError: for a limit that is not from 1 to 2**60.
        """
        for limit in (max_size, max_fragments):
            # Compiled code counts in 64 bits, and adds to them.
            if limit is not None and not 0 < limit <= 2**60:
                raise ValueError(f"a limit is a number from 1 to 2**60, or None, not {limit}")
        self._max_size = -1 if max_size is None else max_size
        # What an honest deflate encoder makes of max_size bytes that it cannot compress: the bound
        # that zlib documents for its least favourable settings.
        self._max_wire_size = -1 if max_size is None else max_size + (max_size >> 3) + (max_size >> 6) + 64
        self._max_fragments = -1 if max_fragments is None else max_fragments
        self._inflater = inflater
        #: The first frame of a message was seen and not its last (never inferred from a buffer).
        self.expect_continuation = False
        self._compressed = False
        self._fragments = 0
        self._wire_size = 0
        self.size = self.final_blocks = 0
        self._text = False
        self.block: Block | None = None

    def begin(self, frame: FrameReader) -> None:
        """Check a data frame whose header was just read.

        Raises:
            InvalidFrame: if it may not stand here.
            MessageTooBig: if the message would exceed a limit.
        """
        # RFC 6455 section 5.4: a message is one frame, or a first one and continuations; the
        # fragments of one message are not mixed with those of another.
        if frame.opcode == 0:
            if not self.expect_continuation:
                raise InvalidFrame("a continuation frame, but no message to continue", "frame.continuation")
            # RFC 7692 section 6.1: RSV1 stands on the first frame of a message only.
            if frame.rsv1:
                raise InvalidFrame("a continuation frame with RSV1", "frame.reserved_bits")
        else:
            if self.expect_continuation:
                raise InvalidFrame("a new message inside a fragmented one", "frame.continuation")
            if frame.rsv1 and self._inflater is None:
                raise InvalidFrame("RSV1 is set and no extension was agreed", "frame.reserved_bits")
            self._compressed = frame.rsv1
            self._fragments = 0
            self._wire_size = 0
            self.size = self.final_blocks = 0
            self._text = frame.opcode == 1
        self._fragments += 1
        # Empty fragments count too: they cost a peer two bytes each.
        if self._fragments > self._max_fragments >= 0:
            raise MessageTooBig(
                f"a message of more than {self._max_fragments} fragments (max_fragments)",
                self._fragments,
                self._max_fragments,
                "message.fragments",
            )
        limit = self._max_wire_size if self._compressed else self._max_size
        if limit >= 0:
            # Compared without adding: a peer can claim a length next to what the sum can hold.
            if frame.length > limit - self._wire_size:
                size = self._wire_size
                size += frame.length
                raise self._too_big(size)
            self._wire_size += frame.length
        self.expect_continuation = not frame.fin

    def _too_big(self, size: int) -> MessageTooBig:
        what = "compressed bytes" if self._compressed else "bytes"
        return MessageTooBig(
            f"a message of {size} {what} exceeds {self._max_size} (max_message_size)", size, self._max_size
        )

    def read(self, frame: FrameReader) -> str | bytes | None:
        """Take what is here of the frame's payload; return the message if that was its end.

        Raises:
            InvalidPayload: for text that is not UTF-8, or data that does not inflate.
            MessageTooBig: if inflating exceeds the limit.
        """
        if self._fragments == 1 and frame.fin and not self._compressed and frame.remaining == frame.length:
            # The usual message: one frame, all of it here.
            if frame.has_whole_payload():
                self.size = frame.length
                if not self._text:
                    return frame.take()
                try:
                    return frame.take_text()
                except UnicodeDecodeError as exc:
                    raise _not_utf8(exc.reason) from None
        block = self.block
        if block is None:
            block = self.block = Block()
            if not self._compressed and frame.fin:
                # All of it at once, where enough has come: moving a large block later costs a copy.
                block.reserve(frame.remaining, min(frame.pending(), frame.remaining))
        try:
            if self._compressed:
                self._inflate(block, frame)
            else:
                frame.take_into(block)
            # RFC 6455 section 8.1: text that is not UTF-8 fails the connection; inside a frame that is
            # not complete too, so that no one sends it on and on.
            if self._text:
                block.check_text()
            if frame.in_frame or not frame.fin:
                return None
            self.size = block.size
            self.block = None
            # RFC 6455 section 8.1: nor may the end of the message cut a code point off.
            return block.take_text() if self._text else block.take()
        except UnicodeDecodeError as exc:
            raise _not_utf8(exc.reason) from None

    def _inflate(self, block: Block, frame: FrameReader) -> None:
        """Add what is here of a compressed frame's payload to the message."""
        inflater = self._inflater
        assert inflater is not None
        try:
            block.append(
                inflater.inflate(frame.take(), None if self._max_size < 0 else self._max_size - block.size)
            )
        except RemoteProtocolError:
            # What came out before may break a rule too: the first violation is the one that
            # is told, however the bytes were cut.
            block.append(inflater.partial)
            if self._text:
                block.check_text()
            raise
        if frame.fin and not frame.in_frame:
            self.final_blocks = max(inflater.streams - 1, 0)
            inflater.finish()

    def reserve(self, frame: FrameReader) -> int:
        """Return how many bytes of the frame's payload may be received straight behind `block`.

        It is 0 where that is not worth it.
        """
        block = self.block
        if block is None or self._compressed or frame.remaining < _LEAST_DIRECT:
            return 0
        return min(block.reserve(frame.remaining), _MOST_DIRECT if frame.masked else _MOST_UNMASKED)

    def close(self) -> None:
        """Let go of all that was gathered; nothing is read after this."""
        self.block = None
        if self._inflater is not None:
            self._inflater.close()


def _not_utf8(reason: str) -> InvalidPayload:
    return InvalidPayload(f"text is not UTF-8: {reason}", "payload.utf8")
