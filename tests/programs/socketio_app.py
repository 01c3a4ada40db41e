"""Flask-SocketIO: events, acknowledgements, rooms, binary data, a background task, and a page."""

import os
import sys

from flask import Flask, request, send_file
from flask_socketio import SocketIO, emit, join_room

app = Flask(__name__)
app.config["SECRET_KEY"] = "secret"
socketio = SocketIO(app, async_mode="gevent", max_http_buffer_size=10_000_000)


@app.route("/")
def index():
    return "a page"


@app.route("/test")
def page():
    return send_file(os.environ["SOCKETIO_PAGE"])


@app.route("/socket.io.js")
def library():
    return send_file(os.environ["SOCKETIO_JS"])


@app.route("/result", methods=["POST"])
def result():
    print("result", request.get_data(as_text=True), flush=True)
    return ""


@socketio.on("connect")
def connected():
    emit("welcome", {"transport": "?"})


@socketio.on("echo")
def echo(data):
    return data


@socketio.on("join")
def join(data):
    join_room(data["room"])
    emit("joined", data["name"], to=data["room"])


@socketio.on("say")
def say(data):
    emit("said", data["text"], to=data["room"])


@socketio.on("count")
def count(number):
    def task(sid):
        for step in range(number):
            socketio.emit("step", step, to=sid)
            socketio.sleep(0)

    socketio.start_background_task(task, request.sid)


@socketio.on("disconnect")
def disconnected(reason):
    print("disconnected", reason, flush=True)


if __name__ == "__main__":
    socketio.run(app, host="127.0.0.1", port=int(sys.argv[1]))
