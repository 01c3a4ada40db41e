"""A connection after its opening handshake (RFC 6455 sections 5.5, 6 and 7): events, answers, closing."""

from __future__ import annotations

import os
import sys
from typing import Any

import pytest
from peers import KEY, Peer, mask, split_frames, take_events, unmask_frame

from geventws.exceptions import (
    ConnectionClosed,
    ConnectionClosedError,
    ConnectionClosedOK,
    InvalidFrame,
    InvalidState,
    MessageTooBig,
    ProtocolError,
)
from geventws.protocol.closing import Close, Phase
from geventws.protocol.connection import Connection, Event
from geventws.protocol.deflate import DeflateParameters
from geventws.protocol.shared import SharedMessage

# The role of the connection under test.
pytestmark = pytest.mark.parametrize(
    "client", [pytest.param(False, id="server"), pytest.param(True, id="client")]
)

CLOSE = b"\x88\x00"
CLOSE_1000 = b"\x88\x02\x03\xe8"
TEXT = "a window slides over what was said before, and what was said before is said again"


class TestEvents:
    """What `next_event` tells, in which order."""

    def test_nothing_comes_of_nothing(self, client: bool) -> None:
        connection = Peer(client).connection
        assert connection.next_event() == Event.NEED_DATA
        connection.receive_data(b"")
        assert connection.next_event() == Event.NEED_DATA
        assert connection.out == []
        assert connection.phase == Phase.OPEN

    @pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
    def test_bytes_come_in_any_shape(self, client: bool, kind: Any) -> None:
        peer = Peer(client)
        data = peer.bytes_of(b"\x81\x05Hello")
        assert peer.sends_bytes(kind(data)) == [("message", "Hello")]

    @pytest.mark.parametrize("data", [None, "Hello", 1.5])
    def test_what_is_no_bytes_is_refused(self, client: bool, data: Any) -> None:
        peer = Peer(client)
        with pytest.raises(TypeError):
            peer.connection.receive_data(data)
        assert peer.sends(b"\x81\x05Hello") == [("message", "Hello")]

    def test_what_was_given_is_not_changed(self, client: bool) -> None:
        peer = Peer(client)
        data = bytearray(peer.bytes_of(b"\x81\x05Hello"))
        before = bytes(data)
        peer.sends_bytes(data)
        assert data == before

    def test_in_their_order_in_one_read(self, client: bool) -> None:
        peer = Peer(client)
        events = peer.sends(b"\x81\x01a", b"\x8a\x01p", b"\x89\x01q", b"\x82\x01b", b"\x8a\x00", CLOSE)
        assert events == [("message", "a"), ("pong", b"p"), ("message", b"b"), ("pong", b""), ("close",)]
        assert peer.receives() == [b"\x8a\x01q", CLOSE]

    def test_more_may_be_fed_before_all_events_were_taken(self, client: bool) -> None:
        peer = Peer(client)
        connection = peer.connection
        data = peer.bytes_of(b"\x81\x01a", b"\x81\x01b", b"\x81\x01c")
        connection.receive_data(data[:-1])
        assert connection.next_event() == Event.MESSAGE
        assert connection.message == "a"
        connection.keep()
        connection.receive_data(data[-1:])
        assert take_events(connection) == [("message", "b"), ("message", "c")]

    def test_a_lent_buffer_is_free_after_need_data(self, client: bool) -> None:
        peer = Peer(client)
        connection = peer.connection
        data = peer.bytes_of(b"\x81\x05Hello", b"\x89\x01?", b"\x02\x01\xff", b"\x80\x02\xfe\xfd")
        lent = bytearray(64)
        found = []
        for at in range(0, len(data), 3):
            piece = data[at : at + 3]
            lent[: len(piece)] = piece
            connection.feed(lent, len(piece))
            found += take_events(connection)
            lent[:] = b"\xee" * 64
        assert found == [("message", "Hello"), ("message", b"\xff\xfe\xfd")]
        assert peer.receives() == [b"\x8a\x01?"]

    def test_a_lent_buffer_is_free_after_keep(self, client: bool) -> None:
        peer = Peer(client)
        connection = peer.connection
        data = peer.bytes_of(b"\x81\x01a", b"\x81\x01b")
        lent = bytearray(data)
        connection.feed(lent, len(lent))
        assert connection.next_event() == Event.MESSAGE
        connection.keep()
        lent[:] = bytes(len(lent))
        assert take_events(connection) == [("message", "b")]

    @pytest.mark.parametrize("message", ["", b"", "\x00", "Hello", b"Hello"])
    def test_each_message_is_its_own_object_of_its_type(self, client: bool, message: str | bytes) -> None:
        peer = Peer(client)
        payload = message.encode() if isinstance(message, str) else message
        first = 0x81 if isinstance(message, str) else 0x82
        assert peer.sends(bytes((first, len(payload))) + payload) == [("message", message)]
        assert type(peer.connection.message) is type(message)
        assert peer.connection.message_size == len(payload)


