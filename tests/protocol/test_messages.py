"""Messages (RFC 6455 sections 5.4, 5.6 and 8.1; RFC 7692 section 6): fragments, text, limits."""

from __future__ import annotations

import random
import zlib
from typing import Any

import pytest
from peers import Peer

from geventws.exceptions import InvalidFrame, InvalidPayload, MessageTooBig
from geventws.protocol.closing import Phase
from geventws.protocol.contexts import Inflater
from geventws.protocol.deflate import DeflateParameters
from geventws.protocol.frames import FrameReader
from geventws.protocol.messages import MessageReader

# The role of the connection under test.
ROLES = [pytest.param(False, id="server"), pytest.param(True, id="client")]

pytestmark = pytest.mark.parametrize("client", ROLES)


def compressed(data: bytes) -> bytes:
    """One message's payload as RFC 7692 section 7.2.1 makes it."""
    stream = zlib.compressobj(9, zlib.DEFLATED, -15)
    return (stream.compress(data) + stream.flush(zlib.Z_SYNC_FLUSH))[:-4]


def with_length(first: int, payload: bytes) -> bytes:
    """A frame whose payload is not for reading: the length in its shortest form."""
    size = len(payload)
    if size < 126:
        return bytes((first, size)) + payload
    if size < 65536:
        return bytes((first, 126)) + size.to_bytes(2, "big") + payload
    return bytes((first, 127)) + size.to_bytes(8, "big") + payload


def deflating(client: bool, **options: Any) -> Peer:
    """A peer that agreed on compression."""
    return Peer(client, deflate=DeflateParameters(), **options)


class TestBudget:
    """`Connection.budget`: a message costs what takes long in it."""

    @pytest.mark.parametrize("blocks", [0, 1, 3])
    def test_blocks_with_bfinal(self, client: bool, blocks: int) -> None:
        peer = deflating(client)
        for payload, cost in ((b"\x03\x00" * blocks + b"\x00", 1 + blocks), (b"\x00", 1)):
            peer.connection.budget = 100
            assert peer.sends(with_length(0xC2, payload)) == [("message", b"")]
            assert peer.connection.budget == 100 - cost


