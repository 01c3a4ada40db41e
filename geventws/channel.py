"""Between greenlets and the protocol: a queue of messages, greenlets that wait, and how it all ends.

Rules of this file:

* Messages wait in a queue and are taken out by the greenlet that receives them; a switch only wakes
  it, so that a message is never lost on its way to a greenlet that was killed.
* What waits is taken off its list in a `finally`.
* The protocol acts on a Close or a violation only after the messages before it were handed over, and
  in the same turn of the loop.
* Nothing here blocks the hub, and no greenlet is interrupted inside a frame, which is put out whole.

Hot: compiled with channel.pxd (`benchmarks/`, every echo row).
"""

from __future__ import annotations

import logging
from collections import deque
from typing import TYPE_CHECKING, Any

import gevent
from gevent._hub_local import get_hub_if_exists
from gevent.exceptions import BlockingSwitchOutError

from .exceptions import ConcurrencyError, ConnectionClosed
from .options import as_limit
from .pong import PongQueue
from .protocol.connection import Connection, Event
from .receiver import Receiver
from .tls import TLSTransport
from .transport import Transport
from .wire import current_greenlet, parent_of, switch

if TYPE_CHECKING:
    from collections.abc import Callable

    from .keepalive import Keepalive
    from .options import Options
    from .protocol.shared import SharedMessage

__all__ = ["Channel"]

logger = logging.getLogger("geventws")

#: What is decoded for one connection in one turn of the loop, as `Connection.budget` counts: 128 frames, or
#: messages of 1 MiB in all. Another one's turn comes after that.
TURN_BUDGET = 128