class TestPing:
    """RFC 6455 sections 5.5.2 and 5.5.3."""

    @pytest.mark.parametrize("payload", [b"", b"Hello", b"\x00\xff\xfe", b"x" * 125])
    def test_is_answered_with_its_payload(self, client: bool, payload: bytes) -> None:
        peer = Peer(client)
        assert peer.sends(bytes((0x89, len(payload))) + payload) == []
        assert peer.receives() == [bytes((0x8A, len(payload))) + payload]

    def test_is_answered_when_it_is_complete(self, client: bool) -> None:
        peer = Peer(client)
        data = peer.bytes_of(b"\x89\x05Hello")
        for at in range(len(data) - 1):
            assert peer.sends_bytes(data[at : at + 1]) == []
            assert peer.receives() == []
        peer.sends_bytes(data[-1:])
        assert peer.receives() == [b"\x8a\x05Hello"]

    def test_each_is_answered(self, client: bool) -> None:
        peer = Peer(client)
        peer.sends(b"\x89\x01a", b"\x89\x00", b"\x89\x01b")
        assert peer.receives() == [b"\x8a\x01a", b"\x8a\x00", b"\x8a\x01b"]

    def test_is_not_answered_after_our_close(self, client: bool) -> None:
        peer = Peer(client)
        peer.connection.send_close()
        assert peer.receives() == [CLOSE_1000]
        assert peer.sends(b"\x89\x01a") == []
        assert peer.receives() == []

    def test_a_pong_is_told_and_not_answered(self, client: bool) -> None:
        peer = Peer(client)
        assert peer.sends(b"\x8a\x03abc", b"\x8a\x00") == [("pong", b"abc"), ("pong", b"")]
        assert peer.receives() == []

    @pytest.mark.parametrize("payload", [b"", b"\x00\xff", b"x" * 125])
    def test_sending_one(self, client: bool, payload: bytes) -> None:
        peer = Peer(client)
        peer.connection.send_ping(payload)
        assert peer.receives() == [bytes((0x89, len(payload))) + payload]

    def test_one_of_126_bytes_is_not_sent(self, client: bool) -> None:
        peer = Peer(client)
        with pytest.raises(ValueError, match="a ping has at most 125 bytes, not 126"):
            peer.connection.send_ping(b"x" * 126)
        assert peer.receives() == []


class TestHeldPongs:
    """RFC 6455 section 5.5.3: an endpoint may answer only the latest Ping."""

    def test_only_the_latest_is_answered(self, client: bool) -> None:
        peer = Peer(client)
        peer.connection.hold_pongs = True
        assert peer.sends(b"\x89\x01a", b"\x89\x00", b"\x89\x01b") == []
        assert peer.receives() == []
        peer.connection.release_pongs()
        assert not peer.connection.hold_pongs
        assert peer.receives() == [b"\x8a\x01b"]
        peer.connection.release_pongs()
        assert peer.receives() == []
        peer.sends(b"\x89\x01c")
        assert peer.receives() == [b"\x8a\x01c"]

    def test_an_empty_one_is_answered_too(self, client: bool) -> None:
        peer = Peer(client)
        peer.connection.hold_pongs = True
        peer.sends(b"\x89\x01a", b"\x89\x00")
        peer.connection.release_pongs()
        assert peer.receives() == [b"\x8a\x00"]

    def test_none_came(self, client: bool) -> None:
        peer = Peer(client)
        peer.connection.hold_pongs = True
        peer.connection.release_pongs()
        assert peer.receives() == []

    def test_none_is_sent_after_our_close(self, client: bool) -> None:
        peer = Peer(client)
        peer.connection.hold_pongs = True
        peer.sends(b"\x89\x01a")
        peer.connection.send_close()
        peer.connection.release_pongs()
        assert peer.receives() == [CLOSE_1000]

    def test_none_is_sent_after_the_end(self, client: bool) -> None:
        peer = Peer(client)
        peer.connection.hold_pongs = True
        peer.sends(b"\x89\x01a")
        peer.connection.receive_end()
        peer.connection.release_pongs()
        assert peer.receives() == []


