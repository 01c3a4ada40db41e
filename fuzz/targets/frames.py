"""Frames without compression, in both roles.

The first octet of an input chooses limits and cuts, the rest is the stream. wsproto and websockets read it
too, frame by frame and without limits.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from opinions import of_ours, of_wsproto, split_stream
from streams import describe

from . import Target, theirs
from .both import BUILDS, UNDER_TEST, pieces_of

__all__ = ["TARGETS", "observe"]

_LIMITS: tuple[dict[str, int | None], ...] = (
    {},
    {"max_message_size": 125},
    {"max_message_size": 300, "max_fragments": 2},
    {"max_message_size": None, "max_fragments": None},
)


def observe(build: Any, pieces: list[bytes], direct: bool = False, **options: Any) -> tuple[Any, ...]:
    """All that can be seen of a connection that receives these pieces, but not at which of them."""
    connection = build.connection.Connection(**options)
    connection.direct = direct
    events: list[Any] = []
    for piece in pieces:
        wanted = connection.wanted
        if wanted:
            count = min(wanted, len(piece))
            with connection.block.room(wanted) as room:
                room[:count] = piece[:count]
            connection.feed_block(count)
            piece = piece[count:]
        connection.receive_data(piece)
        while event := connection.next_event():
            if event == 1:
                events.append((connection.message, connection.message_size))
            elif event == 2:
                events.append(connection.pong)
            else:
                events.append(int(event))
    out = b"".join(connection.out)
    assert connection.out_size == len(out)
    received, sent = connection.close_received, connection.close_sent
    return (
        events,
        out,
        int(connection.phase),
        received and (received.code, received.reason),
        sent and (sent.code, sent.reason),
        describe(connection.error),
    )


def _kind(seen: tuple[Any, ...]) -> Any:
    """What kind of input that was."""
    events, _, phase, received, _, error = seen
    shape = tuple(
        event if isinstance(event, int) else type(event[0]).__name__ for event in events[:4] if event
    )
    return shape, min(len(events), 6), phase, received and received[0] // 100, error and error[1]


def _within(seen: tuple[Any, ...], limit: int | None) -> None:
    """No message is larger than it may be, and no violation goes without its Close."""
    events, out, phase, received, sent, error = seen
    for event in events:
        if isinstance(event, tuple):
            message, size = event
            data = message.encode() if isinstance(message, str) else message
            assert len(data) == size
            assert limit is None or size <= limit
    assert (phase == 4) == (error is not None)
    assert (phase in (3, 4)) == (sent is not None)
    # RFC 6455 section 5.5.1: the answer has the code that came.
    assert received is None or sent == (received[0], "")
    assert sent is None or b"\x88" in out


def quick(client: bool, data: bytes) -> Any:
    control, stream = data[0] if data else 0, data[1:]
    limits = _LIMITS[control & 3]
    whole = observe(UNDER_TEST, [stream], client=client, **limits)
    # Cut, it takes three times as long.
    if not len(data) & 3:
        cut = observe(
            UNDER_TEST, pieces_of(stream, control >> 2), bool(control & 16), client=client, **limits
        )
        assert whole == cut, (whole, cut)
    return _kind(whole)


def check(client: bool, data: bytes) -> None:
    control, stream = data[0] if data else 0, data[1:]
    limits = _LIMITS[control & 3]
    pieces = pieces_of(stream, control >> 2)
    first = observe(BUILDS[0], [stream], client=client, **limits)
    for build in BUILDS:
        assert observe(build, [stream], client=client, **limits) == first
        assert observe(build, pieces, bool(control & 16), client=client, **limits) == first
    _within(first, limits.get("max_message_size", 1024 * 1024))
    _ask_others(client, list(split_stream(stream)))


def _ask_others(client: bool, pieces: list[bytes]) -> None:
    """Compare with what others make of these frames."""
    ours = of_ours(UNDER_TEST, client, pieces, False)
    agree("wsproto", of_wsproto, client, pieces, ours)
    if theirs.AVAILABLE:
        agree("websockets", theirs.of_frames, client, pieces, ours)


def agree(name: str, ask: Any, client: bool, pieces: list[bytes], ours: Any, deflate: bool = False) -> None:
    """The same events and the same verdict, but for what is known to differ."""
    others = ask(client, pieces, deflate)
    if ours == others:
        return
    if name == "wsproto" and ours[1] is None and others == (ours[0], 1002):
        # A header that may not be is judged when it is complete by us, before that by them.
        assert not _has_header(pieces[-1]), (name, ours, others)
        return
    if name == "wsproto" and ours[0] and ours[0][-1][:2] == ("close", 1014):
        # Registered by IANA in the year after RFC 6455, and unknown there.
        assert others == (ours[0][:-1], 1002), (name, ours, others)
        return
    assert ours[1] is not None, (name, ours, others)
    # What they make of what stands behind our violation is no matter.
    count, kind = _violation(client, pieces, deflate)
    others = ask(client, pieces[:count], deflate)
    if ours == others:
        return
    if kind in ("close.code", "close.reason") and others[0] == ours[0] and others[1] in (1002, 1007):
        # Two rules are broken by one Close: its code, 1002, and the UTF-8 of its reason, 1007. To
        # wsproto, 1014 is such a code.
        return
    if name == "wsproto" and kind == "frame.continuation" and others == (ours[0], 1007):
        # A frame that may not stand here, and text that is not UTF-8 in it: they look at the text first.
        return
    assert others == (ours[0], None) or kind in _LENGTHS, (name, kind, ours, others)
    last = pieces[count - 1]
    is_whole = list(split_stream(last + b"\0")) == [last, b"\0"]
    if kind == "payload.utf8":
        # Found as it comes by us, at the end of the message by them.
        assert not (is_whole and last[0] & 0x80), (name, kind, ours, others)
    elif kind in _LENGTHS and last[1] & 0x7F >= 126:
        # RFC 6455 section 5.2: the minimal number of bytes MUST be used, and the first bit MUST be 0.
        assert name == "websockets", (name, kind, ours, others)
    else:
        # A header is judged at once by us, with its payload by them.
        assert not is_whole, (name, kind, ours, others)


#: Violations that websockets does not see where a length is not minimal.
_LENGTHS = ("frame.length", "frame.control_length")


def _has_header(piece: bytes) -> bool:
    """Whether a frame's header is complete."""
    if len(piece) < 2:
        return False
    return len(piece) >= 2 + {126: 2, 127: 8}.get(piece[1] & 0x7F, 0) + (4 if piece[1] & 0x80 else 0)


