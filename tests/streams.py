"""Random conversations with a connection, and a record of all that can be seen of them.

For tests that compare: two builds, two ways to cut the same bytes. `random_script` makes what happens,
from a seeded generator; `record` lets it happen to a connection and writes down events, messages, bytes
out, phases and errors.
"""

from __future__ import annotations

import os
import random
import zlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple
from unittest import mock

from builds import Build

__all__ = ["Script", "cut", "describe", "difference", "mutate", "random_frames", "random_script", "record"]

#: Lengths at which something changes: of the header's forms, of control frames, of eight-octet words.
EDGES = (0, 1, 2, 3, 4, 7, 8, 9, 15, 16, 17, 63, 64, 100, 124, 125, 126, 127, 128, 255, 256, 300)
LIMITS = (1, 2, 64, 125, 126, 200, 256, 1000, 65536, None)
TEXTS = (
    "",
    "a",
    "Hello",
    "é",
    "€",
    "𐍈",
    "κόσμε",
    "Hello £€𐍈 ",
    "\x00",
    "\ufeffx",
    "a\r\nb",
    "\u07ff\u0800\uffff\U0010ffff",
)
NOT_UTF8 = (
    b"\x80", b"\xff", b"\xc0\xaf", b"\xc3(", b"\xe2\x82", b"\xed\xa0\x80", b"\xed\xa0", b"\xed",
    b"\xf4\x90\x80", b"a\xf0\x9f",
)  # fmt: skip
CLOSES = (
    b"", b"", b"\x03\xe8", b"\x03\xe8", b"\x03\xe8", b"\x03\xe9", b"\x03\xe9bye", b"\x03\xea",
    b"\x03\xf3\xc3\xa9", b"\x0b\xb8", b"\x13\x87!",
    # These are not allowed.
    b"\x03", b"\x03\xec", b"\x03\xed", b"\x03\xee", b"\x03\xf7", b"\x13\x88", b"\x00\x00", b"\x03\xe8\xff",
)  # fmt: skip
#: How often each kind of message comes.
KINDS = [
    *("whole",) * 16,
    *("fragments",) * 12,
    *("compressed",) * 10,
    *("ping",) * 6,
    *("pong",) * 4,
    "raw",
    "not utf8",
    *("bad header",) * 2,
]


class Script(NamedTuple):
    """What happens to a connection: how it is made, then one action after the other."""

    options: dict[str, Any]
    deflate: dict[str, Any] | None
    actions: list[tuple[Any, ...]]
    direct: bool = False


