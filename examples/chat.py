"""Chat rooms: ws://127.0.0.1:8888/chat/tea?name=Ann enters the room "tea" as Ann.

python examples/chat.py [port]
"""

import sys
from collections import defaultdict
from urllib.parse import parse_qs

from geventws import Router, WebSocketServer, broadcast

router = Router()  # any other path is answered with 404
rooms = defaultdict(set)  # the name of a room: the WebSockets in it


@router.route("/chat/<room>")
def chat(ws, room):
    name = parse_qs(ws.request.query).get("name", ["somebody"])[0]
    members = rooms[room]
    members.add(ws)
    broadcast(members, f"{name} joined")
    try:
        for message in ws:
            # broadcast() waits for nobody: a member whose connection cannot keep up is closed (1013) and
            # does not hold up the others.
            broadcast(members, f"{name}: {message}")
    finally:
        # However it ended: closed, broken off, or stopped by the server.
        members.discard(ws)
        broadcast(members, f"{name} left")
        if not members:
            del rooms[room]


if __name__ == "__main__":
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 8888
    # A limit for what one member may make the server send to everyone.
    server = WebSocketServer(("127.0.0.1", port), router, max_message_size=4096)
    server.start()
    print(f"listening on ws://127.0.0.1:{server.address[1]}", flush=True)
    server.serve_forever()
