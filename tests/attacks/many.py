"""Attacks by numbers: half-open handshakes, silent TLS, readers that do not read, the last descriptor."""

from __future__ import annotations

import contextlib
import itertools
import resource
import time
from collections.abc import Iterator
from typing import Any

import gevent
from attack import Outcome, attack
from target import MIB, Target, bill
from wire import Wire, exchange, frame, request

__all__ = ["gone_after"]

#: How many connections each takes; `run.py --many` says so.
COUNTS = {"half-open": 500, "tls": 100, "readers": 50, "descriptors": 400}


@contextlib.contextmanager
def opened(port: int, count: int, data: bytes) -> Iterator[list[Wire]]:
    """Many connections that have sent the same bytes each."""
    wires: list[Wire] = []
    try:
        while len(wires) < count:
            wire = Wire(port, reading=False)
            wires.append(wire)
            wire.send(data)
        yield wires
    finally:
        for wire in wires:
            wire.reset()


def gone_after(wires: list[Wire], limit: float, step: Any = None) -> float | None:
    """Wait until the server has ended all of them; seconds, or None where it has not within `limit`."""
    start = time.monotonic()
    left = list(wires)
    while left:
        if time.monotonic() - start > limit:
            return None
        if step is not None:
            step(left)
        left = [wire for wire in left if not _has_ended(wire)]
        gevent.sleep(0.2)
    return time.monotonic() - start


def _has_ended(wire: Wire) -> bool:
    """Whether TCP is over, without waiting."""
    try:
        while True:
            data = wire.socket._sock.recv(65536)
            if not data:
                return True
            wire.data += data[:100]
    except BlockingIOError:
        return False
    except OSError:
        return True


def half_open(target: Target, port: int, data: bytes, count: int, slowly: bool) -> Outcome:
    """Hold connections that have said only the beginning of something."""
    turn = itertools.count()

    def step(left: list[Wire]) -> None:
        """A fifth of them send their byte, five times a second."""
        if slowly:
            for wire in left[next(turn) % 5 :: 5]:
                with contextlib.suppress(OSError):
                    wire.socket._sock.send(b"x")

    with bill(target) as cost, opened(port, count, data) as wires:
        gone = gone_after(wires, 25.0, step)
        left = sum(not _has_ended(wire) for wire in wires)
    outcome = Outcome(f"gone after {gone:.0f} s" if gone is not None else f"{left} of {count} stay")
    if gone is None:
        outcome.wrong.append(f"{left} of {count} are still served after 25 s")
    outcome.memory, outcome.cpu = cost.memory, cost.cpu
    return outcome


@attack(
    "T-SLOW1",
    "half-open handshakes, a byte a second: gone at the deadline",
    memory=lambda target: COUNTS["half-open"] * 16 * 1024 + 4 * MIB,
    cpu=30.0,
)
def _slow_heads(target: Target) -> Outcome:
    return half_open(target, target.port, request()[:-4] + b"\r\nX: ", COUNTS["half-open"], True)


@attack(
    "T-SLOW2",
    "connections that say nothing at all: gone at the deadline",
    memory=lambda target: COUNTS["half-open"] * 16 * 1024 + 4 * MIB,
    cpu=30.0,
)
def _silent(target: Target) -> Outcome:
    return half_open(target, target.port, b"", COUNTS["half-open"], False)


@attack(
    "T-TLS",
    "TCP without a TLS handshake: gone at the deadline",
    memory=lambda target: COUNTS["tls"] * 64 * 1024 + 4 * MIB,
    cpu=30.0,
    needs="tls",
)
def _silent_tls(target: Target) -> Outcome:
    return half_open(target, target.port, b"", COUNTS["tls"], False)


@attack("T-SLOWC", "echoes that nobody reads: cut within 25 s", memory=lambda t: 100 * MIB, cpu=4.0)
def _never_reading(target: Target) -> Outcome:
    with bill(target) as cost, Wire.open(target.port, reading=False, small=True) as wire:
        sending = gevent.spawn(wire.pour, iter([frame(0x82, bytes(32768))] * 2000), 25.0)
        gone = None
        start = time.monotonic()
        while time.monotonic() - start < 25:
            if wire.ended or _reset(wire):
                gone = time.monotonic() - start
                break
            gevent.sleep(0.2)
        sending.kill()
    outcome = Outcome(f"cut after {gone:.0f} s" if gone is not None else "held", sent=wire.sent)
    if gone is None:
        outcome.wrong.append("holds it after 25 s")
    outcome.memory, outcome.cpu = cost.memory, cost.cpu
    return outcome