def exclusive_or(data: bytes, key: bytes) -> bytes:
    """Mask, fast."""
    size = len(data)
    mask = (key * (size // 4 + 1))[:size]
    return (int.from_bytes(data, "big") ^ int.from_bytes(mask, "big")).to_bytes(size, "big")


def encode(
    first: int, payload: bytes, key: bytes | None, *, form: int = 0, claim: int | None = None
) -> bytes:
    """A frame. `form` 126 or 127 takes a longer length than needed; `claim` is a length that is not true."""
    size = len(payload) if claim is None else claim
    masked = 0 if key is None else 0x80
    if form == 0:
        form = size if size < 126 else 126 if size < 65536 else 127
    head = bytes((first, masked | form))
    if form == 126:
        head += (size & 0xFFFF).to_bytes(2, "big")
    elif form == 127:
        head += size.to_bytes(8, "big")
    return head + payload if key is None else head + key + exclusive_or(payload, key)


def random_payload(rng: random.Random, text: bool) -> bytes:
    """What a message holds."""
    if rng.random() < 0.25:
        data = b"".join(rng.choice(TEXTS).encode() for _ in range(rng.randrange(4)))
    else:
        size = rng.choice(EDGES) if rng.random() < 0.97 else rng.choice((1000, 65535, 65536))
        if text:
            piece = rng.choice(TEXTS).encode()
            data = (piece * (size // len(piece)) + b"x" * (size % len(piece))) if piece else b"y" * size
        else:
            data = rng.randbytes(size)
    return data


def random_pieces(rng: random.Random, data: bytes) -> list[bytes]:
    """A payload in fragments, empty ones among them."""
    cuts = sorted(rng.randint(0, len(data)) for _ in range(rng.choice((0, 1, 1, 2, 3, 6))))
    return [data[start:end] for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True)]


def random_frames(
    rng: random.Random, masked: bool, deflate: dict[str, Any] | None, *, incomplete: float = 0.03
) -> list[bytes]:
    """Frames of a peer: most of them as they should be, one now and then that breaks a rule.

    `incomplete` is the share of compressed messages that end too early.
    """
    frames: list[bytes] = []
    compressor: Any = None

    def add(first: int, payload: bytes, **how: Any) -> None:
        key = rng.randbytes(4) if masked else None
        if how.get("swap"):
            key = None if masked else rng.randbytes(4)
        how.pop("swap", None)
        frames.append(encode(first, payload, key, **how))

    def between() -> None:
        """What may stand between fragments."""
        if rng.random() < 0.3:
            add(rng.choice((0x89, 0x8A)), rng.randbytes(rng.choice((0, 1, 8, 125))))

    for _ in range(rng.choice((1, 1, 2, 3, 5, 8))):
        kind = rng.choice(KINDS)
        text = rng.random() < 0.5
        opcode = 1 if text else 2
        if kind == "compressed" and deflate is None and rng.random() < 0.95:
            kind = "whole"
        if kind == "whole":
            add(0x80 | opcode, random_payload(rng, text))
        elif kind == "compressed" or (kind == "fragments" and deflate is not None and rng.random() < 0.5):
            if compressor is None or rng.random() < 0.2:
                # A new one forgets what was said before, which every peer may do.
                compressor = zlib.compressobj(rng.choice((1, 6)), zlib.DEFLATED, -rng.choice((9, 12, 15)), 3)
            data = random_payload(rng, text) * rng.choice((1, 1, 2, 20))
            if rng.random() < 0.1:
                data += rng.choice(NOT_UTF8) + data
            packed = compressor.compress(data) + compressor.flush(zlib.Z_SYNC_FLUSH)
            pieces = random_pieces(rng, packed[:-4] if rng.random() >= incomplete else packed[:-6])
            for at, piece in enumerate(pieces):
                fin = 0x80 if at == len(pieces) - 1 else 0
                add(fin | (opcode | 0x40 if at == 0 or rng.random() < 0.01 else 0), piece)
                between()
        elif kind == "fragments":
            data = random_payload(rng, text)
            if text and rng.random() < 0.1:
                data += rng.choice(NOT_UTF8)
            pieces = random_pieces(rng, data)
            for at, piece in enumerate(pieces):
                fin = 0x80 if at == len(pieces) - 1 else 0
                add(fin | (opcode if at == 0 else 0), piece)
                between()
        elif kind == "ping":
            add(0x89, rng.randbytes(rng.choice((0, 1, 8, 125))))
        elif kind == "pong":
            add(0x8A, rng.randbytes(rng.choice((0, 1, 8, 125))))
        elif kind == "raw":
            frames.append(rng.randbytes(rng.choice((1, 2, 6, 20))))
        elif kind == "not utf8":
            add(0x81, rng.choice(TEXTS).encode() + rng.choice(NOT_UTF8) + rng.choice((b"", b"x")))
        else:
            add_bad_header(rng, add)
    if rng.random() < 0.35:
        add(0x88, rng.choice(CLOSES))
        if rng.random() < 0.3:
            add(0x81, b"late")
    return frames


def add_bad_header(rng: random.Random, add: Any) -> None:
    """A frame that a rule about headers forbids."""
    data = rng.randbytes(rng.choice((0, 1, 125)))
    which = rng.randrange(9)
    if which == 0:
        add(rng.choice((0x91, 0xA2, 0xB1, 0xF1)), data)
    elif which == 1:
        add(0x80 | rng.choice((3, 4, 7, 0xB, 0xF)), data)
    elif which == 2:
        add(0x82, data, swap=True)
    elif which == 3:
        add(rng.choice((0x89, 0x8A, 0x88)), b"x" * rng.choice((126, 200)))
    elif which == 4:
        add(rng.choice((0x09, 0x0A, 0x08, 0xC9)), data)
    elif which == 5:
        add(0x82, data, form=rng.choice((126, 127)))
    elif which == 6:
        add(0x82, b"x" * rng.choice((126, 300)), form=127)
    elif which == 7:
        # The frame says it is long, and little of it comes.
        add(
            rng.choice((0x82, 0x02, 0x81)),
            data,
            form=127,
            claim=rng.choice((2**63 - 1, 2**63, 2**62, 2**32, 70_000)),
        )
    else:
        add(rng.choice((0x80, 0x00, 0xC0, 0xC1)), data)


def mutate(rng: random.Random, data: bytes) -> bytes:
    """Damage bytes in one or a few places."""
    damaged = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4))):
        if not damaged:
            break
        at = rng.randrange(len(damaged))
        which = rng.randrange(4)
        if which == 0:
            damaged[at] ^= 1 << rng.randrange(8)
        elif which == 1:
            del damaged[at : at + rng.choice((1, 2, 8))]
        elif which == 2:
            damaged[at:at] = rng.randbytes(rng.choice((1, 2, 8)))
        else:
            damaged[at:at] = damaged[at : at + rng.choice((2, 8, 30))]
    return bytes(damaged)


