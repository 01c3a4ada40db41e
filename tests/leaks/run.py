"""Open, use and close connections many times, and fail where memory is not flat; `tox -e leaks` runs this.

    python tests/leaks/run.py                        100 000 connections, some minutes
    python tests/leaks/run.py --connections 10000
    python tests/leaks/run.py --scenario "reset"       only that one
    python tests/leaks/run.py --each 50000 --scenario "reset" --scenario "no Pong"    so many of each

A server in this process, its peers in another one. The scenarios take turns for some rounds; the first
rounds fill caches and free lists. Around each turn, when all connections are over and garbage is
collected, it is counted what is in use: blocks of Python's allocator, bytes of malloc (large objects, zlib,
OpenSSL, watchers), descriptors. What a scenario has added in all its turns, divided by its connections,
has to stay far below one block. Before that, a leak of one float for each connection is planted, and
must be found. No warning and no traceback may come meanwhile, but those that scenarios ask for.
"""

from __future__ import annotations

import argparse
import array
import collections
import ctypes
import dataclasses
import gc
import logging
import os
import random
import resource
import sys
import tempfile
import threading
import traceback
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from scenarios import PLANTED, SCENARIOS, Peer, Scenario

#: A leak is a whole block for each connection; what is seen of a scenario without one is below 0.05.
BLOCKS_PER_CONNECTION = 0.2
#: Objects above 512 bytes are not in blocks.
BYTES_PER_CONNECTION = 100.0
#: Counts go up and down by that much between two turns, whatever happens.
FEW_BLOCKS = 20
FEW_BYTES = 64 * 1024
#: Over all scenarios together they cancel out: there is less room.
BLOCKS_IN_ALL = 0.01
#: Of the resident set, which has holes and is never exact: so many bytes for each connection, and so many.
RESIDENT_PER_CONNECTION = 20.0
FEW_RESIDENT = 1 << 20

ROUNDS = 10
WARM_UP = 3
_SETTLE_SECONDS = 60.0


