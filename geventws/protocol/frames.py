"""Frames (RFC 6455 section 5): reading them from borrowed bytes, header rules first.

Rules of this file: every rule about a header is checked when the header's bytes are here, before
any payload; a reader knows one frame at a time and nothing of messages; how the bytes were cut
never changes what is read.

Hot: compiled with frames.pxd (`benchmarks/micro.py`, row "decode").
"""

from __future__ import annotations

from ..exceptions import InvalidFrame
from .block import Block
from .masking import read_key, unmask, unmask_text

__all__ = ["FrameReader"]


class FrameReader:
    """Reads the frames of one direction of a connection.

    Attributes:
        fin, rsv1, opcode, length: of the frame whose header was read last.
        remaining: bytes of its payload that were not taken yet.
        masked: what the frames of this direction are.
        in_frame: a header was read and its payload not all taken.
    """

    __slots__ = (
        "_buffer",
        "_end",
        "_key",
        "_position",
        "fin",
        "in_frame",
        "length",
        "masked",
        "opcode",
        "remaining",
        "rsv1",
    )

    def __init__(self, masked: bool) -> None:
        """Args: masked: what the peer must do: True for a server's peer (RFC 6455 section 5.1)."""
        self.masked = masked
        self._buffer = _EMPTY
        self._position = 0
        self._end = 0
        self._key: bytes | None = None
        self.fin = False
        self.rsv1 = False
        self.opcode = 0
        self.length = 0
        self.remaining = 0
        self.in_frame = False

    def feed(self, buffer: bytearray, end: int) -> None:
        """Borrow the first `end` bytes of `buffer`.

        The bytes are read in place and payloads may be unmasked there, so that they belong to this
        reader until it has read them all or `keep` was called.
        """
        if self._position < self._end:
            buffer = self._buffer[self._position : self._end] + buffer[:end]
            end = len(buffer)
        self._buffer = buffer
        self._position = 0
        self._end = end

    def keep(self) -> None:
        """Copy what was not read yet, so that the borrowed buffer can be used for something else."""
        if self._position < self._end:
            self._buffer = self._buffer[self._position : self._end]
            self._end -= self._position
        else:
            self._buffer = _EMPTY
            self._end = 0
        self._position = 0

    def drop(self) -> None:
        """Forget what was not read yet."""
        self._buffer = _EMPTY
        self._position = 0
        self._end = 0

    def pending(self) -> int:
        """Return how many bytes were fed and not read yet."""
        return self._end - self._position

    def read_header(self) -> bool:
        """Read the next frame's header; False if not all of it is here yet.

        Raises:
            InvalidFrame: for a header that is not allowed.
        """
        buffer = self._buffer
        position = self._position
        available = self._end - position
        if available < 2:
            return False
        first = buffer[position]
        second = buffer[position + 1]
        opcode = first & 0x0F
        length = second & 0x7F

        # RFC 6455 section 5.2: RSV2 and RSV3 have no meaning in any extension that we agree to; RSV1
        # only where permessage-deflate was agreed, which is for the message's rules to say.
        if first & 0x30:
            raise InvalidFrame("reserved bits RSV2 or RSV3 are set", "frame.reserved_bits")
        # RFC 6455 section 5.2: opcodes 3-7 and B-F are reserved.
        if opcode > 0xA or 2 < opcode < 8:
            raise InvalidFrame(f"opcode 0x{opcode:X} is reserved", "frame.opcode")
        # RFC 6455 section 5.1: a client masks every frame, a server none.
        if (second & 0x80 != 0) != self.masked:
            if self.masked:
                raise InvalidFrame("a frame from a client is not masked", "frame.unmasked")
            raise InvalidFrame("a frame from a server is masked", "frame.masked")
        if opcode >= 8:
            # RFC 6455 section 5.5: control frames have 125 bytes at the most and are not fragmented.
            if length > 125:
                raise InvalidFrame("a control frame of more than 125 bytes", "frame.control_length")
            if not first & 0x80:
                raise InvalidFrame("a fragmented control frame", "frame.control_fragmented")
            # RFC 7692 section 6: control frames are not compressed.
            if first & 0x40:
                raise InvalidFrame("a control frame with RSV1", "frame.reserved_bits")

        size = 2
        if length == 126:
            size = 4
            if available < size:
                return False
            length = (buffer[position + 2] << 8) | buffer[position + 3]
            # RFC 6455 section 5.2: the minimal number of bytes MUST be used to encode the length.
            if length < 126:
                raise InvalidFrame(f"a length of {length} in 16 bits is not minimal", "frame.length")
        elif length == 127:
            size = 10
            if available < size:
                return False
            # RFC 6455 section 5.2: the most significant bit MUST be 0.
            if buffer[position + 2] & 0x80:
                raise InvalidFrame("a length with the most significant bit set", "frame.length")
            length = self._read_length(position + 2)
            if length < 65536:
                raise InvalidFrame(f"a length of {length} in 64 bits is not minimal", "frame.length")
        if self.masked:
            if available < size + 4:
                return False
            self._key = read_key(buffer, position + size)
            size += 4
        self._position = position + size
        self.fin = first & 0x80 != 0
        self.rsv1 = first & 0x40 != 0
        self.opcode = opcode
        self.length = length
        self.remaining = length
        self.in_frame = True
        return True

    def _read_length(self, position: int) -> int:
        """Return the 64-bit length that stands at `position`."""
        length = 0
        for offset in range(8):
            length = (length << 8) | self._buffer[position + offset]
        return length

    def has_whole_payload(self) -> bool:
        """Tell whether the rest of the payload is here."""
        return self._end - self._position >= self.remaining

    def take(self) -> bytes:
        """Take as much of the payload as is here, unmasked."""
        start = self._position
        count = self._end - start
        if count >= self.remaining:
            count = self.remaining
            self.in_frame = False
        data = unmask(self._buffer, start, start + count, self._key, self._phase())
        self._position = start + count
        self.remaining -= count
        return data

    def take_into(self, block: Block) -> None:
        """Take as much of the payload as is here, unmasked, to the end of a block."""
        start = self._position
        count = self._end - start
        if count >= self.remaining:
            count = self.remaining
            self.in_frame = False
        block.append_masked(self._buffer, start, start + count, self._key, self._phase())
        self._position = start + count
        self.remaining -= count

    def commit(self, block: Block, count: int) -> None:
        """Take payload that was received behind the end of a block."""
        block.commit(count, self._key, self._phase())
        self.remaining -= count

    def _phase(self) -> int:
        """Return the octet of the masking key that belongs to the payload's next one."""
        return (self.length - self.remaining) & 3

    def take_text(self) -> str:
        """Take a whole payload that is here, unmasked and decoded.

        Raises:
            UnicodeDecodeError: if it is not UTF-8.
        """
        start = self._position
        text = unmask_text(self._buffer, start, start + self.length, self._key)
        self._position = start + self.length
        self.remaining = 0
        self.in_frame = False
        return text


_EMPTY = bytearray()
