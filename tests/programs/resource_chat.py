"""gevent-websocket: a Resource with an application class and a WSGI app; everybody hears everybody."""

import json
import sys
from collections import OrderedDict

from geventwebsocket import Resource, WebSocketApplication, WebSocketError, WebSocketServer


class ChatApplication(WebSocketApplication):
    def on_open(self):
        self.ws.handler.active_client.nickname = "nobody"

    def on_message(self, message):
        if message is None:
            return
        message = json.loads(message)
        if message["type"] == "name":
            self.ws.handler.active_client.nickname = message["name"]
        elif message["type"] == "say":
            self.broadcast(message["text"])
        elif message["type"] == "who":
            names = [client.nickname for client in self.ws.handler.server.clients.values()]
            self.ws.send(json.dumps({"who": sorted(names)}))

    def broadcast(self, text):
        sender = self.ws.handler.active_client.nickname
        for client in self.ws.handler.server.clients.values():
            try:
                client.ws.send(json.dumps({"from": sender, "text": text}))
            except WebSocketError:
                pass

    def on_close(self, reason):
        print("closed", flush=True)


def page(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/html")])
    return [b"<h1>a page</h1>"]


WebSocketServer(
    ("127.0.0.1", int(sys.argv[1])),
    Resource(OrderedDict([("/chat", ChatApplication), ("/", page)])),
    debug=False,
).serve_forever()
