"""Masking and the making of frames (RFC 6455 sections 5.2, 5.3 and 5.7)."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from peers import KEY, exclusive_or

from geventws.protocol.masking import build_frame, build_header, read_key, unmask, unmask_text

MASKED_HELLO = b"\x7f\x9f\x4d\x51\x58"


class TestUnmask:
    """RFC 6455 section 5.3."""

    def test_the_rfcs_example(self) -> None:
        assert unmask(bytearray(MASKED_HELLO), 0, 5, KEY, 0) == b"Hello"

    def test_a_frame_that_is_not_masked(self) -> None:
        assert unmask(bytearray(b"..Hello.."), 2, 7, None, 0) == b"Hello"

    @pytest.mark.parametrize("phase", range(4))
    @pytest.mark.parametrize("start", [0, 1, 2, 3, 4, 5, 6, 7, 8, 13])
    def test_all_short_lengths_at_all_alignments_and_phases(self, start: int, phase: int) -> None:
        octets = random.Random(start).randbytes(100)
        for length in range(71):
            found = unmask(bytearray(octets), start, start + length, KEY, phase)
            assert type(found) is bytes
            assert found == exclusive_or(octets[start : start + length], KEY, phase)

    @pytest.mark.parametrize("length", [4095, 4096, 4097, 65535, 65536, 1_000_003])
    def test_long_ones(self, length: int) -> None:
        octets = random.Random(length).randbytes(length)
        assert unmask(bytearray(octets), 0, length, KEY, 3) == exclusive_or(octets, KEY, 3)

    def test_a_key_of_zeros_changes_nothing(self) -> None:
        assert unmask(bytearray(b"Hello"), 0, 5, b"\x00\x00\x00\x00", 1) == b"Hello"

    @pytest.mark.parametrize("phase", [4, 5, 6, 7, 1001])
    def test_a_phase_counts_modulo_four(self, phase: int) -> None:
        assert unmask(bytearray(b"Hello"), 0, 5, KEY, phase) == exclusive_or(b"Hello", KEY, phase % 4)

    @pytest.mark.parametrize(("start", "end"), [(0, 6), (-1, 3), (3, 2), (6, 6), (6, 7), (-6, -1)])
    @pytest.mark.parametrize("key", [KEY, None])
    def test_octets_outside_of_the_buffer(self, start: int, end: int, key: bytes | None) -> None:
        with pytest.raises(IndexError, match="octets outside of the buffer"):
            unmask(bytearray(b"Hello"), start, end, key, 0)
        with pytest.raises(IndexError, match="octets outside of the buffer"):
            unmask_text(bytearray(b"Hello"), start, end, key)

    @pytest.mark.parametrize("key", [b"", b"\x01", b"\x01\x02\x03", b"\x01\x02\x03\x04\x05"])
    @pytest.mark.parametrize("length", [0, 5])
    def test_a_key_has_four_octets(self, key: bytes, length: int) -> None:
        with pytest.raises(IndexError, match="a masking key has four octets"):
            unmask(bytearray(b"Hello"), 0, length, key, 0)
        with pytest.raises(IndexError, match="a masking key has four octets"):
            unmask_text(bytearray(b"Hello"), 0, length, key)
        with pytest.raises(IndexError, match="a masking key has four octets"):
            build_frame(0x81, b"Hello"[:length], key)


class TestUnmaskText:
    """RFC 6455 sections 5.3 and 5.6."""

    def test_the_rfcs_example(self) -> None:
        assert unmask_text(bytearray(b".." + MASKED_HELLO + b".."), 2, 7, KEY) == "Hello"

    def test_a_frame_that_is_not_masked(self) -> None:
        assert unmask_text(bytearray("..£€𐍈..".encode()), 2, 11, None) == "£€𐍈"

    def test_the_empty_text(self) -> None:
        assert unmask_text(bytearray(), 0, 0, KEY) == ""
        assert unmask_text(bytearray(), 0, 0, None) == ""

    @pytest.mark.parametrize("key", [KEY, None])
    @pytest.mark.parametrize("octets", [b"\xff", b"a\xc3", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xc0\x80"])
    def test_what_is_not_utf8(self, octets: bytes, key: bytes | None) -> None:
        buffer = bytearray(octets if key is None else exclusive_or(octets, key))
        with pytest.raises(UnicodeDecodeError):
            unmask_text(buffer, 0, len(octets), key)

    @given(st.text(), st.integers(0, 9), st.binary(min_size=4, max_size=4))
    def test_any_text(self, text: str, start: int, key: bytes) -> None:
        octets = text.encode()
        buffer = bytearray(b"\xff" * start + exclusive_or(octets, key) + b"\xff")
        assert unmask_text(buffer, start, start + len(octets), key) == text

    def test_octets_around_the_payload_stay(self) -> None:
        buffer = bytearray(b"\xff" * 9 + exclusive_or(b"Hello, world", KEY) + b"\xff" * 9)
        unmask_text(buffer, 9, 21, KEY)
        assert buffer[:9] == buffer[21:] == b"\xff" * 9


class TestBuildFrame:
    """RFC 6455 section 5.2; the examples are those of section 5.7."""

    def test_an_unmasked_text_message(self) -> None:
        assert build_frame(0x81, "Hello", None) == b"\x81\x05Hello"

    def test_a_masked_text_message(self) -> None:
        assert build_frame(0x81, "Hello", KEY) == b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58"

    def test_fragments(self) -> None:
        assert build_frame(0x01, b"Hel", None) == b"\x01\x03Hel"
        assert build_frame(0x80, b"lo", None) == b"\x80\x02lo"

    def test_a_ping_and_its_masked_pong(self) -> None:
        assert build_frame(0x89, b"Hello", None) == b"\x89\x05Hello"
        assert build_frame(0x8A, b"Hello", KEY) == b"\x8a\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58"

    @pytest.mark.parametrize(
        ("length", "header"),
        [
            (0, b"\x82\x00"),
            (1, b"\x82\x01"),
            (125, b"\x82\x7d"),
            (126, b"\x82\x7e\x00\x7e"),
            (256, b"\x82\x7e\x01\x00"),
            (65535, b"\x82\x7e\xff\xff"),
            (65536, b"\x82\x7f\x00\x00\x00\x00\x00\x01\x00\x00"),
            (16_777_216, b"\x82\x7f\x00\x00\x00\x00\x01\x00\x00\x00"),
        ],
    )
    def test_the_length_has_the_shortest_of_three_forms(self, length: int, header: bytes) -> None:
        payload = bytes(length)
        frame = build_frame(0x82, payload, None)
        assert frame[: len(header)] == header
        assert frame[len(header) :] == payload
        masked = build_frame(0x82, payload, KEY)
        assert masked[0] == header[0]
        assert masked[1] == header[1] | 0x80
        assert masked[2 : len(header)] == header[2:]
        # The payload is zeros: what was masked is the key again and again.
        assert masked[len(header) :] == KEY + (KEY * (length // 4 + 1))[:length]

    @pytest.mark.parametrize("first", [0x00, 0x01, 0x02, 0x41, 0x81, 0xC1, 0xC2, 0x88, 0xFF])
    def test_the_first_octet_is_the_callers(self, first: int) -> None:
        assert build_frame(first, b"", None) == bytes((first, 0))

    @pytest.mark.parametrize("length", range(71))
    def test_short_payloads(self, length: int) -> None:
        octets = random.Random(length).randbytes(length)
        assert build_frame(0x82, octets, KEY)[-length or 6 :] == exclusive_or(octets, KEY)

    @pytest.mark.parametrize("text", ["", "£", "€", "𐍈", "Hello £€𐍈", "é" * 63, "é" * 100, "\x00"])
    def test_a_str_is_utf8(self, text: str) -> None:
        assert build_frame(0x81, text, None) == build_frame(0x81, text.encode(), None)
        assert build_frame(0x81, text, KEY) == build_frame(0x81, text.encode(), KEY)

    def test_the_length_counts_octets_not_characters(self) -> None:
        assert build_frame(0x81, "é" * 63, None)[:4] == b"\x81\x7e\x00\x7e"

    def test_a_lone_surrogate(self) -> None:
        with pytest.raises(UnicodeEncodeError):
            build_frame(0x81, "\ud800", None)

    @pytest.mark.parametrize("payload", [None, 5, bytearray(b"x"), memoryview(b"x"), ["x"]])
    def test_anything_else_is_refused(self, payload: object) -> None:
        with pytest.raises(TypeError, match="a payload is bytes or str"):
            build_frame(0x82, payload, None)  # type: ignore[arg-type]


class TestReadKey:
    """RFC 6455 section 5.2: the key stands before the payload."""

    @pytest.mark.parametrize("position", [0, 1, 3])
    def test_four_octets(self, position: int) -> None:
        assert read_key(bytearray(b"abcdefg"), position) == b"abcdefg"[position : position + 4]

    @pytest.mark.parametrize("position", [-1, 4, 7, 2**40])
    def test_octets_outside_of_the_buffer(self, position: int) -> None:
        with pytest.raises(IndexError, match="octets outside of the buffer"):
            read_key(bytearray(b"abcdefg"), position)


class TestBuildHeader:
    """RFC 6455 section 5.2."""

    @pytest.mark.parametrize("length", [0, 1, 125, 126, 127, 65535, 65536, 100_000])
    def test_as_in_a_frame(self, length: int) -> None:
        frame = build_frame(0xC2, bytes(length), None)
        assert build_header(0xC2, length) == frame[: len(frame) - length]

    def test_the_largest_length(self) -> None:
        assert build_header(0x82, 2**63 - 1) == b"\x82\x7f\x7f\xff\xff\xff\xff\xff\xff\xff"

    @pytest.mark.parametrize(("first", "length"), [(-1, 0), (256, 0), (0x82, -1)])
    def test_what_is_not_possible(self, first: int, length: int) -> None:
        with pytest.raises(ValueError, match="an octet and a length"):
            build_header(first, length)