class TestSending:
    """RFC 6455 sections 5.2 and 6.1."""

    @pytest.mark.parametrize(
        ("message", "frame"),
        [
            ("", b"\x81\x00"),
            (b"", b"\x82\x00"),
            ("Hello", b"\x81\x05Hello"),
            (b"\xff", b"\x82\x01\xff"),
            ("é", b"\x81\x02\xc3\xa9"),
            (b"x" * 126, b"\x82\x7e\x00\x7e" + b"x" * 126),
            ("x" * 65536, b"\x81\x7f\x00\x00\x00\x00\x00\x01\x00\x00" + b"x" * 65536),
        ],
    )
    def test_a_message_is_one_frame(self, client: bool, message: str | bytes, frame: bytes) -> None:
        peer = Peer(client)
        peer.connection.send(message)
        assert peer.receives() == [frame]

    def test_each_frame_is_one_whole_chunk(self, client: bool) -> None:
        peer = Peer(client)
        peer.connection.send("a")
        peer.connection.send_ping(b"")
        peer.connection.send(b"b" * 511)
        assert [type(chunk) for chunk in peer.connection.out] == [bytes] * 3
        assert len(peer.receives()) == 3

    def test_a_large_payload_is_not_copied_behind_its_header(self, client: bool) -> None:
        peer = Peer(client)
        payload = b"b" * 100_000
        peer.connection.send(payload)
        if client:
            # RFC 6455 section 5.3: it is masked, and so is another one anyway.
            assert len(peer.connection.out) == 1
        else:
            assert peer.connection.out[0] == b"\x82\x7f\x00\x00\x00\x00\x00\x01\x86\xa0"
            assert peer.connection.out[1] is payload
        assert peer.receives() == [b"\x82\x7f\x00\x00\x00\x00\x00\x01\x86\xa0" + payload]

    @pytest.mark.parametrize("length", [511, 512, 16 * 1024, 65_535, 65_536])
    def test_large_texts_are_counted_in_octets(self, client: bool, length: int) -> None:
        peer = Peer(client)
        peer.connection.send("é" * length)
        (frame,) = peer.receives()
        header = (b"\x81\x7e" + (2 * length).to_bytes(2, "big")) if length < 32768 else None
        header = header or b"\x81\x7f" + (2 * length).to_bytes(8, "big")
        assert frame == header + "é".encode() * length

    def test_a_large_text_with_a_lone_surrogate(self, client: bool) -> None:
        peer = Peer(client)
        with pytest.raises(UnicodeEncodeError):
            peer.connection.send("\ud800" * 20_000)
        assert peer.receives() == []

    def test_compress_means_nothing_where_none_was_agreed(self, client: bool) -> None:
        peer = Peer(client)
        for compress in (None, True, False):
            peer.connection.send("Hello", compress)
        assert peer.receives() == [b"\x81\x05Hello"] * 3

    def test_a_lone_surrogate_sends_nothing(self, client: bool) -> None:
        for deflate in (None, DeflateParameters()):
            peer = Peer(client, deflate=deflate)
            with pytest.raises(UnicodeEncodeError):
                peer.connection.send("ok\ud800")
            assert peer.receives() == []
            peer.connection.send("ok", False)
            assert peer.receives() == [b"\x81\x02ok"]

    @pytest.mark.parametrize("message", [None, 5, ["x"]])
    def test_another_type_sends_nothing(self, client: bool, message: Any) -> None:
        peer = Peer(client)
        with pytest.raises(TypeError):
            peer.connection.send(message)
        assert peer.receives() == []

    def test_fragments(self, client: bool) -> None:
        peer = Peer(client)
        connection = peer.connection
        connection.send_fragment("Hel", 1, False)
        connection.send_ping(b"?")
        connection.send_fragment("", 0, False)
        connection.send_fragment("lo", 0, True)
        connection.send_fragment(b"x", 2, True)
        assert peer.receives() == [
            b"\x01\x03Hel",
            b"\x89\x01?",
            b"\x00\x00",
            b"\x80\x02lo",
            b"\x82\x01x",
        ]

    def test_a_close_may_stand_between_fragments_and_ends_them(self, client: bool) -> None:
        peer = Peer(client)
        peer.connection.send_fragment("Hel", 1, False)
        peer.connection.send_close(1011)
        with pytest.raises(ConnectionClosedError):
            peer.connection.send_fragment("lo", 0, True)
        assert peer.receives() == [b"\x01\x03Hel", b"\x88\x02\x03\xf3"]


class TestMaskingKeys:
    """RFC 6455 sections 5.1 and 5.3: a client masks, each frame with a fresh key."""

    def test_all_frames_of_a_client_are_masked_and_none_of_a_server(self, client: bool) -> None:
        connection = Connection(client=client)
        connection.send("a")
        connection.send(b"b" * 300)
        connection.send_shared(SharedMessage("c"))
        connection.send_fragment("d", 1, False)
        connection.send_fragment("e", 0, True)
        connection.send_ping(b"f")
        connection.receive_data(b"\x89\x01g" if client else mask(b"\x89\x01g"))
        assert take_events(connection) == []
        connection.send_close()
        frames = connection.out
        assert [frame[0] for frame in frames] == [0x81, 0x82, 0x81, 0x01, 0x80, 0x89, 0x8A, 0x88]
        assert {bool(frame[1] & 0x80) for frame in frames} == {client}

    def test_keys_are_fresh(self, client: bool) -> None:
        connection = Connection(client=client)
        for _ in range(1000):
            connection.send(b"\x00\x00\x00\x00")
        sent = b"".join(connection.out)
        if not client:
            assert sent == b"\x82\x04\x00\x00\x00\x00" * 1000
            return
        frames = [sent[start : start + 10] for start in range(0, 10_000, 10)]
        assert len(sent) == 10_000
        # 1000 of 2**32: 0.0001 pairs are expected.
        assert len({frame[2:6] for frame in frames}) >= 999
        assert all(frame[6:] == frame[2:6] for frame in frames)

    def test_small_frames_that_wait_are_joined(self, client: bool) -> None:
        """What a peer that does not read makes us hold is little more than the bytes it is counted by."""
        connection = Connection(client=client)
        shared = SharedMessage("all")
        for _ in range(25_000):
            connection.send("")
            connection.send_shared(shared)
            connection.send_ping(b"")
        sent = b"".join(connection.out)
        # Headers of two bytes, a masking key of four at the client, three bytes of payload.
        assert len(sent) == connection.out_size == 25_000 * (3 * (6 if client else 2) + 3)
        held = sys.getsizeof(connection.out) + sum(map(sys.getsizeof, connection.out))
        assert held < 1.5 * connection.out_size

    def test_keys_come_from_the_systems_entropy(self, client: bool, monkeypatch: pytest.MonkeyPatch) -> None:
        from geventws.protocol import keys

        monkeypatch.setattr(os, "urandom", lambda size: (KEY * size)[:size])
        keys.drop_keys()
        try:
            connection = Connection(client=client)
            connection.send("Hello")
            assert connection.out == [mask(b"\x81\x05Hello") if client else b"\x81\x05Hello"]
            assert keys.count_keys() == (1023 if client else 0)
        finally:
            keys.drop_keys()


