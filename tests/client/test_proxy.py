"""client/proxy.py: which proxy, and the way through it."""

from __future__ import annotations

import base64
import ipaddress
import socket as std_socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import gevent
import gevent.socket
import pytest
from scripted import Connection, Scripted, scripted
from support import PATIENCE, serve, tls_contexts

from geventws import InvalidStatus, ProxyError, ResolveError, WebSocket, connect
from geventws.client.proxy import Proxy, parse_proxy, proxy_from_environment
from geventws.protocol.uri import parse_uri

pytestmark = pytest.mark.usefixtures("no_leaks")


def echo(ws: WebSocket) -> None:
    for message in ws:
        ws.send(message)


def relay(connection: Connection, host: str, port: int, reply: bytes) -> None:
    """Connect to the server, and pass bytes both ways until both sides have ended."""
    upstream = gevent.socket.socket()
    upstream.settimeout(PATIENCE)
    upstream.connect((host, port))

    def copy(source: Any, target: Any) -> None:
        try:
            while data := source.recv(65536):
                target.sendall(data)
            target.shutdown(std_socket.SHUT_WR)
        except OSError:
            pass

    try:
        connection.send(reply)
        other = gevent.spawn(copy, upstream, connection.socket)
        copy(connection.socket, upstream)
        other.join(PATIENCE)
    finally:
        upstream.close()


