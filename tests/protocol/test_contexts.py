"""Messages through DEFLATE and back, over every implementation there is, and what an attacker tries."""

from __future__ import annotations

import itertools
import random
import sys
import weakref
import zlib
from types import ModuleType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from wsproto.connection import Connection, ConnectionType
from wsproto.events import BytesMessage
from wsproto.extensions import PerMessageDeflate

from geventws.exceptions import InvalidPayload, MessageTooBig
from geventws.options import Compression
from geventws.protocol import contexts, isal
from geventws.protocol.contexts import Deflater, Inflater
from geventws.protocol.deflate import accept_response, client_offer, negotiate_offer
from geventws.protocol.headers import parse_extensions

pytestmark = pytest.mark.usefixtures("compressor")

MIB = 1024 * 1024
TAIL = b"\x00\x00\xff\xff"
TEXT = b"a window slides over what was said before, and what was said before is said again. " * 3


def compress(data: bytes, *, bits: int = 15, history: bytes = b"", final: bool = False) -> bytes:
    """Compress with plain zlib, as a peer that has said `history` would."""
    stream = zlib.compressobj(9, zlib.DEFLATED, -bits, 9, zlib.Z_DEFAULT_STRATEGY, history)
    return stream.compress(data) + stream.flush(zlib.Z_FINISH if final else zlib.Z_SYNC_FLUSH)


def inflate_whole(inflater: Inflater, data: bytes, max_length: int | None = None) -> bytes:
    """One whole message."""
    output = inflater.inflate(data, max_length)
    inflater.finish()
    return output


def inflate_alone(data: bytes) -> bytes:
    """One message that refers to none before it: zlib refuses a distance that goes too far back."""
    return zlib.decompressobj(-12).decompress(data + TAIL)


def inflate_pieces(inflater: Inflater, pieces: list[bytes], max_length: int | None = None) -> bytes:
    """One message that comes in pieces; the limit counts down as a receiver counts it."""
    output = b""
    for piece in pieces:
        output += inflater.inflate(piece, None if max_length is None else max_length - len(output))
    inflater.finish()
    return output


def cut(data: bytes, positions: list[int]) -> list[bytes]:
    """Cut at these positions (modulo the length); pieces may be empty."""
    edges = [0, *sorted(position % (len(data) + 1) for position in positions), len(data)]
    return [data[start:end] for start, end in itertools.pairwise(edges)]


def inflate_strictly(data: bytes, bits: int) -> bytes:
    """Inflate as a peer that keeps no byte more than its window; zlib itself is not always that strict."""
    stream = zlib.decompressobj(-bits)
    output = bytearray()
    for start in range(0, len(data), 64):
        piece = data[start : start + 64]
        while True:
            # One byte at a time: what comes out at once need not be looked up in the window.
            byte = stream.decompress(piece, 1)
            piece = stream.unconsumed_tail
            if not byte and not piece:
                break
            output += byte
    return bytes(output)


class Zlib:
    """zlib, or what stands for it, watched: what comes out of it, and which objects are alive."""

    error = zlib.error
    DEFLATED = zlib.DEFLATED
    Z_SYNC_FLUSH = zlib.Z_SYNC_FLUSH

    def __init__(self, compressors: ModuleType = zlib, *, most: int | None = None) -> None:
        self.compressors = compressors
        self.windows: list[bytes] = []  # that compressors began with
        self.most = most  # bytes that a decompressor yields at a time, below what it is asked for
        self.inflated = 0
        self.largest_rest = 0
        self.alive: weakref.WeakSet[Stream] = weakref.WeakSet()
        self.interrupt_flush = False

    def decompressobj(self, *args: object, **kwargs: object) -> Stream:
        return Stream(self, zlib.decompressobj(*args, **kwargs))

    def compressobj(self, *args: object, **kwargs: object) -> Stream:
        self.windows.append(bytes(args[5]))  # type: ignore[call-overload]
        return Stream(self, self.compressors.compressobj(*args, **kwargs))


class Stream:
    def __init__(self, watch: Zlib, stream: object) -> None:
        self.watch = watch
        self.stream = stream
        watch.alive.add(self)

    def __getattr__(self, name: str) -> object:
        return getattr(self.stream, name)

    def decompress(self, data: bytes, max_length: int) -> bytes:
        if self.watch.most is not None:
            max_length = min(max_length or sys.maxsize, self.watch.most)
        output = self.stream.decompress(data, max_length)
        self.watch.inflated += len(output)
        self.watch.largest_rest = max(self.watch.largest_rest, len(self.stream.unused_data))
        return output

    def flush(self, mode: int) -> bytes:
        if self.watch.interrupt_flush:
            raise KeyboardInterrupt
        return self.stream.flush(mode)


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Zlib:
    watched = Zlib(zlib if isal.isal_zlib is None else isal.isal_zlib)
    monkeypatch.setattr(contexts, "zlib", watched)
    if isal.isal_zlib is not None:
        monkeypatch.setattr(isal, "isal_zlib", watched)
    return watched


