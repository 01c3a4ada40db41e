"""What goes wrong in `connect`: each failure has its own exception, says what to do, and leaves nothing."""

from __future__ import annotations

import copy
import errno
import os
import pickle
import resource
import socket as std_socket
import ssl
from collections.abc import Callable
from typing import Any

import gevent
import gevent.socket
import gevent.ssl
import pytest
from scripted import Connection, full_backlog, resolver, scripted
from support import PATIENCE, serve, tls_contexts

from geventws import (
    ConnectError,
    ConnectionClosedError,
    HeadTooBig,
    InvalidHandshake,
    InvalidHeader,
    InvalidMessage,
    InvalidRedirect,
    InvalidStatus,
    InvalidUpgrade,
    InvalidURI,
    NegotiationError,
    OpenTimeout,
    ProxyError,
    ResolveError,
    Response,
    TLSError,
    WebSocketError,
    connect,
)

pytestmark = pytest.mark.usefixtures("no_leaks")

Script = Callable[[Connection], Any]


def fails(expected: type[WebSocketError], uri: str, **options: Any) -> Any:
    """Connect, and return the exception."""
    with pytest.raises(expected) as caught:
        connect(uri, **options)
    assert type(caught.value) is expected
    assert str(caught.value) == str(caught.value).strip()
    # One object in one file or queue is as good as another.
    again = pickle.loads(pickle.dumps(copy.copy(caught.value)))
    assert str(again) == str(caught.value)
    return caught.value


def refuses(script: Script, expected: type[WebSocketError], *, tls: bool = False, **options: Any) -> Any:
    """Connect to a scripted server, and return the exception."""
    with scripted(script, tls=tls) as server:
        return fails(expected, server.uri + "/p?secret=1", **options)


