"""Every error that geventws raises, in one tree.

::

    WebSocketError
    ├── ConnectionClosed
    │   ├── ConnectionClosedOK
    │   └── ConnectionClosedError
    ├── ProtocolError
    │   ├── LocalProtocolError            our caller broke the rules
    │   │   └── InvalidState              not possible in this state of the connection
    │   └── RemoteProtocolError           the peer did
    │       ├── InvalidFrame              close code 1002
    │       ├── InvalidClose              close code 1002
    │       ├── InvalidPayload            close code 1007
    │       ├── MessageTooBig             close code 1009
    │       └── RateExceeded              close code 1008
    ├── InvalidHandshake                  with the HTTP status a server answers
    │   ├── InvalidMessage                not HTTP/1.1 as RFC 9112 has it
    │   ├── InvalidMethod                 405
    │   ├── InvalidUpgrade                426
    │   │   └── InvalidVersion            426
    │   ├── InvalidHeader                 400
    │   │   └── InvalidOrigin             403
    │   ├── InvalidStatus                 the server did not answer 101
    │   │   └── InvalidRedirect           the server sent us where we do not go
    │   ├── NegotiationError              an extension or a subprotocol
    │   └── HeadTooBig                    414 or 431
    ├── ConnectError                      no connection to the server; an OSError too
    │   ├── ResolveError                  its name has no address
    │   ├── ProxyError                    the proxy does not let us through
    │   └── TLSError                      no TLS with it; its certificate may be the reason
    ├── InvalidURI
    ├── ConcurrencyError                  two greenlets want what only one can have
    ├── OpenTimeout                       a builtin TimeoutError too
    └── PingTimeout                       a builtin TimeoutError too

An error carries its facts as attributes and makes its text of them; `kind` is a short stable
string for programs. Errors that end a connection carry the close code that is sent. All can be
pickled.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .protocol.closing import Close

__all__ = [
    "ConcurrencyError",
    "ConnectError",
    "ConnectionClosed",
    "ConnectionClosedError",
    "ConnectionClosedOK",
    "HeadTooBig",
    "InvalidClose",
    "InvalidFrame",
    "InvalidHandshake",
    "InvalidHeader",
    "InvalidMessage",
    "InvalidMethod",
    "InvalidOrigin",
    "InvalidPayload",
    "InvalidRedirect",
    "InvalidState",
    "InvalidStatus",
    "InvalidURI",
    "InvalidUpgrade",
    "InvalidVersion",
    "LocalProtocolError",
    "MessageTooBig",
    "NegotiationError",
    "OpenTimeout",
    "PingTimeout",
    "ProtocolError",
    "ProxyError",
    "RateExceeded",
    "RemoteProtocolError",
    "ResolveError",
    "TLSError",
    "WebSocketError",
]


class WebSocketError(Exception):
    """The root of all errors of geventws."""

    #: A short stable name of what went wrong, for programs: "frame.reserved_bits".
    kind = "error"


class ConnectionClosed(WebSocketError):
    """The connection is over: nothing can be sent or received any more.

    Attributes:
        received: the Close that the peer sent, or None.
        sent: the Close that we sent, or None.
        received_first: True when the peer's came before ours, None unless both were exchanged.
        detail: what ended the connection where that was not a Close ("the peer reset ..."), or "".
    """

    kind = "closed"

    def __init__(
        self,
        received: Close | None = None,
        sent: Close | None = None,
        received_first: bool | None = None,
        detail: str = "",
    ) -> None:
        super().__init__(received, sent, received_first, detail)
        self.received = received
        self.sent = sent
        self.received_first = received_first
        self.detail = detail

    @property
    def code(self) -> int:
        """The connection's close code (RFC 6455 section 7.1.5): 1006 where no Close came."""
        return 1006 if self.received is None else self.received.code

    @property
    def reason(self) -> str:
        """The connection's close reason (RFC 6455 section 7.1.6)."""
        return "" if self.received is None else self.received.reason

    def __str__(self) -> str:
        received = f"received {self.received}" if self.received is not None else ""
        sent = f"sent {self.sent}" if self.sent is not None else ""
        if received and sent:
            text = f"{received}, then {sent}" if self.received_first else f"{sent}, then {received}"
        else:
            text = f"{received or sent or 'no Close frame'}, but the closing handshake is incomplete"
        return f"{text}: {self.detail}" if self.detail else text


