"""Messages (RFC 6455 sections 5.4, 5.6 and 8.1): frames put together, within limits.

Rules of this file: what a data frame may be in its message, and how large, is checked at its
header; text is checked as its bytes come, inside a frame that is not complete too; control frames
never come here.

Hot: compiled with messages.pxd (`benchmarks/micro.py`, row "decode").
"""

from __future__ import annotations

import codecs
import io

from ..exceptions import InvalidFrame, InvalidPayload, MessageTooBig, RemoteProtocolError
from .contexts import Inflater
from .frames import FrameReader

__all__ = ["MessageReader"]

_utf8_decoder = codecs.getincrementaldecoder("utf-8")


class MessageReader:
    """Puts the data frames of one direction together.

    Attributes:
        size: bytes of the message that was returned last, after inflating.
    """

    __slots__ = (
        "_binary",
        "_compressed",
        "_decoder",
        "_fragments",
        "_inflater",
        "_max_fragments",
        "_max_size",
        "_max_wire_size",
        "_text",
        "_wire_size",
        "expect_continuation",
        "size",
    )

    def __init__(self, max_size: int | None, max_fragments: int | None, inflater: Inflater | None) -> None:
        """Args: max_size: bytes; max_fragments: frames; both None for no limit. inflater: None where
        permessage-deflate was not agreed."""
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
        self.size = 0
        # One of the two while a message is in pieces: what came of a binary one, or of a text.
        self._binary: bytearray | None = None
        self._text: io.StringIO | None = None
        self._decoder: codecs.IncrementalDecoder | None = None

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
            self.size = 0
            self._expect(frame.opcode == 1)
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

    def _expect(self, text: bool) -> None:
        """Remember the kind of the message that begins; buffers are made when they are needed."""
        self._binary = None
        self._text = _NO_TEXT if text else None

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
                if self._text is None:
                    return frame.take()
                self._text = None
                try:
                    return frame.take_text()
                except UnicodeDecodeError as exc:
                    raise _not_utf8(exc.reason) from None
        self._add(frame.take(), frame.fin and not frame.in_frame)
        if frame.in_frame or not frame.fin:
            return None
        return self._finish()

    def _add(self, data: bytes, last: bool) -> None:
        """Add a piece of the payload to the message."""
        if self._compressed:
            inflater = self._inflater
            assert inflater is not None
            try:
                data = inflater.inflate(data, None if self._max_size < 0 else self._max_size - self.size)
            except RemoteProtocolError:
                # What came out before may break a rule too: the first violation is the one that
                # is told, however the bytes were cut.
                self._append(inflater.partial)
                raise
            self._append(data)
            if last:
                inflater.finish()
        else:
            self._append(data)
        if last and self._text is not None:
            # RFC 6455 section 8.1: a code point may not be cut off by the message's end.
            self._decode(b"", True)

    def _append(self, data: bytes) -> None:
        self.size += len(data)
        if self._text is not None:
            if data:
                self._decode(data, False)
        else:
            if self._binary is None:
                self._binary = bytearray()
            self._binary += data

    def _decode(self, data: bytes, last: bool) -> None:
        """Add text, however its code points are cut (RFC 6455 section 5.6)."""
        if self._decoder is None:
            self._decoder = _utf8_decoder()
        if self._text is _NO_TEXT:
            # It keeps one growing string, where a list of pieces would keep an object for each.
            self._text = io.StringIO(newline="\n")
        text = self._text
        assert text is not None
        try:
            text.write(self._decoder.decode(data, last))
        except UnicodeDecodeError as exc:
            raise _not_utf8(exc.reason) from None
        if not last and data[-1] >= 0xA0:
            # The decoder waits for all three bytes of a surrogate (it can be told to let them
            # pass), although the second one decides.
            pending = self._decoder.getstate()[0]
            if len(pending) == 2 and pending[0] == 0xED:
                raise _not_utf8("invalid continuation byte")

    def _finish(self) -> str | bytes:
        """Return the message and be ready for the next."""
        if self._text is not None:
            text = self._text.getvalue()
            self._text = None
            return text
        data = bytes(self._binary) if self._binary is not None else b""
        self._binary = None
        return data

    def close(self) -> None:
        """Let go of all that was gathered; nothing is read after this."""
        self._binary = None
        self._text = None
        self._decoder = None
        if self._inflater is not None:
            self._inflater.close()


def _not_utf8(reason: str) -> InvalidPayload:
    return InvalidPayload(f"text is not UTF-8: {reason}", "payload.utf8")


#: Stands for the text of a message of which nothing came yet.
_NO_TEXT = io.StringIO(newline="\n")
