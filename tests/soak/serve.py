"""The server of a soak, a process of its own: what it serves goes wrong on purpose all the time.

Standard output: a line with its ports, then a line of JSON for each line on standard input, when all
connections but so many are over: what is in use. `interrupt` in here ends greenlets inside `send`.
"""

from __future__ import annotations

import argparse
import array
import ctypes
import gc
import json
import logging
import os
import random
import resource
import sys
import time
from pathlib import Path
from typing import Any

import gevent
import gevent.fileobject
import greenlet
from judge import make_message

import geventws

_libc = ctypes.CDLL(None)

#: Seconds until all connections that are about to end have ended.
_SETTLE_SECONDS = 180.0

random_numbers = random.Random()


class OnPurpose(Exception):
    """What handlers here raise; nothing else may be logged as an error."""


class Problems(logging.Handler):
    """Counts the log records of failures, and keeps the first few."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.count = 0
        self.first: list[str] = []
        self.on_purpose = 0

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info and record.exc_info[0] is OnPurpose:
            self.on_purpose += 1
            return
        self.count += 1
        if len(self.first) < 5:
            self.first.append(logging.Formatter().format(record)[:2000])


counts = {"interrupted": 0, "interruptions_tried": 0}
rooms: dict[str, set[Any]] = {}
kept: list[object] = []
planted: list[str] = []


def interrupt(send: Any, *arguments: Any) -> bool:
    """Call something that sends, and break it off by a time-out or a kill; tell whether it came through."""
    counts["interruptions_tried"] += 1
    if random_numbers.random() < 0.5:
        done = False
        with gevent.Timeout(random_numbers.choice((0, 0.0003, 0.002)), False):
            send(*arguments)
            done = True
    else:
        sending = gevent.spawn(attempt, send, *arguments)
        for _ in range(random_numbers.randrange(4)):
            gevent.sleep(0)
        sending.kill()
        if isinstance(sending.value, geventws.ConnectionClosed):
            raise sending.value
        # A kill is what it returns otherwise.
        done = sending.value is True
    counts["interrupted"] += not done
    return done


def attempt(call: Any, *arguments: Any) -> Any:
    """Call it; True, or that the connection is closed, which gevent would print if it were raised."""
    try:
        call(*arguments)
    except geventws.ConnectionClosed as error:
        return error
    return True


def send(ws: Any, message: Any) -> None:
    """Send one message once, after attempts that were broken off: of those nothing may arrive."""
    if random_numbers.random() < 0.1:
        while not interrupt(ws.send, message):
            if random_numbers.random() < 0.3:
                break
        else:
            return
    ws.send(message)


def echo(ws: Any) -> None:
    """Send everything back, now and then in fragments."""
    held = None
    for message in ws:
        if planted and random_numbers.random() < 0.02:
            if "lose" in planted:
                continue
            if "double" in planted:
                ws.send(message)
            elif "corrupt" in planted:
                message = message[:-1] + (b"?" if isinstance(message, bytes) else "?")
            elif "leak" in planted:
                kept.append(bytearray(5000))
            elif "reorder" in planted and held is None:
                held = message
                continue
        if random_numbers.random() < 0.05 and len(message) > 3:
            third = len(message) // 3
            ws.send_fragments([message[:third], message[third : 2 * third], message[2 * third :]])
        else:
            send(ws, message)
        if held is not None:
            held = ws.send(held)


def close_after(ws: Any, number: str) -> None:
    """Echo so many messages, then close; another code tells that it was us."""
    for _ in range(int(number)):
        send(ws, ws.receive())
    ws.close(4000, "enough")


def feed(ws: Any, number: str) -> None:
    """Three greenlets send at once, so many messages each."""
    ws.discard_messages()

    def sender(name: int) -> None:
        for index in range(int(number)):
            body = random_numbers.randbytes(int(2 ** random_numbers.uniform(0, 14))).hex().encode()
            message = make_message(name, index, body)
            if random_numbers.random() < 0.1:
                ws.send_fragments([message[:7], b"", message[7:]])
            else:
                send(ws, message.decode() if random_numbers.random() < 0.5 else message)
            gevent.sleep(random_numbers.choice((0, 0.01)))

    sending = [gevent.spawn(attempt, sender, name) for name in range(3)]
    try:
        gevent.joinall(sending)
    finally:
        gevent.killall(sending)


def room(ws: Any, name: str) -> None:
    """Broadcast to everyone here."""
    members = rooms.setdefault(name, set())
    members.add(ws)
    try:
        for message in ws:
            geventws.broadcast(members, message)
    finally:
        members.discard(ws)
        if not members:
            rooms.pop(name, None)


def ping(ws: Any) -> None:
    """Echo, with Pings of ours all the time; some that nobody waits for."""
    for message in ws:
        pong = ws.ping()
        if random_numbers.random() < 0.5:
            with gevent.Timeout(random_numbers.choice((0, 0.001, 5)), False):
                pong.wait()
        send(ws, message)


def fail(ws: Any) -> None:
    send(ws, ws.receive())
    raise OnPurpose


def be_killed(ws: Any) -> None:
    send(ws, ws.receive())
    gevent.getcurrent().kill(block=False)
    ws.receive()


def exit_(ws: Any) -> None:
    send(ws, ws.receive())
    ws.abort()


class Server:
    """The servers, plain and TLS, and what is in use."""

    def __init__(self, certificate: str, key: str) -> None:
        router = geventws.Router(
            {
                "/echo": echo,
                "/close/<number>": close_after,
                "/feed/<number>": feed,
                "/room/<name>": room,
                "/ping": ping,
                "/fail": fail,
                "/kill": be_killed,
                "/abort": exit_,
            }
        )
        self.servers = [
            geventws.WebSocketServer(
                ("127.0.0.1", 0),
                router,
                compression=geventws.Compression(threshold=100),
                write_limit=128 * 1024,
                # Nobody here is slow but on purpose, and on a busy machine everybody is: time-outs that
                # no life waits for are long.
                open_timeout=120.0,
                write_timeout=60.0,
                close_timeout=60.0,
                ping_interval=1.0,
                ping_timeout=30.0,
                backlog=1024,
                **tls,
            )
            for tls in ({}, {"certfile": certificate, "keyfile": key})
        ]
        self.problems = Problems()
        logger = logging.getLogger("geventws")
        logger.addHandler(self.problems)
        logger.propagate = False
        for server in self.servers:
            server.start()
        # Numbers in an array are no objects, which would be counted.
        self._numbers = array.array("q", [0] * 5)

    def open_now(self) -> int:
        return sum(len(server.connections) for server in self.servers)

    def settle(self, residents: int) -> dict[str, Any]:
        """Wait until only the residents are connected, and tell what is in use."""
        numbers = self._numbers
        limit = time.monotonic() + _SETTLE_SECONDS
        least, calm = None, 0
        while time.monotonic() < limit and calm < 5:
            gc.collect()
            if self.open_now() > residents:
                gevent.sleep(0.05)
                continue
            # What has ended is let go of in the next turns: until nothing becomes less any more.
            gevent.sleep(0.02)
            running = _count_greenlets()
            calm = calm + 1 if least is not None and running >= least else 0
            least = running if least is None else min(least, running)
        (getattr(sys, "_clear_internal_caches", None) or sys._clear_type_cache)()
        _libc.malloc_trim(0)
        info = _libc.mallinfo2() if _mallinfo else None
        numbers[0] = sys.getallocatedblocks()
        numbers[1] = info.uordblks + info.hblkhd if info is not None else 0
        numbers[2] = len(os.listdir("/proc/self/fd"))
        numbers[3] = _count_greenlets()
        numbers[4] = _resident()
        stats: dict[str, int] = {}
        for server in self.servers:
            for name in dir(server.stats):
                value = getattr(server.stats, name)
                if not name.startswith("_") and isinstance(value, int):
                    stats[name] = stats.get(name, 0) + value
        return {
            "connections": self.open_now(),
            "blocks": numbers[0],
            "allocated": numbers[1],
            "descriptors": numbers[2],
            "greenlets": numbers[3],
            "resident": numbers[4],
            "cpu": time.process_time(),
            "stats": stats,
            "problems": self.problems.count,
            "first_problems": self.problems.first,
            "on_purpose": self.problems.on_purpose,
            **counts,
        }


def _mallinfo_type() -> Any:
    # In the order of `struct mallinfo2`.
    fields = (
        "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks",
        "keepcost",
    )  # fmt: skip
    return type("Mallinfo", (ctypes.Structure,), {"_fields_": [(name, ctypes.c_size_t) for name in fields]})


_mallinfo = hasattr(_libc, "mallinfo2")
if _mallinfo:
    _libc.mallinfo2.restype = _mallinfo_type()


def _count_greenlets() -> int:
    return sum(
        isinstance(thing, greenlet.greenlet) and bool(thing) and not thing.dead for thing in gc.get_objects()
    )


def _resident() -> int:
    fields = Path("/proc/self/statm").read_text(encoding="ascii").split()
    return int(fields[1]) * resource.getpagesize()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--certificate", required=True)
    parser.add_argument("--key", required=True)
    parser.add_argument("--plant", default="")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    planted.extend(filter(None, [arguments.plant]))
    random_numbers.seed(arguments.seed)
    server = Server(arguments.certificate, arguments.key)
    print(json.dumps([one.server_port for one in server.servers]), flush=True)
    commands = gevent.fileobject.FileObject(sys.stdin, "rb")
    for line in commands:
        print(json.dumps(server.settle(int(line))), flush=True)
    for one in server.servers:
        one.stop(2)
    return 0


if __name__ == "__main__":
    sys.exit(main())
