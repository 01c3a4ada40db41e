"""Properties of the whole protocol, and a second opinion.

However bytes are cut, the same comes of them; what one side encodes the other decodes; and wsproto,
written by others from the same RFC, comes to the same verdict where it looks.
"""

from __future__ import annotations

import random
import zlib
from typing import Any

import pytest
from builds import build_of
from hypothesis import example, given, settings
from hypothesis import strategies as st
from opinions import of_ours, of_wsproto
from peers import Peer, split_frames, take_events
from streams import Script, cut, encode, mutate, random_deflate, random_frames, record

from geventws.protocol.connection import Connection
from geventws.protocol.deflate import DeflateParameters

BUILD = build_of("geventws")

roles = pytest.mark.parametrize("client", [pytest.param(False, id="server"), pytest.param(True, id="client")])


def seen(
    client: bool, pieces: list[bytes], deflate: dict[str, Any] | None, direct: bool = False, **limits: Any
) -> Any:
    """All that can be seen of a connection that receives these pieces, but not at which of them."""
    actions: list[Any] = [("receive", piece, None, False) for piece in pieces]
    script = Script({"client": client, **limits}, deflate, actions, direct)
    *entries, state = record(BUILD, script)
    events = [event for outcome, *_ in entries for event in outcome]
    out = b"".join(chunk for _, _, *rest in entries for chunk in rest[1:])
    return events, out, state


def same_however_cut(client: bool, whole: bytes, pieces: list[bytes], deflate: Any, **limits: Any) -> None:
    """Compare; what zlib cannot tell is left out."""
    assert b"".join(pieces) == whole
    first = seen(client, [whole], deflate, **limits)
    second = seen(client, pieces, deflate, direct=True, **limits)
    if first != second:
        # A compressed text that breaks two rules, both of them 1007: it is not UTF-8, and further on it
        # is not DEFLATE data. zlib keeps what came out in front of such data to itself.
        kinds = {found[2][4] and found[2][4][1] for found in (first, second)}
        assert deflate is not None
        assert kinds == {"payload.utf8", "payload.deflate"}
        assert first[0] == second[0]
        return


def by_sizes(data: bytes, sizes: list[int]) -> list[bytes]:
    """Cut data into pieces of these sizes, and again from the first."""
    pieces = []
    at = turn = 0
    while at < len(data):
        size = sizes[turn % len(sizes)]
        pieces.append(data[at : at + size])
        at += size
        turn += 1
    return pieces


frames = st.builds(
    encode,
    st.sampled_from([0x81, 0x82, 0x01, 0x02, 0x00, 0x80, 0x89, 0x8A, 0x88, 0x83, 0x91, 0xC1, 0x42, 0x09]),
    st.one_of(
        st.binary(max_size=20),
        st.text(max_size=10).map(str.encode),
        st.integers(0, 300).map(bytes),
        st.sampled_from([b"\x03\xe8", b"\x03\xe9bye", b"\x03", b"\xf2\x48\xcd\xc9\xc9\x07\x00"]),
    ),
    st.just(None) | st.binary(min_size=4, max_size=4),
    form=st.sampled_from([0, 0, 0, 0, 126, 127]),
)


