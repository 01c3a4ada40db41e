"""Small pieces of the protocol core, to time (micro.py) and to count instructions of (instructions.py).

Imports geventws when something is made, so that the caller can choose the build first.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable

__all__ = ["WORKLOADS", "Workload"]

_KEY = b"\x37\xfa\x21\x3d"


@dataclasses.dataclass(frozen=True)
class Workload:
    """Something that is done again and again.

    Attributes:
        name: for tables and for the committed counts.
        make: prepares it; what it returns does it once.
        per_call: how many messages, frames or buffers one call handles.
        calls: how many calls are counted under valgrind, which is fifty times slower.
    """

    name: str
    make: Callable[[], Callable[[], object]]
    per_call: int = 1
    calls: int = 100


def _payload(size: int, *, text: bool) -> bytes:
    # A fixed seed: the same bytes in each run, whatever their number.
    source = random.Random(size)
    return bytes(source.randrange(32, 127) if text else source.randrange(256) for _ in range(size))


def _frames(size: int, count: int, *, text: bool) -> bytes:
    """Masked frames, as a client sends them."""
    from geventws.protocol.masking import build_frame

    return build_frame(0x81 if text else 0x82, _payload(size, text=text), _KEY) * count


def _decode(size: int, count: int, *, text: bool) -> Callable[[], Callable[[], object]]:
    def make() -> Callable[[], object]:
        from geventws.protocol.connection import Connection, Event

        connection = Connection(max_message_size=None)
        data = _frames(size, count, text=text)
        need_data, message = int(Event.NEED_DATA), int(Event.MESSAGE)

        def step() -> None:
            connection.receive_data(data)
            for _ in range(count):
                if connection.next_event() != message:
                    raise AssertionError("a message was not decoded")
            if connection.next_event() != need_data:
                raise AssertionError("more than was sent was decoded")

        return step

    return make


def _encode(size: int, *, text: bool) -> Callable[[], Callable[[], object]]:
    def make() -> Callable[[], object]:
        from geventws.protocol.connection import Connection

        connection = Connection()
        payload = _payload(size, text=text)
        message: str | bytes = payload.decode() if text else payload

        def step() -> None:
            connection.send(message)
            connection.out.clear()
            connection.out_size = 0

        return step

    return make


def _mask(size: int) -> Callable[[], Callable[[], object]]:
    def make() -> Callable[[], object]:
        from geventws.protocol.masking import build_frame

        payload = _payload(size, text=False)
        return lambda: build_frame(0x82, payload, _KEY)

    return make


def _unmask(size: int) -> Callable[[], Callable[[], object]]:
    def make() -> Callable[[], object]:
        from geventws.protocol.masking import unmask

        # It may be unmasked where it stands: whatever the octets are each time, the work is the same.
        buffer = bytearray(_payload(size, text=False))
        return lambda: unmask(buffer, 0, size, _KEY, 0)

    return make


WORKLOADS = (
    Workload("decode 32 B text, one a read", _decode(32, 1, text=True)),
    Workload("decode 32 B text, 64 a read", _decode(32, 64, text=True), 64, 10),
    Workload("decode 1 KiB text, one a read", _decode(1024, 1, text=True)),
    Workload("decode 1 KiB binary, 16 a read", _decode(1024, 16, text=False), 16, 10),
    Workload("decode 64 KiB binary, one a read", _decode(65536, 1, text=False), 1, 10),
    Workload("encode 32 B text", _encode(32, text=True)),
    Workload("encode 1 KiB binary", _encode(1024, text=False)),
    Workload("encode 64 KiB text", _encode(65536, text=True), 1, 10),
    Workload("encode 1 KiB binary, masked", _mask(1024)),
    Workload("unmask 32 B", _unmask(32)),
    Workload("unmask 1 KiB", _unmask(1024)),
    Workload("unmask 64 KiB", _unmask(65536), 1, 10),
)
