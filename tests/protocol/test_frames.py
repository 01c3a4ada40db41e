"""Frames (RFC 6455 section 5): headers byte by byte, payloads however they are cut."""

from __future__ import annotations

import random

import pytest
from peers import KEY, exclusive_or, mask

from geventws.exceptions import InvalidFrame
from geventws.protocol.block import Block
from geventws.protocol.frames import FrameReader

# Who reads: a server's frames come masked, a client's do not.
ROLES = [pytest.param(True, id="server"), pytest.param(False, id="client")]


def wire(masked: bool, frame: bytes) -> bytes:
    """A frame, or its header, as it comes from the peer."""
    return mask(frame) if masked else frame


def reader(masked: bool, data: bytes = b"") -> FrameReader:
    """A reader that was fed."""
    frames = FrameReader(masked)
    frames.feed(bytearray(data), len(data))
    return frames


def facts(frames: FrameReader) -> tuple[bool, bool, int, int]:
    """What a header said."""
    return bool(frames.fin), bool(frames.rsv1), frames.opcode, frames.length


def refused(masked: bool, data: bytes, kind: str, text: str) -> None:
    """Check that these bytes are refused, and that one byte less is not: it is refused at once."""
    assert not reader(masked, data[:-1]).read_header()
    with pytest.raises(InvalidFrame, match=text) as caught:
        reader(masked, data).read_header()
    assert caught.value.kind == kind
    assert caught.value.close_code == 1002
    # Byte by byte it is no other.
    frames = FrameReader(masked)
    for at in range(len(data) - 1):
        frames.feed(bytearray(data[at : at + 1]), 1)
        assert not frames.read_header()
        frames.keep()
    frames.feed(bytearray(data[-1:]), 1)
    with pytest.raises(InvalidFrame) as again:
        frames.read_header()
    assert str(again.value) == str(caught.value)


