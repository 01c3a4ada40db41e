"""gevent-websocket under gevent's pywsgi, with wsaccel or without."""

from __future__ import annotations

import sys

import arguments
from gevent.pywsgi import WSGIServer

options = arguments.read(
    __doc__, no_compression="gevent-websocket has no permessage-deflate", no_wsaccel="hide wsaccel"
)
room = set()


def app(environ, start_response):
    ws = environ["wsgi.websocket"]
    broadcasting = environ["PATH_INFO"] == "/broadcast"
    if broadcasting:
        room.add(ws)
    try:
        while True:
            message = ws.receive()
            if message is None:
                break
            if broadcasting:
                for receiver in list(room):
                    receiver.send(message)
            else:
                ws.send(message)
    finally:
        room.discard(ws)
    return []


def main():
    if options.no_wsaccel:
        sys.modules["wsaccel"] = None
        sys.modules["wsaccel.utf8validator"] = None
        sys.modules["wsaccel.xormask"] = None
    else:
        import wsaccel  # noqa: F401 - absent rather than slow in silence
    from geventwebsocket.handler import WebSocketHandler

    server = WSGIServer(
        ("127.0.0.1", options.port), app, handler_class=WebSocketHandler, log=None, backlog=4096
    )
    server.serve_forever()


main()
