"""A server that does what its client asks for: pings, fragments, closing, with the compression of choice.

`geventws echo` only answers; here the server begins. One process listens on all transports, and with
each of the settings of compression; it prints where as JSON, and how each connection ended.

    python dialogue.py --certfile F --keyfile F --unix PATH
"""

from __future__ import annotations

import argparse
import json
import signal
import socket

import gevent
from gevent.event import Event
from payloads import make

from geventws import Compression, WebSocketServer

COMPRESSION = {
    "none": None,
    "default": True,
    "large": Compression(window_bits=15, mem_level=8),
    "frugal": Compression(window_bits=9, mem_level=1, context_takeover=False),
    "eager": Compression(threshold=0),
}

#: Seconds.
PONG_TIMEOUT = 20


def echo(ws):
    for message in ws:
        ws.send(message)


def obey(ws):
    """Do what the text messages say; binary ones are echoed."""
    for message in ws:
        if isinstance(message, bytes):
            ws.send(message)
            continue
        order = json.loads(message)
        if order["do"] == "ping":
            pong = ws.ping(order["data"].encode())
            pong.wait(PONG_TIMEOUT)
            ws.send("pong")
        elif order["do"] == "send fragments":
            payload = make(order["kind"], order["size"])
            step = -(-len(payload) // order["parts"])
            ws.send_fragments(payload[i : i + step] for i in range(0, len(payload), step))
        elif order["do"] == "count":
            ws.send(json.dumps({"received": ws.bytes_received, "sent": ws.bytes_sent}))
        elif order["do"] == "close":
            ws.close(order["code"], order["reason"])
            return
        else:
            raise ValueError(f"unknown order: {order!r}")


def handle(ws):
    try:
        (obey if ws.request.path == "/obey" else echo)(ws)
    finally:
        ws.wait_closed(PONG_TIMEOUT)
        end = {"query": ws.request.query, "code": ws.close_code, "reason": ws.close_reason}
        print("ended " + json.dumps(end), flush=True)


def unix_listener(path):
    listener = gevent.socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(16)
    return listener


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--certfile", required=True)
    parser.add_argument("--keyfile", required=True)
    parser.add_argument("--unix", required=True)
    arguments = parser.parse_args()
    tls = {"certfile": arguments.certfile, "keyfile": arguments.keyfile}
    unlimited = {"max_message_size": None, "max_fragments": None}
    servers, addresses = [], {}
    for name, compression in COMPRESSION.items():
        options = {"compression": compression, **unlimited}
        servers.append(WebSocketServer(("127.0.0.1", 0), handle, **options))
        servers[-1].start()
        addresses[f"tcp {name}"] = f"127.0.0.1:{servers[-1].server_port}"
    servers.append(WebSocketServer(("127.0.0.1", 0), handle, compression=True, **unlimited, **tls))
    servers[-1].start()
    addresses["tls default"] = f"127.0.0.1:{servers[-1].server_port}"
    servers.append(WebSocketServer(unix_listener(arguments.unix), handle, compression=True, **unlimited))
    servers[-1].start()
    addresses["unix default"] = arguments.unix
    stopping = Event()
    gevent.signal_handler(signal.SIGTERM, stopping.set)
    print("listening on " + json.dumps(addresses), flush=True)
    stopping.wait()
    for server in servers:
        server.stop(5)


if __name__ == "__main__":
    main()
