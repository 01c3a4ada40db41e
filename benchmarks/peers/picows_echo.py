"""picows on uvloop, or on asyncio's loop."""

from __future__ import annotations

import asyncio

import arguments
from picows import WSListener, WSMsgType, ws_create_server

options = arguments.read(
    __doc__, no_compression="picows leaves permessage-deflate to the user", asyncio="run on asyncio's loop"
)
room = set()


class Echo(WSListener):
    def on_ws_frame(self, transport, frame):
        kind = frame.msg_type
        if kind == WSMsgType.CLOSE:
            transport.send_close(frame.get_close_code(), frame.get_close_message())
            transport.disconnect()
        elif kind in (WSMsgType.TEXT, WSMsgType.BINARY):
            transport.send(kind, frame.get_payload_as_memoryview())


class Room(WSListener):
    def on_ws_connected(self, transport):
        room.add(transport)

    def on_ws_disconnected(self, transport):
        room.discard(transport)

    def on_ws_frame(self, transport, frame):
        kind = frame.msg_type
        if kind == WSMsgType.CLOSE:
            transport.disconnect()
        elif kind in (WSMsgType.TEXT, WSMsgType.BINARY):
            message = frame.get_payload_as_bytes()
            for receiver in list(room):
                receiver.send(kind, message)


def make_listener(request):
    return Room() if request.path == b"/broadcast" else Echo()


async def main():
    server = await ws_create_server(
        make_listener, "127.0.0.1", options.port, max_frame_size=1 << 30, backlog=4096
    )
    await server.serve_forever()


if options.asyncio:
    asyncio.run(main())
else:
    import uvloop

    uvloop.run(main())
