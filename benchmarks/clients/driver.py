"""What the programs that measure a client have in common: arguments, rounds, and what they print.

Each names its library's way to open, to do one round trip and to close; `run_greenlets` and `run_tasks` do
the rest, the same for all. Nothing but the library that is measured is imported besides.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import sys
import time
from pathlib import Path

#: Handshakes under way at a time while connections are opened that are not measured.
_AT_ONCE = 64
#: Idle connections are left alone for so many seconds before memory is looked at.
_SETTLE = 1.0


class Failure(Exception):
    """What came is not what was sent."""


class Meter:
    """One measurement: what is to be done, what was counted, what it took.

    Attributes:
        options: the command line.
        running: clients go on while this is True.
        counts: messages or connections, one count for each connection that goes on at a time.
        message: what is sent, str or bytes.
    """

    def __init__(self):
        parser = argparse.ArgumentParser()
        parser.add_argument("--port", type=int, required=True)
        parser.add_argument("--mode", choices=("echo", "handshake", "idle"), default="echo")
        parser.add_argument("--connections", type=int, default=1)
        parser.add_argument("--size", type=int, default=32)
        parser.add_argument("--binary", action="store_true")
        parser.add_argument("--seconds", type=float, default=1.0)
        parser.add_argument("--warmup", type=float, default=0.3)
        parser.add_argument("--server-pid", type=int, action="append", default=[])
        self.options = options = parser.parse_args()
        self.uri = f"ws://127.0.0.1:{options.port}/"
        self.running = True
        self.counts = [0] * options.connections
        random = os.urandom(options.size)
        self.message = random if options.binary else random.hex()[: options.size]
        self._sample = {
            "mode": options.mode,
            "connections": options.connections,
            "errors": 0,
            "first_error": "",
        }
        self._before = 0

    def check(self, message):
        """Compare the first message of a connection with what was sent; of the others, the length is."""
        if message != self.message:
            raise Failure(f"{len(message)} bytes came back that were not sent")

    def fail(self, error):
        """Something went wrong: the measurement is worth nothing."""
        self._sample["errors"] += 1
        self._sample["first_error"] = f"{type(error).__name__}: {error}"
        self.running = False
        self.finish()

    def begin(self):
        """The warm-up is over."""
        self._counts = list(self.counts)
        self._server = self._server_seconds()
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def end(self):
        """The measured time is over."""
        cpu, wall = time.process_time() - self._cpu, time.perf_counter() - self._wall
        server = self._server_seconds() - self._server
        counts = [after - before for before, after in zip(self._counts, self.counts, strict=True)]
        self.running = False
        self._sample |= {
            "count": sum(counts),
            "per_conn": {"min": min(counts), "max": max(counts)},
            "seconds": wall,
            "cpu_s": cpu,
            "server_cpu_s": server,
            "rss_kib": _resident(),
        }
        self.finish()

    def before_opening(self):
        """Note the memory without the connections."""
        gc.collect()
        self._before = _resident()

    def opened(self, count):
        """All that wait are open: note the memory with them."""
        gc.collect()
        after = _resident()
        self._sample |= {
            "open": count,
            "count": count,
            "rss_kib": after,
            "rss_bytes_per_conn": (after - self._before) * 1024 / count,
        }
        self.finish()

    def finish(self):
        """Print what was found, and end the process: nobody waits for thousands of Closes."""
        print(json.dumps(self._sample), flush=True)
        sys.stderr.flush()
        os._exit(0)

    def _server_seconds(self):
        ticks = 0
        for pid in self.options.server_pid:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")


def _resident():
    """Resident memory of this process, KiB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") // 1024


def run_greenlets(meter, connect):
    """Measure a client of gevent, or one that is monkey-patched.

    Args:
        meter: the measurement.
        connect: opens a connection; what it returns has `send`, `receive` and `close`.
    """
    import gevent
    from gevent.pool import Pool

    options, message, size, counts = meter.options, meter.message, meter.options.size, meter.counts

    def guarded(function, *arguments):
        try:
            return function(*arguments)
        except Exception as error:
            meter.fail(error)

    def open_all(count):
        pool = Pool(_AT_ONCE)
        return pool.map(lambda _: guarded(connect), range(count))

    # No frame around them: each would be copied when its greenlet is switched to.
    def talk(number, ws):
        try:
            send, receive = ws.send, ws.receive
            send(message)
            meter.check(receive())
            while meter.running:
                send(message)
                if len(receive()) != size:
                    raise Failure("a message of another length")
                counts[number] += 1
        except Exception as error:
            meter.fail(error)

    def come_and_go(number):
        try:
            while meter.running:
                connect().close()
                counts[number] += 1
        except Exception as error:
            meter.fail(error)

    if options.mode == "idle":
        connect().close()
        meter.before_opening()
        connections = open_all(options.connections)
        waiting = [gevent.spawn(ws.receive) for ws in connections]
        gevent.sleep(_SETTLE)
        meter.opened(sum(not greenlet.dead for greenlet in waiting))
    if options.mode == "echo":
        for number, ws in enumerate(open_all(options.connections)):
            gevent.spawn(talk, number, ws)
    else:
        for number in range(options.connections):
            gevent.spawn(come_and_go, number)
    gevent.sleep(options.warmup)
    meter.begin()
    gevent.sleep(options.seconds)
    meter.end()


async def run_tasks(meter, connect):
    """Measure a client of asyncio; as `run_greenlets`, with functions to await."""
    options, message, size, counts = meter.options, meter.message, meter.options.size, meter.counts
    tasks = []

    async def guarded(awaitable):
        try:
            return await awaitable
        except Exception as error:
            meter.fail(error)

    async def open_all(count):
        free = asyncio.Semaphore(_AT_ONCE)

        async def open_one():
            async with free:
                return await guarded(connect())

        return await asyncio.gather(*(open_one() for _ in range(count)))

    async def talk(number, ws):
        try:
            send, receive = ws.send, ws.receive
            await send(message)
            meter.check(await receive())
            while meter.running:
                await send(message)
                if len(await receive()) != size:
                    raise Failure("a message of another length")
                counts[number] += 1
        except Exception as error:
            meter.fail(error)

    async def come_and_go(number):
        try:
            while meter.running:
                await (await connect()).close()
                counts[number] += 1
        except Exception as error:
            meter.fail(error)

    if options.mode == "idle":
        await (await connect()).close()
        meter.before_opening()
        connections = await open_all(options.connections)
        tasks += [asyncio.ensure_future(ws.receive()) for ws in connections]
        await asyncio.sleep(_SETTLE)
        meter.opened(sum(not task.done() for task in tasks))
    if options.mode == "echo":
        for number, ws in enumerate(await open_all(options.connections)):
            tasks.append(asyncio.ensure_future(talk(number, ws)))
    else:
        tasks += [asyncio.ensure_future(come_and_go(number)) for number in range(options.connections)]
    await asyncio.sleep(options.warmup)
    meter.begin()
    await asyncio.sleep(options.seconds)
    meter.end()
