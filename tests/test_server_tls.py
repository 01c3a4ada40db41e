"""TLS on the standalone server: contexts, versions, certificates, and peers that do not speak it."""

from __future__ import annotations

import contextlib
import logging
import ssl as std_ssl
import subprocess
import sys
from pathlib import Path
from typing import Any

import gevent
import gevent.ssl
import pytest
import trustme
from asking import PLAIN, UPGRADE, ask, dial, quiet
from support import PATIENCE, RawClient, close, serve, text, tls_contexts, wait_until

from geventws import WebSocketServer

__all__ = ["quiet"]

pytestmark = pytest.mark.usefixtures("no_leaks")


def echo(ws: Any) -> None:
    for message in ws:
        ws.send(message)


def never(ws: Any) -> None:
    raise AssertionError("no handler may run")


@pytest.fixture(scope="module")
def authority() -> Any:
    return trustme.CA()


@pytest.fixture(scope="module")
def files(authority: Any, tmp_path_factory: Any) -> Path:
    """server.pem, server.key, both.pem, other.key, ca.pem, client.pem."""
    folder = tmp_path_factory.mktemp("tls")
    certificate = authority.issue_cert("localhost")
    certificate.cert_chain_pems[0].write_to_path(folder / "server.pem")
    certificate.private_key_pem.write_to_path(folder / "server.key")
    certificate.private_key_and_cert_chain_pem.write_to_path(folder / "both.pem")
    authority.issue_cert("localhost").private_key_pem.write_to_path(folder / "other.key")
    authority.cert_pem.write_to_path(folder / "ca.pem")
    authority.issue_cert("client@example.org").private_key_and_cert_chain_pem.write_to_path(
        folder / "client.pem"
    )
    trustme.CA().issue_cert("client@example.org").private_key_and_cert_chain_pem.write_to_path(
        folder / "stranger.pem"
    )
    return folder


def client_context(authority: Any, certificate: Path | None = None) -> Any:
    context = gevent.ssl.SSLContext(gevent.ssl.PROTOCOL_TLS_CLIENT)
    authority.configure_trust(context)
    if certificate is not None:
        context.load_cert_chain(certificate)
    return context


def connect(server: Any, context: Any) -> RawClient:
    """Open a WebSocket over TLS and echo once."""
    sock = context.wrap_socket(
        dial(server.address), server_hostname="localhost", do_handshake_on_connect=False
    )
    with contextlib.ExitStack() as stack:
        stack.enter_context(sock)
        sock.do_handshake()
        client = RawClient(sock)
        sock.sendall(UPGRADE)
        data = b""
        while b"\r\n\r\n" not in data:
            chunk = sock.recv(1)
            if not chunk:
                raise ConnectionError(f"closed after {data!r}")
            data += chunk
        assert data.startswith(b"HTTP/1.1 101 ")
        client.send(text("hi"))
        client.expect(0x81, b"hi")
        stack.pop_all()
        return client


def context_of_gevent(files: Path) -> Any:
    context = gevent.ssl.SSLContext(gevent.ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files / "server.pem", files / "server.key")
    return context


def context_of_the_standard_library(files: Path) -> Any:
    context = std_ssl.SSLContext(std_ssl.PROTOCOL_TLS_SERVER)
    assert not isinstance(context, gevent.ssl.SSLContext), "monkey patched"
    context.load_cert_chain(files / "server.pem", files / "server.key")
    return context


WAYS: dict[str, Any] = {
    "files": lambda files: {"certfile": str(files / "server.pem"), "keyfile": str(files / "server.key")},
    "one file": lambda files: {"certfile": files / "both.pem"},
    "gevent": lambda files: {"ssl_context": context_of_gevent(files)},
    "standard library": lambda files: {"ssl_context": context_of_the_standard_library(files)},
}


