"""Bottle: a view that takes the WebSocket, and may refuse it like any other request.

gunicorn -k gevent bottle_app:app
python bottle_app.py 8000
"""

import sys

from bottle import Bottle, abort, request

from geventws import WebSocketMiddleware

site = Bottle()


@site.get("/")
def page():
    return "There is an echo at /echo.\n"


@site.get("/echo")
def echo():
    ws = request.environ.get("wsgi.websocket")
    if ws is None:
        abort(426, "open it with a WebSocket client")
    if request.query.token == "wrong":
        abort(401, "wrong token")
    for message in ws:  # the first use accepts it
        ws.send(message)


app = WebSocketMiddleware(site)

if __name__ == "__main__":
    from gevent import signal_handler
    from gevent.pywsgi import WSGIServer

    from geventws.pywsgi import WebSocketHandler

    port = int(sys.argv[1]) if len(sys.argv) > 1 else 8000
    server = WSGIServer(("127.0.0.1", port), app, handler_class=WebSocketHandler, log=None, spawn=10_000)
    server.start()
    print(f"listening on http://127.0.0.1:{server.server_port}", flush=True)
    for number in (2, 15):  # SIGINT, SIGTERM
        signal_handler(number, server.stop)
    server.serve_forever()
