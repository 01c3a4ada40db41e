"""Limits, cuts and leftovers of request and response heads: RFC 9112 section 2."""

from __future__ import annotations

import importlib
import itertools

import pytest
from builds import pure_package
from hypothesis import given
from hypothesis import strategies as st

from geventws.exceptions import HeadTooBig, InvalidHandshake, InvalidMessage, InvalidState
from geventws.protocol.http import RequestParser, ResponseParser

HEAD = b"GET /chat HTTP/1.1\r\nHost: example.com\r\nUpgrade: websocket\r\n\r\n"
RESPONSE = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"


def request_parser(*, max_line=8192, max_headers=100, max_head=65536):
    return RequestParser(max_line=max_line, max_headers=max_headers, max_head=max_head)


def response_parser(*, max_line=8192, max_headers=100, max_head=65536, max_body=65536):
    return ResponseParser(max_line=max_line, max_headers=max_headers, max_head=max_head, max_body=max_body)


def outcome(parser, pieces):
    """Feed the pieces; return what came of it in a form that can be compared."""
    pieces = list(pieces)
    while pieces:
        try:
            message = parser.receive_data(pieces.pop(0))
        except InvalidHandshake as error:
            return type(error), str(error), error.status, error.kind
        if message is not None:
            line = (
                (message.method, message.target)
                if hasattr(message, "method")
                else (message.status, message.reason)
            )
            leftover = parser.leftover + b"".join(pieces) if line[0] in ("GET", 101) else None
            return line, message.headers.items(), getattr(message, "body", None), leftover
    return None


def cut(data, positions):
    """Cut the data at these positions."""
    edges = [0, *sorted({position % (len(data) + 1) for position in positions}), len(data)]
    return [data[start:end] for start, end in itertools.pairwise(edges)]


def in_bytes(data):
    return [data[at : at + 1] for at in range(len(data))]


def until_too_big(parser, stream, size):
    """Feed reads of `size`; return the error, and how much had been taken before."""
    for at in range(0, len(stream), size):
        try:
            assert parser.receive_data(stream[at : at + size]) is None
        except HeadTooBig as error:
            return error, at
    raise AssertionError("no limit was reached")


class TestLeftover:
    """What stands behind the head comes back untouched."""

    @pytest.mark.parametrize(("make", "head"), [(request_parser, HEAD), (response_parser, RESPONSE)])
    @pytest.mark.parametrize(
        "behind",
        [b"", b"\x81\x85\x00\x00\x00\x00Hello", b"GET / HTTP/1.1\r\n\r\n", b"\r\n", b"\n", b"\0" * 200_000],
    )
    def test_bytes_behind_the_head(self, make, head, behind):
        parser = make()
        assert parser.receive_data(head + behind) is not None
        assert parser.leftover == behind
        parser = make()
        assert parser.receive_data(head[:-1]) is None
        assert parser.leftover == b""
        assert parser.receive_data(head[-1:] + behind) is not None
        assert parser.leftover == behind

    def test_an_empty_line_before_the_request_is_skipped(self):
        parser = request_parser()
        assert parser.receive_data(b"\r\n" + HEAD + b"x").target == "/chat"
        assert parser.leftover == b"x"

    @pytest.mark.parametrize("pieces", [[b"\r\n\r\n" + HEAD], in_bytes(b"\r\n\r\n")])
    def test_more_empty_lines(self, pieces):
        with pytest.raises(InvalidMessage, match="more than 1 empty lines before the request"):
            [parser.receive_data(piece) for parser in [request_parser()] for piece in pieces]

    def test_no_empty_line_before_a_response(self):
        with pytest.raises(InvalidMessage, match="more than 0 empty lines before the response"):
            response_parser().receive_data(b"\r\n" + RESPONSE)