class TestFragmentation:
    """RFC 6455 section 5.4."""

    def test_one_frame(self, client: bool) -> None:
        assert Peer(client).sends(b"\x81\x05Hello") == [("message", "Hello")]
        assert Peer(client).sends(b"\x82\x05Hello") == [("message", b"Hello")]

    def test_the_rfcs_example(self, client: bool) -> None:
        assert Peer(client).sends(b"\x01\x03Hel", b"\x80\x02lo") == [("message", "Hello")]

    def test_three_fragments_of_a_binary_message(self, client: bool) -> None:
        peer = Peer(client)
        assert peer.sends(b"\x02\x01\x00") == []
        assert peer.sends(b"\x00\x01\x01") == []
        assert peer.sends(b"\x80\x01\x02") == [("message", b"\x00\x01\x02")]

    @pytest.mark.parametrize(
        ("frames", "message"),
        [
            ((b"\x81\x00",), ""),
            ((b"\x82\x00",), b""),
            ((b"\x01\x00", b"\x80\x00"), ""),
            ((b"\x02\x00", b"\x80\x00"), b""),
            ((b"\x01\x00", b"\x00\x00", b"\x00\x00", b"\x80\x00"), ""),
            ((b"\x02\x00", b"\x00\x01x", b"\x80\x00"), b"x"),
            ((b"\x01\x01x", b"\x80\x00"), "x"),
            ((b"\x01\x00", b"\x80\x01x"), "x"),
        ],
    )
    def test_empty_fragments(self, client: bool, frames: tuple[bytes, ...], message: str | bytes) -> None:
        assert Peer(client).sends(*frames) == [("message", message)]

    def test_nothing_of_a_message_is_left_for_the_next(self, client: bool) -> None:
        peer = Peer(client)
        assert peer.sends(
            b"\x01\x01a",
            b"\x80\x01b",
            b"\x02\x01c",
            b"\x80\x01d",
            b"\x81\x01e",
            b"\x82\x00",
            b"\x01\x00",
            b"\x80\x00",
        ) == [("message", "ab"), ("message", b"cd"), ("message", "e"), ("message", b""), ("message", "")]

    def test_control_frames_stand_between_fragments(self, client: bool) -> None:
        peer = Peer(client)
        events = peer.sends(b"\x01\x03Hel", b"\x89\x01?", b"\x8a\x01!", b"\x80\x02lo")
        assert events == [("pong", b"!"), ("message", "Hello")]
        assert peer.receives() == [b"\x8a\x01?"]

    @pytest.mark.parametrize("header", [b"\x80\x00", b"\x00\x05", b"\x00\x7e\x01\x00", b"\xc0\x05"])
    def test_a_continuation_of_nothing_fails_at_its_header(self, client: bool, header: bytes) -> None:
        peer = Peer(client)
        assert peer.sends(header) == [("failed",)]
        assert peer.receives_failure(1002) == "a continuation frame, but no message to continue"
        assert peer.connection.error.kind == "frame.continuation"

    def test_a_continuation_of_a_message_that_is_over(self, client: bool) -> None:
        peer = Peer(client)
        assert peer.sends(b"\x01\x01a", b"\x80\x01b", b"\x80\x01") == [("message", "ab"), ("failed",)]
        assert peer.receives_failure(1002)

    @pytest.mark.parametrize("begin", [b"\x01\x01a", b"\x02\x00"])
    @pytest.mark.parametrize(
        "header", [b"\x81\x05", b"\x02\x05", b"\x82\x00", b"\x01\x7e\x01\x00", b"\xc1\x05"]
    )
    def test_a_new_message_inside_another_fails_at_its_header(
        self, client: bool, begin: bytes, header: bytes
    ) -> None:
        peer = Peer(client)
        assert peer.sends(begin) == []
        assert peer.sends(header) == [("failed",)]
        assert peer.receives_failure(1002) == "a new message inside a fragmented one"
        assert peer.connection.error.kind == "frame.continuation"

    def test_that_a_message_is_open_does_not_depend_on_what_came_of_it(self, client: bool) -> None:
        # Empty fragments leave nothing behind but the fact.
        peer = Peer(client)
        assert peer.sends(b"\x02\x00", b"\x00\x00", b"\x82\x00") == [("failed",)]
        assert peer.connection.error.kind == "frame.continuation"


VALID = [
    b"",
    b"Hello",
    b"\xc2\x80",
    b"\xdf\xbf",
    b"\xe0\xa0\x80",
    b"\xed\x9f\xbf",
    b"\xee\x80\x80",
    b"\xef\xbf\xbf",
    b"\xf0\x90\x80\x80",
    b"\xf4\x8f\xbf\xbf",
    b"\xef\xbb\xbfa mark is a character",
    b"a\r\nb\rc\nd",
    b"\x00",
    "κόσμε £€𐍈".encode(),
]
# Text that is not UTF-8, and where that shows: the count of bytes with the first offending one.
INVALID = [
    (b"\x80", 1),
    (b"\xff", 1),
    (b"\xc0\xaf", 1),
    (b"\xc1\xbf", 1),
    (b"\xf5\x80\x80\x80", 1),
    (b"Hello\xfe!", 6),
    (b"\xc3\x28", 2),
    (b"\xc3\xc3", 2),
    (b"\xe0\x80\xaf", 2),
    (b"\xe0\x9f\xbf", 2),
    (b"\xed\xa0\x80", 2),
    (b"\xed\xbf\xbf", 2),
    (b"\xe2\x82\x41", 3),
    (b"\xf0\x8f\xbf\xbf", 2),
    (b"\xf4\x90\x80\x80", 2),
    (b"\xf0\x9f\x98\x28", 4),
    ("κόσμε".encode() + b"\xed\xa0\x80" + b"edited", 12),
    (b"\xf0\x9f\x41", 3),
]


