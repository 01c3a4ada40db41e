"""Pyramid: a view that takes the WebSocket, and may refuse it like any other request.

gunicorn -k gevent pyramid_app:app
python pyramid_app.py 8000
"""

import sys

from pyramid.config import Configurator
from pyramid.httpexceptions import HTTPUnauthorized
from pyramid.response import Response

from geventws import WebSocketMiddleware


def page(request):
    return Response("There is an echo at /echo.\n")


def echo(request):
    ws = request.environ.get("wsgi.websocket")
    if ws is None:
        return Response("open it with a WebSocket client\n", status=426)
    if request.GET.get("token") == "wrong":
        raise HTTPUnauthorized("wrong token")
    for message in ws:  # the first use accepts it
        ws.send(message)
    return Response()  # nobody sees it


with Configurator() as config:
    config.add_route("page", "/")
    config.add_view(page, route_name="page")
    config.add_route("echo", "/echo")
    config.add_view(echo, route_name="echo")
    app = WebSocketMiddleware(config.make_wsgi_app())

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