class ConnectionClosedOK(ConnectionClosed):
    """Closed as it should be: 1000, 1001 or no code, both ways."""

    kind = "closed.ok"


class ConnectionClosedError(ConnectionClosed):
    """Closed with an error code, or cut off without a closing handshake."""

    kind = "closed.error"


class ProtocolError(WebSocketError):
    """A rule of RFC 6455 or RFC 7692 was broken.

    Attributes:
        message: what happened.
        kind: which rule ("frame.reserved_bits").
        close_code: the code of the Close frame that fails the connection.
    """

    kind = "protocol"
    close_code = 1002

    def __init__(self, message: str, kind: str | None = None) -> None:
        super().__init__(message, kind)
        self.message = message
        if kind is not None:
            self.kind = kind

    def __str__(self) -> str:
        return self.message


class LocalProtocolError(ProtocolError):
    """What was asked for would break the protocol; nothing was sent."""

    kind = "local"


class InvalidState(LocalProtocolError):
    """Not possible in this state of the connection."""

    kind = "state"


class RemoteProtocolError(ProtocolError):
    """The peer broke the protocol."""

    kind = "remote"


class InvalidFrame(RemoteProtocolError):
    """A frame that RFC 6455 section 5 forbids."""

    kind = "frame"


class InvalidClose(RemoteProtocolError):
    """A Close frame whose payload RFC 6455 section 5.5.1 or 7.4 forbids."""

    kind = "close"


class InvalidPayload(RemoteProtocolError):
    """Text that is not UTF-8, or compressed data that does not inflate."""

    kind = "payload"
    close_code = 1007


class MessageTooBig(RemoteProtocolError):
    """A message above a limit.

    Attributes:
        size: what it is or would be (bytes or fragments).
        limit: the value that it exceeds.
    """

    kind = "message.size"
    close_code = 1009

    def __init__(self, message: str, size: int = 0, limit: int = 0, kind: str | None = None) -> None:
        super().__init__(message, kind)
        self.args = (message, size, limit, kind)
        self.size = size
        self.limit = limit


class RateExceeded(RemoteProtocolError):
    """The peer sends more in a second than `rate_limit` allows."""

    kind = "rate"
    close_code = 1008


class InvalidHandshake(WebSocketError):
    """The opening handshake failed.

    Attributes:
        message: what was wrong.
        status: the HTTP status that a server answers.
        headers: what that answer needs besides, as (name, value) pairs.
    """

    kind = "handshake"
    status = 400
    headers: tuple[tuple[str, str], ...] = ()

    def __init__(self, message: str, kind: str | None = None, status: int | None = None) -> None:
        super().__init__(message, kind, status)
        self.message = message
        if kind is not None:
            self.kind = kind
        if status is not None:
            self.status = status

    def __str__(self) -> str:
        return self.message


class InvalidMessage(InvalidHandshake):
    """Not a request or response of HTTP/1.1 (RFC 9112)."""

    kind = "http"


class InvalidMethod(InvalidHandshake):
    """A WebSocket is opened with GET (RFC 6455 section 4.1)."""

    kind = "method"
    status = 405
    headers = (("Allow", "GET"),)


class InvalidUpgrade(InvalidHandshake):
    """Not a request to upgrade to WebSocket (RFC 6455 section 4.2.1)."""

    kind = "upgrade"
    status = 426
    # RFC 9110 section 15.5.22: a 426 names the protocol that is required.
    headers = (("Upgrade", "websocket"), ("Sec-WebSocket-Version", "13"))


class InvalidVersion(InvalidUpgrade):
    """A version other than 13 (RFC 6455 section 4.4)."""

    kind = "version"


