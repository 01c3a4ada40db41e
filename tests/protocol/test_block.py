"""A message that comes in pieces, gathered in place (RFC 6455 sections 5.3, 5.4 and 8.1)."""

from __future__ import annotations

import random

import pytest
from peers import KEY, exclusive_or

from geventws.protocol.block import Block

OCTETS = random.Random(7).randbytes(300_000)


def receive(block: Block, data: bytes) -> None:
    """Put octets behind the end, as a system call would."""
    with block.room(len(data)) as room:
        room[:] = data


class TestAppending:
    def test_pieces_become_one(self) -> None:
        block = Block()
        block.append(b"ab")
        block.append(b"")
        block.append(b"c")
        assert block.size == 3
        assert block.take() == b"abc"

    def test_many_small_pieces(self) -> None:
        block = Block()
        for start in range(0, 100_000, 7):
            block.append(OCTETS[start : min(start + 7, 100_000)])
        assert block.take() == OCTETS[:100_000]

    @pytest.mark.parametrize("phase", range(4))
    @pytest.mark.parametrize("length", [0, 1, 2, 7, 8, 9, 4095, 65537])
    def test_masked_pieces(self, length: int, phase: int) -> None:
        block = Block()
        block.append(b"before")
        block.append_masked(bytearray(OCTETS), 3, 3 + length, KEY, phase)
        block.append_masked(bytearray(OCTETS), 3, 3 + length, None, phase)
        data = OCTETS[3 : 3 + length]
        assert block.take() == b"before" + exclusive_or(data, KEY, phase) + data

    @pytest.mark.parametrize(("start", "end"), [(0, 6), (-1, 3), (3, 2), (6, 6)])
    def test_octets_outside_of_the_buffer(self, start: int, end: int) -> None:
        with pytest.raises(IndexError, match="octets outside of the buffer"):
            Block().append_masked(bytearray(b"Hello"), start, end, KEY, 0)

    def test_a_key_has_four_octets(self) -> None:
        with pytest.raises(IndexError, match="a masking key has four octets"):
            Block().append_masked(bytearray(b"Hello"), 0, 5, b"abc", 0)


class TestReceiving:
    def test_in_place(self) -> None:
        block = Block()
        block.append(b"..")
        assert block.reserve(1000) == 1000
        receive(block, exclusive_or(OCTETS[:600], KEY, 2))
        block.commit(600, KEY, 2)
        receive(block, OCTETS[600:1000])
        block.commit(400, None, 0)
        assert block.size == 1002
        assert block.take() == b".." + OCTETS[:1000]

    def test_an_announced_length_is_believed_when_a_part_of_it_is_here(self) -> None:
        block = Block()
        assert block.reserve(1 << 40) == 4096
        block.append(bytes(1000))
        assert block.reserve(1 << 40) == 63 * 1000
        assert Block().reserve(1 << 40, 16 * 1024) == 1024 * 1024
        assert Block().reserve(1 << 20, 16 * 1024) == 1024 * 1024
        assert Block().reserve((1 << 63) - 1, 1) == 4096

    def test_a_reservation_is_kept(self) -> None:
        block = Block()
        assert block.reserve(4096) == 4096
        assert block.reserve(100) == 100
        assert block.reserve(1 << 40) == 4096
        block.append(bytes(4096))
        assert block.size == 4096

    @pytest.mark.parametrize("arguments", [(-1,), (1, -1)])
    def test_a_negative_count(self, arguments: tuple[int, ...]) -> None:
        with pytest.raises(ValueError, match="not negative"):
            Block().reserve(*arguments)

    def test_there_must_be_room(self) -> None:
        block = Block()
        for count in (-1, 0, 1):
            with pytest.raises(IndexError, match="octets outside of the block"):
                block.room(count)
        with pytest.raises(IndexError, match="octets outside of the block"):
            block.commit(1, None, 0)
        block.reserve(10)
        with pytest.raises(IndexError, match="octets outside of the block"):
            block.room(11)
        with pytest.raises(IndexError, match="octets outside of the block"):
            block.commit(11, KEY, 0)
        with pytest.raises(IndexError, match="octets outside of the block"):
            block.commit(-1, KEY, 0)
        with pytest.raises(IndexError, match="a masking key has four octets"):
            block.commit(1, b"", 0)
        assert block.size == 0


class TestTaking:
    def test_it_is_empty_afterwards(self) -> None:
        block = Block()
        block.append(b"abc")
        assert block.take() == b"abc"
        assert (block.size, block.take(), block.take_text()) == (0, b"", "")
        block.append("é".encode())
        block.check_text()
        assert block.take_text() == "é"
        block.append(b"\xff")
        with pytest.raises(UnicodeDecodeError):
            block.check_text()

    def test_room_that_was_not_used_is_not_in_the_message(self) -> None:
        block = Block()
        block.reserve(4000)
        block.append(b"abc")
        assert block.take() == b"abc"
        block.reserve(4000)
        block.append(b"abc")
        assert block.take_text() == "abc"

    def test_a_message_is_not_changed_by_the_next(self) -> None:
        block = Block()
        block.append(b"abc")
        first = block.take()
        block.append(b"xyz")
        assert (first, block.take()) == (b"abc", b"xyz")


class TestText:
    TEXT = "a£€𐍈" * 50

    @pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 7, 100])
    def test_however_code_points_are_cut(self, size: int) -> None:
        block = Block()
        octets = self.TEXT.encode()
        for start in range(0, len(octets), size):
            block.append(octets[start : start + size])
            block.check_text()
        assert block.take_text() == self.TEXT

    @pytest.mark.parametrize(
        ("good", "bad"),
        [
            (b"a", b"\x80"),
            (b"\xc3", b"("),
            (b"\xe2\x82", b"a"),
            (b"\xed", b"\xa0"),
            (b"\xed", b"\xbf"),
            (b"\xf0\x9f", b"a"),
            (b"\xf4", b"\x90"),
            (b"\xe0", b"\x80"),
        ],
    )
    def test_fails_at_the_offending_octet(self, good: bytes, bad: bytes) -> None:
        block = Block()
        block.append("é".encode() + good)
        block.check_text()
        block.check_text()
        block.append(bad)
        with pytest.raises(UnicodeDecodeError):
            block.check_text()

    def test_a_code_point_cut_off_at_the_end(self) -> None:
        block = Block()
        block.append(b"a\xe2\x82")
        block.check_text()
        with pytest.raises(UnicodeDecodeError):
            block.take_text()

    def test_nothing_to_check(self) -> None:
        block = Block()
        block.check_text()
        block.reserve(100)
        block.check_text()
        assert block.take_text() == ""
