"""Options: what they default to, what they take, and what they refuse by name."""

from __future__ import annotations

import dataclasses
import fractions
import ipaddress
import math
import pickle
import re
from typing import Any

import pytest

from geventws import Compression, Options, RateLimit, WebSocketServer
from geventws.protocol.http import Response

COUNTS = {
    "max_message_size": 1024 * 1024,
    "max_fragments": 4096,
    "max_queue": 16,
    "max_queue_bytes": 1024 * 1024,
    "write_limit": 1024 * 1024,
    "max_connections": 10_000,
    "max_handshakes": 1024,
    "max_line": 8192,
    "max_headers": 100,
    "max_head": 65536,
}
SECONDS = {
    "write_timeout": 10,
    "open_timeout": 10,
    "close_timeout": 5,
    "ping_interval": 20,
    "ping_timeout": 20,
    "stop_timeout": 10,
}
CHOICES: dict[str, Any] = {
    "compression": None,
    "subprotocols": (),
    "origins": "same-host",
    "slow_consumer": "close",
    "process_request": None,
    "max_connections_per_address": "max_connections",
    "trusted_proxies": (),
    "rate_limit": RateLimit(),
}

#: Possible nowhere, by the type of the exception.
NO_COUNT = [(True, TypeError), (1.5, TypeError), (math.inf, TypeError), (math.nan, TypeError)]
NO_SECONDS = [(True, TypeError), (math.inf, ValueError), (-math.inf, ValueError), (math.nan, ValueError)]
NO_NUMBER: list[tuple[Any, type[Exception]]] = [
    (0, ValueError),
    (-1, ValueError),
    (2**60, ValueError),
    (10**400, ValueError),
    ("10", TypeError),
    (b"10", TypeError),
    ([10], TypeError),
    (False, TypeError),
    (fractions.Fraction(10), TypeError),
    (1j, TypeError),
]


def origin_check(request: Any, origin: str) -> bool:
    return True


class TestDefaults:
    @pytest.mark.parametrize(("name", "value"), [*COUNTS.items(), *SECONDS.items(), *CHOICES.items()])
    def test_default(self, name: str, value: Any) -> None:
        assert getattr(Options(), name) == value

    def test_all_are_in_the_tables_above(self) -> None:
        assert {field.name for field in dataclasses.fields(Options)} == {*COUNTS, *SECONDS, *CHOICES}

    @pytest.mark.parametrize("kind", [Options, Compression, RateLimit])
    def test_each_is_documented_with_its_default(self, kind: type) -> None:
        text = " ".join((kind.__doc__ or "").split())
        names = [field.name for field in dataclasses.fields(kind)]
        for name in names:
            found = re.search(rf" {name}: (.*?)(?= (?:{'|'.join(names)}|Raises): |$)", text)
            assert found is not None, name
            assert "Default" in found[1], name

    def test_frozen_and_keyword_only(self) -> None:
        with pytest.raises(dataclasses.FrozenInstanceError):
            Options().max_queue = 1  # type: ignore[misc]
        with pytest.raises(TypeError, match="positional"):
            Options(1)  # type: ignore[misc]

    def test_equal_and_copied(self) -> None:
        options = Options(max_queue=3, subprotocols=["a"], compression=True)
        assert options == Options(max_queue=3, subprotocols=("a",), compression=Compression())
        assert pickle.loads(pickle.dumps(options)) == options
        assert dataclasses.replace(options, max_queue=4).max_queue == 4


class TestNumbers:
    @pytest.mark.parametrize("name", [*COUNTS, *SECONDS])
    def test_possible(self, name: str) -> None:
        for value in (1, 2**59, None):
            assert getattr(Options(**{name: value}), name) == value

    @pytest.mark.parametrize("name", SECONDS)
    def test_fractions_of_a_second(self, name: str) -> None:
        assert getattr(Options(**{name: 0.25}), name) == 0.25

    @pytest.mark.parametrize(("value", "error"), NO_NUMBER + NO_COUNT, ids=lambda value: repr(value)[:20])
    @pytest.mark.parametrize("name", COUNTS)
    def test_no_count(self, name: str, value: Any, error: type[Exception]) -> None:
        with pytest.raises(error, match=rf"^{name} takes a .*number of .* or None \(unlimited\), not "):
            Options(**{name: value})

    @pytest.mark.parametrize(("value", "error"), NO_NUMBER + NO_SECONDS, ids=lambda value: repr(value)[:20])
    @pytest.mark.parametrize("name", SECONDS)
    def test_no_seconds(self, name: str, value: Any, error: type[Exception]) -> None:
        with pytest.raises(error, match=rf"^{name} takes a .*number of seconds or None \(unlimited\), not "):
            Options(**{name: value})


