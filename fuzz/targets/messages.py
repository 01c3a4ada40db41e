"""Messages with permessage-deflate: an input is a recipe for frames that are well formed.

Its first two octets choose role, negotiation, limits and cuts. Then for each frame: an octet that says how it
is made, a length, and so many octets: taken as they are for compressed data, or compressed first.
wsproto and websockets read the frames too, wherever zlib as they use it can (see `_is_usual`).
"""

from __future__ import annotations

import zlib
from typing import Any

from opinions import of_ours, of_wsproto
from streams import encode

from . import Target, theirs
from .both import BUILDS, PURE, UNDER_TEST, pieces_of
from .frames import agree, observe

__all__ = ["TARGETS"]

_FIRST = (0xC1, 0xC2, 0x41, 0x42, 0x00, 0x80, 0x81, 0x89)
_REPEAT = (1, 4, 64, 3000)
_WINDOWS = (None, 9, 12, 15)
_LIMITS = (1024 * 1024, 20, 1000, None)
#: What compressed data may come to; a bomb is one that wants more.
_MOST_COMPRESSED = 1 << 20


def frames_of(data: bytes, masked: bool) -> list[bytes]:
    """Follow the recipe."""
    frames = []
    key = b"\x37\xfa\x21\x3d" if masked else None
    compressor: Any = None
    at = 0
    while at + 2 <= len(data) and len(frames) < 40:
        how, size = data[at], data[at + 1]
        payload = data[at + 2 : at + 2 + size]
        at += 2 + size
        first = _FIRST[how & 7]
        payload *= _REPEAT[how >> 6]
        if how & 8 and first not in (0x81, 0x89):
            if compressor is None:
                compressor = zlib.compressobj(6, zlib.DEFLATED, -9, 1)
            payload = compressor.compress(payload)
            if how & 16:
                # A block with BFINAL set ends zlib's stream.
                payload += compressor.flush(zlib.Z_FINISH)
                compressor = None
                if how & 32:
                    payload += b"\x00"
            else:
                payload += compressor.flush(zlib.Z_SYNC_FLUSH)
                if first & 0x80:
                    payload = payload[: -5 if how & 32 else -4]
        if first == 0x89:
            payload = payload[:125]
        frames.append(encode(first, payload, key))
    return frames


def _options(data: bytes) -> tuple[dict[str, Any], dict[str, Any], int | None]:
    one, two = data[0], data[1]
    limit = _LIMITS[one >> 1 & 3]
    negotiated = {
        "server_no_context_takeover": bool(two & 1),
        "client_no_context_takeover": bool(two & 2),
        "server_max_window_bits": _WINDOWS[two >> 2 & 3],
        "client_max_window_bits": _WINDOWS[two >> 4 & 3],
    }
    return {"client": bool(one & 1), "max_message_size": limit}, negotiated, limit


def _same(whole: Any, cut: Any) -> bool:
    """Whether two ways to cut gave the same."""
    if whole == cut:
        return True
    # A compressed text that breaks two rules, both of them 1007: it is not UTF-8, and further on it is not
    # DEFLATE data. zlib keeps what came out in front of such data to itself.
    kinds = {whole[5] and whole[5][1], cut[5] and cut[5][1]}
    return kinds == {"payload.utf8", "payload.deflate"} and whole[0] == cut[0]


def agree_when_cut(
    stream: bytes,
    pieces: list[bytes],
    options: dict[str, Any],
    negotiated: dict[str, Any],
    whole: Any,
    cut: Any,
) -> bool:
    """Whether two ways to cut gave the same, or differ in what zlib makes of a reference behind the window.

    What a peer's compressor must not refer to any more zlib still finds in what the same call of it has
    yielded, and refuses where the call was another. It never reads it otherwise: not than the largest
    window does, for which both ways are the same.
    """
    if _same(whole, cut):
        return True
    if negotiated[f"{'server' if options['client'] else 'client'}_max_window_bits"] in (None, 15):
        return False
    refused, other = (whole, cut) if len(whole[0]) <= len(cut[0]) and _is_too_far(whole) else (cut, whole)
    if not _is_too_far(refused):
        return False
    largest = negotiated | dict.fromkeys(("server_max_window_bits", "client_max_window_bits"))
    right = _see(UNDER_TEST, [stream], options, largest)
    if not _same(right, _see(UNDER_TEST, pieces, options, largest)):
        return False
    if other[5] is None and other[0] != right[0]:
        return False
    seen, understood = _messages(refused), _messages(other)
    return seen == understood[: len(seen)] and understood == _messages(right)[: len(understood)]


def _is_too_far(seen: Any) -> bool:
    return bool(seen[5]) and "invalid distance too far back" in seen[5][2]


def _messages(seen: Any) -> list[Any]:
    """What came, without how it ended."""
    return [event for event in seen[0] if not isinstance(event, int)]


