"""WebSockets for gevent (RFC 6455, RFC 7692).

This file holds the public names and no logic.
"""

from __future__ import annotations

# First: it decides which build of the modules below is imported.
from ._implementation import IMPLEMENTATION
from .broadcast import broadcast
from .client import connect, connect_forever
from .exceptions import (
    ConcurrencyError,
    ConnectError,
    ConnectionClosed,
    ConnectionClosedError,
    ConnectionClosedOK,
    HeadTooBig,
    InvalidClose,
    InvalidFrame,
    InvalidHandshake,
    InvalidHeader,
    InvalidMessage,
    InvalidMethod,
    InvalidOrigin,
    InvalidPayload,
    InvalidRedirect,
    InvalidState,
    InvalidStatus,
    InvalidUpgrade,
    InvalidURI,
    InvalidVersion,
    LocalProtocolError,
    MessageTooBig,
    NegotiationError,
    OpenTimeout,
    PingTimeout,
    ProtocolError,
    ProxyError,
    RateExceeded,
    RemoteProtocolError,
    ResolveError,
    TLSError,
    WebSocketError,
)
from .options import Compression, Options, RateLimit
from .pong import Pong
from .protocol.closing import Close
from .protocol.headers import Headers
from .protocol.http import Request, Response
from .protocol.isal import DEFLATE
from .protocol.opcodes import CloseCode, Opcode
from .routing import Router
from .server import WebSocketServer
from .stats import Stats
from .websocket import State, WebSocket
from .wsgi import WebSocketMiddleware

__all__ = [
    "DEFLATE",
    "IMPLEMENTATION",
    "Close",
    "CloseCode",
    "Compression",
    "ConcurrencyError",
    "ConnectError",
    "ConnectionClosed",
    "ConnectionClosedError",
    "ConnectionClosedOK",
    "HeadTooBig",
    "Headers",
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
    "Opcode",
    "OpenTimeout",
    "Options",
    "PingTimeout",
    "Pong",
    "ProtocolError",
    "ProxyError",
    "RateExceeded",
    "RateLimit",
    "RemoteProtocolError",
    "Request",
    "ResolveError",
    "Response",
    "Router",
    "State",
    "Stats",
    "TLSError",
    "WebSocket",
    "WebSocketError",
    "WebSocketMiddleware",
    "WebSocketServer",
    "__version__",
    "broadcast",
    "connect",
    "connect_forever",
]

__version__ = "0.1.0"
