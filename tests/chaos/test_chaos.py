"""Conversations through a proxy that splits, cuts, resets, half-closes and stalls, at every byte.

Figures: by default each fault at some thirty places of a conversation in both directions, stalls at five;
with `--every-byte`, as in `tox -e attacks`, at each byte of it, stalls at each fifth.
"""

from __future__ import annotations

import contextlib
import logging
import zlib
from typing import Any

import gevent
import pytest
from chaos_proxy import FAULTS, Fault, chaotic, pieces_of, random_pieces
from support import RawClient, binary, close, frame, ping, serve, text, tls_contexts, wait_until

import geventws
from geventws.websocket import WebSocket

pytestmark = pytest.mark.usefixtures("no_leaks")

DEFLATE = b"Sec-WebSocket-Extensions: permessage-deflate; client_no_context_takeover\r\n"

#: Soon enough for a test, and reached by whoever stalls.
TIMEOUTS = {"open_timeout": 0.3, "close_timeout": 0.2, "ping_interval": 0.1, "ping_timeout": 0.2}


def squeeze(data: bytes) -> bytes:
    squeezer = zlib.compressobj(9, zlib.DEFLATED, -15)
    return (squeezer.compress(data) + squeezer.flush(zlib.Z_SYNC_FLUSH))[:-4]


def stretch(data: bytes) -> bytes:
    return zlib.decompressobj(-15).decompress(data + b"\x00\x00\xff\xff")


#: What a client says behind the opening handshake, and what the server has to answer.
FRAMES = [
    text("Hello"),
    frame(0x02, b"one"),
    ping(b"between"),
    frame(0x80, b"two"),
    frame(0xC1, squeeze(b"compressed " * 3)),
    binary(bytes(200)),
    close(1000, b"bye"),
]


class Echo:
    """A handler that echoes, and keeps what it has got and how it ended.

    Attributes:
        received: messages, of each connection that was opened.
        ends: what each handler's loop ended with: None, or the exception.
    """

    def __init__(self) -> None:
        self.received: list[list[Any]] = []
        self.ends: list[Any] = []

    def __call__(self, ws: WebSocket) -> None:
        messages: list[Any] = []
        self.received.append(messages)
        try:
            for message in ws:
                messages.append(message)
                ws.send(message)
            self.ends.append(None)
        except geventws.ConnectionClosed as error:
            self.ends.append(error)
            raise


EXPECTED = ["Hello", b"onetwo", "compressed " * 3, bytes(200)]


def converse(address: Any, *, tls: bool = False) -> list[tuple[int, bytes]]:
    """Say everything, read everything; what came before an end that was not in order."""
    answers: list[tuple[int, bytes]] = []
    with RawClient.connect(address, headers=DEFLATE, tls=tls) as client:
        with contextlib.suppress(OSError):
            client.send(*FRAMES)
        with contextlib.suppress(OSError, EOFError):
            while True:
                answers.append(client.read_frame())
    return answers


def try_to_converse(address: Any) -> list[tuple[int, bytes]]:
    """The same where it may fail at any moment; what came is a beginning of what should have come."""
    try:
        return converse(address)
    except (OSError, EOFError):
        return []
    except AssertionError as error:
        # A head that was cut by a half-close is answered with 400.
        if not any(what in str(error) for what in ("TCP ended", "ended TCP", "HTTP/1.1 400 ")):
            raise
        return []


def replies(answers: list[tuple[int, bytes]]) -> list[tuple[int, bytes]]:
    """The messages as they were said, without control frames, which come in between anywhere.

    Not as they were compressed: ISA-L may do that in two ways (docs/performance.md).
    """
    return [
        (first, stretch(payload) if first & 0x40 else payload)
        for first, payload in answers
        if first not in (0x88, 0x89, 0x8A)
    ]


