"""simple-websocket under gevent's pywsgi, monkey patched; bare WSGI, or through flask-sock.

It always accepts permessage-deflate where the client offers it.
"""

from __future__ import annotations

import arguments
from gevent import monkey, pywsgi

options = arguments.read(__doc__, flask="through Flask and flask-sock")
room = set()


def serve(ws, path):
    """Echo, or broadcast, until the connection is closed."""
    import simple_websocket

    try:
        if path == "/broadcast":
            room.add(ws)
            while True:
                message = ws.receive()
                for receiver in list(room):
                    receiver.send(message)
        while True:
            ws.send(ws.receive())
    except simple_websocket.ConnectionClosed:
        pass
    finally:
        room.discard(ws)


def wsgi_app():
    import simple_websocket

    def app(environ, start_response):
        serve(simple_websocket.Server(environ), environ["PATH_INFO"])
        return []

    return app


def flask_app():
    from flask import Flask
    from flask_sock import Sock

    app = Flask(__name__)
    app.config["SOCK_SERVER_OPTIONS"] = {"max_message_size": None}
    sock = Sock(app)

    @sock.route("/")
    def root(ws):
        serve(ws, "/")

    @sock.route("/<path:path>")
    def echo(ws, path):
        serve(ws, "/" + path)

    return app


monkey.patch_all()
app = flask_app() if options.flask else wsgi_app()
pywsgi.WSGIServer(("127.0.0.1", options.port), app, log=None, backlog=4096).serve_forever()
