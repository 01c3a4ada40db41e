"""The WebSocket that handlers hold: receive, send, ping, close, and how it stands.

How greenlets wait and are woken is in channel.py.

Hot: compiled with websocket.pxd (`benchmarks/`, every echo row).
"""

from __future__ import annotations

import enum
import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from .channel import Channel
from .exceptions import ConcurrencyError, ConnectionClosed
from .options import check_timeout
from .pong import PongQueue
from .protocol.closing import Close, Phase
from .transport import CORK_LIMIT
from .wire import current_greenlet, monotonic

if TYPE_CHECKING:
    from types import TracebackType

    from .keepalive import Keepalive
    from .options import Options
    from .pong import Pong
    from .protocol.connection import Connection
    from .protocol.http import Request, Response
    from .protocol.shared import SharedMessage

__all__ = ["State", "WebSocket", "as_payload", "send_to_all"]

_numbers = itertools.count(1)

_PAYLOAD_TYPES = (str, bytes, bytearray, memoryview)


class State(enum.IntEnum):
    """The state of a WebSocket, in the words of RFC 6455 sections 4.1 and 7.1."""

    CONNECTING = 0
    OPEN = 1
    CLOSING = 2
    CLOSED = 3


class WebSocket(Channel):
    """One open WebSocket. Servers and clients make it; handlers use it.

    Any greenlet of the thread may send; one at a time may receive. Attributes of your own may be set
    on it.

    Attributes:
        request: the opening handshake's request: `path`, `query`, `headers`, `remote_address`.
        response: what the server answered, on a client; else None.
        subprotocol: the subprotocol agreed on, or None.
        extensions: the extensions agreed on, as they stand in the response's header, or "".
        id: a number of its own within the process.
        latency: the round trip of the Ping answered last, in seconds, or None.
        messages_received, messages_sent, messages_discarded: counts.
        times_slow: how often a broadcast found that the peer does not keep up.
        opened_at: when it was made, in seconds of `time.monotonic`.
    """

    __slots__ = ("_after_size", "extensions", "opened_at", "request", "response", "subprotocol", "times_slow")

    def __init__(
        self,
        sock: Any,
        core: Connection,
        request: Request,
        options: Options,
        *,
        subprotocol: str | None = None,
        extensions: str = "",
        keepalive: Keepalive | None = None,
        on_end: Callable[[WebSocket], None] | None = None,
        early_data: bytes = b"",
        response: Response | None = None,
    ) -> None:
        """Take over a connection whose opening handshake is done. Handlers get one made.

        Args:
            sock: the socket, from gevent; it is closed at the end.
            core: the protocol of this connection.
            request, subprotocol, extensions: what was asked and agreed.
            options: see `Options`.
            keepalive: what sends the Pings, or None.
            on_end: called with this WebSocket when TCP is over.
            early_data: bytes that came behind the opening handshake.
            response: the server's answer, on a client.
        """
        super().__init__(sock, core, options, next(_numbers), keepalive, on_end)
        self.request = request
        self.response = response
        self.subprotocol = subprotocol
        self.extensions = extensions
        self.times_slow = 0
        self.opened_at = monotonic()
        self._after_size = 0
        self._start(early_data)

    def __repr__(self) -> str:
        return f"<WebSocket {self.id} {self.state.name} {self.request.remote_address!r}>"

    # How it stands

    @property
    def state(self) -> State:
        """OPEN, CLOSING, or CLOSED when TCP is over."""
        phase = self._core.phase
        if phase == Phase.OPEN:
            return State.OPEN
        return State.CLOSED if phase == Phase.ENDED else State.CLOSING

    @property
    def close_code(self) -> int | None:
        """The close code (RFC 6455 section 7.1.5): None while open, 1005 or 1006 where there was none."""
        if self._core.phase == 0:
            return None
        close = self._core.close_received
        return 1006 if close is None else close.code

    @property
    def close_reason(self) -> str | None:
        """The close reason (RFC 6455 section 7.1.6): None while open, "" where there was none."""
        if self._core.phase == 0:
            return None
        close = self._core.close_received
        return "" if close is None else close.reason

    @property
    def close_error(self) -> ConnectionClosed | None:
        """How it ended, as `receive` and `send` raise it; None while open."""
        return None if self._core.phase == 0 else self._closed_error()

    @property
    def bytes_received(self) -> int:
        """Bytes received after the opening handshake, without TLS and before inflating."""
        return self._transport.bytes_received

    @property
    def bytes_sent(self) -> int:
        """Bytes written after the opening handshake, without TLS."""
        return self._transport.bytes_sent

    @property
    def write_timed_out(self) -> bool:
        """True if it was aborted because a write made no progress within `write_timeout`."""
        return self._transport.write_timed_out

    @property
    def write_buffer_size(self) -> int:
        """Bytes that wait to be written."""
        return self._core.out_size

    # Receiving

    def receive(self, timeout: float | None = None) -> Any:
        """Return the next message: str for text, bytes for binary.

        Args:
            timeout: seconds to wait; None waits as long as the connection lasts.

        Raises:
            TimeoutError: if none came in time; nothing is lost.
            ConnectionClosed: if the connection is over and all its messages were received.
            ConcurrencyError: if another greenlet is receiving, or this is another thread than the one that
                made the WebSocket and it would have to wait.
            TypeError, ValueError: for a timeout that is no number or negative, if it would have to wait.
        """
        if not self._queue:
            if timeout is None:
                found = self._wait()
            else:
                check_timeout(timeout)
                found = self._wait_timed(timeout)
            if not found:
                raise self._closed_error()
        return self._take()

    recv = receive

    def __iter__(self) -> Iterator[Any]:
        """Receive messages until the peer closes normally; another end raises ConnectionClosedError."""
        return self

    def __next__(self) -> Any:
        if not self._queue and not self._wait():
            if self._core.close_ok():
                raise StopIteration
            raise self._closed_error()
        return self._take()

    def discard_messages(self) -> None:
        """Drop and count all messages from now on, for a handler that never receives.

        Pings are answered and a Close is seen as before; without this a peer that sends fills the
        queue, reading pauses, and neither is noticed.
        """
        self._discard()

    # Sending

    def send(self, data: Any, *, compress: bool | None = None) -> None:
        """Send a message.

        It is handed to the system at once, or kept until the peer takes it. Where more than
        `write_limit` bytes are kept already, this waits first, for at most `write_timeout` seconds
        without progress. An exception while it waits means that nothing was sent.

        Args:
            data: str as text; bytes, bytearray or memoryview as binary.
            compress: True or False, where compression was agreed; None lets the size decide.

        Raises:
            ConnectionClosed: if the connection is closing or over.
            TypeError: for any other type of data.
            ValueError: for a memoryview that was released.
            UnicodeEncodeError: for a str with a lone surrogate.
            ConcurrencyError: in the iterable of this greenlet's own `send_fragments`; or in another thread
                than the one that made the WebSocket, if it would have to wait. A WebSocket belongs to
                its thread: others do not use it.
        """
        if type(data) is not str and type(data) is not bytes:
            data = as_payload(data)
        core = self._core
        if (
            self._fragment_sender is not None
            or self._senders is not None
            or core.out_size > self._write_limit
        ):
            self._wait_for_turn()
        try:
            core.send(data, compress)
        except ConnectionClosed:
            # It knows the Close frames; what else ended the connection is known here.
            raise self._closed_error() from None
        self.messages_sent += 1
        if not self._transport.corked or core.out_size > CORK_LIMIT:
            self._transport.flush()

    def _wait_for_turn(self) -> None:
        """Wait until a message may be put out."""
        if self._fragment_sender is current_greenlet():
            raise ConcurrencyError("this greenlet is sending a message in fragments; another cannot be in it")
        self._wait_writable()

    def send_fragments(self, fragments: Iterable[Any]) -> None:
        """Send one message in fragments, each when the iterable gives it.

        Other greenlets' messages wait until it is complete; Pings and a Close do not.

        Args:
            fragments: str (a text) or bytes-like (a binary message), at least one, all alike.

        Raises:
            ConnectionClosed: if the connection is closing or over.
            TypeError, ValueError: for a fragment of another type, or none at all. If something was
                sent by then, or the iterable raises, the message cannot be completed and the
                connection is closed with 1011.
        """
        if isinstance(fragments, _PAYLOAD_TYPES):
            raise TypeError(
                f"fragments takes an iterable of str or bytes-like, not one {type(fragments).__name__}; "
                "for that use send()"
            )
        self._wait_for_turn()
        self._check_open()
        self._fragment_sender = current_greenlet()
        opcode = 0
        text = False
        complete = False
        try:
            for item in fragments:
                fragment = as_payload(item)
                if opcode == 0:
                    text = type(fragment) is str
                elif (type(fragment) is str) != text:
                    raise TypeError("the fragments of one message are all str or all bytes-like")
                self._wait_writable()
                self._check_open()
                # RFC 6455 section 5.4: the first fragment has the opcode, those behind it have 0.
                self._core.send_fragment(fragment, 0 if opcode else (1 if text else 2), False)
                opcode = 1
                self._transport.flush_unless_corked()
            if opcode == 0:
                raise ValueError("a message has at least one fragment")
            self._wait_writable()
            self._check_open()
            # That a fragment was the last one is known only now: an empty one ends the message.
            self._core.send_fragment("" if text else b"", 0, True)
            complete = True
            self.messages_sent += 1
            self._transport.flush_unless_corked()
        finally:
            if opcode and not complete:
                self.begin_close(1011, "a message could not be completed")
            self._release_fragments()

    def _release_fragments(self) -> None:
        """The message in fragments is complete, or never will be."""
        self._fragment_sender = None
        after = self._after_fragments
        self._after_fragments = None
        self._after_size = 0
        if after is not None and self._core.phase == 0:
            for shared, compress in after:
                self._core.send_shared(shared, compress)
            self._transport.flush_unless_corked()
        if self._senders is not None:
            self._hub.loop.run_callback(self._on_fragments_done)

    def ping(self, data: Any = b"") -> Pong:
        """Send a Ping.

        Args:
            data: at most 125 bytes; a str is encoded as UTF-8.

        Returns:
            A `Pong` to wait for: `.wait(timeout)` gives the round trip in seconds.

        Raises:
            ConnectionClosed: if the connection is closing or over.
            TypeError, ValueError: for data that a Ping cannot carry.
        """
        if not isinstance(data, _PAYLOAD_TYPES):
            raise TypeError(
                f"a ping carries str, bytes, bytearray or memoryview, not {type(data).__name__}; "
                "`Pong.wait` takes the seconds to wait for its answer"
            )
        payload = as_payload(data)
        if type(payload) is str:
            payload = payload.encode()
        if len(payload) > 125:
            raise ValueError(f"a ping has at most 125 bytes (RFC 6455 section 5.5), not {len(payload)}")
        if self._core.out_size > self._write_limit:
            self._wait_for_room()
        self._check_open()
        self._core.send_ping(payload)
        if self._pongs is None:
            self._pongs = PongQueue()
        pong: Pong = self._pongs.add(payload)
        self._transport.flush_unless_corked()
        return pong

    def is_slow(self) -> bool:
        """Tell whether the peer does not keep up, so that a `send` would have to wait for it."""
        if self._core.phase != 0:
            return False
        return self._core.out_size + self._after_size > self._write_limit

    def put_shared(self, shared: SharedMessage, compress: bool | None) -> None:
        """Put out without waiting, and leave the writing to the caller; `is_slow` was asked first."""
        if self._fragment_sender is not None:
            # Not into the middle of another message: right behind it.
            self._check_open()
            if self._after_fragments is None:
                self._after_fragments = []
            self._after_fragments.append((shared, compress))
            # With a header, and what a place in the list takes.
            self._after_size += shared.size + 80
        else:
            self._core.send_shared(shared, compress)
        self.messages_sent += 1

    def handle_slow(self) -> None:
        """Do what the option `slow_consumer` says; for broadcasts."""
        self.times_slow += 1
        if self._options.slow_consumer == "close":
            self.begin_close(1013, "too slow (write_limit)")

    # Closing

    def close(self, code: int = 1000, reason: str = "") -> None:
        """Close: the closing handshake, then TCP. Where that has begun already, only wait for it.

        Returns when TCP is over, at most `close_timeout` seconds after all that was sent has left.
        Messages that were not received by then are dropped.

        Args:
            code: 1000 to 1003, 1007 to 1014 or 3000 to 4999.
            reason: at most 123 bytes in UTF-8.

        Raises:
            TypeError, ValueError: for a code or reason that may not be sent.
        """
        _check_close(code, reason)
        if self._core.readable:
            # After `end_sending`: nobody wants the rest any more.
            self._core.readable = Phase.OPEN
            self._discard()
        self.begin_close(code, reason)
        if current_greenlet() is not self._hub:
            self.wait_closed()

    def end_sending(self, code: int = 1000, reason: str = "") -> None:
        """Send a Close, and go on receiving until the peer's comes.

        `close` drops what was not received. This is for one who has said everything and wants
        the answers: `receive` and the iteration go on for at most `close_timeout` seconds.
        It waits for its turn as `send` does, not for the peer.

        Args:
            code, reason: as for `close`.

        Raises:
            ConnectionClosed: if the connection is closing or over.
            ConcurrencyError: inside this greenlet's own `send_fragments`.
            TypeError, ValueError: for a code or reason that may not be sent.
        """
        _check_close(code, reason)
        self._wait_for_turn()
        self._check_open()
        self._core.readable = Phase.CLOSE_SENT
        self._core.send_close(code, reason)
        self._transport.set_close_deadline(self._options.close_timeout)
        self._transport.flush_unless_corked()
        self._wake_all()

    def abort(self) -> None:
        """Drop TCP at once, without a closing handshake."""
        if not self._transport.ended and not self._detail and not self._core.close_ok():
            self._detail = "aborted here"
        self._transport.end("")

    def wait_closed(self, timeout: float | None = None) -> bool:
        """Wait until TCP is over.

        Args:
            timeout: seconds; None waits as long as it takes.

        Returns:
            True if it is over, False if the time was.

        Raises:
            TypeError, ValueError: for a timeout that is no number or negative.
        """
        check_timeout(timeout)
        return True if self._transport.ended else self._wait_ended(timeout)

    def __enter__(self) -> WebSocket:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close with 1000, or with 1011 after an exception other than `ConnectionClosed`."""
        normal = kind is None or issubclass(kind, (ConnectionClosed, GeneratorExit))
        self.close(1000 if normal else 1011)


def send_to_all(receivers: list[WebSocket], shared: SharedMessage, compress: bool | None) -> list[WebSocket]:
    """Send a message to all of them without waiting, and return those that were slow; for broadcasts.

    The system is called for one after the other with nothing in between: a peer on the same machine is
    still awake from the message before, and waking it is the dearest part (`benchmarks/`, row "broadcast").
    """
    slow = []
    ready = []
    try:
        for ws in receivers:
            if ws._core.phase != 0:
                continue
            if ws.is_slow():
                slow.append(ws)
                ws.handle_slow()
            else:
                ws.put_shared(shared, compress)
                ready.append(ws)
    finally:
        for ws in ready:
            ws._transport.flush_unless_corked()
    return slow


def _check_close(code: Any, reason: Any) -> None:
    """Raise for a code or reason that may not be sent."""
    if isinstance(code, bool) or not isinstance(code, int) or not isinstance(reason, str):
        raise TypeError(f"close() takes an integer and a string, not {code!r} and {reason!r}")
    if code == 1005:
        raise ValueError("close code 1005 stands for a Close without a code and is not sent; use 1000")
    Close(code, reason).serialize()


def as_payload(data: Any) -> Any:
    """Return what is sent for `data`: a str or bytes of exactly that type.

    Raises:
        TypeError: for anything but str, bytes, bytearray and memoryview.
    """
    if isinstance(data, str):
        return str.__str__(data)
    if isinstance(data, (bytes, bytearray, memoryview)):
        # Its octets, whatever a subclass says.
        return bytes(memoryview(data))
    raise TypeError(f"a message is str, bytes, bytearray or memoryview, not {type(data).__name__}")
