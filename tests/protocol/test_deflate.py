"""permessage-deflate: its negotiation."""

from __future__ import annotations

import pickle

import pytest

from geventws.exceptions import NegotiationError
from geventws.options import Compression
from geventws.protocol.deflate import (
    DeflateParameters,
    accept_response,
    client_offer,
    negotiate_offer,
)
from geventws.protocol.headers import parse_extensions

FULL = Compression(window_bits=15)
SMALL = Compression(window_bits=10)
ALONE = Compression(window_bits=15, context_takeover=False)


def answer(*values: str, compression: Compression | None = FULL) -> str | None:
    """A server's answer to the values of Sec-WebSocket-Extensions fields."""
    agreed = negotiate_offer(parse_extensions(values), compression)
    return None if agreed is None else agreed.header()


def accept(*values: str, compression: Compression | None = FULL) -> DeflateParameters | None:
    """What a client makes of the values of Sec-WebSocket-Extensions fields."""
    return accept_response(parse_extensions(values), compression)


class TestServerNegotiates:
    """RFC 7692 sections 5.1 and 7.1, the side that answers."""

    @pytest.mark.parametrize(
        ("offer", "expected"),
        [
            ("", ""),
            ("; server_no_context_takeover", "; server_no_context_takeover"),
            ("; client_no_context_takeover", "; client_no_context_takeover"),
            (
                "; client_no_context_takeover; server_no_context_takeover",
                "; server_no_context_takeover; client_no_context_takeover",
            ),
            ("; server_max_window_bits=15", "; server_max_window_bits=15"),
            ("; server_max_window_bits=12", "; server_max_window_bits=12"),
            ('; server_max_window_bits="12"', "; server_max_window_bits=12"),
            ("; server_max_window_bits=9", "; server_max_window_bits=9"),
            ("; client_max_window_bits", ""),
            ("; client_max_window_bits=15", ""),
            ("; client_max_window_bits=14", "; client_max_window_bits=14"),
            ("; client_max_window_bits=8", "; client_max_window_bits=8"),
            (
                (
                    "; client_max_window_bits=10; server_max_window_bits=11; client_no_context_takeover"
                    "; server_no_context_takeover"
                ),
                (
                    "; server_no_context_takeover; client_no_context_takeover; server_max_window_bits=11"
                    "; client_max_window_bits=10"
                ),
            ),
        ],
    )
    def test_server_with_full_window_answers_what_was_offered(self, offer: str, expected: str) -> None:
        assert answer("permessage-deflate" + offer) == "permessage-deflate" + expected

    @pytest.mark.parametrize(
        ("offer", "expected"),
        [
            # The server may always tell that its window is smaller; the client's it limits only where
            # the client said that it can.
            ("", "; server_max_window_bits=10"),
            ("; server_max_window_bits=15", "; server_max_window_bits=10"),
            ("; server_max_window_bits=9", "; server_max_window_bits=9"),
            ("; client_max_window_bits", "; server_max_window_bits=10; client_max_window_bits=10"),
            ("; client_max_window_bits=15", "; server_max_window_bits=10; client_max_window_bits=10"),
            ("; client_max_window_bits=9", "; server_max_window_bits=10; client_max_window_bits=9"),
        ],
    )
    def test_server_with_small_window_limits_both_sides_where_it_may(self, offer: str, expected: str) -> None:
        assert answer("permessage-deflate" + offer, compression=SMALL) == "permessage-deflate" + expected

    @pytest.mark.parametrize("offer", ["", "; client_no_context_takeover", "; server_no_context_takeover"])
    def test_server_without_context_takeover_demands_it_of_both_sides(self, offer: str) -> None:
        expected = "permessage-deflate; server_no_context_takeover; client_no_context_takeover"
        assert answer("permessage-deflate" + offer, compression=ALONE) == expected

    def test_server_asks_a_browser_for_the_default_window(self) -> None:
        expected = "permessage-deflate; server_max_window_bits=12; client_max_window_bits=12"
        assert answer("permessage-deflate; client_max_window_bits", compression=Compression()) == expected

    ILLEGAL = (
        "unknown",
        "unknown=1",
        "Server_no_context_takeover",
        "server_no_context_takeover=true",
        "server_no_context_takeover=1",
        "client_no_context_takeover=10",
        "server_no_context_takeover; server_no_context_takeover",
        "client_no_context_takeover; client_no_context_takeover",
        "server_max_window_bits=10; server_max_window_bits=10",
        "client_max_window_bits; client_max_window_bits=10",
        "client_max_window_bits=10; client_max_window_bits",
        "server_max_window_bits",
        "server_max_window_bits=7",
        "server_max_window_bits=16",
        "server_max_window_bits=0",
        "server_max_window_bits=-9",
        "server_max_window_bits=+9",
        "server_max_window_bits=09",
        "server_max_window_bits=012",
        "server_max_window_bits=12.0",
        "server_max_window_bits=0xc",
        "server_max_window_bits=1_2",
        "server_max_window_bits=999",
        "server_max_window_bits=99999999999999999999999",
        "client_max_window_bits=7",
        "client_max_window_bits=16",
        "client_max_window_bits=08",
        "client_max_window_bits=ten",
    )

    @pytest.mark.parametrize("parameters", ILLEGAL)
    def test_server_declines_an_illegal_offer_and_takes_the_next(self, parameters: str) -> None:
        illegal = f"permessage-deflate; {parameters}"
        assert answer(illegal) is None
        assert answer(f"permessage-deflate; client_no_context_takeover; {parameters}") is None
        good = "permessage-deflate; server_max_window_bits=11"
        assert answer(f"{illegal}, {good}") == good
        assert answer(illegal, good) == good

    @pytest.mark.parametrize("value", ["", " 9", "9 ", "9\n", "\u0669", "\uff11\uff12", "\u00b2"])
    def test_server_declines_values_that_python_takes_for_numbers(self, value: str) -> None:
        for name in ("server_max_window_bits", "client_max_window_bits", "server_no_context_takeover"):
            assert negotiate_offer([("permessage-deflate", [(name, value)])], FULL) is None

    def test_server_declines_a_window_of_8_bits_that_zlib_cannot_keep(self) -> None:
        offer = "permessage-deflate; server_max_window_bits=8"
        assert answer(offer) is None
        assert answer(offer, compression=SMALL) is None
        assert answer(f"{offer}, permessage-deflate") == "permessage-deflate"

    @pytest.mark.parametrize(
        "values",
        [
            ("permessage-deflate; server_max_window_bits=10, permessage-deflate",),
            ("permessage-deflate; server_max_window_bits=10", "permessage-deflate"),
            (
                "x-webkit-deflate-frame, mux; a=1",
                "permessage-deflate; server_max_window_bits=10, permessage-deflate",
            ),
        ],
    )
    def test_server_takes_the_first_acceptable_offer(self, values: tuple[str, ...]) -> None:
        assert answer(*values) == "permessage-deflate; server_max_window_bits=10"

    def test_server_knows_nothing_but_permessage_deflate(self) -> None:
        assert answer() is None
        assert answer("x-webkit-deflate-frame") is None
        assert answer("permessage-bzip2, permessage-deflate-2") is None

    def test_server_without_compression_declines(self) -> None:
        assert answer("permessage-deflate", compression=None) is None


