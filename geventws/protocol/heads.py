"""Collects the head of a message of HTTP/1.1 (RFC 9112 section 2) within its limits.

A head is collected first and parsed once, so that no byte is looked at twice and the verdict cannot
depend on how the network cut it.

Rules of this file:

* Limits count the bytes that have come in all, not those of one read.
* Errors come in the order of the stream: N bytes give the same in one piece and in N.
* What stands behind the head is never looked at; it is `leftover`, byte for byte.

Compiled with heads.pxd (`benchmarks/`, row "handshakes").
"""

from __future__ import annotations

from ..exceptions import HeadTooBig, InvalidMessage, InvalidState
from .headers import Headers, make_headers

__all__ = ["Fields", "HeadReader"]

# Names and values that most handshakes have: one object for all connections instead of one for each.
_NAMES = {
    spelling.encode("ascii"): (name.lower(), spelling)
    for name in (
        "Accept",
        "Accept-Encoding",
        "Accept-Language",
        "Authorization",
        "Cache-Control",
        "Connection",
        "Cookie",
        "Host",
        "Origin",
        "Pragma",
        "Sec-Fetch-Dest",
        "Sec-Fetch-Mode",
        "Sec-Fetch-Site",
        "Sec-WebSocket-Accept",
        "Sec-WebSocket-Extensions",
        "Sec-WebSocket-Key",
        "Sec-WebSocket-Protocol",
        "Sec-WebSocket-Version",
        "Upgrade",
        "User-Agent",
        "X-Forwarded-For",
        "X-Forwarded-Host",
        "X-Forwarded-Proto",
        "X-Real-IP",
    )
    for spelling in (name, name.lower())
}
_VALUES = {
    value.encode("ascii"): value
    for value in (
        "13",
        "Upgrade",
        "upgrade",
        "keep-alive, Upgrade",
        "websocket",
        "no-cache",
        "gzip, deflate, br, zstd",
        "gzip, deflate, br",
        "gzip, deflate",
        "permessage-deflate; client_max_window_bits",
        "permessage-deflate",
        "*/*",
    )
}
# The names that clients send, in their order: there are few such lists, and each connection keeps one.
_SHAPES: dict[tuple[str, ...], tuple[tuple[str, ...], tuple[str, ...]]] = {}
_MAX_SHAPES = 256


class Fields:
    """What llhttp calls while it reads one message."""

    __slots__ = ("_common", "body", "complete", "headers_complete", "keys", "names", "values")

    def __init__(self) -> None:
        self.keys: list[str] = []
        self.names: list[str] = []
        self.values: list[str] = []
        #: All names are such as are shared.
        self._common = True
        self.body = bytearray()
        self.headers_complete = False
        self.complete = False

    def on_header(self, name: bytes, value: bytes) -> None:
        known = _NAMES.get(name)
        if known is None:
            self._common = False
            text = name.decode("ascii")
            self.keys.append(text.lower())
            self.names.append(text)
        else:
            self.keys.append(known[0])
            self.names.append(known[1])
        # llhttp leaves the space behind a value (RFC 9112 section 5: it is not part of it).
        self.values.append(_VALUES.get(value) or value.decode("latin-1").rstrip(" \t"))

    def on_headers_complete(self) -> None:
        self.headers_complete = True

    def on_body(self, data: bytes) -> None:
        self.body += data

    def on_message_complete(self) -> None:
        self.complete = True

    def headers(self) -> Headers:
        names = tuple(self.names)
        shape = _SHAPES.get(names) if self._common else None
        if shape is None:
            shape = tuple(self.keys), names
            # What a peer can fill has an end; so has what it can fill it with.
            if self._common and len(names) <= len(_NAMES) and len(_SHAPES) < _MAX_SHAPES:
                _SHAPES[names] = shape
        return make_headers(shape[0], shape[1], tuple(self.values))