class TestExamplesOfRFC7692:
    """Section 7.2.3, byte for byte as zlib does it: that is what compresses at level 9."""

    def test_one_block(self) -> None:
        # Section 7.2.3.1
        assert Deflater(9, 15, 8, no_context_takeover=False).deflate(b"Hello") == bytes.fromhex(
            "f248cdc9c90700"
        )
        inflater = Inflater(15, no_context_takeover=False)
        assert inflate_whole(inflater, bytes.fromhex("f248cdc9c90700")) == b"Hello"
        assert inflate_pieces(inflater, [bytes.fromhex("f248cd"), bytes.fromhex("c9c90700")]) == b"Hello"

    def test_sharing_the_window(self) -> None:
        # Section 7.2.3.2
        deflater = Deflater(9, 15, 8, no_context_takeover=False)
        assert deflater.deflate(b"Hello") == bytes.fromhex("f248cdc9c90700")
        assert deflater.deflate(b"Hello") == bytes.fromhex("f200110000")
        inflater = Inflater(15, no_context_takeover=False)
        assert inflate_whole(inflater, bytes.fromhex("f248cdc9c90700")) == b"Hello"
        assert inflate_whole(inflater, bytes.fromhex("f200110000")) == b"Hello"

    def test_not_sharing_the_window(self) -> None:
        deflater = Deflater(9, 15, 8, no_context_takeover=True)
        assert deflater.deflate(b"Hello") == bytes.fromhex("f248cdc9c90700")
        assert deflater.deflate(b"Hello") == bytes.fromhex("f248cdc9c90700")

    def test_block_without_compression(self) -> None:
        # Section 7.2.3.3
        inflater = Inflater(15, no_context_takeover=False)
        assert inflate_whole(inflater, bytes.fromhex("000500faff48656c6c6f00")) == b"Hello"

    def test_block_with_bfinal(self) -> None:
        # Section 7.2.3.4
        inflater = Inflater(15, no_context_takeover=False)
        assert inflate_whole(inflater, bytes.fromhex("f348cdc9c9070000")) == b"Hello"

    def test_two_blocks(self) -> None:
        # Section 7.2.3.5
        inflater = Inflater(15, no_context_takeover=False)
        assert inflate_whole(inflater, bytes.fromhex("f248050000 00ffff cac9c90700")) == b"Hello"

    def test_empty_message(self) -> None:
        # Section 7.2.3.6
        deflater = Deflater(9, 15, 8, no_context_takeover=False)
        inflater = Inflater(15, no_context_takeover=False)
        assert deflater.deflate(b"") == b"\x00"
        assert inflate_whole(inflater, b"\x00") == b""
        assert inflate_whole(inflater, b"\x02\x00") == b""