class Mallinfo(ctypes.Structure):
    """`struct mallinfo2` of the GNU C library."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks",
            "keepcost",
        )
    ]  # fmt: skip


def _find_mallinfo() -> Any:
    try:
        function = ctypes.CDLL(None).mallinfo2
    except AttributeError:
        return None
    function.restype = Mallinfo
    return function


_mallinfo = _find_mallinfo()

#: Python's cache of attributes keeps names that C code made for one look, thousands of them by and by.
_clear_caches = getattr(sys, "_clear_internal_caches", None) or sys._clear_type_cache


@dataclasses.dataclass(slots=True)
class Usage:
    """What was added.

    Attributes:
        blocks: of Python's allocator: an object is one, a list, set or dict two or more.
        allocated: bytes of malloc; 0 where the C library does not tell.
        descriptors: open ones.
        connections: that were made for it.
    """

    blocks: int = 0
    allocated: int = 0
    descriptors: int = 0
    connections: int = 0

    def add(self, other: Usage) -> None:
        self.blocks += other.blocks
        self.allocated += other.allocated
        self.descriptors += other.descriptors
        self.connections += other.connections


def judge(name: str, added: Usage) -> list[str]:
    """Say in what a scenario has leaked; empty where it has not."""
    found = []
    if added.blocks > max(FEW_BLOCKS, BLOCKS_PER_CONNECTION * added.connections):
        found.append(f"{added.blocks} blocks")
    if added.allocated > max(FEW_BYTES, BYTES_PER_CONNECTION * added.connections):
        found.append(f"{added.allocated} bytes of malloc")
    if added.descriptors > 0:
        found.append(f"{added.descriptors} descriptors")
    return [f"{name}: {what} more after {added.connections} connections" for what in found]


def judge_all(added: Usage, resident: int) -> list[str]:
    """The same of all scenarios together, and of the resident set."""
    found = []
    if added.blocks > max(FEW_BLOCKS, BLOCKS_IN_ALL * added.connections):
        found.append(f"{added.blocks} blocks")
    if resident > FEW_RESIDENT + RESIDENT_PER_CONNECTION * added.connections:
        found.append(f"{resident} resident bytes")
    return [f"all together: {what} more after {added.connections} connections" for what in found]


# The process of the peers


def _chunks(count: int, parts: int) -> Iterator[int]:
    for part in range(parts):
        yield count // parts + (part < count % parts)


def run_peers() -> None:
    """Do what standard input says, a line each: scenario, port, connections; answer with a line each."""
    failures: list[str] = []

    def work(name: str, scenario: Scenario, port: int, count: int) -> None:
        for _ in range(count):
            source = f"127.{random.randrange(1, 255)}.{random.randrange(256)}.{random.randrange(1, 255)}"
            try:
                peer = Peer(("127.0.0.1", port), source, name.replace(" ", "%20"), scenario)
                try:
                    scenario.peer(peer)
                finally:
                    peer.socket.close()
            except Exception:
                failures.append(traceback.format_exc())
                return

    for line in sys.stdin:
        name, port, count = line.rstrip("\n").split("\t")
        scenario = (SCENARIOS | PLANTED)[name]
        threads = [
            threading.Thread(target=work, args=(name, scenario, int(port), part))
            for part in _chunks(int(count), scenario.at_once)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        print(repr(failures[0]) if failures else "done", flush=True)


# The process of the server


class Complaints(logging.Handler):
    """What must not happen, however connections end: tracebacks, warnings, errors that nobody caught.

    Attributes:
        count: of them.
        first: the first few.
    """

    #: What handlers raise on purpose.
    EXPECTED = (ValueError, SystemExit)

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.count = 0
        self.first: list[str] = []
        # An object that is let go of while it is open says so.
        warnings.simplefilter("always", ResourceWarning)
        warnings.showwarning = lambda message, *_: self.add(f"warning: {message}")
        sys.unraisablehook = lambda what: self.add(f"ignored: {what.exc_value!r} in {what.object!r}")

    def watch(self, hub: Any) -> None:
        """Hear of greenlets that end with an error, too."""
        hub.print_exception = lambda context, kind, error, _: self.add(f"{context!r} ended with {error!r}")

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info and record.exc_info[1]
        if not isinstance(error, self.EXPECTED):
            self.add(logging.Formatter().format(record)[:2000])

    def add(self, what: str) -> None:
        """Keep one."""
        self.count += 1
        if len(self.first) < 5:
            self.first.append(what)


class Measurement:
    """Servers, their peers, and the turns that scenarios take."""

    def __init__(self, directory: Path) -> None:
        import gevent
        import gevent.subprocess
        import trustme

        import geventws

        # Tracebacks of handlers that raise on purpose are made as ever, and not printed.
        logger = logging.getLogger("geventws")
        logger.addHandler(logging.StreamHandler((directory / "log").open("w")))
        self.complaints = Complaints()
        logger.addHandler(self.complaints)
        self.complaints.watch(gevent.get_hub())
        logger.propagate = False
        self._gevent = gevent
        everything = SCENARIOS | PLANTED

        def handler(ws: Any, name: str) -> None:
            everything[name].handler(ws)

        certificate, key = directory / "certificate", directory / "key"
        issued = trustme.CA().issue_cert("localhost")
        issued.private_key_pem.write_to_path(key)
        for pem in issued.cert_chain_pems:
            pem.write_to_path(certificate, append=True)
        self._servers = [
            geventws.WebSocketServer(
                ("127.0.0.1", 0),
                geventws.Router({"/<name>": handler}),
                compression=geventws.Compression(threshold=100),
                max_message_size=256 * 1024,
                write_limit=64 * 1024,
                **tls,
            )
            for tls in (
                {},
                {"certfile": str(certificate), "keyfile": str(key)},
                {"ping_interval": 0.01, "ping_timeout": 0.01},
            )
        ]
        for server in self._servers:
            server.start()
        self._peers = gevent.subprocess.Popen(
            [sys.executable, __file__, "--peers"],
            stdin=gevent.subprocess.PIPE,
            stdout=gevent.subprocess.PIPE,
            universal_newlines=True,
        )
        # The hub, with its descriptors and its greenlet, is here from now on.
        gevent.sleep(0)
        self._greenlets = len(_running_greenlets())
        # Numbers in an array are no objects, which would be counted.
        self._before, self._after = array.array("q", [0] * 3), array.array("q", [0] * 3)

    def settle(self, counts: array.array[int]) -> None:
        """Wait until all connections are over, and count what is in use."""
        gevent = self._gevent
        with gevent.Timeout(_SETTLE_SECONDS, False):
            while True:
                gevent.sleep(0)
                gc.collect()
                open_now = sum(len(server.connections) for server in self._servers)
                if not open_now and len(_running_greenlets()) <= self._greenlets:
                    break
                gevent.sleep(0.005)
            # What has ended in this turn is let go of in the next ones.
            gevent.sleep(0)
            gevent.sleep(0)
            gc.collect()
            _clear_caches()
            info = _mallinfo() if _mallinfo is not None else None
            counts[2] = len(os.listdir("/proc/self/fd"))
            counts[1] = info.uordblks + info.hblkhd if info is not None else 0
            counts[0] = sys.getallocatedblocks()
            return
        raise SystemExit(
            f"!! FAILED: {open_now} connections are left, and these greenlets: {_running_greenlets()}"
        )

    def take_turn(self, name: str, scenario: Scenario, count: int, added: Usage) -> None:
        """Let peers make `count` connections, a few at a time, and note what that has added."""
        self.settle(self._before)
        # In a call of its own, whose variables are gone behind it.
        self._make_connections(name, scenario, count)
        self.settle(self._after)
        added.blocks += self._after[0] - self._before[0]
        added.allocated += self._after[1] - self._before[1]
        added.descriptors += self._after[2] - self._before[2]
        added.connections += count

    def _make_connections(self, name: str, scenario: Scenario, count: int) -> None:
        accepted = self._accepted()
        port = self._servers[2 if scenario.impatient else scenario.tls].server_port
        self._peers.stdin.write(f"{name}\t{port}\t{count}\n")
        self._peers.stdin.flush()
        answer = self._peers.stdout.readline().strip()
        if answer != "done":
            raise SystemExit(f"!! FAILED: {name}: a peer did not get what it expected: {answer}")
        if self._accepted() - accepted < count:
            raise SystemExit(f"!! FAILED: {name}: {count} connections were made, the server has fewer")

    def _accepted(self) -> int:
        return sum(server.stats.accepted for server in self._servers)

    def run_round(
        self, scenarios: dict[str, Scenario], counts: dict[str, int], sums: dict[str, Usage]
    ) -> None:
        """Let each scenario take a turn of so many connections."""
        for name, scenario in scenarios.items():
            self.take_turn(name, scenario, counts[name], sums[name])

    def stop(self) -> None:
        self._peers.stdin.close()
        self._peers.wait()
        self._peers.stdout.close()
        for server in self._servers:
            server.stop()


def _running_greenlets() -> list[Any]:
    import greenlet

    return [
        thing
        for thing in gc.get_objects()
        if isinstance(thing, greenlet.greenlet) and bool(thing) and not thing.dead
    ]


def resident_bytes() -> int:
    fields = Path("/proc/self/statm").read_text(encoding="ascii").split()
    return int(fields[1]) * resource.getpagesize()


def count_types() -> collections.Counter[str]:
    return collections.Counter(
        f"{type(thing).__module__}.{type(thing).__qualname__}" for thing in gc.get_objects()
    )


def find_planted(measurement: Measurement) -> bool:
    """Whether a leak that is there is found."""
    ((name, scenario),) = PLANTED.items()
    sums = {name: Usage()}
    for number in range(ROUNDS):
        if number == WARM_UP:
            sums[name] = Usage()
        measurement.take_turn(name, scenario, 100, sums[name])
    added = sums[name]
    print(f"planted: one float a connection; found: {added.blocks / added.connections:.3f} blocks each")
    return bool(judge(name, added))


def share(scenarios: dict[str, Scenario], connections: int) -> dict[str, int]:
    """How many connections each scenario makes in a round, where it is so many in all rounds together."""
    shares = sum(1 / scenario.every for scenario in scenarios.values())
    return {
        name: max(1, round(connections / ROUNDS / shares / scenario.every))
        for name, scenario in scenarios.items()
    }


def measure(measurement: Measurement, scenarios: dict[str, Scenario], counts: dict[str, int]) -> list[str]:
    """Run, print a line for each round and a table of the scenarios, and return what has leaked."""
    sums = {name: Usage() for name in scenarios}
    total = Usage()
    resident_before, types_before = 0, collections.Counter[str]()
    print(f"{'round':>6}{'connections':>12}{'blocks':>9}{'malloc KiB':>12}{'resident KiB':>14}", flush=True)
    for number in range(ROUNDS):
        if number == WARM_UP:
            for added in sums.values():
                total.add(added)
            sums = {name: Usage() for name in scenarios}
            resident_before, types_before = resident_bytes(), count_types()
        blocks = sum(added.blocks for added in sums.values())
        allocated = sum(added.allocated for added in sums.values())
        measurement.run_round(scenarios, counts, sums)
        made = total.connections + sum(added.connections for added in sums.values())
        blocks = sum(added.blocks for added in sums.values()) - blocks
        kib = (sum(added.allocated for added in sums.values()) - allocated) / 1024
        note = "  warm-up" if number < WARM_UP else ""
        print(
            f"{number + 1:>6}{made:>12}{blocks:>+9}{kib:>+12.1f}{resident_bytes() / 1024:>14.0f}{note}",
            flush=True,
        )
    resident = resident_bytes() - resident_before
    types = count_types()
    failures = []
    gc.collect()
    print(f"\n{'after the warm-up':32}{'connections':>12}{'blocks each':>13}{'malloc B each':>15}")
    total = Usage()
    for name, added in sums.items():
        found = judge(name, added)
        failures += found
        total.add(added)
        print(_row(name, added) + ("  LEAKS" if found else ""))
    print(_row("all", total))
    print(f"resident set: {resident / 1024:+.0f} KiB, {resident / total.connections:+.2f} bytes a connection")
    failures += judge_all(total, resident)
    if failures:
        grown = (types - types_before).most_common(10)
        some = BLOCKS_IN_ALL * total.connections
        failures += [f"    {count:+} objects of type {name}" for name, count in grown if count > some]
    return failures


def _row(name: str, added: Usage) -> str:
    count = added.connections
    return f"{name:32}{count:>12}{added.blocks / count:>13.4f}{added.allocated / count:>15.2f}"


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--connections", type=int, default=100_000, help="in all; default %(default)s")
    parser.add_argument("--each", type=int, help="of each scenario, instead of --connections")
    parser.add_argument(
        "--scenario", action="append", choices=[*SCENARIOS], metavar="NAME", help=", ".join(SCENARIOS)
    )
    parser.add_argument("--build", choices=("compiled", "pure"), help="end unless it is this one")
    parser.add_argument("--peers", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if arguments.peers:
        run_peers()
        return 0

    import geventws

    if arguments.build not in (None, geventws.IMPLEMENTATION):
        sys.exit(
            f"the {geventws.IMPLEMENTATION} build of geventws is installed, not the {arguments.build} one"
        )
    if not sys.getallocatedblocks():
        sys.exit("PYTHONMALLOC is set, and Python's allocator is not in use: its blocks cannot be counted")
    chosen = {name: SCENARIOS[name] for name in arguments.scenario or SCENARIOS}
    with tempfile.TemporaryDirectory(prefix="geventws-leaks-") as directory:
        measurement = Measurement(Path(directory))
        try:
            if not find_planted(measurement):
                print("!! FAILED: a leak that was planted was not found")
                return 1
            print(f"geventws {geventws.__version__} ({geventws.IMPLEMENTATION}), Python {sys.version}\n")
            if arguments.each is None:
                counts = share(chosen, arguments.connections)
            else:
                counts = dict.fromkeys(chosen, max(1, arguments.each // ROUNDS))
            failures = measure(measurement, chosen, counts)
            if measurement.complaints.count:
                failures.append(f"{measurement.complaints.count} complaints: {measurement.complaints.first}")
        finally:
            measurement.stop()
    for failure in failures:
        print(f"!! FAILED: {failure}")
    if not failures:
        print("no leaks")
    return int(bool(failures))


if __name__ == "__main__":
    sys.exit(main())
