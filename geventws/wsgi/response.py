"""The ordinary response that an application may give to an upgrade request, held back while it can be."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from .late import Phase

if TYPE_CHECKING:
    from .late import Upgrade
    from .takeover import Write

__all__ = ["HeldResponse", "LastResponse"]


class HeldResponse:
    """What the application says with start_response.

    Attributes:
        status: the status line, or "".
        headers: the header fields.
    """

    __slots__ = ("_begin", "_upgrade", "_write", "headers", "status")

    def __init__(self, upgrade: Upgrade, begin: Callable[[str, list[tuple[str, str]]], Write]) -> None:
        """Args: begin: begins the response, when it must."""
        self._upgrade = upgrade
        self._begin = begin
        self._write: Write | None = None
        self.status = ""
        self.headers: list[tuple[str, str]] = []

    def start_response(self, status: str, headers: Iterable[tuple[str, str]], exc_info: Any = None) -> Write:
        """What the application gets as its start_response (PEP 3333)."""
        try:
            if self._write is not None:
                if exc_info is None:
                    raise AssertionError("start_response() after the response has begun")
                raise exc_info[1].with_traceback(exc_info[2])
            if self.status and exc_info is None:
                raise AssertionError("start_response() a second time, without exc_info")
            self.status = status
            self.headers = list(headers)
            return self.write
        finally:
            exc_info = None

    def write(self, data: bytes) -> None:
        """What start_response returns: commits, and writes."""
        if self._upgrade.phase is not Phase.ACCEPTED:
            self.commit()
            if self._write is not None:
                self._write(data)

    def commit(self) -> None:
        """Let it go out: the request is no WebSocket any more. Nothing happens without a start_response."""
        if self._write is None and self.status:
            self._write = self._begin(self.status, self.headers)

    def code(self) -> int:
        """The status code, 0 where there is none."""
        code = self.status[:3]
        return int(code) if code.isdecimal() else 0


class LastResponse:
    """The body of a response after which a connection ends: what was taken off it already, and the rest."""

    __slots__ = ("_end", "_first", "_iterable", "_iterator")

    def __init__(
        self,
        iterable: Any,
        end: Callable[[], None],
        first: bytes = b"",
        iterator: Iterator[bytes] | None = None,
    ) -> None:
        """Args:
        iterable: what the application has returned; it is closed with this.
        end: called when the server is done with it.
        first, iterator: the first chunk, and where the others come from.
        """
        self._iterable = iterable
        self._end = end
        self._first = first
        self._iterator = iterator

    def __iter__(self) -> Iterator[bytes]:
        if self._first:
            yield self._first
            self._first = b""
        yield from iter(self._iterable) if self._iterator is None else self._iterator

    def close(self) -> None:
        """The server is done with it, or has given up."""
        try:
            close = getattr(self._iterable, "close", None)
            if close is not None:
                close()
        finally:
            self._end()