class TestInflater:
    def test_window_is_kept_from_message_to_message(self) -> None:
        inflater = Inflater(15, no_context_takeover=False)
        first, second = compress(TEXT)[:-4], compress(TEXT, history=TEXT)[:-4]
        assert len(second) < len(first) / 4
        assert inflate_whole(inflater, first) == TEXT
        assert inflate_whole(inflater, second) == TEXT

    def test_window_is_dropped_without_context_takeover(self) -> None:
        inflater = Inflater(15, no_context_takeover=True)
        assert inflate_whole(inflater, compress(TEXT)[:-4]) == TEXT
        assert inflate_whole(inflater, compress(TEXT)[:-4]) == TEXT
        with pytest.raises(InvalidPayload, match="too far back"):
            inflater.inflate(compress(TEXT, history=TEXT)[:-4], None)

    def test_window_is_kept_between_fragments_without_context_takeover(self) -> None:
        inflater = Inflater(15, no_context_takeover=True)
        pieces = [compress(TEXT), compress(TEXT, history=TEXT)[:-4]]
        assert inflate_pieces(inflater, pieces) == TEXT + TEXT

    @pytest.mark.parametrize("bits", range(8, 16))
    def test_window_has_the_negotiated_size(self, bits: int) -> None:
        # zlib's compressor stays 262 bytes below its window, hence the largest one for it. There
        # is none above 15, so the last case falls short by that much.
        size = min(1 << max(bits, 9), (1 << 15) - 262)
        words = random.Random(bits).randbytes(100)
        # Words, filling, words again: as far back as a window of this size reaches. (The byte before
        # is there because zlib does not find what stands at the very beginning.)
        for messages in ([b"!" + words, b"-" * (size - 100)], [b"!" + words + b"-" * (size - 100)]):
            inflater = Inflater(bits, no_context_takeover=False)
            stream = zlib.compressobj(9, zlib.DEFLATED, -15, 9)
            for message in messages:
                data = stream.compress(message) + stream.flush(zlib.Z_SYNC_FLUSH)
                assert inflate_whole(inflater, data[:-4]) == message
            data = stream.compress(words) + stream.flush(zlib.Z_SYNC_FLUSH)
            assert len(data) < 20
            assert inflate_whole(inflater, data[:-4]) == words

    def test_window_slides_over_many_small_messages(self) -> None:
        inflater = Inflater(9, no_context_takeover=False)
        stream = zlib.compressobj(9, zlib.DEFLATED, -9, 9)
        for number in range(300):
            message = b"message %d of many" % number
            data = stream.compress(message) + stream.flush(zlib.Z_SYNC_FLUSH)
            assert inflate_whole(inflater, data[:-4]) == message

    def test_every_cut_gives_the_same(self) -> None:
        data = compress(TEXT)[:-4]
        inflater = Inflater(15, no_context_takeover=True)
        for position in range(len(data) + 1):
            assert inflate_pieces(inflater, [data[:position], data[position:]]) == TEXT
        assert inflate_pieces(inflater, [data[i : i + 1] for i in range(len(data))]) == TEXT
        assert inflate_pieces(inflater, [b"", data, b""]) == TEXT

    def test_large_message(self) -> None:
        message = random.Random(1).randbytes(300_000)
        inflater = Inflater(15, no_context_takeover=False)
        assert inflate_whole(inflater, compress(message)[:-4], len(message)) == message

    @pytest.mark.parametrize(
        "data",
        [
            compress(b"Hello")[:-4],
            compress(TEXT)[:-4],
            compress(bytes(range(256)) * 4)[:-4],
            bytes.fromhex("000500faff48656c6c6f00"),
            bytes.fromhex("f348cdc9c9070000")[:-1] + b"\x02\x00",
        ],
        ids=["fixed", "dynamic", "larger", "stored", "final"],
    )
    def test_message_that_ends_in_the_middle_of_a_block_fails_1007(self, data: bytes) -> None:
        complete = {b"\x00": "an empty message", bytes.fromhex("f348cdc9c90700"): "a final block"}
        for length in range(1, len(data)):
            if data[:length] in complete:
                continue
            inflater = Inflater(15, no_context_takeover=False)
            with pytest.raises(InvalidPayload) as caught:
                inflate_whole(inflater, data[:length])
            assert caught.value.close_code == 1007
            assert caught.value.kind == "payload.deflate"

    def test_stored_block_that_the_removed_tail_would_fill_fails(self) -> None:
        # A block that claims 9 bytes and has 5: what is appended at the end is not its data.
        inflater = Inflater(15, no_context_takeover=False)
        assert inflater.inflate(bytes.fromhex("000900f6ff") + b"Hello", None) == b"Hello"
        with pytest.raises(InvalidPayload, match="ends in the middle of a block"):
            inflater.finish()

    def test_block_whose_header_the_removed_tail_would_not_even_fill_fails(self) -> None:
        # A dynamic block with 19 code lengths to come: no data, no error, and no end either.
        with pytest.raises(InvalidPayload, match="ends in the middle of a block"):
            inflate_whole(Inflater(15, no_context_takeover=False), bytes.fromhex("04e001"))

    @pytest.mark.parametrize(
        "data",
        [
            compress(b"Hello"),  # the sender forgot to remove the tail
            compress(b"Hello")[:-4] + b"\xff",
            compress(b"Hello")[:-4] + b"garbage",
            b"Hello",
            b"\xff",
            b"\x07",
            b"\x06",
        ],
    )
    def test_message_with_garbage_fails_1007(self, data: bytes) -> None:
        with pytest.raises(InvalidPayload) as caught:
            inflate_whole(Inflater(15, no_context_takeover=False), data)
        assert caught.value.close_code == 1007

    def test_reference_beyond_the_first_byte_fails_1007(self) -> None:
        with pytest.raises(InvalidPayload, match="too far back"):
            Inflater(15, no_context_takeover=False).inflate(bytes.fromhex("f200110000"), None)

    def test_message_without_a_byte_is_empty(self) -> None:
        inflater = Inflater(15, no_context_takeover=False)
        assert inflate_whole(inflater, compress(TEXT)[:-4]) == TEXT
        assert inflate_whole(inflater, b"") == b""
        assert inflate_whole(inflater, compress(TEXT, history=TEXT)[:-4]) == TEXT

    def test_close_drops_the_window(self) -> None:
        inflater = Inflater(15, no_context_takeover=False)
        inflater.inflate(compress(TEXT), None)
        inflater.close()
        assert inflate_whole(inflater, b"\x00", 0) == b""
        with pytest.raises(InvalidPayload, match="too far back"):
            inflater.inflate(compress(TEXT, history=TEXT), None)


