"""WebSocket URIs: RFC 6455 section 3, and the host and port of RFC 3986 section 3.2."""

from __future__ import annotations

import dataclasses
import ipaddress
import os
import pickle
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geventws.exceptions import InvalidURI
from geventws.protocol.uri import URI, parse_uri, show_uri, split_host, unix_uri


class TestSplitHost:
    @pytest.mark.parametrize(
        ("authority", "expected"),
        [
            ("example.com", ("example.com", None)),
            ("Example.COM:8080", ("example.com", 8080)),
            ("example.com:", ("example.com", None)),
            ("example.com:0", ("example.com", 0)),
            ("example.com:65535", ("example.com", 65535)),
            ("example.com:00080", ("example.com", 80)),
            ("example.com.", ("example.com.", None)),
            ("my_service", ("my_service", None)),
            ("127.0.0.1:80", ("127.0.0.1", 80)),
            ("[::1]", ("::1", None)),
            ("[::1]:", ("::1", None)),
            ("[2001:DB8:0::1]:443", ("2001:db8::1", 443)),
            ("[::ffff:1.2.3.4]", (str(ipaddress.IPv6Address("::ffff:1.2.3.4")), None)),
        ],
    )
    def test_hosts(self, authority, expected):
        assert split_host(authority) == expected

    @pytest.mark.parametrize(
        "authority",
        [
            "",
            ":80",
            "a b",
            "a/b",
            "a?b",
            "a#b",
            "a@b",
            "a,b",
            "a%41",
            "a\\b",
            '"a"',
            "a\0",
            "\xe9",
            "a\n",
            " a",
            "a:b",
            "a:80:80",
            "::1",
            "a:-1",
            "a:+80",
            "a:8_0",
            "a: 80",
            "a:80 ",
            "a:65536",
            "a:100000",
            "a:\xb2",
            "a:\u0661",
            "[",
            "[]",
            "[::1",
            "[::1]80",
            "[::1]a",
            "[::1]:x",
            "[::g]",
            "[1.2.3.4]",
            "[fe80::1%eth0]",
            "[v1.x]",
            "a]",
            "[::1]]",
        ],
    )
    def test_not_hosts(self, authority):
        with pytest.raises(ValueError, match=r"."):
            split_host(authority)

    @given(st.text(max_size=12))
    def test_any_text_is_a_host_or_a_value_error(self, authority):
        try:
            host, port = split_host(authority)
        except ValueError:
            return
        assert host.isascii()
        assert port is None or 0 <= port <= 65535