class HeadReader:
    """Collects one head within its limits.

    Attributes:
        leftover: what came behind the head, once that is complete.
    """

    __slots__ = (
        "_buffer",
        "_consumed",
        "_empty_lines",
        "_line_start",
        "_lines",
        "_max_head",
        "_max_headers",
        "_max_line",
        "_over",
        "_scanned",
        "_start",
        "leftover",
    )

    #: What the messages call it.
    KIND = ""
    #: RFC 9112 section 2.2: a server ignores "at least one empty line" before the request line.
    EMPTY_LINES = 0
    #: With what the first line can begin.
    FIRST_BYTES = b""
    #: Status for a first line above `max_line` (RFC 9110 section 15.5.15).
    LINE_STATUS = 431

    def __init__(self, *, max_line: int | None, max_headers: int | None, max_head: int | None) -> None:
        self._max_line = max_line
        self._max_headers = max_headers
        self._max_head = max_head
        self._buffer = bytearray()
        self._consumed = 0
        self._over = False
        self.leftover = b""
        self._reset()

    def _reset(self) -> None:
        """Begin a head at the start of the buffer."""
        self._start = self._line_start = self._scanned = 0
        self._lines = self._empty_lines = 0

    def _whole_head(self, data: bytes) -> bytes | None:
        """Return the head where `data` is one in one piece and no limit can be reached."""
        end = data.find(b"\r\n\r\n") + 4
        if (
            (end > 4 and data[0] in self.FIRST_BYTES)
            and (self._max_line is None or end <= self._max_line)
            and (self._max_head is None or end <= self._max_head)
            and (self._max_headers is None or data.count(b"\n", 0, end) - 2 <= self._max_headers)
        ):
            self.leftover = data[end:]
            return data[:end]
        return None

    def _collect(self, data: bytes) -> bytes | None:
        """Add `data`; return the head once it is complete, without the empty line before it.

        Every byte is searched once: the work is linear however the data is cut.
        """
        buffer = self._buffer
        buffer += data
        # Errors come in the order of the stream: no line behind `max_head` is looked at.
        size = len(buffer)
        allowed = size if self._max_head is None else min(size, self._max_head - self._consumed)
        while True:
            end = buffer.find(b"\n", self._scanned, allowed)
            self._scanned = allowed if end < 0 else end + 1
            if self._lines == 0 and self._line_start < allowed:
                first = buffer[self._line_start]
                if first not in self.FIRST_BYTES and first not in b"\r\n":
                    raise InvalidMessage(f"not an HTTP {self.KIND}: it begins with byte 0x{first:02x}")
            length = self._scanned - self._line_start
            if end < 0:
                # The CR of the line's end may be among these.
                if length and buffer[allowed - 1] == 0x0D:
                    length -= 1
                self._check_line(length)
                break
            is_crlf = length > 1 and buffer[end - 1] == 0x0D
            length -= 2 if is_crlf else 1
            self._check_line(length)
            if not is_crlf:
                # RFC 9112 section 2.2 lets a recipient take a bare LF for a line's end; those who
                # do, and those who do not, see different requests in the same bytes.
                raise InvalidMessage(f"line {self._lines + 1} of the {self.KIND} ends with LF without CR")
            self._line_start = end + 1
            if length > 0:
                self._lines += 1
                if self._max_headers is not None and self._lines - 1 > self._max_headers:
                    raise HeadTooBig(
                        f"{self.KIND} has more than {self._max_headers} header fields", self._max_headers
                    )
            elif self._lines > 0:
                head = bytes(buffer[self._start : end + 1])
                self.leftover = bytes(buffer[end + 1 :])
                self._consumed += end + 1
                buffer.clear()
                self._reset()
                return head
            else:
                self._empty_lines += 1
                self._start = end + 1
                if self._empty_lines > self.EMPTY_LINES:
                    raise InvalidMessage(f"more than {self.EMPTY_LINES} empty lines before the {self.KIND}")
        if self._max_head is not None and size > allowed:
            raise HeadTooBig(f"{self.KIND} head is larger than {self._max_head} bytes", self._max_head)
        return None

    def _check_line(self, length: int) -> None:
        """Raise if a line of which `length` bytes are there, without its CRLF, is too long."""
        if self._max_line is not None and length > self._max_line:
            if self._lines == 0:
                raise HeadTooBig(
                    f"{self.KIND} line is longer than {self._max_line} bytes",
                    self._max_line,
                    self.LINE_STATUS,
                )
            raise HeadTooBig(
                f"header field {self._lines} of the {self.KIND} is longer than {self._max_line} bytes",
                self._max_line,
            )

    def _begin(self) -> None:
        """Check that more data is expected; until this call went well, none is."""
        if self._over:
            raise InvalidState(f"the {self.KIND} is complete or has failed: it takes no more data")
        self._over = True
