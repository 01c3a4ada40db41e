"""The opening handshake (RFC 6455 section 4), both sides, on requests and responses already read.

A server calls `check_request`, `check_origin` and `select_subprotocol`, and answers with
`accept_response`, or with `error_response` for what they raised. A client has a `ClientHandshake`.
Extensions are only carried here; deflate.py negotiates them.

Compiled with handshake.pxd (`benchmarks/`, row "handshakes").
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal

from ..exceptions import (
    InvalidHandshake,
    InvalidHeader,
    InvalidMethod,
    InvalidOrigin,
    InvalidStatus,
    InvalidUpgrade,
    InvalidVersion,
    NegotiationError,
)
from .headers import (
    ExtensionList,
    Headers,
    check_field,
    is_token,
    parse_extensions,
    parse_token_list,
    parse_upgrade,
)
from .http import Request, Response, reason_phrase
from .uri import URI, show_uri, split_host

__all__ = [
    "ClientHandshake",
    "accept_key",
    "accept_response",
    "check_origin",
    "check_request",
    "error_response",
    "select_subprotocol",
]

Fields = Headers | Iterable[tuple[str, str]] | Mapping[str, str]

# RFC 6455 section 1.3.
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"

_DEFAULT_PORTS = {"http": 80, "ws": 80, "https": 443, "wss": 443}

# Fields that are the handshake, or that frame a body which a 101 and a GET do not have.
_RESERVED = frozenset({"connection", "content-length", "expect", "transfer-encoding", "upgrade"})
_RESERVED_PREFIX = "sec-websocket-"

_ACCEPT_HEAD = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "
)


def accept_key(key: str) -> str:
    """Return the Sec-WebSocket-Accept for a Sec-WebSocket-Key (RFC 6455 section 4.2.2)."""
    # SHA-1 proves that the server speaks WebSocket; nothing is kept secret by it.
    digest = hashlib.sha1(key.encode("ascii") + _GUID, usedforsecurity=False).digest()
    return binascii.b2a_base64(digest, newline=False).decode("ascii")


def check_request(request: Request) -> str:
    """Check that a request opens a WebSocket (RFC 6455 section 4.2.1).

    The request is one of HTTP/1.1; RequestParser sees to that.

    Returns:
        The Sec-WebSocket-Key, for `accept_response`.

    Raises:
        InvalidMethod: 405, unless it is a GET.
        InvalidUpgrade: 426, if it asks for something else.
        InvalidVersion: 426, if the version is missing or not 13.
        InvalidHeader: 400, for fields that are missing, repeated or malformed, and for a body;
            417 for Expect.
    """
    headers = request.headers
    if request.method != "GET":
        raise InvalidMethod(f"method is {request.method!r}, not GET")
    _check_no_body(headers)
    _single(headers, "Host")
    # RFC 6455 section 4.2.1: "An |Upgrade| header field containing the value "websocket", treated as
    # an ASCII case-insensitive value."
    upgrade = headers.get_all("upgrade")
    if not _names_websocket(upgrade):
        raise InvalidUpgrade(f"Upgrade is {', '.join(upgrade)!r}, not websocket" if upgrade else "no Upgrade")
    # "A |Connection| header field that includes the token "Upgrade"". A token: "notupgrade" has it
    # as a substring.
    connection = headers.get_all("connection")
    if not _has_upgrade_token(connection):
        raise InvalidUpgrade(
            f"Connection is {', '.join(connection)!r}, without Upgrade" if connection else "no Connection"
        )
    _check_version(headers)
    key = _single(headers, "Sec-WebSocket-Key")
    if not _is_key(key):
        raise InvalidHeader(
            f"Sec-WebSocket-Key is {key!r}, which is not 16 bytes in base64", "Sec-WebSocket-Key", key
        )
    return key


def _check_no_body(headers: Headers) -> None:
    """Raise if a body is announced, or held back.

    The bytes behind an upgrade request are frames. In front of us may stand a proxy that takes
    them for a body, or the other way round: whoever may choose which can smuggle requests.
    """
    if "transfer-encoding" in headers:
        value = ", ".join(headers.get_all("transfer-encoding"))
        raise InvalidHeader(
            f"upgrade with a body: Transfer-Encoding is {value!r}", "Transfer-Encoding", value
        )
    lengths = headers.get_all("content-length")
    if lengths and lengths != ["0"]:
        value = ", ".join(lengths)
        raise InvalidHeader(f"upgrade with a body: Content-Length is {value!r}", "Content-Length", value)
    # RFC 9110 section 10.1.1: 417 where an expectation cannot be met. A client that waits for 100
    # means to send a body.
    if "expect" in headers:
        value = headers["expect"]
        raise InvalidHeader(f"upgrade with Expect: {value!r}", "Expect", value, status=417)


def _check_version(headers: Headers) -> None:
    versions = headers.get_all("sec-websocket-version")
    if len(versions) > 1:
        # RFC 6455 section 11.3.5: "MUST NOT appear more than once in an HTTP request".
        raise InvalidHeader(
            f"Sec-WebSocket-Version is there {len(versions)} times, not once",
            "Sec-WebSocket-Version",
            ", ".join(versions),
        )
    # RFC 6455 section 4.4: an answer with 426 tells the versions that we speak. That is also what a
    # client needs that names none; to compare as text refuses "+13" and "013".
    if versions != ["13"]:
        raise InvalidVersion(
            f"Sec-WebSocket-Version is {versions[0]!r}, not 13" if versions else "no Sec-WebSocket-Version"
        )


def _single(headers: Headers, name: str) -> str:
    """Return the value of a field that has to be there exactly once."""
    values = headers.get_all(name)
    if len(values) != 1:
        if not values:
            raise InvalidHeader(f"{name} is missing", name)
        raise InvalidHeader(f"{name} is there {len(values)} times, not once", name, ", ".join(values))
    return values[0]


def _names_websocket(upgrade: list[str]) -> bool:
    if len(upgrade) == 1 and upgrade[0].lower() == "websocket":
        return True
    return any(protocol.lower() == "websocket" for protocol in parse_upgrade(upgrade))


def _has_upgrade_token(connection: list[str]) -> bool:
    if len(connection) == 1 and connection[0].lower() == "upgrade":
        return True
    return any(option.lower() == "upgrade" for option in parse_token_list(connection, "Connection"))


def _is_key(key: str) -> bool:
    """Tell whether this is the base64 of exactly 16 bytes, spelt in the one way there is."""
    if len(key) != 24 or not key.isascii():
        return False
    try:
        decoded = binascii.a2b_base64(key)
    except binascii.Error:
        return False
    # a2b_base64 skips what is not base64, and ignores bits behind the last byte.
    return len(decoded) == 16 and binascii.b2a_base64(decoded, newline=False) == key.encode("ascii")


def check_origin(
    request: Request,
    origins: Literal["same-host"] | Iterable[str] | Callable[[Request, str], bool] | None = "same-host",
) -> None:
    """Check the Origin of a request (RFC 6455 sections 4.2.2 and 10.2).

    Browsers send cookies along to any host, whatever page opens the WebSocket; only the Origin
    tells the server which that was. A request without one does not come from a browser's page,
    and is allowed.

    Args:
        request: the request.
        origins: "same-host": host and port of the Origin are those of Host. The scheme is not
            compared: behind a proxy that ends TLS it would never be the same. Or a list of
            origins such as "https://example.com", compared whole without regard to case; or
            `callable(request, origin)` that gives True or False; or None for any.

    Raises:
        InvalidOrigin: 403.
    """
    values = request.headers.get_all("origin")
    if not values:
        return
    if len(values) > 1:
        raise InvalidOrigin(f"Origin is there {len(values)} times, not once", "Origin", ", ".join(values))
    if origins is None:
        return
    origin = values[0]
    if origins == "same-host":
        allowed = _is_same_host(origin, request.host)
    elif callable(origins):
        # A sandboxed page has the origin "null"; what that may do is the callable's decision.
        allowed = (origin == "null" or _split_origin(origin) is not None) and bool(origins(request, origin))
    else:
        allowed = origin.lower() in [listed.lower() for listed in origins]
    if not allowed:
        raise InvalidOrigin(
            f"origin {show_uri(origin)!r} is not allowed for host {request.host!r}: "
            "list it in origins=[...], or allow any with origins=None",
            "Origin",
            origin,
        )


def _split_origin(origin: str) -> tuple[str, str, int | None] | None:
    """Take an origin apart into scheme, host and port; None if it is malformed or "null"."""
    # RFC 6454 section 6.2: scheme "://" host [ ":" port ], and nothing else: no userinfo, no path.
    scheme, separator, authority = origin.partition("://")
    if not separator or not is_token(scheme) or authority.endswith(":"):
        return None
    try:
        return scheme.lower(), *split_host(authority)
    except ValueError:
        return None


def _is_same_host(origin: str, authority: str) -> bool:
    parts = _split_origin(origin)
    if parts is None:
        return False
    scheme, origin_host, origin_port = parts
    try:
        host, port = split_host(authority)
    except ValueError:
        return False
    default = _DEFAULT_PORTS.get(scheme)
    if origin_port is None:
        origin_port = default
    if origin_host != host or origin_port is None:
        return False
    # Host without a port means the default of a scheme that we cannot know behind a proxy: the
    # Origin then has the default of its own.
    return origin_port == (default if port is None else port)


def select_subprotocol(
    request: Request,
    subprotocols: Iterable[str] | Callable[[Request, Sequence[str]], str | None],
) -> str | None:
    """Choose the subprotocol (RFC 6455 section 4.2.2).

    Args:
        request: the request.
        subprotocols: names in the order of preference, or `callable(request, offered)` that gives one
            of the offered names or None; it is not called where nothing is offered.

    Returns:
        One that the client offered, or None for none.

    Raises:
        InvalidHeader: 400, if the offer is malformed or names one twice.
        ValueError: if the callable gives something else: an error of ours. What was offered may be secret.
    """
    name = "Sec-WebSocket-Protocol"
    values = request.headers.get_all(name)
    if not values:
        return None
    offered = parse_token_list(values, name)
    # RFC 6455 section 4.1: "The elements that comprise this value MUST be non-empty strings ... and MUST
    # all be unique strings."
    unique = set(offered)
    if not offered or len(unique) != len(offered):
        raise InvalidHeader(
            f"{name} names a subprotocol twice" if offered else f"{name} is empty", name, ", ".join(values)
        )
    if callable(subprotocols):
        chosen = subprotocols(request, offered)
        if chosen is not None and chosen not in unique:
            raise ValueError(f"subprotocols chose {chosen!r}, which is none of the {len(offered)} offered")
        return chosen
    return next((subprotocol for subprotocol in subprotocols if subprotocol in unique), None)


def accept_response(
    key: str,
    *,
    subprotocol: str | None = None,
    extensions: str | None = None,
    headers: Fields = (),
) -> bytes:
    """Return the response that opens the connection (RFC 6455 section 4.2.2).

    Args:
        key: the Sec-WebSocket-Key, from `check_request`.
        subprotocol: what was chosen, or None.
        extensions: the value of Sec-WebSocket-Extensions, or None.
        headers: fields of the application, such as cookies.

    Raises:
        TypeError, ValueError: for what cannot stand in this response.
    """
    parts = [_ACCEPT_HEAD, accept_key(key).encode("ascii"), b"\r\n"]
    if subprotocol is not None:
        _check_subprotocols((subprotocol,))
        parts.append(f"Sec-WebSocket-Protocol: {subprotocol}\r\n".encode("ascii"))
    if extensions:
        check_field("Sec-WebSocket-Extensions", extensions)
        parts.append(f"Sec-WebSocket-Extensions: {extensions}\r\n".encode("latin-1"))
    if headers:
        parts.extend([f"{name}: {value}\r\n".encode("latin-1") for name, value in _check_fields(headers)])
    parts.append(b"\r\n")
    return b"".join(parts)


def _check_fields(headers: Fields) -> list[tuple[str, str]]:
    """Check the fields that an application adds to a handshake."""
    fields = headers.items() if isinstance(headers, (Headers, Mapping)) else headers
    pairs: list[tuple[str, str]] = []
    for name, value in fields:
        check_field(name, value)
        if name.lower() in _RESERVED or name.lower().startswith(_RESERVED_PREFIX):
            raise ValueError(f"header field {name} belongs to the handshake, it cannot be set")
        pairs.append((name, value))
    return pairs


def _check_subprotocols(subprotocols: Iterable[str]) -> None:
    for name in subprotocols:
        if not isinstance(name, str):
            raise TypeError(f"a subprotocol is a str, not {name!r}")
        if not is_token(name):
            raise ValueError(f"subprotocol {name!r} is not a token (RFC 6455 section 4.1)")


def error_response(error: InvalidHandshake) -> Response:
    """Return what a server answers to a handshake that failed.

    It says nothing of what came in the request: that is for the log.
    """
    text = f"{error.status} {reason_phrase(error.status)}\n"
    if error.status == 426:  # somebody has opened it in a browser's address bar
        text += "This is a WebSocket (RFC 6455, version 13): open it with a WebSocket client.\n"
    return Response(error.status, error.headers, text)


class ClientHandshake:
    """The client's side of one opening handshake (RFC 6455 section 4.1).

    Args:
        uri: where to.
        headers: further fields. A Host among them replaces that of the URI, an Authorization its
            user name and password.
        subprotocols: names to offer, in the order of preference.
        extensions_offer: the value of Sec-WebSocket-Extensions, or None.
        origin: the value of Origin, or None: only browsers have to send one.
        key: the Sec-WebSocket-Key. Default: a new one; anything else is for tests.

    Raises:
        TypeError, ValueError: for what cannot stand in a request.
    """

    __slots__ = ("_offer", "fields", "key", "subprotocols", "uri")

    def __init__(
        self,
        uri: URI,
        *,
        headers: Fields = (),
        subprotocols: Iterable[str] = (),
        extensions_offer: str | None = None,
        origin: str | None = None,
        key: str | None = None,
    ) -> None:
        self.uri = uri
        if isinstance(subprotocols, str):
            raise TypeError(f"subprotocols takes a list of strings, not the string {subprotocols!r}")
        self.subprotocols = tuple(subprotocols)
        _check_subprotocols(self.subprotocols)
        if len(set(self.subprotocols)) != len(self.subprotocols):
            raise ValueError(f"subprotocols names one twice: {self.subprotocols!r}")
        # RFC 6455 section 4.1: "a randomly selected 16-byte value ... selected randomly for each
        # connection".
        self.key = base64.b64encode(os.urandom(16)).decode("ascii") if key is None else key
        if key is not None and not _is_key(key):
            raise ValueError(f"key takes 16 bytes in base64, not {key!r}")
        self._offer = parse_extensions((extensions_offer,)) if extensions_offer else []
        self.fields = self._build(Headers(_check_fields(headers)), extensions_offer, origin)

    def _build(self, headers: Headers, offer: str | None, origin: str | None) -> list[tuple[str, str]]:
        """Return all fields of the request, in order; those that a caller gives are checked."""
        hosts = headers.get_all("host") or [self.uri.authority]
        if len(hosts) != 1:
            raise ValueError(f"headers has Host {len(hosts)} times")
        # RFC 9112 section 3.2: Host comes first.
        fields = [("Host", hosts[0])]
        split_host(hosts[0])
        fields += [
            ("Upgrade", "websocket"),
            ("Connection", "Upgrade"),
            ("Sec-WebSocket-Key", self.key),
            ("Sec-WebSocket-Version", "13"),
        ]
        if origin is not None:
            if "origin" in headers:
                raise ValueError("Origin is in headers and in origin: name it once")
            check_field("Origin", origin)
            fields.append(("Origin", origin))
        if self.subprotocols:
            fields.append(("Sec-WebSocket-Protocol", ", ".join(self.subprotocols)))
        if offer:
            check_field("Sec-WebSocket-Extensions", offer)
            fields.append(("Sec-WebSocket-Extensions", offer))
        if self.uri.userinfo is not None and "authorization" not in headers:
            # RFC 7617 section 2.1: user name and password as UTF-8.
            credentials = base64.b64encode(":".join(self.uri.userinfo).encode("utf-8")).decode("ascii")
            fields.append(("Authorization", f"Basic {credentials}"))
        fields += [(name, value) for name, value in headers.items() if name.lower() != "host"]
        return fields

    def request(self) -> bytes:
        """Return the request, for the network.

        Next: hand the response's head to `check_response`.
        """
        lines = [f"GET {self.uri.resource_name} HTTP/1.1"]
        lines += [f"{name}: {value}" for name, value in self.fields]
        return "\r\n".join([*lines, "\r\n"]).encode("latin-1")

    def check_response(self, response: Response) -> tuple[str | None, ExtensionList]:
        """Check the server's answer (RFC 6455 section 4.1, what the client must validate).

        Returns:
            The subprotocol or None, and the extensions, whose parameters are not yet judged.

        Raises:
            InvalidStatus: with the response, if that is not a 101.
            InvalidUpgrade, InvalidHeader: if it does not open a WebSocket, or not this one.
            NegotiationError: if it agrees to what was not offered.
        """
        if response.status != 101:
            raise InvalidStatus(f"server answered {response.status} {response.reason!r}, not 101", response)
        headers = response.headers
        upgrade = headers.get_all("upgrade")
        # Item 2: the value is "websocket", alone; a list is for requests.
        if [protocol.lower() for protocol in parse_upgrade(upgrade)] != ["websocket"]:
            raise InvalidUpgrade(
                f"Upgrade is {', '.join(upgrade)!r}, not websocket" if upgrade else "no Upgrade"
            )
        # Item 3.
        connection = headers.get_all("connection")
        if not _has_upgrade_token(connection):
            raise InvalidUpgrade(
                f"Connection is {', '.join(connection)!r}, without Upgrade" if connection else "no Connection"
            )
        # Item 4: the proof that the server has read this request, and is not a cache.
        accept = _single(headers, "Sec-WebSocket-Accept")
        if accept != accept_key(self.key):
            raise InvalidHeader(
                f"Sec-WebSocket-Accept is {accept!r}, not the answer to this request's key",
                "Sec-WebSocket-Accept",
                accept,
            )
        return self._check_subprotocol(headers), self._check_extensions(headers)

    def _check_subprotocol(self, headers: Headers) -> str | None:
        # Item 6, and section 11.3.4: at most once in a response.
        if "sec-websocket-protocol" not in headers:
            return None
        subprotocol = _single(headers, "Sec-WebSocket-Protocol")
        if subprotocol not in self.subprotocols:
            raise NegotiationError(f"server chose subprotocol {subprotocol!r}, which was not offered")
        return subprotocol

    def _check_extensions(self, headers: Headers) -> ExtensionList:
        # Item 5, and section 11.3.2: at most once in a response.
        if "sec-websocket-extensions" not in headers:
            return []
        extensions = parse_extensions((_single(headers, "Sec-WebSocket-Extensions"),))
        offered = {extension for extension, _ in self._offer}
        for extension, _ in extensions:
            if extension not in offered:
                raise NegotiationError(f"server chose extension {extension!r}, which was not offered")
        return extensions