class TestURI:
    """RFC 6455 section 3."""

    @pytest.mark.parametrize(
        ("uri", "expected"),
        [
            ("ws://localhost", URI(False, "localhost", 80)),
            ("wss://localhost", URI(True, "localhost", 443)),
            ("WS://LocalHost/Chat", URI(False, "localhost", 80, "/Chat")),
            ("ws://localhost:8888/", URI(False, "localhost", 8888)),
            ("ws://localhost:/", URI(False, "localhost", 80)),
            ("wss://localhost:80", URI(True, "localhost", 80)),
            ("ws://h/chat?room=1&x", URI(False, "h", 80, "/chat", "room=1&x")),
            ("ws://h?room=1", URI(False, "h", 80, "/", "room=1")),
            ("ws://h/?", URI(False, "h", 80, "/", "")),
            ("ws://h/a?b?c/d", URI(False, "h", 80, "/a", "b?c/d")),
            ("ws://h/a%2Fb%20c", URI(False, "h", 80, "/a%2Fb%20c")),
            ("ws://h//a//b:c@d", URI(False, "h", 80, "//a//b:c@d")),
            ("ws://h/caf\xe9?\u20ac", URI(False, "h", 80, "/caf%C3%A9", "%E2%82%AC")),
            ("ws://h/a'(b)*[c]|{d}", URI(False, "h", 80, "/a'(b)*[c]|{d}")),
            ("ws://[::1]:8888/x", URI(False, "::1", 8888, "/x")),
            ("wss://[2001:DB8::1]", URI(True, "2001:db8::1", 443)),
            ("ws://B\xfccher.example:81", URI(False, "xn--bcher-kva.example", 81)),
            ("ws://\u4f8b\u3002\u4f8b\uff61example", URI(False, "xn--fsq.xn--fsq.example", 80)),
            ("ws://xn--bcher-kva.example", URI(False, "xn--bcher-kva.example", 80)),
            ("ws://u:p@h", URI(False, "h", 80, userinfo=("u", "p"))),
            ("ws://u@h", URI(False, "h", 80, userinfo=("u", ""))),
            ("ws://u:p:q@h", URI(False, "h", 80, userinfo=("u", "p:q"))),
            ("ws://%40:%3a%C3%A9@h", URI(False, "h", 80, userinfo=("@", ":\xe9"))),
            ("ws+unix:/tmp/s", URI(False, "localhost", 80, unix_path="/tmp/s")),
            ("ws+unix:///tmp/s", URI(False, "localhost", 80, unix_path="/tmp/s")),
            ("WS+UNIX:/tmp/s:/a/b:c?q", URI(False, "localhost", 80, "/a/b:c", "q", unix_path="/tmp/s")),
            ("ws+unix:/tmp/s?q=:", URI(False, "localhost", 80, "/", "q=:", unix_path="/tmp/s")),
            ("ws+unix:/tmp/a%20b%3A", URI(False, "localhost", 80, unix_path="/tmp/a b:")),
        ],
    )
    def test_uris(self, uri, expected):
        assert parse_uri(uri) == expected

    @pytest.mark.parametrize(
        ("uri", "message"),
        [
            ("ws://h/#", "fragment"),
            ("ws://h/a#b", "fragment"),
            ("ws+unix:/s:/a#b", "fragment"),
            ("http://h/", "does not begin with"),
            ("https://h/", "does not begin with"),
            ("h/", "does not begin with"),
            ("", "does not begin with"),
            ("ws", "does not begin with"),
            ("ws:h", "does not begin with"),
            ("ws:/h", "does not begin with"),
            ("//h", "does not begin with"),
            ("wss+unix:/s", "does not begin with"),
            ("ws://", "no valid host"),
            ("ws:///path", "no valid host"),
            ("ws://:80", "no valid host"),
            ("ws://?", "no valid host"),
            ("ws://h:x", "not a port number"),
            ("ws://h:65536", "not a port number"),
            ("ws://h:-1", "not a port number"),
            ("ws://h:1_0", "not a port number"),
            ("ws://h:\u0661", "."),
            ("ws://h:0", "port 0"),
            ("ws://::1", "."),
            ("ws://[::1", "no valid host"),
            ("ws://[::1]x", "no valid host"),
            ("ws://[fe80::1%25eth0]", "no valid host"),
            ("ws://a%41", "no valid host"),
            ("ws://a\\b", "a backslash in front of its path"),
            ("ws://a,b", "no valid host"),
            ("ws://u@v@h", "no valid host"),
            ("ws://" + "\xfc" * 64, "."),
            ("ws://" + "\xfc." * 200, "longer than 253"),
            ("ws://\xfc..example", "."),
            ("ws://[\xad::1]:443", "IDNA makes no host name"),
            ("ws://\uff3b::1]/", "IDNA makes no host name"),
            ("ws://[::\uff11]/", "IDNA makes no host name"),
            ("ws://h\uff1a80/", "IDNA makes no host name"),
            ("ws://h\uff1a80:443/", "IDNA makes no host name"),
            ("ws://h\uff0c/", "IDNA makes no host name"),
            ("ws://h\uff0541/", "IDNA makes no host name"),
            ("ws://h\uff0fa", "IDNA makes no host name"),
            ("ws://h:\uff18\uff10/", "is not a port number"),
            ("ws://h\u2026x/", "IDNA makes no host name"),
            ("ws://h\u2488x/", "IDNA makes no host name"),
            ("ws://h\\@x/", "a backslash in front of its path"),
            ("ws://h\\", "a backslash in front of its path"),
            ("ws://u%3Av:p@h", "Basic authentication"),
            ("ws://u:%0a@h", "Basic authentication"),
            ("ws://u%7f@h", "Basic authentication"),
            ("ws+unix:", "ws\\+unix"),
            ("ws+unix:s", "ws\\+unix"),
            ("ws+unix://s", "ws\\+unix"),
            ("ws+unix:////s", "ws\\+unix"),
            ("ws+unix:/s:", "ws\\+unix"),
            ("ws+unix:/s:x", "ws\\+unix"),
            ("ws+unix:/s%00", "NUL"),
        ],
    )
    def test_invalid(self, uri, message):
        with pytest.raises(InvalidURI, match=message) as caught:
            parse_uri(uri)
        assert caught.value.uri == uri

    @pytest.mark.parametrize(
        "uri",
        [
            "http://user:secret@h/",
            "user:secret@h",
            "ws://user:secret@h/path#fragment",
            "ws://user:secret@",
            "ws://user:sec@ret@h",
            "ws://user:sec/ret@h:x",
            "ws://user:secret@h:0",
            "ws://user:secret\n@h",
            "ws://user:secret@h/ ",
            "ws://us%3aer:secret@h",
            "ws://user:secret@h\xa0?x=y",
            "ws://h?token=secret#",
            "ws://h /?token=secret",
            "http://h/?token=secret",
            "ws+unix:s?token=secret",
            "ws+unix:/s%00?token=secret",
        ],
    )
    def test_messages_do_not_repeat_what_is_secret(self, uri):
        with pytest.raises(InvalidURI) as caught:
            parse_uri(uri)
        for text in (str(caught.value), repr(caught.value), repr(caught.value.args)):
            for part in ("secret", "sec", "ret"):
                assert not re.search(rf"\b{part}\b", text), text
        # Whoever has called knows it.
        assert caught.value.uri == uri
        assert pickle.loads(pickle.dumps(caught.value)).uri == uri

    @pytest.mark.parametrize("code", [*range(0x21), *range(0x7F, 0xA1)])
    def test_spaces_and_control_characters(self, code):
        for template in ("ws://h/{}", "ws://h{}", "{}ws://h", "ws://h/{}?q", "ws+unix:/s{}"):
            with pytest.raises(InvalidURI, match="space or control character"):
                parse_uri(template.format(chr(code)))

    @pytest.mark.parametrize("uri", ["ws://h/\ud800", "ws://\ud800", "ws://h?\udfff", "ws://\udc80@h"])
    def test_lone_surrogates(self, uri):
        with pytest.raises(InvalidURI, match="UTF-8"):
            parse_uri(uri)

    def test_a_socket_path_that_is_not_utf_8(self):
        assert parse_uri("ws+unix:/s%ff").unix_path == "/s\udcff"

    @given(st.binary().map(lambda rest: b"/s" + rest.replace(b"\0", b"")))
    def test_the_uri_of_a_socket_leads_to_it(self, path):
        uri = unix_uri(os.fsdecode(path))
        assert os.fsencode(parse_uri(uri).unix_path) == path
        assert parse_uri(f"{uri}:/x?y") == dataclasses.replace(parse_uri(uri), path="/x", query="y")

    @pytest.mark.parametrize("uri", [None, b"ws://h", 1])
    def test_types(self, uri):
        with pytest.raises(TypeError, match="a URI is a str"):
            parse_uri(uri)

    @pytest.mark.parametrize(
        ("uri", "authority", "resource"),
        [
            ("ws://h", "h", "/"),
            ("ws://h:80/a?b", "h", "/a?b"),
            ("ws://h:443", "h:443", "/"),
            ("wss://h:443/?", "h", "/"),
            ("wss://h:80", "h:80", "/"),
            ("ws://[::1]", "[::1]", "/"),
            ("ws://u:p@[::1]:8080/x", "[::1]:8080", "/x"),
            ("ws+unix:/s:/a?b", "localhost", "/a?b"),
        ],
    )
    def test_what_the_request_says(self, uri, authority, resource):
        parsed = parse_uri(uri)
        assert parsed.authority == authority
        assert parsed.resource_name == resource

    @given(st.text(max_size=12), st.sampled_from(["ws://", "wss://", "ws+unix:/", "ws://h/", "ws://[", ""]))
    def test_any_text_is_a_uri_or_invalid(self, text, prefix):
        try:
            parsed = parse_uri(prefix + text)
        except InvalidURI:
            return
        # Whatever was accepted fits a request line and a Host field.
        assert f"{parsed.resource_name}{parsed.authority}".isascii()
        assert f"{parsed.resource_name}{parsed.authority}".isprintable()
        assert " " not in parsed.resource_name + parsed.authority
        split_host(parsed.authority)


