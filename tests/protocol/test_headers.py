"""Header fields and the grammars of their values: RFC 9110 section 5, RFC 6455 section 9.1."""

from __future__ import annotations

import sys
from types import MappingProxyType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geventws.exceptions import InvalidHeader
from geventws.protocol.headers import (
    Headers,
    check_field,
    format_extensions,
    is_token,
    parse_extensions,
    parse_token_list,
    parse_upgrade,
)

TCHAR = "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"

tokens = st.text(alphabet=TCHAR, min_size=1, max_size=8)


def calls_of(function, *args):
    """Count the function calls, C ones too, that a call makes: work that no busy machine changes."""
    count = 0

    def profile(frame, event, arg):
        nonlocal count
        if event in ("call", "c_call"):
            count += 1

    sys.setprofile(profile)
    try:
        function(*args)
    except InvalidHeader:
        pass
    finally:
        sys.setprofile(None)
    return count


class TestToken:
    """RFC 9110 section 5.6.2."""

    @pytest.mark.parametrize("character", [chr(code) for code in range(256)])
    def test_every_character(self, character):
        assert is_token(character) is (character in TCHAR)
        assert is_token(f"a{character}b") is (character in TCHAR)

    @pytest.mark.parametrize("value", ["", "\u0131", "\u212a", "a\U0001f600"])
    def test_not_a_token(self, value):
        assert is_token(value) is False


class TestCheckField:
    @pytest.mark.parametrize(
        ("name", "value"),
        [("Set-Cookie", "a=b; Path=/"), ("x", ""), ("X_y", "a\tb c"), ("x", "caf\xe9"), ("x", "\xff\x80")],
    )
    def test_fields_that_can_be_sent(self, name, value):
        check_field(name, value)

    @pytest.mark.parametrize("code", [*range(9), *range(10, 32), 127])
    def test_control_characters_in_a_value(self, code):
        for value in (chr(code), f"a{chr(code)}b", f"a{chr(code)}"):
            with pytest.raises(ValueError, match="control characters"):
                check_field("x", value)

    @pytest.mark.parametrize("value", [" a", "a ", "\ta", "a\t"])
    def test_space_at_the_ends(self, value):
        with pytest.raises(ValueError, match="space at its ends"):
            check_field("x", value)

    @pytest.mark.parametrize("value", ["\u20ac", "a\U0001f600", "\ud800"])
    def test_value_that_is_not_latin_1(self, value):
        with pytest.raises(ValueError, match="latin-1"):
            check_field("x", value)

    @pytest.mark.parametrize("name", ["", "a b", "a:", "a\r\nb", "a\0", "\xe9", "a\n"])
    def test_name_that_is_not_a_token(self, name):
        with pytest.raises(ValueError, match="not the name of a header field"):
            check_field(name, "x")

    @pytest.mark.parametrize("name", ["Authorization: SECRET", "Cookie=SECRET", "Cookie SECRET", "X\tSECRET"])
    def test_value_in_the_name(self, name):
        with pytest.raises(ValueError, match=r"'\w+\.\.\.' is not the name of a header field") as caught:
            check_field(name, "x")
        assert "SECRET" not in str(caught.value)

    @pytest.mark.parametrize(
        ("name", "value"), [(b"a", "b"), ("a", b"b"), ("a", 1), (None, "b"), ("a", None)]
    )
    def test_types(self, name, value):
        with pytest.raises(TypeError, match="is a str"):
            check_field(name, value)

    @pytest.mark.parametrize(
        ("value", "message"),
        [
            ("Bearer SECRET\n", r"control characters: character 14 of 14 is '\\n'"),
            ("SEC\0RET\r\n", r"control characters: character 4 of 9 is '\\x00'"),
            ("SECRET\u20ac", "latin-1 only: character 7 of 7 is '\u20ac'"),
            (" SECRET", "no space at its ends"),
            (b"SECRET", "is a str, not bytes"),
        ],
    )
    def test_no_message_has_the_value(self, value, message):
        with pytest.raises((TypeError, ValueError), match=message) as caught:
            check_field("Authorization", value)
        assert "SEC" not in str(caught.value)
        assert "Authorization" in str(caught.value)


