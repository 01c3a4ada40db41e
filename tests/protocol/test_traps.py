"""Fourteen mistakes that WebSocket libraries have made, each once and no more here.

Every other test of the protocol says what a rule is; these say how it was missed elsewhere.
"""

from __future__ import annotations

import gc
import os
import random
import zlib

import gevent
import pytest
from peers import KEY, Peer, exclusive_or, mask, split_frames, take_events
from support import PATIENCE, opened

from geventws.protocol import keys
from geventws.protocol.closing import Phase
from geventws.protocol.connection import Connection, Event
from geventws.protocol.deflate import DeflateParameters
from geventws.protocol.http import RequestParser
from geventws.websocket import WebSocket

both_roles = pytest.mark.parametrize(
    "client", [pytest.param(False, id="server"), pytest.param(True, id="client")]
)


@both_roles
def test_trap_01_control_frames_between_fragments_counted_as_the_message(client: bool) -> None:
    peer = Peer(client, max_message_size=10, max_fragments=2)
    ping = b"\x89\x7d" + b"p" * 125
    assert peer.sends(b"\x01\x05Hello", *[ping] * 50, b"\x80\x05World") == [("message", "HelloWorld")]
    assert len(peer.receives()) == 50


@both_roles
@pytest.mark.parametrize(
    ("header", "code"),
    [
        (b"\x91\x7e", 1002),  # RSV3 of a frame of up to 65535 bytes
        (b"\xc1\x7e\xff\xff", 1002),  # RSV1, nothing agreed
        (b"\x89\x7e", 1002),  # a Ping that says it is longer than 125
        (b"\x08\x7d", 1002),  # a fragmented Close of 125 bytes
        (b"\x83\x7d", 1002),  # a reserved opcode
        (b"\x80\x7d", 1002),  # a continuation of nothing
        (b"\x82\x7f\x00\x00\x00\x01\x00\x00\x00\x00", 1009),  # 4 GiB
    ],
)
def test_trap_02_a_bad_header_noticed_only_when_its_payload_has_come(
    client: bool, header: bytes, code: int
) -> None:
    peer = Peer(client)
    # Not one byte of payload.
    assert peer.sends(header) == [("failed",)]
    peer.receives_failure(code)


@both_roles
@pytest.mark.parametrize(
    "header",
    [
        b"\x81\x7e\x00\x05",
        b"\x81\x7e\x00\x7d",
        b"\x81\x7f\x00\x00\x00\x00\x00\x00\x00\x05",
        b"\x81\x7f\x00\x00\x00\x00\x00\x00\xff\xff",
        b"\x81\x7f\x80\x00\x00\x00\x00\x00\x00\x05",
        b"\x81\x7f\xff\xff\xff\xff\xff\xff\xff\xff",
    ],
)
def test_trap_03_a_length_that_is_not_minimal_or_negative(client: bool, header: bytes) -> None:
    for limit in (1024, None):
        peer = Peer(client, max_message_size=limit)
        assert peer.sends(header + b"Hello") == [("failed",)]
        peer.receives_failure(1002)
        assert peer.connection.error.kind == "frame.length"


@both_roles
def test_trap_04_text_that_is_not_utf8_given_to_the_application(client: bool) -> None:
    for frames in (
        [b"\x81\x03\xed\xa0\x80"],
        [b"\x01\x01\xed", b"\x00\x01\xa0", b"\x80\x01\x80"],
        # The message is open and will never end; its text is wrong already.
        [b"\x01\x02\xc0\x80"],
    ):
        peer = Peer(client)
        assert peer.sends(*frames) == [("failed",)]
        peer.receives_failure(1007)


@both_roles
def test_trap_05_whether_a_message_is_open_guessed_from_an_empty_buffer(client: bool) -> None:
    # An empty first fragment opens a message.
    peer = Peer(client)
    assert peer.sends(b"\x01\x00", b"\x81\x02no") == [("failed",)]
    peer.receives_failure(1002)
    # And a message that is over leaves none open, whatever was in it.
    peer = Peer(client)
    assert peer.sends(b"\x01\x00", b"\x80\x00", b"\x80\x02no") == [("message", ""), ("failed",)]
    peer.receives_failure(1002)


def test_trap_06_unmasked_frames_accepted_by_a_server() -> None:
    for frame in (b"\x81\x05Hello", b"\x82\x00", b"\x89\x00", b"\x8a\x00", b"\x88\x00"):
        peer = Peer(client=False)
        assert peer.sends_bytes(frame) == [("failed",)]
        peer.receives_failure(1002)
        peer = Peer(client=True)
        assert peer.sends_bytes(mask(frame)) == [("failed",)]
        peer.receives_failure(1002)


@both_roles
def test_trap_07_an_error_that_leaves_the_connection_open(client: bool) -> None:
    peer = Peer(client)
    assert peer.sends(b"\x83\x00") == [("failed",)]
    peer.receives_failure(1002)
    assert peer.connection.phase == Phase.FAILED
    for _ in range(3):
        assert peer.sends(b"\x81\x05Hello", b"\x89\x00", b"\x88\x00", b"\x83\x00") == []
    assert peer.receives() == []


def test_trap_08_masking_keys_that_can_be_foretold() -> None:
    keys.drop_keys()
    generator = random.getstate()
    drawn = []
    for _ in range(3):
        # A seeded generator behind them would begin again.
        random.seed(1)
        connection = Connection(client=True)
        for _ in range(2000):
            connection.send(b"\x00\x00\x00\x00")
        sent = b"".join(connection.out)
        drawn.append([sent[end - 4 : end] for end in range(10, len(sent) + 1, 10)])
    random.setstate(generator)
    assert not set(drawn[0][:100]) & set(drawn[1][:100])
    # Each of the 32 bits is set in about half of 6000 keys: 3000 +- 39, so these are 12 deviations.
    numbers = [int.from_bytes(key, "big") for batch in drawn for key in batch]
    for bit in range(32):
        assert 2530 < sum(number >> bit & 1 for number in numbers) < 3470


