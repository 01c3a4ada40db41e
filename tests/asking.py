"""A client of plain HTTP that trusts nothing: what a server answers to bytes that are no WebSocket.

`ask` sends bytes in the pieces it is given, reads to the end of TCP, and takes the answer apart itself.
`quiet` is the rule that nothing a peer does may cost a line at WARNING, a traceback or a raw byte in the log.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import socket as std_socket
from collections.abc import Iterator
from typing import Any

import gevent
import gevent.socket
import pytest
from support import HANDSHAKE, PATIENCE, RawClient, tls_contexts

__all__ = [
    "KEY_FIELDS",
    "PLAIN",
    "UPGRADE",
    "Answer",
    "ask",
    "dial",
    "get",
    "header",
    "opens",
    "quiet",
    "read_answer",
]

#: An opening handshake without fault.
UPGRADE = HANDSHAKE % (b"/", b"")

#: Its fields, to build others of.
KEY_FIELDS = (
    b"Host: localhost",
    b"Connection: Upgrade",
    b"Upgrade: websocket",
    b"Sec-WebSocket-Version: 13",
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
)


def get(*fields: bytes, line: bytes = b"GET / HTTP/1.1") -> bytes:
    """A request: its line and its fields."""
    return b"\r\n".join([line, *fields, b"", b""])


#: What a browser's address bar or a health check sends.
PLAIN = get(b"Host: localhost")


@dataclasses.dataclass
class Answer:
    """A response, and all that came behind it to the end of TCP."""

    status: int
    headers: dict[str, str]
    body: bytes
    data: bytes


def dial(address: Any, *, tls: bool = False, family: int = std_socket.AF_INET) -> Any:
    """Connect to a server."""
    sock = gevent.socket.socket(family)
    sock.settimeout(PATIENCE)
    try:
        sock.connect(address)
        if tls:
            sock = tls_contexts()[1].wrap_socket(sock, server_hostname="localhost")
    except BaseException:
        sock.close()
        raise
    return sock


def read_answer(sock: Any, *, head_only: bool = False) -> Answer:
    """Read to the end of TCP, which must be in order, and take apart the one response that may come."""
    data = b""
    while chunk := sock.recv(65536):
        data += chunk
    head, separator, body = data.partition(b"\r\n\r\n")
    assert separator, data
    line, *fields = head.decode("ascii").split("\r\n")
    version, status, _ = line.split(" ", 2)
    assert version == "HTTP/1.1"
    headers = {}
    for field in fields:
        name, _, value = field.partition(": ")
        assert name not in headers, f"{name} twice"
        headers[name] = value
    # RFC 9112 section 9.6, and no byte beside the one answer.
    assert "close" in headers["Connection"].split(", ")
    assert (0 if head_only else int(headers["Content-Length"])) == len(body), data
    return Answer(int(status), headers, body, data)


def ask(
    address: Any, *pieces: bytes, tls: bool = False, end: bool = False, head_only: bool = False
) -> Answer:
    """Send a request in these pieces and read the answer; `end` ends our side first."""
    with contextlib.closing(dial(address, tls=tls)) as sock:
        sock.setsockopt(std_socket.IPPROTO_TCP, std_socket.TCP_NODELAY, 1)
        for piece in pieces:
            sock.sendall(piece)
            if len(pieces) > 1:
                gevent.sleep(0)
        if end:
            sock.shutdown(std_socket.SHUT_WR)
        return read_answer(sock, head_only=head_only)


def opens(address: Any, *fields: bytes) -> RawClient:
    """Open a WebSocket with further fields."""
    return RawClient.connect(address, headers=b"".join(field + b"\r\n" for field in fields))


def header(client: RawClient, name: str) -> str | None:
    """A field of the 101."""
    found = [
        line.partition(": ")[2]
        for line in client.head.decode().split("\r\n")
        if line.lower().startswith(f"{name.lower()}: ")
    ]
    assert len(found) <= 1
    return found[0] if found else None


@pytest.fixture
def quiet(caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]) -> Iterator[Any]:
    """Fail a test in which a peer caused a warning, a traceback or a control character in the log."""
    caplog.set_level(logging.DEBUG, "geventws")
    yield caplog
    for record in caplog.records:
        assert record.levelno < logging.WARNING, record.getMessage()
        assert record.exc_info is None
        assert record.getMessage().isprintable(), ascii(record.getMessage())
    # gevent prints what a greenlet lets out.
    assert capfd.readouterr().err == ""