class TestChoices:
    @pytest.mark.parametrize(
        ("given", "kept"),
        [
            ({"subprotocols": ["a", "b"]}, ("a", "b")),
            ({"subprotocols": (name for name in ("a", "b"))}, ("a", "b")),
            ({"origins": ["https://example.com", "http://[::1]:8080", "http://b:443", "null"]}, None),
            ({"origins": None}, None),
            ({"origins": []}, ()),
            ({"origins": origin_check}, origin_check),
            ({"subprotocols": max}, max),
            ({"compression": True}, Compression()),
            ({"compression": Compression(level=1)}, Compression(level=1)),
            ({"slow_consumer": "skip"}, "skip"),
            ({"process_request": Response}, Response),
        ],
        ids=range(11),
    )
    def test_possible(self, given: dict[str, Any], kept: Any) -> None:
        ((name, value),) = given.items()
        expected = tuple(value) if kept is None and value is not None else kept
        assert getattr(Options(**given), name) == expected

    @pytest.mark.parametrize(
        ("given", "error", "message"),
        [
            ({"compression": False}, TypeError, "compression"),
            ({"compression": 6}, TypeError, "compression"),
            ({"compression": "deflate"}, TypeError, "compression"),
            ({"subprotocols": "chat"}, TypeError, "'chat'"),
            ({"subprotocols": None}, TypeError, "subprotocols"),
            ({"subprotocols": 5}, TypeError, "subprotocols"),
            ({"subprotocols": [b"chat"]}, TypeError, "b'chat'"),
            ({"subprotocols": ["a b"]}, ValueError, "'a b'"),
            ({"subprotocols": [""]}, ValueError, "''"),
            ({"subprotocols": ["a\r\nX: 1"]}, ValueError, "token"),
            ({"subprotocols": ["caf\xe9"]}, ValueError, "token"),
            ({"origins": "https://example.com"}, TypeError, "a list"),
            ({"origins": "*"}, TypeError, "a list"),
            ({"origins": 5}, TypeError, "origins"),
            ({"origins": [b"https://example.com"]}, TypeError, "origins"),
            # These would never match anything, and nobody would know why.
            ({"origins": ["https://a.example:443"]}, ValueError, "leave :443 out"),
            ({"origins": ["http://a.example:80"]}, ValueError, "leave :80 out"),
            ({"origins": ["HTTPS://[::1]:0443"]}, ValueError, "leave :443 out"),
            ({"origins": ["*"]}, ValueError, "None allows any"),
            ({"origins": ["example.com"]}, ValueError, "scheme"),
            ({"origins": ["https://example.com/"]}, ValueError, "example.com/"),
            ({"origins": ["https://*.example.com"]}, ValueError, "compared whole"),
            ({"origins": ["https://example.com:"]}, ValueError, "compared whole"),
            ({"origins": ["https://user@example.com"]}, ValueError, "user@example.com"),
            ({"origins": [""]}, ValueError, "scheme"),
            ({"slow_consumer": "drop"}, ValueError, "'drop'"),
            ({"slow_consumer": None}, ValueError, "slow_consumer"),
            ({"slow_consumer": []}, ValueError, "slow_consumer"),
            ({"process_request": "check"}, TypeError, "'check'"),
            ({"process_request": Response(200)}, TypeError, "process_request"),
        ],
        ids=range(30),
    )
    def test_refused(self, given: dict[str, Any], error: type[Exception], message: str) -> None:
        with pytest.raises(error, match=message.replace("*", r"\*")) as info:
            Options(**given)
        assert next(iter(given)) in str(info.value)


class TestCompression:
    @pytest.mark.parametrize(
        ("name", "low", "high"),
        [("level", 1, 9), ("window_bits", 9, 15), ("mem_level", 1, 9), ("threshold", 0, 2**31)],
    )
    def test_ranges(self, name: str, low: int, high: int) -> None:
        for value in (low, high):
            assert getattr(Compression(**{name: value}), name) == value
        for value in (low - 1, high + 1, 10**30):
            with pytest.raises(
                ValueError, match=rf"^{name} takes an integer from {low} to {high}, not {value}$"
            ):
                Compression(**{name: value})
        for wrong in (None, True, 9.0, "9", math.nan):
            with pytest.raises(TypeError, match=rf"^{name} takes an integer from {low} to {high}, not "):
                Compression(**{name: wrong})

    @pytest.mark.parametrize("value", [0, 1, None, "yes"])
    def test_context_takeover(self, value: Any) -> None:
        assert Compression(context_takeover=False).context_takeover is False
        with pytest.raises(TypeError, match="context_takeover takes True or False"):
            Compression(context_takeover=value)


def handler(ws: Any) -> None:
    pass


