"""client/connect.py: what is asked, what comes of it, and how it ends."""

from __future__ import annotations

import importlib
import socket as std_socket
import ssl
from pathlib import Path
from typing import Any

import gevent
import gevent.ssl
import pytest
from scripted import Connection, full_backlog, resolver, scripted, server_frame
from support import PATIENCE, RawClient, close, opened, serve, text, tls_contexts, wait_until

import geventws
from geventws import (
    Compression,
    ConnectionClosedError,
    ConnectionClosedOK,
    Headers,
    State,
    WebSocket,
    broadcast,
    connect,
)
from geventws.client.asking import shared_keepalive
from geventws.options import Options
from geventws.protocol.connection import Connection as Protocol

# Of the package, that name is the function.
connecting: Any = importlib.import_module("geventws.client.connect")

pytestmark = pytest.mark.usefixtures("no_leaks")


def echo(ws: WebSocket) -> None:
    for message in ws:
        ws.send(message)


def uri_of(server: Any, rest: str = "/", scheme: str = "ws") -> str:
    return f"{scheme}://127.0.0.1:{server.address[1]}{rest}"


class TestConversation:
    @pytest.mark.parametrize("compression", [None, True])
    def test_messages_both_ways(self, compression: bool | None) -> None:
        with serve(echo, compression=True) as server, connect(uri_of(server), compression=compression) as ws:
            assert ws.state is State.OPEN
            assert bool(ws.extensions) == bool(compression)
            for message in (
                "",
                "text",
                "größer",
                b"",
                b"\x00\xff",
                "x" * 200,
                b"y" * 100_000,
                "z" * 1024 * 1024,
            ):
                ws.send(message)
                assert ws.receive(timeout=PATIENCE) == message
            assert ws.ping(b"p").wait(PATIENCE) >= 0
        assert ws.state is State.CLOSED
        assert ws.close_code == 1000
        assert isinstance(ws.close_error, ConnectionClosedOK)

    def test_what_was_asked_and_agreed(self) -> None:
        with (
            serve(echo, subprotocols=["b", "a"], compression=Compression(window_bits=10)) as server,
            connect(uri_of(server, "/p%20q?a=b"), subprotocols=["a", "b"], compression=True) as ws,
        ):
            assert (ws.request.path, ws.request.query) == ("/p q", "a=b")
            assert ws.request.host == f"127.0.0.1:{server.address[1]}"
            assert ws.request.remote_address == server.address
            assert ws.request.headers["User-Agent"] == f"geventws/{geventws.__version__}"
            assert ws.subprotocol == "b"
            assert "server_max_window_bits=10" in ws.extensions
            assert ws.response is not None
            assert ws.response.status == 101
            assert ws.response.headers["Sec-WebSocket-Protocol"] == "b"

    def test_limits_hold(self) -> None:
        def send_much(ws: WebSocket) -> None:
            ws.send(b"x" * 1001)
            ws.receive()

        with serve(send_much) as server, connect(uri_of(server), max_message_size=1000) as ws:
            with pytest.raises(ConnectionClosedError) as caught:
                ws.receive(timeout=PATIENCE)
            assert caught.value.sent is not None
            assert caught.value.sent.code == 1009

    def test_broadcast_masks_each_frame_anew(self) -> None:
        frames: list[bytes] = []

        def script(connection: Connection) -> None:
            connection.open()
            frames.append(connection.read_bytes(11))
            connection.read_frame()

        with scripted(script) as server:
            sockets = [connect(server.uri) for _ in range(2)]
            broadcast(sockets, "Hello")
            wait_until(lambda: len(frames) == 2)
            for ws in sockets:
                ws.abort()
        for frame in frames:
            assert frame[:2] == b"\x81\x85"
            assert bytes(octet ^ frame[2 + i % 4] for i, octet in enumerate(frame[6:])) == b"Hello"
        assert frames[0][2:6] != frames[1][2:6]

    def test_frames_that_come_with_the_response(self) -> None:
        def script(connection: Connection) -> None:
            connection.open(behind=server_frame(0x81, b"early") + server_frame(0x82, b"bird"))
            connection.read_frame()

        with scripted(script) as server:
            ws = connect(server.uri)
            assert ws.receive(timeout=PATIENCE) == "early"
            assert ws.receive(timeout=PATIENCE) == b"bird"
            ws.abort()

    def test_interim_responses_are_skipped(self) -> None:
        def script(connection: Connection) -> None:
            connection.socket.sendall(b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n")
            connection.open()
            connection.send(server_frame(0x81, b"x"))
            connection.read_frame()

        with scripted(script) as server:
            ws = connect(server.uri)
            assert ws.receive(timeout=PATIENCE) == "x"
            ws.abort()

    def test_keepalive_sends_pings(self) -> None:
        seen: list[tuple[int, bytes]] = []

        with scripted(lambda connection: (connection.open(), seen.append(connection.read_frame()))) as server:
            ws = connect(server.uri, ping_interval=0.05, ping_timeout=0.05)
            with pytest.raises(ConnectionClosedError):
                ws.receive(timeout=PATIENCE)
        assert seen[0][0] == 0x89

    def test_connections_of_a_hub_share_a_keepalive(self) -> None:
        options = Options(ping_interval=7, ping_timeout=8)
        first = shared_keepalive(options)
        assert first is not None
        assert shared_keepalive(Options(ping_interval=7, ping_timeout=8)) is first
        assert shared_keepalive(Options(ping_interval=7, ping_timeout=9)) is not first
        assert shared_keepalive(Options(ping_interval=None)) is None

    def test_masks_are_fresh(self) -> None:
        keys: list[bytes] = []

        def script(connection: Connection) -> None:
            connection.open()
            for _ in range(100):
                frame = connection.read_bytes(7)
                keys.append(frame[2:6])

        with scripted(script) as server:
            ws = connect(server.uri)
            for _ in range(100):
                ws.send("x")
            wait_until(lambda: len(keys) == 100)
            ws.abort()
        assert len(set(keys)) > 95


class TestTransports:
    def test_tls_with_a_context_of_gevent(self) -> None:
        with (
            serve(echo, ssl_context=tls_contexts()[0]) as server,
            connect(
                uri_of(server, scheme="wss"), ssl_context=tls_contexts()[1], server_hostname="localhost"
            ) as ws,
        ):
            ws.send("x" * 300_000)
            assert ws.receive(timeout=PATIENCE) == "x" * 300_000
        assert ws.close_code == 1000

    def test_tls_with_a_context_of_the_standard_library(self) -> None:
        import trustme

        authority = trustme.CA()
        serving = gevent.ssl.SSLContext(gevent.ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("127.0.0.1").configure_cert(serving)
        context = ssl.create_default_context()
        authority.configure_trust(context)
        with (
            serve(echo, ssl_context=serving) as server,
            connect(uri_of(server, scheme="wss"), ssl_context=context) as ws,
        ):
            ws.send("x")
            assert ws.receive(timeout=PATIENCE) == "x"

    def test_server_name_indication(self) -> None:
        names: list[str | None] = []
        context = tls_contexts()[0]
        context.sni_callback = lambda _sock, name, _context: names.append(name)
        try:
            with (
                serve(echo, ssl_context=context) as server,
                connect(
                    uri_of(server, scheme="wss"), ssl_context=tls_contexts()[1], server_hostname="localhost"
                ),
            ):
                pass
        finally:
            context.sni_callback = None
        assert names == ["localhost"]

    @pytest.mark.parametrize("slashes", ["", "//"])
    def test_unix_socket(self, tmp_path: Path, slashes: str) -> None:
        path = str(tmp_path / "s.sock")
        seen: list[Connection] = []

        def script(connection: Connection) -> None:
            seen.append(connection)
            connection.open()
            connection.send(server_frame(0x81, b"near"))
            connection.read_frame()

        with scripted(script, unix=path):
            ws = connect(f"ws+unix:{slashes}{path}:/deep?q=1")
            assert ws.receive(timeout=PATIENCE) == "near"
            ws.abort()
        assert seen[0].head.startswith(b"GET /deep?q=1 HTTP/1.1\r\nHost: localhost\r\n")

    def test_all_addresses_are_tried(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with serve(echo) as server:
            port = server.address[1]
            with std_socket.socket() as closed:
                closed.bind(("127.0.0.1", 0))
                refused = closed.getsockname()
                found = resolver(("::1", port, 0, 0), refused, ("127.0.0.1", port))
                monkeypatch.setattr(gevent.socket, "getaddrinfo", found)
                with connect(f"ws://many.example:{port}") as ws:
                    assert ws.request.remote_address == ("127.0.0.1", port)

    def test_address_that_is_silent_leaves_time_to_the_others(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with serve(echo) as server, full_backlog() as full:
            monkeypatch.setattr(gevent.socket, "getaddrinfo", resolver(full, server.address))
            with connect("ws://many.example", open_timeout=1.0) as ws:
                assert ws.request.remote_address == server.address

    def test_source_address(self) -> None:
        with serve(echo) as server, connect(uri_of(server), source_address=("127.0.0.2", 0)) as ws:
            wait_until(lambda: server.connections)
            (other,) = server.connections
            assert other.request.remote_address[0] == "127.0.0.2"
            assert ws.state is State.OPEN


class TestRequest:
    def head(self, *, path: str = "", userinfo: str = "", **arguments: Any) -> Connection:
        def script(connection: Connection) -> None:
            connection.open(*([b"Sec-WebSocket-Protocol: a"] if "subprotocols" in arguments else []))
            connection.read_frame()

        with scripted(script) as server:
            connect(server.uri.replace("//", f"//{userinfo}") + path, **arguments).abort()
            return server.connections[0]

    def test_least(self) -> None:
        connection = self.head()
        assert connection.head.startswith(b"GET / HTTP/1.1\r\nHost: 127.0.0.1:")
        for name in (
            b"Origin",
            b"Authorization",
            b"Cookie",
            b"Sec-WebSocket-Protocol",
            b"Sec-WebSocket-Extensions",
        ):
            assert connection.field(name) is None

    def test_everything(self) -> None:
        connection = self.head(
            path="/a?b=c",
            headers={"X-One": "1", "User-Agent": "mine"},
            cookies={"session": "abc", "theme": "dark"},
            auth=("user", "päss"),
            origin="https://example.com",
            subprotocols=["a", "b"],
            compression=Compression(window_bits=15),
        )
        assert connection.head.startswith(b"GET /a?b=c HTTP/1.1\r\n")
        assert connection.field(b"X-One") == b"1"
        assert connection.field(b"User-Agent") == b"mine"
        assert connection.field(b"Cookie") == b"session=abc; theme=dark"
        assert connection.field(b"Authorization") == b"Basic dXNlcjpww6Rzcw=="
        assert connection.field(b"Origin") == b"https://example.com"
        assert connection.field(b"Sec-WebSocket-Protocol") == b"a, b"
        assert connection.field(b"Sec-WebSocket-Extensions") == b"permessage-deflate; client_max_window_bits"

    def test_credentials(self) -> None:
        assert self.head(auth="abc.def~1").field(b"Authorization") == b"Bearer abc.def~1"
        assert self.head(userinfo="user:p%3Ass@").field(b"Authorization") == b"Basic dXNlcjpwOnNz"
        # The argument counts before the URI.
        assert self.head(userinfo="user@", auth="token").field(b"Authorization") == b"Bearer token"

    @pytest.mark.parametrize("kind", [list, dict, Headers])
    def test_headers_in_any_form(self, kind: Any) -> None:
        assert self.head(headers=kind([("X-A", "1")])).field(b"X-A") == b"1"

    def test_headers_are_not_changed(self) -> None:
        headers = Headers([("X-A", "1")])
        self.head(headers=headers, auth="t")
        assert headers.items() == [("X-A", "1")]

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"max_connections": 5}, "one for servers"),
            ({"max_message_sise": 5}, "did you mean 'max_message_size'"),
            ({"heders": []}, "did you mean 'headers'"),
            ({"subprotocols": lambda request, offered: None}, "takes a list"),
            ({"auth": ("a", "b", "c")}, "auth takes"),
            ({"auth": 5}, "auth takes"),
            ({"auth": ""}, "bearer token"),
            ({"auth": "a b"}, "bearer token"),
            ({"auth": "a\nb"}, "bearer token"),
            ({"auth": "SECRET\n"}, "bearer token"),
            ({"auth": "SECR\xe9T"}, "bearer token"),
            ({"headers": {"Authorization": "SECRET\n"}}, "control characters"),
            ({"cookies": {"a": b"SECRET"}}, "cookies takes"),
            ({"cookies": {b"SECRET": "a"}}, "cookies takes"),
            ({"proxy": b"http://user:SECRET@h"}, "proxy takes a URL"),
            ({"subprotocols": iter(["chat", 5])}, "subprotocols takes strings"),
            ({"auth": ("a:b", "c")}, "no colon"),
            ({"auth": ("a", "c\r\n")}, "control characters"),
            ({"auth": "t", "headers": {"authorization": "x"}}, "name it once"),
            ({"cookies": {"a": "b"}, "headers": {"cookie": "x"}}, "name it once"),
            ({"cookies": {"a": "b; c=d"}}, "RFC 6265"),
            ({"cookies": {"a b": "c"}}, "RFC 6265"),
            ({"cookies": {"a": "\r\nX: y"}}, "RFC 6265"),
            ({"cookies": {"a": 5}}, "cookies takes"),
            ({"cookies": [("a", "b")]}, "cookies takes a mapping"),
            ({"headers": {"X": "a\r\nY: b"}}, "control characters"),
            ({"headers": "X: a"}, "headers takes"),
            ({"headers": ["X: a"]}, "headers takes"),
            ({"headers": 5}, "headers takes"),
            ({"headers": {"Upgrade": "x"}}, "belongs to the handshake"),
            ({"origin": "a\r\nb"}, "control characters"),
            ({"subprotocols": ["a b"]}, "not a token"),
            ({"ssl_context": 5}, "SSLContext"),
            ({"ssl_context": ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)}, "for servers"),
            ({"server_hostname": 5}, "server_hostname takes"),
            ({"server_hostname": b"example.com"}, "server_hostname takes"),
            ({"server_hostname": "a\0b"}, "server_hostname takes"),
            ({"source_address": "127.0.0.1"}, "source_address takes"),
            ({"source_address": ("127.0.0.1", "0")}, "source_address takes"),
            ({"source_address": ("127.0.0.1", -1)}, "source_address takes"),
            ({"source_address": ("127.0.0.1", 65536)}, "source_address takes"),
            ({"source_address": ("localhost", 0)}, "source_address takes an address"),
            ({"proxy": 5}, "proxy takes"),
            ({"proxy": "http://h:0"}, "port 0"),
            ({"proxy": "ftp://x"}, "socks5h://, not ftp://"),
            ({"proxy": "http://a b"}, "valid host"),
            ({"max_redirects": -1}, "from 0 on"),
            ({"max_redirects": True}, "from 0 on"),
            ({"open_timeout": 0}, "positive"),
            ({"compression": 5}, "compression takes"),
        ],
    )
    def test_what_is_not_possible_is_refused_before_anything_is_sent(
        self, arguments: dict[str, Any], message: str
    ) -> None:
        with scripted() as server:
            with pytest.raises((TypeError, ValueError), match=message) as caught:
                connect(server.uri, **arguments)
            assert "SECR" not in str(caught.value)
            gevent.sleep(0)
            assert server.connections == []


