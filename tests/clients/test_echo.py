"""`geventws echo` gives back to every client, byte for byte, what it sent."""

from __future__ import annotations

import itertools

import pytest
from clients.adapters import CLIENTS, Offer
from clients.payloads import KINDS, SIZES, check_same, make

BROWSERS = Offer()

# With its default settings the server limits both windows to 4 KiB.
AGREED = ["client_max_window_bits=12", "permessage-deflate", "server_max_window_bits=12"]


def elements(header):
    """The extension and its parameters; their order says nothing (RFC 7692 section 5.2)."""
    return sorted(element.strip() for element in header.split(";")) if header else []


def client_modes():
    """Each client on each transport: does the server compress, does the client offer to."""
    for client, adapter in CLIENTS.items():
        for transport in ("tcp", "tls", "unix"):
            for compression in (False, True):
                for offer in (None, BROWSERS):
                    if offer is None or adapter.can_offer(offer):
                        text = f"{client}-{transport}-{'deflate' if compression else 'plain'} server"
                        text += "-offered" if offer else "-not offered"
                        yield pytest.param(client, transport, compression, offer, id=text)


pytestmark = [
    pytest.mark.parametrize(("client", "transport", "compression", "offer"), [*client_modes()]),
    pytest.mark.timeout(600),
]


@pytest.fixture
def connection(connect, servers, transport, compression, offer, checks):
    """A connection on which is agreed what server and client can do; it ends with 1000 on both sides."""
    with connect(servers.echo(transport, compression), "/", offer) as connection:
        assert elements(connection.extensions) == (AGREED if compression and offer else [])
        checks.ok()
        yield connection
        assert connection.close(1000, "done") == 1000
        checks.ok()


def test_messages_of_all_sizes(connection, checks):
    for size in SIZES:
        for kind in KINDS:
            message = make(kind, size)
            connection.send(message)
            try:
                check_same(connection.receive(), message)
            except AssertionError as error:
                raise AssertionError(f"{kind}, {size} bytes: {error}") from None
            checks.ok()


def test_messages_in_flight_keep_their_order(connection, checks):
    messages = [make(KINDS[i % 3], i) for i in range(300)]
    for message in messages:
        connection.send(message)
    for message in messages:
        check_same(connection.receive(), message)
    checks.ok(len(messages))


def test_fragments_are_one_message(connection, checks):
    if not connection.fragments:
        pytest.skip(f"{connection.name} cannot send fragments")
    for kind in KINDS:
        for size in (5, 125, 65_536, 1_000_000):
            message = make(kind, size)
            end = len(message)
            # Empty fragments are among them, also the last.
            cuts = sorted([0, 1, 1, end // 3, end // 2, end // 2, end, end])
            connection.send_fragments([message[a:b] for a, b in itertools.pairwise(cuts)])
            connection.send("behind")
            check_same(connection.receive(), message)
            check_same(connection.receive(), "behind")
            checks.ok()


def test_pings_are_answered(connection, checks):
    for data in (b"ping", b"\x00\xff" * 62 + b"\x00"):
        connection.ping(data)
        connection.send("between")
        check_same(connection.receive(), "between")
        checks.ok()