class TestText:
    """RFC 6455 sections 5.6 and 8.1."""

    @pytest.mark.parametrize("octets", VALID)
    def test_valid_at_every_cut(self, client: bool, octets: bytes) -> None:
        message = [("message", octets.decode())]
        assert Peer(client).sends(with_length(0x81, octets)) == message
        for cut in range(len(octets) + 1):
            first, second = octets[:cut], octets[cut:]
            assert Peer(client).sends(with_length(0x01, first), with_length(0x80, second)) == message
        peer = Peer(client)
        data = peer.bytes_of(with_length(0x81, octets))
        found = [event for at in range(len(data)) for event in peer.sends_bytes(data[at : at + 1])]
        assert found == message

    @pytest.mark.parametrize(("octets", "count"), INVALID)
    def test_fails_with_the_offending_byte_inside_a_frame_that_is_not_complete(
        self, client: bool, octets: bytes, count: int
    ) -> None:
        peer = Peer(client)
        # The frame promises far more than will ever come.
        data = peer.bytes_of(b"\x81\x7e\x10\x00" + octets)
        before = len(data) - len(octets) + count - 1
        for at in range(before):
            assert peer.sends_bytes(data[at : at + 1]) == []
        assert peer.connection.phase == Phase.OPEN
        assert peer.sends_bytes(data[before : before + 1]) == [("failed",)]
        assert peer.receives_failure(1007).startswith("text is not UTF-8: ")
        assert peer.connection.error.kind == "payload.utf8"

    @pytest.mark.parametrize(("octets", "count"), INVALID)
    def test_fails_in_one_frame_and_in_fragments(self, client: bool, octets: bytes, count: int) -> None:
        peer = Peer(client)
        assert peer.sends(with_length(0x81, octets)) == [("failed",)]
        reason = peer.receives_failure(1007)
        for cut in range(len(octets) + 1):
            peer = Peer(client)
            frames = with_length(0x01, octets[:cut]), with_length(0x80, octets[cut:])
            assert peer.sends(*frames) == [("failed",)]
            assert peer.receives_failure(1007) == reason

    @pytest.mark.parametrize("octets", [b"\xc3", b"a\xe2\x82", b"\xf0\x9f\x98"])
    def test_a_code_point_cut_off_by_the_end(self, client: bool, octets: bytes) -> None:
        for frames in (
            [with_length(0x81, octets)],
            [with_length(0x01, octets), b"\x80\x00"],
            [b"\x01\x00", with_length(0x80, octets)],
        ):
            peer = Peer(client)
            assert peer.sends(*frames) == [("failed",)]
            assert peer.receives_failure(1007) == "text is not UTF-8: unexpected end of data"
        # A message that goes on is no error yet.
        peer = Peer(client)
        assert peer.sends(with_length(0x01, octets)) == []

    def test_binary_messages_are_not_looked_at(self, client: bool) -> None:
        assert Peer(client).sends(b"\x82\x02\xff\xff") == [("message", b"\xff\xff")]
        assert Peer(client).sends(b"\x02\x01\xff", b"\x80\x01\xff") == [("message", b"\xff\xff")]

    def test_the_decoder_starts_anew_with_each_message(self, client: bool) -> None:
        peer = Peer(client)
        assert peer.sends(b"\x01\x01\xc3", b"\x80\x01\xa9") == [("message", "é")]
        assert peer.sends(b"\x01\x01\xc3", b"\x80\x01\xa8") == [("message", "è")]