class TestClosing:
    """RFC 6455 section 7.1.1: the server ends TCP, and the client waits for it."""

    def test_client_closes_first(self) -> None:
        steps: list[str] = []

        def script(connection: Connection) -> None:
            connection.open()
            first, payload = connection.read_frame()
            assert (first, payload) == (0x88, b"\x03\xe8bye")
            connection.send(server_frame(0x88, b"\x03\xe8"))
            steps.append("answered")
            gevent.sleep(0.05)
            assert not connection.has_ended()
            steps.append("ended")

        with scripted(script) as server:
            ws = connect(server.uri)
            ws.close(1000, "bye")
            assert steps == ["answered", "ended"]
            assert isinstance(ws.close_error, ConnectionClosedOK)

    def test_server_closes_first(self) -> None:
        def script(connection: Connection) -> None:
            connection.open()
            connection.send(server_frame(0x88, b"\x03\xe9away"))
            assert connection.read_frame() == (0x88, b"\x03\xe9")
            gevent.sleep(0.05)
            assert not connection.has_ended()

        with scripted(script) as server:
            ws = connect(server.uri)
            assert list(ws) == []
            assert ws.wait_closed(PATIENCE)
            assert (ws.close_code, ws.close_reason) == (1001, "away")

    def test_all_connect_before_the_first_request(self, tmp_path: Path, monkeypatch: Any) -> None:
        """Requests that go out in one turn of the loop wake a server once."""
        steps = []
        dial, request = connecting._dial, connecting.Asking.request

        def dial_and_tell(*arguments: Any) -> Any:
            dialled = dial(*arguments)
            steps.append("connected")
            return dialled

        def request_and_tell(asking: Any) -> bytes:
            steps.append("sends")
            return request(asking)

        monkeypatch.setattr(connecting, "_dial", dial_and_tell)
        monkeypatch.setattr(connecting.Asking, "request", request_and_tell)
        # A Unix socket is connected at once, whatever else the machine does.
        with scripted(lambda connection: connection.open(), unix=str(tmp_path / "socket")):
            greenlets = [gevent.spawn(connect, f"ws+unix:{tmp_path}/socket") for _ in range(5)]
            for ws in [greenlet.get(timeout=PATIENCE) for greenlet in greenlets]:
                ws.abort()
        assert steps == ["connected"] * 5 + ["sends"] * 5

    def test_answer_leaves_at_once(self) -> None:
        """The system does not hold it back for an end of the stream that does not come next."""
        with opened(core=Protocol(client=True)) as session:
            session.peer.socket.sendall(server_frame(0x88, b"\x03\xe8"))
            with pytest.raises(ConnectionClosedOK):
                session.ws.receive()
            # On the loopback interface what is sent has arrived.
            assert len(session.peer.arrived()) == 8

    @pytest.mark.parametrize("code", [1000, 4000])
    def test_server_that_never_ends_tcp(self, code: int) -> None:
        def script(connection: Connection) -> None:
            connection.open()
            connection.read_frame()
            connection.send(server_frame(0x88, code.to_bytes(2, "big")))
            connection.read_end()

        with scripted(script) as server:
            ws = connect(server.uri, close_timeout=0.1)
            ws.close()
            assert ws.close_code == code
            # The handshake was complete; that TCP stayed is not worth an error.
            assert "took longer" not in str(ws.close_error)
            assert isinstance(ws.close_error, ConnectionClosedOK) == (code == 1000)

    def test_server_that_never_answers(self) -> None:
        def script(connection: Connection) -> None:
            connection.open()
            connection.read_frame()
            connection.read_end()

        with scripted(script) as server:
            ws = connect(server.uri, close_timeout=0.1)
            ws.close()
            assert ws.close_code == 1006
            assert "(close_timeout)" in str(ws.close_error)

    def test_violation_of_the_server(self) -> None:
        def script(connection: Connection) -> None:
            connection.open()
            # RFC 6455 section 5.1: "A client MUST close a connection if it detects a masked frame".
            connection.send(b"\x81\x81\0\0\0\0x")
            first, payload = connection.read_frame()
            assert (first, payload[:2]) == (0x88, b"\x03\xea")
            connection.read_end()

        with scripted(script) as server:
            ws = connect(server.uri)
            with pytest.raises(ConnectionClosedError):
                ws.receive(timeout=PATIENCE)
            assert ws.wait_closed(PATIENCE)

    def test_end_without_a_close(self) -> None:
        with scripted(lambda connection: connection.open()) as server:
            ws = connect(server.uri)
            with pytest.raises(ConnectionClosedError, match="without a Close"):
                ws.receive(timeout=PATIENCE)
            assert ws.close_code == 1006

    @pytest.mark.parametrize("client_first", [True, False])
    def test_over_tls(self, client_first: bool) -> None:
        done: list[str] = []

        def script(connection: Connection) -> None:
            connection.open()
            if not client_first:
                connection.send(server_frame(0x88, b"\x03\xe8"))
            assert connection.read_frame() == (0x88, b"\x03\xe8")
            if client_first:
                connection.send(server_frame(0x88, b"\x03\xe8"))
            # Sends close_notify and waits for the client's; many servers do.
            connection.socket = connection.socket.unwrap()
            done.append("unwrapped")

        with scripted(script, tls=True) as server:
            uri = server.uri.replace("ws:", "wss:")
            ws = connect(uri, ssl_context=tls_contexts()[1], server_hostname="localhost")
            if client_first:
                ws.close()
            else:
                assert list(ws) == []
            assert ws.wait_closed(PATIENCE)
            wait_until(lambda: done)
            assert ws.close_code == 1000


