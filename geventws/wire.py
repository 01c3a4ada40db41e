"""System calls on a descriptor, and the switch between greenlets: the Python twin of wire.pyx.

The two have the same functions and the same results; the compiled one is chosen by Python's
import system where it was built.
"""

from __future__ import annotations

import fcntl
import os
import termios
import time
from typing import TYPE_CHECKING, Any

from greenlet import getcurrent, greenlet

if TYPE_CHECKING:
    from .protocol.block import Block

__all__ = [
    "current_greenlet",
    "has_unread",
    "monotonic",
    "parent_of",
    "receive_block",
    "receive_into",
    "send_chunks",
    "switch",
]

#: How many chunks go out in one system call.
MAX_CHUNKS = 64


def receive_into(descriptor: int, buffer: bytearray) -> int:
    """Receive what has come, without waiting.

    Returns:
        The count of bytes now at the start of `buffer`; 0 at the end of the stream; -1 if nothing
        has come.

    Raises:
        OSError: if the connection was reset, and the like.
    """
    try:
        return os.readv(descriptor, [buffer])
    except (BlockingIOError, InterruptedError):
        return -1


def receive_block(descriptor: int, block: Block, count: int, buffer: bytearray) -> int:
    """Receive what has come, without waiting: `count` bytes behind the end of a block, then into a buffer.

    Args:
        descriptor: the socket's.
        block: it has room for them, see `Block.reserve`. They are not its own until `Block.commit`.
        count: at least one.
        buffer: where what comes behind them is put.

    Returns:
        How many bytes have come, in both together; 0 at the end of the stream; -1 if nothing has come.

    Raises:
        OSError: if the connection was reset, and the like.
        IndexError: if the block has no room.
    """
    try:
        with block.room(count) as room:
            return os.readv(descriptor, [room, buffer])
    except (BlockingIOError, InterruptedError):
        return -1


def has_unread(descriptor: int) -> bool:
    """Tell whether bytes are here that nobody has received; not whether the stream has ended."""
    return fcntl.ioctl(descriptor, termios.FIONREAD, b"\0\0\0\0") != b"\0\0\0\0"


def send_chunks(descriptor: int, chunks: list[bytes | str], offset: int, last: bool = False) -> int:
    """Send as much as goes out without waiting, in one system call.

    Args:
        descriptor: the socket's.
        chunks: what to send, at least one: bytes, or str of ASCII.
        offset: bytes of the first chunk to leave out.
        last: our side of the stream is ended next, and the system may wait for that. Python cannot tell
            it; the bytes are the same.

    Returns:
        The count of bytes that went out, behind the offset; -1 if none could.

    Raises:
        OSError: if the connection was reset, and the like.
    """
    try:
        if len(chunks) == 1 and not offset:
            return os.write(descriptor, _octets(chunks[0]))
        first, *others = map(_octets, chunks[:MAX_CHUNKS])
        return os.writev(descriptor, [memoryview(first)[offset:], *others])
    except (BlockingIOError, InterruptedError):
        return -1


def _octets(chunk: bytes | str) -> bytes:
    return chunk.encode("ascii") if isinstance(chunk, str) else chunk


def monotonic() -> float:
    """Return the time in seconds, as `time.monotonic`."""
    return time.monotonic()


def current_greenlet() -> Any:
    """Return the greenlet that runs."""
    return getcurrent()


def parent_of(thing: Any) -> Any:
    """Return the greenlet that is switched to when this one ends, or None.

    Raises:
        TypeError: if it is no greenlet.
    """
    if not isinstance(thing, greenlet):
        raise TypeError(f"only greenlets have a parent, not {type(thing).__name__}")
    return thing.parent


def switch(target: Any) -> None:
    """Switch to a greenlet; returns when something switches back."""
    target.switch()
