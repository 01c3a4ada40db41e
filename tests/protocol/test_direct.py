"""Payloads that are received straight behind the end of a block: `wanted`, `block`, `feed_block`."""

from __future__ import annotations

import pytest
from peers import KEY, exclusive_or, take_events

from geventws.protocol.connection import Connection
from geventws.protocol.deflate import DeflateParameters

PAYLOAD = bytes(range(256)) * 1024  # 256 KiB
roles = pytest.mark.parametrize("client", [pytest.param(False, id="server"), pytest.param(True, id="client")])


def header(client: bool, size: int, first: int = 0x82) -> bytes:
    """A header of a frame whose length takes 64 bits."""
    return bytes((first, 0x7F if client else 0xFF)) + size.to_bytes(8, "big") + (b"" if client else KEY)


def masked(client: bool, data: bytes, phase: int = 0) -> bytes:
    """A part of a payload as it comes, `phase` bytes behind its beginning."""
    return data if client else exclusive_or(data, KEY, phase)


def opened(client: bool, **options: object) -> Connection:
    connection = Connection(client=client, **options)  # type: ignore[arg-type]
    connection.direct = True
    return connection


def give(connection: Connection, data: bytes) -> None:
    """Put bytes where they are wanted, as the transport does."""
    with connection.block.room(connection.wanted) as room:
        room[: len(data)] = data
    connection.feed_block(len(data))
    connection.feed(bytearray(), 0)


@roles
def test_all_of_a_payload_in_pieces_of_any_size(client: bool) -> None:
    connection = opened(client)
    connection.receive_data(header(client, len(PAYLOAD)) + masked(client, PAYLOAD[:10_001]))
    at = 10_001
    assert take_events(connection) == []
    for size in (1, 2, 3, 5, 4000, 4001, 60_003):
        assert connection.wanted >= size
        give(connection, masked(client, PAYLOAD[at : at + size], at))
        at += size
        assert take_events(connection) == []
    while connection.wanted:
        size = connection.wanted
        give(connection, masked(client, PAYLOAD[at : at + size], at))
        at += size
        found = take_events(connection)
    # What is left at the end is not worth a system call of its own.
    connection.receive_data(masked(client, PAYLOAD[at:], at))
    assert found + take_events(connection) == [("message", PAYLOAD)]
    assert connection.wanted == 0


@roles
def test_what_comes_behind_the_payload(client: bool) -> None:
    connection = opened(client)
    connection.receive_data(header(client, 69632) + masked(client, PAYLOAD[:65536]))
    assert take_events(connection) == []
    assert connection.wanted == 4096
    with connection.block.room(4096) as room:
        room[:] = masked(client, PAYLOAD[65536:69632])
    connection.feed_block(4096)
    behind = b"\x8a\x01x" if client else b"\x8a\x81" + KEY + exclusive_or(b"x", KEY)
    connection.feed(bytearray(behind), len(behind))
    assert take_events(connection) == [("message", PAYLOAD[:69632]), ("pong", b"x")]


@roles
@pytest.mark.parametrize(("missing", "wanted"), [(4095, 0), (4096, 4096), (4097, 4097)])
def test_from_4_kib_on(client: bool, missing: int, wanted: int) -> None:
    connection = opened(client)
    connection.receive_data(header(client, 65536 + missing) + masked(client, PAYLOAD[:65536]))
    assert take_events(connection) == []
    assert connection.wanted == wanted


@roles
def test_what_is_to_be_unmasked_comes_in_256_kib_at_the_most(client: bool) -> None:
    connection = opened(client)
    connection.receive_data(header(client, 1024 * 1024) + masked(client, PAYLOAD[:65536]))
    assert take_events(connection) == []
    # A server's frames are not masked: nothing is to be found in the processor's cache.
    assert connection.wanted == (1024 * 1024 - 65536 if client else 256 * 1024)


@roles
def test_a_length_alone_is_not_believed(client: bool) -> None:
    connection = opened(client)
    connection.receive_data(header(client, 1024 * 1024))
    assert take_events(connection) == []
    # RFC 6455 does not forbid to announce a mebibyte and send nothing.
    assert connection.wanted == 4096


@roles
def test_text_is_checked_there_too(client: bool) -> None:
    connection = opened(client)
    connection.receive_data(header(client, 65536, 0x81))
    assert take_events(connection) == []
    give(connection, masked(client, b"a" * 100 + b"\xed\xa0", 0))
    assert take_events(connection) == [("failed",)]
    assert connection.wanted == 0


@roles
def test_compressed_data_never_goes_there(client: bool) -> None:
    connection = opened(client, deflate=DeflateParameters())
    connection.receive_data(header(client, 65536, 0xC2) + masked(client, b"\x00"))
    assert take_events(connection) == []
    assert connection.wanted == 0


@roles
def test_only_those_who_look_are_asked(client: bool) -> None:
    connection = opened(client)
    connection.direct = False
    connection.receive_data(header(client, 65536))
    assert take_events(connection) == []
    assert connection.wanted == 0


@roles
def test_a_fragment_behind_another(client: bool) -> None:
    connection = opened(client)
    connection.receive_data(
        header(client, 65536, 0x02) + masked(client, PAYLOAD[:65536]) + header(client, 65536, 0x80)
    )
    assert take_events(connection) == []
    assert connection.wanted == 65536
    give(connection, masked(client, PAYLOAD[65536:131072], 0))
    assert take_events(connection) == [("message", PAYLOAD[:131072])]


@roles
@pytest.mark.parametrize("count", [-1, 8193])
def test_a_count_that_cannot_be(client: bool, count: int) -> None:
    connection = opened(client)
    connection.receive_data(header(client, 65536 + 8192) + masked(client, PAYLOAD[:65536]))
    assert take_events(connection) == []
    assert connection.wanted == 8192
    with pytest.raises(ValueError, match=f"^{count} bytes where 8192 were wanted$"):
        connection.feed_block(count)


@roles
def test_nothing_came(client: bool) -> None:
    connection = opened(client)
    connection.receive_data(header(client, 65536 + 8192) + masked(client, PAYLOAD[:65536]))
    assert take_events(connection) == []
    give(connection, b"")
    assert take_events(connection) == []
    assert connection.wanted == 8192
