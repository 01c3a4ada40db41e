"""TLS sockets that cannot be made: an error, and no descriptor that stays open."""

from __future__ import annotations

import os
import select
import socket
import ssl
from collections.abc import Iterator
from typing import Any

import gevent.socket
import gevent.ssl
import pytest
import trustme
from support import PATIENCE, reset, serve, tls_contexts

from geventws import WebSocketServer, connect
from geventws.client.dial import default_context
from geventws.tlssocket import check_context, wrap_tls

Pair = tuple[Any, Any]


@pytest.fixture
def pair() -> Iterator[Pair]:
    """Two ends of a TCP connection: one of gevent, and the peer's."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ours = gevent.socket.create_connection(listener.getsockname())
        theirs, _ = listener.accept()
    with ours, theirs:
        yield ours, theirs


def wait_for_end(sock: Any) -> None:
    """Wait until what the peer has done has come here."""
    poll = select.poll()
    poll.register(sock.fileno(), select.POLLIN)
    assert poll.poll(20_000)


def is_open(descriptor: int) -> bool:
    return os.path.exists(f"/proc/self/fd/{descriptor}")


def contexts(server: bool) -> list[Any]:
    """A context of gevent, and one of the standard library."""
    if server:
        return [tls_contexts()[0], ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)]
    return [gevent.ssl.create_default_context(), ssl.create_default_context()]


@pytest.mark.parametrize("which", [0, 1], ids=["gevent", "standard library"])
@pytest.mark.parametrize("hostname", [None, "localhost"], ids=["server", "client"])
@pytest.mark.parametrize("said", [b"", b"\x16\x03\x01"], ids=["silent", "had begun"])
def test_peer_that_is_gone(pair: Pair, which: int, hostname: str | None, said: bytes) -> None:
    ours, theirs = pair
    descriptor = ours.fileno()
    theirs.sendall(said)
    reset(theirs)
    wait_for_end(ours)
    with pytest.raises(OSError, match=r"reset by peer|Closed before TLS"):
        wrap_tls(contexts(hostname is None)[which], ours, hostname).do_handshake()
    ours.close()
    assert not is_open(descriptor)


def test_name_that_cannot_be_one(pair: Pair) -> None:
    ours, _ = pair
    descriptor = ours.fileno()
    with pytest.raises(ValueError, match="server_hostname"):
        wrap_tls(gevent.ssl.create_default_context(), ours, ".local")
    ours.close()
    assert not is_open(descriptor)


def test_socket_stays_its_owners_where_it_was_not_taken_over(pair: Pair) -> None:
    ours, theirs = pair
    context = gevent.ssl.create_default_context()
    context.check_hostname = True
    with pytest.raises(ValueError, match="hostname"):
        wrap_tls(context, ours)
    theirs.sendall(b"x")
    assert ours.recv(1) == b"x"


def test_a_socket_that_is_made_has_taken_over(pair: Pair) -> None:
    ours, _ = pair
    descriptor = ours.fileno()
    with wrap_tls(gevent.ssl.create_default_context(), ours, "localhost") as wrapped:
        assert isinstance(wrapped, gevent.ssl.SSLSocket)
        assert wrapped.fileno() == descriptor
        assert ours.fileno() == -1
    assert not is_open(descriptor)


def by_name(kind: Any, method: str) -> tuple[Any, Any]:
    """A server's context of this class that has two certificates; and a client's, which trusts both."""
    authority = trustme.CA()
    contexts = {}
    for name in ("first.example", "second.example"):
        contexts[name] = kind(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert(name).configure_cert(contexts[name])

    def choose(sock: Any, name: str, context: Any) -> None:
        assert isinstance(sock, gevent.ssl.SSLSocket)
        assert context is sock.context is contexts["first.example"]
        sock.context = contexts[name]

    if method == "sni_callback":
        contexts["first.example"].sni_callback = choose
    else:
        contexts["first.example"].set_servername_callback(choose)
    client = ssl.create_default_context()
    authority.configure_trust(client)
    return contexts["first.example"], client


@pytest.mark.parametrize("kind", [gevent.ssl.SSLContext, ssl.SSLContext], ids=["gevent", "standard library"])
@pytest.mark.parametrize("method", ["sni_callback", "set_servername_callback"])
@pytest.mark.usefixtures("no_leaks")
def test_certificate_by_name(kind: Any, method: str) -> None:
    context, trusting = by_name(kind, method)
    with serve(lambda ws: ws.send("here"), ssl_context=context) as server:
        for name in ("first.example", "second.example"):
            uri = f"wss://127.0.0.1:{server.server_port}/"
            with connect(uri, ssl_context=trusting, server_hostname=name, proxy=None) as ws:
                assert ws.receive(timeout=PATIENCE) == "here"


class OwnWrapping(ssl.SSLContext):
    """As that of truststore, which verifies certificates when a socket is wrapped."""

    def wrap_socket(self, *arguments: Any, **more: Any) -> Any:
        raise AssertionError("nobody calls it")


class OwnWrappingOfGevent(gevent.ssl.SSLContext):
    def wrap_socket(self, *arguments: Any, **more: Any) -> Any:
        raise AssertionError("nobody calls it")


class Other(gevent.ssl.SSLContext):
    """Its sockets are wrapped as others are."""


class TestContextsThatCannotBeUsed:
    @pytest.mark.parametrize("kind", [OwnWrapping, OwnWrappingOfGevent])
    def test_one_that_wraps_in_its_own_way(self, kind: Any) -> None:
        message = rf"{kind.__name__} has a wrap_socket of its own, .* give a context of ssl or gevent\.ssl"
        with pytest.raises(TypeError, match=message):
            connect("wss://127.0.0.1:1/", ssl_context=kind(ssl.PROTOCOL_TLS_CLIENT))
        with pytest.raises(TypeError, match=message):
            WebSocketServer(("127.0.0.1", 0), print, ssl_context=kind(ssl.PROTOCOL_TLS_SERVER))

    def test_the_default_is_no_exception(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A library may put its class in the place of the standard one."""
        context = OwnWrapping(ssl.PROTOCOL_TLS_CLIENT)
        monkeypatch.setattr(gevent.ssl, "create_default_context", lambda: context)
        default_context.cache_clear()
        with pytest.raises(TypeError, match="OwnWrapping has a wrap_socket of its own"):
            default_context()

    def test_those_that_can(self) -> None:
        for kind in (ssl.SSLContext, gevent.ssl.SSLContext, Other):
            check_context(kind(ssl.PROTOCOL_TLS_CLIENT))

    @pytest.mark.parametrize("patched", [gevent.ssl.SSLContext, OwnWrapping], ids=["gevent", "own"])
    def test_those_made_before_the_name_was_given_to_another_class(
        self, patched: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        contexts = [kind(ssl.PROTOCOL_TLS_CLIENT) for kind in (ssl.SSLContext, gevent.ssl.SSLContext, Other)]
        monkeypatch.setattr(ssl, "SSLContext", patched)
        for context in contexts:
            check_context(context)

    def test_a_class_of_gevent_over_one_that_cannot(self) -> None:
        class Over(OwnWrapping):
            wrap_socket = gevent.ssl.SSLContext.wrap_socket

        with pytest.raises(TypeError, match="has a wrap_socket of its own"):
            check_context(Over(ssl.PROTOCOL_TLS_CLIENT))
