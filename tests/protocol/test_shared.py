"""A message for many connections: the same bytes as one that is sent to each, made once."""

from __future__ import annotations

import pytest
from peers import Peer, take_events

from geventws.exceptions import ConnectionClosedError
from geventws.protocol.connection import Connection
from geventws.protocol.deflate import DeflateParameters
from geventws.protocol.shared import SharedMessage

pytestmark = pytest.mark.usefixtures("compressor")

TEXT = "a message for many " * 10
ALONE = DeflateParameters(server_no_context_takeover=True, client_no_context_takeover=True)
CONTEXT = DeflateParameters()


def messages(frames: list[bytes], deflate: DeflateParameters | None) -> list[str | bytes]:
    """What a client gets from these frames."""
    client = Connection(client=True, deflate=deflate)
    client.receive_data(b"".join(frames))
    return [data for _, data in take_events(client)]


def test_frames_of_a_text() -> None:
    message = SharedMessage("Hello")
    assert message.data == "Hello"
    assert message.size == 5
    assert message.frame() == b"\x81\x05Hello"
    assert message.frame() is message.frame()


def test_frames_of_a_binary_message() -> None:
    assert SharedMessage(b"Hello").frame() == b"\x82\x05Hello"


def test_the_empty_message() -> None:
    assert SharedMessage("").frame() == b"\x81\x00"
    assert SharedMessage(b"").size == 0


def test_size_counts_octets() -> None:
    assert SharedMessage("é").size == 2


def test_a_lone_surrogate_is_told_before_anything_is_sent() -> None:
    with pytest.raises(UnicodeEncodeError):
        SharedMessage("\ud800")


def test_compressed_frames_are_kept_for_each_setting() -> None:
    message = SharedMessage(TEXT)
    first = message.deflated_frame((6, 12, 5))
    assert first[0] == 0xC1
    assert message.deflated_frame((6, 12, 5)) is first
    assert message.deflated_frame((1, 9, 1)) is not first
    # RFC 7692 section 7.2.1: a client of a connection with these settings can read it.
    assert messages([first, first], DeflateParameters(True, True, 12, 12)) == [TEXT] * 2


def test_a_binary_message_compressed() -> None:
    assert SharedMessage(b"x" * 100).deflated_frame((6, 12, 5))[0] == 0xC2


@pytest.mark.parametrize("data", [TEXT, TEXT.encode(), "", b""])
@pytest.mark.parametrize("deflate", [None, ALONE, CONTEXT])
@pytest.mark.parametrize("compress", [None, True, False])
@pytest.mark.parametrize("threshold", [0, 64, 10_000])
def test_server_sends_what_it_would_send_alone(
    compressor: str,
    data: str | bytes,
    deflate: DeflateParameters | None,
    compress: bool | None,
    threshold: int,
) -> None:
    shared, alone = (Peer(False, deflate=deflate, threshold=threshold) for _ in range(2))
    message = SharedMessage(data)
    for _ in range(2):
        shared.connection.send_shared(message, compress)
        alone.connection.send(data, compress)
    frames, expected = shared.receives(), alone.receives()
    assert [frame[0] for frame in frames] == [frame[0] for frame in expected]
    if compressor == "zlib":
        # Not with ISA-L, which may compress the same bytes in two ways (docs/performance.md).
        assert frames == expected
    assert messages(frames, deflate) == messages(expected, deflate) == [data] * 2


def test_one_frame_object_goes_to_all() -> None:
    message = SharedMessage(TEXT)
    peers = [Peer(False, deflate=ALONE) for _ in range(3)]
    for peer in peers:
        peer.connection.send_shared(message)
    assert len({id(peer.connection.out[0]) for peer in peers}) == 1


def test_client_masks_each_with_a_key_of_its_own() -> None:
    message = SharedMessage(b"\x00" * 16)
    peers = [Peer(True) for _ in range(4)]
    for peer in peers:
        peer.connection.send_shared(message)
    assert len({bytes(peer.connection.out[0][2:6]) for peer in peers}) > 1
    assert all(peer.receives() == [b"\x82\x10" + bytes(16)] for peer in peers)


@pytest.mark.parametrize("client", [False, True])
def test_nothing_is_sent_after_a_close(client: bool) -> None:
    peer = Peer(client)
    peer.connection.send_close()
    peer.receives()
    with pytest.raises(ConnectionClosedError):
        peer.connection.send_shared(SharedMessage("late"))
    assert peer.receives() == []
