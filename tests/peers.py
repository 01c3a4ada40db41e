"""The other side of a connection under test: frames as literals, for both roles.

Tests write frames as they look without masking, `b"\\x81\\x05Hello"`, header in sight. `Peer` masks what
it sends to a server, as a client must (RFC 6455 section 5.1), and unmasks what it gets from a client.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from geventws.protocol.closing import Phase
from geventws.protocol.connection import Connection, Event

__all__ = ["KEY", "Peer", "exclusive_or", "mask", "split_frames", "take_events", "unmask_frame"]

#: The masking key in the examples of RFC 6455 section 5.7.
KEY = b"\x37\xfa\x21\x3d"


def exclusive_or(data: bytes, key: bytes, phase: int = 0) -> bytes:
    """Mask as RFC 6455 section 5.3 words it, octet by octet: slow, and nobody's code but this file's."""
    return bytes(octet ^ key[(phase + i) % 4] for i, octet in enumerate(data))


def header_size(frame: bytes) -> int:
    """Octets before the masking key."""
    return {126: 4, 127: 10}.get(frame[1] & 0x7F, 2)


def mask(frame: bytes, key: bytes = KEY) -> bytes:
    """Mask a frame, or as much of one as is given from its header on."""
    size = header_size(frame)
    masked = bytes((frame[0], frame[1] | 0x80)) + frame[2:size] + key
    return masked + exclusive_or(frame[size:], key)


def split_frames(data: bytes) -> Iterator[bytes]:
    """Cut bytes into whole frames, masked or not; anything left over is an AssertionError."""
    while data:
        size = header_size(data)
        length = data[1] & 0x7F if size == 2 else int.from_bytes(data[2:size], "big")
        size += length + (4 if data[1] & 0x80 else 0)
        assert len(data) >= size, f"a frame of {size} bytes is cut after {len(data)}"
        yield data[:size]
        data = data[size:]


def unmask_frame(frame: bytes) -> bytes:
    """Undo `mask`."""
    assert frame[1] & 0x80
    size = header_size(frame)
    return (
        bytes((frame[0], frame[1] & 0x7F)) + frame[2:size] + exclusive_or(frame[size + 4 :], frame[size:][:4])
    )


def take_events(connection: Any) -> list[tuple[Any, ...]]:
    """Take events until more bytes are needed; what the last one calls for is then done, too."""
    found: list[tuple[Any, ...]] = []
    while True:
        event = connection.next_event()
        if event == Event.NEED_DATA:
            return found
        if event == Event.MESSAGE:
            found.append(("message", connection.message))
            length = len(connection.message)
            assert connection.message_size == length or isinstance(connection.message, str)
        elif event == Event.PONG:
            found.append(("pong", connection.pong))
        elif event == Event.CLOSE:
            found.append(("close",))
        else:
            assert event == Event.FAILED
            found.append(("failed",))


class Peer:
    """Talks to a `Connection` and looks at what comes back.

    Attributes:
        connection: the one under test.
        client: its role; this side has the other.
    """

    def __init__(self, client: bool, **options: Any) -> None:
        self.client = client
        self.connection = Connection(client=client, **options)

    def bytes_of(self, *frames: bytes) -> bytes:
        """What these frames are on the wire. The last one may be cut anywhere behind its header."""
        return b"".join(frames if self.client else map(mask, frames))

    def sends(self, *frames: bytes) -> list[tuple[Any, ...]]:
        """Send frames, given without masking; returns the events they make."""
        return self.sends_bytes(self.bytes_of(*frames))

    def sends_bytes(self, data: bytes) -> list[tuple[Any, ...]]:
        """Send bytes as they are."""
        self.connection.receive_data(data)
        return take_events(self.connection)

    def receives(self) -> list[bytes]:
        """The frames that were written since the last call, without masking, each checked to be whole."""
        connection = self.connection
        assert connection.out_size == sum(map(len, connection.out))
        frames = []
        for frame in split_frames(b"".join(connection.out)):
            # RFC 6455 section 5.1: a client masks every frame, a server none.
            assert bool(frame[1] & 0x80) == self.client
            frames.append(unmask_frame(frame) if self.client else frame)
        connection.out.clear()
        connection.out_size = 0
        return frames

    def receives_failure(self, code: int) -> str:
        """Take the one frame that fails the connection, a Close with `code`; returns its reason."""
        assert self.connection.phase == Phase.FAILED
        frames = self.receives()
        assert len(frames) == 1
        assert frames[0][:1] == b"\x88"
        assert frames[0][1] == len(frames[0]) - 2
        assert int.from_bytes(frames[0][2:4], "big") == code
        return frames[0][4:].decode()