@pytest.mark.parametrize("masked", ROLES)
class TestHeader:
    """RFC 6455 section 5.2."""

    @pytest.mark.parametrize(
        ("header", "expected"),
        [
            (b"\x81\x05", (True, False, 1, 5)),
            (b"\x01\x00", (False, False, 1, 0)),
            (b"\x82\x7d", (True, False, 2, 125)),
            (b"\xc2\x01", (True, True, 2, 1)),
            (b"\x41\x01", (False, True, 1, 1)),
            (b"\x00\x01", (False, False, 0, 1)),
            (b"\x80\x01", (True, False, 0, 1)),
            (b"\x88\x02", (True, False, 8, 2)),
            (b"\x89\x7d", (True, False, 9, 125)),
            (b"\x8a\x00", (True, False, 10, 0)),
            (b"\x82\x7e\x00\x7e", (True, False, 2, 126)),
            (b"\x82\x7e\x00\xff", (True, False, 2, 255)),
            (b"\x82\x7e\x01\x00", (True, False, 2, 256)),
            (b"\x82\x7e\xff\xff", (True, False, 2, 65535)),
            (b"\x82\x7f\x00\x00\x00\x00\x00\x01\x00\x00", (True, False, 2, 65536)),
            (b"\x82\x7f\x00\x00\x00\x00\x80\x00\x00\x00", (True, False, 2, 2**31)),
            (b"\x82\x7f\x01\x02\x03\x04\x05\x06\x07\x08", (True, False, 2, 0x0102030405060708)),
            (b"\x82\x7f\x7f\xff\xff\xff\xff\xff\xff\xff", (True, False, 2, 2**63 - 1)),
        ],
    )
    def test_what_it_says(self, masked: bool, header: bytes, expected: tuple[bool, bool, int, int]) -> None:
        data = wire(masked, header)
        frames = reader(masked, data)
        assert not frames.in_frame
        assert frames.read_header()
        assert facts(frames) == expected
        assert frames.remaining == expected[3]
        assert frames.in_frame
        assert frames.pending() == 0
        # Not with a byte less; and byte by byte it is the same.
        assert not reader(masked, data[:-1]).read_header()
        frames = FrameReader(masked)
        for at in range(len(data)):
            frames.feed(bytearray(data[at : at + 1]), 1)
            assert bool(frames.read_header()) == (at == len(data) - 1)
            frames.keep()
        assert facts(frames) == expected

    def test_nothing_is_known_before_the_first_header(self, masked: bool) -> None:
        frames = FrameReader(masked)
        assert (frames.fin, frames.rsv1, frames.in_frame) == (False, False, False)
        assert None not in (frames.fin, frames.rsv1, frames.in_frame)
        assert (frames.opcode, frames.length, frames.remaining, frames.pending()) == (0, 0, 0, 0)

    def test_nothing_is_known_from_no_byte_or_one(self, masked: bool) -> None:
        # 0x77 alone breaks two rules; they are told with the second byte, at every cut alike.
        for data in (b"", b"\x77"):
            frames = reader(masked, data)
            assert not frames.read_header()
            assert frames.pending() == len(data)

    @pytest.mark.parametrize("first", [0x90, 0xA0, 0xB0, 0xF1, 0x91, 0xA2, 0x10, 0xA9])
    def test_rsv2_or_rsv3_is_refused(self, masked: bool, first: int) -> None:
        data = bytes((first, 0x85 if masked else 0x05))
        refused(masked, data, "frame.reserved_bits", "^reserved bits RSV2 or RSV3 are set$")

    @pytest.mark.parametrize("opcode", [3, 4, 5, 6, 7, 0xB, 0xC, 0xD, 0xE, 0xF])
    @pytest.mark.parametrize("fin", [0x80, 0x00])
    def test_reserved_opcode_is_refused(self, masked: bool, opcode: int, fin: int) -> None:
        data = bytes((fin | opcode, 0x85 if masked else 0x05))
        refused(masked, data, "frame.opcode", f"^opcode 0x{opcode:X} is reserved$")

    @pytest.mark.parametrize("length", [0, 1, 125])
    def test_16_bits_for_less_than_126_is_refused(self, masked: bool, length: int) -> None:
        data = bytes((0x82, 0xFE if masked else 0x7E, 0, length))
        refused(masked, data, "frame.length", f"^a length of {length} in 16 bits is not minimal$")

    @pytest.mark.parametrize("length", [0, 125, 126, 65535])
    def test_64_bits_for_less_than_65536_is_refused(self, masked: bool, length: int) -> None:
        data = bytes((0x82, 0xFF if masked else 0x7F)) + length.to_bytes(8, "big")
        refused(masked, data, "frame.length", f"^a length of {length} in 64 bits is not minimal$")

    @pytest.mark.parametrize("length", [2**63, 2**63 + 5, 2**64 - 1])
    def test_most_significant_bit_of_the_length_is_refused(self, masked: bool, length: int) -> None:
        data = bytes((0x82, 0xFF if masked else 0x7F)) + length.to_bytes(8, "big")
        refused(masked, data, "frame.length", "^a length with the most significant bit set$")


@pytest.mark.parametrize("masked", ROLES)
class TestControlFrames:
    """RFC 6455 section 5.5."""

    @pytest.mark.parametrize("opcode", [8, 9, 10])
    @pytest.mark.parametrize("length", [126, 127])
    def test_more_than_125_bytes_is_refused(self, masked: bool, opcode: int, length: int) -> None:
        data = bytes((0x80 | opcode, (0x80 if masked else 0) | length))
        refused(masked, data, "frame.control_length", "^a control frame of more than 125 bytes$")

    @pytest.mark.parametrize("opcode", [8, 9, 10])
    def test_a_fragment_is_refused(self, masked: bool, opcode: int) -> None:
        data = bytes((opcode, 0x80 if masked else 0))
        refused(masked, data, "frame.control_fragmented", "^a fragmented control frame$")

    @pytest.mark.parametrize("opcode", [8, 9, 10])
    def test_rsv1_is_refused(self, masked: bool, opcode: int) -> None:
        # RFC 7692 section 6: control frames are not compressed.
        data = bytes((0xC0 | opcode, 0x80 if masked else 0))
        refused(masked, data, "frame.reserved_bits", "^a control frame with RSV1$")


