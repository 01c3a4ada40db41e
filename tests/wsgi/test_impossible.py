"""Servers that give no connection away: 501 for the client, one line for the operator, and on it goes."""

from __future__ import annotations

import contextlib
import io
import logging
import socket as std_socket
import threading
from collections.abc import Iterator
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server

import pytest
from hosting import ask_one, plain
from servers import SYNC
from support import PATIENCE

from geventws import WebSocketMiddleware
from geventws.wsgi.takeover import CannotTakeOver, find


def app(environ: Any, start_response: Any) -> Any:
    assert "wsgi.websocket" not in environ
    start_response("200 OK", [("Content-Length", "5")])
    return [b"plain"]


@contextlib.contextmanager
def wsgiref(app: Any) -> Iterator[Any]:
    class Handler(WSGIRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

    server = make_server("127.0.0.1", 0, app, handler_class=Handler)
    server.address = server.server_address
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join(PATIENCE)
        server.server_close()


@contextlib.contextmanager
def waitress(app: Any) -> Iterator[Any]:
    waitress = pytest.importorskip("waitress")
    server = waitress.create_server(app, host="127.0.0.1", port=0)
    server.address = ("127.0.0.1", int(server.effective_port))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        yield server
    finally:
        server.close()
        server.task_dispatcher.shutdown()
        thread.join(PATIENCE)


@pytest.mark.parametrize("serve", [wsgiref, waitress])
def test_server_without_access(serve: Any, caplog: Any) -> None:
    with serve(WebSocketMiddleware(app)) as server:
        for _ in range(3):
            answer = ask_one(server)
            assert answer.split(b" ", 2)[1] == b"501"
            assert b"gunicorn -k gevent" in answer
        assert plain(server).endswith(b"plain")
    records = [record for record in caplog.records if record.name == "geventws"]
    assert len(records) == 1
    assert records[0].levelno == logging.ERROR
    for name in ("gevent.pywsgi", "gunicorn -k gevent", "gthread", "flask run"):
        assert name in records[0].getMessage()


HTTP = {"SERVER_PROTOCOL": "HTTP/1.1"}


@pytest.mark.parametrize(
    ("environ", "why"),
    [
        ({"SERVER_PROTOCOL": "HTTP/2", "gunicorn.socket": std_socket.socket}, "HTTP/2"),
        (HTTP | {"wsgi.input": io.BytesIO(), "SERVER_SOFTWARE": "mod_wsgi/5"}, "mod_wsgi/5"),
        (HTTP | {"wsgi.input": None}, "unknown"),
        (HTTP | {"gunicorn.socket": object(), "wsgi.multithread": False}, "sync worker"),
        (HTTP | {"gunicorn.socket": object(), "wsgi.multithread": True}, "does not tell"),
    ],
    ids=["http2", "mod_wsgi", "nothing", "gunicorn sync", "gunicorn of another kind"],
)  # fmt: skip
def test_reason(environ: dict[str, Any], why: str) -> None:
    with pytest.raises(CannotTakeOver, match=why):
        find(environ)


@pytest.mark.deadline(60)
def test_sync_worker_of_gunicorn(start: Any) -> None:
    server = start(SYNC)
    assert ask_one(server).startswith(b"HTTP/1.1 501 ")
    assert plain(server, b"/plain").endswith(b"plain answer\n")
    server.wait_for("sync worker serves one request at a time")