class TestContexts:
    @pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
    def test_serves(self, quiet: Any, authority: Any, files: Path, way: Any) -> None:
        with serve(echo, **way(files)) as server:
            assert server.ssl_enabled
            with connect(server, client_context(authority)) as client:
                client.send(text("x" * 200_000), close())
                assert client.read_frame() == (0x81, b"x" * 200_000)
                client.expect_close(1000)
                client.expect_end()
            wait_until(lambda: not server._serving)
            assert server.stats.closed_clean == 1

    @pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
    def test_a_slow_handshake_does_not_hold_up_the_others(
        self, quiet: Any, authority: Any, files: Path, way: Any
    ) -> None:
        """A socket of the standard library would block the whole process in it."""
        with serve(echo, **way(files)) as server, contextlib.closing(dial(server.address)) as silent:
            silent.sendall(b"\x16")
            wait_until(lambda: server._opening)
            connect(server, client_context(authority)).close()

    @pytest.mark.parametrize("version", ["TLSv1_2", "TLSv1_3"])
    def test_versions(self, quiet: Any, authority: Any, files: Path, version: str) -> None:
        context = client_context(authority)
        context.minimum_version = context.maximum_version = gevent.ssl.TLSVersion[version]
        with (
            serve(echo, certfile=files / "both.pem") as server,
            connect(server, context) as client,
        ):
            assert client.socket.version() == version.replace("_", ".")
            client.send(close())
            client.expect_close(1000)
            client.expect_end()

    def test_client_certificates(self, quiet: Any, authority: Any, files: Path) -> None:
        tls = {
            "certfile": files / "server.pem",
            "keyfile": files / "server.key",
            "ca_certs": files / "ca.pem",
            "cert_reqs": gevent.ssl.CERT_REQUIRED,
        }
        with serve(echo, **tls) as server:
            connect(server, client_context(authority, files / "client.pem")).close()
            wait_until(lambda: not server._serving)
            for certificate in (None, files / "stranger.pem"):
                with pytest.raises(OSError, match=r"alert|reset|EOF|closed|Broken pipe"):
                    # In TLS 1.3 a client learns of it only when it reads.
                    connect(server, client_context(authority, certificate))
            wait_until(lambda: server.stats.accepted == 3 and not server._serving)
            assert (server.stats.opened, server.stats.failed_handshakes) == (1, 2)

    def test_ciphers(self, quiet: Any, authority: Any, files: Path) -> None:
        context = client_context(authority)
        context.maximum_version = gevent.ssl.TLSVersion.TLSv1_2
        cipher = "ECDHE-ECDSA-AES256-GCM-SHA384"
        with (
            serve(echo, certfile=files / "both.pem", ciphers=cipher) as server,
            connect(server, context) as client,
        ):
            assert client.socket.cipher()[0] == cipher


class TestWrongArguments:
    """They are told when the server is made, and before anything is bound."""

    @pytest.mark.parametrize(
        ("arguments", "error", "message"),
        [
            ({"certfile": "nowhere.pem"}, FileNotFoundError, "nowhere.pem"),
            ({"certfile": "server.pem", "keyfile": "nowhere.key"}, FileNotFoundError, "nowhere.key"),
            ({"certfile": "server.pem", "keyfile": "other.key"}, std_ssl.SSLError, "other.key"),
            ({"certfile": "server.key"}, std_ssl.SSLError, "server.key"),
            ({"certfile": "server.pem"}, std_ssl.SSLError, "server.pem"),
            ({"certfile": "both.pem", "ca_certs": "server.key"}, std_ssl.SSLError, "server.key"),
            ({"certfile": "both.pem", "ca_certs": "nowhere"}, FileNotFoundError, "nowhere"),
            ({"certfile": "both.pem", "ciphers": "ROT13"}, std_ssl.SSLError, "ROT13|cipher"),
            ({"certfile": "both.pem", "cert_reqs": std_ssl.CERT_REQUIRED}, ValueError, "ca_certs"),
            ({"keyfile": "server.key"}, TypeError, "certfile"),
            ({"ssl_context": "server.pem"}, TypeError, "SSLContext"),
            (
                {"ssl_context": std_ssl.SSLContext(std_ssl.PROTOCOL_TLS_CLIENT)},
                ValueError,
                "PROTOCOL_TLS_CLIENT",
            ),
            (
                {"ssl_context": std_ssl.SSLContext(std_ssl.PROTOCOL_TLS_SERVER), "certfile": "both.pem"},
                TypeError,
                "ssl_context or certfile",
            ),
        ],
        ids=range(13),
    )
    def test_wrong(
        self, files: Path, monkeypatch: Any, arguments: dict[str, Any], error: type[Exception], message: str
    ) -> None:
        monkeypatch.chdir(files)
        with pytest.raises(error, match=message):
            WebSocketServer(("127.0.0.1", 0), never, **arguments)

    def test_none_is_not_given(self) -> None:
        server = WebSocketServer(("127.0.0.1", 0), never, ssl_context=None, certfile=None, keyfile=None)
        assert not server.ssl_enabled


