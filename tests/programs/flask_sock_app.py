"""flask-sock: routes, a timeout, a close with a code, options, a blueprint."""

from flask import Blueprint, Flask
from flask_sock import Sock

app = Flask(__name__)
app.config["SOCK_SERVER_OPTIONS"] = {"ping_interval": 25}
sock = Sock(app)
bp = Blueprint("deep", __name__, url_prefix="/deep")


@app.route("/")
def index():
    return "a page"


@sock.route("/echo")
def echo(ws):
    while True:
        data = ws.receive()
        if data == "close":
            break
        ws.send(data)


@sock.route("/impatient")
def impatient(ws):
    data = ws.receive(timeout=0.01)
    ws.send("nothing came" if data is None else data)
    ws.close(4001, "bye")


@sock.route("/reverse/<int:times>", bp=bp)
def reverse(ws, times):
    for _ in range(times):
        ws.send(ws.receive()[::-1])


app.register_blueprint(bp)