class TestSizeLimit:
    """max_message_size: 1009 with the header, before any payload (RFC 6455 section 10.4)."""

    @pytest.mark.parametrize(
        ("limit", "header", "size"),
        [
            (1, b"\x82\x02", 2),
            (125, b"\x81\x7e\x00\x7e", 126),
            (65535, b"\x82\x7f\x00\x00\x00\x00\x00\x01\x00\x00", 65536),
            (1024 * 1024, b"\x82\x7f\x00\x00\x00\x00\x00\x10\x00\x01", 1024 * 1024 + 1),
            (1024 * 1024, b"\x82\x7f\x40\x00\x00\x00\x00\x00\x00\x00", 2**62),
            (1024 * 1024, b"\x02\x7f\x7f\xff\xff\xff\xff\xff\xff\xff", 2**63 - 1),
        ],
    )
    def test_fails_with_the_header_alone(self, client: bool, limit: int, header: bytes, size: int) -> None:
        peer = Peer(client, max_message_size=limit)
        assert peer.sends(header) == [("failed",)]
        text = f"a message of {size} bytes exceeds {limit} (max_message_size)"
        assert peer.receives_failure(1009) == text
        error = peer.connection.error
        assert isinstance(error, MessageTooBig)
        assert (error.size, error.limit, error.kind) == (size, limit, "message.size")

    @pytest.mark.parametrize("limit", [1, 125, 126, 65535, 65536])
    def test_exactly_the_limit_passes(self, client: bool, limit: int) -> None:
        payload = bytes(limit)
        peer = Peer(client, max_message_size=limit)
        assert peer.sends(with_length(0x82, payload)) == [("message", payload)]
        assert peer.sends(with_length(0x02, payload[:-1]), b"\x80\x01\x00") == [("message", payload)]
        assert peer.sends(with_length(0x82, payload + b"\x00")) == [("failed",)]

    def test_the_default_is_a_mebibyte(self, client: bool) -> None:
        peer = Peer(client)
        assert peer.sends(b"\x82\x7f\x00\x00\x00\x00\x00\x10\x00\x00") == []
        assert Peer(client).sends(b"\x82\x7f\x00\x00\x00\x00\x00\x10\x00\x01") == [("failed",)]

    def test_sums_count(self, client: bool) -> None:
        peer = Peer(client, max_message_size=10)
        assert peer.sends(b"\x02\x05xxxxx", b"\x00\x04xxxx") == []
        assert peer.sends(b"\x80\x02") == [("failed",)]
        assert peer.receives_failure(1009) == "a message of 11 bytes exceeds 10 (max_message_size)"

    def test_each_message_has_the_whole_limit(self, client: bool) -> None:
        peer = Peer(client, max_message_size=3)
        frames = [b"\x02\x02xx", b"\x80\x01x", b"\x81\x03xxx"] * 3
        assert peer.sends(*frames) == [("message", b"xxx"), ("message", "xxx")] * 3

    def test_control_frames_do_not_count(self, client: bool) -> None:
        peer = Peer(client, max_message_size=2)
        events = peer.sends(b"\x01\x01a", b"\x89\x7d" + b"p" * 125, b"\x8a\x7d" + b"q" * 125, b"\x80\x01b")
        assert events == [("pong", b"q" * 125), ("message", "ab")]

    def test_bytes_count_not_characters(self, client: bool) -> None:
        peer = Peer(client, max_message_size=4)
        assert peer.sends(b"\x81\x04" + "éé".encode()) == [("message", "éé")]
        assert peer.connection.message_size == 4
        assert peer.sends(b"\x81\x05") == [("failed",)]

    @pytest.mark.parametrize("limit", [1024, 2**60 - 1, None])
    @pytest.mark.parametrize("length", [2**63 - 1, 2**63 - 5])
    def test_a_length_next_to_63_bits_behind_a_part_does_not_overflow(
        self, client: bool, limit: int | None, length: int
    ) -> None:
        peer = Peer(client, max_message_size=limit)
        assert peer.sends(b"\x02\x05xxxxx") == []
        events = peer.sends(b"\x80\x7f" + length.to_bytes(8, "big"))
        if limit is None:
            assert events == []
            assert peer.sends_bytes(b"x" * 1000) == []
        else:
            assert events == [("failed",)]
            assert peer.receives_failure(1009).startswith(f"a message of {length + 5} bytes exceeds {limit}")

    def test_without_a_limit(self, client: bool) -> None:
        payload = bytes(3 * 1024 * 1024)
        peer = Peer(client, max_message_size=None)
        assert peer.sends(with_length(0x82, payload)) == [("message", payload)]

    def test_the_rest_of_a_message_too_big_is_not_looked_at(self, client: bool) -> None:
        peer = Peer(client, max_message_size=10)
        assert peer.sends(b"\x82\x0b") == [("failed",)]
        assert peer.sends(b"\x81\x05Hello", b"\x89\x00", b"\x88\x00") == []
        assert peer.receives_failure(1009)


