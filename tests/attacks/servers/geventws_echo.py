"""geventws as it is out of the box, with compression on; /broadcast says everything to everyone there."""

from __future__ import annotations

import logging

import arguments

import geventws

room = set()


def handler(ws):
    if ws.request.path != "/broadcast":
        for message in ws:
            ws.send(message)
        return
    room.add(ws)
    try:
        for message in ws:
            geventws.broadcast(room, message)
    finally:
        room.discard(ws)


logging.basicConfig(level=logging.INFO)
options = arguments.read(__doc__)
tls = {"certfile": options.certfile, "keyfile": options.keyfile} if options.certfile else {}
server = geventws.WebSocketServer(("127.0.0.1", options.port), handler, backlog=4096, compression=True, **tls)
server.serve_forever()