class TestServer:
    """A server refuses what is wrong when it is made, before anything is bound."""

    def test_options_are_taken(self) -> None:
        server = WebSocketServer(("127.0.0.1", 0), handler, max_queue=3, origins=None)
        assert server.options == Options(max_queue=3, origins=None)
        assert server.closed

    @pytest.mark.parametrize("name", [*COUNTS, *SECONDS])
    def test_values_are_checked(self, name: str) -> None:
        with pytest.raises(ValueError, match=name):
            WebSocketServer(("127.0.0.1", 0), handler, **{name: 0})

    @pytest.mark.parametrize(
        ("wrong", "meant"),
        [
            ("max_mesage_size", "max_message_size"),
            ("ping_intervall", "ping_interval"),
            ("origin", "origins"),
            ("subprotocol", "subprotocols"),
            ("cert_file", "certfile"),
            ("sslcontext", "ssl_context"),
            ("xyzzy", None),
        ],
    )
    def test_unknown_option(self, wrong: str, meant: str | None) -> None:
        with pytest.raises(TypeError) as info:
            WebSocketServer(("127.0.0.1", 0), handler, **{wrong: 1})
        text = str(info.value)
        assert text.startswith(f"WebSocketServer() has no option {wrong!r}")
        if meant is None:
            assert "did you mean" not in text
        else:
            assert f"did you mean {meant!r}?" in text

    @pytest.mark.parametrize("wrong", [None, "handler", 5, {"/": handler}, [handler]])
    def test_handler(self, wrong: Any) -> None:
        with pytest.raises(TypeError, match="handler takes a function or a Router"):
            WebSocketServer(("127.0.0.1", 0), wrong)

    @pytest.mark.parametrize(
        ("spawn", "error"),
        [
            (0, ValueError),
            (-1, ValueError),
            (None, TypeError),
            (True, TypeError),
            ("pool", TypeError),
            (1.5, TypeError),
        ],
    )
    def test_spawn(self, spawn: Any, error: type[Exception]) -> None:
        with pytest.raises(error, match="spawn takes a"):
            WebSocketServer(("127.0.0.1", 0), handler, spawn=spawn)

    @pytest.mark.parametrize("listener", ["nonsense", object()])
    def test_listener(self, listener: Any) -> None:
        with pytest.raises((TypeError, ValueError)):
            WebSocketServer(listener, handler)


class TestRateLimit:
    @pytest.mark.parametrize("name", ["messages", "bytes", "controls", "burst"])
    @pytest.mark.parametrize("value", [1, 0.5, 10**9])
    def test_possible(self, name: str, value: float) -> None:
        assert getattr(RateLimit(**{name: value}), name) == value

    @pytest.mark.parametrize("name", ["messages", "bytes", "controls", "burst"])
    @pytest.mark.parametrize(("value", "error"), NO_NUMBER[:5] + NO_SECONDS)
    def test_refused(self, name: str, value: Any, error: type[Exception]) -> None:
        with pytest.raises(error, match=name):
            RateLimit(**{name: value})

    def test_none_lifts_all_but_the_burst(self) -> None:
        limit = RateLimit(messages=None, bytes=None, controls=None)
        assert (limit.messages, limit.bytes, limit.controls) == (None, None, None)
        with pytest.raises(TypeError, match="burst"):
            RateLimit(burst=None)  # type: ignore[arg-type]

    @pytest.mark.parametrize("wrong", [1, True, {"messages": 1}, RateLimit])
    def test_option(self, wrong: Any) -> None:
        with pytest.raises(TypeError, match="rate_limit"):
            Options(rate_limit=wrong)


class TestAddresses:
    def test_proxies_are_kept_as_networks(self) -> None:
        proxies = ["10.0.0.0/8", "127.0.0.1", "::1", ipaddress.ip_network("192.0.2.0/24")]
        assert [str(network) for network in Options(trusted_proxies=proxies).trusted_proxies] == [
            "10.0.0.0/8",
            "127.0.0.1/32",
            "::1/128",
            "192.0.2.0/24",
        ]

    @pytest.mark.parametrize(
        ("wrong", "error"),
        [
            ("10.0.0.1", TypeError),
            (1, TypeError),
            ([1], TypeError),
            (["10.0.0.1/8"], ValueError),
            (["proxy.example"], ValueError),
            (["*"], ValueError),
        ],
    )
    def test_no_proxies(self, wrong: Any, error: type[Exception]) -> None:
        with pytest.raises(error, match="trusted_proxies"):
            Options(trusted_proxies=wrong)

    @pytest.mark.parametrize(("wrong", "error"), NO_NUMBER + NO_COUNT)
    def test_no_limit_for_each(self, wrong: Any, error: type[Exception]) -> None:
        with pytest.raises(error, match="max_connections_per_address"):
            Options(max_connections_per_address=wrong)

    @pytest.mark.parametrize("value", [1, 10, None])
    def test_limit_for_each(self, value: int | None) -> None:
        assert Options(max_connections_per_address=value).max_connections_per_address == value
