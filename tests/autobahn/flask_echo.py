"""An echo view in Flask, for the modes that host it on WSGI servers; `python flask_echo.py` is gevent.pywsgi."""

from __future__ import annotations

from flask import Flask

from geventws.flask import Sock

app = Flask(__name__)
app.config["SOCK_SERVER_OPTIONS"] = {"compression": True, "max_message_size": None, "max_fragments": None}
sock = Sock(app)


@sock.route("/")
def echo(ws):
    while True:
        ws.send(ws.receive())


if __name__ == "__main__":
    import signal

    import gevent
    from gevent.pywsgi import WSGIServer

    server = WSGIServer(("127.0.0.1", 0), app, log=None)
    server.start()
    print(f"listening on ws://127.0.0.1:{server.server_port}", flush=True)
    gevent.signal_handler(signal.SIGTERM, server.stop)
    server.serve_forever()
