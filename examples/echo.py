"""The smallest server: it sends every message back.

python examples/echo.py [port]
"""

import sys

from geventws import WebSocketServer


def echo(ws):
    # Each client has a greenlet of its own that runs this function. A message is str if the client sent text
    # and bytes if it sent binary; the loop ends when the client closes the connection.
    for message in ws:
        ws.send(message)


if __name__ == "__main__":
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 8888  # port 0: any that is free
    server = WebSocketServer(("127.0.0.1", port), echo)
    server.start()
    print(f"listening on ws://127.0.0.1:{server.address[1]}", flush=True)
    # Until Ctrl+C or SIGTERM: then all clients get a Close with code 1001, and this returns.
    server.serve_forever()
