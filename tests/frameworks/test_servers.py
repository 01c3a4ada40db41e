"""Servers that give no connection away: 501 for the client, one line for the operator, and on it goes."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from processes import DEADLINE, Process

UPGRADE = (
    b"GET /echo HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


def ask(address: tuple[str, int], request: bytes, end: bytes) -> bytes:
    """Send a request, and read a response to where it ends."""
    with socket.create_connection(address, DEADLINE) as sock:
        sock.sendall(request)
        data = b""
        while not data.endswith(end):
            chunk = sock.recv(65536)
            assert chunk, data
            data += chunk
        return data


@pytest.mark.parametrize("server", ["bjoern", "cheroot"])
def test_501(server: str) -> None:
    with Process(Path(__file__).with_name("serve.py"), server) as process:
        host, port = process.url().split(":")
        for _ in range(2):
            answer = ask((host, int(port)), UPGRADE, b"(flask run)\n")
            assert answer.startswith(b"HTTP/1.1 501 ")
            assert b"gunicorn -k gevent" in answer
        plain = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        assert ask((host, int(port)), plain, b"plain").startswith(b"HTTP/1.1 200 ")
        # Not a line for each: one in a while.
        assert process.errors().count("answered 501: this server cannot open WebSockets") == 1
