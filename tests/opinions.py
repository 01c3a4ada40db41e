"""What others make of the same bytes: wsproto of frames, h11 of heads.

They were written by other people from the same standards. Where they are known to differ stands beside
each, and is left out or evened out here, so that whatever else differs is a finding.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import h11
from wsproto.connection import Connection as Wsproto
from wsproto.connection import ConnectionState, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Ping, Pong, TextMessage
from wsproto.extensions import PerMessageDeflate

__all__ = [
    "h11_request",
    "h11_response",
    "of_ours",
    "of_wsproto",
    "split_stream",
]

Opinion = tuple[list[Any], "int | None"]


def split_stream(data: bytes) -> Iterator[bytes]:
    """Cut any bytes into frames by the lengths that they claim; the last one may be cut short."""
    at = 0
    while at < len(data):
        head = data[at : at + 10]
        size, length = 2, head[1] & 0x7F if len(head) > 1 else 0
        if length >= 126:
            size = 4 if length == 126 else 10
            length = int.from_bytes(head[2:size], "big")
        if len(head) > 1 and head[1] & 0x80:
            size += 4
        yield data[at : at + size + length]
        at += size + length


def of_ours(build: Any, client: bool, pieces: list[bytes], deflate: bool) -> Opinion:
    """Events, and the close code that the verdict on a violation is; no limits."""
    connection = build.connection.Connection(
        client=client,
        max_message_size=None,
        max_fragments=None,
        deflate=build.deflate.DeflateParameters() if deflate else None,
    )
    events: list[Any] = []
    for piece in pieces:
        connection.receive_data(piece)
        while event := int(connection.next_event()):
            if event == 1:
                events.append(("message", connection.message))
            elif event == 2:
                events.append(("pong", connection.pong))
            elif event == 3:
                connection.next_event()
                events.append(("close", connection.close_received.code, connection.close_received.reason))
            else:
                connection.next_event()
                return events, int(connection.error.close_code)
    return events, None


# Where wsproto 1.3 differs, and what is done about it:
#
# * It has no limits: none are set here.
# * It tells the parts of a message as they come: they are put together here.
# * It goes on after a violation: here nobody listens any more.
# * Frames in front of a violation in the same bytes may be lost: each frame is fed on its own.
# * A control frame between the fragments of a compressed message makes it take the rest for uncompressed
#   (RFC 7692 section 6.1 has RSV1 on the first frame only): with compression there are none of them.
# * A compressed message that ends in the middle of a block passes, and the next one pays for it: such
#   messages are left out by those who call this.


def of_wsproto(client: bool, pieces: list[bytes], deflate: bool) -> Opinion:
    """Events, and the close code that its verdict on a violation is."""
    extensions = []
    if deflate:
        extension = PerMessageDeflate()
        extension._enabled = True
        extensions.append(extension)
    kind = ConnectionType.CLIENT if client else ConnectionType.SERVER
    other = Wsproto(kind, extensions=extensions)
    events: list[Any] = []
    parts: list[Any] = []
    for piece in pieces:
        if other.state is not ConnectionState.OPEN:
            break
        other.receive_data(piece)
        for event in other.events():
            if isinstance(event, (TextMessage, BytesMessage)):
                parts.append(event.data if isinstance(event, TextMessage) else bytes(event.data))
                if event.message_finished:
                    events.append(("message", type(parts[0])().join(parts)))
                    parts = []
            elif isinstance(event, Pong):
                events.append(("pong", bytes(event.payload)))
            elif isinstance(event, CloseConnection):
                # A violation is told as a Close that no peer sent: then nothing changes its state.
                if other.state is ConnectionState.OPEN:
                    return events, int(event.code)
                events.append(("close", int(event.code), event.reason or ""))
            else:
                assert isinstance(event, Ping)
    return events, None


def h11_request(head: bytes) -> Any:
    """Let h11 read a request's head; None if it rejects it."""
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=2**20)
    # h11 takes no empty line before a request, RFC 9112 section 2.2 does.
    connection.receive_data(head.removeprefix(b"\r\n"))
    try:
        event = connection.next_event()
    except h11.RemoteProtocolError:
        return None
    return event if isinstance(event, h11.Request) else None


def h11_response(head: bytes) -> Any:
    """Let h11 read a response's head, interim ones before it skipped; None if it rejects it."""
    connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=2**20)
    # h11 knows of an upgrade only if it has asked for one.
    connection.send(h11.Request(method="GET", target="/", headers=[("Host", "a"), ("Upgrade", "x")]))
    connection.send(h11.EndOfMessage())
    connection.receive_data(head)
    try:
        event = connection.next_event()
        while isinstance(event, h11.InformationalResponse) and event.status_code != 101:
            event = connection.next_event()
    except h11.RemoteProtocolError:
        return None
    return event if isinstance(event, (h11.Response, h11.InformationalResponse)) else None
