"""Raw clients that speak to our servers through a proxy."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator
from typing import Any

import gevent.socket
from proxies.backends import Backend
from proxies.programs import DEADLINE
from support import HANDSHAKE, RawClient, close

__all__ = ["To", "finish", "read_head", "read_rest", "unique"]

_numbers = itertools.count()


def unique(name: str) -> str:
    """A path that no other test uses."""
    return f"/{name}-{next(_numbers)}"


class To:
    """Connects to a server through a proxy.

    Attributes:
        proxy: its name.
        tls: it is spoken to in TLS.
        server: what stands behind it.
    """

    def __init__(self, proxy: str, port: int, context: Any, server: Backend) -> None:
        self.proxy = proxy
        self.tls = context is not None
        self.server = server
        self.authority = f"127.0.0.1:{port}"
        self._port = port
        self._context = context

    def dial(self, source: str | None = None) -> RawClient:
        """Connect."""
        sock = gevent.socket.socket()
        sock.settimeout(DEADLINE)
        if source is not None:
            sock.bind((source, 0))
        sock.connect(("127.0.0.1", self._port))
        if self._context is not None:
            sock = self._context.wrap_socket(sock, server_hostname="localhost")
        return RawClient(sock)

    @contextlib.contextmanager
    def open(
        self, path: str = "/echo", fields: bytes = b"", behind: bytes = b"", source: str | None = None
    ) -> Iterator[RawClient]:
        """Open a WebSocket; `behind` is sent in one piece with the request."""
        with self.dial(source) as client:
            client.send(HANDSHAKE % (path.encode(), fields) + behind)
            client.head = read_head(client)
            assert client.head.startswith(b"HTTP/1.1 101 "), client.head
            yield client

    def paths(self) -> list[str]:
        """The paths that have reached the application, behind a request that certainly did."""
        path = unique("marker")
        with self.open(path) as client:
            finish(client)
        self.server.end_of(path)
        paths = [event["path"] for event in self.server.events()]
        assert path in paths
        return paths


def read_head(client: RawClient) -> bytes:
    """Read a response's head."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += client.read_bytes(1)
    return head


def read_rest(client: RawClient) -> bytes:
    """Read to the end of TCP, in whatever way it comes."""
    data = b""
    with contextlib.suppress(EOFError, OSError):
        while True:
            data += client.read_bytes(1)
    return data


def finish(client: RawClient) -> None:
    """The closing handshake, and the end of TCP behind it."""
    client.send(close(1000))
    client.expect_close(1000)
    client.expect_end()