class TestFirstByte:
    """What is no HTTP at all fails at once, not at a deadline."""

    @pytest.mark.parametrize("code", range(256))
    def test_every_byte(self, code):
        byte = bytes([code])
        if byte in b"\r!#$%&'*+-.^_`|~" or byte.isalnum():
            assert request_parser().receive_data(byte) is None
        else:
            with pytest.raises(InvalidMessage, match=f"begins with byte 0x{code:02x}|LF without CR"):
                request_parser().receive_data(byte)

    def test_tls_on_a_plain_port(self):
        with pytest.raises(InvalidMessage, match="begins with byte 0x16"):
            request_parser().receive_data(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")

    def test_a_response_begins_with_http(self):
        with pytest.raises(InvalidMessage, match="begins with byte 0x53"):
            response_parser().receive_data(b"SSH-2.0-x\r\n")

    @pytest.mark.parametrize("data", [b"\n", b"GET / HTTP/1.1\n", b"GET / HTTP/1.1\r\nHost: a\n", b"\r\n\n"])
    def test_bare_lf(self, data):
        with pytest.raises(InvalidMessage, match="ends with LF without CR"):
            request_parser().receive_data(data)
        assert outcome(request_parser(), in_bytes(data)) == outcome(request_parser(), [data])


class TestLimits:
    """The limits count the bytes that came in all, whatever the cuts."""

    @staticmethod
    def both_ways(head, **limits):
        whole = outcome(request_parser(**limits), [head])
        assert outcome(request_parser(**limits), in_bytes(head)) == whole
        return whole

    def test_request_line(self):
        head = b"GET /%s HTTP/1.1\r\nHost: a\r\n\r\n" % (b"a" * 100)
        length = len(head.partition(b"\r\n")[0])
        assert self.both_ways(head, max_line=length)[0][0] == "GET"
        error, message, status, _ = self.both_ways(head, max_line=length - 1)
        assert (error, status) == (HeadTooBig, 414)
        assert message == f"request line is longer than {length - 1} bytes"

    def test_header_line(self):
        head = b"GET / HTTP/1.1\r\nHost: a\r\nX: %s\r\n\r\n" % (b"a" * 100)
        assert self.both_ways(head, max_line=103)[0][0] == "GET"
        error, message, status, _ = self.both_ways(head, max_line=102)
        assert (error, status) == (HeadTooBig, 431)
        assert message == "header field 2 of the request is longer than 102 bytes"

    def test_count(self):
        head = b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X:\r\n" * 9 + b"\r\n"
        assert self.both_ways(head, max_headers=10)[0][0] == "GET"
        error, message, status, _ = self.both_ways(head, max_headers=9)
        assert (error, status) == (HeadTooBig, 431)
        assert message == "request has more than 9 header fields"

    def test_head(self):
        for before in (b"", b"\r\n"):
            head = before + HEAD
            assert self.both_ways(head, max_head=len(head))[0][0] == "GET"
            error, message, status, _ = self.both_ways(head, max_head=len(head) - 1)
            assert (error, status) == (HeadTooBig, 431)
            assert message == f"request head is larger than {len(head) - 1} bytes"

    def test_bytes_behind_the_head_do_not_count(self):
        limits = {"max_line": 20, "max_headers": 2, "max_head": len(HEAD)}
        assert request_parser(**limits).receive_data(HEAD + b"x" * 1000).target == "/chat"

    def test_none_lifts_a_limit(self):
        head = b"GET /%s HTTP/1.1\r\nHost: a\r\n" % (b"a" * 100_000) + b"X:\r\n" * 5000 + b"\r\n"
        parser = request_parser(max_line=None, max_headers=None, max_head=None)
        assert len(parser.receive_data(head).headers) == 5001
        parser = request_parser(max_line=None, max_headers=None, max_head=None)
        assert parser.receive_data(head[:50]) is None
        assert len(parser.receive_data(head[50:]).headers) == 5001

    def test_error_carries_its_limit(self):
        with pytest.raises(HeadTooBig) as caught:
            request_parser(max_line=10).receive_data(b"G" * 12)
        assert caught.value.limit == 10

    @pytest.mark.parametrize("size", [1, 7, 65536])
    @pytest.mark.parametrize(
        ("start", "unit", "status"),
        [
            (b"GET /", b"a", 414),
            (b"GET / HTTP/1.1\r\nX: ", b"a", 431),
            (b"GET / HTTP/1.1\r\n", b"X: a\r\n", 431),
            (b"GET / HTTP/1.1\r\n", b"X: %s\r\n" % (b"a" * 2000), 431),
        ],
    )
    def test_endless_heads_end(self, size, start, unit, status):
        # However it comes, what is held is never more than the limit and one read.
        parser = request_parser()
        stream = start + unit * (140_000 // len(unit))
        error, taken = until_too_big(parser, stream, size)
        assert error.status == status
        assert taken <= 65536

    @pytest.mark.parametrize("count", [99, 100, 101, 2000, 100_000])
    def test_many_headers(self, count):
        head = b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X:\r\n" * (count - 1) + b"\r\n"
        result = outcome(request_parser(), [head])
        assert result[0] == (("GET", "/") if count <= 100 else HeadTooBig)

    def test_interim_responses_count_together(self):
        parser = response_parser(max_head=1000)
        with pytest.raises(HeadTooBig, match="response head is larger than 1000 bytes"):
            parser.receive_data(b"HTTP/1.1 100 Continue\r\n\r\n" * 41)
        parser = response_parser(max_head=1000)
        assert parser.receive_data(b"HTTP/1.1 100 Continue\r\n\r\n" * 36 + RESPONSE).status == 101

    def test_header_count_is_that_of_one_response(self):
        parser = response_parser(max_headers=2)
        assert parser.receive_data(b"HTTP/1.1 103 Early Hints\r\nLink: a\r\nLink: b\r\n\r\n" * 3 + RESPONSE)


class TestOver:
    """One message, or one error, and then no more."""

    @pytest.mark.parametrize(
        ("make", "data"),
        [
            (request_parser, HEAD),
            (response_parser, RESPONSE),
            (response_parser, b"HTTP/1.1 204 No Content\r\n\r\n"),
        ],
    )
    def test_after_a_message(self, make, data):
        parser = make()
        assert parser.receive_data(data) is not None
        with pytest.raises(InvalidState, match="complete or has failed"):
            parser.receive_data(HEAD)
        assert parser.receive_eof() is None

    @pytest.mark.parametrize("data", [b"\0", b"GET / HTTP/1.1\r\nbad\r\n\r\n", b"GET  / HTTP/1.1\r\n\r\n"])
    def test_after_an_error(self, data):
        for make in (request_parser, response_parser):
            parser = make()
            with pytest.raises(InvalidHandshake):
                parser.receive_data(data)
            with pytest.raises(InvalidState, match="complete or has failed"):
                parser.receive_data(HEAD)
            assert parser.receive_eof() is None

    def test_end_of_the_stream(self):
        assert request_parser().receive_eof() is None
        parser = request_parser()
        parser.receive_data(HEAD[:-2])
        with pytest.raises(InvalidMessage, match=f"ended after {len(HEAD) - 2} bytes of the request"):
            parser.receive_eof()
        with pytest.raises(InvalidState):
            parser.receive_data(HEAD[-2:])
        for start in (b"", RESPONSE[:-1], b"HTTP/1.1 100 Continue\r\n\r\n"):
            parser = response_parser()
            parser.receive_data(start)
            with pytest.raises(InvalidMessage, match="ended before the response did"):
                parser.receive_eof()


class TestCuts:
    """The result never depends on how the network cut the stream."""

    @given(st.data())
    def test_requests(self, data):
        stream = data.draw(request_streams)
        limits = data.draw(some_limits)
        positions = data.draw(st.lists(st.integers(0, 2**16), max_size=6))
        whole = outcome(request_parser(**limits), [stream])
        assert outcome(request_parser(**limits), cut(stream, positions)) == whole
        assert outcome(request_parser(**limits), in_bytes(stream)) == whole

    @given(st.data())
    def test_responses(self, data):
        stream = data.draw(response_streams)
        limits = data.draw(some_limits) | {"max_body": data.draw(st.sampled_from([None, 0, 3, 5, 65536]))}
        positions = data.draw(st.lists(st.integers(0, 2**16), max_size=6))
        whole = outcome(response_parser(**limits), [stream])
        assert outcome(response_parser(**limits), cut(stream, positions)) == whole
        assert outcome(response_parser(**limits), in_bytes(stream)) == whole


PIECES = [
    b"GET / HTTP/1.1\r\n",
    b"Host: a\r\n",
    b"\r\n",
    b"\r",
    b"\n",
    b" ",
    b":",
    b"X: yyyyyyyyyy\r\n",
    b"\r\n\r\n",
    b"GET",
    b"HTTP/1.1",
    b"Content-Length: 3\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Upgrade: websocket\r\n",
    b"Connection: Upgrade\r\n",
    b"\0",
    b"\xff",
    b"\x16",
    b"POST /x HTTP/1.1\r\n",
    b"\t",
]
RESPONSE_PIECES = [
    *PIECES,
    b"HTTP/1.1 200 OK\r\n",
    b"HTTP/1.1 101 S\r\n",
    b"HTTP/1.1 100 C\r\n\r\n",
    b"3\r\nabc\r\n",
    b"0\r\n\r\n",
    b"abc",
    b"HTTP/1.0 403\r\n",
    b"Content-Length: 5\r\n",
    b"HTTP/1.1 204 N\r\n",
    b"Connection: close\r\n",
]
request_streams = st.one_of(
    st.lists(st.sampled_from(PIECES), max_size=8).map(b"".join),
    st.lists(st.sampled_from(PIECES), max_size=6).map(
        lambda pieces: b"GET / HTTP/1.1\r\nHost: a\r\n" + b"".join(pieces) + b"\r\n"
    ),
)
response_streams = st.one_of(
    st.lists(st.sampled_from(RESPONSE_PIECES), max_size=8).map(b"".join),
    st.tuples(
        st.sampled_from([b"", b"HTTP/1.1 100 C\r\n\r\n"]),
        st.sampled_from([b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 101 S\r\n", b"HTTP/1.0 403 \r\n"]),
        st.sampled_from(
            [b"", b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n", b"Upgrade: websocket\r\n"]
        ),
        st.sampled_from([b"", b"Connection: close\r\n", b"Connection: upgrade\r\n"]),
        st.just(b"\r\n"),
        st.lists(st.sampled_from([b"abcde", b"3\r\nabc\r\n", b"0\r\n\r\n", b"x", b"\r\n"]), max_size=4).map(
            b"".join
        ),
    ).map(b"".join),
)
some_limits = st.fixed_dictionaries(
    {
        "max_line": st.sampled_from([None, 5, 14, 15, 16, 8192]),
        "max_headers": st.sampled_from([None, 1, 2, 100]),
        "max_head": st.sampled_from([None, 20, 30, 45, 65536]),
    }
)


@pytest.fixture(scope="module")
def source():
    """The module from its source, whose private parts can be replaced."""
    with pure_package("geventws_of_heads") as name:
        yield importlib.import_module(f"{name}.protocol.http")


class CountingBuffer(bytearray):
    """A buffer that counts the bytes which are searched and copied."""

    touched = 0

    def find(self, what, start, end):
        found = super().find(what, start, end)
        self.touched += (end if found < 0 else found + 1) - start
        return found

    def __getitem__(self, index):
        found = super().__getitem__(index)
        self.touched += len(found) if isinstance(index, slice) else 1
        return found


class TestLinear:
    """Byte by byte is no more than a few looks at each byte."""

    @pytest.mark.parametrize("line", [b"X", b"X: " + b"a" * 61 + b"\r\n", b"X:\r\n"])
    def test_byte_by_byte(self, line, source):
        for length in (4000, 8000):
            parser = source.RequestParser(max_line=None, max_headers=None, max_head=None)
            parser._buffer = buffer = CountingBuffer()
            stream = b"GET / HTTP/1.1\r\n" + line * (length // len(line))
            for byte in in_bytes(stream):
                assert parser.receive_data(byte) is None
            assert len(stream) <= buffer.touched <= 4 * len(stream)


class TestShapes:
    """Connections whose clients send the same names share them."""

    @staticmethod
    def parse(source, *fields):
        parser = source.RequestParser(max_line=None, max_headers=None, max_head=None)
        lines = b"".join(b"%s: 1\r\n" % field for field in fields)
        return parser.receive_data(b"GET / HTTP/1.1\r\nHost: example.com\r\n%s\r\n" % lines).headers

    def test_the_same_names_are_one_object(self, source):
        first = self.parse(source, b"Origin", b"User-Agent")
        second = self.parse(source, b"Origin", b"User-Agent")
        assert first._names is second._names
        assert first._keys is second._keys
        assert second.items() == [("Host", "example.com"), ("Origin", "1"), ("User-Agent", "1")]

    def test_the_order_and_the_spelling_count(self, source):
        self.parse(source, b"Origin", b"User-Agent")
        assert list(self.parse(source, b"User-Agent", b"Origin")) == ["Host", "User-Agent", "Origin"]
        assert list(self.parse(source, b"origin", b"User-Agent")) == ["Host", "origin", "User-Agent"]

    def test_unknown_names_are_not_kept(self, source):
        before = len(source.Fields.__init__.__globals__["_SHAPES"])
        assert self.parse(source, b"X-One")["x-one"] == "1"
        assert len(source.Fields.__init__.__globals__["_SHAPES"]) == before

    def test_there_is_a_limit(self, source):
        shapes = source.Fields.__init__.__globals__["_SHAPES"]
        names = [b"Origin", b"Cookie", b"Pragma", b"Upgrade", b"User-Agent", b"Accept"]
        for fields in itertools.permutations(names):
            expected = ["Host", *[field.decode() for field in fields]]
            assert list(self.parse(source, *fields)) == expected
        assert len(shapes) == source.Fields.__init__.__globals__["_MAX_SHAPES"] < 720