@pytest.mark.usefixtures("compressor")
class TestCompression:
    """RFC 7692 sections 6 and 7.2."""

    def other(self, client: bool, deflate: DeflateParameters) -> Connection:
        return Connection(client=not client, deflate=deflate)

    def exchange(self, peer: Peer, other: Connection) -> list[tuple[Any, ...]]:
        """Hand what was written over to the other side; returns its events."""
        other.receive_data(b"".join(peer.connection.out))
        peer.receives()
        return take_events(other)

    @pytest.mark.parametrize(
        "deflate",
        [
            DeflateParameters(),
            DeflateParameters(server_no_context_takeover=True, client_no_context_takeover=True),
            DeflateParameters(server_max_window_bits=9, client_max_window_bits=9),
            DeflateParameters(server_no_context_takeover=True, client_max_window_bits=10),
            DeflateParameters(client_no_context_takeover=True, server_max_window_bits=10),
        ],
    )
    def test_both_roles_understand_each_other(self, client: bool, deflate: DeflateParameters) -> None:
        peer, other = Peer(client, deflate=deflate), self.other(client, deflate)
        for message in (TEXT, TEXT.encode(), TEXT, "", b"", TEXT * 100):
            peer.connection.send(message)
            assert peer.connection.out[0][0] & 0x40
            assert self.exchange(peer, other) == [("message", message)]

    def test_the_window_of_the_own_role_counts(self, client: bool) -> None:
        # RFC 7692 section 7.1.2: server_max_window_bits limits what the server compresses with.
        far = b"".join(i.to_bytes(2, "big") for i in range(1000))
        sizes = []
        for bits in (9, 15):
            ours = {("client" if client else "server") + "_max_window_bits": bits}
            peer = Peer(client, deflate=DeflateParameters(**ours))  # type: ignore[arg-type]
            peer.connection.send(far + far)
            sizes.append(len(peer.receives()[0]))
        assert sizes[0] > sizes[1]

    def test_the_threshold_spares_short_messages(self, client: bool) -> None:
        peer = Peer(client, deflate=DeflateParameters(), threshold=10)
        for message in ("123456789", "1234567890", b"123456789", b"1234567890", "ééééé"):
            peer.connection.send(message)
        peer.connection.send("short", True)
        peer.connection.send(TEXT, False)
        firsts = [frame[0] for frame in peer.receives()]
        assert firsts == [0x81, 0xC1, 0x82, 0xC2, 0xC1, 0xC1, 0x81]

    def test_fragments(self, client: bool) -> None:
        deflate = DeflateParameters()
        peer, other = Peer(client, deflate=deflate), self.other(client, deflate)
        for fragments in (
            ["Hel", "lo"],
            ["", "Hel", "", "lo", ""],
            [b"Hel", b"lo"],
            [TEXT] * 3,
            [""],
            [b"", b""],
        ):
            opcode = 1 if isinstance(fragments[0], str) else 2
            for at, fragment in enumerate(fragments):
                peer.connection.send_fragment(fragment, 0 if at else opcode, at == len(fragments) - 1)
            firsts = [frame[0] for frame in map(bytes, peer.connection.out)]
            # RFC 7692 section 6.1: RSV1 on the first fragment only.
            assert [bool(first & 0x40) for first in firsts] == [True] + [False] * (len(fragments) - 1)
            whole = type(fragments[0])().join(fragments)  # type: ignore[arg-type]
            assert self.exchange(peer, other) == [("message", whole)]

    @pytest.mark.parametrize(
        "deflate",
        [
            DeflateParameters(),
            DeflateParameters(server_no_context_takeover=True, client_no_context_takeover=True),
        ],
    )
    def test_a_message_for_many(self, client: bool, deflate: DeflateParameters) -> None:
        peer, other = Peer(client, deflate=deflate, threshold=10), self.other(client, deflate)
        for message, compress, first in (
            (TEXT, None, 0xC1),
            (TEXT, None, 0xC1),
            (TEXT.encode(), True, 0xC2),
            ("short", None, 0x81),
            ("short", True, 0xC1),
            (TEXT, False, 0x81),
        ):
            peer.connection.send_shared(SharedMessage(message), compress)
            assert peer.connection.out[0][0] == first
            assert self.exchange(peer, other) == [("message", message)]

    def test_control_frames_are_not_compressed(self, client: bool) -> None:
        peer = Peer(client, deflate=DeflateParameters())
        peer.connection.send_ping(b"x" * 100)
        peer.sends(b"\x89\x64" + b"y" * 100)
        peer.connection.send_close(1000, "z" * 100)
        assert [frame[0] for frame in peer.receives()] == [0x89, 0x8A, 0x88]

    def test_level_and_memory_level_are_passed_on(self, client: bool) -> None:
        data = b"".join(str(i * i).encode() for i in range(2000))
        sizes = []
        for level, mem_level in ((7, 1), (9, 9)):
            peer = Peer(client, deflate=DeflateParameters(), level=level, mem_level=mem_level)
            peer.connection.send(data)
            sizes.append(len(peer.receives()[0]))
        assert sizes[1] < sizes[0]