def _violation(client: bool, pieces: list[bytes], deflate: bool) -> tuple[int, str]:
    """How many pieces it took us to find a violation, and of what kind it is."""
    connection = UNDER_TEST.connection.Connection(
        client=client,
        max_message_size=None,
        max_fragments=None,
        deflate=UNDER_TEST.deflate.DeflateParameters() if deflate else None,
    )
    for count, piece in enumerate(pieces, 1):
        connection.receive_data(piece)
        while event := connection.next_event():
            if event == 4:
                connection.next_event()
                return count, connection.error.kind
    raise AssertionError("there is no violation")


_DICTIONARY = [
    b"\x81\x80\0\0\0\0",
    b"\x82\x80\0\0\0\0",
    b"\x01\x80\0\0\0\0",
    b"\x02\x80\0\0\0\0",
    b"\x00\x80\0\0\0\0",
    b"\x80\x80\0\0\0\0",
    b"\x88\x80\0\0\0\0",
    b"\x88\x82\0\0\0\0\x03\xe8",
    b"\x89\x80\0\0\0\0",
    b"\x8a\x80\0\0\0\0",
    b"\x89\x00",
    b"\x81\x00",
    b"\x01\x00",
    b"\x80\x00",
    b"\x00\x00",
    b"\x88\x02\x03\xe8",
    b"\xfe\x00\x7e",
    b"\xfe\xff\xff",
    b"\xff\0\0\0\0\0\1\0\0",
    b"\x7e\x00\x7e",
    b"\x7f\0\0\0\0\0\1\0\0",
    b"\xff\x7f\xff\xff\xff\xff\xff\xff\xff",
    b"\xff\x80\0\0\0\0\0\0\0",
    b"\xed\xa0\x80",
    b"\xf4\x90",
    b"\xc3\xa9",
    b"\xe2\x82\xac",
    b"\xf0\x90\x8d\x88",
    b"\xc0\xaf",
]

TARGETS = {
    f"frames_{role}": Target(partial(check, client), partial(quick, client), _DICTIONARY, 320)
    for role, client in (("server", False), ("client", True))
}
