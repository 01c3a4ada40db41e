"""websockets' synchronous server: a thread for each connection, or a greenlet, monkey patched."""

from __future__ import annotations

import arguments

options = arguments.read(__doc__, gevent="greenlets: monkey.patch_all()")
room = set()


def handler(ws):
    from websockets.exceptions import ConnectionClosed

    try:
        if ws.request.path == "/broadcast":
            room.add(ws)
            for message in ws:
                for receiver in list(room):
                    receiver.send(message)
        else:
            for message in ws:
                ws.send(message)
    except ConnectionClosed:
        pass
    finally:
        room.discard(ws)


def main():
    if options.gevent:
        from gevent import monkey

        monkey.patch_all()
    import socket

    from websockets.sync.server import serve

    sock = socket.create_server(("127.0.0.1", options.port), backlog=4096)
    compression = "deflate" if options.compress else None
    with serve(handler, sock=sock, compression=compression, max_size=None) as server:
        server.serve_forever()


main()