class InvalidHeader(InvalidHandshake):
    """A header field that is missing, repeated or malformed.

    Attributes:
        name: the field's name.
        value: its value, or None where it is missing.
    """

    kind = "header"

    def __init__(
        self, message: str, name: str = "", value: str | None = None, status: int | None = None
    ) -> None:
        super().__init__(message, None, status)
        self.args = (message, name, value, status)
        self.name = name
        self.value = value


class InvalidOrigin(InvalidHeader):
    """The Origin is not allowed (RFC 6455 section 10.2)."""

    kind = "origin"
    status = 403


class InvalidStatus(InvalidHandshake):
    """The server answered something other than 101.

    Attributes:
        response: its answer.
    """

    kind = "status"

    def __init__(self, message: str, response: Any = None) -> None:
        super().__init__(message)
        self.args = (message, response)
        self.response = response


class InvalidRedirect(InvalidStatus):
    """The server answered with a redirect that is not followed.

    Attributes:
        response: that answer.
    """

    kind = "redirect"


class NegotiationError(InvalidHandshake):
    """Extensions or subprotocols that cannot be agreed on."""

    kind = "negotiation"


class HeadTooBig(InvalidHandshake):
    """A request or response head above `max_line`, `max_headers` or `max_head`.

    Attributes:
        limit: the value that it exceeds.
    """

    kind = "head.size"
    status = 431

    def __init__(self, message: str, limit: int = 0, status: int | None = None) -> None:
        super().__init__(message, None, status)
        self.args = (message, limit, status)
        self.limit = limit


class ConnectError(WebSocketError, OSError):
    """There is no connection to the server.

    Attributes:
        message: what happened, where, and what to do.
        errno: the system's number for it, or None.
    """

    kind = "connect"

    def __init__(self, message: str, errno: int | None = None) -> None:
        super().__init__(message, errno)
        self.args = (message, errno)
        self.message = message
        self.errno = errno

    def __str__(self) -> str:
        return self.message


class ResolveError(ConnectError):
    """The server's name has no address, or nobody can be asked for it."""

    kind = "connect.resolve"


class ProxyError(ConnectError):
    """The proxy cannot be reached, or does not connect us.

    Attributes:
        response: its answer, where it is one for HTTP that has answered.
        refused: it wants other credentials or forbids this, so that trying again does not help.
    """

    kind = "connect.proxy"

    def __init__(
        self, message: str, errno: int | None = None, response: Any = None, refused: bool = False
    ) -> None:
        super().__init__(message, errno)
        self.args = (message, errno, response, refused)
        self.response = response
        self.refused = refused


class TLSError(ConnectError):
    """TLS could not be agreed on.

    Attributes:
        unverified: the server's certificate is the reason.
    """

    kind = "connect.tls"

    def __init__(self, message: str, errno: int | None = None, unverified: bool = False) -> None:
        super().__init__(message, errno)
        self.args = (message, errno, unverified)
        self.unverified = unverified


class InvalidURI(WebSocketError):
    """Not a URI of RFC 6455 section 3.

    Attributes:
        uri: what was given.
    """

    kind = "uri"

    def __init__(self, message: str, uri: str = "") -> None:
        # Not among the arguments, which `repr` shows: a password may stand in it.
        super().__init__(message)
        self.message = message
        self.uri = uri

    def __str__(self) -> str:
        return self.message


class ConcurrencyError(WebSocketError):
    """Two greenlets want what only one can have at a time, such as the next message."""

    kind = "concurrency"


class OpenTimeout(WebSocketError, TimeoutError):
    """The opening handshake (TLS included) took longer than `open_timeout`.

    Attributes:
        phase: what it was waiting for, on a client: "resolve", "connect", "proxy", "tls" or "response".
    """

    kind = "timeout.open"

    def __init__(self, message: str = "", phase: str = "") -> None:
        super().__init__(message, phase)
        self.args = (message, phase)
        self.message = message
        self.phase = phase

    def __str__(self) -> str:
        return self.message


class PingTimeout(WebSocketError, TimeoutError):
    """A pong did not come in time."""

    kind = "timeout.ping"
