"""The lists in header fields: extensions with their parameters, subprotocols, Connection, Upgrade.

A line feed in an input begins another line of the field. All grammars read the same text. websockets takes
what we take, and understands the same.
"""

from __future__ import annotations

from typing import Any

from websockets import headers as others
from websockets.exceptions import InvalidHeaderFormat

from . import Target, theirs
from .both import BUILDS, UNDER_TEST, told

__all__ = ["TARGETS"]

_OFFERS: tuple[dict[str, Any] | None, ...] = (
    None,
    {},
    {"window_bits": 15},
    {"context_takeover": False},
    {"window_bits": 9, "context_takeover": False},
)


def _read(build: Any, read: Any, *arguments: Any) -> Any:
    try:
        return read(*arguments)
    except build.exceptions.InvalidHeader as error:
        return told(error)


def _agree(build: Any, extensions: Any) -> list[Any]:
    """What both sides make of a list of extensions, with different settings."""
    found: list[Any] = []
    for arguments in _OFFERS:
        compression = None if arguments is None else build.options.Compression(**arguments)
        answer = build.deflate.negotiate_offer(extensions, compression)
        if answer is not None:
            header = answer.header()
            assert build.headers.parse_extensions([header])[0][0] == "permessage-deflate"
            # RFC 7692 section 7.1.2.1: never a larger window than was asked for.
            assert 9 <= (answer.server_max_window_bits or 15) <= compression.window_bits
            found.append(header)
        try:
            accepted = build.deflate.accept_response(extensions, compression)
            found.append(accepted and (accepted.header(), accepted.client_no_context_takeover))
        except build.exceptions.NegotiationError as error:
            found.append(told(error))
    return found


def observe(build: Any, data: bytes) -> tuple[Any, ...]:
    values = data.decode("latin-1").split("\n")
    headers = build.headers
    extensions = _read(build, headers.parse_extensions, values)
    if isinstance(extensions, list):
        try:
            written = headers.format_extensions(extensions)
        except ValueError as error:
            raise AssertionError(f"{extensions} cannot be written: {error}") from error
        assert headers.parse_extensions([written]) == extensions
    request = build.http.Request("GET", "/", [("Sec-WebSocket-Protocol", value) for value in values])
    subprotocol = _read(build, build.handshake.select_subprotocol, request, ["chat", "b"])
    assert not isinstance(subprotocol, str) or subprotocol in ("chat", "b")
    return (
        extensions,
        _agree(build, extensions) if isinstance(extensions, list) else None,
        _read(build, headers.parse_token_list, values, "Connection"),
        _read(build, headers.parse_upgrade, values),
        subprotocol,
    )


def quick(data: bytes) -> Any:
    seen = observe(UNDER_TEST, data)
    # What of it matters for the kind: how many there are, and what is made of it.
    return (
        tuple(
            min(len(part), 4) if isinstance(part, list) else part and part[1].partition("'")[0][:30]
            for part in (seen[0], seen[2], seen[3])
        ),
        seen[1] and tuple(str(part)[:60] for part in seen[1][:6]),
        seen[4] if isinstance(seen[4], str) else seen[4] is None,
    )


def check(data: bytes) -> None:
    seen = observe(BUILDS[0], data)
    assert observe(BUILDS[1], data) == seen
    if not theirs.AVAILABLE or b"\n" in data:
        return
    text = data.decode("latin-1").strip(" \t")
    if text.count(",") + text.count(";") > 255:
        # More than we take.
        return
    for ours, read in (
        (seen[0], others.parse_extension),
        (seen[2], others.parse_connection),
        (seen[3], others.parse_upgrade),
    ):
        try:
            found = read(text)
        except InvalidHeaderFormat as error:
            # RFC 9110 section 5.6.1.2: empty elements are ignored; a list of nothing else is one for us.
            assert not isinstance(ours, list) or ours == [], (read, ours, error)
            continue
        assert ours == found, (read, ours, found)


_DICTIONARY = [
    b",",
    b";",
    b"=",
    b'"',
    b"\\",
    b" ",
    b"\t",
    b"\n",
    b"/",
    b"permessage-deflate",
    b"; server_no_context_takeover",
    b"; client_no_context_takeover",
    b"; server_max_window_bits=12",
    b'; client_max_window_bits="9"',
    b"; client_max_window_bits",
    b"; server_max_window_bits=8",
    b"=15",
    b"=08",
    b"=16",
    b"chat",
    b"b",
    b"websocket",
    b"Upgrade",
    b"keep-alive",
    b'"a\\"b"',
    b"x-webkit-deflate-frame",
    b"\xff",
    b"\0",
    b", ,",
]

TARGETS = {"lists": Target(check, quick, _DICTIONARY, 300)}