class TestAddress:
    def test_uri(self) -> None:
        assert "does not begin with ws://" in str(fails(InvalidURI, "http://example.com"))

    def test_name_without_an_address(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def resolve(*args: Any, **kwargs: Any) -> Any:
            raise std_socket.gaierror(std_socket.EAI_NONAME, "Name or service not known")

        monkeypatch.setattr(gevent.socket, "getaddrinfo", resolve)
        error = fails(ResolveError, "ws://nobody.invalid/")
        assert isinstance(error, OSError)
        assert error.errno == std_socket.EAI_NONAME
        assert str(error) == (
            "'nobody.invalid' has no address: Name or service not known: "
            "check the spelling and the name server"
        )

    def test_label_that_is_too_long(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def resolve(*args: Any, **kwargs: Any) -> Any:
            "x".encode("idna")
            ("x" * 64 + ".example").encode("idna")

        monkeypatch.setattr(gevent.socket, "getaddrinfo", resolve)
        assert "has no address" in str(fails(ResolveError, f"ws://{'x' * 64}.example/"))

    def test_refused(self) -> None:
        with std_socket.socket() as closed:
            closed.bind(("127.0.0.1", 0))
            where = f"127.0.0.1:{closed.getsockname()[1]}"
            error = fails(ConnectError, f"ws://{where}/")
        assert isinstance(error, OSError)
        assert error.errno == errno.ECONNREFUSED
        assert str(error) == (
            f"cannot connect to {where}: Connection refused: is the server running, and is that its port?"
        )
        assert isinstance(error.__cause__, ConnectionRefusedError)

    def test_all_addresses_refused(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with std_socket.socket() as closed:
            closed.bind(("127.0.0.1", 0))
            port = closed.getsockname()[1]
            monkeypatch.setattr(
                gevent.socket, "getaddrinfo", resolver(("127.0.0.1", port), ("127.0.0.2", port))
            )
            message = str(fails(ConnectError, f"ws://two.example:{port}/"))
        assert message.startswith(
            f"cannot connect to two.example:{port}: 127.0.0.1:{port}: Connection refused"
        )
        assert f"; 127.0.0.2:{port}: Connection refused" in message

    def test_unix_socket_that_is_not_there(self, tmp_path: Any) -> None:
        error = fails(ConnectError, f"ws+unix:{tmp_path}/no.sock")
        assert error.errno == errno.ENOENT
        assert "is that the path of its socket?" in str(error)

    def test_a_message_names_a_unix_socket_by_its_uri(self, tmp_path: Any) -> None:
        path = f"{tmp_path}/a b:c.sock"
        uri = f"ws+unix:{tmp_path}/a%20b%3Ac.sock:/x"
        with scripted(lambda connection: connection.answer(b"404 Not Found"), unix=path):
            assert str(fails(InvalidStatus, uri)).startswith(f"{uri}: ")

    def test_unix_socket_where_nobody_listens(self, tmp_path: Any) -> None:
        (tmp_path / "file").touch()
        error = fails(ConnectError, f"ws+unix:{tmp_path}/file")
        assert error.errno == errno.ECONNREFUSED
        assert str(error).endswith(
            "Connection refused: is the server running, and is that the path of its socket?"
        )

    @pytest.mark.parametrize("uri", ["ws://127.0.0.1:1/", "ws+unix:/nowhere", "wss://127.0.0.1:1/"])
    def test_no_descriptor_left(self, uri: str) -> None:
        gevent.get_hub()
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        # The lowest number that is free is the next one.
        lowest = os.open(os.devnull, os.O_RDONLY)
        os.close(lowest)
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
        try:
            with pytest.raises(ConnectError) as caught:
                connect(uri)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert caught.value.errno == errno.EMFILE
        assert "Too many open files" in str(caught.value)

    def test_source_address_of_another(self) -> None:
        # RFC 5737: nobody's.
        with scripted() as server:
            error = fails(ConnectError, server.uri, source_address=("192.0.2.1", 0))
        assert "source_address" in str(error)


class TestTLS:
    def wss(self, script: Script | None = None, *, tls: bool = True, **options: Any) -> Any:
        with scripted(script, tls=tls) as server:
            return fails(TLSError, server.uri.replace("ws:", "wss:"), **options)

    def test_authority_that_nobody_knows(self) -> None:
        error = self.wss(server_hostname="localhost")
        assert error.unverified
        assert isinstance(error.__cause__, ssl.SSLCertVerificationError)
        assert "ssl_context=" in str(error)

    def test_name_of_another(self) -> None:
        error = self.wss(ssl_context=tls_contexts()[1], server_hostname="example.com")
        assert error.unverified
        assert "example.com" in str(error)
        assert "server_hostname=" in str(error)

    def test_server_without_tls(self) -> None:
        def script(connection: Connection) -> None:
            connection.socket.recv(10000)
            connection.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            connection.socket.recv(10000)

        error = self.wss(script, tls=False)
        assert not error.unverified
        assert "does not speak TLS" in str(error)
        assert "ws://" in str(error)

    @pytest.mark.parametrize("reset", [False, True])
    def test_server_that_ends_tcp(self, reset: bool) -> None:
        def script(connection: Connection) -> None:
            connection.socket.recv(1)
            if reset:
                connection.reset()

        error = self.wss(script, tls=False)
        assert "ended TCP" in str(error)

    def test_versions_that_do_not_meet(self) -> None:
        client = gevent.ssl.SSLContext(gevent.ssl.PROTOCOL_TLS_CLIENT)
        server = gevent.ssl.SSLContext(gevent.ssl.PROTOCOL_TLS_SERVER)
        server.minimum_version = gevent.ssl.TLSVersion.TLSv1_3
        client.maximum_version = gevent.ssl.TLSVersion.TLSv1_2
        with serve(lambda ws: None, ssl_context=server) as served:
            error = fails(TLSError, f"wss://127.0.0.1:{served.address[1]}", ssl_context=client)
        assert "look at the versions" in str(error)

    @pytest.mark.parametrize("version", [gevent.ssl.TLSVersion.TLSv1_2, gevent.ssl.TLSVersion.TLSv1_3])
    def test_server_that_wants_a_certificate_of_ours(self, version: Any) -> None:
        """With TLS 1.3 it says so behind the handshake, where the response is expected."""
        # The contexts that others share are not to be changed.
        server, client = tls_contexts.__wrapped__()
        server.verify_mode = gevent.ssl.CERT_REQUIRED
        server.load_verify_locations(cadata=gevent.ssl.DER_cert_to_PEM_cert(client.get_ca_certs(True)[0]))
        client.maximum_version = version
        with serve(lambda ws: None, ssl_context=server) as served:
            uri = f"wss://127.0.0.1:{served.address[1]}"
            error = fails(TLSError, uri, ssl_context=client, server_hostname="localhost")
        assert not error.unverified
        assert "certificate" in str(error)
        assert "load_cert_chain" in str(error)

    def test_reset_behind_the_response(self) -> None:
        """The response is there, and so is the reset: it is open, and over."""

        def script(connection: Connection) -> None:
            connection.open()
            connection.reset()

        # The server's is the one of `tls_contexts`, whose authority it is to trust.
        context = gevent.ssl.SSLContext(gevent.ssl.PROTOCOL_TLS_CLIENT)
        (authority,) = tls_contexts()[1].get_ca_certs(True)
        context.load_verify_locations(cadata=gevent.ssl.DER_cert_to_PEM_cert(authority))
        # No tickets: what is read first is the response.
        context.maximum_version = gevent.ssl.TLSVersion.TLSv1_2
        with scripted(script, tls=True) as server:
            uri = server.uri.replace("ws:", "wss:")
            ws = connect(uri, ssl_context=context, server_hostname="localhost")
            assert ws.request.remote_address == server.address
            with pytest.raises(ConnectionClosedError):
                ws.receive(timeout=PATIENCE)

    def test_ws_to_a_server_with_tls(self) -> None:
        def script(connection: Connection) -> None:
            connection.read_head()
            # RFC 8446 section 6: an alert.
            connection.send(b"\x15\x03\x03\x00\x02\x02\x0a")

        error = refuses(script, InvalidMessage)
        assert str(error).endswith("that port speaks TLS: use wss://")


class TestTimeouts:
    def timeout(self, uri: str, phase: str, **options: Any) -> str:
        error = fails(OpenTimeout, uri, open_timeout=0.1, **options)
        assert isinstance(error, TimeoutError)
        assert error.phase == phase
        assert "within 0.1 seconds (open_timeout): " in str(error)
        return str(error)

    def test_resolving(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(gevent.socket, "getaddrinfo", lambda *args, **kwargs: gevent.sleep(PATIENCE))
        message = self.timeout("ws://slow.example/", "resolve")
        assert "'slow.example'" in message

    def test_connecting(self) -> None:
        with full_backlog() as full:
            assert "firewall" in self.timeout(f"ws://127.0.0.1:{full[1]}", "connect")

    def test_unix_socket_that_does_not_accept(self, tmp_path: Any) -> None:
        path = str(tmp_path / "full.sock")
        with full_backlog(path):
            assert "overloaded" in self.timeout(f"ws+unix:{path}", "connect")

    def test_tls(self) -> None:
        with scripted() as server:
            assert "speak TLS" in self.timeout(server.uri.replace("ws:", "wss:"), "tls")

    @pytest.mark.parametrize("scheme", ["http", "socks5", "socks5h"])
    def test_proxy(self, scheme: str) -> None:
        with scripted() as server:
            proxy = server.uri.replace("ws:", f"{scheme}:")
            message = self.timeout("ws://192.0.2.1/", "proxy", proxy=proxy)
        assert f"the proxy {proxy}" in message

    def test_response(self) -> None:
        with scripted() as server:
            assert "is it a WebSocket server?" in self.timeout(server.uri, "response")

    def test_response_that_drips(self) -> None:
        def script(connection: Connection) -> None:
            connection.read_head()
            for octet in b"HTTP/1.1 101 Switching Protocols\r\nX: " + b"x" * 8000:
                connection.send(bytes([octet]))
                gevent.sleep(0.01)

        with scripted(script) as server:
            self.timeout(server.uri, "response")

    def test_redirects_count_too(self) -> None:
        def script(connection: Connection) -> None:
            gevent.sleep(0.03)
            connection.answer(b"302 Found", b"Location: /")

        with scripted(script) as server:
            self.timeout(server.uri, "response", max_redirects=1000)

    def test_timeout_of_the_caller_is_the_callers(self) -> None:
        with scripted() as server, pytest.raises(gevent.Timeout) as caught, gevent.Timeout(0.05) as timer:
            connect(server.uri)
        assert caught.value is timer

    def test_killed(self) -> None:
        with scripted() as server:
            greenlet = gevent.spawn(connect, server.uri)
            while not server.connections:
                gevent.sleep(0.001)
            greenlet.kill(timeout=PATIENCE)
            assert isinstance(greenlet.value, gevent.GreenletExit)


class TestRefusals:
    @pytest.mark.parametrize(
        ("status", "advice"),
        [
            (b"200 OK", "ordinary page"),
            (b"204 No Content", "ordinary page"),
            (b"400 Bad Request", "may say why"),
            (b"401 Unauthorized", "auth="),
            (b"403 Forbidden", "origin="),
            (b"404 Not Found", "path"),
            (b"426 Upgrade Required", "version"),
            (b"429 Too Many Requests", "later"),
            (b"503 Service Unavailable", "later"),
            (b"599 What", ""),
        ],
    )
    def test_status(self, status: bytes, advice: str) -> None:
        error = refuses(
            lambda connection: connection.answer(status, b"X-Why: a", body=b"because"), InvalidStatus
        )
        assert f"server answered {int(status[:3])}" in str(error)
        assert advice in str(error)
        # The query may hold a token.
        assert "/p: " in str(error)
        assert "secret" not in str(error)
        assert isinstance(error.response, Response)
        assert error.response.status == int(status[:3])
        assert error.response.headers["X-Why"] == "a"
        assert error.response.body == (b"" if status[:3] == b"204" else b"because")

    def test_our_own_server(self) -> None:
        with serve(lambda ws: None, process_request=lambda request: Response(401, body="who?\n")) as server:
            error = fails(InvalidStatus, f"ws://127.0.0.1:{server.address[1]}")
        assert error.response.body == b"who?\n"

    def test_chunked_body(self) -> None:
        def script(connection: Connection) -> None:
            connection.read_head()
            connection.send(
                b"HTTP/1.1 500 No\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
            )

        assert refuses(script, InvalidStatus).response.body == b"abcde"

    def test_body_to_the_end_of_tcp(self) -> None:
        def script(connection: Connection) -> None:
            connection.read_head()
            connection.send(b"HTTP/1.0 500 No\r\n\r\nto the")
            connection.send(b" end")

        assert refuses(script, InvalidStatus).response.body == b"to the end"

    def test_body_without_an_end_is_cut(self) -> None:
        def script(connection: Connection) -> None:
            connection.read_head()
            connection.send(b"HTTP/1.1 500 No\r\n\r\n")
            while True:
                connection.send(b"x" * 65536)

        assert refuses(script, InvalidStatus).response.body == b"x" * 65536

    def test_body_that_stalls_does_not_hide_the_status(self) -> None:
        def script(connection: Connection) -> None:
            connection.read_head()
            connection.send(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 100\r\n\r\nhalf")
            connection.read_end()

        assert refuses(script, InvalidStatus, open_timeout=0.2).response.body == b"half"

    def test_body_that_is_malformed_does_not_hide_the_status(self) -> None:
        def script(connection: Connection) -> None:
            connection.read_head()
            connection.send(b"HTTP/1.1 401 Unauthorized\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n")

        assert refuses(script, InvalidStatus).response.status == 401

    @pytest.mark.parametrize("status", [b"301 Moved", b"307 Temporary Redirect"])
    def test_redirects_that_are_not_to_be_followed(self, status: bytes) -> None:
        def script(connection: Connection) -> None:
            connection.answer(status, b"Location: ws://example.com/\x1b[31m".replace(b"\x1b[31m", b""))

        error = refuses(script, InvalidStatus, max_redirects=0)
        assert "it redirects to 'ws://example.com/'" in str(error)

    def test_redirect_to_nowhere(self) -> None:
        error = refuses(lambda connection: connection.answer(b"302 Found"), InvalidStatus)
        assert error.response.status == 302


class TestAnswers:
    """What opens no WebSocket though it may say so."""

    def answers(
        self, head: bytes | Callable[[Connection], bytes], expected: type[InvalidHandshake], **options: Any
    ) -> str:
        def script(connection: Connection) -> None:
            connection.read_head()
            connection.send(head if isinstance(head, bytes) else head(connection))

        error = refuses(script, expected, **options)
        assert str(error).startswith("ws://127.0.0.1:")
        return str(error)

    def accepted(self, *fields: bytes, upgrade: bytes = b"websocket", connection: bytes = b"Upgrade") -> Any:
        return lambda server: b"\r\n".join(
            [
                b"HTTP/1.1 101 Switching Protocols",
                b"Upgrade: " + upgrade,
                b"Connection: " + connection,
                b"Sec-WebSocket-Accept: " + server.accept_value(),
                *fields,
                b"\r\n",
            ]
        )

    def test_accept_that_is_wrong(self) -> None:
        head = (
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
        )
        assert "something in between has changed its answer" in self.answers(head, InvalidHeader)
        self.answers(head.replace(b"Sec-WebSocket-Accept", b"X"), InvalidHeader)

    def test_upgrade_to_something_else(self) -> None:
        self.answers(self.accepted(upgrade=b"h2c"), InvalidUpgrade)
        self.answers(self.accepted(connection=b"close"), InvalidUpgrade)

    def test_what_was_not_offered(self) -> None:
        assert "subprotocol" in self.answers(self.accepted(b"Sec-WebSocket-Protocol: x"), NegotiationError)
        extension = b"Sec-WebSocket-Extensions: permessage-deflate"
        assert "extension" in self.answers(self.accepted(extension), NegotiationError)
        self.answers(self.accepted(b"Sec-WebSocket-Extensions: x-other"), NegotiationError, compression=True)

    @pytest.mark.parametrize(
        "parameters",
        [
            b"; server_max_window_bits=999",
            b"; client_max_window_bits=16",
            b"; client_max_window_bits=8",
            b"; server_max_window_bits=15",
            b"; unknown",
            b"; server_no_context_takeover=1",
            b", permessage-deflate",
        ],
    )
    def test_parameters_of_compression(self, parameters: bytes) -> None:
        head = self.accepted(b"Sec-WebSocket-Extensions: permessage-deflate" + parameters)
        self.answers(head, NegotiationError, compression=True)

    @pytest.mark.parametrize(
        "head",
        [
            b"SSH-2.0-OpenSSH_9.2\r\n",
            b"\x00\x01\x02",
            b"HTTP/1.1 1O1 X\r\n\r\n",
            b"HTTP/2 101 X\r\n\r\n",
            b"HTTP/1.1 101 X\nUpgrade: websocket\n\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
            b"HTTP/1.1 101 Swi",
            b"",
        ],
    )
    def test_garbage(self, head: bytes) -> None:
        assert "is there a WebSocket server" in self.answers(head, InvalidMessage)

    def test_head_without_an_end(self) -> None:
        def script(connection: Connection) -> None:
            connection.read_head()
            connection.send(b"HTTP/1.1 101 X\r\n")
            while True:
                connection.send(b"X: " + b"y" * 1000 + b"\r\n")

        assert "max_head" in str(refuses(script, HeadTooBig))
        assert refuses(script, HeadTooBig, max_headers=None).limit == 64 * 1024
        assert refuses(script, HeadTooBig, max_line=100).limit == 100

    def test_end_without_a_word(self) -> None:
        """As haproxy does on a port with TLS."""

        def script(connection: Connection) -> None:
            connection.read_head()
            connection.socket.close()

        assert str(refuses(script, InvalidMessage)).endswith("is it one without TLS? With it: wss://")

    def test_reset(self) -> None:
        def script(connection: Connection) -> None:
            connection.read_head()
            connection.reset()

        error = refuses(script, ConnectError)
        assert error.errno == errno.ECONNRESET
        assert "in the opening handshake" in str(error)


class TestRedirects:
    def test_followed(self) -> None:
        def script(connection: Connection) -> None:
            head = connection.read_head()
            path = head.split()[1]
            if path == b"/a/b?c=d":
                connection.send(b"HTTP/1.1 302 Found\r\nLocation: e?f=g#h\r\n\r\n")
            elif path == b"/a/e?f=g":
                port = connection.socket.getsockname()[1]
                connection.send(
                    b"HTTP/1.1 307 X\r\nLocation: http://127.0.0.1:%d/last\r\nContent-Length: 99\r\n\r\n"
                    % port
                )
            else:
                assert path == b"/last"
                assert connection.field(b"Authorization") == b"Basic dTpw"
                assert connection.field(b"Cookie") == b"a=b"
                connection.send(
                    b"HTTP/1.1 101 X\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "
                    + connection.accept_value()
                    + b"\r\n\r\n"
                )
                connection.read_frame()

        with scripted(script) as server:
            ws = connect(server.uri.replace("//", "//u:p@") + "/a/b?c=d", cookies={"a": "b"})
            assert ws.request.path == "/last"
            ws.abort()
            assert len(server.connections) == 3

    def test_credentials_stay_with_their_server(self) -> None:
        def target(connection: Connection) -> None:
            connection.open()
            connection.read_frame()

        with scripted(target) as second:

            def script(connection: Connection) -> None:
                location = second.uri.replace("//", "//evil:creds@").encode()
                connection.answer(b"301 Moved", b"Location: " + location + b"/x")

            with scripted(script) as first:
                ws = connect(
                    first.uri.replace("//", "//user:secret@"),
                    cookies={"session": "secret"},
                    headers={"Host": "internal.example", "X-Kept": "1", "Proxy-Authorization": "secret"},
                    origin="https://example.com",
                )
                ws.abort()
            (sent,) = first.connections
            (got,) = second.connections
        assert sent.field(b"Authorization") is not None
        assert sent.field(b"Host") == b"internal.example"
        assert b"secret" not in got.head
        for name in (b"Authorization", b"Cookie", b"Proxy-Authorization"):
            assert got.field(name) is None
        assert got.field(b"Host") == b"127.0.0.1:%d" % second.address[1]
        assert got.field(b"X-Kept") == b"1"
        assert got.field(b"Origin") == b"https://example.com"

    def test_auth_of_the_argument_stays_too(self) -> None:
        with scripted(lambda connection: (connection.open(), connection.read_frame())) as second:
            location = b"Location: " + second.uri.encode()
            with scripted(lambda connection: connection.answer(b"308 Permanent", location)) as first:
                connect(first.uri, auth="token").abort()
            assert second.connections[0].field(b"Authorization") is None

    def test_refusal_for_want_of_credentials_that_were_dropped(self) -> None:
        with scripted(lambda connection: connection.answer(b"401 Unauthorized")) as second:
            location = b"Location: " + second.uri.encode() + b"/in?token=secret"
            with scripted(lambda connection: connection.answer(b"308 Permanent", location)) as first:
                error = fails(InvalidStatus, first.uri.replace("//", "//user:secret@"))
                assert f"{first.uri}/ redirects to it" in str(error)
                assert "secret" not in str(error)
                assert "give auth=" in str(fails(InvalidStatus, first.uri))

    @pytest.mark.parametrize("redirects", [0, 5])
    @pytest.mark.parametrize(
        "location",
        [
            b"ftp://u:secret@h/?secret",
            b"ws://h:0/?secret",
            b"ws://u:secret@[",
            # What the standard library says about it repeats all of it.
            "ws://u:secret@\u2100/".encode(),
        ],
    )
    def test_messages_do_not_repeat_the_secrets_of_a_redirect(self, location: bytes, redirects: int) -> None:
        script = lambda connection: connection.answer(b"302 Found", b"Location: " + location)  # noqa: E731
        with scripted(script) as server:
            expected = InvalidRedirect if redirects else InvalidStatus
            error = fails(expected, server.uri, max_redirects=redirects)
        assert "redirects to" in str(error)
        assert "secret" not in str(error)

    def test_circle(self) -> None:
        with scripted(lambda connection: connection.answer(b"302 Found", b"Location: /again")) as server:
            error = fails(InvalidRedirect, server.uri, max_redirects=3)
            assert len(server.connections) == 4
        assert "(max_redirects)" in str(error)
        assert error.response.status == 302

    def test_from_wss_to_ws(self) -> None:
        with scripted() as plain:

            def script(connection: Connection) -> None:
                connection.answer(b"302 Found", b"Location: " + plain.uri.encode() + b"/")

            with scripted(script, tls=True) as server:
                uri = server.uri.replace("ws:", "wss:")
                error = fails(
                    InvalidRedirect, uri, ssl_context=tls_contexts()[1], server_hostname="localhost"
                )
            assert plain.connections == []
        assert "not encrypted" in str(error)

    def test_from_a_unix_socket(self, tmp_path: Any) -> None:
        path = str(tmp_path / "s.sock")

        def script(connection: Connection) -> None:
            head = connection.read_head()
            if head.startswith(b"GET /out"):
                connection.send(b"HTTP/1.1 302 X\r\nLocation: ws://127.0.0.1:1/\r\n\r\n")
            elif head.startswith(b"GET / "):
                connection.send(b"HTTP/1.1 302 X\r\nLocation: /out\r\n\r\n")

        with scripted(script, unix=path):
            error = fails(InvalidRedirect, f"ws+unix:{path}")
        assert "from a Unix socket" in str(error)

    @pytest.mark.parametrize(
        "location",
        [
            b"ftp://example.com/",
            b"javascript:1",
            b"ws+unix:/etc/x",
            b"http://a b/",
            b"ws://h:0/",
            b"\xff",
        ],
    )
    def test_places_where_nobody_goes(self, location: bytes) -> None:
        script = lambda connection: connection.answer(b"302 Found", b"Location: " + location)  # noqa: E731
        assert "redirects to" in str(refuses(script, InvalidRedirect))


def test_proxy_error_keeps_its_facts() -> None:
    error = ProxyError("m", 5, Response(407), True)
    again = copy.copy(error)
    assert (str(again), again.errno, again.refused) == ("m", 5, True)
    assert again.response.status == 407
