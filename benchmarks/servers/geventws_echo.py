"""geventws, as it is measured: echo on every path, /broadcast to everyone connected there.

GEVENTWS_PURE_PYTHON=1 runs it in pure Python. The limits on sizes are off and the one on
connections is high, as with the servers beside it; everything else is a default.
"""

from __future__ import annotations

import argparse
import sys

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


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--compress", action="store_true", help="accept permessage-deflate")
    parser.add_argument("--build", choices=("compiled", "pure"), help="end unless it is this one")
    options = parser.parse_args()
    if options.build not in (None, geventws.IMPLEMENTATION):
        sys.exit(f"the {geventws.IMPLEMENTATION} build of geventws is installed, not the {options.build} one")
    server = geventws.WebSocketServer(
        ("127.0.0.1", options.port),
        handler,
        backlog=4096,
        compression=True if options.compress else None,
        max_message_size=None,
        max_fragments=None,
        max_connections=100_000,
    )
    server.start()
    print(f"listening on ws://127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
