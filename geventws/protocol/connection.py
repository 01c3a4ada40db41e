"""One WebSocket connection after its opening handshake, without the wire.

Feed what was received with `receive_data`, then call `next_event` until it says `NEED_DATA`; what
is to be written stands in `out`. Pings are answered and the closing handshake is done here; this
file knows neither sockets nor time.

Rules of this file: the first violation ends the reading of everything behind it, and is told only
after all that came before it; a Close and a violation take effect one call after they are told, so
that the messages before them can still be answered; no frame is written after a Close; every frame
is put into `out` whole.

Hot: compiled with connection.pxd (`benchmarks/micro.py`, rows "decode" and "encode").
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

from ..exceptions import (
    ConnectionClosed,
    ConnectionClosedError,
    ConnectionClosedOK,
    ProtocolError,
    RemoteProtocolError,
)
from .closing import Close, Phase, Step, make_close, transition, truncate_reason
from .contexts import Deflater, Inflater
from .frames import FrameReader
from .keys import next_key
from .masking import build_frame, build_header
from .messages import MessageReader
from .shared import SharedMessage

if TYPE_CHECKING:
    from .block import Block
    from .deflate import DeflateParameters

__all__ = ["Connection", "Event"]


class Event(enum.IntEnum):
    """What `Connection.next_event` found."""

    #: Nothing more: feed what is received next.
    NEED_DATA = 0
    #: A message: `message`, of `message_size` bytes.
    MESSAGE = 1
    #: A Pong: `pong`.
    PONG = 2
    #: The peer sent a Close. The next call of `next_event` answers it.
    CLOSE = 3
    #: The peer broke the protocol. The next call of `next_event` fails the connection.
    FAILED = 4
    #: `budget` is used up; there may be more to be told.
    MORE = 5


# Plain names: to look a member up in its class runs Python code in CPython 3.11, in each handshake.
_OPEN, _CLOSE_DONE, _ENDED = map(int, (Phase.OPEN, Phase.CLOSE_DONE, Phase.ENDED))
_SEND_CLOSE, _RECEIVE_CLOSE, _FAIL, _END = Step


class Connection:
    """The protocol of one connection, for either role.

    Attributes:
        out: frames to be written, in order, as bytes objects (a large one in two, small ones behind many
            joined), but see `direct`; whoever writes them removes them.
        out_size: bytes put into `out` so far; whoever removes them subtracts.
        message: the message of the last event MESSAGE, str or bytes.
        message_size: its bytes, after inflating.
        pong: the payload of the last event PONG.
        phase: how far the closing handshake is, a `Phase`.
        close_received, close_sent: the Close frames, or None.
        received_first: the peer's Close came before ours; None unless both were exchanged.
        error: what the connection was failed for, or None.
        direct: whoever reads and writes for this one looks at `wanted`, and takes a str of ASCII for its
            bytes in `out`. What is large is not copied then.
        wanted: so many of the bytes that come next belong to one payload, and may be received straight
            behind the end of `block`; 0 mostly, and always unless `direct`. Next: `feed_block`.
        budget: what `next_event` may still handle: one for each frame, 8 KiB of a message, and block
            with BFINAL in it. Whoever wants to do something else in between sets it; no limit before.
        readable: the last phase in which messages are still told of: OPEN, or CLOSE_SENT for one who has
            sent all and wants the rest of the answers.
        hold_pongs: while True, only the latest Ping is remembered instead of being answered (RFC 6455
            section 5.5.3 allows that); for a peer that sends Pings and does not read.
    """

    __slots__ = (
        "_client",
        "_deferred",
        "_deflater",
        "_frames",
        "_held_ping",
        "_inert",
        "_messages",
        "_threshold",
        "budget",
        "close_received",
        "close_sent",
        "direct",
        "error",
        "hold_pongs",
        "message",
        "message_size",
        "out",
        "out_size",
        "phase",
        "pong",
        "readable",
        "received_first",
        "wanted",
    )

    def __init__(
        self,
        *,
        client: bool = False,
        max_message_size: int | None = 1024 * 1024,
        max_fragments: int | None = 4096,
        deflate: DeflateParameters | None = None,
        level: int = 6,
        mem_level: int = 5,
        threshold: int = 0,
    ) -> None:
        """Make the connection's protocol.

        Args:
            client: the role: False for a server.
            max_message_size: bytes of a message after inflating, None for no limit.
            max_fragments: frames of a message, None for no limit.
            deflate: what the opening handshake agreed on, None for no compression.
            level, mem_level: of the compression, 1 to 9.
            threshold: messages below this many bytes are sent uncompressed.
        """
        inflater: Inflater | None = None
        deflater: Deflater | None = None
        if deflate is not None:
            ours, theirs = ("client", "server") if client else ("server", "client")
            inflater = Inflater(
                getattr(deflate, f"{theirs}_max_window_bits") or 15,
                no_context_takeover=getattr(deflate, f"{theirs}_no_context_takeover"),
            )
            deflater = Deflater(
                level,
                getattr(deflate, f"{ours}_max_window_bits") or 15,
                mem_level,
                no_context_takeover=getattr(deflate, f"{ours}_no_context_takeover"),
            )
        self._client = client
        #: The peer's Close or violation, told and not yet acted on.
        self._deferred: Close | ProtocolError | None = None
        self._frames = FrameReader(not client)
        self._messages = MessageReader(max_message_size, max_fragments, inflater)
        self._deflater = deflater
        self._threshold = threshold
        self._held_ping: bytes | None = None
        #: Nothing of what comes is looked at any more.
        self._inert = False
        self.out: list[bytes | str] = []
        self.out_size = 0
        self.message: str | bytes | None = None
        self.message_size = 0
        self.pong = b""
        self.phase = _OPEN
        self.readable = _OPEN
        self.close_received: Close | None = None
        self.close_sent: Close | None = None
        self.received_first: bool | None = None
        self.error: ProtocolError | None = None
        self.hold_pongs = False
        self.budget = 2**62
        self.direct = False
        self.wanted = 0

    # What comes in

    def receive_data(self, data: bytes | bytearray | memoryview) -> None:
        """Receive bytes from the network.

        Next: call `next_event` until it gives NEED_DATA, then write `out`.
        """
        buffer = bytearray(data)
        self.feed(buffer, len(buffer))

    def feed(self, buffer: bytearray, end: int) -> None:
        """Receive the first `end` bytes of a buffer that is only lent.

        Next: call `next_event` until it gives NEED_DATA, or `keep`; before that the buffer must not
        be used for anything else, and its bytes may be changed.
        """
        self.wanted = 0
        if not self._inert:
            self._frames.feed(buffer, end)

    @property
    def block(self) -> Block:
        """Where `wanted` bytes may be received; there is none while that is 0."""
        block = self._messages.block
        assert block is not None
        return block

    def feed_block(self, count: int) -> None:
        """Receive `count` bytes that stand behind the end of `block` already, `wanted` at the most.

        Next: `feed` what was received behind them, then as there.

        Raises:
            ValueError: for another count.
        """
        if not 0 <= count <= self.wanted:
            raise ValueError(f"{count} bytes where {self.wanted} were wanted")
        if count:
            self._frames.commit(self.block, count)
        self.wanted = 0

    def keep(self) -> None:
        """Copy what was not looked at yet out of the lent buffer."""
        self._frames.keep()

    def next_event(self) -> int:
        """Go on to the next thing that concerns the application, and return its `Event`."""
        if self._inert:
            if self._deferred is not None:
                self._act()
            return 0
        try:
            return self._advance()
        except RemoteProtocolError as exc:
            # A violation is an event behind all that came before it in the same bytes.
            self._deferred = exc
            self._go_inert()
            return 4

    def _act(self) -> None:
        """Do what a Close or a violation calls for."""
        deferred = self._deferred
        self._deferred = None
        if isinstance(deferred, ProtocolError):
            self.fail(deferred)
        else:
            assert deferred is not None
            self._move(_RECEIVE_CLOSE)
            self.close_received = deferred
            self.received_first = self.close_sent is None
            if self.received_first:
                # RFC 6455 section 5.5.1: a Close is answered with a Close, typically of the same code.
                self.send_close(deferred.code)

    def _advance(self) -> int:
        frames = self._frames
        messages = self._messages
        while True:
            if not frames.in_frame:
                if self.budget <= 0:
                    return 5
                if not frames.read_header():
                    frames.keep()
                    return 0
                self.budget -= 1
                if frames.opcode < 8:
                    messages.begin(frames)
            if frames.opcode < 8:
                message = messages.read(frames)
                if message is not None:
                    self.budget -= (messages.size >> 13) + messages.final_blocks
                    # RFC 6455 section 7.1.6 lets us drop what comes behind our own Close.
                    if self.phase <= self.readable:
                        self.message = message
                        self.message_size = messages.size
                        return 1
                elif frames.in_frame:
                    frames.keep()
                    if self.direct:
                        self.wanted = messages.reserve(frames)
                    return 0
            elif not frames.has_whole_payload():
                frames.keep()
                return 0
            else:
                event = self._control(frames.opcode, frames.take())
                if event:
                    return event

    def _control(self, opcode: int, payload: bytes) -> int:
        """Handle a control frame and return its event, 0 where there is none."""
        if opcode == 0x9:
            # RFC 6455 section 5.5.2: a Ping is answered, unless a Close was sent.
            if self.hold_pongs:
                self._held_ping = payload
            elif self.close_sent is None:
                self._put(0x8A, payload)
            return 0
        if opcode == 0xA:
            # RFC 6455 section 5.5.3: an unsolicited Pong is not answered.
            self.pong = payload
            return 2
        self._deferred = Close.parse(payload)
        # RFC 6455 section 1.4: what comes behind a Close is ignored.
        self._go_inert()
        return 3

    def _go_inert(self) -> None:
        self._inert = True
        self.wanted = 0
        self._frames.drop()
        self._messages.close()

    def release_pongs(self) -> None:
        """Answer the latest Ping that was held, and hold none from now on."""
        self.hold_pongs = False
        payload = self._held_ping
        self._held_ping = None
        # Nothing is written after a Close, and nothing after the end of TCP.
        if payload is not None and self.phase == 0:
            self._put(0x8A, payload)

    def receive_end(self) -> None:
        """Take note that TCP is over, in whatever way; nothing can be read or written after it.

        May be called more than once.
        """
        if self.phase != _ENDED:
            self._move(_END)
        self._deferred = None
        self._go_inert()
        self.close_deflater()

    # What goes out

    def _put(self, first: int, payload: bytes | str) -> None:
        """Put one frame into `out`, whole."""
        if len(payload) >= _LARGE and not self._client:
            # Not copied behind its header: the system joins them.
            data = payload
            if isinstance(data, str) and not (self.direct and data.isascii()):
                data = data.encode()
            header = build_header(first, len(data))
            self.out.append(header)
            self.out.append(data)
            self.out_size += len(header) + len(data)
            return
        self._append(build_frame(first, payload, next_key() if self._client else None))

    def _append(self, frame: bytes) -> None:
        """Put out a frame; behind many, small ones are joined: each takes a block of memory of its own."""
        out = self.out
        self.out_size += len(frame)
        if len(out) >= _MANY and len(frame) < _LARGE:
            last = out[-1]
            if isinstance(last, bytes) and len(last) < _LARGE:
                out[-1] = last + frame
                return
        out.append(frame)

    def send(self, data: str | bytes, compress: bool | None = None) -> None:
        """Send a message: a str as text, bytes as binary.

        Args:
            data: the message.
            compress: True or False, where compression was agreed; None decides by `threshold`.

        Raises:
            ConnectionClosed: if a Close was sent or received, or TCP is over.
            UnicodeEncodeError: for a str with a lone surrogate.
        """
        if self.phase != 0:
            raise self.closed_error()
        text = isinstance(data, str)
        if self._deflater is not None and compress is not False:
            raw = data.encode() if isinstance(data, str) else data
            if compress or len(raw) >= self._threshold:
                self._put(0xC1 if text else 0xC2, self._deflater.deflate(raw))
                return
        self._put(0x81 if text else 0x82, data)

    def send_shared(self, shared: SharedMessage, compress: bool | None = None) -> None:
        """Send a message that others get too; as `send`, encoded once where that is possible."""
        if self._client:
            # RFC 6455 section 5.3: each frame has a masking key of its own.
            self.send(shared.data, compress)
            return
        if self.phase != 0:
            raise self.closed_error()
        if (
            self._deflater is not None
            and compress is not False
            and (compress or shared.size >= self._threshold)
        ):
            settings = self._deflater.settings
            if settings is None:
                self.send(shared.data, True)
                return
            self._append(shared.deflated_frame(settings))
        else:
            self._append(shared.frame())

    def send_fragment(self, data: str | bytes, opcode: int, fin: bool) -> None:
        """Send one fragment of a message, compressed where compression was agreed.

        Until the last one was sent, only control frames may be sent beside it.

        Args:
            data: a part of the message; a text may be cut between code points only.
            opcode: 1 or 2 for the first fragment, 0 for those behind it (RFC 6455 section 5.4).
            fin: it is the last one.

        Raises:
            ConnectionClosed: if a Close was sent or received, or TCP is over.
        """
        if self.phase != 0:
            raise self.closed_error()
        first = (0x80 if fin else 0) | opcode
        if self._deflater is not None:
            data = self._deflater.deflate_fragment(data.encode() if isinstance(data, str) else data, fin)
            if opcode:
                first |= 0x40
        self._put(first, data)

    def send_ping(self, payload: bytes) -> None:
        """Send a Ping of at most 125 bytes.

        Raises:
            ConnectionClosed: if a Close was sent or received, or TCP is over.
            ValueError: for a longer payload.
        """
        # RFC 6455 section 5.5.
        if len(payload) > 125:
            raise ValueError(f"a ping has at most 125 bytes, not {len(payload)}")
        if self.phase != 0:
            raise self.closed_error()
        self._put(0x89, payload)

    def send_close(self, code: int = 1000, reason: str = "") -> None:
        """Send a Close, as the first one or as the answer.

        Raises:
            ValueError: for a code or reason that may not be sent.
            InvalidState: if one was sent already, or TCP is over.
        """
        close, payload = make_close(code, reason)
        self._move(_SEND_CLOSE)
        self.close_sent = close
        self._put(0x88, payload)
        self.close_deflater()

    def fail(self, error: ProtocolError) -> None:
        """Fail the connection (RFC 6455 section 7.1.7): send a Close, look at nothing any more."""
        # What was told and not yet acted on comes too late.
        self._deferred = None
        if self.error is None:
            self.error = error
        if self.phase == _OPEN:
            # RFC 6455 section 7.1.7: SHOULD send a Close with an appropriate code.
            self.send_close(error.close_code, truncate_reason(str(error)))
        if self.phase < _CLOSE_DONE:
            self._move(_FAIL)
        self._go_inert()

    def _move(self, step: Step) -> None:
        self.phase = transition(self.phase, step)

    def close_deflater(self) -> None:
        """Let go of the compression context."""
        if self._deflater is not None:
            self._deflater.close()

    # How it stands

    def awaits_end(self) -> bool:
        """Tell whether only the end of TCP is missing, and it is the server's to begin with."""
        # RFC 6455 section 7.1.1: "a client SHOULD wait for the server to close the connection".
        return self._client and self.phase == _CLOSE_DONE

    def close_ok(self) -> bool:
        """Tell whether the closing handshake was done, with a code that means no error."""
        received, sent = self.close_received, self.close_sent
        if received is None or sent is None or self.error is not None:
            return False
        return received.code in _NORMAL and sent.code in _NORMAL

    def closed_error(self, detail: str = "") -> ConnectionClosed:
        """Return the exception that tells how the connection ended, from its Close frames."""
        kind = ConnectionClosedOK if self.close_ok() and not detail else ConnectionClosedError
        if not detail and self.error is not None:
            detail = str(self.error)
        return kind(self.close_received, self.close_sent, self.received_first, detail)


#: Bytes from which on a payload goes out as it stands behind its header; others are copied into a frame.
_LARGE = 512
#: So many pieces wait as they are.
_MANY = 32

_NORMAL = frozenset((1000, 1001, 1005))
