"""The life of a WebSocket as a state machine: what we do, what the peer does, in any order.

Hypothesis picks the steps; a model beside it knows what has to come of them. Both ends live in one process
and one hub, on a pair of connected Unix sockets; nothing waits for real time.
"""

from __future__ import annotations

import socket as std_socket
from typing import Any

import gevent
import gevent.socket
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from support import PATIENCE, RawClient, binary, close, frame, make_websocket, ping, text, wait_until

from geventws.exceptions import ConnectionClosed, ConnectionClosedOK
from geventws.websocket import State


class Greenlet:
    """A greenlet of ours that waits, and what came of it."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.function = function
        self.arguments = arguments
        self.outcome: Any = None
        self.greenlet = gevent.spawn(self._run)
        gevent.sleep(0)

    def _run(self) -> None:
        try:
            self.outcome = ("returned", self.function(*self.arguments))
        except (ConnectionClosed, TimeoutError, gevent.Timeout) as error:
            self.outcome = ("raised", error)
        except gevent.GreenletExit:
            self.outcome = ("killed", None)


class Lifecycle(RuleBasedStateMachine):
    """One connection.

    What the peer sent and we have not received is `expected`; what we sent, and the peer has to read, is
    `owed`. A Close of the peer, its violation or its end is acted on when the messages before it
    were seen, which may be later than it was sent: `peer_is_over` is what it did, not what we know.
    """

    @initialize(max_queue=st.sampled_from([1, 2, 16]))
    def open(self, max_queue: int) -> None:
        theirs, ours = gevent.socket.socketpair(std_socket.AF_UNIX)
        ours.settimeout(PATIENCE)
        self.ws = make_websocket(theirs, max_queue=max_queue)
        self.max_queue = max_queue
        self.peer = RawClient(ours)
        self.expected: list[Any] = []
        self.owed: list[tuple[int, bytes]] = []
        self.number = 0
        self.receiver: Greenlet | None = None
        self.closers: list[Greenlet] = []
        self.pongs: list[Any] = []
        self.peer_is_over = False
        self.we_closed = False
        self.aborted = False
        self.discards = False

    # What the peer does

    def _peer_sends(self, *frames: bytes) -> None:
        try:
            self.peer.send(*frames)
        except OSError:
            # TCP is over: then nothing of it can come.
            assert self.ws.state is State.CLOSED

    @precondition(lambda self: not self.peer_is_over)
    @rule(size=st.sampled_from([0, 1, 125, 5000]), is_text=st.booleans())
    def peer_sends_message(self, size: int, is_text: bool) -> None:
        self.number += 1
        message: Any = f"{self.number} " + "é" * size
        self._peer_sends(text(message) if is_text else binary(message.encode()))
        if not self.discards and not self.we_closed and not self.aborted:
            self.expected.append(message if is_text else message.encode())

    @precondition(lambda self: not self.peer_is_over)
    @rule(parts=st.lists(st.binary(max_size=20), min_size=1, max_size=4))
    def peer_sends_fragments(self, parts: list[bytes]) -> None:
        frames = [frame(0x02 if at == 0 else 0, part) for at, part in enumerate(parts)]
        self._peer_sends(*frames, frame(0x80))
        if not self.discards and not self.we_closed and not self.aborted:
            self.expected.append(b"".join(parts))

    @precondition(lambda self: not self.peer_is_over)
    @rule()
    def peer_pings(self) -> None:
        self._peer_sends(ping(b"?"))

    @precondition(lambda self: not self.peer_is_over)
    @rule()
    def peer_answers_our_pings(self) -> None:
        if self.pongs:
            self._peer_sends(*(frame(0x8A, data) for data, _ in self.pongs))

    @precondition(lambda self: not self.peer_is_over)
    @rule(code=st.sampled_from([None, 1000, 1001, 4000]))
    def peer_closes(self, code: int | None) -> None:
        self._peer_sends(close(code))
        self.peer_is_over = True

    @precondition(lambda self: not self.peer_is_over)
    @rule(
        bad=st.sampled_from(
            [b"\x83\x80\0\0\0\0", b"\x81\x00", b"\x81\x81\0\0\0\0\xff", b"\x88\x81\0\0\0\0\x03"]
        )
    )
    def peer_breaks_a_rule(self, bad: bytes) -> None:
        self._peer_sends(bad)
        self.peer_is_over = True

    @precondition(lambda self: not self.peer_is_over)
    @rule(torn=st.booleans())
    def peer_ends(self, torn: bool) -> None:
        if torn:
            self._peer_sends(b"\x82\x8a\0\0\0\0half")
        self.peer.socket.shutdown(std_socket.SHUT_WR)
        self.peer_is_over = True

    # What we do

    @rule(size=st.sampled_from([0, 1, 125, 20_000]))
    def send(self, size: int) -> None:
        self.number += 1
        message = b"%d " % self.number + bytes(size)
        try:
            self.ws.send(message)
        except ConnectionClosed:
            assert self.ws.state is not State.OPEN
        else:
            self.owed.append((0x82, message))

    @rule(parts=st.lists(st.binary(max_size=20), min_size=1, max_size=3))
    def send_fragments(self, parts: list[bytes]) -> None:
        try:
            self.ws.send_fragments(parts)
        except ConnectionClosed:
            assert self.ws.state is not State.OPEN
        else:
            self.owed += [(0 if at else 2, part) for at, part in enumerate(parts)] + [(0x80, b"")]

    @rule()
    def send_ping(self) -> None:
        self.number += 1
        data = b"%d" % self.number
        try:
            self.pongs.append((data, self.ws.ping(data)))
        except ConnectionClosed:
            assert self.ws.state is not State.OPEN
        else:
            self.owed.append((0x89, data))

    # Whether one receives already depends on what has arrived: Hypothesis wants preconditions that do not.

    @rule()
    def begin_to_receive(self) -> None:
        if self.receiver is None:
            self.receiver = Greenlet(self.ws.receive)

    @rule()
    def receive_at_once(self) -> None:
        if self.receiver is not None:
            return
        try:
            self._received(self.ws.receive(0))
        except TimeoutError:
            pass
        except ConnectionClosed:
            assert self.ws.state is not State.OPEN

    @rule()
    def kill_the_receiver(self) -> None:
        if self.receiver is not None:
            self.receiver.greenlet.kill()
            self._settle()

    @rule()
    def time_out_the_receiver(self) -> None:
        if self.receiver is not None:
            self.receiver.greenlet.kill(gevent.Timeout())
            self._settle()

    @rule(code=st.sampled_from([1000, 1001, 4000]))
    def begin_to_close(self, code: int) -> None:
        self.we_closed = True
        self.closers.append(Greenlet(self.ws.close, code, "bye"))

    @precondition(lambda self: self.closers)
    @rule()
    def kill_a_closer(self) -> None:
        self.closers.pop().greenlet.kill()

    @rule()
    def abort(self) -> None:
        self.aborted = True
        self.ws.abort()

    @rule()
    def discard(self) -> None:
        self.discards = True
        self.expected.clear()
        self.ws.discard_messages()

    @rule()
    def turn(self) -> None:
        """Let the loop run: what is under way arrives."""
        for _ in range(3):
            gevent.sleep(0)

    # What has to hold

    def _settle(self) -> None:
        """Look at the greenlet that receives, if it is done."""
        if self.receiver is None or self.receiver.outcome is None:
            return
        outcome, value = self.receiver.outcome
        self.receiver = None
        if outcome == "returned":
            self._received(value)
        elif isinstance(value, ConnectionClosed):
            assert self.ws.state is not State.OPEN

    def _received(self, message: Any) -> None:
        """Messages come in their order, none twice, and none is left out while we listen."""
        if self.discards:
            # It was in the greenlet's hands by then.
            return
        assert self.expected, message
        assert message == self.expected.pop(0)

    @invariant()
    def the_states_agree(self) -> None:
        if not hasattr(self, "ws"):
            return
        self._settle()
        ws = self.ws
        assert ws.closed == (ws.state is not State.OPEN)
        assert (ws.close_code is None) == (ws.state is State.OPEN)
        assert (ws.close_error is None) == (ws.state is State.OPEN)
        if self.aborted:
            assert ws.state is State.CLOSED
        if self.we_closed:
            assert ws.state is not State.OPEN
        if not (self.peer_is_over or self.we_closed or self.aborted):
            assert ws.state is State.OPEN
        if isinstance(ws.close_error, ConnectionClosedOK):
            assert ws.close_code in (1000, 1001, 1005)

    def teardown(self) -> None:
        """Whatever happened: it ends, all greenlets too, and what the peer read was whole."""
        if not hasattr(self, "ws"):
            return
        ws = self.ws
        try:
            if not self.we_closed and not self.aborted:
                self._receive_the_rest()
            reading = gevent.spawn(self.peer.read_frames)
            if not ws.closed:
                self.closers.append(Greenlet(ws.close))
            if not self.peer_is_over:
                self._peer_sends(close(1000))
            elif ws.state is not State.CLOSED:
                gevent.sleep(0.001)
                self.peer.socket.shutdown(std_socket.SHUT_WR)
            try:
                frames = reading.get(timeout=PATIENCE)
            except OSError:
                frames = None  # a reset, where we did not read all that came
            wait_until(lambda: ws.state is State.CLOSED, f"the end of {ws!r}")
            wait_until(lambda: all(closer.outcome is not None for closer in self.closers), "those that close")
            if self.receiver is not None:
                wait_until(lambda: self.receiver.outcome is not None, "the one that receives")
                self._settle()
            for _, pong in self.pongs:
                assert pong.done() if hasattr(pong, "done") else True
            if frames is not None and not self.aborted:
                self._check_frames(frames)
        finally:
            ws.abort()
            self.peer.close()
            for greenlet in [*self.closers, *([self.receiver] if self.receiver else [])]:
                greenlet.greenlet.kill()

    def _receive_the_rest(self) -> None:
        """What the peer sent in front of its end is all here, whatever came behind."""
        if self.receiver is not None:
            self.receiver.greenlet.kill()
            self._settle()
            self.receiver = None
        while self.expected:
            self._received(self.ws.receive(PATIENCE))

    def _check_frames(self, frames: list[tuple[int, bytes]]) -> None:
        """All that was sent, in its order, with Pongs between and nothing behind a Close."""
        firsts = [first for first, _ in frames]
        if 0x88 in firsts:
            assert firsts.index(0x88) == len(firsts) - 1
        ours = [(first, payload) for first, payload in frames if first not in (0x88, 0x8A)]
        assert ours == self.owed


TestLifecycle = Lifecycle.TestCase
TestLifecycle.settings = settings(
    max_examples=60, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
)
