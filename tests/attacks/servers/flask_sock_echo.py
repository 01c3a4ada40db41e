"""flask-sock under gevent's pywsgi, monkey patched, as it is out of the box."""

from __future__ import annotations

import arguments
from gevent import monkey, pywsgi

monkey.patch_all()

from flask import Flask  # noqa: E402
from flask_sock import Sock  # noqa: E402

app = Flask(__name__)
sock = Sock(app)


@sock.route("/")
def echo(ws):
    while True:
        ws.send(ws.receive())


options = arguments.read(__doc__)
tls = {"certfile": options.certfile, "keyfile": options.keyfile} if options.certfile else {}
pywsgi.WSGIServer(("127.0.0.1", options.port), app, log=None, backlog=4096, **tls).serve_forever()
