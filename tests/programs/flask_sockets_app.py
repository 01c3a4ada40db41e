"""flask-sockets: routes, a blueprint, and what everybody does with them."""

import sys

from flask import Blueprint, Flask, request
from flask_sockets import Sockets

app = Flask(__name__)
sockets = Sockets(app)
rooms = Blueprint("rooms", __name__)
members = {}


@sockets.route("/echo")
def echo_socket(ws):
    while not ws.closed:
        message = ws.receive()
        ws.send(message)


@rooms.route("/<room>")
def room_socket(ws, room):
    room = members.setdefault(room, [])
    room.append(ws)
    try:
        ws.send(request.args.get("greeting", "hello"))
        while not ws.closed:
            message = ws.receive()
            if message:
                for other in room:
                    other.send(message)
    finally:
        room.remove(ws)


@app.route("/")
def hello():
    return "a page"


sockets.register_blueprint(rooms, url_prefix="/room")

if __name__ == "__main__":
    from gevent import pywsgi
    from geventwebsocket.handler import WebSocketHandler

    server = pywsgi.WSGIServer(("127.0.0.1", int(sys.argv[1])), app, handler_class=WebSocketHandler)
    server.serve_forever()
