"""A WSGI application without a framework that takes its WebSockets itself.

gunicorn -k gevent plain_wsgi:app
python plain_wsgi.py 8000
"""

import sys

from geventws import WebSocketMiddleware


def application(environ, start_response):
    ws = environ.get("wsgi.websocket")  # there on a request that asks for one
    if environ["PATH_INFO"] != "/echo" or ws is None:
        # Also the answer to a WebSocket that was opened on another path.
        start_response("404 Not Found", [("Content-Type", "text/plain")])
        return [b"There is an echo at /echo.\n"]
    for message in ws:  # the first use accepts it
        ws.send(message)
    return []


app = WebSocketMiddleware(application)

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
