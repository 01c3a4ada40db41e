"""aiohttp, as it is out of the box."""

from __future__ import annotations

import asyncio
import ssl

import arguments
from aiohttp import WSMsgType, web

options = arguments.read(__doc__)


async def handler(request):
    ws = web.WebSocketResponse()
    await ws.prepare(request)
    async for message in ws:
        if message.type == WSMsgType.TEXT:
            await ws.send_str(message.data)
        elif message.type == WSMsgType.BINARY:
            await ws.send_bytes(message.data)
    return ws


async def main():
    context = None
    if options.certfile:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(options.certfile, options.keyfile)
    app = web.Application()
    app.router.add_get("/", handler)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", options.port, backlog=4096, ssl_context=context).start()
    await asyncio.get_running_loop().create_future()


asyncio.run(main())