class TestCuts:
    """How bytes are cut changes nothing."""

    @settings(max_examples=250)
    @given(
        st.booleans(),
        st.lists(frames, max_size=6).map(b"".join),
        st.lists(st.integers(1, 40), min_size=1, max_size=5),
        st.sampled_from([None, {}, {"client_no_context_takeover": True, "server_no_context_takeover": True}]),
        st.sampled_from([1, 20, 125, 126, None]),
        st.sampled_from([1, 2, 4096]),
    )
    @example(False, b"\x81\x85\x00\x00\x00\x00\xed\xa0\x80zz", [1], None, None, 4096)
    def test_of_frames(
        self,
        client: bool,
        data: bytes,
        sizes: list[int],
        deflate: dict[str, Any] | None,
        max_message_size: int | None,
        max_fragments: int,
    ) -> None:
        same_however_cut(
            client,
            data,
            by_sizes(data, sizes),
            deflate,
            max_message_size=max_message_size,
            max_fragments=max_fragments,
        )

    @settings(max_examples=150)
    @given(
        st.booleans(),
        st.lists(
            st.builds(
                encode,
                st.sampled_from([0x81, 0x82, 0x01, 0x02, 0x00, 0x80, 0x89, 0xC1]),
                st.builds(
                    lambda size, piece, end: piece * (size // len(piece)) + end,
                    st.integers(0, 20_000),
                    st.sampled_from([b"a", "é€𐍈".encode(), b"aa\xed\xa0", b"\x00\xff"]),
                    st.binary(max_size=3),
                ),
                st.just(None) | st.binary(min_size=4, max_size=4),
            ),
            max_size=4,
        ).map(b"".join),
        st.lists(st.integers(1, 9000), min_size=1, max_size=5),
        st.sampled_from([None, 10_000]),
    )
    def test_of_large_frames(self, client: bool, data: bytes, sizes: list[int], limit: int | None) -> None:
        same_however_cut(client, data, by_sizes(data, sizes), None, max_message_size=limit)

    @settings(max_examples=100)
    @given(st.booleans(), st.binary(max_size=200), st.lists(st.integers(1, 20), min_size=1, max_size=5))
    def test_of_any_bytes(self, client: bool, data: bytes, sizes: list[int]) -> None:
        same_however_cut(client, data, by_sizes(data, sizes), None)

    @roles
    @pytest.mark.parametrize("batch", range(4))
    def test_of_random_conversations(self, client: bool, batch: int) -> None:
        for seed in range(batch * 250, (batch + 1) * 250):
            rng = random.Random(seed)
            deflate = random_deflate(rng)
            data = b"".join(random_frames(rng, not client, deflate))
            if rng.random() < 0.4:
                data = mutate(rng, data)
            limits = {
                "max_message_size": rng.choice((None, None, 125, 1000)),
                "max_fragments": rng.choice((None, None, 3)),
            }
            same_however_cut(client, data, list(cut(rng, data)), deflate, **limits)

    @roles
    def test_of_every_one_of_two(self, client: bool) -> None:
        peer = Peer(client)
        data = peer.bytes_of(
            b"\x01\x02\xc3\xa9", b"\x89\x01?", b"\x00\x01\xe2", b"\x80\x02\x82\xac", b"\x88\x02\x03\xe8"
        )
        for at in range(len(data) + 1):
            same_however_cut(client, data, [data[:at], data[at:]], None)


messages = st.one_of(st.text(max_size=200), st.binary(max_size=200), st.integers(0, 70_000).map(bytes))


class TestRoundTrip:
    """What one side encodes the other decodes."""

    @settings(max_examples=120)
    @given(
        st.booleans(),
        st.lists(st.tuples(messages, st.sampled_from([None, True, False])), max_size=6),
        st.none()
        | st.builds(
            DeflateParameters,
            st.booleans(),
            st.booleans(),
            st.sampled_from([None, 9, 11, 15]),
            st.sampled_from([None, 9, 11, 15]),
        ),
        st.sampled_from([0, 64]),
        st.integers(1, 9),
    )
    def test_messages(
        self,
        client: bool,
        said: list[tuple[str | bytes, bool | None]],
        deflate: DeflateParameters | None,
        threshold: int,
        level: int,
    ) -> None:
        sender = Connection(client=client, deflate=deflate, threshold=threshold, level=level)
        receiver = Connection(client=not client, deflate=deflate)
        for message, compress in said:
            sender.send(message, compress)
        receiver.receive_data(b"".join(sender.out))
        assert take_events(receiver) == [("message", message) for message, _ in said]
        assert receiver.phase == 0

    @settings(max_examples=80)
    @given(
        st.booleans(),
        st.lists(st.text(max_size=30), min_size=1, max_size=8)
        | st.lists(st.binary(max_size=30), min_size=1, max_size=8),
        st.none() | st.just(DeflateParameters()),
        st.booleans(),
    )
    def test_fragments(
        self, client: bool, fragments: list[Any], deflate: DeflateParameters | None, pings: bool
    ) -> None:
        sender = Connection(client=client, deflate=deflate)
        receiver = Connection(client=not client, deflate=deflate)
        for at, fragment in enumerate(fragments):
            opcode = 0 if at else 1 if isinstance(fragment, str) else 2
            sender.send_fragment(fragment, opcode, at == len(fragments) - 1)
            if pings:
                sender.send_ping(b"between")
        receiver.receive_data(b"".join(sender.out))
        assert take_events(receiver) == [("message", type(fragments[0])().join(fragments))]
        assert len(receiver.out) == (len(fragments) if pings else 0)


class TestSecondOpinion:
    """wsproto reads the same bytes."""

    @roles
    @pytest.mark.parametrize("deflate", [False, True])
    def test_random_conversations(self, client: bool, deflate: bool) -> None:
        verdicts: dict[Any, int] = {}
        for seed in range(500):
            rng = random.Random(seed)
            pieces = random_frames(rng, not client, {} if deflate else None, incomplete=0)
            if deflate:
                pieces = [piece for piece in pieces if piece[0] not in (0x89, 0x8A)]
            ours = of_ours(BUILD, client, pieces, deflate)
            theirs = of_wsproto(client, pieces, deflate)
            verdicts[ours[1]] = verdicts.get(ours[1], 0) + 1
            assert ours == theirs, (seed, pieces)
        assert verdicts[None] > 100, verdicts
        assert verdicts[1002] > 20, verdicts
        assert verdicts[1007] > 5, verdicts

    @roles
    def test_it_reads_what_we_write(self, client: bool) -> None:
        sender = Connection(client=client, deflate=DeflateParameters())
        said: list[str | bytes] = ["", "Hello £€𐍈", b"\xff" * 300, "x" * 70_000, b""]
        for message in said:
            sender.send(message, True)
            sender.send(message, False)
        sender.send_close(1001, "bye")
        pieces = list(split_frames(b"".join(sender.out)))
        events, verdict = of_wsproto(not client, pieces, True)
        assert verdict is None
        assert events[:-1] == [("message", message) for message in said for _ in range(2)]
        assert events[-1] == ("close", 1001, "bye")

    def test_the_opinions_can_differ(self) -> None:
        # It would not do if both were asked the same question in the same place.
        stream = zlib.compressobj(9, zlib.DEFLATED, -15)
        packed = (stream.compress(b"Hello" * 50) + stream.flush(zlib.Z_SYNC_FLUSH))[:-6]
        frame = encode(0xC2, packed, b"abcd")
        assert of_ours(BUILD, False, [frame], True)[1] == 1007
        assert of_wsproto(False, [frame], True)[1] is None