def _reset(wire: Wire) -> bool:
    """Whether the server has cut TCP, without reading: the state of the socket tells."""
    import socket

    state = wire.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]
    # CLOSE, CLOSE_WAIT, LAST_ACK: its end has come.
    return state in (7, 8, 9)


@attack("T-HB", "a client that answers no Ping: cut within 60 s", witness=False, cpu=2.0)
def _no_pong(target: Target) -> Outcome:
    with bill(target) as cost, Wire.open(target.port) as wire:
        start = time.monotonic()
        wire.silent = True
        wire.wait_end(60)
        gone = time.monotonic() - start
        outcome = Outcome(f"{wire.verdict()} after {gone:.0f} s" if wire.ended else "open")
        if not wire.ended:
            outcome.wrong.append("open after 60 s")
    outcome.memory, outcome.cpu = cost.memory, cost.cpu
    return outcome


@attack(
    "T-FD", "more connections than descriptors: served, no spin, and accepts again", cpu=2.0, witness=False
)
def _descriptors(target: Target) -> Outcome:
    before = resource.prlimit(target.pid, resource.RLIMIT_NOFILE)
    with Wire.open(target.port) as old, bill(target) as cost:
        resource.prlimit(target.pid, resource.RLIMIT_NOFILE, (target.descriptors() + 100, before[1]))
        try:
            with opened(target.port, COUNTS["descriptors"], b"") as wires:
                gevent.sleep(3)
                lives = old.alive()
                for wire in wires:
                    wire.reset()
            start = time.monotonic()
            statuses: list[int] = []
            while 101 not in statuses and time.monotonic() - start < 10:
                with contextlib.suppress(OSError):
                    statuses, _, _ = exchange(target.port, request(), 1)
            back = time.monotonic() - start
        finally:
            resource.prlimit(target.pid, resource.RLIMIT_NOFILE, before)
    outcome = Outcome(f"back after {max(0, back - 1):.1f} s" if 101 in statuses else "not back")
    if not lives:
        outcome.wrong.append("who was connected is not served meanwhile")
    if 101 not in statuses:
        outcome.wrong.append("does not accept again")
    outcome.memory, outcome.cpu = cost.memory, cost.cpu
    return outcome


@attack(
    "T-SLOWB",
    "readers that never read in a broadcast of 20 MiB: cut, the others are not harmed",
    # Each may hold the option write_limit, a message and its objects.
    memory=lambda target: COUNTS["readers"] * (MIB + MIB // 8) + 8 * MIB,
    cpu=60.0,
    # To say 64 KiB to thousands takes its time, without an attack too.
    witness=False,
    needs="broadcast",
)
def _broadcast(target: Target) -> Outcome:
    count = COUNTS["readers"]
    with contextlib.ExitStack() as stack:
        for _ in range(count):
            stack.enter_context(Wire.open(target.port, path=b"/broadcast", reading=False, small=True))
        healthy = [stack.enter_context(Wire.open(target.port, path=b"/broadcast")) for _ in range(count)]
        speaker = stack.enter_context(Wire.open(target.port, path=b"/broadcast"))
        before = target.descriptors()
        with bill(target) as cost:
            for number in range(320):
                speaker.send(frame(0x82, bytes(65536)))
                for wire in healthy:
                    wire.wait_data((number + 1) * 65546)
            # Whoever does not read does not see the end of TCP either: the server has let go of its own end.
            until = time.monotonic() + 20
            while (cut := before - target.descriptors()) < count and time.monotonic() < until:
                gevent.sleep(0.2)
            got = [wire.received - wire.ping_bytes for wire in healthy]
            harmed = sum(size != 320 * 65546 for size in got) + sum(bool(wire.ended) for wire in healthy)
    outcome = Outcome(f"{cut} of {count} cut", sent=320 * 65546)
    if cut < count:
        outcome.wrong.append(f"{count - cut} slow ones are still there")
    if harmed:
        outcome.wrong.append(f"{harmed} of {count} others have not got everything")
    outcome.memory, outcome.cpu = cost.memory, cost.cpu
    return outcome