class TestFragmentLimit:
    """max_fragments: 1009, the empty ones count too."""

    def test_fails_with_the_header_of_the_first_too_many(self, client: bool) -> None:
        peer = Peer(client, max_fragments=3)
        assert peer.sends(b"\x01\x00", b"\x00\x00", b"\x00\x00") == []
        assert peer.sends(b"\x80\x05") == [("failed",)]
        assert peer.receives_failure(1009) == "a message of more than 3 fragments (max_fragments)"
        error = peer.connection.error
        assert isinstance(error, MessageTooBig)
        assert (error.size, error.limit, error.kind) == (4, 3, "message.fragments")

    def test_exactly_the_limit_passes_again_and_again(self, client: bool) -> None:
        peer = Peer(client, max_fragments=3)
        for _ in range(3):
            assert peer.sends(b"\x02\x00", b"\x00\x01x", b"\x80\x00") == [("message", b"x")]

    def test_one_fragment_is_a_limit_too(self, client: bool) -> None:
        peer = Peer(client, max_fragments=1)
        assert peer.sends(b"\x81\x01a", b"\x81\x01b") == [("message", "a"), ("message", "b")]
        assert peer.sends(b"\x01\x01a") == []
        assert peer.sends(b"\x80\x01") == [("failed",)]

    def test_the_default_is_4096(self, client: bool) -> None:
        peer = Peer(client)
        assert peer.sends(b"\x02\x00", *[b"\x00\x00"] * 4095) == []
        assert peer.sends(b"\x00\x00") == [("failed",)]

    def test_control_frames_neither_count_nor_reset(self, client: bool) -> None:
        peer = Peer(client, max_fragments=3)
        assert peer.sends(b"\x01\x00", *[b"\x89\x00"] * 10, b"\x00\x00", b"\x89\x00", b"\x00\x00") == []
        peer.receives()
        assert peer.sends(b"\x89\x00", b"\x80\x00") == [("failed",)]

    def test_without_a_limit(self, client: bool) -> None:
        peer = Peer(client, max_fragments=None)
        assert peer.sends(b"\x02\x00", *[b"\x00\x00"] * 10_000, b"\x80\x00") == [("message", b"")]


class TestReservedBit1:
    """RFC 7692 sections 5 and 6."""

    @pytest.mark.parametrize("header", [b"\xc1\x05", b"\xc2\x7e\x10\x00", b"\x41\x00"])
    def test_without_an_agreement_fails_at_the_header(self, client: bool, header: bytes) -> None:
        peer = Peer(client)
        assert peer.sends(header) == [("failed",)]
        assert peer.receives_failure(1002) == "RSV1 is set and no extension was agreed"
        assert peer.connection.error.kind == "frame.reserved_bits"

    @pytest.mark.parametrize("begin", [b"\x41\x00", b"\x01\x00"])
    @pytest.mark.parametrize("header", [b"\x40\x05", b"\xc0\x00"])
    def test_on_a_continuation_fails_at_the_header(self, client: bool, begin: bytes, header: bytes) -> None:
        peer = deflating(client)
        assert peer.sends(begin) == []
        assert peer.sends(header) == [("failed",)]
        assert peer.receives_failure(1002) == "a continuation frame with RSV1"
        assert peer.connection.error.kind == "frame.reserved_bits"

    @pytest.mark.parametrize("first", [b"\xc8", b"\xc9", b"\xca"])
    def test_on_a_control_frame_fails_at_the_header(self, client: bool, first: bytes) -> None:
        peer = deflating(client)
        assert peer.sends(first + b"\x00") == [("failed",)]
        assert peer.receives_failure(1002) == "a control frame with RSV1"