class TestHeaders:
    def test_pairs_stay_in_order_and_as_spelt(self):
        pairs = [("Host", "a"), ("x-Y", "1"), ("X-y", "2")]
        headers = Headers(pairs)
        assert headers.items() == pairs
        assert list(headers) == ["Host", "x-Y", "X-y"]
        assert len(headers) == 3

    def test_names_compare_without_case(self):
        headers = Headers([("Host", "a"), ("x-Y", "1"), ("X-y", "2")])
        assert headers["hOST"] == "a"
        assert headers.get("X-Y") == "1"
        assert headers.get_all("x-y") == ["1", "2"]
        assert headers.count("X-Y") == 2
        assert "HOST" in headers

    def test_what_is_missing(self):
        headers = Headers({"a": "b"})
        with pytest.raises(KeyError, match="Host"):
            headers["Host"]
        assert headers.get("Host") is None
        assert headers.get("Host", "x") == "x"
        assert headers.get_all("Host") == []
        assert headers.count("Host") == 0
        assert "Host" not in headers
        assert 1 not in headers

    def test_an_empty_value_is_a_value(self):
        headers = Headers([("a", "")])
        assert headers.get("a", "x") == ""
        assert headers.get_all("a") == [""]

    def test_an_underscore_is_no_hyphen(self):
        assert "x-y" not in Headers([("X_Y", "1")])

    def test_from_mappings_iterators_and_headers(self):
        expected = Headers([("a", "b")])
        assert Headers(MappingProxyType({"a": "b"})) == expected
        assert Headers(iter([("a", "b")])) == expected
        copy = Headers(expected)
        assert copy == expected
        copy.add("A", "c")
        assert len(expected) == 1
        assert not Headers()

    def test_add_goes_behind_the_others(self):
        headers = Headers([("a", "1")])
        headers.add("A", "2")
        assert headers.get_all("a") == ["1", "2"]
        assert headers.items() == [("a", "1"), ("A", "2")]

    def test_equality(self):
        assert Headers([("A", "1")]) == Headers([("a", "1")])
        assert Headers([("a", "1")]) != Headers([("a", "2")])
        assert Headers([("a", "1"), ("b", "2")]) != Headers([("b", "2"), ("a", "1")])
        assert Headers([("a", "1")]) != [("a", "1")]
        with pytest.raises(TypeError, match="unhashable"):
            hash(Headers())

    def test_repr_escapes(self):
        assert repr(Headers([("a", "\x1b[0m")])) == r"Headers([('a', '\x1b[0m')])"

    def test_small_in_memory(self):
        # One is kept for every connection: three tuples and the object, nothing for a field.
        headers = Headers([(f"x-{number}", "") for number in range(10)])
        size = sys.getsizeof(headers) + sum(
            sys.getsizeof(getattr(headers, slot)) for slot in Headers.__slots__
        )
        assert size <= 500
        assert not hasattr(headers, "__dict__")


