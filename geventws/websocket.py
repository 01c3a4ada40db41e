"""The WebSocket that handlers hold: greenlets on one side, the protocol's events on the other.

Rules of this file:

* Messages wait in a queue and are taken out by the greenlet that receives them; a switch only wakes
  it, so that a message is never lost on its way to a greenlet that was killed.
* What waits is taken off its list in a `finally`.
* The protocol acts on a Close or a violation only after the messages before it were handed over, and
  in the same turn of the loop.
* Nothing here blocks the hub, and no greenlet is interrupted in the middle of a frame: frames are
  put whole into the protocol's buffer, without a switch.

Hot: compiled with websocket.pxd (`benchmarks/`, every echo row).
"""

from __future__ import annotations

import enum
import itertools
import logging
from collections import deque
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import gevent
from gevent.exceptions import BlockingSwitchOutError
from greenlet import getcurrent

from .exceptions import ConcurrencyError, ConnectionClosed
from .pong import Pong, PongQueue
from .protocol.closing import Close, Phase
from .protocol.connection import Connection, Event
from .transport import CORK_LIMIT, Receiver, Transport
from .wire import switch

if TYPE_CHECKING:
    from types import TracebackType

    from .keepalive import Keepalive
    from .options import Options
    from .protocol.http import Request
    from .protocol.shared import SharedMessage

__all__ = ["State", "WebSocket", "as_payload"]

logger = logging.getLogger("geventws")

#: Messages decoded for one connection in one turn of the loop; another one's turn comes after that.
TURN_MESSAGES = 128

_ids = itertools.count(1)


class State(enum.IntEnum):
    """The state of a WebSocket, in the words of RFC 6455 section 4.1 and 7.1."""

    CONNECTING = 0
    OPEN = 1
    CLOSING = 2
    CLOSED = 3