class TestCompressed:
    """RFC 7692 section 7.2.2."""

    def test_the_rfcs_examples(self, client: bool) -> None:
        # Sections 7.2.3.1 to 7.2.3.6.
        peer = deflating(client)
        assert peer.sends(b"\xc1\x07\xf2\x48\xcd\xc9\xc9\x07\x00") == [("message", "Hello")]
        assert peer.sends(b"\x41\x03\xf2\x48\xcd", b"\x80\x04\xc9\xc9\x07\x00") == [("message", "Hello")]
        # The window is that of the messages before.
        assert peer.sends(b"\xc1\x05\xf2\x00\x11\x00\x00") == [("message", "Hello")]
        assert peer.sends(b"\xc1\x0b\x00\x05\x00\xfa\xffHello\x00") == [("message", "Hello")]
        assert peer.sends(b"\xc1\x08\xf3\x48\xcd\xc9\xc9\x07\x00\x00") == [("message", "Hello")]
        assert peer.sends(b"\xc1\x0d\xf2\x48\x05\x00\x00\x00\xff\xff\xca\xc9\xc9\x07\x00") == [
            ("message", "Hello")
        ]
        assert peer.sends(b"\xc1\x01\x00") == [("message", "")]

    def test_uncompressed_ones_may_stand_beside(self, client: bool) -> None:
        peer = deflating(client)
        events = peer.sends(
            b"\x81\x02Hi",
            b"\xc1\x07\xf2\x48\xcd\xc9\xc9\x07\x00",
            b"\x01\x01H",
            b"\x80\x01i",
            b"\xc2\x05\xf2\x00\x11\x00\x00",
        )
        assert events == [("message", "Hi"), ("message", "Hello"), ("message", "Hi"), ("message", b"Hello")]

    @pytest.mark.parametrize("text", [False, True])
    def test_at_every_cut(self, client: bool, text: bool) -> None:
        octets = "a window slides over what was said before, £€𐍈 ".encode() * 3
        payload = compressed(octets)
        message = octets.decode() if text else octets
        first = 0x41 if text else 0x42
        for cut in range(len(payload) + 1):
            peer = deflating(client)
            frames = with_length(first, payload[:cut]), with_length(0x80, payload[cut:])
            assert peer.sends(*frames) == [("message", message)]
            assert peer.connection.message_size == len(octets)
        peer = deflating(client)
        data = peer.bytes_of(with_length(first | 0x80, payload))
        found = [event for at in range(len(data)) for event in peer.sends_bytes(data[at : at + 1])]
        assert found == [("message", message)]

    def test_text_that_is_not_utf8_fails_before_the_message_is_complete(self, client: bool) -> None:
        peer = deflating(client)
        assert peer.sends(with_length(0x41, compressed(b"ok \xff") + b"\x00\x00\xff\xff")) == [("failed",)]
        assert peer.receives_failure(1007) == "text is not UTF-8: invalid start byte"

    def test_a_code_point_cut_off_by_the_end(self, client: bool) -> None:
        peer = deflating(client)
        assert peer.sends(with_length(0xC1, compressed(b"\xe2\x82"))) == [("failed",)]
        assert peer.receives_failure(1007) == "text is not UTF-8: unexpected end of data"

    @pytest.mark.parametrize("payload", [b"\x07", b"\xff\xff\xff", b"\xf2\x48\xcd"])
    def test_what_does_not_inflate(self, client: bool, payload: bytes) -> None:
        peer = deflating(client)
        assert peer.sends(with_length(0xC2, payload)) == [("failed",)]
        assert peer.receives_failure(1007)
        assert isinstance(peer.connection.error, InvalidPayload)
        assert peer.connection.error.kind == "payload.deflate"

    @pytest.mark.parametrize("first", [0xC1, 0xC2])
    def test_exactly_the_limit_and_one_above(self, client: bool, first: int) -> None:
        message = b"x" * 1000
        peer = deflating(client, max_message_size=1000)
        expected = message.decode() if first == 0xC1 else message
        assert peer.sends(with_length(first, compressed(message))) == [("message", expected)]
        assert peer.sends(with_length(first, compressed(message + b"x"))) == [("failed",)]
        assert (
            peer.receives_failure(1009)
            == "a message that inflates to more than 1000 bytes (max_message_size)"
        )

    def test_a_limit_used_up_is_no_limit_lifted(self, client: bool) -> None:
        # To zlib a maximum of 0 means no maximum.
        peer = deflating(client, max_message_size=1000)
        stream = zlib.compressobj(9, zlib.DEFLATED, -15)
        first = stream.compress(b"x" * 1000) + stream.flush(zlib.Z_SYNC_FLUSH)
        second = stream.compress(b"y" * 100_000) + stream.flush(zlib.Z_SYNC_FLUSH)
        assert peer.sends(with_length(0x42, first)) == []
        assert peer.sends(with_length(0x00, second)) == [("failed",)]
        error = peer.connection.error
        assert isinstance(error, MessageTooBig)
        assert (error.size, error.limit) == (1001, 1000)

    @pytest.mark.parametrize(
        ("octets", "code"),
        [
            # A message above the limit of 100 bytes: what comes first in it is told.
            (b"x" * 99 + b"\xff" + b"x" * 100, 1007),
            (b"x" * 100 + b"\xff" + b"x" * 100, 1009),
            (b"x" * 101 + b"\xff" + b"x" * 100, 1009),
            (b"\xff" + bytes(1_000_000), 1007),
        ],
    )
    def test_which_violation_is_told_does_not_depend_on_the_cut(
        self, client: bool, octets: bytes, code: int
    ) -> None:
        payload = compressed(octets)
        reasons = set()
        for size in (1, 2, 5, 10, len(payload)):
            peer = deflating(client, max_message_size=100)
            data = peer.bytes_of(with_length(0xC1, payload[:90]))
            found = [
                event for at in range(0, len(data), size) for event in peer.sends_bytes(data[at : at + size])
            ]
            assert found == [("failed",)]
            reasons.add(peer.receives_failure(code))
        assert len(reasons) == 1

    def test_a_bomb_in_one_frame(self, client: bool) -> None:
        bomb = compressed(bytes(64 * 1024 * 1024))
        assert len(bomb) < 70_000
        peer = deflating(client)
        assert peer.sends(with_length(0xC2, bomb)) == [("failed",)]
        assert peer.receives_failure(1009)
        assert peer.connection.error.size == 1024 * 1024 + 1

    def test_a_bomb_in_fragments(self, client: bool) -> None:
        bomb = compressed(bytes(16 * 1024 * 1024))
        pieces = [bomb[at : at + 16] for at in range(0, len(bomb), 16)]
        peer = deflating(client)
        events = peer.sends(with_length(0x42, pieces[0]), *(with_length(0, piece) for piece in pieces[1:]))
        assert events == [("failed",)]
        assert peer.receives_failure(1009)
        assert peer.connection.error.size <= 1024 * 1024 + 1

    def test_compressed_bytes_have_a_limit_of_their_own(self, client: bool) -> None:
        # Data that does not shrink may be a little larger on the wire than the message, not much.
        noise = random.Random(7).randbytes(4096)
        peer = deflating(client, max_message_size=4096)
        assert len(compressed(noise)) > 4096
        assert peer.sends(with_length(0xC2, compressed(noise))) == [("message", noise)]
        allowed = 4096 + 512 + 64 + 64
        assert deflating(client, max_message_size=4096).sends(b"\xc2\x7e" + allowed.to_bytes(2, "big")) == []
        peer = deflating(client, max_message_size=4096)
        assert peer.sends(b"\xc2\x7e" + (allowed + 1).to_bytes(2, "big")) == [("failed",)]
        assert peer.receives_failure(1009) == (
            f"a message of {allowed + 1} compressed bytes exceeds 4096 (max_message_size)"
        )

    def test_fragments_that_inflate_to_nothing_are_counted(self, client: bool) -> None:
        peer = deflating(client, max_fragments=10)
        assert peer.sends(b"\x42\x00", *[b"\x00\x00"] * 9) == []
        assert peer.sends(b"\x00\x00") == [("failed",)]

    def test_what_is_empty_on_the_wire_too(self, client: bool) -> None:
        peer = deflating(client)
        assert peer.sends(b"\xc2\x00") == [("message", b"")]
        assert peer.sends(b"\x41\x00", b"\x80\x00") == [("message", "")]

    def test_without_a_limit(self, client: bool) -> None:
        peer = deflating(client, max_message_size=None)
        message = bytes(2 * 1024 * 1024)
        assert peer.sends(with_length(0xC2, compressed(message))) == [("message", message)]

    def test_no_context_takeover_forgets_the_window(self, client: bool) -> None:
        for agreed in (
            DeflateParameters(server_no_context_takeover=client, client_no_context_takeover=not client),
            DeflateParameters(server_no_context_takeover=not client, client_no_context_takeover=client),
        ):
            forgets = agreed.server_no_context_takeover == client
            peer = Peer(client, deflate=agreed)
            assert peer.sends(b"\xc1\x07\xf2\x48\xcd\xc9\xc9\x07\x00") == [("message", "Hello")]
            events = peer.sends(b"\xc1\x05\xf2\x00\x11\x00\x00")
            assert events == ([("failed",)] if forgets else [("message", "Hello")])


