"""aiohttp, on asyncio's loop or on uvloop."""

from __future__ import annotations

import asyncio

import arguments
from aiohttp import WSMsgType, web

options = arguments.read(__doc__, uvloop="run on uvloop")
room = set()


async def handler(request):
    ws = web.WebSocketResponse(compress=options.compress, max_msg_size=0)
    await ws.prepare(request)
    broadcasting = request.path == "/broadcast"
    if broadcasting:
        room.add(ws)
    try:
        async for message in ws:
            for receiver in list(room) if broadcasting else (ws,):
                if message.type == WSMsgType.TEXT:
                    await receiver.send_str(message.data)
                elif message.type == WSMsgType.BINARY:
                    await receiver.send_bytes(message.data)
    finally:
        room.discard(ws)
    return ws


async def main():
    app = web.Application()
    app.router.add_get("/{path:.*}", handler)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", options.port, backlog=4096).start()
    await asyncio.get_running_loop().create_future()


if options.uvloop:
    import uvloop

    uvloop.run(main())
else:
    asyncio.run(main())
