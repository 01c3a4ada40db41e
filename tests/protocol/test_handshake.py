"""The opening handshake, both sides: RFC 6455 sections 4 and 10.2."""

from __future__ import annotations

import base64
import contextlib
import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geventws.exceptions import (
    InvalidHandshake,
    InvalidHeader,
    InvalidMethod,
    InvalidOrigin,
    InvalidStatus,
    InvalidUpgrade,
    InvalidVersion,
    NegotiationError,
)
from geventws.protocol.handshake import (
    ClientHandshake,
    accept_key,
    accept_response,
    check_origin,
    check_request,
    error_response,
    select_subprotocol,
)
from geventws.protocol.headers import Headers
from geventws.protocol.http import Request, RequestParser, Response, ResponseParser
from geventws.protocol.uri import parse_uri

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="

FIELDS = {
    "Host": "example.com",
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Key": KEY,
    "Sec-WebSocket-Version": "13",
}


def make(*extra, method="GET", target="/chat", without=(), **replaced):
    """A good request, changed: `Sec_WebSocket_Key=...` replaces, `without` removes, `extra` adds."""
    replaced = {name.replace("_", "-"): value for name, value in replaced.items()}
    fields = [(name, replaced.get(name, value)) for name, value in FIELDS.items() if name not in without]
    return Request(method, target, [*fields, *extra])


def parse(head):
    return RequestParser(max_line=8192, max_headers=100, max_head=65536).receive_data(head)


def parse_response(head):
    return ResponseParser(max_line=8192, max_headers=100, max_head=65536).receive_data(head)