class TestEndSending:
    def test_what_comes_behind_our_close_is_received(self) -> None:
        def script(connection: Connection) -> None:
            connection.open()
            assert connection.read_frame() == (0x81, b"question")
            assert connection.read_frame() == (0x88, b"\x03\xe8")
            for number in range(40):
                connection.send(server_frame(0x81, b"answer %d" % number))
            connection.send(server_frame(0x88, b"\x03\xe8"))

        with scripted(script) as server:
            ws = connect(server.uri, max_queue=4)
            ws.send("question")
            ws.end_sending()
            assert ws.closed
            assert ws.state is State.CLOSING
            with pytest.raises(geventws.ConnectionClosed):
                ws.send("more")
            with pytest.raises(geventws.ConnectionClosed):
                ws.end_sending()
            assert list(ws) == [f"answer {number}" for number in range(40)]
            assert ws.wait_closed(PATIENCE)
            assert isinstance(ws.close_error, ConnectionClosedOK)

    def test_close_drops_the_rest(self) -> None:
        def script(connection: Connection) -> None:
            connection.open()
            connection.read_frame()
            for number in range(40):
                connection.send(server_frame(0x81, b"answer %d" % number))
            connection.send(server_frame(0x88, b"\x03\xe8"))

        with scripted(script) as server:
            ws = connect(server.uri, max_queue=4)
            ws.end_sending()
            assert ws.receive(timeout=PATIENCE) == "answer 0"
            ws.close()
            assert ws.close_code == 1000

    def test_it_has_the_deadline_of_a_close(self) -> None:
        with scripted(lambda connection: (connection.open(), connection.read_bytes(1000))) as server:
            ws = connect(server.uri, close_timeout=0.1)
            ws.end_sending(1001, "tired")
            with pytest.raises(ConnectionClosedError, match="close_timeout"):
                ws.receive(timeout=PATIENCE)

    def test_on_a_server(self) -> None:
        heard: list[Any] = []

        def ask(ws: WebSocket) -> None:
            ws.send("question")
            ws.end_sending()
            heard.extend(ws)

        with serve(ask) as server:
            client = RawClient.connect(server.address)
            client.expect(0x81, b"question")
            client.expect_close(1000)
            client.send(text("answer"), text("more"), close(1000))
            client.expect_end()
            client.close()
            wait_until(lambda: heard == ["answer", "more"])

    @pytest.mark.parametrize("arguments", [(1005,), (5000,), ("1000",), (1000, "x" * 124), (1000, b"x")])
    def test_what_may_not_be_sent(self, arguments: tuple[Any, ...]) -> None:
        with serve(echo) as server, connect(uri_of(server)) as ws:
            with pytest.raises((TypeError, ValueError)):
                ws.end_sending(*arguments)
            assert ws.state is State.OPEN
