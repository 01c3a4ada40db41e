"""websockets' asyncio server, or picows' work-alike of it; on asyncio's loop or on uvloop."""

from __future__ import annotations

import asyncio

import arguments

options = arguments.read(__doc__, uvloop="run on uvloop", picows="picows.websockets instead of websockets")
if options.picows:
    from picows.websockets import broadcast, serve
    from picows.websockets.exceptions import ConnectionClosed
else:
    from websockets.asyncio.server import broadcast, serve
    from websockets.exceptions import ConnectionClosed
room = set()


async def handler(ws):
    try:
        if ws.request.path == "/broadcast":
            room.add(ws)
            async for message in ws:
                broadcast(room, message)
        else:
            async for message in ws:
                await ws.send(message)
    except ConnectionClosed:
        pass
    finally:
        room.discard(ws)


async def main():
    compression = "deflate" if options.compress else None
    async with serve(
        handler, "127.0.0.1", options.port, compression=compression, max_size=None, backlog=4096
    ):
        await asyncio.get_running_loop().create_future()


if options.uvloop:
    import uvloop

    uvloop.run(main())
else:
    asyncio.run(main())
