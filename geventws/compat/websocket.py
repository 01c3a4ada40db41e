"""`geventwebsocket.websocket`: what applications hold, with the manners of gevent-websocket.

It stands on a `geventws.WebSocket`, which is its attribute `websocket`. Frames are read and written there,
in the event loop: `read_frame` and `send_frame` show messages in the shape of frames.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..exceptions import ConcurrencyError, ConnectionClosed
from ..protocol.closing import truncate_reason
from ..protocol.opcodes import is_sendable_close_code
from .exceptions import FrameTooLargeException, ProtocolError, WebSocketError
from .frames import Header

if TYPE_CHECKING:
    import logging

    from ..websocket import WebSocket as _WebSocket

__all__ = [
    "MSG_ALREADY_CLOSED",
    "MSG_CLOSED",
    "MSG_SOCKET_DEAD",
    "Header",
    "Stream",
    "WebSocket",
]

MSG_SOCKET_DEAD = "Socket is dead"
MSG_ALREADY_CLOSED = "Connection is already closed"
MSG_CLOSED = "Connection closed"

_NO_BYTES = (
    "the bytes of a WebSocket are read and written by its protocol in the event loop: use receive() and "
    "send(); to send one message to many, geventws.broadcast() on the attribute `websocket` of each"
)

_NOTHING: Any = object()


class WebSocket:
    """An open WebSocket.

    Any greenlet may send; one at a time may receive.

    Attributes:
        websocket: the `geventws.WebSocket`, with all that it can do.
        environ: the request's environ.
        handler: the handler of the request; `handler.server.clients` are all that are open.
        stream: what `handler` hangs on too; None when it is closed.
    """

    __slots__ = ("__weakref__", "_next", "_over", "environ", "handler", "stream", "websocket")

    OPCODE_CONTINUATION = 0x00
    OPCODE_TEXT = 0x01
    OPCODE_BINARY = 0x02
    OPCODE_CLOSE = 0x08
    OPCODE_PING = 0x09
    OPCODE_PONG = 0x0A

    def __init__(self, environ: dict[str, Any], stream: Stream, handler: Any) -> None:
        """Applications get one made."""
        self.environ = environ
        self.stream: Stream | None = stream
        self.handler = handler
        self.websocket: _WebSocket = stream.websocket
        #: It was closed here, or `receive` has told that it is over.
        self._over = False
        #: The message that `closed` has found.
        self._next: Any = _NOTHING

    def __repr__(self) -> str:
        return f"<{type(self).__module__}.{type(self).__name__} on {self.websocket!r}>"

    # What was asked

    @property
    def origin(self) -> str | None:
        """The Origin that the client named, or None."""
        return self.environ.get("HTTP_ORIGIN")

    @property
    def protocol(self) -> str | None:
        """The subprotocols that the client offers, as they stand in its header, or None."""
        return self.environ.get("HTTP_SEC_WEBSOCKET_PROTOCOL")

    @property
    def version(self) -> str | None:
        """The version of the protocol: "13"."""
        return self.environ.get("HTTP_SEC_WEBSOCKET_VERSION")

    @property
    def path(self) -> str | None:
        """The request's path."""
        return self.environ.get("PATH_INFO")

    @property
    def logger(self) -> logging.Logger:
        """The server's logger."""
        return self.handler.logger  # type: ignore[no-any-return]

    @property
    def current_app(self) -> Any:
        """The `current_app` of the server's application, whose `on_close` is told, or a silent one."""
        return getattr(self.handler.server.application, "current_app", _NOBODY)

    # Receiving

    @property
    def closed(self) -> bool:
        """True when it was closed here, or is over and all its messages were received."""
        if not self._over and self.websocket.closed and self._next is _NOTHING:
            try:
                self._next = self.websocket.receive(0)
            except (ConnectionClosed, ConcurrencyError, TimeoutError):
                # None, or they are for another greenlet, which waits for them already.
                return True
        return self._over

    def receive(self) -> Any:
        """Return the next message: str for text, bytearray for binary; None, once, when it is over.

        Raises:
            WebSocketError: if it was over already.
        """
        if self._over:
            self.current_app.on_close(MSG_ALREADY_CLOSED)
            raise WebSocketError(MSG_ALREADY_CLOSED)
        try:
            return self._receive()
        except ConnectionClosed as error:
            lost = error.received is None and error.sent is None
        self._end()
        if lost:
            self.current_app.on_close(MSG_CLOSED)
        return None

    def read_message(self) -> Any:
        """Return the next message as `receive` does; None where the peer has closed.

        Raises:
            ProtocolError: if the peer broke the protocol.
            WebSocketError: if it was over already, or TCP broke off.
        """
        if self._over:
            raise WebSocketError(MSG_ALREADY_CLOSED)
        try:
            return self._receive()
        except ConnectionClosed as error:
            self._end()
            if error.received is not None and (error.sent is None or error.received_first):
                return None
            raise _as_error(error) from error

    def read_frame(self) -> tuple[Header, Any]:
        """Return the next message in the shape of one frame: its header and payload.

        Fragments are joined, Pings and Pongs do not show. The last one is the Close of the peer.

        Raises:
            ProtocolError, WebSocketError: as for `read_message`.
        """
        message = self.read_message()
        if message is None:
            opcode, payload = self.OPCODE_CLOSE, self._close_payload()
        elif isinstance(message, str):
            opcode, payload = self.OPCODE_TEXT, message.encode()
        else:
            opcode, payload = self.OPCODE_BINARY, message
        return Header(fin=True, opcode=opcode, length=len(payload)), payload

    def _receive(self) -> Any:
        """Return the next message, whatever `closed` has found first."""
        message, self._next = self._next, _NOTHING
        if message is _NOTHING:
            message = self.websocket.receive()
        return bytearray(message) if isinstance(message, bytes) else message

    def _close_payload(self) -> bytes:
        close = self.websocket.close_error
        received = None if close is None else close.received
        return b"" if received is None else received.serialize()

    # Sending

    def send(self, message: Any, binary: bool | None = None) -> None:
        """Send a message.

        Args:
            message: str as text; bytes-like, or what `bytes` makes something of, as binary.
            binary: True or False to have it the other way: the bytes are those of UTF-8.

        Raises:
            WebSocketError: if the connection is over.
            TypeError, UnicodeError: for what is no message.
        """
        if binary is None:
            binary = not isinstance(message, str)
        try:
            self.send_frame(message, self.OPCODE_BINARY if binary else self.OPCODE_TEXT)
        except WebSocketError as error:
            self.current_app.on_close(MSG_SOCKET_DEAD)
            raise WebSocketError(MSG_SOCKET_DEAD) from error

    def send_frame(self, message: Any, opcode: int) -> None:
        """Send a message, a Ping or a Close; a Pong is left out, since Pings are answered without it.

        Raises:
            WebSocketError: if the connection is over.
            TypeError, UnicodeError, ValueError: for a payload or opcode that is not possible.
        """
        if self._over or self.websocket.closed:
            self.current_app.on_close(MSG_ALREADY_CLOSED)
            raise WebSocketError(MSG_ALREADY_CLOSED)
        try:
            if opcode == self.OPCODE_TEXT:
                self.websocket.send(message if isinstance(message, str) else _as_bytes(message).decode())
            elif opcode == self.OPCODE_BINARY:
                self.websocket.send(_as_bytes(message))
            elif opcode == self.OPCODE_PING:
                self.websocket.ping(_as_bytes(message))
            elif opcode == self.OPCODE_CLOSE:
                payload = _as_bytes(message)
                code = int.from_bytes(payload[:2], "big") if len(payload) >= 2 else 1000
                self.close(code, payload[2:])
            elif opcode != self.OPCODE_PONG:
                raise ValueError(
                    f"send_frame() sends whole messages, Pings and Closes, not opcode {opcode!r}"
                )
        except ConnectionClosed as error:
            raise WebSocketError(MSG_SOCKET_DEAD) from error

    # Closing

    def close(self, code: int = 1000, message: Any = b"") -> None:
        """Close; does not wait for the peer. Does nothing if it is closed already.

        Args:
            code: the close code; 1000 is sent for one that may not be.
            message: the reason, of which the first 123 bytes are sent.
        """
        if self.closed:
            self.current_app.on_close(MSG_ALREADY_CLOSED)
        self._end()
        self.websocket.begin_close(*_make_close(code, message))

    def _end(self) -> None:
        self._over = True
        self._next = _NOTHING
        self.stream = None

    # What there is no way to do

    def raw_read(self, *_: Any) -> Any:
        """Not possible."""
        raise NotImplementedError(_NO_BYTES)

    def raw_write(self, *_: Any) -> Any:
        """Not possible."""
        raise NotImplementedError(_NO_BYTES)

    def handle_close(self, header: Any, payload: Any) -> None:
        """Never called: a Close is answered in the event loop."""

    def handle_ping(self, header: Any, payload: Any) -> None:
        """Never called: a Ping is answered in the event loop."""

    def handle_pong(self, header: Any, payload: Any) -> None:
        """Never called: `websocket.ping()` gives a Pong to wait for."""


