"""Requests and responses of HTTP/1.1 (RFC 9112), as far as an opening handshake needs them.

llhttp reads the fields; here is what it does not do: one head and nothing behind it, and the rules
that it lets pass. The limits are in heads.py. Whether a request is one for a WebSocket is not asked
here: see handshake.py.

Compiled with http.pxd (`benchmarks/`, row "handshakes").
"""

from __future__ import annotations

import http
import urllib.parse
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import httptools

from ..exceptions import InvalidHeader, InvalidMessage, InvalidMethod
from .headers import Headers, check_field, is_token
from .heads import Fields, HeadReader
from .uri import show_uri, split_host

__all__ = ["Request", "RequestParser", "Response", "ResponseParser", "reason_phrase"]

# RFC 9112 section 3: a request target is visible ASCII.
_VISIBLE = bytes(range(0x21, 0x7F))
# RFC 9112 section 4: a reason phrase is HTAB, SP, VCHAR and obs-text.
_REASON = bytes([0x09, *range(0x20, 0x7F), *range(0x80, 0x100)])
# Statuses that end with their head (RFC 9112 section 6.3).
_NO_BODY = (101, 204, 304)


# Frozen, so that an answer reads the same under every version of Python.
_REASONS = {status.value: status.phrase for status in http.HTTPStatus} | {
    413: "Content Too Large",
    414: "URI Too Long",
    416: "Range Not Satisfiable",
    422: "Unprocessable Content",
}


def reason_phrase(status: int) -> str:
    """Return the usual reason phrase of a status, or "" (RFC 9112 section 4)."""
    return _REASONS.get(status, "")


class Request:
    """A request that asks for a WebSocket, or for something else.

    Attributes:
        method: "GET".
        target: the request target as received, still encoded (RFC 9112 section 3.2).
        path: the target's path, percent-decoded as UTF-8; what is not UTF-8 becomes U+FFFD, as in
            Werkzeug. "%2F" becomes a "/" like the others: where that matters, look at `target`.
            It may hold any character, control characters too.
        query: the target's query, still encoded, without "?"; "" where there is none.
        headers: the fields. Names with underscores are kept as such; they are other names than those
            with hyphens, and must not become the same variables in a WSGI environ.
        remote_address: the peer, as the server knows it, or None.
        environ: the WSGI environ, or None outside WSGI.
    """

    __slots__ = ("environ", "headers", "method", "path", "query", "remote_address", "target")

    def __init__(
        self, method: str, target: str, headers: Headers | Iterable[tuple[str, str]] | Mapping[str, str] = ()
    ) -> None:
        self.method = method
        self.target = target
        self.headers = headers if isinstance(headers, Headers) else Headers(headers)
        self.remote_address: Any = None
        self.environ: dict[str, Any] | None = None
        if not target.startswith("/"):
            target = _split_absolute(target)[2]
        path, _, self.query = target.partition("?")
        self.path = urllib.parse.unquote(path) if "%" in path else path

    @property
    def host(self) -> str:
        """The host, with its port where one is named, that the request is for; "" if unknown."""
        # RFC 9112 section 3.2.2: with an absolute target "the origin server MUST ignore the
        # received Host header field (if any) and instead use the host information of the target".
        if not self.target.startswith("/"):
            authority = _split_absolute(self.target)[1]
            if authority:
                return authority
        return self.headers.get("Host", "") or ""

    def __repr__(self) -> str:
        # The target comes from the peer: repr() leaves no control character for a terminal or log.
        return f"<{type(self).__name__} {self.method} {show_uri(self.target)!r}>"


def _split_absolute(target: str) -> tuple[str, str, str]:
    """Split a target that is not in origin form into scheme, authority, and path with query."""
    scheme, separator, rest = target.partition("://")
    if not separator:
        return "", "", target
    end = min((position for position in (rest.find("/"), rest.find("?")) if position >= 0), default=len(rest))
    resource = rest[end:]
    return scheme.lower(), rest[:end], resource if resource.startswith("/") else "/" + resource


