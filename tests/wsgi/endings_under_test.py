"""Handlers that end in every way there is; as a script, on the standalone server."""

from __future__ import annotations

import time

import gevent

from geventws.wsgi import WebSocketMiddleware


def raise_(error):
    raise error


def be_killed(ws):
    gevent.getcurrent().kill(block=False)
    ws.receive()


def be_timed_out(ws):
    with gevent.Timeout(0.01):
        ws.receive()


def block(_):
    # Nobody else is served meanwhile; afterwards all are.
    until = time.monotonic() + 0.3
    while time.monotonic() < until:
        pass


ENDINGS = {
    "/return": lambda ws: None,
    "/raise": lambda ws: raise_(ValueError("on purpose")),
    "/exit": lambda ws: raise_(SystemExit(3)),
    "/memory": lambda ws: raise_(MemoryError()),
    "/greenlet-exit": lambda ws: raise_(gevent.GreenletExit()),
    "/kill": be_killed,
    "/timeout": be_timed_out,
    "/block": block,
}


def handler(ws):
    ending = ENDINGS.get(ws.request.path)
    if ending is not None:
        ws.send(ws.receive())
        ending(ws)
        return
    for message in ws:
        ws.send(message)


def application(environ, start_response):
    ws = environ.get("wsgi.websocket")
    if ws is None:
        start_response("200 OK", [("Content-Length", "0")])
        return []
    handler(ws)
    return []


app = WebSocketMiddleware(application, close_timeout=2)

if __name__ == "__main__":
    import logging

    import geventws

    logging.basicConfig()
    server = geventws.WebSocketServer(("127.0.0.1", 0), handler, close_timeout=2)
    server.start()
    print(f"port {server.server_port}", flush=True)
    server.serve_forever()
