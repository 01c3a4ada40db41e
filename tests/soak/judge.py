"""What a soak looks at, and when it fails: sequences of messages, and memory over time. No I/O."""

from __future__ import annotations

import collections
import hashlib
from collections.abc import Sequence

__all__ = ["Outstanding", "Senders", "Violation", "check_message", "judge_memory", "make_message", "slope"]

#: Bytes of the resident set that go up and down with the holes in the heap, however long a run is.
RESIDENT_NOISE = 1 << 20
#: Bytes an hour that the fitted line of the resident set may rise, where a run is long enough to tell.
RESIDENT_AN_HOUR = 512 * 1024
#: Of what is really in use nothing may stay: these are what the caches of Python and gevent breathe.
FEW_BLOCKS = 400
FEW_BYTES = 256 * 1024

HOUR = 3600.0


class Violation(AssertionError):
    """A message was lost, doubled, moved or changed."""


def make_message(sender: int, number: int, body: bytes) -> bytes:
    """A message that says where it belongs, and whether it is whole."""
    head = b"%d %d " % (sender, number)
    return head + hashlib.sha256(head + body).hexdigest().encode() + b" " + body


def check_message(message: bytes) -> tuple[int, int]:
    """Return sender and number of a message that `make_message` made.

    Raises:
        Violation: if it is not as it was made.
    """
    try:
        sender, number, digest, body = message.split(b" ", 3)
        head = b"%d %d " % (int(sender), int(number))
    except ValueError:
        raise Violation(f"not a message of this soak: {message[:100]!r}") from None
    if hashlib.sha256(head + body).hexdigest().encode() != digest:
        raise Violation(f"corrupted: number {int(number)} of sender {int(sender)}")
    return int(sender), int(number)


class Outstanding:
    """Messages that were sent and have to come back, one by one and unchanged.

    Attributes:
        count: that have come back.
    """

    def __init__(self) -> None:
        self.waiting: collections.deque[tuple[int, bytes]] = collections.deque()
        self.count = 0

    def sent(self, opcode: int, message: bytes) -> None:
        """One was sent."""
        self.waiting.append((opcode, message))

    def came(self, opcode: int, message: bytes) -> None:
        """One came back.

        Raises:
            Violation: if it was not the next one.
        """
        if self.waiting and self.waiting[0] == (opcode, message):
            self.waiting.popleft()
            self.count += 1
            return
        _, number = check_message(message)
        awaited = check_message(self.waiting[0][1])[1] if self.waiting else None
        if awaited is None or number < awaited:
            raise Violation(f"doubled: number {number} came a second time")
        if number > awaited:
            raise Violation(f"lost or reordered: number {number} came, {awaited} was the next")
        raise Violation(f"changed: number {number} came with opcode {opcode}")


class Senders:
    """Messages of several senders, each of which counts its own from 0.

    Args:
        from_start: the first one of each has to be number 0; otherwise what came before it was not for us.

    Attributes:
        next: the number that has to come next, by sender.
    """

    def __init__(self, *, from_start: bool) -> None:
        self.next: dict[int, int] = {}
        self._from_start = from_start

    def came(self, message: bytes) -> None:
        """One has come.

        Raises:
            Violation: if it was not its sender's next one, or not whole.
        """
        sender, number = check_message(message)
        awaited = self.next.get(sender, 0 if self._from_start else number)
        if number < awaited:
            raise Violation(
                f"doubled or reordered: number {number} of sender {sender}, {awaited} was the next"
            )
        if number > awaited:
            raise Violation(f"lost or reordered: number {number} of sender {sender}, {awaited} was the next")
        self.next[sender] = number + 1


def slope(times: Sequence[float], values: Sequence[float]) -> float:
    """Return the slope of the straight line that is nearest to the points (least squares)."""
    count = len(times)
    middle, level = sum(times) / count, sum(values) / count
    spread = sum((time - middle) ** 2 for time in times)
    if spread == 0:
        return 0.0
    return sum((time - middle) * (value - level) for time, value in zip(times, values, strict=True)) / spread


def judge_memory(rests: Sequence[dict[str, float]]) -> list[str]:
    """Say what has grown from rest to rest; empty where nothing has.

    Args:
        rests: what was in use whenever nothing went on, after the warm-up: `time` in seconds, `resident` and
            `allocated` in bytes, `blocks`, `descriptors`, `greenlets`.
    """
    found = []
    times = [rest["time"] for rest in rests]
    span = times[-1] - times[0]
    for name, allowed in (
        ("resident", max(RESIDENT_NOISE, RESIDENT_AN_HOUR * span / HOUR)),
        ("allocated", FEW_BYTES),
        ("blocks", FEW_BLOCKS),
    ):
        grown = slope(times, [rest[name] for rest in rests]) * span
        if grown > allowed:
            found.append(
                f"{name}: the fitted line rises by {grown:.0f} in {span:.0f} s ({allowed:.0f} allowed)"
            )
    for name in ("descriptors", "greenlets"):
        first, last = rests[0][name], rests[-1][name]
        if last > first:
            found.append(f"{name}: {last - first:.0f} more than at the first rest")
    return found
