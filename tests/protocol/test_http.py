"""Requests and responses of HTTP/1.1: RFC 9112, and what smuggles where it is not obeyed."""

from __future__ import annotations

import contextlib
import http
import pickle

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from opinions import h11_request, h11_response

from geventws.exceptions import InvalidHandshake, InvalidHeader, InvalidMessage, InvalidMethod
from geventws.protocol.headers import Headers
from geventws.protocol.http import Request, RequestParser, Response, ResponseParser, reason_phrase


def parse(head):
    return RequestParser(max_line=8192, max_headers=100, max_head=65536).receive_data(head)


def parse_response(*pieces, eof=False, max_body=65536):
    parser = ResponseParser(max_line=8192, max_headers=100, max_head=65536, max_body=max_body)
    for piece in pieces:
        response = parser.receive_data(piece)
        if response is not None:
            return response
    return parser.receive_eof() if eof else None


def request(*fields, line=b"GET / HTTP/1.1", host=b"Host: a\r\n"):
    return line + b"\r\n" + host + b"".join(field + b"\r\n" for field in fields) + b"\r\n"


class TestRequest:
    @pytest.mark.parametrize(
        ("target", "path", "query"),
        [
            ("/", "/", ""),
            ("/chat?room=1&x=%20", "/chat", "room=1&x=%20"),
            ("/?", "/", ""),
            ("/a?b?c", "/a", "b?c"),
            ("/caf%C3%A9/%2F+", "/caf\xe9//+", ""),
            ("/%ff%zz%", "/\ufffd%zz%", ""),
            ("/%00%0d%0a", "/\0\r\n", ""),
            ("//evil.example/x", "//evil.example/x", ""),
            ("http://h/a?b", "/a", "b"),
            ("http://h", "/", ""),
            ("http://h?b/c", "/", "b/c"),
            ("http://h/a/?b", "/a/", "b"),
            ("*", "*", ""),
        ],
    )
    def test_target(self, target, path, query):
        asked = Request("GET", target)
        assert (asked.target, asked.path, asked.query) == (target, path, query)

    @pytest.mark.parametrize(
        ("target", "fields", "host"),
        [
            ("/", [("host", "a:80")], "a:80"),
            ("/", [], ""),
            ("*", [("Host", "a")], "a"),
            # RFC 9112 section 3.2.2: Host is ignored where the target is absolute.
            ("http://b:81/", [("Host", "a")], "b:81"),
            ("http://b?x", [("Host", "a")], "b"),
            ("/http://b/", [("Host", "a")], "a"),
        ],
    )
    def test_host(self, target, fields, host):
        assert Request("GET", target, fields).host == host

    def test_attributes(self):
        headers = Headers({"a": "b"})
        asked = Request("GET", "/", headers)
        assert asked.headers is headers
        assert asked.remote_address is None
        assert asked.environ is None
        assert not hasattr(asked, "__dict__")

    def test_repr_escapes(self):
        assert repr(Request("GET", "/\x1b[31m")) == r"<Request GET '/\x1b[31m'>"

    @pytest.mark.parametrize(
        ("target", "shown"),
        [
            ("/a@b?token=SECRET\xe9", "'/a@b?...'"),
            ("/a#SECRET", "'/a#...'"),
            ("ws://x/a?token=SECRET", "'ws://x/a?...'"),
            ("http://u:SECRET@x/a", "'http://***@x/a'"),
            ("http://u:SECRET/a", "'http://u:***'"),
        ],
    )
    def test_no_query_and_no_credentials_are_shown(self, target, shown):
        assert repr(Request("GET", target)) == f"<Request GET {shown}>"
        with pytest.raises(InvalidMessage) as caught:
            parse(f"GET {target} HTTP/1.1\r\nHost: h\r\n\r\n".encode("latin-1"))
        assert shown in str(caught.value)
        assert "SECRET" not in str(caught.value)