def cut(rng: random.Random, data: bytes) -> Iterator[bytes]:
    """Bytes in pieces, as a network might bring them."""
    way = rng.randrange(4)
    if way == 0 or not data:
        yield data
        return
    if way == 1 and len(data) < 300:
        sizes: Sequence[int] = (1,)
    elif way == 2:
        sizes = (1, 2, 3, 7, 20, 200)
    else:
        sizes = (10, 100, 1000)
    at = 0
    least = len(data) // 200
    while at < len(data):
        size = max(least, rng.choice(sizes))
        yield data[at : at + size]
        at += size


def random_deflate(rng: random.Random) -> dict[str, Any] | None:
    """What an opening handshake agreed on."""
    if rng.random() < 0.5:
        return None
    return {
        "server_no_context_takeover": rng.random() < 0.5,
        "client_no_context_takeover": rng.random() < 0.5,
        "server_max_window_bits": rng.choice((None, 9, 12, 15)),
        "client_max_window_bits": rng.choice((None, 9, 12, 15)),
    }


def random_local(rng: random.Random) -> list[tuple[Any, ...]]:
    """Something that our own side does."""
    data: str | bytes = rng.choice(TEXTS) * rng.choice((1, 1, 30))
    if rng.random() < 0.5:
        data = rng.randbytes(rng.choice(EDGES)) if rng.random() < 0.98 else bytes(rng.choice((65535, 65536)))
    compress = rng.choice((None, None, True, False))
    which = rng.randrange(11)
    if which < 3 or which == 10:
        return [("send", data, compress)]
    if which == 3:
        return [("send_shared", data, compress)]
    if which == 4:
        opcode = 1 if isinstance(data, str) else 2
        pieces = [data] * rng.choice((1, 2, 3))
        return [
            ("send_fragment", piece, opcode if at == 0 else 0, at == len(pieces) - 1)
            for at, piece in enumerate(pieces)
        ]
    if which == 5:
        return [("send_ping", rng.randbytes(rng.choice((0, 5, 125, 126))))]
    if which == 6 and rng.random() < 0.5:
        code = rng.choice((1000, 1000, 1001, 1005, 4000, 999, 1006, 2000))
        return [("send_close", code, rng.choice(("", "", "bye", "é" * 61, "é" * 62)))]
    if which in (6, 7):
        return [("hold_pongs",)]
    if which == 8:
        return [("release_pongs",)]
    rare = (
        "receive_end",
        "fail",
        "close_deflater",
        "send surrogate",
        "send surrogate",
    )
    return [(rng.choice(rare),)]


def random_script(rng: random.Random) -> Script:
    """A connection of either role, its peer's bytes cut somehow, and in between what we do."""
    client = rng.random() < 0.4
    deflate = random_deflate(rng)
    options = {
        "client": client,
        "max_message_size": rng.choice(LIMITS),
        "max_fragments": rng.choice((1, 2, 3, 8, 4096, None)),
        "level": rng.choice((1, 6)),
        "mem_level": rng.choice((1, 5)),
        "threshold": rng.choice((0, 0, 16, 64)),
    }
    if rng.random() < 0.5:
        options["max_message_size"] = options["max_fragments"] = None
    data = b"".join(random_frames(rng, not client, deflate))
    if rng.random() < 0.25:
        data = mutate(rng, data)
    busy = rng.random()
    actions: list[tuple[Any, ...]] = []
    for piece in cut(rng, data):
        if rng.random() < busy * 0.3:
            actions += random_local(rng)
        # Sometimes the application takes less than all, and more comes before it goes on.
        actions.append(("receive", piece, rng.choice((None, None, None, 1, 2)), rng.random() < 0.5))
    actions.append(("receive", b"", None, False))
    if rng.random() < 0.5:
        actions += random_local(rng)
        actions += random_local(rng)
    return Script(options, deflate, actions, direct=rng.random() < 0.5)


