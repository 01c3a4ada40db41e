"""What a transport tells of its connection; all of it is called in the hub.

Hot: compiled with receiver.pxd, because the transport is.
"""

from __future__ import annotations

__all__ = ["Receiver"]


class Receiver:
    """The owner of a transport."""

    __slots__ = ()

    def handle_input(self) -> None:
        """The protocol was fed: take its events."""
        raise NotImplementedError

    def handle_drained(self) -> None:
        """Bytes that waited have been written."""
        raise NotImplementedError

    def handle_end(self, detail: str) -> None:
        """TCP is over; `detail` says why where that was not the end of a closing handshake."""
        raise NotImplementedError

    def handle_error(self, error: BaseException) -> None:
        """Something raised in a callback. The connection must be ended."""
        raise NotImplementedError
