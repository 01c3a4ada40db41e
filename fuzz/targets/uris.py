"""WebSocket URIs: what is taken can be written into a request, and means the same to websockets."""

from __future__ import annotations

from typing import Any

from websockets.exceptions import InvalidURI
from websockets.uri import parse_uri

from . import Target, theirs
from .both import BUILDS, UNDER_TEST, told

__all__ = ["TARGETS"]


def _text(data: bytes) -> str:
    """Of one in four inputs that are not UTF-8 the octets are kept as lone surrogates."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data.decode("utf-8", "surrogateescape") if len(data) % 4 == 0 else data.decode("latin-1")


def _parse(build: Any, text: str) -> tuple[Any, ...]:
    try:
        uri = build.uri.parse_uri(text)
    except build.exceptions.InvalidURI as error:
        return told(error)
    request = b""
    try:
        handshake = build.handshake.ClientHandshake(uri, key="AAAAAAAAAAAAAAAAAAAAAA==")
        request = handshake.request()
    except ValueError as error:
        # A path of a Unix socket, or user name and password, can be what no request can say.
        return told(error)
    # Nothing of a URI can add to the request: it is one request, and the one that was meant.
    parser = build.http.RequestParser(max_line=None, max_headers=None, max_head=None)
    read = parser.receive_data(request)
    assert read is not None
    assert parser.leftover == b""
    assert read.target == uri.resource_name
    assert read.host == uri.authority
    assert build.uri.split_host(read.host)[0] == uri.host
    assert len(read.headers) == (6 if uri.userinfo is not None else 5)
    assert build.handshake.check_request(read) == handshake.key
    facts = (uri.secure, uri.host, uri.port, uri.path, uri.query, uri.userinfo, uri.unix_path)
    if uri.unix_path is None:
        again = f"{'wss' if uri.secure else 'ws'}://{uri.authority}{uri.resource_name}"
        assert build.uri.parse_uri(again) == build.uri.URI(*facts[:5]), again
    return facts


def quick(data: bytes) -> Any:
    seen = _parse(UNDER_TEST, _text(data))
    if isinstance(seen[0], str):
        return seen[0], seen[1].replace(repr(_text(data)), "").partition("'")[0]
    return (
        seen[0],
        seen[1].isascii(),
        ":" in seen[1],
        seen[2] in (80, 443),
        len(seen[3]) > 1,
        seen[4] == "",
        *(fact is None for fact in seen[5:]),
    )


def check(data: bytes) -> None:
    text = _text(data)
    seen = _parse(BUILDS[0], text)
    assert _parse(BUILDS[1], text) == seen
    if isinstance(seen[0], str) or seen[6] is not None or not theirs.AVAILABLE:
        return
    try:
        other = parse_uri(text)
    except InvalidURI as error:
        # A user name without a password is one, with an empty password (RFC 7617 section 2).
        assert "without password" in str(error), (text, seen, error)
        return
    except UnicodeError as error:
        # Its idna codec looks at an ASCII host where the path is not ASCII; for us that is the resolver's.
        labels = seen[1].removesuffix(".").split(".")
        assert not all(0 < len(label) < 64 for label in labels), (text, seen, error)
        return
    except ValueError as error:
        # The standard library's urlsplit looks for an IPv6 address and for letters that NFKC would make a
        # "/" of in front of the "@", too: what stands there is no host, and is sent in base64.
        user = text.rpartition("@")[0]
        assert set("[]") & set(user) or ("NFKC" in str(error) and not user.isascii()), (text, seen, error)
        return
    assert (other.secure, other.port) == (seen[0], seen[2]), (text, seen, other)
    assert other.host.lower() == seen[1] or ":" in seen[1], (text, seen, other)


_DICTIONARY = [
    b"ws://",
    b"wss://",
    b"ws+unix:",
    b"WS://",
    b"localhost",
    b"example.com",
    b":80",
    b":443",
    b":0",
    b":65535",
    b":65536",
    b"[::1]",
    b"[fe80::1%25eth0]",
    b"user:secret@",
    b"user@",
    b"@",
    b"/",
    b"?",
    b"#",
    b"%23",
    b"%0d%0a",
    b"%00",
    b"\xc3\xa9",
    b"b\xc3\xbccher.de",
    b"\xe3\x80\x82",
    b"\r\n",
    b" ",
    b"//",
    b"..",
    b"%",
    b"\\",
    b"/run/app.sock:",
    b"xn--",
    b"\xef\xbc\x8f",
]

TARGETS = {"uris": Target(check, quick, _DICTIONARY, 300)}
