"""One connection's share of a turn, and what waits for a peer: no more than it should."""

from __future__ import annotations

import gevent
import pytest
from peers import Peer, take_events
from support import RawClient, close, opened, ping, serve, text, wait_until

from geventws import PingTimeout, WebSocket
from geventws.exceptions import MessageTooBig
from geventws.pong import MAX_WAITING, PongQueue
from geventws.protocol.connection import Event
from geventws.protocol.contexts import Deflater, Inflater
from geventws.protocol.deflate import DeflateParameters
from geventws.protocol.shared import SharedMessage

pytestmark = pytest.mark.usefixtures("no_leaks")


class TestBudget:
    """`Connection.budget`: when it is used up, `next_event` returns, whatever comes."""

    def test_pings_are_counted(self) -> None:
        peer = Peer(client=False)
        peer.connection.budget = 3
        peer.connection.receive_data(peer.bytes_of(*[b"\x89\x00"] * 5))
        assert peer.connection.next_event() == Event.MORE
        assert len(peer.receives()) == 3
        peer.connection.budget = 3
        assert peer.connection.next_event() == Event.NEED_DATA
        assert len(peer.receives()) == 2

    def test_empty_fragments_are_counted(self) -> None:
        peer = Peer(client=False)
        peer.connection.budget = 4
        peer.connection.receive_data(peer.bytes_of(b"\x01\x00", *[b"\x00\x00"] * 10, b"\x80\x00"))
        assert peer.connection.next_event() == Event.MORE
        peer.connection.budget = 100
        assert peer.connection.next_event() == Event.MESSAGE

    def test_what_comes_behind_our_close_is_counted(self) -> None:
        peer = Peer(client=False)
        peer.connection.send_close()
        peer.connection.budget = 2
        peer.connection.receive_data(peer.bytes_of(*[b"\x81\x00"] * 5))
        assert peer.connection.next_event() == Event.MORE

    @pytest.mark.parametrize("fragments", [1, 4])
    def test_final_blocks_are_counted(self, fragments: int) -> None:
        """Behind each of them a new stream of zlib begins, which takes longer than many a frame."""
        peer = Peer(client=False, deflate=DeflateParameters())
        final, empty = b"\x03\x00", b"\x00"
        size = 16 // fragments * len(final)
        frames = [
            bytes((0x42 if not i else 0x00, size)) + final * (16 // fragments) for i in range(fragments)
        ]
        message = peer.bytes_of(*frames, b"\x80\x01" + empty)
        peer.connection.budget = 100
        peer.connection.receive_data(message * 10)
        messages = 0
        while (event := peer.connection.next_event()) == Event.MESSAGE:
            messages += 1
        assert event == Event.MORE
        # The frames, and 16 of those blocks; the last one is let through whole.
        assert messages == 100 // (fragments + 17) + 1

    def test_an_empty_compressed_message_costs_a_frame(self) -> None:
        peer = Peer(client=False, deflate=DeflateParameters())
        peer.connection.budget = 3
        peer.connection.receive_data(peer.bytes_of(*[b"\xc2\x00"] * 5))
        assert [peer.connection.next_event() for _ in range(4)] == [Event.MESSAGE] * 3 + [Event.MORE]

    def test_inflated_bytes_are_counted(self) -> None:
        parameters = DeflateParameters(client_no_context_takeover=True)
        peer = Peer(client=False, deflate=parameters)
        bomb = Deflater(9, 15, 8, no_context_takeover=True).deflate(bytes(512 * 1024))
        frame = b"\xc2\x7e" + len(bomb).to_bytes(2, "big") + bomb
        peer.connection.budget = 100
        peer.connection.receive_data(peer.bytes_of(*[frame] * 4))
        # 512 KiB are 64 times 8 KiB: the second message is more than what is left.
        assert peer.connection.next_event() == Event.MESSAGE
        assert peer.connection.next_event() == Event.MESSAGE
        assert peer.connection.next_event() == Event.MORE
        peer.connection.budget = 2**40
        assert [event[0] for event in take_events(peer.connection)] == ["message"] * 2


def test_a_flood_leaves_others_their_turns() -> None:
    """A thousand Pings in one piece take several turns of the loop, and all are answered."""
    with opened() as session:
        session.peer.send(b"".join([ping(b"")] * 1000))
        for _ in range(1000):
            session.peer.expect(0x8A, b"")


def test_reading_goes_on_when_the_queue_is_half_empty() -> None:
    """A handler that takes some messages of a full queue and then does something else sees the Close."""
    taken = gevent.event.Event()

    def handler(ws: WebSocket) -> None:
        wait_until(lambda: ws.reading_paused)
        for _ in range(9):
            ws.receive()
        taken.set()
        ws.wait_closed(20)

    with serve(handler, max_queue=16) as server, RawClient.connect(server.address) as client:
        client.send(b"".join(text(str(number)) for number in range(17)))
        assert taken.wait(20)
        client.send(ping(b"there?"))
        client.expect(0x8A, b"there?")
        client.send(close(1000))
        client.expect_close(1000)


def test_a_second_receiver_is_refused_whatever_waits() -> None:
    with opened() as session:
        first = gevent.spawn(session.ws.receive)
        gevent.sleep(0)
        with pytest.raises(Exception, match="another greenlet is receiving"):
            session.ws.receive()
        session.peer.send(text("for the first"))
        assert first.get(timeout=20) == "for the first"


class TestPongs:
    def test_pings_that_nobody_answers_do_not_pile_up(self) -> None:
        queue = PongQueue()
        first = queue.add(b"first")
        for number in range(MAX_WAITING):
            queue.add(b"%d" % number)
        with pytest.raises(PingTimeout, match=f"{MAX_WAITING} later pings"):
            first.wait(0)
        assert queue.receive(b"first") is None
        assert queue.receive(b"%d" % (MAX_WAITING - 1)) is not None
        assert queue.receive(b"0") is None

    def test_equal_payloads_are_answered_one_by_one(self) -> None:
        queue = PongQueue()
        pongs = [queue.add(b"") for _ in range(3)]
        for count in range(1, 4):
            assert queue.receive(b"") is not None
            assert [pong.latency is not None for pong in pongs] == [True] * count + [False] * (3 - count)
        assert queue.receive(b"") is None

    def test_an_own_ping_gives_way_to_the_next(self) -> None:
        queue = PongQueue()
        same = queue.add(b"keepalive 1")
        for _ in range(5):
            payload = queue.add_own()
        assert queue.receive(b"keepalive 2") is None
        assert queue.receive(payload) is not None
        assert same.latency is not None


def test_broadcasts_behind_fragments_count_as_waiting() -> None:
    """Empty ones too, and without adding them up again for each."""
    with opened(write_limit=4000) as session:
        ws = session.ws
        go_on = gevent.event.Event()

        def fragments():  # type: ignore[no-untyped-def]
            yield "a"
            go_on.wait(20)
            yield "b"

        sender = gevent.spawn(ws.send_fragments, fragments())
        gevent.sleep(0)
        count = 0
        while not ws.is_slow():
            ws.put_shared(SharedMessage(""), None)
            count += 1
            assert count <= 1001
        go_on.set()
        sender.get(timeout=20)
        assert not ws.is_slow()


def test_a_write_that_the_kernel_still_has_room_for_is_no_progress() -> None:
    """A peer that never reads is found within write_timeout, not twice that: our own try moves nothing."""
    with opened(write_timeout=0.3, small=True) as session:
        ws = session.ws
        while not ws.write_buffer_size:
            ws.send(bytes(50_000))
        # What the kernels still move between them by themselves is not ours to say.
        counts = {ws.bytes_sent}
        while not ws.wait_closed(0.01):
            counts.add(ws.bytes_sent)
        assert len(counts) <= 2


class TestFinalBlocks:
    def test_a_window_that_slides_by_single_bytes(self) -> None:
        inflater = Inflater(9, no_context_takeover=False)
        deflater = Deflater(6, 9, 4, no_context_takeover=False)
        for number in range(3000):
            message = b"%c" % (number % 251)
            assert inflater.inflate(deflater.deflate(message), 10) == message
            inflater.finish()

    def test_more_of_them_than_an_encoder_makes(self) -> None:
        with pytest.raises(MessageTooBig, match="final blocks"):
            Inflater(15, no_context_takeover=False).inflate(b"\x03\x00" * 100, None)