class TestClientNegotiates:
    """RFC 7692 sections 5.1 and 7.1, the side that offers."""

    @pytest.mark.parametrize(
        ("compression", "expected"),
        [
            (FULL, "permessage-deflate; client_max_window_bits"),
            (SMALL, "permessage-deflate; server_max_window_bits=10; client_max_window_bits=10"),
            (
                ALONE,
                (
                    "permessage-deflate; server_no_context_takeover; client_no_context_takeover"
                    "; client_max_window_bits"
                ),
            ),
        ],
    )
    def test_client_offers(self, compression: Compression, expected: str) -> None:
        assert client_offer(compression) == expected

    @pytest.mark.parametrize(
        ("compression", "response", "expected"),
        [
            (FULL, "", DeflateParameters()),
            (FULL, "; server_no_context_takeover", DeflateParameters(server_no_context_takeover=True)),
            (FULL, "; client_no_context_takeover", DeflateParameters(client_no_context_takeover=True)),
            (FULL, "; server_max_window_bits=8", DeflateParameters(server_max_window_bits=8)),
            (FULL, "; server_max_window_bits=15", DeflateParameters(server_max_window_bits=15)),
            (FULL, "; client_max_window_bits=9", DeflateParameters(client_max_window_bits=9)),
            (FULL, "; client_max_window_bits=15", DeflateParameters()),
            # Where the server sets the client no limit, its own settings still hold.
            (
                SMALL,
                "; server_max_window_bits=10",
                DeflateParameters(server_max_window_bits=10, client_max_window_bits=10),
            ),
            (
                SMALL,
                '; server_max_window_bits="9"; client_max_window_bits=9',
                DeflateParameters(server_max_window_bits=9, client_max_window_bits=9),
            ),
            (
                ALONE,
                "; server_no_context_takeover",
                DeflateParameters(server_no_context_takeover=True, client_no_context_takeover=True),
            ),
        ],
    )
    def test_client_accepts(
        self, compression: Compression, response: str, expected: DeflateParameters
    ) -> None:
        assert accept("permessage-deflate" + response, compression=compression) == expected

    @pytest.mark.parametrize("compression", [FULL, SMALL, ALONE, None])
    def test_client_goes_without_when_the_server_declines(self, compression: Compression | None) -> None:
        assert accept(compression=compression) is None

    @pytest.mark.parametrize(
        "parameters", [*TestServerNegotiates.ILLEGAL, "client_max_window_bits", "client_no_context_takeover="]
    )
    def test_client_receives_illegal_parameters_fails(self, parameters: str) -> None:
        pairs = [
            (name, value if sign else None) for name, sign, value in map(split_pair, parameters.split("; "))
        ]
        with pytest.raises(NegotiationError, match="permessage-deflate: "):
            accept_response([("permessage-deflate", pairs)], FULL)

    @pytest.mark.parametrize(
        ("compression", "values", "message"),
        [
            (
                FULL,
                ("x-webkit-deflate-frame",),
                "the extension 'x-webkit-deflate-frame', which was not offered",
            ),
            (FULL, ("permessage-deflate, mux",), "the extension 'mux', which was not offered"),
            (FULL, ("mux", "permessage-deflate"), "the extension 'mux', which was not offered"),
            (None, ("permessage-deflate",), "the extension 'permessage-deflate', which was not offered"),
            (FULL, ("permessage-deflate, permessage-deflate",), "permessage-deflate twice"),
            (FULL, ("permessage-deflate", "permessage-deflate"), "permessage-deflate twice"),
            (SMALL, ("permessage-deflate",), "window of 15 bits is larger than the 10 offered"),
            (
                SMALL,
                ("permessage-deflate; server_max_window_bits=11",),
                "window of 11 bits is larger than the 10 offered",
            ),
            (
                SMALL,
                ("permessage-deflate; server_max_window_bits=10; client_max_window_bits=11",),
                "client_max_window_bits=11 is larger than the 10 offered",
            ),
            (ALONE, ("permessage-deflate",), "lacks server_no_context_takeover"),
            (
                ALONE,
                ("permessage-deflate; client_no_context_takeover",),
                "lacks server_no_context_takeover",
            ),
            (
                FULL,
                ("permessage-deflate; client_max_window_bits=8",),
                "client_max_window_bits=8 is below 9",
            ),
        ],
    )
    def test_client_receives_an_answer_to_no_offer_of_its_own_fails(
        self, compression: Compression | None, values: tuple[str, ...], message: str
    ) -> None:
        with pytest.raises(NegotiationError, match=message):
            accept(*values, compression=compression)

    @pytest.mark.parametrize("client", [FULL, SMALL, ALONE])
    @pytest.mark.parametrize("server", [FULL, SMALL, ALONE])
    def test_both_roles_agree_with_each_other(self, client: Compression, server: Compression) -> None:
        header = answer(client_offer(client), compression=server)
        assert header is not None
        agreed = accept(header, compression=client)
        assert agreed is not None
        assert agreed.header() == header
        assert (agreed.server_max_window_bits or 15) == min(client.window_bits, server.window_bits)
        assert (agreed.client_max_window_bits or 15) == min(client.window_bits, server.window_bits)
        alone = not (client.context_takeover and server.context_takeover)
        assert agreed.server_no_context_takeover is alone
        assert agreed.client_no_context_takeover is alone

    def test_parameters_are_a_value(self) -> None:
        parameters = DeflateParameters(server_max_window_bits=12)
        assert parameters == DeflateParameters(False, False, 12, None)
        assert pickle.loads(pickle.dumps(parameters)) == parameters
        assert len({parameters, DeflateParameters(server_max_window_bits=12)}) == 1
        with pytest.raises(AttributeError):
            parameters.server_max_window_bits = 9  # type: ignore[misc]


def split_pair(text: str) -> tuple[str, str, str]:
    """name=value, as the parser of the header would hand it over."""
    name, sign, value = text.partition("=")
    return name, sign, value.strip('"')