class TestMasking:
    """RFC 6455 section 5.1."""

    @pytest.mark.parametrize("first", [0x81, 0x02, 0x80, 0x88, 0x89, 0x8A])
    def test_server_refuses_a_frame_that_is_not_masked(self, first: int) -> None:
        refused(True, bytes((first, 0x05)), "frame.unmasked", "^a frame from a client is not masked$")

    @pytest.mark.parametrize("first", [0x81, 0x02, 0x80, 0x88, 0x89, 0x8A])
    def test_client_refuses_a_frame_that_is_masked(self, first: int) -> None:
        refused(False, bytes((first, 0x85)), "frame.masked", "^a frame from a server is masked$")


@pytest.mark.parametrize("masked", ROLES)
class TestPayload:
    """RFC 6455 section 5.3, and how the bytes are cut."""

    def test_the_rfcs_example(self, masked: bool) -> None:
        data = b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58" if masked else b"\x81\x05Hello"
        frames = reader(masked, data)
        assert frames.read_header()
        assert frames.has_whole_payload()
        assert frames.take_text() == "Hello"
        assert (frames.remaining, frames.in_frame, frames.pending()) == (0, False, 0)
        assert not frames.read_header()

    def test_taken_as_bytes(self, masked: bool) -> None:
        frames = reader(masked, wire(masked, b"\x82\x05Hello"))
        assert frames.read_header()
        assert frames.take() == b"Hello"
        assert frames.in_frame is False

    def test_taken_into_a_block(self, masked: bool) -> None:
        frames = reader(masked, wire(masked, b"\x82\x05Hello"))
        assert frames.read_header()
        assert frames.in_frame is True
        block = Block()
        frames.take_into(block)
        assert (frames.in_frame, frames.remaining, frames.pending()) == (False, 0, 0)
        assert frames.in_frame is False
        assert block.take() == b"Hello"

    def test_empty(self, masked: bool) -> None:
        for take, expected in ((FrameReader.take, b""), (FrameReader.take_text, "")):
            frames = reader(masked, wire(masked, b"\x81\x00"))
            assert frames.read_header()
            assert frames.has_whole_payload()
            assert frames.in_frame
            assert take(frames) == expected
            assert not frames.in_frame

    @pytest.mark.parametrize("length", [1, 3, 4, 5, 7, 8, 9, 63, 125, 126, 300])
    def test_each_cut_gives_the_same(self, masked: bool, length: int) -> None:
        payload = random.Random(length).randbytes(length)
        header = bytes((0x82, length)) if length < 126 else b"\x82\x7e" + length.to_bytes(2, "big")
        data = wire(masked, header + payload)
        start = len(data) - length
        for cut in range(start, len(data)):
            frames = reader(masked, data[:cut])
            assert frames.read_header()
            assert not frames.has_whole_payload()
            first = frames.take()
            assert first == payload[: cut - start]
            assert frames.in_frame
            assert frames.remaining == len(data) - cut
            frames.keep()
            frames.feed(bytearray(data[cut:]), len(data) - cut)
            assert frames.has_whole_payload()
            assert frames.take() == payload[cut - start :]
            assert not frames.in_frame

    def test_byte_by_byte_the_key_goes_round(self, masked: bool) -> None:
        data = wire(masked, b"\x82\x0b" + b"Hello world")
        frames = reader(masked, data[:-11])
        assert frames.read_header()
        taken = b""
        for at in range(len(data) - 11, len(data)):
            frames.feed(bytearray(data[at : at + 1]), 1)
            taken += frames.take()
        assert taken == b"Hello world"
        assert not frames.in_frame

    def test_several_frames_in_one_read(self, masked: bool) -> None:
        data = b"".join(
            wire(masked, frame) for frame in (b"\x81\x01a", b"\x82\x7e\x00\x7e" + b"b" * 126, b"\x89\x00")
        )
        frames = reader(masked, data)
        found = []
        while frames.read_header():
            found.append((frames.opcode, frames.take()))
        assert found == [(1, b"a"), (2, b"b" * 126), (9, b"")]

    def test_text_that_is_not_utf8(self, masked: bool) -> None:
        frames = reader(masked, wire(masked, b"\x81\x02\xc3\x28"))
        assert frames.read_header()
        with pytest.raises(UnicodeDecodeError):
            frames.take_text()

    def test_each_frame_has_its_own_key(self, masked: bool) -> None:
        if not masked:
            data = b"\x81\x05Hello\x81\x05Hello"
        else:
            data = mask(b"\x81\x05Hello", b"\x01\x02\x03\x04") + mask(b"\x81\x05Hello", b"\xff\xfe\xfd\xfc")
        frames = reader(masked, data)
        for _ in range(2):
            assert frames.read_header()
            assert frames.take_text() == "Hello"


