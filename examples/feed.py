"""A feed: the server only sends, a price each second, and notices when a reader leaves.

python examples/feed.py [port] [seconds between two prices]
"""

import json
import random
import sys

from geventws import ConnectionClosed, WebSocketServer

SECONDS = float(sys.argv[2]) if len(sys.argv) > 2 else 1.0


def feed(ws):
    # This handler never receives. Messages that a reader sends all the same are dropped from here on; without
    # this they would fill the queue and hide the Close behind them.
    ws.discard_messages()
    price = 100.0
    try:
        while True:
            ws.send(json.dumps({"price": round(price, 2)}))
            price *= random.uniform(0.99, 1.01)
            # A pause that ends early when the connection does.
            ws.wait_closed(timeout=SECONDS)
    except ConnectionClosed as closed:
        # `send` raises this when the reader has left. Without the `except` the handler would end as quietly.
        print(f"reader left with code {closed.code}", flush=True)


if __name__ == "__main__":
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 8888
    server = WebSocketServer(("127.0.0.1", port), feed)
    server.start()
    print(f"listening on ws://127.0.0.1:{server.address[1]}", flush=True)
    server.serve_forever()
