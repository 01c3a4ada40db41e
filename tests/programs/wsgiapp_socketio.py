"""python-socketio without Flask: its WSGIApp on gevent.pywsgi."""

import sys

import socketio
from gevent import pywsgi
from geventwebsocket.handler import WebSocketHandler

sio = socketio.Server(async_mode="gevent")
app = socketio.WSGIApp(sio)


@sio.event
def echo(sid, data):
    return data


@sio.event
def disconnect(sid, reason):
    print("disconnected", reason, flush=True)


server = pywsgi.WSGIServer(("127.0.0.1", int(sys.argv[1])), app, handler_class=WebSocketHandler)
server.serve_forever()
