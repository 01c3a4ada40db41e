"""Parameters of permessage-deflate (RFC 7692 section 7.1), as other people's clients offer and keep them."""

from __future__ import annotations

import json

import pytest
from clients.adapters import CLIENTS, Offer
from clients.payloads import check_same, make

SMALLEST = "client_max_window_bits=9 server_max_window_bits=9"
FORGETFUL = "client_no_context_takeover server_no_context_takeover"

#: The server's settings by their name in dialogue.py, the client's offer, and the parameters agreed on;
#: None where the offer is declined.
CASES = [
    ("default", Offer(), "client_max_window_bits=12 server_max_window_bits=12"),
    ("default", Offer(client_max_window_bits=False), "server_max_window_bits=12"),
    ("default", Offer(client_max_window_bits=9), "client_max_window_bits=9 server_max_window_bits=12"),
    ("default", Offer(client_max_window_bits=15), "client_max_window_bits=12 server_max_window_bits=12"),
    ("default", Offer(server_max_window_bits=9), "client_max_window_bits=12 server_max_window_bits=9"),
    ("default", Offer(server_max_window_bits=14), "client_max_window_bits=12 server_max_window_bits=12"),
    # zlib cannot keep to a window of 256 bytes.
    ("default", Offer(server_max_window_bits=8), None),
    (
        "default",
        Offer(server_no_context_takeover=True),
        "client_max_window_bits=12 server_max_window_bits=12 server_no_context_takeover",
    ),
    (
        "default",
        Offer(client_no_context_takeover=True),
        "client_max_window_bits=12 client_no_context_takeover server_max_window_bits=12",
    ),
    ("large", Offer(), ""),
    ("large", Offer(server_max_window_bits=10), "server_max_window_bits=10"),
    ("large", Offer(client_max_window_bits=10), "client_max_window_bits=10"),
    (
        "large",
        Offer(True, True, 9, 9),
        f"{SMALLEST} {FORGETFUL}",
    ),
    (
        "frugal",
        Offer(),
        f"{SMALLEST} {FORGETFUL}",
    ),
    (
        "frugal",
        Offer(client_max_window_bits=False),
        f"server_max_window_bits=9 {FORGETFUL}",
    ),
    ("eager", Offer(), "client_max_window_bits=12 server_max_window_bits=12"),
    ("none", Offer(), None),
    ("none", Offer(True, True, 9, 9), None),
]


def client_cases():
    for client, adapter in CLIENTS.items():
        for server, offer, agreed in CASES:
            if adapter.can_offer(offer):
                yield pytest.param(client, server, offer, agreed, id=f"{client}-{server}-{offer}")


pytestmark = [
    pytest.mark.parametrize(("client", "server", "offer", "agreed"), [*client_cases()]),
    pytest.mark.timeout(300),
]


def test_parameters_hold(connect, servers, server, offer, agreed, checks):
    with connect(servers.dialogue("tcp", server), "/obey", offer) as connection:
        wanted = [] if agreed is None else sorted(["permessage-deflate", *agreed.split()])
        header = connection.extensions
        assert (sorted(part.strip() for part in header.split(";")) if header else []) == wanted
        checks.ok()
        # Messages that repeat what is inside the window, at its edge and outside of it, and those before.
        noise = make("binary", 40_000)
        messages = [
            noise[:size] * 3 for size in (0, 1, 100, 255, 256, 257, 500, 512, 3000, 4096, 20_000, 32_768)
        ]
        messages += [noise[:300], noise[:300], b"", bytes(100_000), noise, noise]
        for message in messages:
            connection.send(message)
            check_same(connection.receive(), message)
            checks.ok()
        check_octets(connection, agreed is not None)
        checks.ok()
        assert connection.close(1000, "") == 1000
        checks.ok()


def count(connection):
    connection.send(json.dumps({"do": "count"}))
    return json.loads(connection.receive())


def check_octets(connection, compressed):
    """Check by the bytes on the wire that both sides compress, or that none does."""
    size = 100_000
    before = count(connection)
    connection.send(make("ascii", size).encode())
    check_same(connection.receive(), make("ascii", size).encode())
    after = count(connection)
    for direction in ("received", "sent"):
        octets = after[direction] - before[direction]
        assert (octets < size // 2) if compressed else (octets > size), f"{octets} bytes {direction}"