CLOSES = [
    (b"", Close(1005), CLOSE),
    (b"\x03\xe8", Close(1000), CLOSE_1000),
    (b"\x03\xe9bye", Close(1001, "bye"), b"\x88\x02\x03\xe9"),
    (b"\x0f\xa0" + "é".encode(), Close(4000, "é"), b"\x88\x02\x0f\xa0"),
    (b"\x03\xe8" + b"x" * 123, Close(1000, "x" * 123), CLOSE_1000),
]


class TestPeerCloses:
    """RFC 6455 sections 5.5.1 and 7.1."""

    @pytest.mark.parametrize(("payload", "close", "answer"), CLOSES)
    def test_is_answered_with_the_same_code(
        self, client: bool, payload: bytes, close: Close, answer: bytes
    ) -> None:
        peer = Peer(client)
        assert peer.sends(bytes((0x88, len(payload))) + payload) == [("close",)]
        connection = peer.connection
        assert peer.receives() == [answer]
        assert connection.phase == Phase.CLOSE_DONE
        assert connection.close_received == close
        assert connection.close_sent == Close(close.code)
        assert connection.received_first is True
        assert connection.error is None

    def test_takes_effect_one_call_after_it_is_told(self, client: bool) -> None:
        # The messages before it can still be answered.
        peer = Peer(client)
        connection = peer.connection
        connection.receive_data(peer.bytes_of(b"\x81\x01a", CLOSE))
        assert connection.next_event() == Event.MESSAGE
        assert connection.next_event() == Event.CLOSE
        assert connection.phase == Phase.OPEN
        assert connection.close_received is None
        connection.send("b")
        assert connection.next_event() == Event.NEED_DATA
        assert peer.receives() == [b"\x81\x01b", CLOSE]
        assert connection.phase == Phase.CLOSE_DONE
        with pytest.raises(ConnectionClosedOK):
            connection.send("c")

    def test_nothing_behind_it_is_looked_at(self, client: bool) -> None:
        # RFC 6455 section 1.4: what comes behind a Close is discarded.
        peer = Peer(client)
        assert peer.sends(CLOSE_1000, b"\x81\x01a", b"\x89\x01b", b"\xff\x01c") == [("close",)]
        assert peer.sends(b"\x81\x01a", b"\x89\x01b", b"\xff\x01c") == []
        assert peer.sends_bytes(b"GET / HTTP/1.1\r\n\r\n") == []
        assert peer.receives() == [CLOSE_1000]
        assert peer.connection.phase == Phase.CLOSE_DONE

    def test_inside_a_fragmented_message(self, client: bool) -> None:
        peer = Peer(client)
        assert peer.sends(b"\x01\x01a", CLOSE_1000, b"\x80\x01b") == [("close",)]
        assert peer.receives() == [CLOSE_1000]

    @pytest.mark.parametrize(
        ("payload", "code", "kind"),
        [
            (b"\x03", 1002, "close.payload"),
            (b"\x03\xed", 1002, "close.code"),
            (b"\x00\x00", 1002, "close.code"),
            (b"\x13\x88", 1002, "close.code"),
            (b"\x03\xe8\xff", 1007, "close.reason"),
        ],
    )
    def test_a_bad_payload_fails_the_connection(
        self, client: bool, payload: bytes, code: int, kind: str
    ) -> None:
        peer = Peer(client)
        assert peer.sends(bytes((0x88, len(payload))) + payload) == [("failed",)]
        assert peer.receives_failure(code)
        assert peer.connection.error.kind == kind
        assert peer.connection.close_received is None

    def test_nothing_can_be_sent_any_more(self, client: bool) -> None:
        peer = Peer(client, deflate=DeflateParameters())
        connection = peer.connection
        peer.sends(CLOSE_1000)
        peer.receives()
        for send in (
            lambda: connection.send("x"),
            lambda: connection.send("x", True),
            lambda: connection.send_shared(SharedMessage("x")),
            lambda: connection.send_fragment("x", 1, True),
            lambda: connection.send_ping(b""),
        ):
            with pytest.raises(ConnectionClosedOK) as caught:
                send()
            assert caught.value.received == Close(1000)
            assert caught.value.sent == Close(1000)
        with pytest.raises(InvalidState, match="send close is not possible in phase CLOSE_DONE"):
            connection.send_close()
        assert peer.receives() == []