class TestTokenList:
    """RFC 9110 section 5.6.1."""

    @pytest.mark.parametrize(
        ("values", "expected"),
        [
            ([], []),
            ([""], []),
            (["Upgrade"], ["Upgrade"]),
            (["keep-alive, Upgrade"], ["keep-alive", "Upgrade"]),
            (["a,b", "c"], ["a", "b", "c"]),
            ([" a\t,\t b "], ["a", "b"]),
            ([",a,, ,b,", ","], ["a", "b"]),
            (["a,a"], ["a", "a"]),
        ],
    )
    def test_lists(self, values, expected):
        assert parse_token_list(values) == expected

    @pytest.mark.parametrize(
        "values",
        [
            ["a b"],
            ["a;b"],
            ['"a"'],
            ["a", "b/c"],
            ["a\0"],
            ["a\x0b,b"],
            ["\xe9"],
            ["a,\xa0"],
            ["a=b"],
            ["(c)"],
        ],
    )
    def test_malformed(self, values):
        with pytest.raises(InvalidHeader) as caught:
            parse_token_list(iter(values), "Connection")
        assert caught.value.status == 400
        assert caught.value.name == "Connection"
        assert caught.value.value == ", ".join(values)

    def test_message_has_the_character_alone(self):
        """Browsers' programs put credentials among the subprotocols."""
        with pytest.raises(InvalidHeader) as caught:
            parse_token_list(["bearer, SECRET@RET"], "Sec-WebSocket-Protocol")
        assert "Sec-WebSocket-Protocol has an element with '@', which is not a token" in str(caught.value)
        assert "SECRET" not in str(caught.value)

    @given(st.lists(tokens, max_size=5), st.sampled_from([",", ", ", " ,\t", ",,"]))
    def test_round_trip(self, names, separator):
        assert parse_token_list([separator.join(names)]) == names


class TestUpgrade:
    """RFC 9110 section 7.8."""

    @pytest.mark.parametrize(
        ("values", "expected"),
        [
            (["websocket"], ["websocket"]),
            (["HTTP/2.0, SHTTP/1.3", "IRC/6.9,x"], ["HTTP/2.0", "SHTTP/1.3", "IRC/6.9", "x"]),
            ([",websocket,"], ["websocket"]),
            ([], []),
        ],
    )
    def test_lists(self, values, expected):
        assert parse_upgrade(values) == expected

    @pytest.mark.parametrize("value", ["/1", "a/", "a/b/c", "a b", "websocket;q=1", "a/\xe9", "\xb5"])
    def test_malformed(self, value):
        with pytest.raises(InvalidHeader, match="not a protocol") as caught:
            parse_upgrade([value])
        assert caught.value.name == "Upgrade"


