"""A hundred attackers of all kinds, again and again, beside five hundred well-behaved clients."""

from __future__ import annotations

import contextlib
import itertools
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import gevent
from target import MIB, Target, Witness
from wire import Wire, frame, request

__all__ = ["crowd"]

CLIENTS = 500
ATTACKERS = 100
#: Messages a second of all clients together.
RATE = 500
SECONDS = 10.0
ATTEMPTS = 3


def _attacks() -> list[Any]:
    from frames import DEFLATE, chunks, deflate

    bomb = frame(0xC2, deflate(64 * MIB))

    def pour(parts: Any, *lines: bytes, reading: bool = True) -> Any:
        def run(port: int) -> None:
            with Wire.open(port, *lines, reading=reading) as wire:
                wire.pour(parts(), 5)

        return run

    def half(port: int) -> None:
        with Wire(port, reading=False) as wire:
            wire.send(request()[:-4])
            gevent.sleep(random.random() * 5)

    def refused(port: int) -> None:
        with Wire(port) as wire:
            wire.send(request(*(b"X: %d" % number for number in range(2000))))
            wire.wait_end(5)

    return [
        pour(lambda: itertools.chain([frame(1)], chunks(frame(0) * 10_000, 12 * MIB))),
        pour(lambda: chunks(frame(0x89, bytes(125)) * 500, 8 * MIB), reading=False),
        pour(lambda: itertools.chain([b"\x82\xff\x40" + bytes(11)], chunks(bytes(1 << 16), 8 * MIB))),
        pour(lambda: iter([bomb]), DEFLATE),
        pour(lambda: iter([frame(0x83)])),
        pour(lambda: chunks(frame(0x82, bytes(32768)), 8 * MIB), reading=False),
        half,
        refused,
    ]


def attackers(port: int) -> None:
    """Attack until killed."""
    random_numbers = random.Random(1)
    kinds = _attacks()

    def live(number: int) -> None:
        while True:
            with contextlib.suppress(OSError):
                kinds[number % len(kinds)](port)
            # Each comes back ten times a second at the most: a hundred processes, not one that spins.
            gevent.sleep(0.1 + random_numbers.random() * 0.1)

    gevent.joinall([gevent.spawn(live, number) for number in range(ATTACKERS)])


def measure(target: Target) -> list[str]:
    """Once: the clients alone, then beside the attackers."""
    with Witness(target, CLIENTS, RATE) as witness:
        gevent.sleep(3)
        witness.take()
        gevent.sleep(SECONDS)
        calm = witness.take()
        command = [sys.executable, str(Path(__file__)), str(target.port)]
        with subprocess.Popen(command) as attacking:
            try:
                gevent.sleep(1)
                witness.take()
                resident = target.resident()
                target.forget_peak()
                cpu, start = target.cpu(), time.monotonic()
                gevent.sleep(SECONDS)
                busy = (target.cpu() - cpu) / (time.monotonic() - start)
                seen = witness.take()
                memory = target.peak() - resident
            finally:
                attacking.kill()
    print(
        f"{CLIENTS} clients, {RATE} messages/s: p50 {calm['p50']:.2f} ms, p99 {calm['p99']:.2f} ms alone; "
        f"p50 {seen['p50']:.2f} ms, p99 {seen['p99']:.2f} ms, max {seen['max']:.1f} ms beside {ATTACKERS} "
        f"attackers ({seen['p99'] / max(calm['p99'], 0.001):.1f} times); {seen['count']} echoes, "
        f"{seen['failures']} clients cut; server {busy:.0%} of a CPU, memory {memory / MIB:+.1f} MiB",
        flush=True,
    )
    wrong = []
    if seen["p99"] > 3 * calm["p99"]:
        wrong.append(f"p99 {seen['p99']:.2f} ms, above three times {calm['p99']:.2f} ms")
    if seen["failures"]:
        wrong.append(f"{seen['failures']} well-behaved clients were cut: {seen['first']}")
    if seen["count"] < 0.8 * RATE * SECONDS:
        wrong.append(f"{seen['count']} echoes of {RATE * SECONDS:.0f}")
    return wrong


def crowd(start: Any) -> list[str]:
    """Up to three times; the best counts."""
    for _ in range(ATTEMPTS):
        with start() as target:
            print(target.kind.name, end=": ", flush=True)
            wrong = measure(target)
        if not wrong:
            print("PASSED: p99 below three times the undisturbed one")
            return []
    for what in wrong:
        print(f"!! FAILED: {what}")
    return wrong


if __name__ == "__main__":
    attackers(int(sys.argv[1]))
