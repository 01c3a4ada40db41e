"""Masking (RFC 6455 section 5.3) and the loops over octets: the Python twin of masking.pyx.

The two have the same functions and the same results; the compiled one is chosen by Python's
import system where it was built.
"""

from __future__ import annotations

__all__ = ["build_frame", "build_header", "read_key", "unmask", "unmask_text"]


def _xor(data: bytes | bytearray, key: bytes, phase: int) -> bytes:
    """XOR `data` with the key, starting at its octet `phase`."""
    if len(key) != 4:
        raise IndexError("a masking key has four octets")
    length = len(data)
    phase &= 3
    if phase:
        key = key[phase:] + key[:phase]
    # One long integer each: the fastest exclusive-or that the standard library offers.
    mask = (key * ((length + 3) >> 2))[:length]
    return (int.from_bytes(data, "little") ^ int.from_bytes(mask, "little")).to_bytes(length, "little")


def read_key(buffer: bytearray, position: int) -> bytes:
    """Return the masking key that stands at `position`.

    Raises:
        IndexError: if its four octets do not lie in the buffer.
    """
    if not 0 <= position <= len(buffer) - 4:
        raise IndexError("octets outside of the buffer")
    return bytes(buffer[position : position + 4])


def unmask(buffer: bytearray, start: int, end: int, key: bytes | None, phase: int) -> bytes:
    """Return octets of a payload, unmasked.

    Args:
        buffer: where the octets stand; it may be changed there.
        start: the first octet.
        end: behind the last.
        key: the masking key, four octets; None for a frame that is not masked.
        phase: the octet of the key that belongs to the first one: the count of payload octets that
            came before, taken modulo 4.

    Raises:
        IndexError: if the octets do not lie in the buffer, or the key has not four.
    """
    if not 0 <= start <= end <= len(buffer):
        raise IndexError("octets outside of the buffer")
    if key is None:
        return bytes(buffer[start:end])
    return _xor(buffer[start:end], key, phase)


def unmask_text(buffer: bytearray, start: int, end: int, key: bytes | None) -> str:
    """Return a whole payload of text, unmasked and decoded; for the arguments see `unmask`.

    Raises:
        UnicodeDecodeError: if it is not UTF-8.
        IndexError: if the octets do not lie in the buffer, or the key has not four.
    """
    return unmask(buffer, start, end, key, 0).decode()


def build_frame(first: int, payload: bytes | str, key: bytes | None) -> bytes:
    """Return one frame, whole: header and payload in one bytes object.

    Args:
        first: the header's first octet: FIN, RSV1-3 and opcode.
        payload: a str is encoded as UTF-8.
        key: the masking key, four octets, or None.

    Raises:
        UnicodeEncodeError: if a str holds a lone surrogate.
        TypeError: for a payload of another type; views and arrays are converted by the caller.
        IndexError: if the key has not four octets.
    """
    if isinstance(payload, str):
        data = payload.encode()
    elif isinstance(payload, bytes):
        data = payload
    else:
        raise TypeError("a payload is bytes or str")
    if key is None:
        return _header(first, 0, len(data)) + data
    return _header(first, 0x80, len(data)) + key + _xor(data, key, 0)


def build_header(first: int, length: int) -> bytes:
    """Return the header of a frame that is not masked.

    Args:
        first: the header's first octet: FIN, RSV1-3 and opcode.
        length: bytes of the payload.

    Raises:
        ValueError: for a number that is not possible.
    """
    if not 0 <= first < 256 or length < 0:
        raise ValueError("a header has an octet and a length")
    return _header(first, 0, length)


def _header(first: int, masked: int, length: int) -> bytes:
    # RFC 6455 section 5.2: the shortest of three forms of the length.
    if length < 126:
        return bytes((first, masked | length))
    if length < 65536:
        return bytes((first, masked | 126)) + length.to_bytes(2, "big")
    return bytes((first, masked | 127)) + length.to_bytes(8, "big")