def _see(build: Any, pieces: list[bytes], options: dict[str, Any], negotiated: dict[str, Any]) -> Any:
    return observe(build, pieces, True, deflate=build.deflate.DeflateParameters(**negotiated), **options)


def _kind(seen: Any) -> Any:
    # Too fine, and every third input is of a new kind, and put to everybody.
    events, _, phase, received, _, error = seen
    shape = tuple(
        event if isinstance(event, int) else (type(event[0]).__name__, event[1].bit_length() // 6)
        for event in events[:3]
        if event
    )
    return shape, min(len(events), 4), phase, received and received[0] // 1000, error and error[1]


def quick(data: bytes) -> Any:
    if len(data) < 2:
        return None
    options, negotiated, _ = _options(data)
    stream = b"".join(frames_of(data[2:], not options["client"]))
    whole = _see(UNDER_TEST, [stream], options, negotiated)
    # Cut, it takes several times as long.
    if not len(data) & 3:
        pieces = pieces_of(stream, data[0] >> 3)
        cut = _see(UNDER_TEST, pieces, options, negotiated)
        assert agree_when_cut(stream, pieces, options, negotiated, whole, cut), (whole, cut)
    return _kind(whole)


def check(data: bytes) -> None:
    if len(data) < 2:
        return
    options, negotiated, limit = _options(data)
    frames = frames_of(data[2:], not options["client"])
    stream = b"".join(frames)
    first = _see(UNDER_TEST, [stream], options, negotiated)
    pieces = pieces_of(stream, data[0] >> 3)
    for build in BUILDS:
        assert _see(build, [stream], options, negotiated) == first
    ours, other = (_see(build, pieces, options, negotiated) for build in BUILDS)
    assert ours == other
    assert agree_when_cut(stream, pieces, options, negotiated, first, ours), (first, ours)
    for event in first[0]:
        if isinstance(event, tuple):
            message, size = event
            assert len(message.encode() if isinstance(message, str) else message) == size
            assert limit is None or size <= limit
    _ask_others(options["client"], frames)


def _ask_others(client: bool, frames: list[bytes]) -> None:
    """As far as all agree on what zlib does."""
    count = _usual(client, frames)
    frames = frames[:count]
    ours = of_ours(UNDER_TEST, client, frames, True)
    if not any(frame[0] & 0x0F == 9 for frame in frames):
        agree("wsproto", of_wsproto, client, frames, ours, True)
    if theirs.AVAILABLE:
        agree("websockets", theirs.of_frames, client, frames, ours, True)


def _usual(client: bool, frames: list[bytes]) -> int:
    """How many frames there are before one that others are known to take otherwise.

    Both have one stream of zlib's for all messages. It ends with a block that has BFINAL set, and yields
    nothing for all that follows (RFC 7692 section 7.2.3.4 allows such blocks); a message that ends in the
    middle of a block passes with them, or without a byte, and the next one pays for it.
    """
    inflater = PURE.contexts.Inflater(15, no_context_takeover=False)
    compressed = False
    for count, frame in enumerate(frames):
        opcode, fin = frame[0] & 0x0F, frame[0] & 0x80
        if opcode == 9:
            continue
        if opcode:
            compressed = bool(frame[0] & 0x40)
        if not compressed:
            continue
        payload = _payload(frame, client)
        try:
            inflater.inflate(payload, _MOST_COMPRESSED)
            if inflater.streams > 1 or (inflater._stream is None and (payload or fin)):
                return count
            if fin:
                # The last block may be final once its end is back (RFC 7692 section 7.2.2).
                stream = inflater._stream.copy()
                stream.decompress(b"\x00\x00\xff\xff")
                if stream.eof:
                    return count
                inflater.finish()
        except (PURE.exceptions.InvalidPayload, PURE.exceptions.MessageTooBig, zlib.error):
            return count
    return len(frames)


def _payload(frame: bytes, client: bool) -> bytes:
    size = {126: 4, 127: 10}.get(frame[1] & 0x7F, 2)
    if client:
        return frame[size:]
    return bytes(PURE.masking.unmask(bytearray(frame), size + 4, len(frame), frame[size : size + 4], 0))


_DICTIONARY = [
    b"\x08\x05Hello",
    b"\x00\x07\xf2\x48\xcd\xc9\xc9\x07\x00",
    b"\x01\x01\x00",
    b"\x18\x03abc",
    b"\x38\x03abc",
    b"\x0a\x05Hello",
    b"\x0c\x05Hello",
    b"\x0d\x05Hello",
    b"\xc8\xff",
    b"\x07\x00",
    b"\x06\x02ok",
    b"\x03\x00",
    b"\x00\x00\xff\xff",
    b"\x02\x00",
    b"\x04\x00",
    b"\x05\x00",
    b"\x28\x05Hello",
    b"\xed\xa0\x80",
    b"\xc3\xa9",
    b"\x01\x05\x00\xfa\xff",
    b"\x4b\x4c\x04\x00",
]

TARGETS = {"messages": Target(check, quick, _DICTIONARY, 400)}