def describe(error: BaseException | None) -> Any:
    """What of an error does not depend on which package its class is from."""
    if error is None:
        return None
    facts = (type(error).__name__, getattr(error, "kind", None), str(error))
    if hasattr(error, "limit"):
        return (*facts, error.size, error.limit)
    return facts


def describe_close(close: Any) -> Any:
    """A Close, likewise."""
    return None if close is None else (close.code, close.reason)


def take(connection: Any, limit: int | None) -> list[Any]:
    """Take events, at most `limit`."""
    found: list[Any] = []
    while limit is None or len(found) < limit:
        event = int(connection.next_event())
        if event == 0:
            break
        if event == 1:
            found.append((event, connection.message, int(connection.message_size)))
        elif event == 2:
            found.append((event, connection.pong))
        else:
            found.append(event)
    return found


def act(build: Build, connection: Any, action: tuple[Any, ...], lent: bytearray) -> Any:
    """Let one action happen; returns what comes of it."""
    name = action[0]
    if name == "receive":
        _, data, limit, lend = action
        if connection.wanted:
            count = min(connection.wanted, len(data))
            with connection.block.room(connection.wanted) as room:
                room[:count] = data[:count]
            connection.feed_block(count)
            data = data[count:]
        if lend and len(data) <= len(lent):
            lent[: len(data)] = data
            connection.feed(lent, len(data))
            found = take(connection, limit)
            connection.keep()
            lent[: len(data)] = bytes(len(data))
        else:
            connection.receive_data(data)
            found = take(connection, limit)
        return found
    if name == "hold_pongs":
        connection.hold_pongs = True
        return None
    if name == "send_shared":
        return connection.send_shared(build.shared.SharedMessage(action[1]), action[2])
    if name == "send surrogate":
        return connection.send("ok\ud800")
    if name == "fail":
        return connection.fail(build.exceptions.ProtocolError("our own reason", "own"))
    return getattr(connection, name)(*action[1:])


def state(connection: Any) -> tuple[Any, ...]:
    """All facts about a connection."""
    received_first = connection.received_first
    return (
        int(connection.phase),
        describe_close(connection.close_received),
        describe_close(connection.close_sent),
        None if received_first is None else bool(received_first),
        describe(connection.error),
        bool(connection.close_ok()),
        describe(connection.closed_error()),
        describe(connection.closed_error("reset")),
        bool(connection.hold_pongs),
        connection.out_size,
    )


#: What is drawn instead of the system's entropy.
_KNOWN = b"".join(at.to_bytes(4, "little") for at in range(0x9E3779B1, 0x9E3779B1 + 1024))


def record(build: Build, script: Script) -> list[Any]:
    """Let a script happen to a connection of this build; returns all that could be seen."""
    # The keys of a client would be another each time; and what ISA-L makes may be, so that zlib stands in.
    build.keys.drop_keys()
    compressor = build.isal.isal_zlib and zlib
    try:
        with (
            mock.patch.object(os, "urandom", lambda size: _KNOWN[:size]),
            mock.patch.object(build.isal, "isal_zlib", compressor),
        ):
            return _record(build, script)
    finally:
        build.keys.drop_keys()


def _record(build: Build, script: Script) -> list[Any]:
    deflate = None if script.deflate is None else build.deflate.DeflateParameters(**script.deflate)
    connection = build.connection.Connection(deflate=deflate, **script.options)
    connection.direct = script.direct
    lent = bytearray(512)
    transcript: list[Any] = []
    for action in script.actions:
        outcome: Any
        try:
            outcome = act(build, connection, action, lent)
        except Exception as error:
            outcome = describe(error)
        entry = [outcome, int(connection.phase)]
        if connection.out:
            entry += [connection.out_size, *connection.out]
            connection.out.clear()
            connection.out_size = 0
        transcript.append(entry)
    transcript.append(state(connection))
    return transcript


def difference(first: Build, second: Build, seed: int) -> str | None:
    """Let the script of this seed happen to both builds; tells where they part, or None."""
    script = random_script(random.Random(seed))
    ours, theirs = record(first, script), record(second, script)
    if ours == theirs:
        return None
    for action, mine, other in zip([*script.actions, ("state",)], ours, theirs, strict=True):
        if mine != other:
            made = f"seed {seed}, {script.options}, {script.deflate}"
            return f"{made}: {action!r:.400}\n  {mine!r:.800}\n  {other!r:.800}"
    raise AssertionError(f"seed {seed}: the records differ in length only")
