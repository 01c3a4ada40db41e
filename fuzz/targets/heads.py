"""Heads of requests and responses, and what a handshake makes of them.

The first octet of an input chooses limits and cuts, the rest is the stream. What we take h11 takes too, and
sees the same in it; where we open a WebSocket, websockets does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from opinions import h11_request, h11_response

from . import Target, theirs
from .both import BUILDS, UNDER_TEST, pieces_of, told

__all__ = ["TARGETS"]

_LIMITS: tuple[dict[str, int | None], ...] = (
    {"max_line": 8192, "max_headers": 100, "max_head": 65536},
    {"max_line": None, "max_headers": None, "max_head": None},
    {"max_line": 60, "max_headers": 6, "max_head": 300},
    {"max_line": 40, "max_headers": 3, "max_head": 120},
)
_KEY = "dGhlIHNhbXBsZSBub25jZQ=="
_SUBPROTOCOLS = ["chat", "superchat"]


def _read(parser: Any, pieces: list[bytes], eof: bool) -> Any:
    """Let a parser read: what comes of it, what is behind that, and whether it took the end of the stream."""
    for at, piece in enumerate(pieces):
        found = parser.receive_data(piece)
        if found is not None:
            return found, parser.leftover + b"".join(pieces[at + 1 :]), False
    if eof:
        return parser.receive_eof(), b"", True
    return None


def _opens(build: Any, request: Any) -> tuple[Any, ...]:
    """What a server makes of a request."""
    try:
        key = build.handshake.check_request(request)
        build.handshake.check_origin(request)
        subprotocol = build.handshake.select_subprotocol(request, _SUBPROTOCOLS)
        offers = build.headers.parse_extensions(request.headers.get_all("Sec-WebSocket-Extensions"))
        agreed = build.deflate.negotiate_offer(offers, build.options.Compression())
    except build.exceptions.InvalidHandshake as error:
        answer = build.handshake.error_response(error).serialize()
        # RFC 9112 section 9.6, and nothing of what came in the request.
        assert b"\r\nConnection: close" in answer
        assert 400 <= error.status < 600
        return (*told(error), answer)
    extensions = None if agreed is None else agreed.header()
    response = build.handshake.accept_response(key, subprotocol=subprotocol, extensions=extensions)
    return ("opens", response, request.host)


def _request(build: Any, pieces: list[bytes], limits: dict[str, int | None]) -> Any:
    parser = build.http.RequestParser(**limits)
    try:
        read = _read(parser, pieces, False)
        if read is None:
            parser.receive_eof()
            return None
    except build.exceptions.InvalidHandshake as error:
        assert 400 <= error.status < 600
        return told(error)
    request, leftover, _ = read
    facts = (
        request.method,
        request.target,
        request.path,
        request.query,
        request.headers.items(),
        request.host,
    )
    return facts, leftover, _opens(build, request), repr(request)


def _quick(observe: Callable[..., Any], data: bytes) -> Any:
    control, stream = data[0] if data else 0, data[1:]
    limits = _LIMITS[control & 3]
    whole = observe(UNDER_TEST, [stream], limits)
    # Cut, it takes several times as long.
    if not len(data) & 3:
        cut = observe(UNDER_TEST, pieces_of(stream, control >> 2), limits)
        assert whole == cut, (whole, cut)
    if whole is None:
        return None
    if isinstance(whole[0], str):
        return _words(whole)
    verdict = whole[2]
    return (
        whole[0][0],
        min(len(whole[0][4]), 8),
        bool(whole[1]),
        _words(verdict),
        verdict[0] == "opens" and verdict[1],
    )


def _words(verdict: Any) -> Any:
    """An error without what it quotes."""
    return verdict[0], str(verdict[1]).partition("'")[0][:40] if verdict[0] != "opens" else ""


def quick_request(data: bytes) -> Any:
    return _quick(_request, data)


def check_request(data: bytes) -> None:
    control, stream = data[0] if data else 0, data[1:]
    limits = _LIMITS[control & 3]
    pieces = pieces_of(stream, control >> 2)
    first = _request(UNDER_TEST, [stream], limits)
    for build in BUILDS:
        assert _request(build, [stream], limits) == first
        assert _request(build, pieces, limits) == first, (first, _request(build, pieces, limits))
    if first is None or isinstance(first[0], str):
        return
    facts, leftover, verdict, _ = first
    head = stream[: len(stream) - len(leftover)]
    assert stream == head + leftover
    assert head.endswith(b"\r\n\r\n")
    other = h11_request(head)
    assert other is not None, (head, first)
    assert (other.method.decode(), other.target.decode(), other.http_version) == (*facts[:2], b"1.1")
    assert _fields(other.headers) == _fields(facts[4])
    if verdict[0] == "opens" and theirs.AVAILABLE:
        reason = theirs.opens(head)
        assert reason is None or any(known in reason for known in _STRICTER), (reason, head)


def _fields(fields: Any) -> list[tuple[str, str]]:
    """Fields to compare, of ours or of h11, which writes names and transfer codings in lower case."""
    found = []
    for name, value in fields:
        if isinstance(name, bytes):
            name, value = name.decode("latin-1"), value.decode("latin-1")
        name = name.lower()
        found.append((name, value.lower() if name == "transfer-encoding" else value))
    return found


#: Why websockets does not open a WebSocket where we do: Upgrade is a list (RFC 9110 section 7.8), and a
#: list may be empty (section 5.6.1.2).
_EMPTY_LIST = "expected token at 0 in "
_STRICTER = ("invalid Upgrade header", _EMPTY_LIST)


def _response(build: Any, pieces: list[bytes], limits: dict[str, int | None]) -> Any:
    parser = build.http.ResponseParser(**limits, max_body=50)
    try:
        read = _read(parser, pieces, True)
    except build.exceptions.InvalidHandshake as error:
        return told(error)
    response, leftover, ended = read
    if response.status != 101:
        # Of what is behind a body nothing is kept.
        leftover = b""
    facts = (response.status, response.reason, response.body, ended, response.headers.items())
    client = build.handshake.ClientHandshake(
        build.uri.URI(False, "a", 80), subprotocols=_SUBPROTOCOLS, extensions_offer=_OFFER, key=_KEY
    )
    try:
        subprotocol, extensions = client.check_response(response)
        agreed = build.deflate.accept_response(extensions, build.options.Compression())
    except build.exceptions.InvalidHandshake as error:
        return facts, leftover, told(error), repr(response)
    return (
        facts,
        leftover,
        ("opens", subprotocol, None if agreed is None else agreed.header()),
        repr(response),
    )


_OFFER = "permessage-deflate; server_max_window_bits=12; client_max_window_bits=12"


def quick_response(data: bytes) -> Any:
    return _quick(_response, data)


def check_response(data: bytes) -> None:
    control, stream = data[0] if data else 0, data[1:]
    limits = _LIMITS[control & 3]
    pieces = pieces_of(stream, control >> 2)
    first = _response(UNDER_TEST, [stream], limits)
    for build in BUILDS:
        assert _response(build, [stream], limits) == first
        assert _response(build, pieces, limits) == first, (first, _response(build, pieces, limits))
    if isinstance(first[0], str):
        return
    facts, _, verdict, _ = first
    other = h11_response(stream)
    assert other is not None, (stream, first)
    assert other.status_code == facts[0]
    assert other.reason.rstrip() == facts[1].encode("latin-1").rstrip(), (other.reason, facts)
    assert _fields(other.headers) == _fields(facts[4])
    if verdict[0] == "opens" and theirs.AVAILABLE:
        reason = theirs.takes_answer(stream, _KEY, _SUBPROTOCOLS)
        assert reason is None or any(known in reason for known in _STRICTER_ANSWER), (reason, stream)


#: Why websockets does not take an answer that we take: it reads no interim responses before it.
_STRICTER_ANSWER = ("connection: HTTP 1", _EMPTY_LIST)

_DICTIONARY = [
    b"\r\n",
    b"\r\n\r\n",
    b"\n",
    b"\r",
    b": ",
    b":",
    b" ",
    b"\t",
    b"\0",
    b",",
    b";",
    b"HTTP/1.1",
    b"HTTP/1.0",
    b"HTTP/2.0",
    b"GET ",
    b"POST ",
    b"OPTIONS * ",
    b"CONNECT a:80 ",
    b"GET http://a/ ",
    b"Host: a\r\n",
    b"Host: [::1]:80\r\n",
    b"Upgrade: websocket\r\n",
    b"Upgrade: h2c, websocket/13\r\n",
    b"Connection: Upgrade\r\n",
    b"Connection: keep-alive, Upgrade\r\n",
    b"Sec-WebSocket-Version: 13\r\n",
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
    b"Origin: http://a\r\n",
    b"Origin: null\r\n",
    b"Sec-WebSocket-Protocol: chat, superchat\r\n",
    b"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n",
    b"Content-Length: 0\r\n",
    b"Content-Length: 5\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Transfer-Encoding: gzip, chunked\r\n",
    b"Expect: 100-continue\r\n",
    b" folded\r\n",
    b"X_Y: \xff\r\n",
    b"http://",
    b"https://",
    b"%2F",
    b"%00",
    b"?a=b",
    b"#",
    b"HTTP/1.1 101 Switching Protocols\r\n",
    b"HTTP/1.1 200 OK\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\n",
    b"HTTP/1.0 403 No\r\n",
    b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n",
    b"5\r\nhello\r\n0\r\n\r\n",
    b"; server_max_window_bits=12",
]

TARGETS = {
    "requests": Target(check_request, quick_request, _DICTIONARY, 1200),
    "responses": Target(check_response, quick_response, _DICTIONARY, 1200),
}
