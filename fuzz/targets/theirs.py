"""What websockets makes of the same bytes, in the manner of tests/opinions.py.

AVAILABLE is False with a release that is too old for what is done here.
"""

from __future__ import annotations

import logging
from typing import Any

from websockets.client import ClientProtocol
from websockets.exceptions import InvalidHandshake, PayloadTooBig, ProtocolError
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory, PerMessageDeflate
from websockets.frames import Opcode
from websockets.http11 import Request, Response
from websockets.protocol import OPEN
from websockets.server import ServerProtocol
from websockets.streams import StreamReader
from websockets.uri import WebSocketURI
from websockets.version import version

__all__ = ["AVAILABLE", "of_frames", "opens", "takes_answer"]

AVAILABLE = int(version.partition(".")[0]) >= 17

_SILENT = logging.getLogger("fuzz.theirs")
_SILENT.setLevel(logging.CRITICAL + 1)

Opinion = tuple[list[Any], "int | None"]


# Where websockets 17.4 differs, and what is done about it:
#
# * Its protocol leaves UTF-8 to the layer above, which decodes whole messages: that is done here, and
#   text that is wrong is found at the end of its message, not in the middle.
# * A header is judged when its frame is complete; of the rest of an incomplete frame it says nothing.
# * A length that is not minimal passes (RFC 6455 section 5.2 says MUST), and one with the most significant
#   bit set is waited for.
# * A Close between the fragments of a message is a violation; RFC 6455 section 5.4 allows control frames
#   there, and section 5.5.1 makes no exception: it is taken for the Close that it is.


def of_frames(client: bool, pieces: list[bytes], deflate: bool, max_size: int | None = None) -> Opinion:
    """Events, and the close code that its verdict on a violation is."""
    other: Any
    if client:
        other = ClientProtocol(
            WebSocketURI(False, "a", 80, "/", ""), state=OPEN, max_size=max_size, logger=_SILENT
        )
    else:
        other = ServerProtocol(state=OPEN, max_size=max_size, logger=_SILENT)
    if deflate:
        other.extensions = [PerMessageDeflate(False, False, 15, 15)]
    events: list[Any] = []
    text = False
    parts: list[bytes] = []
    for piece in pieces:
        other.receive_data(piece)
        for frame in other.events_received():
            if frame.opcode is Opcode.PONG:
                events.append(("pong", bytes(frame.data)))
            elif frame.opcode is Opcode.CLOSE:
                events.append(("close", int(other.close_rcvd.code), other.close_rcvd.reason))
                return events, None
            elif frame.opcode is not Opcode.PING:
                if frame.opcode is not Opcode.CONT:
                    text, parts = frame.opcode is Opcode.TEXT, []
                parts.append(bytes(frame.data))
                if frame.fin:
                    data = b"".join(parts)
                    try:
                        events.append(("message", data.decode() if text else data))
                    except UnicodeDecodeError:
                        return events, 1007
        error = other.parser_exc
        if error is not None:
            if isinstance(error, UnicodeDecodeError):
                return events, 1007
            if isinstance(error, PayloadTooBig):
                return events, 1009
            assert isinstance(error, ProtocolError), error
            if str(error) == "incomplete fragmented message":
                events.append(("close", int(other.close_rcvd.code), other.close_rcvd.reason))
                return events, None
            # To websockets data that does not inflate breaks the protocol (RFC 7692 has no word on it).
            inflating = "decompression failed" in str(error)
            return events, 1007 if inflating else 1002
    return events, None


def _run(parsing: Any) -> Any:
    """Run a parser of websockets over bytes that are all there."""
    try:
        next(parsing)
    except StopIteration as stop:
        return stop.value
    raise AssertionError("it wants more than there is")


def opens(head: bytes) -> str | None:
    """Why websockets would not open a WebSocket for this request; None if it would."""
    reader = StreamReader()
    reader.feed_data(head.removeprefix(b"\r\n"))
    reader.feed_eof()
    try:
        request = _run(Request.parse(reader.read_line))
    except (ValueError, EOFError, NotImplementedError, RuntimeError) as error:
        return f"{type(error).__name__}: {error}"
    if request.protocol != "HTTP/1.1":
        return request.protocol
    server = ServerProtocol(logger=_SILENT)
    try:
        server.process_request(request)
    except InvalidHandshake as error:
        return f"{type(error).__name__}: {error}"
    return None


def takes_answer(head: bytes, key: str, subprotocols: list[str]) -> str | None:
    """Why websockets would not take this for the answer to its request; None if it would."""
    reader = StreamReader()
    reader.feed_data(head)
    reader.feed_eof()
    client = ClientProtocol(
        WebSocketURI(False, "a", 80, "/", ""),
        subprotocols=subprotocols,  # type: ignore[arg-type]
        extensions=[ClientPerMessageDeflateFactory(server_max_window_bits=12, client_max_window_bits=12)],
        logger=_SILENT,
    )
    client.key = key
    try:
        response = _run(Response.parse(reader.read_line, reader.read_exact, reader.read_to_eof))
        client.process_response(response)
    except (ValueError, LookupError, EOFError, NotImplementedError, RuntimeError, InvalidHandshake) as error:
        return f"{type(error).__name__}: {error}"
    return None
