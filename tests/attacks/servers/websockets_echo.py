"""websockets' asyncio server, as it is out of the box."""

from __future__ import annotations

import asyncio
import ssl

import arguments
from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed

options = arguments.read(__doc__)


async def handler(ws):
    try:
        async for message in ws:
            await ws.send(message)
    except ConnectionClosed:
        pass


async def main():
    context = None
    if options.certfile:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(options.certfile, options.keyfile)
    async with serve(handler, "127.0.0.1", options.port, backlog=4096, ssl=context):
        await asyncio.get_running_loop().create_future()


asyncio.run(main())
