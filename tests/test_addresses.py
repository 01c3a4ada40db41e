"""Counting by address: what stands for one client, and whose word about it counts."""

from __future__ import annotations

import ipaddress
from typing import Any

import pytest

from geventws.addresses import AddressCounter, client_address, group
from geventws.protocol.http import Request

PROXIES = tuple(map(ipaddress.ip_network, ("10.0.0.0/8", "2001:db8:1::/48")))


def request(*forwarded: str, peer: Any = ("10.0.0.1", 1)) -> Request:
    made = Request("GET", "/", [("X-Forwarded-For", field) for field in forwarded])
    made.remote_address = peer
    return made


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:5:6:1:2:3:4", "2001:db8:5:6::/64"),
        ("2001:db8:5:6::", "2001:db8:5:6::/64"),
        ("2001:db8:5:7::", "2001:db8:5:7::/64"),
        ("::1", "::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("fe80::2", "fe80::/64"),
        ("no:address", "no:address"),
    ],
)
def test_p1_36_group(host: str, expected: str) -> None:
    assert group(host) == expected


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ((), "10.0.0.1"),
        (("192.0.2.7",), "192.0.2.7"),
        # Whoever connected to the last trusted proxy; the rest it may have written itself.
        (("1.2.3.4, 192.0.2.7",), "192.0.2.7"),
        (("1.2.3.4", "192.0.2.7"), "192.0.2.7"),
        (("1.2.3.4, 192.0.2.7 ,10.1.1.1",), "192.0.2.7"),
        (("192.0.2.7, 10.1.1.1, 2001:db8:1::5",), "192.0.2.7"),
        (("10.3.3.3, 10.2.2.2",), "10.3.3.3"),
        (("192.0.2.7:4711",), "192.0.2.7"),
        (("[2001:db8:5::1]:80",), "2001:db8:5::1"),
        (("2001:DB8:5:0::1",), "2001:db8:5::1"),
        (("::ffff:192.0.2.7",), "192.0.2.7"),
        (("unknown",), "10.0.0.1"),
        (("192.0.2.7, _hidden",), "10.0.0.1"),
        (("192.0.2.7,",), "10.0.0.1"),
        (("192.0.2.7, 999.0.0.1",), "10.0.0.1"),
        (("1" * 5000,), "10.0.0.1"),
        (("192.0.2.7, \u0661.2.3.4",), "10.0.0.1"),
    ],
)
def test_p1_36_client_behind_a_proxy(fields: tuple[str, ...], expected: str) -> None:
    assert client_address("10.0.0.1", request(*fields), PROXIES) == expected


class TestCounter:
    def test_up_to_the_limit_and_back(self) -> None:
        counter = AddressCounter(2, ())
        assert [counter.enter("a"), counter.enter("a"), counter.enter("a"), counter.enter("b")] == [
            True,
            True,
            False,
            True,
        ]
        assert len(counter) == 2
        counter.leave("a")
        assert counter.enter("a")
        for key in "aab":
            counter.leave(key)
        # Nothing is kept of those that have gone.
        assert len(counter) == 0

    def test_who_is_not_counted_by_its_own_address(self) -> None:
        counter = AddressCounter(2, PROXIES)
        assert counter.key(("192.0.2.7", 1)) == "192.0.2.7"
        assert counter.key(("10.9.9.9", 1)) == ""
        assert counter.key(("::ffff:10.9.9.9", 1, 0, 0)) == ""
        assert counter.key(("2001:db8:1::7", 1, 0, 0)) == ""
        assert counter.key("") == counter.key(b"") == ""

    def test_client_key(self) -> None:
        counter = AddressCounter(2, PROXIES)
        assert counter.client_key(request("2001:db8:5:6::7")) == "2001:db8:5:6::/64"
        assert counter.client_key(request("192.0.2.7", peer="")) == ""