class TestShowURI:
    @pytest.mark.parametrize(
        ("uri", "shown"),
        [
            ("ws://h:80/a", "ws://h:80/a"),
            ("ws://h/a?token=SECRET", "ws://h/a?..."),
            ("https://h/cb#access_token=SECRET", "https://h/cb#..."),
            ("https://h/#SECRET?SECRET", "https://h/#..."),
            ("ws://user:SECRET@h/a", "ws://***@h/a"),
            ("ws://user:SEC@RET@h/a?SECRET", "ws://***@h/a?..."),
            ("ws://user:SEC?RET@h/a", "ws://***?..."),
            ("ws://user:SEC#RET@h/a", "ws://***#..."),
            ("ws://user:SEC@RE?T@h/a", "ws://***?..."),
            ("ws://h/a?mail=SECRET@SECRET", "ws://h/a?..."),
            ("mailto:user:SECRET@h", "***@h"),
            ("ws://user:SECRET", "ws://user:***"),
            ("ws://user:SECRET:80/a?b", "ws://user:***?..."),
            ("user:SECRET/x", "user:***"),
            ("ws://user:20240131/", "ws://user:***"),
            ("ws://[::1]:80/a", "ws://[::1]:80/a"),
            ("ws://h:/a", "ws://h:/a"),
            ("/ws://user:SECRET@h/", "/***@h/"),
            ("ws://joe@corp.example:SECRET", "ws://***@corp.example:***"),
            ("ws://u@x:SECRET/a?b", "ws://***@x:***?..."),
            ("ws:/user:SECRET", "ws:/user:***"),
            ("ws:///user:SECRET/", "ws:///user:***"),
            (" ws://user:SECRET", " ws://user:***"),
            ("1ws://user:SECRET", "1ws://user:***"),
            ("ws+unix://user:SECRET@h/x", "ws+unix://***@h/x"),
            ("ws+unix:///a:b@c/s:/d", "ws+unix:///a:b@c/s:/d"),
            ("ws://[::1]:SECRET/", "ws://[::1]:***"),
            ("ws://[user:SECRET]/", "ws://[user:***"),
            ("ws://[fe80::1%eth0]:80/a", "ws://[fe80::1%eth0]:80/a"),
            ("ws://h:\uff11\uff12/", "ws://h:***"),
            ("ws://h:99999/a:b", "ws://h:99999/a:b"),
            ("w\u017f+unix:user:SECRET@h", "***@h"),
            ("https://user:SECRET@h/a//b", "https://***@h/a//b"),
            ("ws://user:SE//CRET@h/", "ws://***@h/"),
            ("wss//user:SECRET@h", "***@h"),
            ("//user:SECRET@h/a", "//***@h/a"),
            ("user:SE//CRET@h", "***@h"),
            ("/a@b/c?token=SECRET", "/a@b/c?..."),
            ("ws+unix:/a@b?SECRET", "ws+unix:/a@b?..."),
            ("ws+unix:/a:/b", "ws+unix:/a:/b"),
            ("", ""),
        ],
    )
    def test_no_credentials(self, uri, shown):
        assert show_uri(uri) == shown

    def test_in_no_representation_and_no_message(self):
        assert "SECRET" not in repr(parse_uri("ws://user:SECRET@h/a?token=SECRET"))
        with pytest.raises(TypeError, match="a URI is a str, not bytes"):
            parse_uri(b"ws://user:SECRET@h")
        for uri in (
            "ws://user:SECRET",
            "ws://user:SECRET/x",
            "wss://joe%40corp:SECRET",
            "ws://a,b:SECRET:80",
        ):
            with pytest.raises(InvalidURI, match="no valid host and port") as caught:
                parse_uri(uri)
            assert "SECRET" not in str(caught.value)
        for authority in ("user:SECRET", "SECRET@h", "user:SECRET@h", "joe%40corp:SECRET"):
            with pytest.raises(ValueError, match=r"is not a (port number|host)") as caught:
                split_host(authority)
            assert "SECRET" not in str(caught.value)
        with pytest.raises(ValueError, match="in brackets is not an IPv6 address") as caught:
            split_host("[user:SECRET]")
        assert "SECRET" not in str(caught.value)

    @pytest.mark.parametrize(
        ("uri", "told"),
        [
            ("ws://::1:8080/", "more than one colon; an IPv6 address stands in brackets"),
            ("ws://fe80::1/", "more than one colon; an IPv6 address stands in brackets"),
            ("ws://h:65536/", "'ws://h:65536/' has no valid host and port: 65536 is not a port number"),
            ("ws://h:8O80/", "what stands behind the colon is not a port number"),
        ],
    )
    def test_what_is_wrong_is_told(self, uri, told):
        with pytest.raises(InvalidURI, match=re.escape(told)):
            parse_uri(uri)