def complete(answers: list[tuple[int, bytes]]) -> None:
    """Everything was answered, the last one compressed, and the Close at the end."""
    assert [first for first, _ in replies(answers)] == [0x81, 0x82, 0x81, 0xC2]
    assert answers[-1] == (0x88, b"\x03\xe8")
    assert (0x8A, b"between") in answers


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("pieces", [pieces_of(1), pieces_of(3), random_pieces(1)], ids=["1", "3", "random"])
def test_pieces_of_any_size_change_nothing(pieces: Any, tls: bool) -> None:
    handler = Echo()
    options = {"ssl_context": tls_contexts()[0]} if tls else {}
    with serve(handler, compression=True, **options) as server:
        with chaotic(server.address, up=pieces, down=pieces) as proxy:
            complete(converse(proxy.address, tls=tls))
        assert handler.received == [EXPECTED]
        wait_until(lambda: handler.ends == [None])


def places(size: int, how: str, request: pytest.FixtureRequest) -> range:
    """Where to strike: everywhere, or at some places that are not multiples of anything.

    A stall lasts until somebody gives up: there are fewer of them.
    """
    if request.config.getoption("--every-byte"):
        return range(0, size + 1, 5 if how == "stall" else 1)
    return range(0, size + 1, max(1, size // (5 if how == "stall" else 31)))


@pytest.mark.deadline(600)
@pytest.mark.timeout(700)
@pytest.mark.parametrize("direction", ["up", "down"])
@pytest.mark.parametrize("how", FAULTS)
def test_a_fault_at_every_byte(
    how: str, direction: str, request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever is struck: a beginning of the right messages arrives on either side, and nothing stays.

    No line above the level of info is logged; the handler ends as the API says; the next client is served.
    """
    handler = Echo()
    with serve(handler, compression=True, **TIMEOUTS) as server:
        with chaotic(server.address) as proxy:
            whole = converse(proxy.address)
            complete(whole)
            passed = proxy.passed[direction]
            assert handler.received.pop() == EXPECTED
            for after in places(passed, how, request):
                proxy.fault = Fault(direction, after, how)
                begun = len(handler.received)
                found = replies(try_to_converse(proxy.address))
                assert found == replies(whole)[: len(found)], f"at {after}"
                wait_until(lambda: not server.connections)
                for messages in handler.received[begun:]:
                    assert messages == EXPECTED[: len(messages)], f"at {after}"
            proxy.fault = None
            wait_until(lambda: len(handler.ends) == len(handler.received) + 1)
            assert all(
                error is None or isinstance(error, geventws.ConnectionClosed) for error in handler.ends
            )
            complete(converse(proxy.address))
        assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


@pytest.mark.deadline(600)
@pytest.mark.timeout(700)
@pytest.mark.parametrize("direction", ["up", "down"])
@pytest.mark.parametrize("how", FAULTS)
def test_our_client_and_a_fault_at_every_byte(
    how: str, direction: str, request: pytest.FixtureRequest
) -> None:
    """`connect` raises what it documents, or gives a connection that ends as documented; nothing stays."""

    def talk(address: Any) -> list[Any]:
        received: list[Any] = []
        with contextlib.suppress(geventws.WebSocketError, OSError):
            ws = geventws.connect(f"ws://127.0.0.1:{address[1]}/", compression=True, proxy=None, **TIMEOUTS)
            try:
                for message in EXPECTED:
                    ws.send(message)
                while len(received) < len(EXPECTED):
                    received += [ws.receive()]
                ws.close()
            finally:
                ws.close()
        return received

    handler = Echo()
    with serve(handler, compression=True, **TIMEOUTS) as server:
        pieces = {"up": random_pieces(2), "down": random_pieces(3)}
        with chaotic(server.address, **pieces) as proxy:
            assert talk(proxy.address) == EXPECTED
            # TCP has ended when everything has passed.
            wait_until(lambda: not server.connections)
            gevent.sleep(0)
            for after in places(proxy.passed[direction], how, request):
                proxy.fault = Fault(direction, after, how)
                received = talk(proxy.address)
                assert received == EXPECTED[: len(received)], f"at {after}"
                wait_until(lambda: not server.connections)
            proxy.fault = None
            assert talk(proxy.address) == EXPECTED
