"""A hundred attackers of all kinds, again and again, beside five hundred well-behaved clients."""

from __future__ import annotations

import contextlib
import itertools
import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import gevent
import gevent.subprocess
from target import MIB, Target, prefer
from wire import Wire, frame, request

__all__ = ["crowd"]

CLIENTS = 500
ATTACKERS = 100
SECONDS = 8.0
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


def load(program: Path, target: Target) -> dict[str, Any]:
    """Let the well-behaved clients talk: each sends its next message when the echo of the last has come."""
    command = [str(program), "--port", str(target.port), "--connections", str(CLIENTS), "--size", "32"]
    command += ["--window", "1", "--warmup", "1", "--duration", str(SECONDS), "--connect-timeout", "30"]
    process = gevent.subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True
    )
    prefer(process.pid, 1)
    output, _ = process.communicate(timeout=120)
    found: dict[str, Any] = json.loads(output)
    return found


def measure(target: Target, program: Path) -> list[str]:
    """Once: the clients alone, then beside the attackers."""
    prefer(target.pid, 0)
    calm = load(program, target)
    command = [sys.executable, str(Path(__file__)), str(target.port)]
    with subprocess.Popen(command, start_new_session=True) as attacking:
        try:
            gevent.sleep(1)
            target.forget_peak()
            seen = load(program, target)
            memory = target.peak()
        finally:
            attacking.kill()
    alone, beside = (found["lat_us"]["p99"] / 1000 for found in (calm, seen))
    print(
        f"{CLIENTS} clients: {calm['messages_per_s'] / 1000:.1f} k messages/s, p99 {alone:.1f} ms alone; "
        f"{seen['messages_per_s'] / 1000:.1f} k/s, p99 {beside:.1f} ms, max "
        f"{seen['lat_us']['max'] / 1000:.0f} ms beside {ATTACKERS} attackers ({beside / alone:.1f} times); "
        f"{seen['errors']} errors, resident at most {memory / MIB:.0f} MiB",
        flush=True,
    )
    wrong = []
    if beside > 3 * alone:
        wrong.append(f"p99 {beside:.1f} ms, above three times {alone:.1f} ms")
    if seen["errors"]:
        wrong.append(f"{seen['errors']} well-behaved clients were not served: {seen['first_error']}")
    return wrong


def crowd(start: Any, work: Path) -> list[str]:
    """Up to three times; the best counts."""
    from harness import generator

    program = generator.build(work)
    for _ in range(ATTEMPTS):
        with start() as target:
            print(target.kind.name, end=": ", flush=True)
            wrong = measure(target, program)
        if not wrong:
            print("PASSED: p99 below three times the undisturbed one")
            return []
    for what in wrong:
        print(f"!! FAILED: {what}")
    return wrong


if __name__ == "__main__":
    attackers(int(sys.argv[1]))