class TestRequestHead:
    def test_fields(self):
        asked = parse(
            request(
                b"upgrade:websocket",
                b"X_y: 1",
                b"X-Empty:",
                b"X-Space:  \t a  b \t ",
                b"X-Latin: caf\xe9",
                b"Accept: */*",
                b"X-Twice: 1",
                b"x-twice: 2",
                host=b"HOST: a\r\n",
            )
        )
        assert asked.method == "GET"
        assert asked.headers.items() == [
            ("HOST", "a"),
            ("upgrade", "websocket"),
            ("X_y", "1"),
            ("X-Empty", ""),
            ("X-Space", "a  b"),
            ("X-Latin", "caf\xe9"),
            ("Accept", "*/*"),
            ("X-Twice", "1"),
            ("x-twice", "2"),
        ]
        assert asked.headers.get_all("X-TWICE") == ["1", "2"]
        assert "X-y" not in asked.headers

    @pytest.mark.parametrize(
        "line",
        [
            b"GET /chat?x HTTP/1.1",
            b"POST / HTTP/1.1",
            b"HEAD / HTTP/1.1",
            b"OPTIONS * HTTP/1.1",
            b"OPTIONS / HTTP/1.1",
            b"GET http://a/ HTTP/1.1",
            b"GET HTTPS://[::1]:80/x HTTP/1.1",
            b"GET http://a HTTP/1.1",
            b"GET http://a?b HTTP/1.1",
            b"GET // HTTP/1.1",
            b"GET /%00 HTTP/1.1",
        ],
    )
    def test_request_lines(self, line):
        method, target, _ = line.decode().split(" ")
        asked = parse(request(line=line))
        assert (asked.method, asked.target) == (method, target)

    @pytest.mark.parametrize(
        ("line", "status"),
        [
            (b"GET / HTTP/0.9", 505),
            (b"GET / HTTP/1.0", 505),
            (b"GET / HTTP/1.2", 505),
            (b"GET / HTTP/2.0", 505),
            (b"PRI * HTTP/2.0", 505),
            (b"GET / HTTP/3.0", 505),
            (b"GET / HTTP/1.1 ", 400),
            (b"GET /  HTTP/1.1", 400),
            (b"GET  / HTTP/1.1", 400),
            (b" GET / HTTP/1.1", 400),
            (b"GET\t/ HTTP/1.1", 400),
            (b"GET /\tHTTP/1.1", 400),
            (b"GET / x HTTP/1.1", 400),
            (b"GET /", 400),
            (b"GET", 400),
            (b"GET / ", 400),
            (b"GET / http/1.1", 400),
            (b"GET / HTTP/1.10", 400),
            (b"GET / HTTP/01.1", 400),
            (b"GET / HTTP/1,1", 400),
            (b"GET / HTTP/x.1", 400),
            (b"GET / HTTP/+.1", 400),
            (b"GET / HTTP/\xb2.1", 400),
            (b"GET / HTTP/11", 400),
            (b"GET / HTTPS/1.1", 400),
            (b"SETUP * RTSP/1.0", 400),
            (b"SOURCE / ICE/1.0", 400),
            (b"CONNECT a:80 HTTP/1.1", 405),
            (b"FOO / HTTP/1.1", 405),
            (b"get / HTTP/1.1", 405),
            (b"GETX / HTTP/1.1", 405),
            (b"G\xc9T / HTTP/1.1", 400),
            (b"G(T / HTTP/1.1", 400),
            (b"GET /\xc3\xa9 HTTP/1.1", 400),
            (b"GET /\0 HTTP/1.1", 400),
            (b"GET /\x7f HTTP/1.1", 400),
            (b"GET /\x0b HTTP/1.1", 400),
            (b"GET /\r HTTP/1.1", 400),
            (b"GET /a#b HTTP/1.1", 400),
            (b"GET a HTTP/1.1", 400),
            (b"GET a:80 HTTP/1.1", 400),
            (b"GET * HTTP/1.1", 400),
            (b"GET ws://a/ HTTP/1.1", 400),
            (b"GET ftp://a/ HTTP/1.1", 400),
            (b"GET ://a/ HTTP/1.1", 400),
            (b"GET http:/a HTTP/1.1", 400),
            (b"GET http:///a HTTP/1.1", 400),
            (b"GET http://u@a/ HTTP/1.1", 400),
            (b"GET http://a:x/ HTTP/1.1", 400),
            (b"GET http://?a HTTP/1.1", 400),
            (b"GET http://a,b/ HTTP/1.1", 400),
            (b"OPTIONS a HTTP/1.1", 400),
            (b"OPTIONS ** HTTP/1.1", 400),
            # llhttp passes over each CR in front of the method.
            (b"\rGET / HTTP/1.1", 400),
            (b"\r\rGET / HTTP/1.1", 400),
            (b"\r\n\rGET / HTTP/1.1", 400),
            (b"\rPOST / HTTP/1.1", 400),
        ],
    )
    def test_bad_request_lines(self, line, status):
        with pytest.raises(InvalidHandshake) as caught:
            parse(request(line=line))
        assert caught.value.status == status
        assert isinstance(caught.value, InvalidMethod if status == 405 else InvalidMessage)
        assert str(caught.value).isprintable()

    @pytest.mark.parametrize(
        "host",
        [b"a", b"a.example:8080", b"a:", b"127.0.0.1", b"[::1]:80", b"my_service", b"A.", b" a ", b"a\t"],
    )
    def test_hosts(self, host):
        asked = parse(request(host=b"Host:" + host + b"\r\n"))
        assert asked.host == host.decode().strip()

    @pytest.mark.parametrize(
        "host",
        [
            b"",
            b"Host: a\r\nHost: a\r\n",
            b"Host: a\r\nhost: b\r\n",
            b"Host:\r\n",
            b"Host: \t\r\n",
            b"Host: a b\r\n",
            b"Host: a,b\r\n",
            b"Host: a/b\r\n",
            b"Host: u@a\r\n",
            b"Host: a:x\r\n",
            b"Host: a:99999\r\n",
            b"Host: ::1\r\n",
            b"Host: [::1\r\n",
            b"Host: a\xe9\r\n",
            b"Host: http://a\r\n",
            b"Host: a?b\r\n",
            b"Host: a#b\r\n",
            b"X-Host: a\r\n",
            b"Host_: a\r\n",
            b"Host: a:8\xb2\r\n",
            b"Host: a%00\r\n",
            b'Host: "a"\r\n',
        ],
    )
    @pytest.mark.parametrize("line", [b"GET / HTTP/1.1", b"GET http://a/ HTTP/1.1", b"POST / HTTP/1.1"])
    def test_bad_hosts(self, host, line):
        # RFC 9112 section 3.2.
        with pytest.raises(InvalidHeader, match="Host is") as caught:
            parse(request(host=host, line=line))
        assert (caught.value.status, caught.value.name) == (400, "Host")

    @pytest.mark.parametrize(
        "field",
        [
            b"a : b",
            b" a: b",
            b"\ta: b",
            b": b",
            b"a",
            b"a b: c",
            b"a\0: b",
            b"a: b\0c",
            b"a: b\rc",
            b"a: b\nc: d",
            b"a: b\r",
            b"a: \x7f",
            b"a: \x01",
            b"a: \x0b",
            b"a: \x0c",
            b"a: \x1f",
            b"a\xe9: b",
            b"a: b\r\n c",
            b"a(b): c",
            b"a: b\r\n\tc",
            b"a:\r\n b",
            b"a[]: b",
            b"a@: b",
            b"a/b: c",
            b'"a": b',
            b"a\t: b",
            b"a;: b",
            b"{a}: b",
        ],
    )
    def test_bad_fields(self, field):
        # RFC 9112 section 5: tokens, no space before the colon, no folding; RFC 9110 section 5.5.
        for head in (request(field), request(field, host=b"").replace(b"\r\n\r\n", b"\r\nHost: a\r\n\r\n")):
            with pytest.raises(InvalidMessage) as caught:
                parse(head)
            assert caught.value.status == 400

    @pytest.mark.parametrize("code", range(256))
    def test_every_byte_in_every_position(self, code):
        # Whatever a byte does, it does not get past as something else than it is, and no error is ours.
        byte = bytes([code])
        head = request(b"Upgrade: websocket", b"Connection: Upgrade", b"Cookie: a=b")
        for at in range(len(head)):
            for changed in (head[:at] + byte + head[at + 1 :], head[:at] + byte + head[at:]):
                with contextlib.suppress(InvalidHandshake):
                    asked = parse(changed)
                    if asked is not None:
                        text = b"".join(
                            f"{name}{value}".encode("latin-1") for name, value in asked.headers.items()
                        )
                        assert all(byte == 9 or 32 <= byte != 127 for byte in text)
                        assert asked.target.isascii()
                        assert asked.target.isprintable()

    @pytest.mark.parametrize(
        ("field", "value"),
        [(b"Content-Length: 0", "0"), (b"Content-Length: 5", "5"), (b"Content-Length: 5 ", "5")],
    )
    def test_content_length(self, field, value):
        assert parse(request(field, line=b"POST / HTTP/1.1")).headers["Content-Length"] == value

    @pytest.mark.parametrize("value", [b"chunked", b"Chunked", b"chunked "])
    def test_transfer_encoding(self, value):
        assert (
            "Transfer-Encoding"
            in parse(request(b"Transfer-Encoding: " + value, line=b"POST / HTTP/1.1")).headers
        )

    @pytest.mark.parametrize(
        "fields",
        [
            [b"Content-Length: +5"],
            [b"Content-Length: -5"],
            [b"Content-Length: 1_0"],
            [b"Content-Length: 5,5"],
            [b"Content-Length: 5, 5"],
            [b"Content-Length:"],
            [b"Content-Length: 0x5"],
            [b"Content-Length: 5 5"],
            [b"Content-Length: \xb2"],
            [b"Content-Length: 99999999999999999999"],
            [b"Content-Length: five"],
            [b"Content-Length: 5", b"Content-Length: 5"],
            [b"Content-Length: 5", b"content-length: 6"],
            [b"Content-Length: 5", b"Transfer-Encoding: chunked"],
            [b"Transfer-Encoding: chunked", b"Content-Length: 5"],
            [b"Transfer-Encoding: xchunked"],
            [b"Transfer-Encoding: chunked, gzip"],
            [b"Transfer-Encoding: gzip, chunked"],
            [b"Transfer-Encoding: gzip"],
            [b"Transfer-Encoding: identity"],
            [b"Transfer-Encoding:"],
            [b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"],
            [b"Transfer-Encoding: chunked, chunked"],
            [b"Transfer-Encoding: gzip", b"Transfer-Encoding: chunked"],
            [b"Transfer-Encoding: \x0bchunked"],
            [b"Transfer-Encoding: chunked;q=1"],
            [b'Transfer-Encoding: "chunked"'],
            [b"Transfer-Encoding: ,chunked"],
        ],
    )
    @pytest.mark.parametrize("upgrade", [(), (b"Upgrade: websocket", b"Connection: Upgrade")])
    def test_bad_framing(self, fields, upgrade):
        # RFC 9112 sections 6.1 and 6.3.
        with pytest.raises(InvalidHandshake) as caught:
            parse(request(*upgrade, *fields, line=b"POST / HTTP/1.1"))
        assert caught.value.status == 400

    def test_llhttp_and_we_agree_where_the_head_ends(self):
        # After the head it gave us, llhttp must be done with it and must have seen nothing more.
        parser = RequestParser(max_line=8192, max_headers=100, max_head=65536)
        second = request(line=b"GET /second HTTP/1.1")
        assert parser.receive_data(request(b"Connection: keep-alive") + second).target == "/"
        assert parser.leftover == second


targets = st.sampled_from([b"/", b"/a?b", b"http://a/", b"*", b"a", b"//", b"/%ff", b"/\xff", b"/#", b""])
values = st.one_of(
    st.sampled_from(
        [b"", b"a", b"5", b"0", b"chunked", b"websocket", b"Upgrade", b"a b", b"a,b", b"\xff", b"a\tb"]
    ),
    st.binary(max_size=4),
)
names = st.one_of(
    st.sampled_from(
        [b"Host", b"Content-Length", b"Transfer-Encoding", b"Connection", b"Upgrade", b"X", b"x_y", b"Expect"]
    ),
    st.binary(min_size=1, max_size=3),
)
field_lines = st.tuples(
    names,
    st.sampled_from([b":", b": ", b" :", b":\t", b""]),
    values,
    st.sampled_from([b"\r\n", b"\r\n", b"\r\n", b"\r\n", b"\n", b"\r", b" \r\n", b"\r\n "]),
).map(b"".join)
heads = st.builds(
    lambda *parts: b"".join(parts[:-1]) + b"".join(parts[-1]) + b"\r\n",
    st.sampled_from([b"", b"", b"", b"\r\n"]),
    st.sampled_from([b"GET", b"GET", b"POST", b"OPTIONS", b"CONNECT", b"PRI", b"FOO", b"g", b"G\xff"]),
    st.sampled_from([b" ", b" ", b" ", b"  ", b"\t"]),
    targets,
    st.sampled_from(
        [b" HTTP/1.1\r\n"] * 4 + [b" HTTP/1.0\r\n", b" HTTP/2.0\r\n", b"  HTTP/1.1\r\n", b"\r\n"]
    ),
    st.sampled_from([b"Host: a\r\n", b"Host: a\r\n", b""]),
    st.lists(field_lines, max_size=3),
)


class TestSecondOpinion:
    """What h11 rejects is never accepted, and what both accept is the same to both."""

    @settings(max_examples=300)
    @given(heads)
    @example(b"\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n")
    @example(b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 5 \r\n\r\n")
    def test_requests(self, head):
        try:
            ours = parse(head)
        except InvalidHandshake:
            return
        if ours is None:
            return
        theirs = h11_request(head)
        assert theirs is not None
        assert (theirs.method.decode(), theirs.target.decode()) == (ours.method, ours.target)
        assert theirs.http_version == b"1.1"
        expected = [(name.lower(), value) for name, value in theirs.headers]
        assert [
            (name.lower().encode(), value.encode("latin-1")) for name, value in ours.headers.items()
        ] == expected

    @given(st.binary(max_size=60), st.binary(max_size=60))
    def test_any_bytes(self, start, end):
        for head in (
            start + b"\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a\r\n" + start + b"\r\n" + end + b"\r\n\r\n",
        ):
            try:
                ours = parse(head)
            except InvalidHandshake:
                continue
            assert ours is None or h11_request(head) is not None

    @settings(max_examples=300)
    @given(
        st.sampled_from(
            [
                b"HTTP/1.1 101 S",
                b"HTTP/1.1 200 OK",
                b"HTTP/1.1 404",
                b"HTTP/1.0 403 ",
                b"HTTP/1.1 99 x",
                b"HTTP/1.1  200 OK",
                b"HTTP/2.0 200 OK",
                b"HTTP/1.1 204 \xff",
                b"HTTP/1.1 200 \x01",
            ]
        ),
        st.lists(field_lines, max_size=3),
    )
    def test_responses(self, line, fields):
        head = line + b"\r\n" + b"".join(fields) + b"\r\n"
        try:
            ours = parse_response(head, eof=True)
        except InvalidHandshake:
            return
        theirs = h11_response(head)
        assert theirs is not None
        assert theirs.status_code == ours.status
        assert theirs.reason == ours.reason.encode("latin-1").rstrip()


class TestResponse:
    def test_serialize(self):
        response = Response(404, [("X-a", "caf\xe9")], b"no\xff")
        assert response.serialize() == (
            b"HTTP/1.1 404 Not Found\r\nX-a: caf\xe9\r\nContent-Length: 3\r\nConnection: close\r\n\r\nno\xff"
        )
        assert response.serialize(include_body=False) == response.serialize()[:-3]

    def test_text(self):
        assert Response(200, body="caf\xe9").serialize() == (
            b"HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 5\r\n"
            b"Connection: close\r\n\r\ncaf\xc3\xa9"
        )
        assert Response(200, {"content-type": "text/html"}, "x").headers.items() == [
            ("content-type", "text/html")
        ]
        assert Response(200, body="").headers == Headers()
        assert Response(200, body=b"x").headers == Headers()

    @pytest.mark.parametrize(
        ("status", "expected"),
        [
            (101, b"HTTP/1.1 101 Switching Protocols\r\n\r\n"),
            (204, b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n"),
            (304, b"HTTP/1.1 304 Not Modified\r\nConnection: close\r\n\r\n"),
            (205, b"HTTP/1.1 205 Reset Content\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"),
            (599, b"HTTP/1.1 599 \r\nContent-Length: 0\r\nConnection: close\r\n\r\n"),
        ],
    )
    def test_without_a_body(self, status, expected):
        # RFC 9110 section 8.6.
        assert Response(status).serialize() == expected
        if status in (101, 204, 304):
            with pytest.raises(ValueError, match="has no body"):
                Response(status, body=b"x")

    def test_upgrade_is_named_in_connection(self):
        # RFC 9110 section 7.8.
        assert b"\r\nConnection: close, Upgrade\r\n" in Response(426, {"Upgrade": "websocket"}).serialize()

    def test_101_speaks_for_its_connection(self):
        fields = [("Upgrade", "websocket"), ("Connection", "Upgrade")]
        assert Response(101, fields).serialize() == (
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
        )

    def test_reason(self):
        assert Response(200, reason="Fine \xe9").serialize().startswith(b"HTTP/1.1 200 Fine \xe9\r\n")
        assert Response(200, reason="").serialize().startswith(b"HTTP/1.1 200 \r\n")
        assert reason_phrase(426) == "Upgrade Required"
        assert reason_phrase(414) == "URI Too Long"
        assert reason_phrase(299) == ""

    @pytest.mark.parametrize("reason", ["a\r\nb", "a\0", "\n", "\x7f", "\u20ac"])
    def test_bad_reason(self, reason):
        with pytest.raises(ValueError, match="reason takes"):
            Response(200, reason=reason)

    @pytest.mark.parametrize("status", [0, 99, 100, 102, 199, 600, -200])
    def test_bad_status(self, status):
        with pytest.raises(ValueError, match="status takes"):
            Response(status)

    @pytest.mark.parametrize(
        "arguments",
        [("200",), (200.0,), (True,), (None,), (200, (), 5), (200, (), bytearray(b"x")), (200, (), None)],
    )
    def test_types(self, arguments):
        with pytest.raises(TypeError, match="takes"):
            Response(*arguments)
        with pytest.raises(TypeError, match="reason takes"):
            Response(200, reason=b"x")
        with pytest.raises(TypeError, match="is a str"):
            Response(200, [("a", 1)])

    @pytest.mark.parametrize("body", ["no", b"no", ""])
    def test_a_body_in_the_place_of_headers(self, body):
        with pytest.raises(TypeError, match=r"headers takes \(name, value\) pairs .*; the body is body="):
            Response(403, body)

    def test_an_enum_is_a_status(self):
        response = Response(http.HTTPStatus.NOT_FOUND)
        assert response.serialize().startswith(b"HTTP/1.1 404 Not Found\r\n")

    @pytest.mark.parametrize("name", ["Content-Length", "content-length", "Transfer-Encoding", "Connection"])
    def test_framing_is_ours(self, name):
        with pytest.raises(ValueError, match="is set by geventws"):
            Response(200, {name: "1"})

    @pytest.mark.parametrize(
        "field", [("a", "b\r\nc: d"), ("a\r\n", "b"), ("", "b"), ("a", "\0"), ("a", "\u20ac")]
    )
    def test_injection(self, field):
        with pytest.raises(ValueError, match="header field"):
            Response(200, [field])
        # A field that is added later does not reach the wire either.
        response = Response(200)
        response.headers.add(*field)
        with pytest.raises(ValueError, match="header field"):
            response.serialize()

    def test_its_headers_are_its_own(self):
        headers = Headers({"a": "b"})
        Response(200, headers, "text")
        assert len(headers) == 1

    def test_repr_and_pickle(self):
        response = Response(403, {"a": "b"}, b"xyz", reason="\xe9")
        assert repr(response) == "<Response 403 '\xe9', 3 bytes>"
        copy = pickle.loads(pickle.dumps(response))
        assert (copy.status, copy.reason, copy.headers, copy.body) == (403, "\xe9", response.headers, b"xyz")


SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"


class TestResponseHead:
    def test_101(self):
        response = parse_response(SWITCH + b"\x81\x00")
        assert (response.status, response.reason, response.body) == (101, "Switching Protocols", b"")
        assert response.headers.items() == [("Upgrade", "websocket"), ("Connection", "Upgrade")]

    @pytest.mark.parametrize(
        "fields", [b"", b"Upgrade: websocket\r\n", b"Connection: Upgrade\r\n", b"X: y\r\n"]
    )
    def test_101_that_names_no_upgrade(self, fields):
        # That is for the handshake to say, which knows what is missing.
        response = parse_response(b"HTTP/1.1 101 S\r\n" + fields + b"\r\n\x81\x00")
        assert response.status == 101

    def test_101_has_no_body(self):
        parser = ResponseParser(max_line=None, max_headers=None, max_head=None)
        response = parser.receive_data(SWITCH[:-2] + b"Content-Length: 2\r\n\r\n\x81\x00")
        assert response.body == b""
        assert parser.leftover == b"\x81\x00"

    @pytest.mark.parametrize(
        "before", [b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n"]
    )
    def test_interim_responses_are_skipped(self, before):
        for times in (1, 3):
            assert (
                parse_response(before * times + SWITCH).headers.items()
                == parse_response(SWITCH).headers.items()
            )
            assert parse_response(before * times + b"HTTP/1.1 204 N\r\n\r\n").headers.items() == []
        assert parse_response(before) is None

    @pytest.mark.parametrize(
        "line",
        [
            b"HTTP/1.1 99 x",
            b"HTTP/1.1 099 x",
            b"HTTP/1.1 600 x",
            b"HTTP/1.1 2000 x",
            b"HTTP/1.1 2 x",
            b"HTTP/1.1 +20 x",
            b"HTTP/1.1 x",
            b"HTTP/1.1",
            b"HTTP/1.1  200 x",
            b"HTTP/1.1\t200 x",
            b"HTTP/2.0 200 x",
            b"HTTP/1.2 200 x",
            b"HTTP/1.0 101 x",
            b"HTTP/1.0 100 x",
            b"HTTP/0.9 200 x",
            b"HTTP/11 200 x",
            b"http/1.1 200 x",
            b"H 200 x",
            b"HTTP/1.1 200 a\0",
            b"HTTP/1.1 200 \x1b[0m",
            b"HTTP/1.1 200 a\rb",
            b"HTTP/1.1 \xb2\xb2\xb2 x",
        ],
    )
    def test_bad_status_lines(self, line):
        with pytest.raises(InvalidMessage) as caught:
            parse_response(line + b"\r\n\r\n")
        assert str(caught.value).isprintable()

    @pytest.mark.parametrize(
        "field", [b"a : b", b" a: b", b"a", b"a: b\0", b"a: b\r\n c", b"Content-Length: x"]
    )
    @pytest.mark.parametrize("line", [b"HTTP/1.1 101 S", b"HTTP/1.1 200 OK"])
    def test_bad_fields(self, line, field):
        with pytest.raises(InvalidMessage, match=r"response is not HTTP/1\.1"):
            parse_response(line + b"\r\n" + field + b"\r\n\r\n")


class TestResponseBody:
    @pytest.mark.parametrize(
        ("fields", "stream", "body"),
        [
            (b"Content-Length: 5\r\n", b"abcdeXXX", b"abcde"),
            (b"Content-Length: 0\r\n", b"", b""),
            (b"Transfer-Encoding: chunked\r\n", b"3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n", b"abcde"),
            (b"Transfer-Encoding: chunked\r\n", b"0\r\nTrailer: x\r\n\r\n", b""),
            (b"Connection: close\r\nContent-Length: 1\r\n", b"abc", b"a"),
        ],
    )
    def test_complete(self, fields, stream, body):
        head = b"HTTP/1.1 403 Forbidden\r\n" + fields + b"\r\n"
        assert parse_response(head + stream).body == body
        assert parse_response(head, *[stream[at : at + 1] for at in range(len(stream))]).body == body

    @pytest.mark.parametrize(
        "head", [b"HTTP/1.1 403 F\r\n\r\n", b"HTTP/1.0 403 F\r\n\r\n", b"HTTP/1.1 403\r\nA: b\r\n\r\n"]
    )
    def test_until_the_end_of_the_stream(self, head):
        assert parse_response(head, b"abc") is None
        assert parse_response(head, b"ab", b"c", eof=True).body == b"abc"
        assert parse_response(head, eof=True).body == b""

    def test_cut_off(self):
        # A body that ends early still says more than nothing.
        response = parse_response(b"HTTP/1.1 403 F\r\nContent-Length: 5\r\n\r\nabc", eof=True)
        assert (response.status, response.body) == (403, b"abc")

    @pytest.mark.parametrize("status", [b"204", b"304"])
    def test_none(self, status):
        assert parse_response(b"HTTP/1.1 " + status + b" x\r\n\r\nabc").body == b""

    def test_larger_than_max_body(self):
        head = b"HTTP/1.1 403 F\r\nContent-Length: 500\r\n\r\n"
        for max_body, body in ((10, b"a" * 10), (0, b"")):
            assert parse_response(head + b"a" * 20, max_body=max_body).body == body
        assert parse_response(head, b"a" * 9, max_body=10) is None
        assert parse_response(head, b"a" * 9, b"a", max_body=10).body == b"a" * 10
        assert parse_response(head + b"a" * 500, max_body=None).body == b"a" * 500

    @pytest.mark.parametrize(
        "stream", [b"x\r\n", b"3\r\nabcd\r\n", b"-1\r\n", b"fffffffffffffffff\r\n", b"3\nabc\n0\n\n"]
    )
    def test_malformed_chunks(self, stream):
        with pytest.raises(InvalidMessage, match="body of the response is malformed"):
            parse_response(b"HTTP/1.1 403 F\r\nTransfer-Encoding: chunked\r\n\r\n" + stream)


def test_the_response_before_its_body_is_complete():
    parser = ResponseParser(max_line=8192, max_headers=100, max_head=65536)
    assert parser.receive_data(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 5\r\n") is None
    assert parser.response is None
    assert parser.receive_data(b"\r\nhel") is None
    assert parser.response.status == 403
    assert parser.receive_data(b"lo") is parser.response
    assert parser.response.body == b"hello"
