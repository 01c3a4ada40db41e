"""An echo application in plain ASGI, for the servers that run one."""

from __future__ import annotations

room = set()


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            event = await receive()
            await send({"type": event["type"] + ".complete"})
            if event["type"] == "lifespan.shutdown":
                return
    if scope["type"] != "websocket":
        return
    broadcasting = scope["path"] == "/broadcast"
    await receive()
    await send({"type": "websocket.accept"})
    if broadcasting:
        room.add(send)
    try:
        while True:
            event = await receive()
            if event["type"] != "websocket.receive":
                return
            if event.get("text") is not None:
                answer = {"type": "websocket.send", "text": event["text"]}
            else:
                answer = {"type": "websocket.send", "bytes": event["bytes"]}
            if broadcasting:
                for receiver in list(room):
                    await receiver(answer)
            else:
                await send(answer)
    finally:
        room.discard(send)