def http_proxy(connection: Connection) -> None:
    """A proxy for HTTP that wants the user "me", password "p:w"."""
    method, target, _ = connection.read_head().split(b"\r\n")[0].split()
    assert method == b"CONNECT"
    assert connection.field(b"Host") == target
    if connection.field(b"Proxy-Authorization") != b"Basic " + base64.b64encode(b"me:p:w"):
        connection.send(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 4\r\n\r\nwho?")
        return
    host, _, port = target.decode().rpartition(":")
    host = {"far.example": "127.0.0.1"}.get(host, host)
    relay(connection, host, int(port), b"HTTP/1.0 200 Connection established\r\nVia: x\r\n\r\n")


def socks_proxy(connection: Connection) -> None:
    """A proxy for SOCKS5 that wants the same."""
    version, count = connection.read_bytes(2)
    assert version == 5
    if 2 not in connection.read_bytes(count):
        connection.send(b"\x05\xff")
        return
    connection.send(b"\x05\x02")
    assert connection.read_bytes(1) == b"\x01"
    user = connection.read_bytes(connection.read_bytes(1)[0])
    password = connection.read_bytes(connection.read_bytes(1)[0])
    if (user, password) != (b"me", b"p:w"):
        connection.send(b"\x01\x01")
        return
    connection.send(b"\x01\x00")
    assert connection.read_bytes(3) == b"\x05\x01\x00"
    kind = connection.read_bytes(1)[0]
    if kind == 3:
        host = connection.read_bytes(connection.read_bytes(1)[0]).decode()
    else:
        host = str(ipaddress.ip_address(connection.read_bytes({1: 4, 4: 16}[kind])))
    connection.head = host.encode()
    port = int.from_bytes(connection.read_bytes(2), "big")
    host = {"far.example": "127.0.0.1"}.get(host, host)
    relay(connection, host, port, b"\x05\x00\x00\x03\x03abc\x00\x00")


@contextmanager
def proxy_for(scheme: str, userinfo: str = "me:p%3Aw@") -> Iterator[tuple[Scripted, str]]:
    with scripted(http_proxy if scheme == "http" else socks_proxy) as server:
        yield server, f"{scheme}://{userinfo}127.0.0.1:{server.address[1]}"


class TestThrough:
    @pytest.mark.parametrize("scheme", ["http", "socks5", "socks5h"])
    @pytest.mark.parametrize("tls", [False, True])
    def test_echo(self, scheme: str, tls: bool) -> None:
        server_options = {"ssl_context": tls_contexts()[0]} if tls else {}
        options = {"ssl_context": tls_contexts()[1], "server_hostname": "localhost"} if tls else {}
        with serve(echo, **server_options) as server, proxy_for(scheme) as (proxy, url):
            uri = f"{'wss' if tls else 'ws'}://127.0.0.1:{server.address[1]}/"
            with connect(uri, proxy=url, **options) as ws:
                for message in ("through", b"x" * 300_000):
                    ws.send(message)
                    assert ws.receive(timeout=PATIENCE) == message
                assert ws.request.remote_address == proxy.address
            assert ws.close_code == 1000
            assert len(proxy.connections) == 1

    @pytest.mark.parametrize("scheme", ["http", "socks5h"])
    def test_name_that_only_the_proxy_knows(self, scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
        def resolve(*args: Any, **kwargs: Any) -> Any:
            raise AssertionError(args)

        monkeypatch.setattr(gevent.socket, "getaddrinfo", resolve)
        with serve(echo) as server, proxy_for(scheme) as (proxy, url):
            with connect(f"ws://far.example:{server.address[1]}/", proxy=url) as ws:
                assert ws.request.host == f"far.example:{server.address[1]}"
            assert b"far.example" in proxy.connections[0].head

    def test_name_that_we_resolve(self, monkeypatch: pytest.MonkeyPatch) -> None:
        answer = [(std_socket.AF_INET, std_socket.SOCK_STREAM, 6, "", ("127.0.0.1", 1))]
        monkeypatch.setattr(gevent.socket, "getaddrinfo", lambda *args, **kwargs: answer)
        with serve(echo) as server, proxy_for("socks5") as (proxy, url):
            connect(f"ws://far.example:{server.address[1]}/", proxy=url).close()
            assert proxy.connections[0].head == b"127.0.0.1"

    def test_from_the_environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with serve(echo) as server, proxy_for("http") as (proxy, url):
            uri = f"ws://127.0.0.1:{server.address[1]}/"
            monkeypatch.setenv("http_proxy", url)
            connect(uri).close()
            assert len(proxy.connections) == 1
            monkeypatch.setenv("no_proxy", "127.0.0.0/8")
            connect(uri).close()
            monkeypatch.delenv("no_proxy")
            connect(uri, proxy=None).close()
            assert len(proxy.connections) == 1

    def test_refusal_of_the_server_is_the_servers(self) -> None:
        with (
            scripted(lambda connection: connection.answer(b"407 What")) as server,
            proxy_for("http") as (_, url),
        ):
            with pytest.raises(InvalidStatus) as caught:
                connect(server.uri, proxy=url)
            assert caught.value.response.status == 407


class TestRefused:
    def refused(self, script: Any, scheme: str = "http", userinfo: str = "", **options: Any) -> ProxyError:
        with scripted(script) as server:
            proxy = f"{scheme}://{userinfo}127.0.0.1:{server.address[1]}"
            with pytest.raises(ProxyError) as caught:
                connect("ws://192.0.2.1:81/", proxy=proxy, **options)
        assert "secret" not in str(caught.value)
        assert f"{scheme}://127.0.0.1:{server.address[1]}" in str(caught.value)
        return caught.value

    def test_nobody_there(self) -> None:
        with std_socket.socket() as closed:
            closed.bind(("127.0.0.1", 0))
            with pytest.raises(ProxyError, match="cannot be reached: cannot connect to"):
                connect("ws://192.0.2.1/", proxy=f"http://127.0.0.1:{closed.getsockname()[1]}")

    @pytest.mark.parametrize("scheme", ["http", "socks5", "socks5h"])
    @pytest.mark.parametrize("userinfo", ["", "me:secret@"])
    def test_credentials(self, scheme: str, userinfo: str) -> None:
        error = self.refused(http_proxy if scheme == "http" else socks_proxy, scheme, userinfo)
        assert error.refused
        assert "user name and password" in str(error)
        if scheme == "http":
            assert error.response.status == 407

    @pytest.mark.parametrize(
        ("answer", "message", "final"),
        [
            (b"HTTP/1.1 401 Unauthorized\r\n\r\n", "user name and password", True),
            (b"HTTP/1.1 403 Forbidden\r\n\r\n", "rules", True),
            (b"HTTP/1.1 408 Request Timeout\r\n\r\n", "408", False),
            (b"HTTP/1.1 429 Too Many Requests\r\n\r\n", "429", False),
            (b"HTTP/1.1 501 Not Implemented\r\n\r\n", "501", True),
            (b"HTTP/1.1 502 Bad Gateway\r\n\r\n", "cannot reach the server", False),
            (b"HTTP/1.1 200 OK\r\n\r\n\x81\x01x", "3 bytes where only the server may speak", False),
            (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n", "does not speak HTTP", False),
            (b"SSH-2.0\r\n", "does not speak HTTP", False),
            (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 200, "more than 100", False),
            (b"", "ended", False),
        ],
    )
    def test_answers_to_connect(self, answer: bytes, message: str, final: bool) -> None:
        def script(connection: Connection) -> None:
            connection.read_head()
            connection.send(answer)

        error = self.refused(script)
        assert message in str(error)
        assert error.refused == final

    @pytest.mark.parametrize(
        ("userinfo", "message"), [("", "it wants a user name"), ("a:b@", "it does not know this user name")]
    )
    def test_credentials_that_are_wanted_or_wrong(self, userinfo: str, message: str) -> None:
        def script(connection: Connection) -> None:
            connection.answer(b"407 Proxy Authentication Required")

        with scripted(script) as server:
            where = server.uri.replace("ws://", f"http://{userinfo}")
            with pytest.raises(ProxyError, match=message) as caught:
                connect("ws://server.example/", proxy=where)
        assert caught.value.refused

    @pytest.mark.parametrize(
        ("answer", "message", "final"),
        [
            (b"\x05\x00\x05\x02\x00\x01\0\0\0\0\0\0", "rules do not allow", True),
            (b"\x05\x00\x05\x05\x00\x01\0\0\0\0\0\0", "refuses the connection", False),
            (b"\x05\x00\x05\x63\x00\x04" + bytes(18), "reply 99", False),
            (b"\x05\x00\x05\x00\x00\x07", "address type 7", False),
            (b"\x05\x00\x04\x00\x00\x01", "version 4", False),
            (b"\x05\x02", "user name and password", True),
            (b"\x05\xff", "user name and password", True),
            (b"HTTP/1.1 400 Bad Request\r\n\r\n", "byte 0x48", False),
            (b"\x05", "ended the connection", False),
            (b"\x05\x00\x05\x00", "ended the connection", False),
        ],
    )
    def test_answers_of_socks(self, answer: bytes, message: str, final: bool) -> None:
        def script(connection: Connection) -> None:
            connection.read_bytes(3)
            connection.send(answer)
            connection.socket.shutdown(std_socket.SHUT_WR)
            connection.socket.recv(1000)

        error = self.refused(script, "socks5")
        assert message in str(error)
        assert error.refused == final

    def test_reset(self) -> None:
        for scheme in ("http", "socks5"):
            error = self.refused(lambda connection: (connection.read_bytes(3), connection.reset()), scheme)
            assert "ended the connection" in str(error)

    def test_name_without_an_address(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def resolve(*args: Any, **kwargs: Any) -> Any:
            raise std_socket.gaierror(std_socket.EAI_NONAME, "no")

        monkeypatch.setattr(gevent.socket, "getaddrinfo", resolve)
        with scripted() as server, pytest.raises(ResolveError):
            connect("ws://far.example/", proxy=f"socks5://127.0.0.1:{server.address[1]}")

    def test_environment_that_names_none(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("ALL_PROXY", "socks4://x")
        with pytest.raises(ProxyError, match=r"ALL_PROXY: a proxy is http://.*proxy=None") as caught:
            connect("ws://192.0.2.1/")
        assert caught.value.refused


class TestParse:
    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("http://h", Proxy("http", "h", 80)),
            ("HTTP://H:8080/", Proxy("http", "h", 8080)),
            ("h:3128", Proxy("http", "h", 3128)),
            ("socks5://h", Proxy("socks5", "h", 1080)),
            ("socks5h://[::1]:9", Proxy("socks5h", "::1", 9)),
            ("http://u:p%40:q@h", Proxy("http", "h", 80, ("u", "p@:q"))),
            ("http://u@h", Proxy("http", "h", 80, ("u", ""))),
        ],
    )
    def test_good(self, text: str, expected: Proxy) -> None:
        assert parse_proxy(text) == expected

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "http://",
            "https://h",
            "socks4://h",
            "http://h:99999",
            "http://h:x",
            "http://a%3Ab:secret@h",
            "http://a:secret@",
            "http://a:secret/x@h",
            "http://a:80/secret@h",
            "a:secret://x@h",
            "http://a:secret",
            "http://a:secret:80",
            "http://a%40b:secret",
            "http://a:secret\udcff@h",
            "http:/a:secret",
            "http://[a:secret]",
            "http://a@b:secret",
            "http://h:0",
        ],
    )
    def test_bad(self, text: str) -> None:
        with pytest.raises(ValueError, match="proxy") as caught:
            parse_proxy(text)
        assert "secret" not in str(caught.value)

    def test_host_that_is_called_like_a_scheme(self) -> None:
        assert parse_proxy("http") == Proxy("http", "http", 80)

    @pytest.mark.parametrize("text", ["h:", "h:/", "http://h:", "HTTP://h:/"])
    def test_empty_port(self, text: str) -> None:
        assert parse_proxy(text) == Proxy("http", "h", 80)

    @pytest.mark.parametrize("text", ["http:/h:3128", "https:/h:3128", "socks4:/h", "u:p@http:/h"])
    def test_one_slash_too_few(self, text: str) -> None:
        with pytest.raises(ValueError, match=r"^a proxy is http://, socks5:// or socks5h://$"):
            parse_proxy(text)

    def test_password_is_not_shown(self) -> None:
        proxy = parse_proxy("socks5://user:secret@h")
        assert "secret" not in f"{proxy} {proxy!r}"


class TestEnvironment:
    @pytest.mark.parametrize(
        ("uri", "environ", "expected"),
        [
            ("ws://h/", {}, None),
            ("ws://h/", {"http_proxy": "http://p"}, "p"),
            ("ws://h/", {"https_proxy": "http://p"}, None),
            ("wss://h/", {"https_proxy": "http://p"}, "p"),
            ("wss://h/", {"http_proxy": "http://p"}, None),
            ("ws://h/", {"all_proxy": "socks5://p"}, "p"),
            ("wss://h/", {"ALL_PROXY": "socks5://p"}, "p"),
            ("ws://h/", {"ws_proxy": "a", "http_proxy": "b", "all_proxy": "c"}, "a"),
            ("wss://h/", {"wss_proxy": "a", "https_proxy": "b"}, "a"),
            ("ws://h/", {"http_proxy": "small", "HTTP_PROXY": "big"}, "small"),
            ("ws://h/", {"HTTP_PROXY": "big"}, "big"),
            # A request's field "Proxy" is not for the requester to set (httpoxy).
            ("ws://h/", {"HTTP_PROXY": "evil", "REQUEST_METHOD": "GET"}, None),
            ("ws://h/", {"http_proxy": "p", "REQUEST_METHOD": "GET"}, "p"),
            ("ws://h/", {"http_proxy": ""}, None),
        ],
    )
    def test_which(self, uri: str, environ: dict[str, str], expected: str | None) -> None:
        proxy = proxy_from_environment(parse_uri(uri), environ)
        assert (None if proxy is None else proxy.host) == expected

    @pytest.mark.parametrize(
        ("uri", "no_proxy", "direct"),
        [
            ("ws://example.com/", "example.com", True),
            ("ws://example.com/", "EXAMPLE.com", True),
            ("ws://sub.example.com/", "example.com", True),
            ("ws://sub.example.com/", ".example.com", True),
            ("ws://sub.example.com/", "*.example.com", True),
            ("ws://notexample.com/", "example.com", False),
            ("ws://example.com.evil/", "example.com", False),
            ("ws://example.com/", "*", True),
            ("ws://example.com/", "a, b,example.com ,c", True),
            ("ws://example.com/", "a b example.com", True),
            ("ws://example.com:81/", "example.com:80", False),
            ("ws://example.com/", "example.com:80", True),
            ("ws://10.1.2.3/", "10.0.0.0/8", True),
            ("ws://11.1.2.3/", "10.0.0.0/8", False),
            ("ws://10.1.2.3/", "10.1.2.3", True),
            ("ws://10.1.2.3:81/", "10.1.2.3:81", True),
            ("ws://10.1.2.3/", "2.3", False),
            ("ws://[::1]/", "::1", True),
            ("ws://[::1]/", "[::1]", True),
            ("ws://[::1]:90/", "[::1]:90", True),
            ("ws://[::1]/", "127.0.0.0/8", False),
            ("ws://example.com/", "", False),
            ("ws://example.com/", ",, b:x:y [", False),
        ],
    )
    def test_exceptions(self, uri: str, no_proxy: str, direct: bool) -> None:
        for name in ("no_proxy", "NO_PROXY"):
            proxy = proxy_from_environment(parse_uri(uri), {"http_proxy": "p", name: no_proxy})
            assert (proxy is None) == direct