class TestWeClose:
    """RFC 6455 section 7.1.2."""

    @pytest.mark.parametrize(
        ("code", "reason", "frame"),
        [
            (1000, "", CLOSE_1000),
            (1001, "bye", b"\x88\x05\x03\xe9bye"),
            (1005, "", CLOSE),
            (4999, "x" * 123, b"\x88\x7d\x13\x87" + b"x" * 123),
        ],
    )
    def test_sends_a_close_and_waits_for_the_peers(
        self, client: bool, code: int, reason: str, frame: bytes
    ) -> None:
        peer = Peer(client)
        connection = peer.connection
        connection.send_close(code, reason)
        assert peer.receives() == [frame]
        assert connection.phase == Phase.CLOSE_SENT
        assert connection.close_sent == Close(code, reason)
        assert connection.received_first is None
        assert peer.sends(b"\x88\x02\x03\xe8") == [("close",)]
        # It is not answered: a Close was sent already.
        assert peer.receives() == []
        assert connection.phase == Phase.CLOSE_DONE
        assert connection.received_first is False

    def test_the_default_is_a_normal_closure(self, client: bool) -> None:
        peer = Peer(client)
        peer.connection.send_close()
        assert peer.receives() == [CLOSE_1000]

    @pytest.mark.parametrize(
        ("code", "reason"),
        [
            (999, ""),
            (1004, ""),
            (1006, ""),
            (1015, ""),
            (2999, ""),
            (5000, ""),
            (1000, "x" * 124),
            (1005, "x"),
        ],
    )
    def test_what_may_not_be_sent_changes_nothing(self, client: bool, code: int, reason: str) -> None:
        peer = Peer(client)
        with pytest.raises(ValueError, match=r"close (code|reason)"):
            peer.connection.send_close(code, reason)
        assert peer.receives() == []
        assert peer.connection.phase == Phase.OPEN
        assert peer.connection.close_sent is None
        peer.connection.send("still open")

    def test_once(self, client: bool) -> None:
        peer = Peer(client)
        peer.connection.send_close()
        with pytest.raises(InvalidState, match="send close is not possible in phase CLOSE_SENT"):
            peer.connection.send_close(1001)
        assert peer.receives() == [CLOSE_1000]
        assert peer.connection.close_sent == Close(1000)

    def test_messages_that_were_under_way_are_dropped(self, client: bool) -> None:
        peer = Peer(client)
        peer.connection.send_close()
        peer.receives()
        assert peer.sends(b"\x81\x01a", b"\x01\x01b", b"\x80\x01c", b"\x8a\x01p") == [("pong", b"p")]
        assert peer.sends(b"\x02\x05") == []
        assert peer.sends_bytes(b"xx") == []
        assert peer.connection.phase == Phase.CLOSE_SENT

    def test_the_limits_still_hold(self, client: bool) -> None:
        peer = Peer(client, max_message_size=10)
        peer.connection.send_close()
        assert peer.receives() == [CLOSE_1000]
        assert peer.sends(b"\x81\x0b") == [("failed",)]
        # No second Close.
        assert peer.receives() == []
        assert peer.connection.phase == Phase.FAILED
        assert isinstance(peer.connection.error, MessageTooBig)
        assert peer.connection.close_sent == Close(1000)

    def test_between_the_peers_close_and_its_answer(self, client: bool) -> None:
        # The application closes in the very turn in which the peer's Close was told.
        peer = Peer(client)
        connection = peer.connection
        connection.receive_data(peer.bytes_of(CLOSE_1000))
        assert connection.next_event() == Event.CLOSE
        connection.send_close(1001)
        assert connection.next_event() == Event.NEED_DATA
        assert peer.receives() == [b"\x88\x02\x03\xe9"]
        assert connection.phase == Phase.CLOSE_DONE
        assert (connection.close_received, connection.close_sent) == (Close(1000), Close(1001))


class TestFailing:
    """RFC 6455 section 7.1.7."""

    def test_takes_effect_one_call_after_it_is_told(self, client: bool) -> None:
        peer = Peer(client)
        connection = peer.connection
        connection.receive_data(peer.bytes_of(b"\x81\x01a", b"\x83\x00"))
        assert connection.next_event() == Event.MESSAGE
        assert connection.next_event() == Event.FAILED
        assert connection.phase == Phase.OPEN
        assert connection.error is None
        connection.send("b")
        assert connection.next_event() == Event.NEED_DATA
        frames = peer.receives()
        assert frames[0] == b"\x81\x01b"
        assert frames[1] == b"\x88\x18\x03\xea" + b"opcode 0x3 is reserved"
        assert connection.phase == Phase.FAILED
        assert isinstance(connection.error, InvalidFrame)
        assert connection.close_sent == Close(1002, "opcode 0x3 is reserved")

    def test_nothing_behind_it_is_looked_at(self, client: bool) -> None:
        peer = Peer(client)
        assert peer.sends(b"\x83\x00", b"\x81\x01a", b"\x89\x01b", CLOSE) == [("failed",)]
        assert peer.sends(b"\x81\x01a", b"\x89\x01b", CLOSE) == []
        assert peer.sends_bytes(bytes(1000)) == []
        peer.receives_failure(1002)
        assert peer.connection.close_received is None

    def test_nothing_can_be_sent_any_more(self, client: bool) -> None:
        peer = Peer(client)
        peer.sends(b"\x83\x00")
        peer.receives()
        with pytest.raises(ConnectionClosedError, match="opcode 0x3 is reserved") as caught:
            peer.connection.send("x")
        assert caught.value.sent == Close(1002, "opcode 0x3 is reserved")
        assert caught.value.code == 1006
        with pytest.raises(InvalidState):
            peer.connection.send_close()
        assert peer.receives() == []

    def test_for_a_reason_of_our_own(self, client: bool) -> None:
        peer = Peer(client)
        error = ProtocolError("x" * 122 + "éé", "own")
        peer.connection.fail(error)
        assert peer.receives_failure(1002) == "x" * 122
        assert peer.connection.error is error
        # A second failure does not take the place of the first.
        peer.connection.fail(ProtocolError("again"))
        assert peer.connection.error is error
        assert peer.receives() == []
        assert peer.sends(b"\x81\x01a") == []

    @pytest.mark.parametrize("frame", [CLOSE_1000, b"\x83\x00"])
    def test_between_the_end_and_its_effect(self, client: bool, frame: bytes) -> None:
        peer = Peer(client)
        connection = peer.connection
        connection.receive_data(peer.bytes_of(frame))
        assert connection.next_event() in (Event.CLOSE, Event.FAILED)
        error = ProtocolError("own")
        connection.fail(error)
        assert peer.receives_failure(1002) == "own"
        assert connection.next_event() == Event.NEED_DATA
        assert connection.error is error
        assert peer.receives() == []

    def test_after_the_closing_handshake_changes_no_phase(self, client: bool) -> None:
        peer = Peer(client)
        peer.sends(CLOSE_1000)
        peer.receives()
        peer.connection.fail(ProtocolError("late"))
        assert peer.connection.phase == Phase.CLOSE_DONE
        assert peer.receives() == []

    def test_a_violation_after_our_close(self, client: bool) -> None:
        peer = Peer(client)
        peer.connection.send_close(1001)
        peer.receives()
        assert peer.sends(b"\x83\x00") == [("failed",)]
        assert peer.receives() == []
        assert peer.connection.phase == Phase.FAILED
        assert peer.connection.close_sent == Close(1001)