class Channel(Receiver):
    """What a WebSocket is made of; handlers see it as `WebSocket`.

    Attributes:
        id: a number of its own within the process.
        latency: the round trip of the Ping answered last, in seconds, or None.
        messages_received, messages_sent, messages_discarded: counts.
        on_end: called with this when TCP is over, or None.
        keepalive_slot: where the keepalive keeps it.
    """

    __slots__ = (
        "__dict__", "__weakref__", "_after_fragments", "_closers", "_core", "_detail",
        "_discarding", "_fragment_sender", "_head", "_hub", "_keepalive", "_max_queue", "_max_queue_bytes",
        "_more", "_options", "_pongs", "_queue", "_queue_bytes", "_receiving", "_scheduled", "_senders",
        "_terminal", "_transport", "_urgent", "_write_limit", "id", "keepalive_slot", "latency",
        "messages_discarded", "messages_received", "messages_sent", "on_end",
    )  # fmt: skip

    def __init__(
        self,
        sock: Any,
        core: Connection,
        options: Options,
        number: int,
        keepalive: Keepalive | None,
        on_end: Callable[[Any], None] | None,
    ) -> None:
        hub = gevent.get_hub()
        self._hub = hub
        self._core = core
        self._options = options
        self._max_queue = as_limit(options.max_queue)
        self._max_queue_bytes = as_limit(options.max_queue_bytes)
        self._write_limit = as_limit(options.write_limit)
        self.id = number
        self.latency: float | None = None
        self.messages_received = self.messages_sent = self.messages_discarded = 0
        self.on_end = on_end
        # Each message and its bytes, by turns, from a head index on; empty when all were taken.
        self._queue: list[Any] = []
        self._head = self._queue_bytes = 0
        #: Bytes are here that were not decoded, because the queue or the turn was full.
        self._more = False
        self._scheduled = False
        #: The protocol told of a Close or a violation, which was not acted on yet.
        self._terminal = False
        self._discarding = False
        #: What ended the connection, where that was not a closing handshake.
        self._detail = ""
        #: The greenlets that wait: for a message, to send (in their order), for the end.
        self._receiving: Any = None
        self._senders: deque[Any] | None = None
        self._closers: list[Any] | None = None
        #: Those that wait to send a control frame, which may stand between fragments.
        self._urgent: tuple[Any, ...] = ()
        #: The greenlet that is sending a message in fragments, and what broadcasts put behind it.
        self._fragment_sender: Any = None
        self._after_fragments: list[tuple[SharedMessage, bool | None]] | None = None
        self._pongs: PongQueue | None = None
        self._keepalive = keepalive
        self.keepalive_slot = -1
        # What gevent's SSLSocket and the standard library's have in common, and no plain one has.
        transport = TLSTransport if hasattr(sock, "unwrap") else Transport
        self._transport = transport(sock, core, self, hub, options.write_timeout)

    def _start(self, early_data: bytes) -> None:
        """Begin to read; `early_data` came behind the opening handshake."""
        if self._keepalive is not None:
            self._keepalive.add(self)
        self._transport.start(early_data)

    @property
    def closed(self) -> bool:
        """True once nothing can be sent any more; messages that came before may still be received."""
        return self._core.phase != 0

    @property
    def last_received(self) -> float:
        """When bytes came last from the peer, in seconds of `time.monotonic`."""
        return self._transport.last_received

    @property
    def reading_paused(self) -> bool:
        """The queue of received messages is full, so that nothing of the peer is seen."""
        return self._transport.paused

    # Messages that come

    def handle_input(self) -> None:
        """The protocol was fed: decode, and hand over to the greenlet that receives."""
        self._core.budget = TURN_BUDGET
        while True:
            if not self._terminal:
                self._decode()
            if self._receiving is not None and self._queue:
                # It may be dead: then this returns at once, and the message is still in the queue.
                switch(self._receiving)
                if self._transport.ended:
                    return
                if self._more and self._core.budget > 0 and not self._full():
                    continue
            break
        if self._terminal:
            # The messages before it were answered by now, if a greenlet was waiting for them.
            self._act()
        elif self._more:
            self._transport.pause()
            if not self._full():
                self._schedule()

    def _decode(self) -> None:
        """Decode into the queue until it is full, the turn is over, or no bytes are left."""
        core = self._core
        while True:
            if core.budget <= 0 or self._full():
                self._more = True
                return
            event = core.next_event()
            if event == _MESSAGE:
                if self._discarding:
                    self.messages_discarded += 1
                else:
                    self._queue.append(core.message)
                    self._queue.append(core.message_size)
                    self._queue_bytes += core.message_size
                core.message = None
            elif event == _PONG:
                if self._pongs is not None:
                    latency = self._pongs.receive(core.pong)
                    if latency is not None:
                        self.latency = latency
            else:
                self._more = event == _MORE
                self._terminal = not self._more and event != _NEED_DATA
                if event == _NEED_DATA and self._transport.paused:
                    self._transport.resume()
                return

    def _full(self) -> bool:
        return self._waiting() >= self._max_queue or self._queue_bytes >= self._max_queue_bytes

    def _waiting(self) -> int:
        """Return how many messages are in the queue."""
        return (len(self._queue) - self._head) >> 1

    def _take(self) -> Any:
        """Take the first message off the queue."""
        head = self._head
        queue = self._queue
        message = queue[head]
        queue[head] = None
        self._queue_bytes -= queue[head + 1]
        head += 2
        if head == len(queue):
            queue.clear()
            head = 0
        elif head >= 128 and head * 2 >= len(queue):
            del queue[:head]
            head = 0
        self._head = head
        self.messages_received += 1
        # In a callback that handles input, that goes on by itself.
        if self._transport.paused and not self._transport.corked:
            # Not at every message: at half of what makes it full.
            if self._waiting() <= self._max_queue >> 1 and self._queue_bytes <= self._max_queue_bytes >> 1:
                self._resume()
        return message

    def _discard(self) -> None:
        """Drop what is in the queue and all that comes."""
        self._discarding = True
        self.messages_discarded += self._waiting()
        self._queue.clear()
        self._head = self._queue_bytes = 0
        self._resume()

    def _resume(self) -> None:
        """Read on after a pause. Bytes that were read already come first: a Close may stand in them."""
        if self._more:
            self._schedule()
        elif self._transport.paused:
            self._transport.resume()

    def _schedule(self) -> None:
        """Go on in the hub's next turn."""
        if not self._scheduled and not self._transport.ended:
            self._scheduled = True
            self._hub.loop.run_callback(self._go_on)

    def _go_on(self) -> None:
        """The callback of `_schedule`."""
        self._scheduled = False
        if (self._more or self._terminal) and not self._transport.ended:
            self._transport.take()

    def _wait(self) -> bool:
        """Return True when the queue holds a message, False if there will be none any more.

        Small, as `_park` is: a greenlet's stack is copied at each switch, and kept while it waits.
        """
        if self._receiving is not None:
            raise ConcurrencyError("another greenlet is receiving on this WebSocket")
        if self._more and self._core.budget > 0:
            self._catch_up()
        while not self._queue:
            if self._terminal:
                self._act()
            if self._core.phase > self._core.readable:
                return False
            self._park()
        return True

    def _catch_up(self) -> None:
        """Decode what a full queue has kept back: its owner is here, no need to go round by the hub."""
        self._decode()
        self._transport.flush_unless_corked()
        if self._terminal:
            self._schedule()

    def _park(self) -> None:
        """Wait until there is something to look at for the greenlet that receives."""
        if self._more:
            self._schedule()
        self._receiving = self._current("receive()")
        try:
            switch(self._hub)
        finally:
            self._receiving = None

    def _wait_timed(self, timeout: float) -> bool:
        """As `_wait`; raises TimeoutError after `timeout` seconds."""
        timer = gevent.Timeout.start_new(timeout)
        try:
            return self._wait()
        except gevent.Timeout as expired:
            if expired is not timer:
                raise
            raise TimeoutError(f"no message within {timeout:g} seconds") from None
        finally:
            timer.close()

    def _current(self, what: str) -> Any:
        """Return the greenlet that is about to wait."""
        current = current_greenlet()
        if current is self._hub:
            raise BlockingSwitchOutError(f"{what} has to wait, which a callback of the event loop cannot do")
        if parent_of(current) is not self._hub and get_hub_if_exists() is not self._hub:
            raise ConcurrencyError(f"{what} in another thread than the one that made this WebSocket")
        return current

    # Greenlets that send

    def _blocked(self, current: Any) -> bool:
        """Tell whether a greenlet must wait before it puts a frame out."""
        if self._core.phase != 0:
            return False
        fragment_sender = self._fragment_sender
        if fragment_sender is not None and fragment_sender is not current and current not in self._urgent:
            return True
        return self._core.out_size > self._write_limit

    def _wait_writable(self) -> None:
        """Wait until the buffer is below its limit and no other greenlet is sending fragments.

        An exception while waiting (a kill, a gevent.Timeout) finds nothing written.
        """
        current = current_greenlet()
        mine = self._fragment_sender is current or current in self._urgent
        if self._core.out_size > self._write_limit:
            # What is corked was not tried yet.
            self._transport.flush()
        if not self._blocked(current) and (self._senders is None or mine or self._core.phase != 0):
            return
        self._current("send()")
        while True:
            if self._senders is None:
                self._senders = deque()
            if mine:
                # It holds up the others, or was woken and overtaken: it keeps its place.
                self._senders.appendleft(current)
            else:
                self._senders.append(current)
            try:
                switch(self._hub)
            finally:
                if self._senders is not None:
                    if current in self._senders:
                        self._senders.remove(current)
                    if not self._senders:
                        self._senders = None
            if not self._blocked(current):
                return
            mine = True

    def _wait_for_room(self) -> None:
        """Wait for room in the buffer alone, ahead of all messages: for a control frame."""
        current = current_greenlet()
        self._urgent += (current,)
        try:
            self._wait_writable()
        finally:
            self._urgent = tuple(other for other in self._urgent if other is not current)

    def handle_drained(self) -> None:
        """Let greenlets that wait to send go on, in their order; in the hub."""
        while self._senders is not None:
            sender = self._senders[0]
            if self._blocked(sender):
                return
            self._senders.popleft()
            if not self._senders:
                self._senders = None
            switch(sender)

    def _on_fragments_done(self) -> None:
        """The callback behind a message in fragments: others may send again."""
        try:
            self.handle_drained()
        except BaseException as error:
            self._transport.crash(error)

    # Pings

    def send_keepalive(self) -> None:
        """Send a Ping without waiting; for the keepalive, in the hub."""
        if self._core.phase == 0:
            if self._pongs is None:
                self._pongs = PongQueue()
            self._core.send_ping(self._pongs.add_own())
            self._transport.flush_unless_corked()

    def fail_timeout(self, detail: str) -> None:
        """Say 1011 and drop TCP: the peer does not answer; for the keepalive, in the hub."""
        self._detail = detail
        if self._core.phase == 0:
            self._core.send_close(1011, detail)
            self._transport.flush()
        self._transport.end(detail)

    # The end

    def begin_close(self, code: int, reason: str) -> None:
        """Send a Close unless that was done, and give the handshake its deadline. Never waits."""
        if self._core.phase == 0:
            self._core.send_close(code, reason)
            self._transport.set_close_deadline(self._options.close_timeout)
            # The peer's Close stands behind messages that nobody will receive.
            self._discard()
            self._transport.flush_unless_corked()
            self._wake_all()

    def _act(self) -> None:
        """Let the protocol do what a Close or a violation calls for, and end TCP."""
        self._terminal = False
        self._core.next_event()
        self._transport.finish(self._options.close_timeout)
        if not self._transport.ended:
            self._wake_all()

    def _closed_error(self) -> ConnectionClosed:
        """Return the exception that tells how the connection ended."""
        return self._core.closed_error(self._detail)

    def _check_open(self) -> None:
        """Raise `ConnectionClosed` unless frames can still be sent."""
        if self._core.phase != 0:
            raise self._closed_error()

    def handle_end(self, detail: str) -> None:
        """TCP is over."""
        self._terminal = False
        self._more = False
        if not self._detail and not self._core.close_ok():
            self._detail = detail
        self._core.receive_end()
        error = self._core.error
        if error is not None:
            # The frames in it would hold this connection, and what it was fed, in a cycle.
            error.__traceback__ = error.__context__ = None
        if self._keepalive is not None:
            self._keepalive.remove(self)
        on_end, self.on_end = self.on_end, None
        try:
            if on_end is not None:
                on_end(self)
        except Exception:
            logger.exception("connection %d: on_end raised", self.id)
        self._wake_all()

    def handle_error(self, error: BaseException) -> None:
        """Something raised in a callback of this connection: say 1011, log it once."""
        self._detail = "an internal error"
        logger.error("connection %d: internal error", self.id, exc_info=error)
        if self._core.phase == 0:
            self._core.send_close(1011, "internal error")
            self._transport.flush()

    def _wake_all(self) -> None:
        """Wake whatever waits, for the connection is closing or over; each looks for itself.

        In the hub, a moment later: this may be any greenlet, and even one of those.
        """
        waiting = self._receiving is not None or self._senders is not None
        if self._transport.ended:
            waiting = waiting or self._closers is not None or self._pongs is not None
        if waiting:
            self._hub.loop.run_callback(self._wake_waiting)

    def _wake_waiting(self) -> None:
        """The callback of `_wake_all`."""
        try:
            if self._receiving is not None:
                switch(self._receiving)
            self.handle_drained()
            if self._transport.ended:
                if self._pongs is not None:
                    self._pongs.end(self._closed_error())
                while self._closers:
                    switch(self._closers.pop(0))
        except BaseException as error:
            # A greenlet that nobody wrapped went on and raised. The others are woken all the same.
            self._wake_all()
            self._transport.crash(error)

    def _wait_ended(self, timeout: float | None) -> bool:
        """Wait until TCP is over; as `WebSocket.wait_closed`."""
        current = self._current("wait_closed()")
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


_NEED_DATA, _MESSAGE, _PONG, _MORE = map(int, (Event.NEED_DATA, Event.MESSAGE, Event.PONG, Event.MORE))
