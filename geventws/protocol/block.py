"""A message that comes in pieces, gathered in place: the Python twin of block.pyx.

The two have the same functions and the same results; the compiled one is chosen by Python's
import system where it was built, and there the block is the message's bytes object from the start.
"""

from __future__ import annotations

import codecs

from .masking import unmask

__all__ = ["Block", "give_back"]

#: Room is made for this many bytes at least, and for this many times what is here: a length that a
#: peer announces is not believed before a part of it has come.
_LEAST_ROOM = 4 * 1024
_GROWTH = 64


def give_back() -> None:
    """Give memory that large messages left to the system; here it was not kept."""


class Block:
    """Bytes of one message.

    Attributes:
        size: how many there are.
    """

    __slots__ = ("_checked", "_data", "size")

    def __init__(self) -> None:
        self._data = bytearray()
        #: Those that were found to be UTF-8.
        self._checked = 0
        self.size = 0

    def reserve(self, count: int, here: int = 0) -> int:
        """Make room for `count` bytes more, or for as many as what is here is reason enough for.

        Args:
            count: bytes that are announced.
            here: those of them that have come.

        Returns:
            How many there is room for, `count` at the most.

        Raises:
            ValueError: for a negative count.
        """
        if count < 0 or here < 0:
            raise ValueError("a count of bytes is not negative")
        most = max(_GROWTH * (self.size + here), _LEAST_ROOM, len(self._data))
        self._grow(min(self.size + count, most))
        return min(count, len(self._data) - self.size)

    def room(self, count: int) -> memoryview:
        """Return the `count` bytes behind the end, for receiving into.

        Next: release it, before anything else is done with the block; then `commit`.

        Raises:
            IndexError: if there is no room for them.
        """
        if not 0 < count <= len(self._data) - self.size:
            raise IndexError("octets outside of the block")
        return memoryview(self._data)[self.size : self.size + count]

    def _grow(self, capacity: int) -> None:
        if capacity > len(self._data):
            self._data += bytes(capacity - len(self._data))

    def append(self, data: bytes) -> None:
        """Add bytes."""
        self._make_room(len(data))
        self._data[self.size : self.size + len(data)] = data
        self.size += len(data)

    def append_masked(self, buffer: bytearray, start: int, end: int, key: bytes | None, phase: int) -> None:
        """Add bytes of a payload, unmasked; for the arguments and errors see `unmask`."""
        self.append(unmask(buffer, start, end, key, phase))

    def _make_room(self, count: int) -> None:
        """Make room for bytes that are here already."""
        if self.size + count > len(self._data):
            # By half: what comes in many small pieces is not copied for each.
            self._grow(max(self.size + count, self.size + (self.size >> 1)))

    def commit(self, count: int, key: bytes | None, phase: int) -> None:
        """Take over bytes that were received behind the end, and unmask them.

        Args:
            count: how many; there was room for them.
            key, phase: see `unmask`.

        Raises:
            IndexError: if there was no room, or the key has not four octets.
        """
        if not 0 <= count <= len(self._data) - self.size:
            raise IndexError("octets outside of the block")
        end = self.size + count
        self._data[self.size : end] = unmask(self._data, self.size, end, key, phase)
        self.size = end

    def check_text(self) -> None:
        """Check that what was added is UTF-8 as far as its code points are complete.

        Raises:
            UnicodeDecodeError: if it is not.
        """
        with memoryview(self._data) as view:
            start, end = self._checked, self.size
            self._checked += codecs.utf_8_decode(view[start:end], "strict", False)[1]
        left = self.size - self._checked
        if left == 2 and self._data[self._checked] == 0xED and self._data[self._checked + 1] >= 0xA0:
            # The decoder waits for all three bytes of a surrogate (it can be told to let them
            # pass), although the second one decides.
            self._data[self._checked : self.size].decode()

    def take(self) -> bytes:
        """Return all bytes, and be empty."""
        data = bytes(self._data[: self.size])
        self._clear()
        return data

    def take_text(self) -> str:
        """Return all bytes decoded, and be empty.

        Raises:
            UnicodeDecodeError: if they are not UTF-8.
        """
        text = self._data[: self.size].decode()
        self._clear()
        return text

    def _clear(self) -> None:
        self._data = bytearray()
        self._checked = 0
        self.size = 0
