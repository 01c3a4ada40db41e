"""Servers that others wrote, as programs that the tests run; Python's and Node's.

Each listens on a port of its own, says so, and echoes, but for some messages: on "close" it closes with
4001 and "bye", on "ping" it sends a Ping, and "pong" when that is answered. /refused gets 403.
"""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

from processes import Process

__all__ = ["INSTALLED", "run_server"]

#: What those in Python begin with; TLS where a certificate is named.
HEAD = """
import ssl, sys
context = None
if sys.argv[1:]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(sys.argv[1])

def announce(port):
    print(f"listening on ws://127.0.0.1:{port}", flush=True)
"""

SERVERS = {
    "websockets": """
import asyncio, http
from websockets.asyncio.server import serve

async def handle(ws):
    async for message in ws:
        if message == "close":
            await ws.close(4001, "bye")
        elif message == "ping":
            await (await ws.ping())
            await ws.send("pong")
        else:
            await ws.send(message)

def refuse(ws, request):
    if request.path == "/refused":
        return ws.respond(http.HTTPStatus.FORBIDDEN, "not you")

async def main():
    async with serve(handle, "127.0.0.1", 0, ssl=context, subprotocols=["b"], process_request=refuse,
                     max_size=None) as server:
        announce(server.sockets[0].getsockname()[1])
        await server.wait_closed()

asyncio.run(main())
""",
    "websockets.sync": """
import http
from websockets.sync.server import serve

def handle(ws):
    for message in ws:
        if message == "close":
            ws.close(4001, "bye")
        elif message == "ping":
            ws.ping().wait()
            ws.send("pong")
        else:
            ws.send(message)

def refuse(ws, request):
    if request.path == "/refused":
        return ws.respond(http.HTTPStatus.FORBIDDEN, "not you")

with serve(handle, "127.0.0.1", 0, ssl=context, subprotocols=["b"], process_request=refuse,
           max_size=None) as server:
    announce(server.socket.getsockname()[1])
    server.serve_forever()
""",
    "aiohttp": """
import asyncio
from aiohttp import WSMsgType, web

async def handle(request):
    if request.path == "/refused":
        return web.Response(status=403, text="not you")
    ws = web.WebSocketResponse(protocols=["b"], max_msg_size=0, autoping=True)
    await ws.prepare(request)
    async for message in ws:
        if message.data == "close":
            await ws.close(code=4001, message=b"bye")
        elif message.data == "ping":
            await ws.ping()
            await ws.send_str("pong")
        elif message.type is WSMsgType.TEXT:
            await ws.send_str(message.data)
        else:
            await ws.send_bytes(message.data)
    return ws

async def main():
    app = web.Application()
    app.router.add_get("/{path:.*}", handle)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
    await site.start()
    announce(runner.addresses[0][1])
    await asyncio.Event().wait()

asyncio.run(main())
""",
    "gevent-websocket": """
from gevent.pywsgi import WSGIServer
from geventwebsocket.handler import WebSocketHandler
from geventwebsocket.websocket import WebSocket

# It has no way to hear of a Pong but this.
WebSocket.handle_pong = lambda ws, header, payload: ws.send("pong")

class Application:
    def app_protocol(self, path):
        return "b"

    def __call__(self, environ, start_response):
        ws = environ.get("wsgi.websocket")
        if ws is None:
            start_response("403 Forbidden", [])
            return [b"not you"]
        while (message := ws.receive()) is not None:
            if message == "close":
                ws.close(4001, "bye")
                break
            elif message == "ping":
                ws.send_frame("asked", ws.OPCODE_PING)
            else:
                ws.send(message)
        return []

tls = {"certfile": sys.argv[1], "keyfile": sys.argv[1]} if context else {}
server = WSGIServer(("127.0.0.1", 0), Application(), handler_class=WebSocketHandler, log=None, **tls)
# What it upgrades nobody can refuse later.
server.pre_start_hook = lambda handler: handler.environ["PATH_INFO"] == "/refused"
server.start()
announce(server.server_port)
server.serve_forever()
""",
    "tornado": """
import asyncio
from tornado import httpserver, netutil, web, websocket

class Echo(websocket.WebSocketHandler):
    def select_subprotocol(self, offered):
        return "b" if "b" in offered else None

    def get_compression_options(self):
        return {}

    def check_origin(self, origin):
        return True

    def on_pong(self, data):
        if data == b"asked":
            self.write_message("pong")

    def on_message(self, message):
        if message == "close":
            self.close(4001, "bye")
        elif message == "ping":
            self.ping(b"asked")
        else:
            self.write_message(message, binary=isinstance(message, bytes))

class Refused(web.RequestHandler):
    def get(self):
        self.set_status(403)
        self.finish("not you")

async def main():
    app = web.Application([("/refused", Refused), ("/.*", Echo)], websocket_max_message_size=2**30)
    server = httpserver.HTTPServer(app, ssl_options=context)
    sockets = netutil.bind_sockets(0, "127.0.0.1")
    server.add_sockets(sockets)
    announce(sockets[0].getsockname()[1])
    await asyncio.Event().wait()

asyncio.run(main())
""",
}

