"""Serves an application on a server that gives no connection away: bjoern or cheroot; prints its port."""

from __future__ import annotations

import logging
import sys

from geventws import WebSocketMiddleware

logging.basicConfig(level=logging.INFO)


def application(environ, start_response):
    assert "wsgi.websocket" not in environ
    start_response("200 OK", [("Content-Length", "5")])
    return [b"plain"]


app = WebSocketMiddleware(application)

if sys.argv[1] == "bjoern":
    import bjoern

    sock = bjoern.listen(app, "127.0.0.1", 0)
    print(f"listening on 127.0.0.1:{sock.getsockname()[1]}", flush=True)
    bjoern.run()
else:
    from cheroot.wsgi import Server

    server = Server(("127.0.0.1", 0), app)
    server.prepare()
    print(f"listening on 127.0.0.1:{server.bind_addr[1]}", flush=True)
    server.serve()
