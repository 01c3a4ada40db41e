"""Payloads of Close frames: alone, and on a connection; websockets and wsproto read them too."""

from __future__ import annotations

from typing import Any

from opinions import of_ours, of_wsproto
from streams import encode

from . import Target, theirs
from .both import BUILDS, UNDER_TEST, told
from .frames import agree, observe

__all__ = ["TARGETS"]


def _parse(build: Any, payload: bytes) -> tuple[Any, ...]:
    try:
        close = build.closing.Close.parse(payload)
    except build.exceptions.ProtocolError as error:
        return told(error)
    # What can be read can be written, and is the same.
    assert close.serialize() == payload
    made, again = build.closing.make_close(close.code, close.reason)
    assert (made, again) == (close, payload)
    return close.code, close.reason, str(close)


def quick(data: bytes) -> Any:
    seen = _parse(UNDER_TEST, data[:125])
    frame = encode(0x88, data[:125], b"\x01\x02\x03\x04")
    answered = observe(UNDER_TEST, [frame], client=False)
    assert (answered[5] is None) == isinstance(seen[0], int)
    return seen[0] if isinstance(seen[0], int) else seen[2:4], len(data).bit_length()


def check(data: bytes) -> None:
    payload = data[:125]
    seen = _parse(BUILDS[0], payload)
    assert _parse(BUILDS[1], payload) == seen
    for client in (False, True):
        frame = encode(0x88, payload, None if client else b"\x01\x02\x03\x04")
        first = observe(BUILDS[0], [frame], client=client)
        assert observe(BUILDS[1], [frame[:3], frame[3:]], client=client) == first
        # A reason of ours is cut between code points, whatever it quotes.
        if first[5] is not None:
            assert len(first[4][1].encode()) <= 123
        ours = of_ours(UNDER_TEST, client, [frame], False)
        agree("wsproto", of_wsproto, client, [frame], ours)
        if theirs.AVAILABLE:
            agree("websockets", theirs.of_frames, client, [frame], ours)
    text = payload.decode("utf-8", "surrogateescape")
    cut = BUILDS[0].closing.truncate_reason(text)
    assert len(cut.encode()) <= 123
    if len(text.encode("utf-8", "backslashreplace")) <= 123:
        assert cut == text.encode("utf-8", "backslashreplace").decode()


_DICTIONARY = [
    *(
        code.to_bytes(2, "big")
        for code in (0, 999, *range(1000, 1017), 1100, 1999, 2000, 2999, 3000, 3999, 4000)
    ),
    *(code.to_bytes(2, "big") for code in (4999, 5000, 65535)),
    b"\xc3\xa9",
    b"\xe2\x82\xac",
    b"\xf0\x90\x8d\x88",
    b"\xed\xa0\x80",
    b"\xff",
    b"\xe2\x82",
    b"a" * 60,
    b"\xc3\xa9" * 61,
]

TARGETS = {"closes": Target(check, quick, _DICTIONARY, 125)}
