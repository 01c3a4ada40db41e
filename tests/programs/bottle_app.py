"""bottle-websocket: the plugin and the server adapter."""

import sys

from bottle import get, run
from bottle_websocket import GeventWebSocketServer, websocket

users = set()


@get("/")
def index():
    return "a page"


@get("/websocket", apply=[websocket])
def chat(ws):
    users.add(ws)
    while True:
        message = ws.receive()
        if message is None:
            break
        for user in users:
            user.send(message)
    users.remove(ws)


run(host="127.0.0.1", port=int(sys.argv[1]), server=GeventWebSocketServer)
