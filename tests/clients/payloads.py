"""Messages of exact sizes, the same on every call, and their comparison."""

from __future__ import annotations

import random

__all__ = ["HUGE", "KINDS", "SIZES", "check_same", "make", "size_of"]

HUGE = 16 * 1024 * 1024

#: Bytes. 125 is the last that fits the first length octet of a frame, 65 535 the last that fits two more
#: (RFC 6455 section 5.2).
SIZES = (0, 1, 125, 126, 127, 65_535, 65_536, HUGE)

KINDS = ("ascii", "utf-8", "binary")

# One, two, three and four octets a character, ten together: blocks of any power of two cut it everywhere.
_CHARACTERS = "aß€😀"
# What completes a number of octets, by its last digit.
_ENDS = ("", "a", "ß", "€", "😀", "a😀", "ß😀", "€😀", "a€😀", "ß€😀")


def make(kind: str, size: int) -> str | bytes:
    """Make a message of `size` bytes: "ascii" and "utf-8" are text, "binary" does not compress."""
    if kind == "binary":
        return random.Random(size).randbytes(size)
    if kind == "utf-8":
        return _CHARACTERS * (size // 10) + _ENDS[size % 10]
    lines, total = [], 0
    while total < min(size, 20_000):
        lines.append(f'{{"line": {len(lines)}, "price": {len(lines) * 7919 % 10_007}}}\n')
        total += len(lines[-1])
    text = "".join(lines)
    return (text * (size // len(text) + 1))[:size] if text else ""


def size_of(message: str | bytes) -> int:
    """Return the size of a message in bytes on the wire, before compression."""
    return len(message.encode() if isinstance(message, str) else message)


def check_same(got: object, sent: str | bytes) -> None:
    """Raise an AssertionError that says where the two differ, without printing megabytes."""
    assert type(got) is type(sent), f"sent {type(sent).__name__}, got {type(got).__name__}"
    if got == sent:
        return
    assert isinstance(got, (str, bytes))
    place = next((i for i, pair in enumerate(zip(got, sent, strict=False)) if pair[0] != pair[1]), None)
    if place is None:
        place = min(len(got), len(sent))
    raise AssertionError(
        f"sent {len(sent)} of {type(sent).__name__}, got {len(got)}; they differ from {place} on: "
        f"{sent[place : place + 16]!r} became {got[place : place + 16]!r}"
    )