class WebSocket(Receiver):
    """One open WebSocket. Servers and clients make it; handlers use it.

    Any greenlet of the thread may send; one at a time may receive. Attributes of your own may be set
    on it.

    Attributes:
        request: the opening handshake's request: `path`, `query`, `headers`, `remote_address`.
        subprotocol: the subprotocol agreed on, or None.
        extensions: the extensions agreed on, as they stand in the response's header, or "".
        id: a number of its own within the process.
        latency: the round trip of the Ping answered last, in seconds, or None.
        messages_received, messages_sent, messages_discarded: counts.
        times_slow: how often a broadcast found that the peer does not keep up.
    """

    __slots__ = (
        "__dict__",
        "__weakref__",
        "_budget",
        "_closers",
        "_core",
        "_decode_scheduled",
        "_detail",
        "_discarding",
        "_fragment_sender",
        "_head",
        "_hub",
        "_keepalive",
        "_max_queue",
        "_max_queue_bytes",
        "_more",
        "_options",
        "_pongs",
        "_queue",
        "_queue_bytes",
        "_receiving",
        "_senders",
        "_sizes",
        "_terminal",
        "_transport",
        "_write_limit",
        "extensions",
        "id",
        "keepalive_slot",
        "latency",
        "messages_discarded",
        "messages_received",
        "messages_sent",
        "on_end",
        "request",
        "subprotocol",
        "times_slow",
    )

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
        on_end: Any = None,
        early_data: bytes = b"",
    ) -> None:
        """Take over a connection whose opening handshake is done. For the faces; handlers get one made."""
        hub = gevent.get_hub()
        self._hub = hub
        self._core = core
        self._options = options
        self.request = request
        self.subprotocol = subprotocol
        self.extensions = extensions
        self.id = next(_ids)
        self.latency: float | None = None
        self.messages_received = 0
        self.messages_sent = 0
        self.messages_discarded = 0
        self.times_slow = 0
        #: Called with this WebSocket when TCP is over.
        self.on_end = on_end
        self._max_queue = _limit(options.max_queue)
        self._max_queue_bytes = _limit(options.max_queue_bytes)
        self._write_limit = _limit(options.write_limit)
        # A list with a head index: it costs an idle connection the least.
        self._queue: list[Any] = []
        self._sizes: list[int] = []
        self._head = 0
        self._queue_bytes = 0
        #: Bytes are here that were not decoded, because the queue or the turn was full.
        self._more = False
        self._decode_scheduled = False
        self._budget = TURN_MESSAGES
        #: The protocol told of a Close or a violation, which was not acted on yet.
        self._terminal = False
        self._discarding = False
        self._detail = ""
        self._receiving: Any = None
        self._senders: deque[Any] | None = None
        self._fragment_sender: Any = None
        self._closers: list[Any] | None = None
        self._pongs: PongQueue | None = None
        self._keepalive = keepalive
        self.keepalive_slot = -1
        self._transport = Transport(sock, core, self, hub, options.write_timeout)
        if keepalive is not None:
            keepalive.add(self)
        self._transport.start(early_data)

    def __repr__(self) -> str:
        address = getattr(self.request, "remote_address", None)
        return f"<WebSocket {self.id} {self.state.name} {address!r}>"

    # How it stands

    @property
    def state(self) -> State:
        """OPEN, CLOSING, or CLOSED when TCP is over."""
        phase = self._core.phase
        if phase == Phase.OPEN:
            return State.OPEN
        return State.CLOSED if phase == Phase.ENDED else State.CLOSING

    @property
    def closed(self) -> bool:
        """True once nothing can be sent any more; messages that came before may still be received."""
        return self._core.phase != 0

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
    def last_received(self) -> float:
        """When bytes came last from the peer, in the loop's time (seconds)."""
        return self._transport.last_received

    @property
    def bytes_received(self) -> int:
        """Bytes received after the opening handshake, before TLS and before inflating."""
        return self._transport.bytes_received

    @property
    def bytes_sent(self) -> int:
        """Bytes written after the opening handshake, before TLS."""
        return self._transport.bytes_sent

    @property
    def write_buffer_size(self) -> int:
        """Bytes that wait to be written."""
        return self._core.out_size

    @property
    def reading_paused(self) -> bool:
        """The queue of received messages is full, so that nothing of the peer is seen."""
        return self._transport.paused

    # Receiving

    def receive(self, timeout: float | None = None) -> Any:
        """Return the next message: str for text, bytes for binary.

        Args:
            timeout: seconds to wait; None waits as long as the connection lasts.

        Raises:
            TimeoutError: if none came in time; nothing is lost.
            ConnectionClosed: if the connection is over and all its messages were received.
            ConcurrencyError: if another greenlet is receiving.
        """
        if self._head >= len(self._queue):
            self._wait_for_message(timeout)
        return self._take()

    recv = receive

    def _take(self) -> Any:
        """Take the first message off the queue."""
        head = self._head
        queue = self._queue
        message = queue[head]
        queue[head] = None
        self._queue_bytes -= self._sizes[head]
        head += 1
        if head == len(queue):
            queue.clear()
            self._sizes.clear()
            head = 0
            self._resume()
        elif head >= 64 and head * 2 >= len(queue):
            del queue[:head]
            del self._sizes[:head]
            head = 0
        self._head = head
        self.messages_received += 1
        return message

    def _resume(self) -> None:
        """Read on after a pause, unless bytes that were read already come first."""
        if not self._more and self._transport.paused:
            self._transport.resume()

    def _wait_for_message(self, timeout: float | None) -> None:
        """Return when the queue holds a message."""
        if self._more and self._budget > 0:
            # The queue was full. Its owner is here, so there is no need to go round by the hub.
            self._decode()
            self._transport.flush_unless_corked()
            if self._terminal:
                self._schedule()
            if self._queue:
                return
        if timeout is not None and not timeout >= 0:
            raise ValueError(f"timeout takes seconds, 0 or more, or None, not {timeout!r}")
        if self._receiving is not None:
            raise ConcurrencyError("another greenlet is receiving on this WebSocket")
        timer = None if timeout is None else gevent.Timeout.start_new(timeout)
        try:
            while not self._queue:
                if self._terminal:
                    self._act()
                if self._core.phase != 0:
                    raise self._closed()
                if self._more:
                    self._schedule()
                self._wait_in_hub()
        except gevent.Timeout as expired:
            if expired is not timer:
                raise
            raise TimeoutError(f"no message within {timeout:g} seconds") from None
        finally:
            if timer is not None:
                timer.close()

    def _wait_in_hub(self) -> None:
        """Wait as the greenlet that receives."""
        current = getcurrent()
        if current is self._hub:
            raise BlockingSwitchOutError("receive() waits, and a callback of the event loop cannot wait")
        self._receiving = current
        try:
            switch(self._hub)
        finally:
            self._receiving = None

    def _full(self) -> bool:
        return len(self._queue) - self._head >= self._max_queue or self._queue_bytes >= self._max_queue_bytes

    def _decode(self) -> None:
        """Decode into the queue until it is full, the turn is over, or no bytes are left."""
        core = self._core
        while True:
            if self._budget <= 0 or self._full():
                self._more = True
                return
            event = core.next_event()
            if event == _MESSAGE:
                self._budget -= 1
                if self._discarding:
                    self.messages_discarded += 1
                else:
                    self._queue.append(core.message)
                    self._sizes.append(core.message_size)
                    self._queue_bytes += core.message_size
                core.message = None
            elif event == _PONG:
                if self._pongs is not None:
                    self._pongs.receive(core.pong, self)
            else:
                self._more = False
                if event == _NEED_DATA:
                    if self._transport.paused:
                        self._transport.resume()
                else:
                    self._terminal = True
                return

    def handle_input(self) -> None:
        """The protocol was fed: decode, and hand over to the greenlet that receives."""
        self._budget = TURN_MESSAGES
        while True:
            if not self._terminal:
                self._decode()
            if self._receiving is not None and self._queue:
                # It may be dead: then this returns at once, and the message is still in the queue.
                switch(self._receiving)
                if self._transport.ended:
                    return
                if self._more and self._budget > 0 and not self._full():
                    continue
            break
        if self._terminal:
            # Here the messages before it were answered, if a greenlet was waiting for them.
            self._act()
        elif self._more:
            self._transport.pause()
            if not self._full():
                self._schedule()

    def _schedule(self) -> None:
        """Go on in the hub's next turn."""
        if not self._decode_scheduled and not self._transport.ended:
            self._decode_scheduled = True
            self._hub.loop.run_callback(self._go_on)

    def _go_on(self) -> None:
        """The callback of `_schedule`."""
        self._decode_scheduled = False
        if not self._transport.ended:
            self._transport.take()

    def _act(self) -> None:
        """Let the protocol do what a Close or a violation calls for, and end TCP."""
        self._terminal = False
        self._core.next_event()
        self._transport.flush_unless_corked()
        self._transport.finish(self._options.close_timeout)
        self._wake_all()

    def _closed(self) -> ConnectionClosed:
        """Return the exception that tells how the connection ended."""
        return self._core.closed_error(self._detail)

    def __iter__(self) -> Iterator[Any]:
        """Receive messages until the peer closes normally; an abnormal end raises ConnectionClosedError."""
        return self

    def __next__(self) -> Any:
        if self._head >= len(self._queue):
            try:
                self._wait_for_message(None)
            except ConnectionClosed:
                if self._core.close_ok() and not self._detail:
                    raise StopIteration from None
                raise
        return self._take()

    def discard_messages(self) -> None:
        """Drop and count all messages from now on, for a handler that never receives.

        Pings are answered and a Close is seen as before; without this a peer that sends fills the
        queue, reading pauses, and neither is noticed.
        """
        self._discarding = True
        self.messages_discarded += len(self._queue) - self._head
        self._queue.clear()
        self._sizes.clear()
        self._head = 0
        self._queue_bytes = 0
        if self._more:
            self._schedule()
        else:
            self._resume()

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
            UnicodeEncodeError: for a str with a lone surrogate.
        """
        if type(data) is not str and type(data) is not bytes:
            data = as_payload(data)
        core = self._core
        if (
            self._fragment_sender is not None
            or self._senders is not None
            or core.out_size > self._write_limit
        ):
            self._wait_writable()
        core.send(data, compress)
        self.messages_sent += 1
        if not self._transport.corked or core.out_size > CORK_LIMIT:
            self._transport.flush()

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
        self._wait_writable()
        self._core.check_open()
        current = getcurrent()
        self._fragment_sender = current
        opcode = 0
        text = False
        complete = False
        try:
            for item in fragments:
                fragment = item if type(item) is str else as_payload(item)
                if opcode == 0:
                    text = type(fragment) is str
                elif (type(fragment) is str) != text:
                    raise TypeError("the fragments of one message are all str or all bytes-like")
                self._wait_writable()
                self._core.send_fragment(fragment, 0 if opcode else (1 if text else 2), False)
                opcode = 1
                self._transport.flush_unless_corked()
            if opcode == 0:
                raise ValueError("a message has at least one fragment")
            self._wait_writable()
            # Whether a fragment is the last one is known only now: an empty one ends the message.
            self._core.send_fragment("" if text else b"", 0, True)
            self.messages_sent += 1
            complete = True
            self._transport.flush_unless_corked()
        finally:
            self._fragment_sender = None
            if opcode and not complete and self._core.phase == 0:
                self.begin_close(1011, "a message could not be completed")
            if self._senders is not None:
                self._hub.loop.run_callback(self._wake_senders)

    def _blocked(self, current: Any) -> bool:
        """Tell whether a greenlet must wait before it puts a frame out."""
        if self._core.phase != 0:
            return False
        if self._fragment_sender is not None and self._fragment_sender is not current:
            return True
        return self._core.out_size > self._write_limit

    def _wait_writable(self) -> None:
        """Wait until the buffer is below its limit and no other greenlet is sending fragments."""
        current = getcurrent()
        senders = self._senders
        if not self._blocked(current) and (
            senders is None or self._core.phase != 0 or self._fragment_sender is current
        ):
            return
        # What is corked has not been tried yet.
        self._transport.flush()
        if senders is None and not self._blocked(current):
            return
        if current is self._hub:
            raise BlockingSwitchOutError("send() must wait, and a callback of the event loop cannot wait")
        if senders is None:
            senders = self._senders = deque()
        first = self._fragment_sender is current
        while True:
            if first:
                senders.appendleft(current)
            else:
                senders.append(current)
            try:
                switch(self._hub)
            finally:
                if current in senders:
                    senders.remove(current)
                if not senders:
                    self._senders = None
            if not self._blocked(current):
                return
            # Woken and overtaken: keep the place in the order.
            first = True
            senders = self._senders
            if senders is None:
                senders = self._senders = deque()

    def _wake_senders(self) -> None:
        """Let greenlets that wait to send go on, in their order; in the hub."""
        while self._senders:
            sender = self._senders[0]
            if self._blocked(sender):
                return
            self._senders.popleft()
            switch(sender)

    def handle_drained(self) -> None:
        """Bytes that waited have been written."""
        self._wake_senders()

    def ping(self, data: bytes | bytearray | memoryview | str = b"") -> Pong:
        """Send a Ping.

        Args:
            data: at most 125 bytes; a str is encoded as UTF-8.

        Returns:
            A `Pong` to wait for: `.wait(timeout)` gives the round trip in seconds.

        Raises:
            ConnectionClosed: if the connection is closing or over.
            TypeError, ValueError: for data that a Ping cannot carry.
        """
        payload = data.encode() if isinstance(data, str) else as_payload(data)
        if len(payload) > 125:
            raise ValueError(f"a ping has at most 125 bytes, not {len(payload)}")
        if self._core.phase == 0 and self._core.out_size > self._write_limit:
            self._wait_writable()
        self._core.send_ping(payload)
        if self._pongs is None:
            self._pongs = PongQueue()
        pong = self._pongs.add(payload)
        self._transport.flush_unless_corked()
        return pong

    def send_keepalive(self) -> None:
        """Send a Ping without waiting; for the keepalive, in the hub."""
        if self._core.phase == 0:
            if self._pongs is None:
                self._pongs = PongQueue()
            payload = self._pongs.unique_payload()
            self._core.send_ping(payload)
            self._pongs.add(payload)
            self._transport.flush_unless_corked()

    def send_shared(self, shared: SharedMessage, compress: bool | None) -> None:
        """Send without waiting, whatever waits already; for broadcasts, which ask `is_slow` first."""
        self._core.send_shared(shared, compress)
        self.messages_sent += 1
        self._transport.flush_unless_corked()

    def is_slow(self) -> bool:
        """Tell whether a `send` would have to wait."""
        return self._senders is not None or self._blocked(None)

    def handle_slow(self) -> None:
        """Do what the option `slow_consumer` says; for broadcasts."""
        self.times_slow += 1
        if self._options.slow_consumer == "close":
            self.begin_close(1013, "too slow (write_limit)")

    # Closing

    def close(self, code: int = 1000, reason: str = "") -> None:
        """Close: the closing handshake, then TCP. Does nothing when that has begun already, but wait.

        Returns when TCP is over, which takes at most `close_timeout` seconds after all that was sent
        has left.

        Args:
            code: 1000 to 1003, 1007 to 1014 or 3000 to 4999.
            reason: at most 123 bytes in UTF-8.

        Raises:
            TypeError, ValueError: for a code or reason that may not be sent.
        """
        if isinstance(code, bool) or not isinstance(code, int) or not isinstance(reason, str):
            raise TypeError(f"close() takes an integer and a string, not {code!r} and {reason!r}")
        if code == 1005:
            raise ValueError("close code 1005 stands for a Close without a code; use 1000")
        Close(code, reason).serialize()
        self.begin_close(code, reason)
        if getcurrent() is not self._hub:
            self.wait_closed()

    def begin_close(self, code: int, reason: str) -> None:
        """Send a Close if none was, and give the handshake its deadline. Never waits."""
        if self._core.phase == 0:
            self._core.send_close(code, reason)
            self._transport.set_close_deadline(self._options.close_timeout)
            # The peer's Close stands behind messages that nobody will receive.
            self.discard_messages()
            self._transport.flush_unless_corked()
            self._wake_all()

    def abort(self) -> None:
        """Drop TCP at once, without a closing handshake."""
        self._detail = self._detail or "aborted here"
        self._transport.end(self._detail)

    def fail_timeout(self, detail: str) -> None:
        """Say 1011 and drop TCP: the peer does not answer; for the keepalive, in the hub."""
        self._detail = detail
        if self._core.phase == 0:
            self._core.send_close(1011, detail)
            self._transport.flush()
        self._transport.end(detail)

    def wait_closed(self, timeout: float | None = None) -> bool:
        """Wait until TCP is over.

        Args:
            timeout: seconds; None waits as long as it takes.

        Returns:
            True if it is over, False if the time was.
        """
        if self._transport.ended:
            return True
        current = getcurrent()
        if current is self._hub:
            raise BlockingSwitchOutError("wait_closed() waits, and a callback of the event loop cannot wait")
        timer = None if timeout is None else gevent.Timeout.start_new(timeout)
        if self._closers is None:
            self._closers = []
        self._closers.append(current)
        try:
            while not self._transport.ended:
                switch(self._hub)
        except gevent.Timeout as expired:
            if expired is not timer:
                raise
        finally:
            if timer is not None:
                timer.close()
            if self._closers is not None and current in self._closers:
                self._closers.remove(current)
        return self._transport.ended

    def handle_end(self, detail: str) -> None:
        """TCP is over."""
        self._terminal = False
        if not self._core.close_ok():
            self._detail = self._detail or detail
        self._core.receive_end()
        self._more = False
        if self._keepalive is not None:
            self._keepalive.remove(self)
        on_end = self.on_end
        self.on_end = None
        if on_end is not None:
            on_end(self)
        self._wake_all()

    def handle_error(self, error: BaseException) -> None:
        """Something raised in a callback of this connection."""
        logger.error("connection %d: internal error", self.id, exc_info=error)
        self._detail = "an internal error"
        if self._core.phase == 0:
            self._core.send_close(1011, "internal error")
            self._transport.flush()

    def _wake_all(self) -> None:
        """Wake whatever waits, for the connection is closing or over; each looks for itself."""
        if (
            self._receiving is None
            and self._senders is None
            and (self._closers is None or not self._transport.ended)
            and (self._pongs is None or not self._transport.ended)
        ):
            return
        # In the hub, for this may be any greenlet, and even one of those.
        self._hub.loop.run_callback(self._wake_waiting)

    def _wake_waiting(self) -> None:
        if self._receiving is not None and not self._queue:
            switch(self._receiving)
        self._wake_senders()
        if self._transport.ended:
            if self._pongs is not None:
                self._pongs.end(self._closed())
            closers = self._closers
            self._closers = None
            for closer in closers or ():
                switch(closer)

    def __enter__(self) -> WebSocket:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close with 1000, or with 1011 after an exception other than `ConnectionClosed`."""
        if kind is None or issubclass(kind, (ConnectionClosed, GeneratorExit)):
            self.close(1000)
        else:
            self.close(1011)


def as_payload(data: Any) -> Any:
    """Return what can be sent for `data`: str or bytes."""
    if isinstance(data, str):
        return str.__str__(data)
    if isinstance(data, (bytes, bytearray, memoryview)):
        return bytes(data)
    raise TypeError(f"a message is str, bytes, bytearray or memoryview, not {type(data).__name__}")


def _limit(value: int | None) -> int:
    """Return a limit that can be compared with; None is one that is never reached."""
    return _UNLIMITED if value is None else value


_UNLIMITED = 2**62
_NEED_DATA = int(Event.NEED_DATA)
_MESSAGE = int(Event.MESSAGE)
_PONG = int(Event.PONG)