class TestKey:
    """RFC 6455 sections 1.3 and 4.2.2."""

    def test_the_example_of_the_rfc(self):
        assert accept_key(KEY) == ACCEPT

    @given(st.binary(min_size=16, max_size=16))
    def test_any_key(self, nonce):
        key = base64.b64encode(nonce).decode()
        digest = hashlib.sha1(key.encode() + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()
        assert accept_key(key) == base64.b64encode(digest).decode()
        assert check_request(make(Sec_WebSocket_Key=key)) == key

    @pytest.mark.parametrize(
        "key",
        [
            "",
            "AAAA",
            "dGhlIHNhbXBsZSBub25jZQ=",
            "dGhlIHNhbXBsZSBub25jZQ",
            "dGhlIHNhbXBsZSBub25jZQ===",
            "dGhlIHNhbXBsZSBub25jZR==",  # bits behind the last byte
            "dGhlIHNhbXBsZSBub25jZQAA",  # 18 bytes
            "dGhlIHNhbXBsZSBub25jZQA=",  # 17 bytes
            "SGVsbG8sIHdvcmxkIQ==",  # 13 bytes
            "dGhlIHNhbXBsZSBub25j====",
            "dGhlIHNhbXBsZSBub25jZ===",
            "dGhlIHNhbXBsZSBub25 ZQ==",
            "dGhlIHNhbXBsZSBub2_jZQ==",
            "dGhlIHNhbXBsZSBub2-jZQ==",
            "dGhlIHNhbXBsZSBub2!jZQ==",
            "=dGhlIHNhbXBsZSBub25jZQ=",
            "========================",
            "\xe9GhlIHNhbXBsZSBub25jZQ==",
            KEY + ", " + KEY,
        ],
    )
    def test_not_16_bytes_in_base64(self, key):
        with pytest.raises(InvalidHeader, match="not 16 bytes in base64") as caught:
            check_request(make(Sec_WebSocket_Key=key))
        assert caught.value.status == 400


class TestCheckRequest:
    """RFC 6455 section 4.2.1."""

    def test_a_good_request(self):
        assert check_request(make()) == KEY

    @pytest.mark.parametrize(
        "upgrade", ["WebSocket", "WEBSOCKET", "h2c, websocket", "HTTP/2.0,websocket,", ",websocket"]
    )
    @pytest.mark.parametrize(
        "connection",
        ["upgrade", "UPGRADE", "keep-alive, Upgrade", "Upgrade,close", ",upgrade , x", "a,b,c,Upgrade"],
    )
    def test_lists_and_case(self, upgrade, connection):
        assert check_request(make(Upgrade=upgrade, Connection=connection)) == KEY

    def test_several_lines(self):
        assert check_request(make(("upgrade", "websocket"), ("connection", "x"), Upgrade="h2c")) == KEY
        assert (
            check_request(make(("upgrade", "x"), ("connection", "Upgrade"), Connection="keep-alive")) == KEY
        )

    @pytest.mark.parametrize("method", ["POST", "HEAD", "PUT", "OPTIONS", "get", "CONNECT", ""])
    def test_method(self, method):
        with pytest.raises(InvalidMethod) as caught:
            check_request(make(method=method))
        assert caught.value.status == 405
        assert ("Allow", "GET") in caught.value.headers

    @pytest.mark.parametrize(
        "request_",
        [
            make(without=["Upgrade"]),
            make(without=["Connection"]),
            make(without=["Upgrade", "Connection"]),
            make(Upgrade=""),
            make(Upgrade="notwebsocket"),
            make(Upgrade="websocket2"),
            make(Upgrade="websocket/13"),
            make(Upgrade="h2c"),
            make(Upgrade="web socket".replace(" ", "-")),
            make(Connection=""),
            make(Connection="close"),
            make(Connection="notupgrade"),
            make(Connection="upgrade-insecure"),
            make(Connection="keep-alive"),
            # RFC 9110 section 7.6.1: the option names the field, the field alone is no upgrade.
            make(("Upgrade", "websocket"), Connection="websocket"),
        ],
    )
    def test_not_an_upgrade_to_websocket(self, request_):
        with pytest.raises(InvalidUpgrade) as caught:
            check_request(request_)
        assert caught.value.status == 426
        # RFC 9110 section 15.5.22, RFC 6455 section 4.4.
        assert dict(caught.value.headers) == {"Upgrade": "websocket", "Sec-WebSocket-Version": "13"}

    @pytest.mark.parametrize(
        "changed",
        [
            {"Upgrade": "websocket;q=1"},
            {"Upgrade": "web socket"},
            {"Upgrade": '"websocket"'},
            {"Upgrade": "x, websocket\xe9"},
            {"Connection": "Upgrade; x"},
            {"Connection": "keep alive, Upgrade"},
            {"Connection": "close, Upgrade\0"},
        ],
    )
    def test_malformed_lists(self, changed):
        with pytest.raises(InvalidHeader) as caught:
            check_request(make(**changed))
        assert caught.value.status == 400

    @pytest.mark.parametrize(
        "version", ["", "8", "0", "12", "14", "+13", "013", "13abc", "13 ", "13,8", "13, 13", "\xb93", "1_3"]
    )
    def test_version(self, version):
        with pytest.raises(InvalidVersion) as caught:
            check_request(make(Sec_WebSocket_Version=version))
        assert caught.value.status == 426
        assert ("Sec-WebSocket-Version", "13") in caught.value.headers

    def test_no_version(self):
        # The answer tells what is wanted, as with one that we do not speak.
        with pytest.raises(InvalidVersion, match="no Sec-WebSocket-Version") as caught:
            check_request(make(without=["Sec-WebSocket-Version"]))
        assert caught.value.status == 426

    @pytest.mark.parametrize("name", ["Host", "Sec-WebSocket-Key"])
    def test_missing(self, name):
        with pytest.raises(InvalidHeader, match=f"{name} is missing") as caught:
            check_request(make(without=[name]))
        assert (caught.value.status, caught.value.name, caught.value.value) == (400, name, None)

    @pytest.mark.parametrize("name", ["Host", "Sec-WebSocket-Key", "Sec-WebSocket-Version"])
    @pytest.mark.parametrize("same", [True, False])
    def test_repeated(self, name, same):
        # RFC 9110 section 5.3; RFC 6455 sections 11.3.1 and 11.3.5.
        with pytest.raises(InvalidHeader, match=f"{name} is there 2 times, not once") as caught:
            check_request(make((name.lower(), FIELDS[name] if same else "x")))
        assert caught.value.status == 400

    @pytest.mark.parametrize(
        ("field", "status"),
        [
            (("Content-Length", "5"), 400),
            (("Content-Length", "00"), 400),
            (("Content-Length", "+0"), 400),
            (("Content-Length", "0, 0"), 400),
            (("Content-Length", ""), 400),
            (("Content-Length", "-0"), 400),
            (("Transfer-Encoding", "chunked"), 400),
            (("Transfer-Encoding", "identity"), 400),
            (("Transfer-Encoding", ""), 400),
            (("Expect", "100-continue"), 417),
            (("Expect", "x"), 417),
            (("expect", ""), 417),
        ],
    )
    @pytest.mark.parametrize("without", [(), ["Upgrade"], ["Sec-WebSocket-Key"]])
    def test_body(self, field, status, without):
        with pytest.raises(InvalidHeader) as caught:
            check_request(make(field, without=without))
        assert caught.value.status == status

    def test_content_length_0_is_no_body(self):
        assert check_request(make(("Content-Length", "0"))) == KEY
        with pytest.raises(InvalidHeader, match="'0, 0'"):
            check_request(make(("Content-Length", "0"), ("Content-Length", "0")))


class TestSmuggling:
    """Bytes on the wire to verdict: no second request is ever seen, whatever frames the first."""

    HEAD = (
        b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
    )
    SECOND = b"GET /admin HTTP/1.1\r\nHost: a\r\n\r\n"

    @pytest.mark.parametrize(
        ("fields", "status"),
        [
            (b"", 101),
            (b"Content-Length: 0\r\n", 101),
            (b"Content-Length: 32\r\n", 400),
            (b"Content-Length: 0\r\nContent-Length: 0\r\n", 400),
            (b"Content-Length: 0\r\nContent-Length: 32\r\n", 400),
            (b"Content-Length: 00\r\n", 400),
            (b"Content-Length: 0x0\r\n", 400),
            (b"Content-Length: \r\n", 400),
            (b"Content-Length : 32\r\n", 400),
            (b"Content_Length: 32\r\n", 101),
            (b"Transfer-Encoding: chunked\r\n", 400),
            (b"Transfer-Encoding: xchunked\r\n", 400),
            (b"Transfer-Encoding:\tchunked\r\n", 400),
            (b"Transfer-Encoding: identity\r\n", 400),
            (b"Transfer-Encoding\x0b: chunked\r\n", 400),
            (b"Transfer-Encoding: chunked\r\nContent-Length: 0\r\n", 400),
            (b"X: y\r\n Transfer-Encoding: chunked\r\n", 400),
            (b"X: y\nTransfer-Encoding: chunked\r\n", 400),
            (b"X: y\rTransfer-Encoding: chunked\r\n", 400),
            (b"X: y\0\r\n", 400),
            (b"Expect: 100-continue\r\n", 417),
            (b"Host: b\r\n", 400),
            (b"Upgrade: h2c\r\n", 101),
            (b"Connection: close\r\n", 101),
            (b"Sec-WebSocket-Version: 8\r\n", 400),
        ],
    )
    @pytest.mark.parametrize("behind", [b"", SECOND, b"5\r\nhello\r\n0\r\n\r\n" + SECOND])
    def test_verdicts(self, fields, status, behind):
        parser = RequestParser(max_line=8192, max_headers=100, max_head=65536)
        stream = self.HEAD + fields + b"\r\n" + behind
        if status == 101:
            assert check_request(parser.receive_data(stream)) == KEY
            assert parser.leftover == behind
        else:
            with pytest.raises(InvalidHandshake) as caught:
                check_request(parser.receive_data(stream))
            assert caught.value.status == status
            assert b"\r\nConnection: close" in error_response(caught.value).serialize()

    @pytest.mark.parametrize(
        "name",
        [
            b"Host",
            b"Upgrade",
            b"Connection",
            b"Sec-WebSocket-Key",
            b"Sec-WebSocket-Version",
            b"Sec-WebSocket-Protocol",
            b"Sec-WebSocket-Extensions",
            b"Origin",
        ],
    )
    def test_every_byte_in_every_field(self, name):
        # 101 or a refusal, never an error of ours.
        for code in range(256):
            for value in (bytes([code]), b"a" + bytes([code]) + b"b"):
                for head in (self.HEAD + name + b": " + value + b"\r\n\r\n", self._replace(name, value)):
                    with contextlib.suppress(InvalidHandshake):
                        asked = parse(head)
                        if asked is not None:
                            key = check_request(asked)
                            check_origin(asked, "same-host")
                            subprotocol = select_subprotocol(asked, ["a"])
                            assert accept_response(key, subprotocol=subprotocol).startswith(b"HTTP/1.1 101 ")

    def _replace(self, name, value):
        lines = [line for line in self.HEAD.split(b"\r\n")[:-1] if not line.startswith(name + b":")]
        return b"\r\n".join([*lines, name + b": " + value, b"\r\n"])


class TestOrigin:
    """RFC 6455 section 10.2."""

    @pytest.mark.parametrize(
        ("host", "origin"),
        [
            ("example.com", "http://example.com"),
            # Behind a proxy that ends TLS: the scheme is not compared.
            ("example.com", "https://example.com"),
            ("example.com", "https://example.com:443"),
            ("example.com", "http://example.com:80"),
            ("example.com:443", "https://example.com"),
            ("example.com:80", "http://example.com"),
            ("example.com:8080", "http://example.com:8080"),
            ("example.com:8080", "https://example.com:8080"),
            ("example.com", "ws://example.com"),
            ("example.com", "wss://example.com"),
            ("EXAMPLE.com", "HTTP://Example.COM"),
            ("127.0.0.1:8888", "http://127.0.0.1:8888"),
            ("[::1]:8888", "http://[::1]:8888"),
            ("[0:0::1]", "http://[::1]"),
            ("xn--bcher-kva.example", "http://xn--bcher-kva.example"),
            ("example.com:", "http://example.com"),
        ],
    )
    def test_same_host(self, host, origin):
        check_origin(make(("Origin", origin), Host=host))

    @pytest.mark.parametrize(
        ("host", "origin"),
        [
            ("example.com", "http://evil.example"),
            ("example.com", "http://sub.example.com"),
            ("sub.example.com", "http://example.com"),
            ("example.com", "http://evil-example.com"),
            ("example.com", "http://example.com.evil"),
            ("example.com", "http://example.com."),
            ("example.com", "http://example.co"),
            ("example.com", "http://example.com:8080"),
            ("example.com:8080", "http://example.com"),
            ("example.com:8080", "http://example.com:8081"),
            ("example.com:443", "http://example.com"),
            ("example.com:80", "https://example.com"),
            ("example.com", "http://example.com:443"),
            ("example.com", "https://example.com:80"),
            ("[::1]", "http://[::2]"),
            ("[::1]:80", "http://[::1]:81"),
            ("::1", "http://[::1]"),
            ("", "http://"),
            ("example.com", "null"),
            ("null", "null"),
            ("example.com", ""),
            ("example.com", "example.com"),
            ("example.com", "//example.com"),
            ("example.com", "://example.com"),
            ("example.com", "http:example.com"),
            ("example.com", "http:/example.com"),
            ("example.com", "http://example.com/"),
            ("example.com", "http://example.com/path"),
            ("example.com", "http://example.com?x"),
            ("example.com", "http://example.com#x"),
            ("example.com", "http://example.com:"),
            ("example.com", "http://example.com:x"),
            ("example.com", "http://example.com:99999"),
            ("example.com", "http://example.com:\xb2"),
            ("example.com", "http://user@example.com"),
            ("example.com", "http://example.com@evil.example"),
            ("example.com", "http://good:pass@example.com"),
            ("example.com", "http://example.com http://evil.example"),
            ("example.com", "http://example.com, http://evil.example"),
            ("example.com", "http://example.com\\"),
            ("example.com", "ht tp://example.com"),
            ("example.com", "http://ex\xe4mple.com"),
            ("ex\xe4mple.com", "http://ex\xe4mple.com"),
            ("example.com", "http://[example.com]"),
            ("example.com", "http://[::1"),
            ("example.com", "file://"),
            ("example.com", "chrome-extension://example.com"),
            ("a,b", "http://a"),
            ("a,b", "http://a,b"),
        ],
    )
    def test_other_hosts(self, host, origin):
        with pytest.raises(InvalidOrigin) as caught:
            check_origin(make(("Origin", origin), Host=host))
        assert (caught.value.status, caught.value.name, caught.value.value) == (403, "Origin", origin)

    def test_the_message_names_both_values_and_both_ways_out(self):
        with pytest.raises(InvalidOrigin) as caught:
            check_origin(make(("Origin", "http://evil\x1b.example")))
        message = str(caught.value)
        assert r"'http://evil\x1b.example'" in message
        assert "'example.com'" in message
        assert "origins=[...]" in message
        assert "origins=None" in message

    @pytest.mark.parametrize("origins", ["same-host", [], ["http://x"], lambda request, origin: False, None])
    def test_no_origin_is_allowed(self, origins):
        check_origin(make(), origins)

    @pytest.mark.parametrize(
        "origins", ["same-host", ["http://example.com"], lambda request, origin: True, None]
    )
    def test_repeated(self, origins):
        with pytest.raises(InvalidOrigin, match="Origin is there 2 times"):
            check_origin(make(("Origin", "http://example.com"), ("origin", "http://example.com")), origins)

    def test_any(self):
        for origin in ("http://evil.example", "null", "", "x"):
            check_origin(make(("Origin", origin)), None)

    def test_listed_origins_are_compared_whole(self):
        origins = ("https://example.com", "http://[::1]:81", "null", "chrome-extension://abc")
        for origin in (*origins, "HTTPS://Example.com"):
            check_origin(make(("Origin", origin), Host="other"), origins)
        for origin in (
            "http://example.com",
            "https://example.com:443",
            "https://example.com/",
            "https://sub.example.com",
            "https://example.comx",
            "xhttps://example.com",
            "http://other",
            "https://example",
            "",
        ):
            with pytest.raises(InvalidOrigin):
                check_origin(make(("Origin", origin), Host="other"), origins)
        with pytest.raises(InvalidOrigin):
            check_origin(make(("Origin", "null"), Host="other"), ["https://example.com"])

    def test_callable(self):
        calls = []

        def decide(request, origin):
            calls.append((request, origin))
            return 1 if origin in ("https://a.example:1", "null") else None

        asked = make(("Origin", "https://a.example:1"))
        check_origin(asked, decide)
        check_origin(make(("Origin", "null")), decide)
        assert calls[0] == (asked, "https://a.example:1")
        with pytest.raises(InvalidOrigin):
            check_origin(make(("Origin", "https://b.example")), decide)
        assert len(calls) == 3
        # What is no origin at all is not for the application to take apart.
        for malformed in ("", "x", "http://a@b", "http://a/", "http://a, http://b"):
            with pytest.raises(InvalidOrigin):
                check_origin(make(("Origin", malformed)), decide)
        assert len(calls) == 3

    def test_an_absolute_target_counts_instead_of_host(self):
        # RFC 9112 section 3.2.2.
        asked = make(("Origin", "http://example.com"), target="http://other.example/chat")
        with pytest.raises(InvalidOrigin, match=r"'other\.example'"):
            check_origin(asked)
        check_origin(make(("Origin", "http://other.example"), target="http://other.example/chat"))

    @given(st.text(alphabet="htps:/[]@.ae1\xe9, ", max_size=20))
    def test_any_text_is_allowed_or_refused(self, origin):
        with contextlib.suppress(InvalidOrigin):
            check_origin(make(("Origin", origin)))
            raise AssertionError(f"{origin!r} is not that of example.com")


class TestSubprotocol:
    """RFC 6455 sections 4.2.2 and 11.3.4."""

    NAME = "Sec-WebSocket-Protocol"

    @pytest.mark.parametrize(
        ("values", "ours", "expected"),
        [
            ([], ("chat",), None),
            (["chat"], (), None),
            (["chat"], ("chat",), "chat"),
            (["chat, superchat"], ("superchat", "chat"), "superchat"),
            (["superchat", "chat"], ("chat", "superchat"), "chat"),
            (["chat, superchat"], dict.fromkeys(["x", "superchat"]).keys(), "superchat"),
            (["chat2, superchat"], ("chat",), None),
            (["Chat"], ("chat",), None),
            (["constructor,__proto__"], ["__proto__"], "__proto__"),
        ],
    )
    def test_choice(self, values, ours, expected):
        assert select_subprotocol(make(*[(self.NAME, value) for value in values]), ours) == expected

    @pytest.mark.parametrize(
        ("values", "message"),
        [
            ([""], "is empty"),
            ([",", " "], "is empty"),
            (["chat, chat"], "twice"),
            (["chat", "chat"], "twice"),
            (["a b"], "not a token"),
            (["a;b"], "not a token"),
            (["a/b"], "not a token"),
            (["chat\xe9"], "not a token"),
            (["a" + " " * 4000 + "b"], "not a token"),
        ],
    )
    @pytest.mark.parametrize("ours", [(), ("chat",), lambda request, offered: None])
    def test_bad_offers(self, values, message, ours):
        with pytest.raises(InvalidHeader, match=message) as caught:
            select_subprotocol(make(*[(self.NAME, value) for value in values]), ours)
        assert (caught.value.status, caught.value.name) == (400, self.NAME)

    def test_callable(self):
        asked = make((self.NAME, "a, b"))
        calls = []

        def choose(request, offered):
            calls.append((request, list(offered)))
            return offered[-1]

        assert select_subprotocol(asked, choose) == "b"
        assert calls == [(asked, ["a", "b"])]
        assert select_subprotocol(asked, lambda request, offered: None) is None
        assert select_subprotocol(make(), choose) is None
        assert len(calls) == 1

    @pytest.mark.parametrize("chosen", ["c", "A", "", "a, b", 1, b"a"])
    def test_callable_that_chooses_what_was_not_offered(self, chosen):
        with pytest.raises(ValueError, match=r"which is none of the 2 offered$"):
            select_subprotocol(make((self.NAME, "a, b")), lambda request, offered: chosen)


class TestAcceptResponse:
    """RFC 6455 section 4.2.2."""

    def test_the_example_of_the_rfc(self):
        assert accept_response(KEY, subprotocol="chat") == (
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nSec-WebSocket-Protocol: chat\r\n\r\n"
        )

    def test_nothing_agreed_is_no_field(self):
        plain = accept_response(KEY)
        assert plain == accept_response(KEY, subprotocol=None, extensions=None, headers=[])
        assert plain == accept_response(KEY, extensions="")
        assert b"Protocol:" not in plain
        assert b"Extensions" not in plain

    @pytest.mark.parametrize("kind", [list, dict, Headers, iter])
    def test_everything(self, kind):
        fields = [("Set-Cookie", "a=b; Path=/"), ("Server", "caf\xe9")]
        head = accept_response(KEY, extensions="permessage-deflate; a=1", headers=kind(fields))
        assert head.endswith(
            b"Sec-WebSocket-Extensions: permessage-deflate; a=1\r\n"
            b"Set-Cookie: a=b; Path=/\r\nServer: caf\xe9\r\n\r\n"
        )
        response = parse_response(head)
        assert (response.status, response.headers.get_all("set-cookie")) == (101, ["a=b; Path=/"])

    @pytest.mark.parametrize(
        "name",
        [
            "Content-Length",
            "Transfer-Encoding",
            "upgrade",
            "CONNECTION",
            "Sec-WebSocket-Accept",
            "sec-websocket-x",
            "Expect",
        ],
    )
    def test_fields_of_the_handshake(self, name):
        with pytest.raises(ValueError, match="belongs to the handshake"):
            accept_response(KEY, headers=[(name, "0")])

    @pytest.mark.parametrize("bad", ["a\r\nb: c", "a\nb", "a\0", "a\x7f", "\u20ac", "a\rb"])
    def test_injection(self, bad):
        for arguments in (
            {"subprotocol": bad},
            {"extensions": bad},
            {"headers": [("a", bad)]},
            {"headers": [(bad, "a")]},
        ):
            with pytest.raises(ValueError, match=r"."):
                accept_response(KEY, **arguments)

    @pytest.mark.parametrize(
        "arguments",
        [
            {"subprotocol": b"a"},
            {"subprotocol": 1},
            {"extensions": b"a"},
            {"headers": [("a", 1)]},
            {"headers": {b"a": "b"}},
        ],
    )
    def test_types(self, arguments):
        with pytest.raises(TypeError, match="is a str"):
            accept_response(KEY, **arguments)

    @pytest.mark.parametrize("subprotocol", ["", "a b", "a,b"])
    def test_subprotocol_is_a_token(self, subprotocol):
        with pytest.raises(ValueError, match="not a token"):
            accept_response(KEY, subprotocol=subprotocol)


class TestErrorResponse:
    TEXT = b"Content-Type: text/plain; charset=utf-8\r\n"

    def test_400(self):
        error = InvalidHeader("Sec-WebSocket-Key is 'secret'", "Sec-WebSocket-Key", "secret")
        assert error_response(error).serialize() == (
            b"HTTP/1.1 400 Bad Request\r\n" + self.TEXT + b"Content-Length: 16\r\n"
            b"Connection: close\r\n\r\n400 Bad Request\n"
        )

    def test_405(self):
        # RFC 9110 section 15.5.6: Allow.
        assert error_response(InvalidMethod("x")).serialize() == (
            b"HTTP/1.1 405 Method Not Allowed\r\nAllow: GET\r\n" + self.TEXT + b"Content-Length: 23\r\n"
            b"Connection: close\r\n\r\n405 Method Not Allowed\n"
        )

    @pytest.mark.parametrize("error", [InvalidUpgrade("x"), InvalidVersion("x")])
    def test_426(self, error):
        # RFC 9110 section 15.5.22 and 7.8; RFC 6455 section 4.4.
        assert error_response(error).serialize() == (
            b"HTTP/1.1 426 Upgrade Required\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
            + self.TEXT
            + b"Content-Length: 98\r\nConnection: close, Upgrade\r\n\r\n426 Upgrade Required\n"
            b"This is a WebSocket (RFC 6455, version 13): open it with a WebSocket client.\n"
        )

    def test_nothing_of_the_request_is_in_it(self):
        with pytest.raises(InvalidHandshake) as caught:
            check_request(make(Sec_WebSocket_Key="<script>"))
        assert b"script" not in error_response(caught.value).serialize()


class TestClientRequest:
    """RFC 6455 section 4.1."""

    def test_least(self):
        handshake = ClientHandshake(parse_uri("ws://example.com/chat?a=b"), key=KEY)
        assert handshake.request() == (
            b"GET /chat?a=b HTTP/1.1\r\nHost: example.com\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        assert handshake.request() == handshake.request()

    def test_most(self):
        handshake = ClientHandshake(
            parse_uri("wss://us%C3%A9r:p%3Aw@[::1]:8443/"),
            key=KEY,
            headers=[("User-Agent", "x"), ("Cookie", "a=b")],
            subprotocols=["chat", "superchat"],
            extensions_offer="permessage-deflate; client_max_window_bits",
            origin="https://example.com",
        )
        assert handshake.request() == (
            b"GET / HTTP/1.1\r\nHost: [::1]:8443\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
            b"Origin: https://example.com\r\nSec-WebSocket-Protocol: chat, superchat\r\n"
            b"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n"
            b"Authorization: Basic " + base64.b64encode("us\xe9r:p:w".encode()) + b"\r\n"
            b"User-Agent: x\r\nCookie: a=b\r\n\r\n"
        )

    def test_keys_are_fresh(self):
        uri = parse_uri("ws://h")
        keys = {ClientHandshake(uri).key for _ in range(50)}
        assert len(keys) == 50
        assert all(len(base64.b64decode(key, validate=True)) == 16 for key in keys)

    @pytest.mark.parametrize(
        "uri",
        [
            "ws://h",
            "wss://h:444/a?b",
            "ws://u:p@h/\xe9",
            "ws+unix:/s:/x",
            "ws://[::1]:1",
            "ws://b\xfccher.example",
        ],
    )
    def test_our_server_takes_it(self, uri):
        handshake = ClientHandshake(
            parse_uri(uri), subprotocols=["a"], origin="http://h", extensions_offer="x"
        )
        asked = parse(handshake.request())
        assert check_request(asked) == handshake.key
        assert asked.target == parse_uri(uri).resource_name
        response = parse_response(
            accept_response(handshake.key, subprotocol=select_subprotocol(asked, ["a"]))
        )
        assert handshake.check_response(response) == ("a", [])

    def test_replaced_fields(self):
        handshake = ClientHandshake(
            parse_uri("ws://u:p@h"),
            headers={"host": "other:81", "AUTHORIZATION": "Bearer x", "Origin": "http://o"},
        )
        asked = parse(handshake.request())
        assert asked.headers.get_all("host") == ["other:81"]
        assert asked.headers.get_all("authorization") == ["Bearer x"]
        assert asked.headers.get_all("origin") == ["http://o"]

    @pytest.mark.parametrize(
        "arguments",
        [
            {"headers": [("a", "b\r\nc: d")]},
            {"headers": [("a b", "c")]},
            {"headers": [("Upgrade", "h2c")]},
            {"headers": [("Connection", "close")]},
            {"headers": [("Content-Length", "1")]},
            {"headers": [("Expect", "100-continue")]},
            {"headers": [("Sec-WebSocket-Key", KEY)]},
            {"headers": [("Host", "a b")]},
            {"headers": [("Host", "a"), ("host", "a")]},
            {"headers": [("Origin", "a")], "origin": "b"},
            {"subprotocols": ["a b"]},
            {"subprotocols": [""]},
            {"subprotocols": ["a", "a"]},
            {"subprotocols": ["a\r\nb: c"]},
            {"origin": "http://h\r\na: b"},
            {"origin": "\u20ac"},
            {"key": "x"},
            {"key": ""},
        ],
    )
    def test_values(self, arguments):
        with pytest.raises(ValueError, match=r"."):
            ClientHandshake(parse_uri("ws://h"), **arguments)

    def test_a_malformed_offer(self):
        for offer in ("a b", "a\r\nb: c", "a;"):
            with pytest.raises(InvalidHeader):
                ClientHandshake(parse_uri("ws://h"), extensions_offer=offer)

    @pytest.mark.parametrize(
        "arguments",
        [{"subprotocols": "chat"}, {"subprotocols": [b"chat"]}, {"headers": [("a", 1)]}, {"origin": b"x"}],
    )
    def test_types(self, arguments):
        with pytest.raises(TypeError, match=r"."):
            ClientHandshake(parse_uri("ws://h"), **arguments)


class TestClientCheck:
    """RFC 6455 section 4.1: what the client must validate."""

    GOOD = (("Upgrade", "websocket"), ("Connection", "Upgrade"), ("Sec-WebSocket-Accept", ACCEPT))

    def check(self, *fields, status=101, good=GOOD, **arguments):
        handshake = ClientHandshake(parse_uri("ws://h"), key=KEY, **arguments)
        lines = "".join(f"{name}: {value}\r\n" for name, value in (*good, *fields))
        return handshake.check_response(
            parse_response(f"HTTP/1.1 {status} X\r\n{lines}\r\n".encode("latin-1"))
        )

    def test_good(self):
        assert self.check() == (None, [])
        good = (
            ("upgrade", "WebSocket"),
            ("CONNECTION", "keep-alive, UPGRADE"),
            ("sec-websocket-accept", ACCEPT),
        )
        assert self.check(good=good) == (None, [])
        assert self.check(("Content-Length", "0")) == (None, [])

    @pytest.mark.parametrize("status", [200, 302, 401, 403, 426, 503])
    def test_status(self, status):
        with pytest.raises(InvalidStatus, match=f"server answered {status} 'X', not 101") as caught:
            self.check(("Content-Length", "0"), status=status)
        assert isinstance(caught.value.response, Response)
        assert caught.value.response.status == status

    @pytest.mark.parametrize(
        "value", [None, "", "h2c", "websocket, h2c", "websocket, websocket", "websockets", "websocket/13"]
    )
    def test_upgrade(self, value):
        good = [field for field in self.GOOD if field[0] != "Upgrade"]
        with pytest.raises(InvalidUpgrade, match="Upgrade"):
            self.check(*([] if value is None else [("Upgrade", value)]), good=good)

    @pytest.mark.parametrize("value", [None, "", "close", "notupgrade"])
    def test_connection(self, value):
        good = [field for field in self.GOOD if field[0] != "Connection"]
        with pytest.raises(InvalidUpgrade, match="Connection"):
            self.check(*([] if value is None else [("Connection", value)]), good=good)

    @pytest.mark.parametrize(
        "values",
        [
            [],
            [""],
            ["x"],
            [ACCEPT.lower()],
            [ACCEPT[:-1]],
            [ACCEPT + "="],
            [KEY],
            [ACCEPT, ACCEPT],
            ["", ACCEPT],
        ],
    )
    def test_accept(self, values):
        good = [field for field in self.GOOD if field[0] != "Sec-WebSocket-Accept"]
        with pytest.raises(InvalidHeader, match="Sec-WebSocket-Accept"):
            self.check(*[("Sec-WebSocket-Accept", value) for value in values], good=good)

    def test_subprotocol(self):
        name = "Sec-WebSocket-Protocol"
        assert self.check((name, "b"), subprotocols=["a", "b"]) == ("b", [])
        assert self.check(subprotocols=["a", "b"]) == (None, [])
        for value in ("c", "A", "", "a, b"):
            with pytest.raises(NegotiationError, match="not offered"):
                self.check((name, value), subprotocols=["a", "b"])
        with pytest.raises(NegotiationError, match="not offered"):
            self.check((name, "a"))
        with pytest.raises(InvalidHeader, match="2 times"):
            self.check((name, "a"), (name, "a"), subprotocols=["a"])

    def test_extensions(self):
        name = "Sec-WebSocket-Extensions"
        agreed = self.check((name, 'x; a="1"; b'), extensions_offer="x; c, y")
        assert agreed == (None, [("x", [("a", "1"), ("b", None)])])
        assert self.check((name, "x, y"), extensions_offer="x, y") == (None, [("x", []), ("y", [])])
        assert self.check(extensions_offer="x") == (None, [])
        with pytest.raises(NegotiationError, match="extension 'z', which was not offered"):
            self.check((name, "x, z"), extensions_offer="x, y")
        with pytest.raises(NegotiationError, match="not offered"):
            self.check((name, "permessage-deflate"))
        with pytest.raises(InvalidHeader, match="2 times"):
            self.check((name, "x"), (name, "y"), extensions_offer="x, y")
        with pytest.raises(InvalidHeader, match="expected"):
            self.check((name, "x;"), extensions_offer="x")


class TestWords:
    """What errors say, word by word, and what they carry: people read it in logs."""

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"subprotocols": "chat"}, "subprotocols takes a list of strings, not the string 'chat'"),
            ({"subprotocols": ["a", "a"]}, "subprotocols names one twice: ('a', 'a')"),
            ({"key": "AAAA"}, "key takes 16 bytes in base64, not 'AAAA'"),
            ({"headers": [("Host", "a"), ("host", "b")]}, "headers has Host 2 times"),
            (
                {"origin": "a", "headers": [("Origin", "b")]},
                "Origin is in headers and in origin: name it once",
            ),
        ],
    )
    def test_of_a_client(self, arguments, message):
        with pytest.raises((TypeError, ValueError)) as caught:
            ClientHandshake(parse_uri("ws://h"), **arguments)
        assert str(caught.value) == message

    @pytest.mark.parametrize(
        ("upgrade", "connection", "message"),
        [
            ([], ["Upgrade"], "no Upgrade"),
            (["h2c", "a"], ["Upgrade"], "Upgrade is 'h2c, a', not websocket"),
            (["websocket"], [], "no Connection"),
            (["websocket"], ["close", "a"], "Connection is 'close, a', without Upgrade"),
        ],
    )
    def test_of_an_answer_and_of_a_request(self, upgrade, connection, message):
        fields = [("Upgrade", value) for value in upgrade] + [("Connection", value) for value in connection]
        head = "".join(f"{name}: {value}\r\n" for name, value in [*fields, ("Sec-WebSocket-Accept", ACCEPT)])
        with pytest.raises(InvalidUpgrade) as caught:
            ClientHandshake(parse_uri("ws://h"), key=KEY).check_response(
                parse_response(f"HTTP/1.1 101 X\r\n{head}\r\n".encode("ascii"))
            )
        assert str(caught.value) == message
        with pytest.raises(InvalidUpgrade) as caught:
            check_request(make(*fields, without=("Upgrade", "Connection")))
        assert str(caught.value) == message

    def test_of_a_wrong_accept(self):
        head = f"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {KEY}\r\n"
        with pytest.raises(InvalidHeader) as caught:
            ClientHandshake(parse_uri("ws://h"), key=KEY).check_response(
                parse_response(f"HTTP/1.1 101 X\r\n{head}\r\n".encode("ascii"))
            )
        error = caught.value
        assert str(error) == f"Sec-WebSocket-Accept is {KEY!r}, not the answer to this request's key"
        assert (error.name, error.value) == ("Sec-WebSocket-Accept", KEY)

    @pytest.mark.parametrize(
        ("fields", "message", "name", "value"),
        [
            (
                [("Sec-WebSocket-Version", "13"), ("Sec-WebSocket-Version", "8")],
                "Sec-WebSocket-Version is there 2 times, not once",
                "Sec-WebSocket-Version",
                "13, 8",
            ),
            ([("Sec-WebSocket-Version", "8")], "Sec-WebSocket-Version is '8', not 13", None, None),
            ([], "no Sec-WebSocket-Version", None, None),
        ],
    )
    def test_of_versions(self, fields, message, name, value):
        with pytest.raises((InvalidHeader, InvalidVersion)) as caught:
            check_request(make(*fields, without=("Sec-WebSocket-Version",)))
        assert str(caught.value) == message
        if name is not None:
            assert (caught.value.name, caught.value.value) == (name, value)

    @pytest.mark.parametrize(
        ("fields", "without", "message", "name", "value"),
        [
            (
                [("Transfer-Encoding", "gzip"), ("transfer-encoding", "chunked")],
                (),
                "upgrade with a body: Transfer-Encoding is 'gzip, chunked'",
                "Transfer-Encoding",
                "gzip, chunked",
            ),
            (
                [("Content-Length", "5"), ("content-length", "6")],
                (),
                "upgrade with a body: Content-Length is '5, 6'",
                "Content-Length",
                "5, 6",
            ),
            (
                [("expect", "100-continue")],
                (),
                "upgrade with Expect: '100-continue'",
                "Expect",
                "100-continue",
            ),
            ([("Host", "b")], (), "Host is there 2 times, not once", "Host", "example.com, b"),
            ([], ("Sec-WebSocket-Key",), "Sec-WebSocket-Key is missing", "Sec-WebSocket-Key", None),
            (
                [("Sec-WebSocket-Key", "AAAA")],
                ("Sec-WebSocket-Key",),
                "Sec-WebSocket-Key is 'AAAA', which is not 16 bytes in base64",
                "Sec-WebSocket-Key",
                "AAAA",
            ),
        ],
    )
    def test_of_fields(self, fields, without, message, name, value):
        with pytest.raises(InvalidHeader) as caught:
            check_request(make(*fields, without=without))
        assert (str(caught.value), caught.value.name, caught.value.value) == (message, name, value)

    def test_of_a_method(self):
        with pytest.raises(InvalidMethod) as caught:
            check_request(make(method="POST"))
        assert str(caught.value) == "method is 'POST', not GET"

    def test_of_a_connection_that_is_no_list(self):
        with pytest.raises(InvalidHeader, match="Connection") as caught:
            check_request(make(Connection="close;, Upgrade"))
        assert caught.value.name == "Connection"

    @pytest.mark.parametrize(
        ("name", "arguments"),
        [
            ("Origin", {"origin": "a\r\nb: c"}),
            ("Sec-WebSocket-Extensions", {"extensions_offer": "a; b "}),
        ],
    )
    def test_of_what_a_client_cannot_send(self, name, arguments):
        with pytest.raises(ValueError, match=f"^header field {name} takes"):
            ClientHandshake(parse_uri("ws://h"), **arguments)

    def test_of_origins(self):
        with pytest.raises(InvalidOrigin) as caught:
            check_origin(make(("Origin", "http://a"), ("Origin", "http://b")))
        assert str(caught.value) == "Origin is there 2 times, not once"
        assert (caught.value.name, caught.value.value) == ("Origin", "http://a, http://b")
        with pytest.raises(InvalidOrigin) as caught:
            check_origin(make(("Origin", "http://evil")))
        assert str(caught.value) == (
            "origin 'http://evil' is not allowed for host 'example.com': "
            "list it in origins=[...], or allow any with origins=None"
        )
        assert (caught.value.name, caught.value.value) == ("Origin", "http://evil")
        with pytest.raises(InvalidOrigin, match="origin 'http://\\*\\*\\*@evil' is not allowed"):
            check_origin(make(("Origin", "http://user:SECRET@evil")))

    def test_of_a_subprotocol_that_is_named_twice(self):
        name = "Sec-WebSocket-Protocol"
        with pytest.raises(InvalidHeader) as caught:
            select_subprotocol(make((name, "a, b"), (name, "a")), ["a"])
        assert str(caught.value) == f"{name} names a subprotocol twice"
        assert (caught.value.name, caught.value.value) == (name, "a, b, a")

    def test_of_extensions_that_cannot_be_sent(self):
        with pytest.raises(ValueError, match=r"^header field Sec-WebSocket-Extensions takes no control"):
            accept_response(KEY, extensions="a\r\nb: c")


@pytest.mark.parametrize("origin", ["ht tp://example.com:80", "://example.com:80", "htt(p)://example.com:80"])
def test_the_scheme_of_an_origin_is_one(origin):
    # RFC 6454 section 6.2; with a port named, nothing else of it is needed for the comparison.
    with pytest.raises(InvalidOrigin):
        check_origin(make(("Origin", origin), Host="example.com:80"))


@pytest.mark.parametrize("field", [("Upgrade", "web socket"), ("Connection", "keep alive")])
def test_all_values_of_a_list_are_read(field):
    # RFC 9110 section 5.3: several lines are one list; one that is malformed makes all of it so.
    with pytest.raises(InvalidHeader):
        check_request(make(field))