class TestEnd:
    """TCP is over (RFC 6455 section 7.1.4)."""

    def test_while_open(self, client: bool) -> None:
        peer = Peer(client)
        peer.sends(b"\x01\x01a")
        peer.connection.receive_end()
        assert peer.connection.phase == Phase.ENDED
        assert peer.sends(b"\x80\x01b") == []
        with pytest.raises(ConnectionClosedError, match="no Close frame") as caught:
            peer.connection.send("x")
        assert caught.value.code == 1006
        with pytest.raises(InvalidState):
            peer.connection.send_close()
        assert peer.receives() == []

    def test_may_be_told_again(self, client: bool) -> None:
        peer = Peer(client, deflate=DeflateParameters())
        for _ in range(3):
            peer.connection.receive_end()
        assert peer.connection.phase == Phase.ENDED

    @pytest.mark.parametrize("frame", [CLOSE_1000, b"\x83\x00"])
    def test_before_what_was_told_took_effect(self, client: bool, frame: bytes) -> None:
        peer = Peer(client)
        connection = peer.connection
        connection.receive_data(peer.bytes_of(frame))
        assert connection.next_event() in (Event.CLOSE, Event.FAILED)
        connection.receive_end()
        assert connection.next_event() == Event.NEED_DATA
        assert connection.phase == Phase.ENDED
        assert peer.receives() == []

    def test_after_the_closing_handshake_its_facts_stay(self, client: bool) -> None:
        peer = Peer(client)
        peer.sends(CLOSE_1000)
        peer.connection.receive_end()
        assert peer.connection.close_ok()
        assert peer.connection.close_received == Close(1000)


class TestClosedError:
    """The exception is derived from the two Close frames and what else is known (sections 7.1.5, 7.1.6)."""

    def error_after(self, client: bool, *steps: Any, detail: str = "") -> ConnectionClosed:
        """Take steps, frames of the peer or codes that we close with; returns the exception."""
        peer = Peer(client)
        for step in steps:
            if isinstance(step, bytes):
                peer.sends(step)
            else:
                peer.connection.send_close(step)
        error = peer.connection.closed_error(detail)
        assert isinstance(error, ConnectionClosedOK) == (peer.connection.close_ok() and not detail)
        return error

    @pytest.mark.parametrize("code", [1000, 1001, 1005])
    def test_normal_from_the_peer(self, client: bool, code: int) -> None:
        payload = b"" if code == 1005 else code.to_bytes(2, "big")
        error = self.error_after(client, bytes((0x88, len(payload))) + payload)
        assert type(error) is ConnectionClosedOK
        assert (error.code, error.reason, error.received_first) == (code, "", True)

    @pytest.mark.parametrize("code", [1000, 1001, 1005])
    def test_normal_from_us(self, client: bool, code: int) -> None:
        error = self.error_after(client, code, CLOSE_1000)
        assert type(error) is ConnectionClosedOK
        assert (error.code, error.received_first) == (1000, False)
        assert str(error) == f"sent {Close(code)}, then received 1000 (normal closure)"

    @pytest.mark.parametrize("code", [1002, 1011, 3000, 4000])
    def test_an_error_code_from_either(self, client: bool, code: int) -> None:
        error = self.error_after(client, b"\x88\x03" + code.to_bytes(2, "big") + b"!")
        assert type(error) is ConnectionClosedError
        assert (error.code, error.reason) == (code, "!")
        error = self.error_after(client, code, CLOSE_1000)
        assert type(error) is ConnectionClosedError
        assert error.code == 1000

    def test_an_incomplete_handshake(self, client: bool) -> None:
        error = self.error_after(client, 1000)
        assert type(error) is ConnectionClosedError
        assert (error.code, error.received_first) == (1006, None)
        assert str(error) == "sent 1000 (normal closure), but the closing handshake is incomplete"
        error = self.error_after(client)
        assert type(error) is ConnectionClosedError
        assert str(error) == "no Close frame, but the closing handshake is incomplete"

    def test_a_detail_means_that_it_was_not_as_it_should_be(self, client: bool) -> None:
        error = self.error_after(client, CLOSE_1000, detail="the peer reset the connection")
        assert type(error) is ConnectionClosedError
        assert str(error).endswith(": the peer reset the connection")

    def test_the_violation_is_the_detail(self, client: bool) -> None:
        error = self.error_after(client, b"\x83\x00")
        assert type(error) is ConnectionClosedError
        assert (error.code, error.detail) == (1006, "opcode 0x3 is reserved")
        error = self.error_after(client, b"\x83\x00", detail="reset")
        assert error.detail == "reset"

    def test_after_our_close_a_violation_is_an_error(self, client: bool) -> None:
        error = self.error_after(client, 1000, b"\x83\x00")
        assert type(error) is ConnectionClosedError