@both_roles
def test_trap_09_a_remaining_budget_of_zero_taken_for_no_limit(client: bool) -> None:
    stream = zlib.compressobj(9, zlib.DEFLATED, -15)
    full = stream.compress(bytes(100)) + stream.flush(zlib.Z_SYNC_FLUSH)
    bomb = stream.compress(bytes(50_000)) + stream.flush(zlib.Z_SYNC_FLUSH)
    assert len(full) < 126
    assert len(bomb) < 126
    peer = Peer(client, max_message_size=100, deflate=DeflateParameters())
    assert peer.sends(bytes((0x42, len(full))) + full) == []
    assert peer.sends(bytes((0x80, len(bomb))) + bomb) == [("failed",)]
    peer.receives_failure(1009)
    assert peer.connection.error.size == 101


@both_roles
def test_trap_10_fragments_without_end(client: bool) -> None:
    for first, fragment in ((b"\x02\x00", b"\x00\x00"), (b"\x01\x01x", b"\x00\x01x")):
        peer = Peer(client)
        data = peer.bytes_of(first, *[fragment] * 100)
        connection = peer.connection
        for sent in range(1, 100):
            connection.receive_data(data if sent == 1 else data[len(peer.bytes_of(first)) :])
            if connection.next_event() == Event.FAILED:
                break
        else:
            pytest.fail("fragments without end")
        assert connection.next_event() == Event.NEED_DATA
        peer.receives_failure(1009)
        assert connection.error.kind == "message.fragments"


def test_trap_11_a_partial_send_and_another_sender_in_the_middle_of_it() -> None:
    senders, each = 8, 6

    def message(sender: int, number: int) -> bytes:
        # Far more than the socket takes at once.
        return bytes((sender, number)) + bytes((sender * 16 + number,)) * (30_000 + sender)

    def handler(ws: WebSocket) -> None:
        def send(sender: int) -> None:
            for number in range(each):
                ws.send(message(sender, number))

        greenlets = [gevent.spawn(send, sender) for sender in range(senders)]
        gevent.joinall(greenlets, timeout=PATIENCE, raise_error=True)

    gc.collect()
    with opened(handler, small=True, write_limit=10_000, write_timeout=None) as session:
        found = [session.peer.read_frame() for _ in range(senders * each)]
    assert {first for first, _ in found} == {0x82}
    for sender in range(senders):
        mine = [payload for _, payload in found if payload[0] == sender]
        assert mine == [message(sender, number) for number in range(each)]


@pytest.mark.parametrize("cut", range(0, 20, 3))
def test_trap_12_bytes_behind_the_handshake_lost(cut: int) -> None:
    head = (
        b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    frames = mask(b"\x81\x05Hello") + mask(b"\x89\x01?")
    parser = RequestParser(max_line=None, max_headers=None, max_head=None)
    assert parser.receive_data(head + frames[:cut]) is not None
    connection = Connection()
    connection.receive_data(parser.leftover)
    events = take_events(connection)
    connection.receive_data(frames[cut:])
    events += take_events(connection)
    assert events == [("message", "Hello")]
    assert connection.out == [b"\x8a\x01?"]


@both_roles
def test_trap_13_empty_payloads_dropped(client: bool) -> None:
    peer = Peer(client)
    connection = peer.connection
    events = peer.sends(
        b"\x81\x00", b"\x82\x00", b"\x01\x00", b"\x80\x00", b"\x8a\x00", b"\x89\x00", b"\x88\x00"
    )
    assert events == [("message", ""), ("message", b""), ("message", ""), ("pong", b""), ("close",)]
    assert peer.receives() == [b"\x8a\x00", b"\x88\x00"]
    peer = Peer(client)
    connection = peer.connection
    connection.send("")
    connection.send(b"")
    connection.send_ping(b"")
    connection.send_close(1005)
    assert peer.receives() == [b"\x81\x00", b"\x82\x00", b"\x89\x00", b"\x88\x00"]


@both_roles
def test_trap_14_good_frames_lost_when_a_later_one_of_the_same_read_is_bad(client: bool) -> None:
    frames = [b"\x81\x01a", b"\x89\x01b", b"\x01\x01c", b"\x80\x01d", b"\x8a\x01e", b"\x83\x00", b"\x81\x01f"]
    expected = [("message", "a"), ("message", "cd"), ("pong", b"e"), ("failed",)]
    whole = Peer(client)
    assert whole.sends(*frames) == expected
    # The result does not depend on how the bytes are cut.
    data = whole.bytes_of(*frames)
    dribbled = Peer(client)
    found = [event for at in range(len(data)) for event in dribbled.sends_bytes(data[at : at + 1])]
    assert found == expected
    answers = whole.receives()
    assert answers == dribbled.receives()
    assert answers[0] == b"\x8a\x01b"
    assert answers[1][:4] == b"\x88\x18\x03\xea"


def test_the_tests_own_masking() -> None:
    """What the fourteen rely on."""
    key = os.urandom(4)
    assert exclusive_or(exclusive_or(b"Hello, world", key), key) == b"Hello, world"
    assert mask(b"\x81\x05Hello", KEY) == b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58"
    assert list(split_frames(b"\x81\x05Hello\x89\x00")) == [b"\x81\x05Hello", b"\x89\x00"]