class Response:
    """An ordinary HTTP response: what a server answers instead of 101, and what a client got.

    Args:
        status: 200 to 599; 101 has no body.
        headers: fields, (name, value) pairs or a mapping. Content-Length, Transfer-Encoding and
            Connection are ours.
        body: bytes, or str which is sent as UTF-8, as "text/plain" where no Content-Type is given.
        reason: the reason phrase, or None for the usual one.

    Raises:
        TypeError, ValueError: for what cannot stand in a response.
    """

    __slots__ = ("body", "headers", "reason", "status")

    #: Fields that frame the message; an application's would contradict ours.
    RESERVED: ClassVar[frozenset[str]] = frozenset({"connection", "content-length", "transfer-encoding"})

    def __init__(
        self,
        status: int,
        headers: Headers | Iterable[tuple[str, str]] | Mapping[str, str] = (),
        body: bytes | str = b"",
        *,
        reason: str | None = None,
    ) -> None:
        if not isinstance(status, int) or isinstance(status, bool):
            raise TypeError(f"status takes an integer, not {status!r}")
        if not isinstance(body, (bytes, str)):
            raise TypeError(f"body takes bytes or str, not {body!r}")
        given: Any = headers
        if isinstance(given, (str, bytes)):
            raise TypeError(f"headers takes (name, value) pairs or a mapping, not {headers!r}; "
                            "the body is body=...")  # fmt: skip
        self.status = int(status)
        self.reason = reason_phrase(self.status) if reason is None else reason
        fields = headers.items() if isinstance(headers, (Headers, Mapping)) else list(headers)
        for name, value in fields:
            check_field(name, value)
        self.headers = Headers(fields)
        if isinstance(body, str):
            body = body.encode("utf-8")
            if body and "Content-Type" not in self.headers:
                self.headers.add("Content-Type", "text/plain; charset=utf-8")
        self.body = body
        self._check()

    @classmethod
    def _received(cls, status: int, reason: str, headers: Headers, body: bytes) -> Response:
        """Build what a peer sent, which need not be what we would send."""
        self = cls.__new__(cls)
        self.status = status
        self.reason = reason
        self.headers = headers
        self.body = body
        return self

    def _check(self) -> None:
        """Raise unless this can be sent; attributes may have changed since it was built."""
        if self.status != 101 and not 200 <= self.status <= 599:
            raise ValueError(f"status takes 200 to 599 or 101, not {self.status}")
        if not isinstance(self.reason, str):
            raise TypeError(f"reason takes a str, not {self.reason!r}")
        try:
            rest = self.reason.encode("latin-1").translate(None, _REASON)
        except UnicodeEncodeError:
            rest = b"?"
        if rest:
            raise ValueError(f"reason takes latin-1 without control characters, not {self.reason!r}")
        # RFC 9110 sections 15.2, 15.3.5 and 15.4.5.
        if self.body and self.status in _NO_BODY:
            raise ValueError(f"a response with status {self.status} has no body")
        for name, value in self.headers.items():
            check_field(name, value)
            # RFC 9110 section 8.6: a Content-Length that is wrong splits the response. A 101
            # speaks for its connection itself.
            if name.lower() in self.RESERVED and (self.status != 101 or name.lower() != "connection"):
                raise ValueError(f"header field {name} is set by geventws, leave it out")

    def serialize(self, *, include_body: bool = True) -> bytes:
        """Return the response as bytes, to be sent before the connection is closed.

        Args:
            include_body: False in answer to HEAD: the head alone, as it would be with the body.

        Raises:
            TypeError, ValueError: if it was changed into what cannot be sent.
        """
        self._check()
        lines = [f"HTTP/1.1 {self.status} {self.reason}"]
        lines.extend([f"{name}: {value}" for name, value in self.headers.items()])
        # RFC 9110 section 8.6: no Content-Length in 1xx and 204. In a 304 it would be that of
        # the response to another request.
        if self.status not in _NO_BODY:
            lines.append(f"Content-Length: {len(self.body)}")
        if self.status != 101:
            # RFC 9112 section 9.6: whatever the client has sent behind its request, it will not be
            # taken for another one. RFC 9110 section 7.8: who sends Upgrade sends it as an option.
            lines.append("Connection: close, Upgrade" if "Upgrade" in self.headers else "Connection: close")
        lines.append("\r\n")
        head = "\r\n".join(lines).encode("latin-1")
        return head + self.body if include_body else head

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.status} {self.reason!r}, {len(self.body)} bytes>"


class RequestParser(HeadReader):
    """Reads one request head (RFC 9112).

    Bytes behind it are kept in `leftover` and are never parsed: with an upgrade they are the first
    frames, and after a rejection nothing may be made of them.

    Args:
        max_line: bytes of the request line, or of a header line, without their CRLF; 414, 431.
        max_headers: header fields; 431.
        max_head: bytes of the whole head, its last CRLF included; 431. None lifts a limit.
    """

    __slots__ = ()

    KIND = "request"
    EMPTY_LINES = 1
    FIRST_BYTES = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz!#$%&'*+-.^_`|~0123456789"
    LINE_STATUS = 414

    def receive_data(self, data: bytes) -> Request | None:
        """Take bytes from the network.

        Returns:
            The request once its head is complete, else None.

        Next: with a request, `leftover` holds the bytes behind it.

        Raises:
            InvalidMessage: if this is not a request of HTTP/1.1. As with the others, `status`
                is the answer; the parser takes no more data.
            InvalidHeader: if a field that frames or routes the request is wrong.
            InvalidMethod: if the method is unknown.
            HeadTooBig: if a limit is reached.
            InvalidState: if there was a request or an error before.
        """
        self._begin()
        head = self._whole_head(data) if not self._buffer else None
        if head is None:
            head = self._collect(data)
            if head is None:
                self._over = False
                return None
            return _parse_request(head)
        try:
            return _parse_request(head)
        except Exception:
            # Say what would be said had it come in pieces; mostly that is the same.
            self._collect(data)
            raise

    def receive_eof(self) -> None:
        """Take the end of the stream.

        Raises:
            InvalidMessage: if it came in the middle of the head.
        """
        began, self._over = bool(self._buffer) and not self._over, True
        if began:
            raise InvalidMessage(f"the connection ended after {len(self._buffer)} bytes of the request")