class TestPeers:
    """What peers do wrong costs a line at debug, no traceback and no descriptor."""

    @pytest.mark.parametrize(
        "sent", [PLAIN, UPGRADE, b"\x16", b"\x16\x03\x01\xff\xff" + b"\0" * 70000, b"\x80\x2e\x01", b"\0" * 3]
    )
    def test_no_tls(self, quiet: Any, sent: bytes) -> None:
        with serve(never, ssl_context=tls_contexts()[0]) as server:
            with contextlib.closing(dial(server.address)) as sock:
                with contextlib.suppress(ConnectionError):
                    sock.sendall(sent)
                    sock.shutdown(1)
                with contextlib.suppress(ConnectionError):
                    # An alert at the most; it is closed either way.
                    while data := sock.recv(4096):
                        assert not data.startswith(b"HTTP")
            wait_until(lambda: server.stats.failed_handshakes == 1 and not server._serving)
            assert len(quiet.records) == 1

    @pytest.mark.parametrize("way", ["end", "reset"])
    def test_gone(self, quiet: Any, way: str) -> None:
        with serve(never, ssl_context=tls_contexts()[0]) as server:
            for sent in (b"", b"\x16", b"\x16\x03\x01\x02\x00\x01"):
                sock = dial(server.address)
                sock.sendall(sent)
                if way == "end":
                    sock.close()
                else:
                    RawClient(sock).reset()
            wait_until(lambda: server.stats.failed_handshakes == 3 and not server._serving)

    def test_client_that_does_not_trust_us(self, quiet: Any) -> None:
        stranger = gevent.ssl.SSLContext(gevent.ssl.PROTOCOL_TLS_CLIENT)
        with serve(never, ssl_context=tls_contexts()[0]) as server:
            with contextlib.closing(dial(server.address)) as sock, pytest.raises(std_ssl.SSLError):
                stranger.wrap_socket(sock, server_hostname="localhost")
            wait_until(lambda: server.stats.failed_handshakes == 1 and not server._serving)

    @pytest.mark.parametrize("sent", [None, b"\x16\x03\x01", b"GET / HT"])
    def test_open_timeout_covers_tls_and_request(self, quiet: Any, sent: bytes | None) -> None:
        """Silent on TCP, in the middle of TLS, in the middle of the request: one deadline."""
        in_request = sent is not None and sent.startswith(b"GET")
        with (
            serve(never, ssl_context=tls_contexts()[0], open_timeout=0.3) as server,
            contextlib.closing(dial(server.address, tls=in_request)) as sock,
        ):
            if sent:
                sock.sendall(sent)
            assert sock.recv(100) == b""
            wait_until(lambda: not server._serving)
            assert server.stats.failed_handshakes == 1
            (line,) = [record for record in quiet.records if record.levelno == logging.INFO]
            assert "open_timeout" in line.getMessage()

    def test_silent_clients_are_gone(self, quiet: Any) -> None:
        """T-TLS: gevent's own server keeps each of them, and its greenlet, for ever."""
        with serve(echo, ssl_context=tls_contexts()[0], open_timeout=1) as server:
            socks = [dial(server.address) for _ in range(200)]
            wait_until(lambda: server.stats.accepted == 200)
            with RawClient.connect(server.address, tls=True) as client:
                client.send(text("hi"))
                client.expect(0x81, b"hi")
            for sock in socks:
                assert sock.recv(1) == b""
                sock.close()
            wait_until(lambda: not server._serving and not server.pool)

    def test_refusal_ends_tls_in_order(self, quiet: Any) -> None:
        """With close_notify: else a client cannot tell the answer from one that was cut."""
        context = gevent.ssl.SSLContext(gevent.ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = gevent.ssl.CERT_NONE
        with serve(never, ssl_context=tls_contexts()[0]) as server:
            sock = context.wrap_socket(
                dial(server.address), server_hostname="localhost", suppress_ragged_eofs=False
            )
            with contextlib.closing(sock):
                sock.sendall(PLAIN)
                data = b""
                while chunk := sock.recv(4096):
                    data += chunk
            assert data.startswith(b"HTTP/1.1 426 ")
            assert ask(server.address, PLAIN, tls=True).status == 426


PATCHED = """
from gevent import monkey
monkey.patch_all()
import socket, ssl, sys
import gevent
from geventws import WebSocketServer

context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(sys.argv[1])

def echo(ws):
    for message in ws:
        ws.send(message)

server = WebSocketServer(("127.0.0.1", 0), echo, ssl_context=context)
server.start()
trust = ssl.create_default_context(cafile=sys.argv[2])
with trust.wrap_socket(socket.create_connection(server.address), server_hostname="localhost") as sock:
    sock.sendall(sys.argv[3].encode().decode("unicode_escape").encode())
    head = b""
    while not head.endswith(b"\\r\\n\\r\\n"):
        head += sock.recv(1)
    sock.sendall(b"\\x81\\x82\\0\\0\\0\\0hi")
    print(sock.recv(100), flush=True)
server.stop(1)
"""


def test_monkey_patched(files: Path) -> None:
    """There, the standard library's context is gevent's."""
    request = UPGRADE.decode().encode("unicode_escape").decode()
    done = subprocess.run(
        [sys.executable, "-c", PATCHED, files / "both.pem", files / "ca.pem", request],
        capture_output=True,
        timeout=PATIENCE * 3,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"b'\\x81\\x02hi'\n", b"")
