"""python-socketio's own client: two of them talk to a server and print what came of it.

socketio_client.py URL TRANSPORTS [--echo-only]
"""

import queue
import sys

import socketio

url, transports, *rest = sys.argv[1:]
TIMEOUT = 20


def connect():
    client = socketio.Client(reconnection=False)
    client.came = queue.Queue()
    for name in ("welcome", "joined", "said", "step"):
        client.on(name, lambda data, name=name: client.came.put((name, data)))
    client.connect(url, transports=transports.split(","), wait_timeout=TIMEOUT)
    return client


one = connect()
print("echo", one.call("echo", {"a": [1, "ü"]}, timeout=TIMEOUT))
print("binary", one.call("echo", b"\0\xff", timeout=TIMEOUT))
print("big", len(one.call("echo", "x" * 600_000, timeout=TIMEOUT)))
print("transport", one.transport())
if not rest:
    two = connect()
    for client in (one, two):
        print(client.came.get(timeout=TIMEOUT)[0])
    for number, client in enumerate((one, two)):
        client.emit("join", {"room": "tea", "name": f"client {number}"})
        print(*client.came.get(timeout=TIMEOUT))
    print(*one.came.get(timeout=TIMEOUT))
    two.emit("say", {"room": "tea", "text": "milk?"})
    for client in (one, two):
        print(*client.came.get(timeout=TIMEOUT))
    one.emit("count", 5)
    print(*(one.came.get(timeout=TIMEOUT)[1] for _ in range(5)))
    two.disconnect()
one.disconnect()