def _parse_request(head: bytes) -> Request:
    """Parse a complete head, from the request line to the last CRLF."""
    line = head[: head.index(b"\r\n")]
    # RFC 9112 section 3: request-line = method SP request-target SP HTTP-version. llhttp takes
    # several spaces, which others take for an empty target.
    parts = line.split(b" ")
    if len(parts) != 3:
        raise InvalidMessage(f"request line has {len(parts)} words, not 3: method, target and version")
    method = "GET" if parts[0] == b"GET" else parts[0].decode("latin-1")
    target, version = parts[1], parts[2]
    if version != b"HTTP/1.1":
        # RFC 6455 section 4.1: "at least 1.1". llhttp takes 0.9, 1.0, 2.0, RTSP/1.0 and ICE/1.0.
        if len(version) == 8 and version[:5] == b"HTTP/" and version[6:7] == b"." and version[5::2].isdigit():
            raise InvalidMessage(
                f"HTTP version is {version[5:].decode('ascii')}, not 1.1", "http.version", 505
            )
        # What it ends with may be a piece of the target.
        raise InvalidMessage("request line does not end with HTTP/1.1")
    if target.translate(None, _VISIBLE) or b"#" in target:
        shown = show_uri(target.decode("latin-1"))
        raise InvalidMessage(f"request target {shown!r} has characters that it cannot have")
    # RFC 9112 section 2.2: no bare CR. llhttp passes over each one in front of the method.
    if method != "GET" and not is_token(method):
        raise InvalidMessage(f"method {method!r} is not a token")
    fields = Fields()
    parser = httptools.HttpRequestParser(fields)
    try:
        parser.feed_data(head)
    except httptools.HttpParserUpgrade:
        pass
    except httptools.HttpParserInvalidMethodError:
        raise InvalidMethod(f"method {method!r} is unknown") from None
    except httptools.HttpParserError as error:
        raise InvalidMessage(f"request is not HTTP/1.1: {_lower(error)}") from None
    if method == "CONNECT":
        raise InvalidMethod("method is CONNECT, and this is no proxy")
    request = Request(method, target.decode("ascii"), fields.headers())
    _check_routing(request)
    _check_framing(request.headers)
    return request


def _check_routing(request: Request) -> None:
    """Check Host and target (RFC 9112 section 3.2)."""
    hosts = request.headers.get_all("host")
    # RFC 9112 section 3.2: 400 for "any HTTP/1.1 request message that lacks a Host header field and
    # ... contains more than one Host header field line or ... an invalid field value"; and also
    # where the target is absolute and Host does not count.
    if len(hosts) != 1:
        raise InvalidHeader(
            f"Host is there {len(hosts)} times, not once", "Host", ", ".join(hosts) if hosts else None
        )
    try:
        split_host(hosts[0])
    except ValueError as error:
        raise InvalidHeader(f"Host is invalid: {error}", "Host", hosts[0]) from None
    target = request.target
    if target.startswith("/") or (target == "*" and request.method == "OPTIONS"):
        return
    scheme, authority, _ = _split_absolute(target)
    if scheme not in ("http", "https"):
        raise InvalidMessage(f"request target {show_uri(target)!r} is neither a path nor an http URI")
    try:
        # RFC 9110 section 4.2.4: userinfo in a target is "treated as an error"; split_host does.
        split_host(authority)
    except ValueError as error:
        raise InvalidMessage(f"request target {show_uri(target)!r} has no valid host: {error}") from None


def _check_framing(headers: Headers) -> None:
    """Check the fields that say where a body ends (RFC 9112 section 6), beyond llhttp.

    llhttp has refused a repeated or malformed Content-Length, and one beside Transfer-Encoding.
    """
    if "transfer-encoding" in headers:
        codings = headers.get_all("transfer-encoding")
        # RFC 9112 section 6.1: one coding, and the one that everybody reads the same way.
        if len(codings) != 1 or codings[0].lower() != "chunked":
            raise InvalidHeader(
                f"Transfer-Encoding is {', '.join(codings)!r}, not 'chunked'",
                "Transfer-Encoding",
                ", ".join(codings),
            )


