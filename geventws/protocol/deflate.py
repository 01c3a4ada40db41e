"""permessage-deflate (RFC 7692): its negotiation, and messages through DEFLATE and back.

The negotiation (RFC 7692 section 7.1) works on extensions that are already parsed; the header's
grammar, frames, RSV1 and the choice of which messages to compress are the business of others.
"""

from __future__ import annotations

import dataclasses
import sys

# The only place that knows which DEFLATE this is: everything below needs no more of it than
# compressobj, decompressobj, error and a few constants, so a faster twin can take its name.
import zlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..exceptions import InvalidPayload, MessageTooBig, NegotiationError, RemoteProtocolError

if TYPE_CHECKING:
    from ..options import Compression

__all__ = [
    "DeflateParameters",
    "Deflater",
    "Inflater",
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

# The end of an empty block without compression, which a sync flush leaves behind.
_FLUSH_TAIL = b"\x00\x00\xff\xff"
# An empty block with BFINAL set: zlib reports the end of the stream behind it, and only there.
_END_OF_STREAM = b"\x03\x00"
_EMPTY_MESSAGE = b"\x00"

# Bytes that zlib gets at a time. At the end of a stream it copies all that is left of its input, so
# a frame made of nothing but two-byte final blocks would otherwise cost the square of its size.
_SLICE = 16 * 1024
# Blocks with BFINAL set that one message may have. Behind each follows a new zlib object, for as
# little as two bytes from the peer. An encoder that ends its stream with each message makes one.
_MAX_FINAL_BLOCKS = 16


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


class Inflater:
    """Turns the compressed messages of the peer back (RFC 7692 section 7.2.2), within a limit.

    Feed the pieces of a message to `inflate`, however they are cut, then call `finish`. After an
    error nothing but `close` makes sense.

    Memory: while a message is under way, zlib's 7 KiB and 2**window_bits bytes. In between only
    the window itself, the last 2**window_bits bytes at most of what was inflated, and with
    `no_context_takeover` nothing. Before the first message: nothing.

    Every message gets a zlib object of its own that starts with the window of those before. RFC
    7692 asks for this in two places that one long stream cannot serve: a block with BFINAL set ends
    zlib's stream but not the peer's window (sections 7.2.1, 7.2.2 and 7.2.3.4), and only by ending
    a stream does zlib tell whether it stood between two blocks, as it must at the end of a
    message. This costs about a microsecond, and saves zlib's share for idle connections.

    Args:
        window_bits: what the peer may use at most, 8 to 15, as negotiated; 15 where it was not.
        no_context_takeover: the peer starts each message with an empty window.
    """

    __slots__ = ("_no_context_takeover", "_size", "_stream", "_streams", "_window", "_window_bits", "partial")

    def __init__(self, window_bits: int, *, no_context_takeover: bool) -> None:
        #: Of the piece that `inflate` raised for.
        self.partial = b""
        self._window_bits = max(window_bits, _SMALLEST_WINDOW_BITS)
        self._no_context_takeover = no_context_takeover
        self._window = bytearray()
        #: zlib's stream, or None between messages and behind a block with BFINAL set.
        self._stream: zlib._Decompress | None = None
        #: Streams begun in this message, and bytes that it yielded.
        self._streams = 0
        self._size = 0

    def inflate(self, data: bytes, max_length: int | None) -> bytes:
        """Inflate a piece of a message.

        Next: the following piece, or `finish` at the end of the message.

        Args:
            data: compressed bytes, cut anywhere.
            max_length: bytes that this message may still yield, 0 included; None is unlimited.

        Returns:
            What this piece yields, possibly nothing.

        Raises:
            MessageTooBig: more than `max_length` would come out; no more than one byte above was
                inflated.
            InvalidPayload: this is not DEFLATE data.

        Either way `partial` is what came out before, as far as zlib tells.
        """
        output: list[bytes] = []
        try:
            self._inflate_to(output, data, max_length)
        except RemoteProtocolError:
            self.partial = b"".join(output)
            raise
        return b"".join(output)

    def _inflate_to(self, output: list[bytes], data: bytes, max_length: int | None) -> None:
        """Do the work of `inflate`; what comes out is put into `output`."""
        limit = None if max_length is None else self._size + max_length
        position = 0
        while position < len(data):
            piece = data[position : position + _SLICE]
            stream = self._stream or self._begin()
            # To zlib 0 means unlimited: it is asked for one byte more than there may be.
            # What is above sys.maxsize, it cannot be told, and no bytes object can reach.
            ask = 0 if limit is None else min(limit - self._size + 1, sys.maxsize)
            try:
                inflated = stream.decompress(piece, ask)
            except zlib.error as error:
                raise InvalidPayload(f"the compressed data is invalid: {error}", "payload.deflate") from error
            self._size += len(inflated)
            if limit is not None and self._size > limit:
                output.append(inflated[: limit - self._size])
                raise MessageTooBig(
                    f"a message that inflates to more than {limit} bytes (max_message_size)",
                    self._size,
                    limit,
                )
            if inflated:
                self._slide_window(inflated)
                output.append(inflated)
            if stream.eof:
                # RFC 7692 section 7.2.1: a block with BFINAL set need not be the last of a message.
                position += len(piece) - len(stream.unused_data)
                self._stream = None
            else:
                position += len(piece) - len(stream.unconsumed_tail)

    def finish(self) -> None:
        """End the message: check that it is complete, and prepare for the next.

        This yields no data: when the last block is complete, all of it has been inflated.

        Raises:
            InvalidPayload: the message ends in the middle of a block.
        """
        stream = self._stream
        # Without a stream the message ended with a block that has BFINAL set, or without a byte.
        # Section 7.2.1 has such a sender append 0x00; the few that do not are understood all the
        # same, as there is no other way to read it.
        if stream is not None:
            try:
                # RFC 7692 section 7.2.2: append what the sender removed. Taken for data, it may
                # yield something, but it does not get to the end then.
                stream.decompress(_FLUSH_TAIL + _END_OF_STREAM, 1)
            except zlib.error as error:
                raise InvalidPayload(
                    f"the compressed message is incomplete: {error}", "payload.deflate"
                ) from error
            # The sender's last block may have BFINAL set, too: then it is that one which ends the stream.
            if not stream.eof or stream.unused_data not in (b"", _END_OF_STREAM):
                raise InvalidPayload(
                    "the compressed message ends in the middle of a block", "payload.deflate"
                )
            self._stream = None
        self._streams = 0
        self._size = 0
        if self._no_context_takeover:
            self._window = bytearray()
        else:
            self._cut_window()

    def close(self) -> None:
        """Drop everything; what refers to earlier messages can not be inflated any more."""
        self.partial = b""
        self._stream = None
        self._streams = 0
        self._size = 0
        self._window = bytearray()

    def _begin(self) -> zlib._Decompress:
        """Begin a stream with the window so far: for a message, or behind a block with BFINAL set."""
        self._streams += 1
        final_blocks = self._streams - 1
        if final_blocks > _MAX_FINAL_BLOCKS:
            raise MessageTooBig(
                f"a compressed message of more than {_MAX_FINAL_BLOCKS} final blocks",
                final_blocks,
                _MAX_FINAL_BLOCKS,
                "message.final_blocks",
            )
        # RFC 7692 section 7.2.2: the window is that of the previous message, whichever blocks it was
        # made of. A peer whose compressor starts anew after BFINAL does not refer to it.
        self._stream = zlib.decompressobj(-self._window_bits, zdict=self._cut_window())
        return self._stream

    def _slide_window(self, inflated: bytes) -> None:
        """Keep the last 2**window_bits bytes of all that was inflated, and up to as many before them.

        Cutting at every piece would copy the window for each fragment of one byte.
        """
        size = 1 << self._window_bits
        self._window += inflated[-size:]
        if len(self._window) > 2 * size:
            del self._window[:-size]

    def _cut_window(self) -> bytearray:
        """Return the window, and let go of what is before it."""
        size = 1 << self._window_bits
        if len(self._window) > size:
            self._window = self._window[-size:]
        return self._window


class Deflater:
    """Compresses messages (RFC 7692 section 7.2.1).

    Memory: zlib's (1 << (window_bits + 2)) + (1 << (mem_level + 9)) bytes, from the first message
    on: 32 KiB with 12 and 5, 256 KiB with 15 and 8. With `no_context_takeover` only while a
    message is under way. No reference to a payload is kept.

    Args:
        level: effort, from 1 (fast) to 9 (small).
        window_bits: size of the LZ77 window, 9 to 15, not above what was negotiated.
        mem_level: memory for hash tables and buffers, from 1 to 9.
        no_context_takeover: start each message with an empty window.
    """

    __slots__ = ("_level", "_mem_level", "_no_context_takeover", "_stream", "_window_bits")

    def __init__(self, level: int, window_bits: int, mem_level: int, *, no_context_takeover: bool) -> None:
        self._level = level
        self._window_bits = window_bits
        self._mem_level = mem_level
        self._no_context_takeover = no_context_takeover
        self._stream: zlib._Compress | None = None

    @property
    def settings(self) -> tuple[int, int, int] | None:
        """What makes two contexts give the same bytes: level, window bits, memory level.

        None where a message depends on those before it.
        """
        return (self._level, self._window_bits, self._mem_level) if self._no_context_takeover else None

    def deflate(self, payload: bytes | bytearray | memoryview) -> bytes:
        """Compress one whole message; every message that was compressed has to be sent."""
        return self.deflate_fragment(payload, True)

    def deflate_fragment(self, payload: bytes | bytearray | memoryview, fin: bool) -> bytes:
        """Compress a fragment of a message.

        The peer can inflate each fragment as soon as it has it. What an empty fragment that is not
        the last yields is empty too.

        Args:
            payload: the fragment's payload.
            fin: whether it is the last.
        """
        if len(payload) == 0:
            # RFC 7692 section 7.2.3.6: an empty block without compression, less its last four bytes.
            # Not by zlib, whose documentation has it skip a second flush in a row, and so that
            # an empty message makes no context. All that was sent before ends with whole bytes.
            compressed = _EMPTY_MESSAGE if fin else b""
        else:
            if self._stream is None:
                self._stream = zlib.compressobj(
                    self._level, zlib.DEFLATED, -self._window_bits, self._mem_level
                )
            try:
                compressed = self._stream.compress(payload)
                flushed = self._stream.flush(zlib.Z_SYNC_FLUSH)
            except BaseException:
                # The window would hold what the peer never got; without it we are right again.
                self.close()
                raise
            # RFC 7692 section 7.2.1: the last four bytes of a message's last flush are removed.
            compressed += flushed[: -len(_FLUSH_TAIL)] if fin else flushed
        if fin and self._no_context_takeover:
            self.close()
        return compressed

    def close(self) -> None:
        """Drop the context.

        It is made anew when it is needed, and the peer does not notice: no message has to refer
        to those before. So this may be called at any time, to free the memory of an idle
        connection too.
        """
        self._stream = None