#: Node's; `ws` is found through NODE_PATH.
NODE = """
'use strict';
const fs = require('fs');
const { WebSocketServer } = require('ws');

const certificate = process.argv[2];
const pem = certificate && fs.readFileSync(certificate);
const server = pem ? require('https').createServer({ cert: pem, key: pem }) : require('http').createServer();
server.on('request', (request, response) => {
  response.writeHead(426).end();
});
const options = { noServer: true, maxPayload: 0, perMessageDeflate: { threshold: 0 } };
const wss = new WebSocketServer({ ...options, handleProtocols: (names) => (names.has('b') ? 'b' : false) });
server.on('upgrade', (request, socket, head) => {
  if (request.url === '/refused') {
    socket.end('HTTP/1.1 403 Forbidden\\r\\nContent-Length: 7\\r\\nConnection: close\\r\\n\\r\\nnot you');
    return;
  }
  wss.handleUpgrade(request, socket, head, (ws) => {
    ws.on('pong', (data) => {
      if (String(data) === 'asked') ws.send('pong');
    });
    ws.on('message', (data, isBinary) => {
      if (!isBinary && String(data) === 'close') ws.close(4001, 'bye');
      else if (!isBinary && String(data) === 'ping') ws.ping('asked');
      else ws.send(isBinary ? data : String(data), { binary: isBinary });
    });
    ws.on('error', (error) => process.stderr.write(`${error.stack}\\n`));
  });
});
server.listen(0, '127.0.0.1', () => {
  console.log(`listening on ws://127.0.0.1:${server.address().port}`);
});
"""

_MODULES = {"gevent-websocket": "geventwebsocket"}

#: Those that can be run here; Node's `ws` where GEVENTWS_NODE_DIR says where to install it.
INSTALLED = [
    name for name in SERVERS if importlib.util.find_spec(_MODULES.get(name, name.partition(".")[0]))
] + ["Node ws"] * ("GEVENTWS_NODE_DIR" in os.environ)


def run_server(name: str, directory: Path, certificate: Path | None = None) -> Process:
    """Return the process of a server, to be entered.

    Args:
        name: one of `INSTALLED`.
        directory: where its program is written to.
        certificate: a file with certificate and key, for TLS.
    """
    node = name == "Node ws"
    program = directory / ("server.cjs" if node else "server.py")
    program.write_text(NODE if node else HEAD + SERVERS[name], encoding="ascii")
    arguments = [program] if certificate is None else [program, certificate]
    if node:
        return Process(*arguments, interpreter=("node",))
    # gevent-websocket is of 2017, and shows it in warnings.
    return Process(*(["-W", "ignore"] if name == "gevent-websocket" else []), *arguments)