class Stream:
    """Where the bytes of a connection would be, if they were not the protocol's.

    Attributes:
        handler: the handler of the request.
        websocket: the `geventws.WebSocket`.
    """

    __slots__ = ("handler", "websocket")

    def __init__(self, handler: Any) -> None:
        self.handler = handler
        self.websocket = handler.connection

    def read(self, *_: Any) -> Any:
        """Not possible."""
        raise NotImplementedError(_NO_BYTES)

    def write(self, *_: Any) -> Any:
        """Not possible."""
        raise NotImplementedError(_NO_BYTES)


class _Nobody:
    """Is told of an end where nobody wants to know."""

    def on_close(self, *args: Any) -> None:
        """Do nothing."""


_NOBODY = _Nobody()


def _as_bytes(message: Any) -> bytes:
    if isinstance(message, str):
        return message.encode()
    if isinstance(message, (int, type(None))):
        # bytes(5) would be five zeros.
        raise TypeError(f"a message is str or bytes-like, not {type(message).__name__}")
    return bytes(message)


def _make_close(code: Any, message: Any) -> tuple[int, str]:
    """Return a code and a reason that may be sent, close to what was asked for."""
    if isinstance(message, (bytes, bytearray, memoryview)):
        message = bytes(message).decode("utf-8", "replace")
    reason = truncate_reason(str(message or ""))
    return (code if isinstance(code, int) and is_sendable_close_code(code) else 1000), reason


def _as_error(error: ConnectionClosed) -> WebSocketError:
    """Return the exception that gevent-websocket has for an end."""
    code = error.sent.code if error.sent is not None else 1006
    if code == 1009:
        return FrameTooLargeException(str(error))
    if code in (1002, 1007):
        return ProtocolError(str(error))
    return WebSocketError(str(error))
