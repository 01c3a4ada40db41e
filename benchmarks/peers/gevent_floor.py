"""No contestant: the least work that answers correct small frames on gevent, in pure Python.

It shows what gevent's switches and socket calls leave to a server. No UTF-8 check, no control
frames but Close, no limits, no permessage-deflate: not to be copied. By default one greenlet a
connection on gevent's own socket; with --callback the watcher's callback reads and answers.
"""

from __future__ import annotations

import base64
import hashlib

import arguments
from gevent import get_hub, spawn
from gevent.server import StreamServer

options = arguments.read(
    __doc__, no_compression="no permessage-deflate here", callback="no greenlet behind the handshake"
)
GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
live = set()


def unmask(key, data):
    length = len(data)
    mask = (key * ((length + 3) >> 2))[:length]
    return (int.from_bytes(data, "little") ^ int.from_bytes(mask, "little")).to_bytes(length, "little")


def answer(buffer):
    """Return the echoes of the whole frames in `buffer`, what is left of it, and whether a Close came."""
    position, out = 0, []
    while len(buffer) - position >= 6:
        length, size = buffer[position + 1] & 127, {126: 4, 127: 10}.get(buffer[position + 1] & 127, 2)
        if size > 2:
            if len(buffer) - position < size:
                break
            length = int.from_bytes(buffer[position + 2 : position + size], "big")
        stop = position + size + 4 + length
        if stop > len(buffer):
            break
        head = bytes((buffer[position], buffer[position + 1] & 127)) + buffer[position + 2 : position + size]
        key = buffer[position + size : position + size + 4]
        out.append(head + unmask(key, buffer[position + size + 4 : stop]))
        if buffer[position] & 15 == 8:
            return b"".join(out), b"", True
        position = stop
    return b"".join(out), buffer[position:], False


def handshake(sock):
    """Answer the opening handshake; return the bytes behind it."""
    data = b""
    while b"\r\n\r\n" not in data:
        more = sock.recv(8192)
        if not more:
            return None
        data += more
    head, rest = data.split(b"\r\n\r\n", 1)
    lines = (line.partition(b":") for line in head.split(b"\r\n"))
    key = next(value.strip() for name, _, value in lines if name.lower() == b"sec-websocket-key")
    accept = base64.b64encode(hashlib.sha1(key + GUID).digest())
    sock.sendall(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n"
    )
    return rest


class Reader:
    """Reads and answers in the hub."""

    def __init__(self, sock, rest):
        self.sock, self.rest = sock, rest
        self.watcher = get_hub().loop.io(sock.fileno(), 1)
        self.watcher.start(self.ready)
        live.add(self)

    def close(self):
        self.watcher.stop()
        self.watcher.close()
        self.sock.close()
        live.discard(self)

    def flush(self, out):
        self.sock.sendall(out)
        self.watcher.start(self.ready)

    def ready(self):
        raw = self.sock._sock
        try:
            data = raw.recv(65536)
            if not data:
                self.close()
                return
            out, self.rest, closing = answer(self.rest + data)
            try:
                sent = raw.send(out) if out else 0
            except BlockingIOError:
                sent = 0
            if sent < len(out):
                self.watcher.stop()
                spawn(self.flush, out[sent:])
            if closing:
                self.close()
        except OSError:
            self.close()


class Server(StreamServer):
    def do_close(self, *args):
        if not options.callback:
            super().do_close(*args)


def handle(sock, address):
    sock.setsockopt(6, 1, 1)
    rest = handshake(sock)
    if rest is None:
        sock.close()
        return
    if options.callback:
        Reader(sock, rest)
        return
    closing = False
    while not closing:
        out, rest, closing = answer(rest)
        if out:
            sock.sendall(out)
        data = b"" if closing else sock.recv(65536)
        if not data:
            return
        rest += data


Server(("127.0.0.1", options.port), handle, backlog=4096).serve_forever()