class TestFinalBlocks:
    """Blocks with BFINAL set: RFC 7692 sections 7.2.1 and 7.2.3.4."""

    @pytest.mark.parametrize("alone", [False, True])
    def test_messages_go_on_behind_a_final_block(self, alone: bool) -> None:
        # A peer whose compressor starts anew after each message.
        inflater = Inflater(15, no_context_takeover=alone)
        for _ in range(3):
            assert inflate_whole(inflater, compress(TEXT, final=True) + b"\x00") == TEXT
            assert inflate_whole(inflater, compress(b"Hello")[:-4]) == b"Hello"

    def test_window_survives_a_final_block(self) -> None:
        # A peer that keeps its window: the RFC ties it to messages, not to DEFLATE streams.
        inflater = Inflater(15, no_context_takeover=False)
        other = TEXT.upper()
        assert inflate_whole(inflater, compress(TEXT)[:-4]) == TEXT
        final = compress(TEXT + other, history=TEXT, final=True)
        assert len(final) < len(compress(TEXT + other, final=True)) - 40
        assert inflate_whole(inflater, final + b"\x00") == TEXT + other
        third = compress(other + TEXT, history=TEXT + TEXT + other)[:-4]
        assert len(third) < 20
        assert inflate_whole(inflater, third) == other + TEXT

    @pytest.mark.parametrize("history", [b"", TEXT], ids=["anew", "keeps"])
    def test_final_block_and_another_one_in_a_message(self, history: bytes) -> None:
        data = compress(TEXT, final=True) + compress(TEXT + b"!", history=history)[:-4]
        for position in range(len(data) + 1):
            inflater = Inflater(15, no_context_takeover=True)
            assert inflate_pieces(inflater, [data[:position], data[position:]]) == TEXT + TEXT + b"!"
        inflater = Inflater(15, no_context_takeover=False)
        assert inflate_pieces(inflater, [data[i : i + 1] for i in range(len(data))]) == TEXT + TEXT + b"!"
        assert inflate_whole(inflater, compress(TEXT, history=TEXT + b"!")[:-4]) == TEXT

    def test_several_final_blocks_count_towards_one_limit(self) -> None:
        data = compress(TEXT, final=True) * 3 + b"\x00"
        size = 3 * len(TEXT)
        assert inflate_whole(Inflater(15, no_context_takeover=False), data, size) == TEXT * 3
        with pytest.raises(MessageTooBig) as caught:
            Inflater(15, no_context_takeover=False).inflate(data, size - 1)
        assert caught.value.limit == size - 1

    def test_final_block_without_the_octet_behind_it(self) -> None:
        inflater = Inflater(15, no_context_takeover=False)
        assert inflate_whole(inflater, compress(TEXT, final=True)) == TEXT
        assert inflate_whole(inflater, compress(TEXT, history=TEXT)[:-4]) == TEXT

    def test_final_block_without_compression_less_its_last_four_bytes(self) -> None:
        # Section 7.2.1 asks for an empty block without compression, not for BFINAL to be 0.
        inflater = Inflater(15, no_context_takeover=False)
        assert inflate_whole(inflater, compress(TEXT) + b"\x01") == TEXT
        assert inflate_whole(inflater, compress(TEXT, history=TEXT)[:-4]) == TEXT

    def test_garbage_behind_a_final_block_fails_1007(self) -> None:
        for garbage in (b"\xff", b"\x00\x00", b"\x07", b"Hello"):
            with pytest.raises(InvalidPayload):
                inflate_whole(Inflater(15, no_context_takeover=False), compress(TEXT, final=True) + garbage)

    def test_final_blocks_are_limited(self) -> None:
        inflater = Inflater(15, no_context_takeover=False)
        for _ in range(2):
            assert inflate_whole(inflater, b"\x03\x00" * 16 + b"\x00") == b""
        assert inflater.inflate(b"\x03\x00" * 17, None) == b""
        with pytest.raises(MessageTooBig) as caught:
            inflater.inflate(b"\x00", None)
        assert caught.value.close_code == 1009
        assert caught.value.kind == "message.final_blocks"
        assert (caught.value.size, caught.value.limit) == (17, 16)

    def test_final_blocks_do_not_make_zlib_copy_all_that_follows(self, watch: Zlib) -> None:
        with pytest.raises(MessageTooBig):
            Inflater(15, no_context_takeover=False).inflate(b"\x03\x00" * (MIB // 2), None)
        assert watch.largest_rest < 16 * 1024

    def test_a_reference_behind_the_window_is_refused_or_understood(self) -> None:
        plain = bytes(range(1, 101)) + bytes(500) + bytes(range(1, 61))
        # A compressor that ignores the window of 512 bytes that was agreed on.
        careless = zlib.compressobj(9, zlib.DEFLATED, -15)
        data = (careless.compress(plain) + careless.flush(zlib.Z_SYNC_FLUSH))[:-4]
        assert len(data) < 200
        verdicts = set()
        for size in (1, 7, 50, len(data)):
            inflater = Inflater(9, no_context_takeover=False)
            try:
                pieces = [inflater.inflate(data[at : at + size], 1000) for at in range(0, len(data), size)]
            except InvalidPayload:
                verdicts.add("refused")
            else:
                assert b"".join(pieces) == plain
                verdicts.add("understood")
        # As zlib is today; a stricter one may refuse both.
        assert "refused" in verdicts


class TestLimit:
    """No message yields more than it may, and zlib is never asked for it either."""

    @pytest.mark.parametrize("size", [1, 2, 1000, 100_000])
    def test_exactly_the_limit_passes_and_one_byte_more_does_not(self, size: int, watch: Zlib) -> None:
        for message in (b"x" * size, random.Random(size).randbytes(size)):
            data = compress(message)[:-4]
            assert inflate_whole(Inflater(15, no_context_takeover=False), data, size) == message
            watch.inflated = 0
            with pytest.raises(MessageTooBig) as caught:
                Inflater(15, no_context_takeover=False).inflate(data, size - 1)
            assert watch.inflated == size
            assert caught.value.close_code == 1009
            assert (caught.value.size, caught.value.limit) == (size, size - 1)
            assert str(size - 1) in str(caught.value)

    def test_nothing_left_lets_through_nothing_but_the_end(self) -> None:
        # The trap: a computed budget of 0 means "unlimited" to zlib.
        inflater = Inflater(15, no_context_takeover=False)
        data = compress(b"Hello")[:-4]
        for position in range(len(data)):
            if inflater.inflate(data[:position], None) == b"Hello":
                assert inflater.inflate(data[position:], 0) == b""
                inflater.finish()
                break
            inflater.close()
        assert inflate_whole(inflater, b"\x00", 0) == b""
        with pytest.raises(MessageTooBig, match="0 bytes"):
            inflater.inflate(compress(b"H"), 0)

    BOMB = compress(bytes(MIB)) * 256  # 256 MiB in a quarter of one

    def test_bomb_is_defused(self, watch: Zlib) -> None:
        assert len(self.BOMB) < MIB / 2
        with pytest.raises(MessageTooBig) as caught:
            Inflater(15, no_context_takeover=False).inflate(self.BOMB, MIB)
        assert watch.inflated == MIB + 1
        assert caught.value.limit == MIB

    def test_bomb_in_a_thousand_pieces_is_defused(self, watch: Zlib) -> None:
        size = len(self.BOMB) // 1000 + 1
        pieces = [self.BOMB[start : start + size] for start in range(0, len(self.BOMB), size)]
        with pytest.raises(MessageTooBig) as caught:
            inflate_pieces(Inflater(15, no_context_takeover=False), pieces, MIB)
        assert watch.inflated == MIB + 1
        assert (caught.value.size, caught.value.limit) == (MIB + 1, MIB)

    def test_limit_of_each_message_is_its_own(self) -> None:
        inflater = Inflater(15, no_context_takeover=False)
        for _ in range(3):
            assert (
                inflate_pieces(inflater, [compress(b"x" * 60), compress(b"x" * 40)[:-4]], 100) == b"x" * 100
            )
        inflater.inflate(compress(b"x" * 60), 100)
        with pytest.raises(MessageTooBig) as caught:
            inflater.inflate(compress(b"x" * 60), 40)
        assert caught.value.limit == 100

    @pytest.mark.parametrize("limit", [sys.maxsize - 1, sys.maxsize, 2**80, None])
    def test_limit_that_zlib_cannot_be_told(self, limit: int | None) -> None:
        assert inflate_whole(Inflater(15, no_context_takeover=False), compress(TEXT)[:-4], limit) == TEXT

    def test_zlib_that_yields_less_than_asked_for(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(contexts, "zlib", Zlib(most=7))
        data = compress(TEXT, final=True) + compress(TEXT, history=TEXT)[:-4]
        inflater = Inflater(15, no_context_takeover=False)
        assert inflate_whole(inflater, data, 2 * len(TEXT)) == TEXT + TEXT
        assert inflate_whole(inflater, data) == TEXT + TEXT
        with pytest.raises(MessageTooBig):
            inflater.inflate(data, 2 * len(TEXT) - 1)


class TestDeflater:
    def test_context_is_kept_from_message_to_message(self) -> None:
        deflater = Deflater(6, 12, 5, no_context_takeover=False)
        first, second = deflater.deflate(TEXT), deflater.deflate(TEXT)
        assert len(second) < len(first) / 4

    def test_context_is_dropped_without_context_takeover(self) -> None:
        deflater = Deflater(6, 12, 5, no_context_takeover=True)
        for _ in range(3):
            assert inflate_alone(deflater.deflate(TEXT)) == TEXT

    def test_context_is_kept_between_fragments_without_context_takeover(self) -> None:
        deflater = Deflater(6, 12, 5, no_context_takeover=True)
        first, second = deflater.deflate_fragment(TEXT, False), deflater.deflate_fragment(TEXT, True)
        assert len(second) < len(first) / 4
        assert inflate_alone(first + second) == TEXT + TEXT
        assert inflate_alone(deflater.deflate_fragment(TEXT, True)) == TEXT

    def test_tail_is_removed_from_the_last_fragment_only(self) -> None:
        deflater = Deflater(6, 12, 5, no_context_takeover=False)
        assert deflater.deflate_fragment(b"Hel", False).endswith(TAIL)
        assert deflater.deflate_fragment(b"lo", True).endswith(b"\x00")
        assert not deflater.deflate(TEXT).endswith(TAIL)

    def test_each_fragment_can_be_inflated_when_it_comes(self) -> None:
        deflater = Deflater(6, 12, 5, no_context_takeover=False)
        inflater = Inflater(12, no_context_takeover=False)
        for fragment, fin in ((b"one", False), (b"two", False), (b"three", True)):
            assert inflater.inflate(deflater.deflate_fragment(fragment, fin), None) == fragment
        inflater.finish()

    @pytest.mark.parametrize("alone", [False, True])
    def test_empty_messages_and_fragments(self, alone: bool) -> None:
        deflater = Deflater(6, 12, 5, no_context_takeover=alone)
        inflater = Inflater(12, no_context_takeover=alone)
        peer = zlib.decompressobj(-12)
        for fragments in (
            [b""],
            [b""],
            [b"a"],
            [b""],
            [b"", b""],
            [b"a", b""],
            [b"", b"", b"a"],
            [b"a", b"", b""],
        ):
            pieces = [deflater.deflate_fragment(part, False) for part in fragments[:-1]]
            pieces.append(deflater.deflate_fragment(fragments[-1], True))
            assert [bool(piece) for piece in pieces] == [bool(part) for part in fragments[:-1]] + [True]
            assert inflate_pieces(inflater, pieces) == b"".join(fragments)
            # A peer with one long stream is not thrown out of step either.
            assert peer.decompress(b"".join(pieces) + TAIL) == b"".join(fragments)

    def test_takes_any_buffer(self) -> None:
        deflater = Deflater(6, 12, 5, no_context_takeover=True)
        for buffer in (TEXT, bytearray(TEXT), memoryview(b"<" + TEXT)[1:]):
            assert inflate_alone(deflater.deflate(buffer)) == TEXT
        assert deflater.deflate(bytearray()) == deflater.deflate(memoryview(b"")) == b"\x00"

    def test_keeps_no_reference_to_the_payload(self) -> None:
        deflater = Deflater(6, 12, 5, no_context_takeover=False)
        payload = bytearray(TEXT)
        before = sys.getrefcount(payload)
        deflater.deflate(payload)
        deflater.deflate_fragment(payload, False)
        assert sys.getrefcount(payload) == before
        payload += b"not exported"  # a BufferError where a view of it were kept

    @pytest.mark.parametrize("bits", range(9, 16))
    def test_window_is_not_larger_than_negotiated(self, bits: int) -> None:
        # zlib looks back 262 bytes less than its window.
        words = random.Random(bits).randbytes((1 << bits) - 262)
        far = len(Deflater(9, bits, 9, no_context_takeover=False).deflate(words + b"-" + words))
        near = len(Deflater(9, bits, 9, no_context_takeover=False).deflate(words + words))
        assert near < 1.2 * len(words) + 20
        assert far > 1.9 * len(words)

    @pytest.mark.parametrize("alone", [False, True])
    @pytest.mark.parametrize("level", [1, 6, 9])
    @pytest.mark.parametrize("bits", range(9, 16))
    def test_nothing_refers_beyond_the_negotiated_window(self, bits: int, level: int, alone: bool) -> None:
        rng = random.Random(bits)
        size = 1 << bits
        for near in (-300, -262, -1, 0, 1, 300):
            # The same again at about the distance of the window, in messages of all sizes.
            data = rng.randbytes(size + near) * 2 + b"end"
            deflater = Deflater(level, bits, 5, no_context_takeover=alone)
            wire = b""
            start = 0
            while start < len(data):
                step = rng.choice((50, 700, 5000))
                wire += deflater.deflate(data[start : start + step]) + TAIL
                start += step
            assert inflate_strictly(wire, bits) == data

    def test_a_reference_beyond_the_window_would_be_noticed(self) -> None:
        data = random.Random(1).randbytes(600) * 2
        with pytest.raises(zlib.error, match="too far back"):
            inflate_strictly(compress(data), 9)

    @pytest.mark.parametrize("bits", range(9, 16))
    def test_what_the_window_holds_is_found(self, bits: int) -> None:
        words = random.Random(bits).randbytes(100)
        deflater = Deflater(6, bits, 5, no_context_takeover=False)
        for message in (b"!" + words, bytes(range(128)) * ((1 << bits) // 512)):
            deflater.deflate(message)
        assert len(deflater.deflate(words)) < 20

    def test_settings_reach_zlib(self) -> None:
        message = bytes(random.Random(2).choices(b"abcdefgh", k=20_000))
        sizes = {
            len(Deflater(level, 15, mem_level, no_context_takeover=True).deflate(message))
            for level, mem_level in ((1, 9), (9, 9), (9, 1))
        }
        assert len(sizes) == 3

    @pytest.mark.parametrize("level", range(1, 10))
    def test_isal_compresses_up_to_level_6(self, compressor: str, level: int) -> None:
        stream = zlib.compressobj(level, zlib.DEFLATED, -12, 5)
        ours = Deflater(level, 12, 5, no_context_takeover=True).deflate(TEXT)
        by_zlib = stream.compress(TEXT) + stream.flush(zlib.Z_SYNC_FLUSH)
        assert (ours + TAIL == by_zlib) is (compressor == "zlib" or level > 6)
        assert isal.DEFLATE in ("zlib", "isal")

    def test_data_that_does_not_compress(self) -> None:
        message = random.Random(3).randbytes(70_000)
        deflater = Deflater(6, 12, 5, no_context_takeover=False)
        inflater = Inflater(12, no_context_takeover=False)
        for size in (1, 100, 5000, 70_000):
            data = deflater.deflate(message[:size])
            assert len(data) <= size + size // 8 + 64
            assert inflate_whole(inflater, data) == message[:size]

    def test_closed_deflater_begins_anew_in_step_with_the_peer(self) -> None:
        deflater = Deflater(6, 12, 5, no_context_takeover=False)
        inflater = Inflater(12, no_context_takeover=False)
        peer = zlib.decompressobj(-12)
        for _ in range(3):
            first, second = deflater.deflate(TEXT), deflater.deflate(TEXT)
            assert inflate_alone(first) == TEXT
            assert len(second) < len(first) / 2
            for data in (first, second):
                assert inflate_whole(inflater, data) == TEXT
                assert peer.decompress(data + TAIL) == TEXT
            deflater.close()

    def test_interrupted_compression_leaves_the_peer_in_step(self, watch: Zlib) -> None:
        deflater = Deflater(6, 12, 5, no_context_takeover=False)
        inflater = Inflater(12, no_context_takeover=False)
        assert inflate_whole(inflater, deflater.deflate(b"before")) == b"before"
        watch.interrupt_flush = True
        with pytest.raises(KeyboardInterrupt):
            deflater.deflate(TEXT)
        watch.interrupt_flush = False
        assert inflate_whole(inflater, deflater.deflate(TEXT)) == TEXT

    def test_settings_tell_whose_messages_can_be_shared(self) -> None:
        deflater = Deflater(6, 12, 5, no_context_takeover=True)
        assert deflater.settings == (6, 12, 5)
        assert Deflater(6, 12, 5, no_context_takeover=True).settings == deflater.settings
        assert Deflater(6, 9, 5, no_context_takeover=True).settings != deflater.settings
        assert Deflater(6, 12, 5, no_context_takeover=False).settings is None

    def test_payload_of_another_type(self) -> None:
        deflater = Deflater(6, 12, 5, no_context_takeover=False)
        with pytest.raises(TypeError):
            deflater.deflate("text")  # type: ignore[arg-type]
        assert inflate_whole(Inflater(12, no_context_takeover=False), deflater.deflate(TEXT)) == TEXT


class TestMemory:
    """What an idle connection holds."""

    def test_contexts_are_made_on_first_use(self, watch: Zlib) -> None:
        deflater = Deflater(6, 12, 5, no_context_takeover=False)
        inflater = Inflater(12, no_context_takeover=False)
        assert inflate_whole(inflater, deflater.deflate(b"")) == b""
        assert len(watch.alive) == 0
        deflater.deflate_fragment(b"a", False)
        assert len(watch.alive) == 1

    def test_inflater_holds_a_stream_during_a_message_only(self, watch: Zlib) -> None:
        inflater = Inflater(12, no_context_takeover=False)
        inflater.inflate(compress(TEXT), None)
        assert len(watch.alive) == 1
        inflater.inflate(b"\x00", None)
        inflater.finish()
        assert len(watch.alive) == 0
        inflater.inflate(compress(TEXT, history=TEXT), None)
        inflater.close()
        assert len(watch.alive) == 0

    def test_deflater_without_context_takeover_holds_none_between_messages(self, watch: Zlib) -> None:
        deflater = Deflater(6, 12, 5, no_context_takeover=True)
        deflater.deflate_fragment(TEXT, False)
        assert len(watch.alive) == 1
        deflater.deflate_fragment(b"", True)
        assert len(watch.alive) == 0
        deflater.deflate(TEXT)
        assert len(watch.alive) == 0

    @pytest.mark.parametrize("bits", range(9, 16))
    def test_deflater_holds_a_stream_between_messages_for_a_large_window_only(
        self, bits: int, watch: Zlib
    ) -> None:
        deflater = Deflater(6, bits, 5, no_context_takeover=False)
        for _ in range(3):
            deflater.deflate_fragment(TEXT, False)
            assert len(watch.alive) == 1
            deflater.deflate_fragment(TEXT, True)
            assert len(watch.alive) == (bits >= 14)
        deflater.close()
        deflater.close()
        assert len(watch.alive) == 0

    @pytest.mark.parametrize("bits", [9, 12, 13])
    def test_deflater_holds_no_more_than_its_window(self, bits: int, watch: Zlib) -> None:
        deflater = Deflater(6, bits, 5, no_context_takeover=False)
        said = b""
        for size in (0, 1, 500, 12, 513, 4096, 100_000, 1, 300):
            message = random.Random(size).randbytes(size)
            deflater.deflate(message)
            if size:
                assert watch.windows[-1] == said[-(1 << bits) :]
            said += message

    @pytest.mark.parametrize("bits", [12, 15])
    def test_close_drops_the_context(self, bits: int, watch: Zlib) -> None:
        deflater = Deflater(6, bits, 5, no_context_takeover=False)
        deflater.deflate(TEXT)
        deflater.close()
        assert len(watch.alive) == 0
        deflater.deflate(TEXT)
        assert watch.windows == [b"", b""]


MESSAGES = st.lists(
    st.lists(
        st.one_of(
            st.binary(max_size=300),
            st.text("ab", max_size=300).map(str.encode),
            st.integers(0, 40_000).map(lambda size: (b"0123456789 " * 4000)[:size]),
        ),
        min_size=1,
        max_size=4,
    ),
    min_size=1,
    max_size=5,
)
CUTS = st.lists(st.integers(0, 50_000), max_size=6)


class TestProperties:
    @settings(max_examples=150, deadline=None)
    @given(
        level=st.integers(1, 9),
        bits=st.integers(9, 15),
        mem_level=st.integers(1, 9),
        alone=st.booleans(),
        messages=MESSAGES,
        positions=CUTS,
        data=st.data(),
    )
    def test_what_is_deflated_inflates(
        self,
        level: int,
        bits: int,
        mem_level: int,
        alone: bool,
        messages: list[list[bytes]],
        positions: list[int],
        data: st.DataObject,
    ) -> None:
        deflater = Deflater(level, bits, mem_level, no_context_takeover=alone)
        inflater = Inflater(data.draw(st.integers(bits, 15)), no_context_takeover=alone)
        peer = zlib.decompressobj(-bits)
        for fragments in messages:
            whole = b"".join(fragments)
            wire = b"".join(
                deflater.deflate_fragment(part, index == len(fragments) - 1)
                for index, part in enumerate(fragments)
            )
            assert inflate_pieces(inflater, cut(wire, positions), len(whole)) == whole
            assert peer.decompress(wire + TAIL) == whole
            if alone:
                peer = zlib.decompressobj(-bits)

    @settings(max_examples=150, deadline=None)
    @given(bits=st.integers(9, 15), messages=MESSAGES, positions=CUTS, data=st.data())
    def test_what_a_peer_with_any_blocks_deflates_inflates(
        self, bits: int, messages: list[list[bytes]], positions: list[int], data: st.DataObject
    ) -> None:
        inflater = Inflater(bits, no_context_takeover=False)
        history = b""
        for fragments in messages:
            wire = b""
            for part in fragments:
                final = data.draw(st.booleans())
                known = history[-(1 << bits) :] if data.draw(st.booleans()) else b""
                wire += compress(part, bits=bits, history=known, final=final)
                history += part
            assert inflate_pieces(inflater, cut(wire + b"\x00", positions)) == b"".join(fragments)

    @settings(max_examples=300, deadline=None)
    @given(
        garbage=st.one_of(
            st.binary(max_size=80),
            st.tuples(
                st.sampled_from([compress(TEXT), compress(TEXT, final=True)]),
                st.integers(0),
                st.binary(max_size=9),
            ).map(lambda parts: parts[0][: parts[1] % 80] + parts[2] + parts[0][parts[1] % 80 :]),
        ),
        positions=CUTS,
        limit=st.integers(0, 300),
    )
    def test_garbage_yields_the_same_however_it_is_cut(
        self, garbage: bytes, positions: list[int], limit: int
    ) -> None:
        outcomes: list[bytes | None] = []
        for pieces in ([garbage], cut(garbage, positions)):
            inflater = Inflater(12, no_context_takeover=False)
            try:
                outcomes.append(inflate_pieces(inflater, pieces, limit))
            except (InvalidPayload, MessageTooBig):
                outcomes.append(None)
        assert outcomes[0] == outcomes[1]
        assert outcomes[0] is None or len(outcomes[0]) <= limit


def frame(payload: bytes, *, masked: bool, opcode: int = 2, fin: bool = True) -> bytes:
    """A compressed frame (RFC 6455 section 5.2), masked with zeros where a client sends it."""
    first = (0x80 if fin else 0) | (0x40 if opcode else 0) | opcode
    mask = 0x80 if masked else 0
    if len(payload) < 126:
        head = bytes([first, mask | len(payload)])
    else:
        head = bytes([first, mask | 126]) + len(payload).to_bytes(2, "big")
    return head + (bytes(4) if masked else b"") + payload


def unframe(data: bytes) -> bytes:
    """The payload of one compressed frame with FIN."""
    assert data[0] == 0xC2
    length, offset = data[1] & 0x7F, 2
    if length == 126:
        length, offset = int.from_bytes(data[2:4], "big"), 4
    if data[1] & 0x80:
        key, payload = data[offset : offset + 4], data[offset + 4 :]
        payload = bytes(byte ^ key[index % 4] for index, byte in enumerate(payload))
    else:
        payload = data[offset:]
    assert len(payload) == length
    return payload


EXCHANGED = [TEXT, TEXT, b"a", random.Random(3).randbytes(5000), TEXT * 40, b"a"]
COMPRESSIONS = [
    Compression(),
    Compression(window_bits=15),
    Compression(window_bits=10),
    Compression(window_bits=15, context_takeover=False),
    Compression(window_bits=9, context_takeover=False, mem_level=1),
]


class TestInterop:
    """The extension of wsproto, in both roles."""

    @pytest.mark.parametrize("compression", COMPRESSIONS)
    @pytest.mark.parametrize(
        "arguments",
        [
            {},
            {"client_max_window_bits": 9},
            {"server_max_window_bits": 9},
            {"client_no_context_takeover": True},
            {"server_no_context_takeover": True},
            {
                "client_no_context_takeover": True,
                "server_no_context_takeover": True,
                "client_max_window_bits": 12,
            },
        ],
    )
    def test_server_with_wsproto_client(self, compression: Compression, arguments: dict[str, int]) -> None:
        extension = PerMessageDeflate(**arguments)
        offer = f"permessage-deflate; {extension.offer()}"
        agreed = negotiate_offer(parse_extensions([offer]), compression)
        assert agreed is not None
        extension.finalize(agreed.header())
        self.exchange(
            Connection(ConnectionType.CLIENT, [extension]),
            Deflater(
                compression.level,
                agreed.server_max_window_bits or 15,
                compression.mem_level,
                no_context_takeover=agreed.server_no_context_takeover,
            ),
            Inflater(
                agreed.client_max_window_bits or 15, no_context_takeover=agreed.client_no_context_takeover
            ),
            masked=False,
        )

    @pytest.mark.parametrize("compression", COMPRESSIONS)
    @pytest.mark.parametrize(
        "arguments", [{}, {"server_no_context_takeover": True}, {"client_no_context_takeover": True}]
    )
    def test_client_with_wsproto_server(self, compression: Compression, arguments: dict[str, int]) -> None:
        extension = PerMessageDeflate(**arguments)
        # wsproto's server answers a window that was offered without a value with its own, 15.
        response = extension.accept(client_offer(compression))
        agreed = accept_response(parse_extensions([f"permessage-deflate; {response}"]), compression)
        assert agreed is not None
        self.exchange(
            Connection(ConnectionType.SERVER, [extension]),
            Deflater(
                compression.level,
                agreed.client_max_window_bits or 15,
                compression.mem_level,
                no_context_takeover=agreed.client_no_context_takeover,
            ),
            Inflater(
                agreed.server_max_window_bits or 15, no_context_takeover=agreed.server_no_context_takeover
            ),
            masked=True,
        )

    def exchange(self, peer: Connection, deflater: Deflater, inflater: Inflater, *, masked: bool) -> None:
        for message in EXCHANGED:
            peer.receive_data(frame(deflater.deflate(message), masked=masked))
            assert b"".join(event.data for event in peer.events()) == message
            assert inflate_whole(inflater, unframe(peer.send(BytesMessage(data=message)))) == message
        # In fragments, an empty one among them.
        middle = deflater.deflate_fragment(b"", False)
        for data in (
            frame(deflater.deflate_fragment(TEXT, False), masked=masked, fin=False),
            frame(middle, masked=masked, opcode=0, fin=False),
            frame(deflater.deflate_fragment(b"!", True), masked=masked, opcode=0),
        ):
            peer.receive_data(data)
        assert b"".join(event.data for event in peer.events()) == TEXT + b"!"
