"""What the server begins, other people's clients understand: pings, fragments, closing."""

from __future__ import annotations

import itertools
import json

import pytest
from clients.adapters import CLIENTS, Offer
from clients.payloads import KINDS, check_same, make

BROWSERS = Offer()

numbers = itertools.count()


def client_modes():
    for client, adapter in CLIENTS.items():
        for transport in ("tcp", "tls", "unix"):
            for offer in (None, BROWSERS):
                if offer is None or adapter.can_offer(offer):
                    text = f"{client}-{transport}-{'offered' if offer else 'not offered'}"
                    yield pytest.param(client, transport, offer, id=text)


pytestmark = [
    pytest.mark.parametrize(("client", "transport", "offer"), [*client_modes()]),
    pytest.mark.timeout(300),
]


@pytest.fixture
def query():
    """What the server calls this connection by when it reports its end."""
    return f"connection={next(numbers)}"


@pytest.fixture
def connection(connect, servers, transport, offer, query):
    with connect(servers.dialogue(transport), f"/obey?{query}", offer) as connection:
        yield connection


def order(connection, do, **what):
    connection.send(json.dumps({"do": do, **what}))


def test_pings_are_answered(connection, checks):
    for data in ("", "ping", "x" * 125):
        order(connection, "ping", data=data)
        # The server says so when the Pong is there, with the same data.
        check_same(connection.receive(), "pong")
        checks.ok()


def test_fragments_are_one_message(connection, checks):
    for kind in KINDS:
        for size, parts in ((5, 5), (65_536, 3), (1_000_000, 100)):
            order(connection, "send fragments", kind=kind, size=size, parts=parts)
            check_same(connection.receive(), make(kind, size))
            checks.ok()


@pytest.mark.parametrize(
    ("code", "reason"), [(1000, ""), (1000, "that is all"), (1001, "away"), (4999, "ours")]
)
def test_server_closes(connection, servers, query, code, reason, checks):
    order(connection, "close", code=code, reason=reason)
    assert connection.wait_closed() == (code, reason)
    answered, _ = servers.end_of(query)
    # RFC 6455 section 5.5.1: who answers typically echoes the code.
    assert answered == (code if connection.echoes_code else 1000)
    checks.ok()


@pytest.mark.parametrize(("code", "reason"), [(1000, ""), (1000, "Ende, 終わり"), (3000, "x" * 123)])
def test_client_closes(connection, servers, query, code, reason, checks):
    assert connection.close(code, reason) == code
    assert servers.end_of(query) == (code, reason)
    checks.ok()