class TestExtensions:
    """RFC 6455 section 9.1."""

    @pytest.mark.parametrize(
        ("values", "expected"),
        [
            ([], []),
            ([""], []),
            ([" , ,"], []),
            (["foo"], [("foo", [])]),
            (["foo, foo"], [("foo", []), ("foo", [])]),
            (["foo", "bar; baz=2"], [("foo", []), ("bar", [("baz", "2")])]),
            (
                ["permessage-deflate; client_max_window_bits; server_max_window_bits=10"],
                [
                    (
                        "permessage-deflate",
                        [("client_max_window_bits", None), ("server_max_window_bits", "10")],
                    )
                ],
            ),
            ([' a ;b = "1" ; c\t=\t2 ,d'], [("a", [("b", "1"), ("c", "2")]), ("d", [])]),
            (['a; b="\\1\\0"'], [("a", [("b", "10")])]),
            (["a; b; b=1; b"], [("a", [("b", None), ("b", "1"), ("b", None)])]),
            (
                ["constructor, __proto__; toString=1"],
                [("constructor", []), ("__proto__", [("toString", "1")])],
            ),
        ],
    )
    def test_lists(self, values, expected):
        assert parse_extensions(values) == expected

    @pytest.mark.parametrize(
        ("value", "position", "found"),
        [
            ("a b", 2, "'b'"),
            ("a;", 2, "the end"),
            ("a;;b", 2, "';'"),
            ("a; ,b", 3, "','"),
            ("a; b=", 5, "the end"),
            ("a; b=,c", 5, "','"),
            ("a; =1", 3, "'='"),
            ("a=1", 1, "'='"),
            ("a; b==1", 5, "'='"),
            (";a", 0, "';'"),
            ('"a"', 0, "'\"'"),
            ('a; "b"=1', 3, "'\"'"),
            ('a; b="', 6, "the end"),
            ('a; b="1', 7, "the end"),
            ('a; b="1\\', 8, "the end"),
            ('a; b=""', 5, "'\"'"),
            ('a; b="1 2"', 5, "'\"'"),
            ('a; b="1,2"', 5, "'\"'"),
            ('a; b="\\"1"', 5, "'\"'"),
            ('a; b="1"2', 8, "'2'"),
            ('a; b="\0"', 6, "'\\x00'"),
            ('a; b="\\\x01"', 7, "'\\x01'"),
            ("a; b=1 2", 7, "'2'"),
            ("a\0", 1, "'\\x00'"),
            ("\xe9", 0, "'\xe9'"),
            ("a; \xb5=1", 3, "'\xb5'"),
        ],
    )
    def test_malformed(self, value, position, found):
        with pytest.raises(InvalidHeader) as caught:
            parse_extensions(["ok", value])
        assert str(caught.value).endswith(f"at position {position}, found {found}")
        assert (caught.value.name, caught.value.value) == ("Sec-WebSocket-Extensions", value)
        assert caught.value.status == 400

    @given(
        st.lists(
            st.tuples(tokens, st.lists(st.tuples(tokens, st.none() | tokens), max_size=3)),
            max_size=4,
        )
    )
    def test_round_trip(self, extensions):
        assert parse_extensions([format_extensions(extensions)]) == extensions

    @given(st.text(alphabet=' \t,;="\\a1\0\xe9', max_size=20))
    def test_any_text_is_a_list_or_malformed(self, value):
        try:
            extensions = parse_extensions([value])
        except InvalidHeader:
            return
        assert parse_extensions([format_extensions(extensions)]) == extensions

    @pytest.mark.parametrize(
        "extensions",
        [
            [("", [])],
            [("a b", [])],
            [("a", [("", None)])],
            [("a", [("b\r\n", None)])],
            [("a", [("b", "")])],
            [("a", [("b", "1, c")])],
        ],
    )
    def test_only_tokens_are_written(self, extensions):
        with pytest.raises(ValueError, match="not a token"):
            format_extensions(extensions)


class TestLinear:
    """Hostile values cost no more than their length: twice as long is at most about twice the work."""

    @pytest.mark.parametrize(
        ("parse", "prefix", "unit"),
        [
            (parse_token_list, "a", " "),
            (parse_token_list, "a", ", "),
            (parse_token_list, "b", " ,\t"),
            (parse_upgrade, "a", "/"),
            (parse_upgrade, "a", ",a/b"),
            (parse_extensions, "a", " "),
            (parse_extensions, 'a; b="', "\\c"),
            (parse_extensions, 'a; b="', "c"),
            (parse_extensions, "a", ";b=c"),
            (parse_extensions, "a", ',a;b="c"'),
            (parse_extensions, "a;b", "b" * 50),
        ],
    )
    def test_hostile_values(self, parse, prefix, unit):
        # Up to the most elements that there may be.
        short, long = (calls_of(parse, [prefix + unit * times]) for times in (60, 120))
        assert long <= 2.2 * short + 20

    @pytest.mark.parametrize("lines", [1, 8])
    @pytest.mark.parametrize(
        ("parse", "unit"),
        [
            (parse_token_list, "a,"),
            (parse_token_list, ","),
            (parse_upgrade, "a/1,"),
            (parse_extensions, "a,"),
            (parse_extensions, "a;b=c,"),
        ],
    )
    def test_elements_are_limited(self, parse, unit, lines):
        """T-HS5: twenty-eight thousand of them hold up everybody else as long as hundreds of handshakes."""
        separators = unit.count(",") + unit.count(";")
        # Behind the last comma of each line there is an empty one.
        most = (256 // lines - 1) // separators
        parse([unit * most] * lines)
        with pytest.raises(InvalidHeader, match=r"has 2\d\d elements, more than 256"):
            parse([unit * (most + 1)] * lines)
        assert calls_of(parse, [unit * 1000] * lines) < 30
