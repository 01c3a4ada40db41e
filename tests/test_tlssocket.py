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
from support import reset, tls_contexts

from geventws.tlssocket import wrap_tls

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