class TestReader:
    """The class itself, without a connection around it."""

    def reader(
        self, client: bool, *frames_of_peer: bytes, limit: int = 100, inflater: Inflater | None = None
    ) -> tuple[Any, Any]:
        frames = FrameReader(not client)
        wire = b"".join(map(Peer(client).bytes_of, frames_of_peer))
        frames.feed(bytearray(wire), len(wire))
        return MessageReader(limit, 10, inflater), frames

    def test_nothing_is_open_in_the_beginning(self, client: bool) -> None:
        messages, _ = self.reader(client)
        assert messages.expect_continuation is False
        assert messages.size == 0
        assert messages.block is None

    def test_has_no_size_while_a_message_comes(self, client: bool) -> None:
        messages, frames = self.reader(client, b"\x81\x02Hi", b"\x01\x01x", b"\x80\x01y")
        sizes = []
        while frames.read_header():
            messages.begin(frames)
            sizes.append((messages.read(frames), messages.size))
        assert sizes == [("Hi", 2), (None, 0), ("xy", 2)]

    @pytest.mark.parametrize(("first", "has_room"), [(0x82, True), (0x02, False)])
    def test_makes_room_at_once_for_a_message_of_which_enough_is_here(
        self, client: bool, first: int, has_room: bool
    ) -> None:
        size = 40_000
        messages, frames = self.reader(client, bytes((first, 126)) + size.to_bytes(2, "big"), limit=size)
        assert frames.read_header()
        messages.begin(frames)
        part = Peer(client).bytes_of(with_length(0x82, bytes(20_000)))[-20_000:]
        frames.feed(bytearray(part), len(part))
        assert messages.read(frames) is None
        assert messages.block.size == 20_000
        if has_room:
            messages.block.room(20_000).release()
        else:
            # How large the message will be is not known yet.
            with pytest.raises(IndexError):
                messages.block.room(1)

    def test_tells_the_size_of_the_message(self, client: bool) -> None:
        messages, frames = self.reader(client, b"\x81\x04" + "éé".encode())
        assert frames.read_header()
        messages.begin(frames)
        assert messages.read(frames) == "éé"
        assert messages.size == 4
        assert not messages.expect_continuation

    def test_gives_none_until_the_message_is_complete(self, client: bool) -> None:
        messages, frames = self.reader(client, b"\x02\x02xy")
        assert frames.read_header()
        messages.begin(frames)
        assert messages.read(frames) is None
        assert messages.block is not None
        assert messages.block.size == 2
        assert messages.expect_continuation

    def test_raises_at_the_header(self, client: bool) -> None:
        messages, frames = self.reader(client, b"\x80\x02")
        assert frames.read_header()
        with pytest.raises(InvalidFrame):
            messages.begin(frames)

    def test_close_lets_go_of_the_inflater_too(self, client: bool) -> None:
        closed = []

        class Watched(Inflater):
            def close(self) -> None:
                closed.append(True)
                super().close()

        messages, frames = self.reader(
            client, b"\x42\x03\xf2\x48\xcd", inflater=Watched(15, no_context_takeover=False)
        )
        assert frames.read_header()
        messages.begin(frames)
        assert messages.read(frames) is None
        messages.close()
        assert closed == [True]
        assert messages.block is None
