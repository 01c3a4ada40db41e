"""System calls on a descriptor, and the switch between greenlets: the Python twin of wire.pyx.

The two have the same functions and the same results; the compiled one is chosen by Python's
import system where it was built.
"""

from __future__ import annotations

import os
from typing import Any

from greenlet import getcurrent

__all__ = ["current_greenlet", "receive_into", "send_chunks", "switch"]

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


def send_chunks(descriptor: int, chunks: list[bytes], offset: int, last: bool = False) -> int:
    """Send as much as goes out without waiting, in one system call.

    Args:
        descriptor: the socket's.
        chunks: what to send, at least one.
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
            return os.write(descriptor, chunks[0])
        if not offset:
            return os.writev(descriptor, chunks[:MAX_CHUNKS])
        return os.writev(descriptor, [memoryview(chunks[0])[offset:], *chunks[1:MAX_CHUNKS]])
    except (BlockingIOError, InterruptedError):
        return -1


def current_greenlet() -> Any:
    """Return the greenlet that runs."""
    return getcurrent()


def switch(target: Any) -> None:
    """Switch to a greenlet; returns when something switches back."""
    target.switch()