class TestContextsAreLetGo:
    """Memory is not held by connections that are closing."""

    @pytest.mark.parametrize("end", ["send_close", "receive_end", "close_deflater"])
    def test_the_compressor(self, client: bool, end: str) -> None:
        import weakref

        from geventws.protocol import contexts

        closed = []

        class Watched(contexts.Deflater):
            __slots__ = ("__weakref__",)

            def close(self) -> None:
                closed.append(weakref.ref(self))
                super().close()

        connection = Connection(client=client, deflate=DeflateParameters())
        if hasattr(connection, "_deflater"):
            connection._deflater = Watched(6, 15, 5, no_context_takeover=False)
            getattr(connection, end)()
            assert closed
        else:
            # Compiled: the attribute is not to be seen. The call alone.
            connection.send(TEXT)
            getattr(connection, end)()

    def test_a_connection_without_compression_has_none(self, client: bool) -> None:
        connection = Peer(client).connection
        connection.close_deflater()
        connection.send("x")
        assert len(connection.out) == 1


def test_the_two_roles_talk(client: bool) -> None:
    """What one side writes the other reads, through a whole conversation."""
    sides = {False: Connection(), True: Connection(client=True)}
    ours, theirs = sides[client], sides[not client]

    def deliver(source: Connection, target: Connection) -> list[tuple[Any, ...]]:
        target.receive_data(b"".join(source.out))
        source.out.clear()
        source.out_size = 0
        return take_events(target)

    ours.send("Hello")
    ours.send(b"\x00" * 70_000)
    ours.send_ping(b"?")
    assert deliver(ours, theirs) == [("message", "Hello"), ("message", b"\x00" * 70_000)]
    assert deliver(theirs, ours) == [("pong", b"?")]
    ours.send_close(1001, "bye")
    assert deliver(ours, theirs) == [("close",)]
    assert deliver(theirs, ours) == [("close",)]
    assert ours.close_ok()
    assert theirs.close_ok()
    assert (ours.received_first, theirs.received_first) == (False, True)
    assert theirs.close_received == Close(1001, "bye")
    assert ours.close_received == Close(1001)


def test_helpers_undo_each_other(client: bool) -> None:
    """The tests' own masking."""
    frame = b"\x82\x7e\x00\x80" + bytes(range(128))
    assert unmask_frame(mask(frame)) == frame
    assert list(split_frames(mask(frame) + mask(b"\x89\x00"))) == [mask(frame), mask(b"\x89\x00")]
    assert Peer(client).bytes_of(frame) == (frame if client else mask(frame))


class TestBudget:
    """What `next_event` handles before it lets others have their turn."""

    def test_a_frame_costs_one(self, client: bool) -> None:
        peer = Peer(client)
        peer.connection.receive_data(peer.bytes_of(*[b"\x81\x01a"] * 3))
        peer.connection.budget = 2
        assert [peer.connection.next_event() for _ in range(4)] == [1, 1, 5, 5]
        peer.connection.budget = 1
        assert [peer.connection.next_event() for _ in range(2)] == [1, 5]
        peer.connection.budget = 1
        assert peer.connection.next_event() == 0

    def test_so_do_8_kib(self, client: bool) -> None:
        peer = Peer(client)
        peer.connection.receive_data(peer.bytes_of(b"\x82\x7e\x40\x00" + bytes(16384), b"\x81\x01a"))
        peer.connection.budget = 3
        assert [peer.connection.next_event() for _ in range(2)] == [1, 5]
        peer.connection.budget = 1
        assert peer.connection.next_event() == 1


def test_who_waits_for_the_end(client: bool) -> None:
    # RFC 6455 section 7.1.1: the server ends TCP, and a client waits for that.
    peer = Peer(client)
    assert not peer.connection.awaits_end()
    peer.connection.send_close(1000)
    assert not peer.connection.awaits_end()
    peer.sends(b"\x88\x02\x03\xe8")
    assert peer.connection.awaits_end() is client
    peer.connection.receive_end()
    assert not peer.connection.awaits_end()
