"""granian: the ASGI application, or its own interface, RSGI. The work is done in a child process."""

from __future__ import annotations

import arguments
from granian import Granian

options = arguments.read(__doc__, no_compression="granian has no permessage-deflate", rsgi="use RSGI")
room = set()


async def rsgi(scope, protocol):
    from granian.rsgi import WebsocketMessageType as Type

    ws = await protocol.accept()
    broadcasting = scope.path == "/broadcast"
    if broadcasting:
        room.add(ws)
    try:
        while True:
            message = await ws.receive()
            if message.kind == Type.close:
                break
            for receiver in list(room) if broadcasting else (ws,):
                if message.kind == Type.string:
                    await receiver.send_str(message.data)
                else:
                    await receiver.send_bytes(message.data)
    finally:
        room.discard(ws)
    protocol.close()


if __name__ == "__main__":
    Granian(
        "granian_echo:rsgi" if options.rsgi else "asgi_app:app",
        address="127.0.0.1",
        port=options.port,
        interface="rsgi" if options.rsgi else "asgi",
        loop="uvloop",
        log_enabled=False,
        backlog=4096,
    ).serve()
