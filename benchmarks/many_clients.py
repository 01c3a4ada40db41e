"""Thousands of client connections in one process, each with its keepalive: do all of them live?

    python benchmarks/many_clients.py [--connections 5000] [--interval 2] [--intervals 10]

Opens them to `geventws echo` in another process, waits in `receive` on each in a greenlet of its own, and
after so many ping intervals tells how many are open and have had their Pings answered, and which share of a
CPU that took. Status 1 unless it is all of them. Needs Linux.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time
from pathlib import Path

import gevent
from gevent.pool import Pool
from run import raise_descriptor_limit

import geventws

_AT_ONCE = 100
_SPARE_DESCRIPTORS = 200


def resident() -> float:
    """Resident memory of this process, KiB."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * resource.getpagesize() / 1024


def wait(ws: geventws.WebSocket) -> None:
    """Receive until it is over, in whatever way."""
    try:
        for _ in ws:
            pass
    except geventws.ConnectionClosed:
        pass


def measure(port: int, options: argparse.Namespace) -> bool:
    uri = f"ws://127.0.0.1:{port}/"
    times = {"ping_interval": options.interval, "ping_timeout": options.timeout, "open_timeout": 60}
    geventws.connect(uri, **times).close()
    memory, start = resident(), time.monotonic()
    opened = Pool(_AT_ONCE).map(lambda _: geventws.connect(uri, **times), range(options.connections))
    waiting = [gevent.spawn(wait, ws) for ws in opened]
    gevent.sleep(0)
    took, memory = time.monotonic() - start, (resident() - memory) / options.connections
    print(f"{len(opened)} connections opened in {took:.1f} s, {memory:.1f} KiB each", flush=True)
    start, cpu = time.monotonic(), time.process_time()
    before = [ws.bytes_received for ws in opened]
    for _ in range(options.intervals):
        gevent.sleep(options.interval)
    took, cpu = time.monotonic() - start, time.process_time() - cpu
    alive = sum(not ws.closed for ws in opened)
    # Nothing but Pongs comes from this server.
    answered = sum(
        ws.latency is not None and ws.bytes_received > had for ws, had in zip(opened, before, strict=True)
    )
    pings = options.intervals * options.connections
    print(
        f"after {options.intervals} intervals of {options.interval:g} s: {alive} open, {answered} answered; "
        f"{cpu / took:.1%} of a CPU, {cpu / pings * 1e6:.1f} µs for each connection and interval",
        flush=True,
    )
    for ws in opened:
        ws.abort()
    gevent.joinall(waiting)
    return alive == answered == options.connections


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--connections", type=int, default=5000)
    parser.add_argument("--interval", type=float, default=2.0, help="seconds (default 2)")
    parser.add_argument("--timeout", type=float, default=10.0, help="seconds for a Pong (default 10)")
    parser.add_argument("--intervals", type=int, default=10)
    options = parser.parse_args()
    raise_descriptor_limit(options.connections + _SPARE_DESCRIPTORS)
    print(f"geventws {geventws.__version__}, {geventws.IMPLEMENTATION}", flush=True)
    server = subprocess.Popen(
        [sys.executable, "-m", "geventws", "echo", "--port", "0"], stdout=subprocess.PIPE, text=True
    )
    try:
        assert server.stdout is not None
        line = server.stdout.readline()
        if not line.startswith("listening on "):
            print("!! the server did not start", flush=True)
            return 2
        return 0 if measure(int(line.rpartition(":")[2]), options) else 1
    finally:
        server.terminate()
        server.wait(30)


if __name__ == "__main__":
    sys.exit(main())
