"""WSGI servers in the process of the test: gevent.pywsgi in its hub, Werkzeug's in threads."""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Iterator
from typing import Any

import gevent
from gevent.pywsgi import WSGIServer
from support import HANDSHAKE, PATIENCE, RawClient

__all__ = ["Log", "ask", "ask_one", "host", "host_threaded", "open_raw", "plain"]


class Log:
    """A file that keeps its lines."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def write(self, text: str) -> None:
        """Keep them."""
        self.lines += text.splitlines()

    def flush(self) -> None:
        """Nothing to do."""

    writelines = None


@contextlib.contextmanager
def host(app: Any, **options: Any) -> Iterator[Any]:
    """Serve on gevent.pywsgi; gives the server, with `access` and `errors` as lists of lines."""
    access, errors = Log(), Log()
    server = WSGIServer(
        ("127.0.0.1", 0), app, log=access, error_log=errors, spawn=1000,
        # Or it would ask for its name in a thread.
        environ={"SERVER_NAME": "localhost"}, **options,
    )  # fmt: skip
    server.access, server.errors = access.lines, errors.lines
    server.start()
    try:
        yield server
    finally:
        server.stop()


@contextlib.contextmanager
def host_threaded(app: Any) -> Iterator[Any]:
    """Serve on Werkzeug's development server, in threads of the system."""
    from werkzeug.serving import WSGIRequestHandler, make_server

    class Handler(WSGIRequestHandler):
        def log(self, kind: str, message: str, *args: Any) -> None:
            self.server.lines.append((kind, message % args))

    server = make_server("127.0.0.1", 0, app, threaded=True, request_handler=Handler)
    server.daemon_threads = False
    server.lines = []
    server.address = ("127.0.0.1", server.server_port)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join(PATIENCE)
        # Waits for the threads of the connections.
        server.server_close()


def open_raw(server: Any, request: bytes) -> RawClient:
    """Connect and send bytes."""
    sock = gevent.socket.socket()
    sock.settimeout(PATIENCE)
    sock.connect(server.address)
    client = RawClient(sock)
    client.send(request)
    return client


def ask(server: Any, path: bytes = b"/", fields: bytes = b"") -> bytes:
    """Ask for a WebSocket, and return all that comes."""
    with open_raw(server, HANDSHAKE % (path, fields)) as client:
        data = b""
        while chunk := client.socket.recv(65536):
            data += chunk
        return data


def ask_one(server: Any) -> bytes:
    """Ask for a WebSocket, and return a response that has a Content-Length."""
    with open_raw(server, HANDSHAKE % (b"/", b"")) as client:
        data = b""
        while True:
            head, separator, body = data.partition(b"\r\n\r\n")
            found = re.search(rb"content-length: (\d+)", head.lower())
            if separator and found and len(body) >= int(found[1]):
                return data
            chunk = client.socket.recv(65536)
            assert chunk, data
            data += chunk


def plain(server: Any, path: bytes = b"/") -> bytes:
    """Ask for something else, and return all that comes."""
    with open_raw(
        server, b"GET %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n" % path
    ) as client:
        data = b""
        while chunk := client.socket.recv(65536):
            data += chunk
        return data
