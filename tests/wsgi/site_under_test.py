"""The application that all servers of the matrix serve; each call leaves a line in the file CALLS."""

from __future__ import annotations

import os

from geventws.wsgi import WebSocketMiddleware


def application(environ, start_response):
    path = environ["PATH_INFO"]
    if "CALLS" in os.environ:
        with open(os.environ["CALLS"], "a", encoding="ascii") as calls:
            calls.write(f"{path}\n")
    ws = environ.get("wsgi.websocket")
    if path == "/401":
        start_response("401 Unauthorized", [("WWW-Authenticate", "Basic"), ("Content-Length", "3")])
        return [b"no\n"]
    if ws is None or path == "/plain":
        body = b"plain answer\n"
        start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
        return [body]
    if path == "/raise-at-once":
        raise ValueError("on purpose")
    if path == "/abort":
        ws.abort()
        return []
    if path == "/cookie":
        ws.accept(headers=[("Set-Cookie", "taste=sweet; Path=/"), ("X-Answer", "42")])
    if path == "/subprotocol":
        ws.accept("second")
    if path == "/raise":
        ws.receive()
        raise ValueError("on purpose")
    if path == "/500":
        ws.receive()
        start_response("500 Internal Server Error", [])
        return [b"dropped"]
    if path.startswith("/close/"):
        ws.close(int(path[7:]), "said here")
        return []
    for message in ws:
        ws.send(message)
    return []


app = WebSocketMiddleware(application, max_message_size=32 * 1024 * 1024, close_timeout=2)
