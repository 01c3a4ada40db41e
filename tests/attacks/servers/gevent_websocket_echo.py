"""gevent-websocket under gevent's pywsgi, as it is out of the box."""

from __future__ import annotations

import arguments
from gevent.pywsgi import WSGIServer
from geventwebsocket.handler import WebSocketHandler


def app(environ, start_response):
    ws = environ.get("wsgi.websocket")
    if ws is None:
        start_response("400 Bad Request", [])
        return [b"not a WebSocket"]
    while (message := ws.receive()) is not None:
        ws.send(message)
    return []


options = arguments.read(__doc__)
tls = {"certfile": options.certfile, "keyfile": options.keyfile} if options.certfile else {}
WSGIServer(
    ("127.0.0.1", options.port), app, handler_class=WebSocketHandler, log=None, backlog=4096, **tls
).serve_forever()
