"""The negotiation of permessage-deflate (RFC 7692 section 7.1).

It works on extensions that are already parsed; the header's grammar is the business of headers.py, and
messages that of contexts.py.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..exceptions import NegotiationError

if TYPE_CHECKING:
    from ..options import Compression

__all__ = [
    "DeflateParameters",
    "accept_response",
    "client_offer",
    "negotiate_offer",
]

Extensions = Sequence[tuple[str, Sequence[tuple[str, "str | None"]]]]

_NAME = "permessage-deflate"
_FLAGS = ("server_no_context_takeover", "client_no_context_takeover")
_WINDOWS = ("server_max_window_bits", "client_max_window_bits")
# RFC 7692 section 7.1.2: "a decimal integer value without leading zeroes between 8 to 15".
_WINDOW_BITS = {str(bits): bits for bits in range(8, 16)}
# zlib inflates any window, but it compresses with no window below 512 bytes (a raw stream of 8
# bits is refused), and what it makes with 9 may point further back than a peer with 8 can see.
_SMALLEST_WINDOW_BITS = 9
_LARGEST_WINDOW_BITS = 15


@dataclasses.dataclass(frozen=True, slots=True)
class DeflateParameters:
    """What holds for a connection: what was agreed on, and a client's own stricter settings.

    Attributes:
        server_no_context_takeover: the server compresses each message on its own.
        client_no_context_takeover: the client does.
        server_max_window_bits: the server's LZ77 window is at most 2**this bytes; from 8 to 15, or
            None where nothing was said, which means 15.
        client_max_window_bits: the client's, likewise.
    """

    server_no_context_takeover: bool = False
    client_no_context_takeover: bool = False
    server_max_window_bits: int | None = None
    client_max_window_bits: int | None = None

    def header(self) -> str:
        """Return a server's answer: an element of Sec-WebSocket-Extensions."""
        parts = [_NAME]
        parts += [name for name in _FLAGS if getattr(self, name)]
        parts += [f"{name}={getattr(self, name)}" for name in _WINDOWS if getattr(self, name) is not None]
        return "; ".join(parts)


def negotiate_offer(offers: Extensions, compression: Compression | None) -> DeflateParameters | None:
    """Choose the server's answer to the extensions that a client offers.

    Args:
        offers: all elements of all Sec-WebSocket-Extensions fields, in their order: the client's
            order of preference.
        compression: our settings, or None where there is no compression.

    Returns:
        The parameters to answer with, or None: no offer of permessage-deflate is acceptable, and
        the connection goes without.
    """
    if compression is None:
        return None
    for name, parameters in offers:
        if name != _NAME:
            continue
        try:
            offer = _read_parameters(parameters, is_offer=True)
        except NegotiationError:
            # RFC 7692 section 7.1: an offer with a parameter that is unknown, repeated or has an
            # illegal value is declined. The handshake goes on, and the next one may do.
            continue
        # RFC 7692 section 7.1.2.1: accepting means to keep to it, and zlib cannot keep to 8.
        if offer.get("server_max_window_bits", _LARGEST_WINDOW_BITS) >= _SMALLEST_WINDOW_BITS:
            return _answer(offer, compression)
    return None


def _answer(offer: dict[str, int], compression: Compression) -> DeflateParameters:
    """Return the answer to an acceptable offer."""
    # RFC 7692 section 7.1.2.1: where the client limits our window, the answer has the same or a
    # smaller value; where it does not, the answer may still tell that ours is smaller, so that
    # the client can do with less memory.
    server_bits = min(offer.get("server_max_window_bits", _LARGEST_WINDOW_BITS), compression.window_bits)
    tell_server_bits = "server_max_window_bits" in offer or server_bits < _LARGEST_WINDOW_BITS
    # RFC 7692 section 7.1.2.2: only a client that offers it can be asked to limit its window.
    # We ask then for no more than ours: inflating takes memory in the size of the *sender's*
    # window, so without the question each client chose up to 32 KiB of our memory. Browsers offer
    # it. Those that do not are few enough to be granted the 32 KiB.
    client_bits = min(offer.get("client_max_window_bits", _LARGEST_WINDOW_BITS), compression.window_bits)
    ask_client_bits = "client_max_window_bits" in offer and client_bits < _LARGEST_WINDOW_BITS
    return DeflateParameters(
        # RFC 7692 section 7.1.1.1: where the client asks for it, the answer must have it.
        server_no_context_takeover="server_no_context_takeover" in offer or not compression.context_takeover,
        # RFC 7692 section 7.1.1.2: offered, it says that the client will not need our window in any
        # case; the answer makes that binding, and nothing is kept between messages. It may be
        # demanded unasked too.
        client_no_context_takeover="client_no_context_takeover" in offer or not compression.context_takeover,
        server_max_window_bits=server_bits if tell_server_bits else None,
        client_max_window_bits=client_bits if ask_client_bits else None,
    )


