"""What runs behind the proxies: the same on the standalone server and as a WSGI application.

    python behind.py standalone|pywsgi [--unix PATH]        gunicorn behind:app

What reaches it is written to the file CALLS, one JSON object a line. OPTIONS has options as JSON.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys

import gevent
import gevent.socket

from geventws import Response, WebSocketMiddleware, WebSocketServer

logging.basicConfig(level=logging.INFO)

OPTIONS = json.loads(os.environ.get("OPTIONS", "{}"))

REFUSALS = {"/401": "401 Unauthorized", "/403": "403 Forbidden", "/404": "404 Not Found"}

FORWARDED = ("Host", "X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host", "Forwarded", "Upgrade")


def note(event, path, **facts):
    with open(os.environ["CALLS"], "a", encoding="utf-8") as calls:
        calls.write(json.dumps({"event": event, "path": path, **facts}) + "\n")


def handle(ws):
    path = ws.request.path
    note("open", path)
    try:
        if path.startswith("/close/"):
            ws.close(int(path[7:]), "said here")
            return
        if path == "/greeting":
            ws.send("welcome")
        if path == "/who":
            who = {name: ws.request.headers.get(name) for name in FORWARDED}
            address = ws.request.remote_address
            ws.send(json.dumps(who | {"remote": list(address) if isinstance(address, tuple) else address}))
        for message in ws:
            ws.send(message)
    finally:
        note("end", path, code=ws.close_code)


def process_request(request):
    headers = request.headers
    note("request", request.path, **{name: headers.get(name) for name in FORWARDED})
    if request.path in REFUSALS:
        return Response(int(REFUSALS[request.path][:3]), body="refused\n")
    return None


def application(environ, start_response):
    path, ws = environ["PATH_INFO"], environ.get("wsgi.websocket")
    names = {name: "HTTP_" + name.upper().replace("-", "_") for name in FORWARDED}
    note("request", path, **{name: environ.get(key) for name, key in names.items()})
    if path in REFUSALS or ws is None:
        body = b"refused\n" if path in REFUSALS else b"plain answer\n"
        start_response(REFUSALS.get(path, "200 OK"), [("Content-Length", str(len(body)))])
        return [body]
    handle(ws)
    return []


app = WebSocketMiddleware(application, **OPTIONS)


def fixed(environ, start_response):
    """The same with ProxyFix around it."""
    from werkzeug.middleware.proxy_fix import ProxyFix

    return ProxyFix(app, x_for=1, x_proto=1)(environ, start_response)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("server", choices=["standalone", "pywsgi"])
    parser.add_argument("--unix")
    parser.add_argument("--fixed", action="store_true")
    arguments = parser.parse_args()
    if arguments.unix:
        listener = gevent.socket.socket(gevent.socket.AF_UNIX)
        listener.bind(arguments.unix)
    else:
        listener = gevent.socket.socket()
        listener.bind(("127.0.0.1", 0))
    listener.listen(1024)
    address = listener.getsockname()
    where = address if arguments.unix else f"127.0.0.1:{address[1]}"
    if arguments.server == "standalone":
        server = WebSocketServer(listener, handle, process_request=process_request, **OPTIONS)
    else:
        from gevent.pywsgi import WSGIServer

        server = WSGIServer(listener, fixed if arguments.fixed else app, log=None)
    server.start()
    print(f"listening on {where}", flush=True)
    sys.exit(server.serve_forever())


if __name__ == "__main__":
    main()
