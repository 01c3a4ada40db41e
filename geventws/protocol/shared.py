"""A message for many connections: its frame is made once for each way of encoding it."""

from __future__ import annotations

from .contexts import Deflater
from .masking import build_frame

__all__ = ["SharedMessage"]


class SharedMessage:
    """A message and the frames a server sends of it, kept for the next connection.

    Attributes:
        data: the message, str or bytes.
        size: its bytes in a frame.
    """

    __slots__ = ("_deflated", "_plain", "_raw", "data", "size")

    def __init__(self, data: str | bytes) -> None:
        self.data = data
        # Encoding here tells of a lone surrogate before anything is sent to anyone.
        self._raw = data.encode() if isinstance(data, str) else data
        self.size = len(self._raw)
        self._plain: bytes | None = None
        self._deflated: dict[tuple[int, int, int], bytes] = {}

    def frame(self) -> bytes:
        """Return the frame, uncompressed."""
        if self._plain is None:
            self._plain = build_frame(0x81 if isinstance(self.data, str) else 0x82, self._raw, None)
        return self._plain

    def deflated_frame(self, settings: tuple[int, int, int]) -> bytes:
        """Return the frame compressed on its own with these settings (see `Deflater.settings`).

        Only for connections that keep no context between messages (RFC 7692 section 7.1.1.1).
        """
        frame = self._deflated.get(settings)
        if frame is None:
            level, window_bits, mem_level = settings
            deflater = Deflater(level, window_bits, mem_level, no_context_takeover=True)
            payload = deflater.deflate(self._raw)
            frame = build_frame(0xC1 if isinstance(self.data, str) else 0xC2, payload, None)
            self._deflated[settings] = frame
        return frame
