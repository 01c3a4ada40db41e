"""The client against servers that others wrote, each as a process of its own.

websockets is always there; of the others those that are installed (`tox -e clients` installs them).
"""

from __future__ import annotations

import importlib.util
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme
from processes import Process
from support import PATIENCE

from geventws import Compression, ConnectionClosedError, ConnectionClosedOK, InvalidStatus, connect

pytestmark = pytest.mark.usefixtures("no_leaks")

#: Each listens on a port of its own, says so, and echoes, but for some messages: on "close" it closes with
#: 4001 and "bye", on "ping" it sends a Ping, and "pong" when that is answered. /refused gets 403.
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

INSTALLED = [name for name in SERVERS if importlib.util.find_spec(name.partition(".")[0])]


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module", params=INSTALLED)
def servers(
    request: pytest.FixtureRequest, authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[bool, str]]:
    """One server, plain and with TLS: its URIs by whether it is the latter."""
    directory = tmp_path_factory.mktemp("server")
    program, certificate = directory / "server.py", directory / "certificate.pem"
    program.write_text(HEAD + SERVERS[request.param])
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(str(certificate))
    with Process(program) as plain, Process(program, Path(certificate)) as encrypted:
        yield {False: plain.url(), True: encrypted.url().replace("ws:", "wss:")}


@pytest.fixture(params=[False, True], ids=["plain", "tls"])
def server(request: pytest.FixtureRequest, servers: dict[bool, str], authority: trustme.CA) -> Any:
    """Connects to a server."""
    context = ssl.create_default_context()
    authority.configure_trust(context)

    def open_websocket(path: str = "/", **options: Any) -> Any:
        # One that all of them know: some refuse who offers none.
        options.setdefault("subprotocols", ["b"])
        return connect(servers[request.param] + path, ssl_context=context, **options)

    return open_websocket


@pytest.mark.parametrize("window_bits", [None, 12, 15])
def test_echo(server: Any, window_bits: int | None) -> None:
    compression = None if window_bits is None else Compression(window_bits=window_bits)
    with server(compression=compression, max_message_size=None, subprotocols=["a", "b"]) as ws:
        assert ws.subprotocol == "b"
        assert compression is not None or ws.extensions == ""
        for message in ("", "text", "größer" * 100, b"\x00\xff", "x" * 70_000, bytes(range(256)) * 8192):
            ws.send(message)
            assert ws.receive(timeout=PATIENCE) == message
        for number in range(200):
            ws.send(str(number))
        assert [ws.receive(timeout=PATIENCE) for _ in range(200)] == [str(number) for number in range(200)]
        ws.send_fragments(["a", "b", "c"])
        assert ws.receive(timeout=PATIENCE) == "abc"
        assert ws.ping(b"x").wait(PATIENCE) >= 0
        ws.send("ping")
        assert ws.receive(timeout=PATIENCE) == "pong"
    assert isinstance(ws.close_error, ConnectionClosedOK)


def test_server_closes(server: Any) -> None:
    ws = server()
    ws.send("close")
    with pytest.raises(ConnectionClosedError) as caught:
        ws.receive(timeout=PATIENCE)
    assert (caught.value.code, caught.value.reason) == (4001, "bye")
    assert ws.wait_closed(PATIENCE)
    # Not by our own deadline: the server has ended TCP when it had our answer.
    assert "close_timeout" not in str(ws.close_error)


def test_closing_waits_for_nothing_but_the_server(server: Any) -> None:
    ws = server(close_timeout=PATIENCE)
    ws.close(1000, "done")
    assert ws.close_code == 1000
    assert isinstance(ws.close_error, ConnectionClosedOK)


def test_refused(server: Any) -> None:
    with pytest.raises(InvalidStatus) as caught:
        server("/refused")
    assert caught.value.response.status == 403
    assert b"not you" in caught.value.response.body