def client_offer(compression: Compression) -> str:
    """Return a client's offer as an element of Sec-WebSocket-Extensions.

    Args:
        compression: our settings. A `window_bits` below 15 limits both sides; with 15 the offer is
            what browsers send.
    """
    parts = [_NAME]
    if not compression.context_takeover:
        parts += _FLAGS
    if compression.window_bits < _LARGEST_WINDOW_BITS:
        parts += [f"{name}={compression.window_bits}" for name in _WINDOWS]
    else:
        # RFC 7692 section 7.1.2.2: without a value it only says that the server may limit us.
        parts.append("client_max_window_bits")
    return "; ".join(parts)


def accept_response(extensions: Extensions, compression: Compression | None) -> DeflateParameters | None:
    """Check a server's answer to `client_offer(compression)`.

    Args:
        extensions: all elements of all Sec-WebSocket-Extensions fields of the answer.
        compression: our settings, or None where nothing was offered.

    Returns:
        What holds for the connection, or None: the server declined, and it goes without.

    Raises:
        NegotiationError: the answer is none to our offer; the connection has to be failed.
    """
    agreed: DeflateParameters | None = None
    for name, parameters in extensions:
        # RFC 6455 section 4.1: an extension that was not requested fails the connection.
        if name != _NAME or compression is None:
            raise NegotiationError(f"the server chose the extension {name!r}, which was not offered")
        if agreed is not None:
            raise NegotiationError(f"the server chose {_NAME} twice")
        agreed = _check_answer(_read_parameters(parameters, is_offer=False), compression)
    return agreed


def _check_answer(answer: dict[str, int], compression: Compression) -> DeflateParameters:
    """Return what holds with this answer, or raise where it does not fit our offer."""
    # RFC 7692 sections 7.1.1.1 and 7.1.2.1: a server accepts what was offered by repeating it.
    if not compression.context_takeover and "server_no_context_takeover" not in answer:
        raise NegotiationError(f"{_NAME}: the answer lacks server_no_context_takeover, which was offered")
    server_bits = answer.get("server_max_window_bits", _LARGEST_WINDOW_BITS)
    if server_bits > compression.window_bits:
        raise NegotiationError(
            f"{_NAME}: the server's window of {server_bits} bits is larger than the "
            f"{compression.window_bits} offered; window_bits={_LARGEST_WINDOW_BITS} takes any"
        )
    # RFC 7692 section 7.1.2.2: the same value as offered, or a smaller one. Where the answer sets no
    # limit, our own remains.
    client_bits = answer.get("client_max_window_bits", compression.window_bits)
    if client_bits > compression.window_bits:
        raise NegotiationError(
            f"{_NAME}: client_max_window_bits={client_bits} is larger than the "
            f"{compression.window_bits} offered"
        )
    # RFC 7692 section 7.1: a client fails the connection too where it does not support the answer.
    if client_bits < _SMALLEST_WINDOW_BITS:
        raise NegotiationError(
            f"{_NAME}: client_max_window_bits={client_bits} is below {_SMALLEST_WINDOW_BITS}, the smallest "
            f"window that zlib compresses with; connect to this server without compression"
        )
    return DeflateParameters(
        server_no_context_takeover="server_no_context_takeover" in answer,
        # RFC 7692 section 7.1.1.2: our offer was a promise, which the answer need not repeat.
        client_no_context_takeover="client_no_context_takeover" in answer or not compression.context_takeover,
        server_max_window_bits=answer.get("server_max_window_bits"),
        client_max_window_bits=client_bits if client_bits < _LARGEST_WINDOW_BITS else None,
    )


def _read_parameters(parameters: Sequence[tuple[str, str | None]], *, is_offer: bool) -> dict[str, int]:
    """Read the parameters of one element (RFC 7692 section 7.1): a flag is 1, a window its bits.

    Raises:
        NegotiationError: for one that is unknown, repeated or has a value it may not have.
    """
    values: dict[str, int] = {}
    for name, value in parameters:
        if name in values:
            raise NegotiationError(f"{_NAME}: {name} is given twice")
        if name in _FLAGS:
            # RFC 7692 sections 7.1.1.1 and 7.1.1.2: these have no value.
            if value is not None:
                raise NegotiationError(f"{_NAME}: {name} takes no value, not {value!r}")
            values[name] = 1
        elif name in _WINDOWS:
            if value is None and is_offer and name == "client_max_window_bits":
                # RFC 7692 section 7.1.2.2: an offer without a value sets no limit of its own.
                values[name] = _LARGEST_WINDOW_BITS
            elif value is None:
                raise NegotiationError(f"{_NAME}: {name} needs a value from 8 to 15")
            elif value not in _WINDOW_BITS:
                raise NegotiationError(f"{_NAME}: {name} takes a decimal number from 8 to 15, not {value!r}")
            else:
                values[name] = _WINDOW_BITS[value]
        else:
            raise NegotiationError(f"{_NAME}: unknown parameter {name!r}")
    return values
