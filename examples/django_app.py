"""Django in one file: a view that takes the WebSocket, and may refuse it like any other request.

gunicorn -k gevent django_app:app
python django_app.py 8000
"""

import sys

import django
from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import HttpResponse
from django.urls import path

from geventws import WebSocketMiddleware

settings.configure(
    ALLOWED_HOSTS=["127.0.0.1", "localhost"], ROOT_URLCONF=__name__, SECRET_KEY="of the example"
)


def page(request):
    return HttpResponse("There is an echo at /echo.\n")


def echo(request):
    ws = request.META.get("wsgi.websocket")
    if ws is None:
        return HttpResponse("open it with a WebSocket client\n", status=426)
    if request.GET.get("token") == "wrong":
        return HttpResponse("wrong token\n", status=401)
    for message in ws:  # the first use accepts it
        ws.send(message)
    return HttpResponse()  # nobody sees it


urlpatterns = [path("", page), path("echo", echo)]

# In a project of several files this is in wsgi.py.
django.setup()
app = WebSocketMiddleware(get_wsgi_application())

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
