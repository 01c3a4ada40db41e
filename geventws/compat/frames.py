"""The header of a frame, as gevent-websocket shows it (RFC 6455 section 5.2).

The frames of a connection are not read with it, but by geventws/protocol/.
"""

from __future__ import annotations

import struct
from typing import Any

from ..protocol.masking import unmask
from .exceptions import FrameTooLargeException, ProtocolError, WebSocketError

__all__ = ["Header"]


class Header:
    """What stands before the payload of a frame.

    Attributes:
        fin: it is the last frame of its message.
        opcode: what it is.
        flags: its reserved bits, where they stand in the first byte.
        length: bytes of payload.
        mask: the four bytes of the masking key; empty where there is none.
    """

    __slots__ = ("fin", "flags", "length", "mask", "opcode")

    FIN_MASK = 0x80
    OPCODE_MASK = 0x0F
    MASK_MASK = 0x80
    LENGTH_MASK = 0x7F
    RSV0_MASK = 0x40
    RSV1_MASK = 0x20
    RSV2_MASK = 0x10
    HEADER_FLAG_MASK = RSV0_MASK | RSV1_MASK | RSV2_MASK

    def __init__(self, fin: Any = 0, opcode: int = 0, flags: int = 0, length: int = 0) -> None:
        self.fin = fin
        self.opcode = opcode
        self.flags = flags
        self.length = length
        self.mask = b""

    def __repr__(self) -> str:
        return f"<Header fin={self.fin} opcode={self.opcode} flags={self.flags:#x} length={self.length}>"

    def mask_payload(self, payload: Any) -> bytearray:
        """Return a payload masked with the key, or unmasked: it is the same (RFC 6455 section 5.3)."""
        octets = bytearray(payload)
        return bytearray(unmask(octets, 0, len(octets), self.mask or None, 0))

    unmask_payload = mask_payload

    @classmethod
    def decode_header(cls, stream: Any) -> Header:
        """Read a header from a file.

        Raises:
            ProtocolError: for a control frame that is fragmented.
            FrameTooLargeException: for one above 125 bytes.
            WebSocketError: if the file ends within the header.
        """

        def read(count: int) -> bytes:
            data: bytes = stream.read(count)
            if len(data) != count:
                raise WebSocketError("Unexpected EOF while decoding header")
            return data

        first, second = read(2)
        header = cls(
            fin=bool(first & cls.FIN_MASK),
            opcode=first & cls.OPCODE_MASK,
            flags=first & cls.HEADER_FLAG_MASK,
            length=second & cls.LENGTH_MASK,
        )
        # RFC 6455 section 5.5: control frames are not fragmented and have at most 125 bytes.
        if header.opcode > 0x07 and not header.fin:
            raise ProtocolError(f"control frame with opcode {header.opcode} is fragmented")
        if header.opcode > 0x07 and header.length > 125:
            raise FrameTooLargeException(f"control frame with opcode {header.opcode} is above 125 bytes")
        if header.length == 126:
            header.length = int.from_bytes(read(2), "big")
        elif header.length == 127:
            header.length = int.from_bytes(read(8), "big")
        if second & cls.MASK_MASK:
            header.mask = read(4)
        return header

    @classmethod
    def encode_header(cls, fin: Any, opcode: int, mask: bytes, length: int, flags: int) -> bytearray:
        """Return the bytes of a header.

        Args:
            fin, opcode, length: see the attributes.
            mask: the masking key, empty for none.
            flags: the reserved bits, of which all others are left out.

        Raises:
            FrameTooLargeException: for a length that has no 64 bits.
        """
        first = opcode | (flags & cls.HEADER_FLAG_MASK) | (cls.FIN_MASK if fin else 0)
        masked = cls.MASK_MASK if mask else 0
        if length < 126:
            header = struct.pack("!BB", first, masked | length)
        elif length < 2**16:
            header = struct.pack("!BBH", first, masked | 126, length)
        elif length < 2**64:
            header = struct.pack("!BBQ", first, masked | 127, length)
        else:
            raise FrameTooLargeException(f"a frame of {length} bytes has no header")
        return bytearray(header + bytes(mask))