class TestBorrowedBuffer:
    """The buffer that is fed belongs to somebody else."""

    def test_only_the_first_bytes_are_read(self) -> None:
        frames = FrameReader(False)
        frames.feed(bytearray(b"\x81\x02Hi\x81\x02no"), 4)
        assert frames.read_header()
        assert frames.take_text() == "Hi"
        assert not frames.read_header()

    @pytest.mark.parametrize("cut", range(1, 15))
    def test_after_keep_it_can_be_used_for_something_else(self, cut: int) -> None:
        data = mask(b"\x82\x01a") + mask(b"\x82\x01b")
        lent = bytearray(b"\xee" * 100)
        frames = FrameReader(True)
        found = []
        for piece in (data[:cut], data[cut:]):
            lent[: len(piece)] = piece
            frames.feed(lent, len(piece))
            while frames.in_frame or frames.read_header():
                if not frames.has_whole_payload():
                    break
                found.append(frames.take())
            frames.keep()
            lent[:] = b"\xee" * 100
        assert found == [b"a", b"b"]
        assert frames.pending() == 0

    @pytest.mark.parametrize("rest", [b"", b"\x82", b"\x82\x05ab"])
    def test_keep_counts_what_is_left(self, rest: bytes) -> None:
        frames = reader(False, b"\x82\x02Hi" + rest)
        assert frames.read_header()
        assert frames.take() == b"Hi"
        frames.keep()
        assert frames.pending() == len(rest)
        frames.feed(bytearray(b"!"), 1)
        assert frames.pending() == len(rest) + 1

    def test_feeding_more_than_once_before_reading(self) -> None:
        frames = FrameReader(False)
        for piece in (b"\x81", b"\x02H", b"", b"i\x82\x00"):
            frames.feed(bytearray(piece + b"\xee"), len(piece))
        assert frames.pending() == 6
        assert frames.read_header()
        assert frames.take_text() == "Hi"
        assert frames.read_header()
        assert frames.take() == b""

    def test_drop_forgets_what_was_not_read(self) -> None:
        frames = reader(False, b"\x81\x02Hi")
        frames.drop()
        assert frames.pending() == 0
        assert not frames.read_header()

    def test_a_count_beyond_the_buffer_is_an_error_not_memory_of_others(self) -> None:
        frames = FrameReader(False)
        frames.feed(bytearray(b"\x81"), 2)
        with pytest.raises(IndexError):
            frames.read_header()
        frames = FrameReader(True)
        frames.feed(bytearray(b"\x81\x85" + KEY + exclusive_or(b"Hel", KEY)), 11)
        assert frames.read_header()
        with pytest.raises(IndexError):
            frames.take_text()
        with pytest.raises(IndexError):
            frames.take()
