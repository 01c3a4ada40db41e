"""Attacks by frames: lengths, fragments, compression, control frames, whoever does not read or close."""

from __future__ import annotations

import itertools
import time
import zlib
from collections.abc import Iterator

import gevent
from attack import Outcome, attack
from target import MIB, Target, bill
from wire import Wire, frame

__all__: list[str] = []

DEFLATE = b"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits"


def limit_of(target: Target) -> int:
    """Bytes that a message may have; for a server without a limit, what ours is."""
    return target.kind.limit or MIB


def chunks(data: bytes, total: int) -> Iterator[bytes]:
    """The same again and again, `total` bytes in all."""
    for _ in range(total // len(data)):
        yield data


def finish(target: Target, wire: Wire, expected: set[int], outcome: Outcome | None = None) -> Outcome:
    """See how the server has answered; `expected`: close codes, 0 for an open connection that lives."""
    if 0 in expected:
        outcome = outcome or Outcome(wire.verdict())
        if wire.ended or wire.code:
            if not wire.code or wire.code not in expected:
                outcome.wrong.append(f"ended with {wire.verdict()}")
        elif not wire.alive():
            outcome.wrong.append("does not answer any more")
    else:
        wire.wait_code(10)
        outcome = outcome or Outcome(wire.verdict())
        if wire.code not in expected:
            outcome.wrong.append(f"{wire.verdict()} instead of {'/'.join(map(str, sorted(expected)))}")
    outcome.answer = wire.verdict()
    outcome.sent = wire.sent
    return outcome


def pour(
    target: Target, parts: Iterator[bytes], expected: set[int], *lines: bytes, reading: bool = True
) -> Outcome:
    """Open a connection, pour into it, and see what happens."""
    with bill(target) as cost, Wire.open(target.port, *lines, reading=reading) as wire:
        wire.pour(parts)
        if not reading:
            wire.read()
        outcome = finish(target, wire, expected)
    outcome.memory, outcome.cpu = cost.memory, cost.cpu
    return outcome


# Lengths


def claim(size: int, more: int, *codes: int):
    """A header that claims `size` bytes, and `more` bytes behind it."""

    def run(target: Target) -> Outcome:
        header = b"\x82\xff" + size.to_bytes(8, "big") + b"\0\0\0\0"
        with bill(target) as cost, Wire.open(target.port) as wire:
            wire.send(header)
            wire.wait_code(2)
            early = wire.code
            if not wire.ended:
                wire.pour(chunks(bytes(1 << 18), more))
            outcome = finish(target, wire, set(codes))
            if early not in codes and wire.code in codes:
                outcome.wrong.append("only behind the payload, not at the header")
        outcome.memory, outcome.cpu = cost.memory, cost.cpu
        return outcome

    return run


attack("T-LEN1a", "a frame that claims 2^63 bytes, 128 MiB behind it")(claim(1 << 63, 128 * MIB, 1002, 1009))
attack("T-LEN1b", "a frame that claims 2^64-1 bytes, 128 MiB behind it")(
    claim((1 << 64) - 1, 128 * MIB, 1002, 1009)
)
attack("T-LEN1c", "a frame that claims 2^63-1 bytes, 128 MiB behind it")(
    claim((1 << 63) - 1, 128 * MIB, 1009)
)
attack("T-LEN1d", "a frame that claims 2^62 bytes, 128 MiB behind it")(claim(1 << 62, 128 * MIB, 1009))


@attack("T-LEN1e", "one byte above the limit (or 32 MiB where there is none), told by the header")
def _just_above(target: Target) -> Outcome:
    size = target.kind.limit + 1 if target.kind.limit else 32 * MIB
    return claim(size, size, 1009)(target)


@attack("T-LEN1f", "a message of exactly the limit is served", memory=lambda target: 6 * limit_of(target))
def _exact_limit(target: Target) -> Outcome:
    size = limit_of(target)
    with bill(target) as cost, Wire.open(target.port) as wire:
        wire.pour(iter([frame(0x82, bytes(size))]))
        served = wire.wait_data(size)
        outcome = finish(target, wire, {0})
        if not served:
            outcome.wrong.append("not served")
        outcome.answer = "served" if served else outcome.answer
    outcome.memory, outcome.cpu = cost.memory, cost.cpu
    return outcome


@attack("T-LEN2", "256 KiB in one frame, one byte a segment", cpu=10.0)
def _dribble(target: Target) -> Outcome:
    size = 256 * 1024
    with bill(target) as cost, Wire.open(target.port) as wire:
        wire.dribble(frame(0x82, bytes(size)))
        served = wire.wait_data(size)
        outcome = finish(target, wire, {0})
        outcome.answer = "served" if served else outcome.answer
    outcome.memory, outcome.cpu = cost.memory, cost.cpu
    return outcome


@attack(
    "T-LEN3",
    "100 connections hold a message that lacks its last byte",
    memory=lambda target: 100 * (limit_of(target) + limit_of(target) // 4 + 64 * 1024),
    witness=False,
)
def _almost(target: Target) -> Outcome:
    data = frame(0x82, bytes(limit_of(target)))[:-1]
    with bill(target) as cost:
        wires = [Wire.open(target.port) for _ in range(100)]
        try:
            gevent.joinall([gevent.spawn(wire.pour, iter([data])) for wire in wires])
            target.calm_down()
            cut = sum(bool(wire.ended) for wire in wires)
        finally:
            for wire in wires:
                wire.reset()
    outcome = Outcome(f"{cut} cut" if cut else "held", sent=100 * len(data))
    outcome.memory, outcome.cpu = cost.memory, cost.cpu
    return outcome


# Fragments


@attack("T-FRAG1", "2 million empty fragments")
def _empty_fragments(target: Target) -> Outcome:
    parts = itertools.chain([frame(0x01)], chunks(frame(0x00) * 10_000, 2_000_000 * 6))
    return pour(target, parts, {1009, 1008})


@attack("T-FRAG2", "fragments of one byte, 12 MiB of frames")
def _tiny_fragments(target: Target) -> Outcome:
    parts = itertools.chain([frame(0x02)], chunks(frame(0x00, b"x") * 10_000, 12 * MIB))
    return pour(target, parts, {1009, 1008})


@attack("T-FRAG3", "empty fragments with Pings between them")
def _fragments_and_pings(target: Target) -> Outcome:
    parts = itertools.chain([frame(0x02)], chunks((frame(0x00) + frame(0x89)) * 10_000, 12 * MIB))
    return pour(target, parts, {1009, 1008})


@attack(
    "T-FRAG4",
    "fragments of 64 KiB without end, 128 MiB",
    # Up to its limit a server may hold them.
    memory=lambda target: max(4 * MIB, limit_of(target) + MIB),
)
def _endless_fragments(target: Target) -> Outcome:
    parts = itertools.chain([frame(0x02)], chunks(frame(0x00, bytes(65536)), 128 * MIB))
    return pour(target, parts, {1009})


# Compression


def deflate(data: bytes | int, level: int = 9) -> bytes:
    """A message compressed; an integer stands for so many zeros."""
    squeezer = zlib.compressobj(level, zlib.DEFLATED, -15)
    parts = []
    if isinstance(data, int):
        block = bytes(MIB)
        parts = [squeezer.compress(block) for _ in range(data // MIB)]
        data = bytes(data % MIB)
    parts += [squeezer.compress(data), squeezer.flush(zlib.Z_SYNC_FLUSH)]
    return b"".join(parts)[:-4]


def bomb_memory(target: Target) -> int:
    """Three times the limit."""
    return 3 * limit_of(target)


@attack("T-Z1", "a bomb: 256 MiB in a frame of 255 KiB", memory=bomb_memory, needs="deflate")
def _bomb(target: Target) -> Outcome:
    return pour(target, iter([frame(0xC2, deflate(256 * MIB))]), {1009}, DEFLATE)


@attack("T-Z2", "the bomb in 1000 fragments", memory=bomb_memory, needs="deflate")
def _bomb_in_fragments(target: Target) -> Outcome:
    data = deflate(256 * MIB)
    size = len(data) // 1000
    parts = [frame(0x00 if at else 0x42, data[at : at + size]) for at in range(0, len(data), size)]
    return pour(target, iter([*parts, frame(0x80)]), {1009}, DEFLATE)


@attack("T-Z3", "one byte above the limit when it is inflated", memory=bomb_memory, needs="deflate")
def _bomb_above(target: Target) -> Outcome:
    return pour(target, iter([frame(0xC2, deflate(limit_of(target) + 1))]), {1009}, DEFLATE)


@attack(
    "T-Z3b",
    "exactly the limit when it is inflated is served",
    memory=lambda target: 6 * limit_of(target),
    needs="deflate",
)
def _bomb_exact(target: Target) -> Outcome:
    with bill(target) as cost, Wire.open(target.port, DEFLATE) as wire:
        wire.send(frame(0xC2, deflate(limit_of(target))))
        served = wire.wait_data(500)
        outcome = finish(target, wire, {0})
        outcome.answer = "served" if served and not outcome.wrong else outcome.answer
    outcome.memory, outcome.cpu = cost.memory, cost.cpu
    return outcome


@attack("T-Z4", "the bomb in a message that never ends", memory=bomb_memory, needs="deflate")
def _bomb_without_end(target: Target) -> Outcome:
    return pour(target, iter([frame(0x42, deflate(256 * MIB)), frame(0x00)]), {1009}, DEFLATE)


@attack("T-Z7", "a final block (BFINAL) in a message, and a message behind it", needs="deflate")
def _bfinal(target: Target) -> Outcome:
    squeezer = zlib.compressobj(9, zlib.DEFLATED, -15)
    final = squeezer.compress(b"final") + squeezer.flush()
    with bill(target) as cost, Wire.open(target.port, DEFLATE + b"; client_no_context_takeover") as wire:
        for payload in (final + b"\0", deflate(b"after"), final + b"\0"):
            wire.send(frame(0xC1, payload))
        wire.wait_data(3 * 7)
        outcome = finish(target, wire, {0, 1007, 1002})
        if not wire.code and b"after" not in wire.data and wire.received < 21:
            outcome.wrong.append("what came behind it was lost in silence")
        outcome.answer = "served" if not outcome.wrong and not wire.code else outcome.answer
    outcome.memory, outcome.cpu = cost.memory, cost.cpu
    return outcome


@attack("T-Z10", "messages of 16 final blocks each, 1 MiB of frames", needs="deflate", cpu=2.0)
def _final_blocks(target: Target) -> Outcome:
    """A stream of zlib ends and another one begins behind each block: much work for few bytes."""
    message = frame(0xC2, b"\x03\x00" * 16 + b"\0")
    with bill(target) as cost, Wire.open(target.port, DEFLATE) as wire:
        wire.pour(chunks(message * 100, MIB))
        # An echo has two bytes at least.
        wire.wait_data(wire.sent // len(message) * 2)
        outcome = finish(target, wire, {0, 1002, 1007, 1008, 1009})
    outcome.memory, outcome.cpu = cost.memory, cost.cpu
    return outcome


def broken(
    name: str, what: str, data: bytes, *lines: bytes, codes: tuple[int, ...] = (1002,), needs: str = ""
):
    """Frames that break a rule."""

    @attack(name, what, needs=needs)
    def run(target: Target) -> Outcome:
        return pour(target, iter([data]), set(codes), *lines)


broken("T-Z8a", "RSV1 where no compression was agreed on", frame(0xC1, b"x"))
broken("T-Z8b", "RSV1 on a continuation", frame(0x41, deflate(b"x")) + frame(0xC0), DEFLATE, needs="deflate")
broken("T-Z8c", "RSV1 on a Ping", frame(0xC9, b"x"), DEFLATE, needs="deflate")
broken(
    "T-Z9", "what does not inflate", frame(0xC1, b"\xff" * 50), DEFLATE, codes=(1007, 1002), needs="deflate"
)
broken("T-MASK", "a frame without a mask", b"\x81\x01x")
broken("T-UTF8", "text that is not UTF-8", frame(0x81, b"\xed\xa0\x80"), codes=(1007,))
broken("T-MIN", "a length in more bytes than it needs", b"\x82\xff\0\0\0\0\0\0\0\x01\0\0\0\0x")
broken("T-OP", "an opcode that does not exist", frame(0x83, b"x"))
broken("T-CTL", "a Ping of 126 bytes", frame(0x89, bytes(126)))
broken("T-CODE", "a Close with code 1005", frame(0x88, b"\x03\xed"))


# Floods


@attack("T-PING", "40 MiB of Pings by somebody who reads nothing")
def _pings(target: Target) -> Outcome:
    return pour(target, chunks(frame(0x89, bytes(125)) * 500, 40 * MIB), {0, 1008, 1009, 1011}, reading=False)


@attack("T-PING2", "8 MiB of empty Pings by somebody who reads")
def _pings_read(target: Target) -> Outcome:
    return pour(target, chunks(frame(0x89) * 10_000, 8 * MIB), {0, 1008})


@attack("T-GRN", "100 000 Pongs that nobody asked for, 100 000 messages of a byte", cpu=4.0)
def _messages(target: Target) -> Outcome:
    parts = itertools.chain(
        chunks(frame(0x8A) * 10_000, 100_000 * 6), chunks(frame(0x81, b"x") * 1000, 100_000 * 7)
    )
    before = target.threads()
    with bill(target) as cost, Wire.open(target.port) as wire:
        most = [0]

        def count() -> None:
            while True:
                most[0] = max(most[0], target.threads())
                gevent.sleep(0.05)

        counting = gevent.spawn(count)
        wire.pour(parts)
        wire.wait_data(100_000 * 3)
        counting.kill()
        outcome = finish(target, wire, {0, 1008})
    if most[0] > before:
        outcome.wrong.append(f"{most[0] - before} more threads")
    outcome.memory, outcome.cpu = cost.memory, cost.cpu
    return outcome


@attack(
    "T-FAIR",
    "the largest messages, one behind the other, for 128 MiB",
    memory=lambda t: 8 * limit_of(t),
    cpu=4.0,
)
def _large(target: Target) -> Outcome:
    return pour(target, chunks(frame(0x82, bytes(limit_of(target) - 16)), 128 * MIB), {0, 1008})


@attack(
    "T-SLOWR",
    "64 MiB of messages by somebody who does not read the echoes",
    memory=lambda target: 4 * MIB + 2 * limit_of(target),
    cpu=4.0,
)
def _never_reading(target: Target) -> Outcome:
    """Held to memory while it lasts; that it is cut is T-SLOWC."""
    with bill(target) as cost, Wire.open(target.port, reading=False) as wire:
        wire.pour(chunks(frame(0x82, bytes(32768)), 64 * MIB), limit=8)
        target.calm_down(3)
        outcome = Outcome("held" if wire.sent < 60 * MIB else "taken", sent=wire.sent)
    outcome.memory, outcome.cpu = cost.memory, cost.cpu
    return outcome


# Ends


@attack("T-CLOSE1", "a violation, and then neither Close nor an end of TCP: gone within 40 s", witness=False)
def _never_closing(target: Target) -> Outcome:
    before = target.descriptors()
    with bill(target) as cost, Wire.open(target.port) as wire:
        wire.send(frame(0x83))
        wire.wait_code(5)
        wire.wait_end(20)
        outcome = finish(target, wire, {1002})
        # The server's end; ours is still open.
        until = time.monotonic() + 20
        while (left := target.descriptors() - before) > 0 and time.monotonic() < until:
            gevent.sleep(0.2)
        if left > 0:
            outcome.wrong.append("the server keeps the connection")
            outcome.answer += ", kept"
    outcome.memory, outcome.cpu = cost.memory, cost.cpu
    return outcome


@attack("T-CLOSE2", "a violation, and then 64 MiB of data without a Close", witness=False)
def _pouring_on(target: Target) -> Outcome:
    return pour(target, itertools.chain([frame(0x83)], chunks(frame(0x82, bytes(32768)), 64 * MIB)), {1002})


@attack("T-CLOSE3", "100 000 Close frames")
def _closes(target: Target) -> Outcome:
    return pour(target, chunks(frame(0x88, b"\x03\xe8") * 1000, 100_000 * 8), {1000})


@attack("T-RST", "1000 resets, in every phase: nothing stays", witness=False, cpu=5.0)
def _resets(target: Target) -> Outcome:
    from wire import request

    beginnings = (
        b"",
        b"GET / HT",
        request(),
        request() + frame(0x82, bytes(500))[:100],
        request() + frame(0x81, b"x") * 50,
    )
    for _ in range(20):
        Wire(target.port, reading=False).reset()
    target.calm_down(5)
    before = target.descriptors()
    with bill(target) as cost:
        for number in range(1000):
            wire = Wire(target.port, reading=False)
            wire.send(beginnings[number % len(beginnings)])
            if number % 3 == 0:
                gevent.sleep(0.001)
            wire.reset()
    outcome = Outcome("gone")
    for _ in range(100):
        left = target.descriptors() - before
        if left <= 0:
            break
        gevent.sleep(0.05)
    if left > 0:
        outcome.wrong.append(f"{left} descriptors stay open")
        outcome.answer = f"{left} stay"
    outcome.memory, outcome.cpu = cost.memory, cost.cpu
    return outcome