def _lower(error: Exception) -> str:
    """Return the text of an llhttp error in the manner of ours."""
    text = str(error)
    return text[:1].lower() + text[1:]


class ResponseParser(HeadReader):
    """Reads the response to an opening handshake (RFC 9112).

    Interim responses (1xx) before it are skipped. The body of anything but a 101 is read too, as it
    often says why.

    Args:
        max_line: bytes of the status line, or of a header line, without their CRLF.
        max_headers: header fields of one response.
        max_head: bytes of the heads of all responses, interim ones included.
        max_body: bytes of the body that are kept; what is longer is cut there. None lifts a limit.
    """

    __slots__ = ("_fields", "_max_body", "_parser", "_response")

    KIND = "response"
    EMPTY_LINES = 0
    FIRST_BYTES = b"H"
    LINE_STATUS = 431

    def __init__(
        self,
        *,
        max_line: int | None,
        max_headers: int | None,
        max_head: int | None,
        max_body: int | None = 64 * 1024,
    ) -> None:
        HeadReader.__init__(self, max_line=max_line, max_headers=max_headers, max_head=max_head)
        self._max_body = max_body
        self._response: Response | None = None
        self._fields = Fields()
        self._parser: Any = None

    @property
    def response(self) -> Response | None:
        """The response whose body is not complete yet, or None while there is no head."""
        return self._response

    def _has_body(self, status: int) -> bool:
        """Tell whether a body may follow, and not another protocol."""
        return status != 101

    def receive_data(self, data: bytes) -> Response | None:
        """Take bytes from the network.

        Returns:
            The response once it is complete, else None.

        Next: with a 101, `leftover` holds the bytes behind it.

        Raises:
            InvalidMessage: if this is not a response of HTTP/1.1, or its body is malformed.
            InvalidHeader: if a field that frames it is wrong.
            HeadTooBig: if a limit is reached.
            InvalidState: if there was a response or an error before.
        """
        self._begin()
        while self._response is None:
            head = self._collect(data)
            if head is None:
                self._over = False
                return None
            response = self._parse(head)
            if not self._has_body(response.status):
                return response
            data, self.leftover = self.leftover, b""
            # RFC 9110 section 15.2: "A client MUST be able to parse one or more 1xx responses".
            if response.status >= 200:
                self._response = response
        return self._receive_body(data)

    def receive_eof(self) -> Response | None:
        """Take the end of the stream.

        Returns:
            The response whose body that ends, as far as it came; None if it was complete before.

        Raises:
            InvalidMessage: if there is no response.
        """
        over, self._over = self._over, True
        if over:
            return None
        if self._response is None:
            raise InvalidMessage("the connection ended before the response did")
        return self._finish()

    def _parse(self, head: bytes) -> Response:
        """Parse a complete head, from the status line to the last CRLF."""
        line = head[: head.index(b"\r\n")]
        # RFC 9112 section 4: status-line = HTTP-version SP status-code SP [ reason-phrase ].
        version, _, rest = line.partition(b" ")
        code, _, reason = rest.partition(b" ")
        if not (len(code) == 3 and code.isdigit() and code[:1] in b"12345"):
            raise InvalidMessage(f"status line has {code!r}, which is not a status code")
        if version != b"HTTP/1.1" and (version != b"HTTP/1.0" or code[:1] == b"1"):
            raise InvalidMessage(f"status line begins with {version!r}, not HTTP/1.1")
        if reason.translate(None, _REASON):
            raise InvalidMessage(f"reason phrase {reason!r} has control characters")
        self._fields = Fields()
        self._parser = httptools.HttpResponseParser(self._fields)
        try:
            self._parser.feed_data(head)
        except httptools.HttpParserUpgrade:
            pass
        except httptools.HttpParserError as error:
            # llhttp has no words for a 101 that names no upgrade. The head is sound, so that is for
            # the handshake to say.
            if code != b"101" or not self._fields.headers_complete:
                raise InvalidMessage(f"response is not HTTP/1.1: {_lower(error)}") from None
        headers = self._fields.headers()
        _check_framing(headers)
        return Response._received(int(code), reason.decode("latin-1"), headers, b"")

    def _receive_body(self, data: bytes) -> Response | None:
        """Take bytes of the body; return the response once that is complete or cut."""
        fields = self._fields
        try:
            if not fields.complete:
                self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            if not fields.complete and not self._is_full():
                raise InvalidMessage(f"body of the response is malformed: {_lower(error)}") from None
        if fields.complete or self._is_full():
            return self._finish()
        self._over = False
        return None

    def _is_full(self) -> bool:
        return self._max_body is not None and len(self._fields.body) >= self._max_body

    def _finish(self) -> Response:
        assert self._response is not None
        self._response.body = bytes(self._fields.body[: self._max_body])
        return self._response
