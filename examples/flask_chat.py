"""A chat in Flask: who is here, who says what. The page is flask_chat.html.

Any of these serves it, from this folder:

    flask --app flask_chat run
    gunicorn -k geventws.gunicorn.GeventWebSocketWorker flask_chat:app
    python flask_chat.py 8000
"""

import json
import sys
from pathlib import Path

from flask import Flask, request

from geventws.flask import Sock

app = Flask(__name__)
sock = Sock(app)
names = {}


@app.get("/")
def page():
    return (Path(__file__).parent / "flask_chat.html").read_text(encoding="utf-8")


def tell(**event):
    """Tell everyone in the chat."""
    sock.broadcast(json.dumps(event), endpoint="chat")


@sock.route("/chat")
def chat(ws):
    asked = request.args.get("name") or "somebody"
    choice = [asked, *(f"{asked} {number}" for number in range(2, len(names) + 3))]
    name = names[ws] = next(name for name in choice if name not in names.values())
    ws.send(json.dumps({"you": name}))
    tell(here=sorted(names.values()), joined=name)
    try:
        for message in ws:
            tell(name=name, text=message)
    finally:
        del names[ws]
        tell(here=sorted(names.values()), left=name)


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
