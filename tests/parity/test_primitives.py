"""The primitives that have a compiled twin of their own: masking.pyx and wire.pyx beside the .py files."""

from __future__ import annotations

import contextlib
import importlib
import random
import socket
import struct
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import gevent
import greenlet
import pytest
from builds import is_compiled

KEY = b"\x37\xfa\x21\x3d"


@pytest.fixture(scope="module")
def maskings(pure_name: str) -> tuple[ModuleType, ModuleType]:
    """Both builds of masking."""
    return _both(pure_name, "protocol.masking")


@pytest.fixture(scope="module")
def wires(pure_name: str) -> tuple[ModuleType, ModuleType]:
    """Both builds of wire."""
    return _both(pure_name, "wire")


def _both(pure_name: str, module: str) -> tuple[ModuleType, ModuleType]:
    pair = importlib.import_module(f"geventws.{module}"), importlib.import_module(f"{pure_name}.{module}")
    assert [is_compiled(one) for one in pair] == [True, False]
    return pair


def outcome(function: Callable[..., Any], *arguments: Any) -> Any:
    """What a call gives: its result and that one's type, or the error's class and text."""
    try:
        result = function(*arguments)
    except Exception as error:
        return type(error).__name__, str(error), getattr(error, "errno", None)
    return type(result).__name__, result


class TestMasking:
    def test_unmask(self, maskings: tuple[ModuleType, ModuleType]) -> None:
        compiled, pure = maskings
        octets = random.Random(1).randbytes(100)
        for start in range(17):
            for length in range(71):
                for phase in (0, 1, 2, 3, 4, 7):
                    for key in (KEY, b"\x00\xff\x80\x7f", None):
                        arguments = (start, start + length, key, phase)
                        ours = compiled.unmask(bytearray(octets), *arguments)
                        assert ours == pure.unmask(bytearray(octets), *arguments), arguments
                        assert type(ours) is bytes

    @pytest.mark.parametrize("length", [4095, 4096, 4097, 65535, 65536, 1_000_003])
    def test_unmask_long_ones(self, maskings: tuple[ModuleType, ModuleType], length: int) -> None:
        octets = random.Random(length).randbytes(length)
        ours, theirs = (module.unmask(bytearray(octets), 1, length, KEY, 3) for module in maskings)
        assert ours == theirs

    def test_unmask_text(self, maskings: tuple[ModuleType, ModuleType]) -> None:
        rng = random.Random(2)
        for _ in range(3000):
            text = "".join(rng.choice("aé€𐍈\x00") for _ in range(rng.randrange(40))).encode()
            if rng.random() < 0.3:
                text = bytes(octet ^ (rng.random() < 0.05) << 7 for octet in text)
            start, key = rng.randrange(9), rng.choice((None, rng.randbytes(4)))
            wire = text if key is None else bytes(octet ^ key[i % 4] for i, octet in enumerate(text))
            buffers = [bytearray(b"\xee" * start + wire + b"\xee" * 9) for _ in range(2)]
            ours, theirs = (
                outcome(module.unmask_text, buffer, start, start + len(text), key)
                for module, buffer in zip(maskings, buffers, strict=True)
            )
            assert ours == theirs
            for buffer in buffers:
                assert buffer[:start] == b"\xee" * start
                assert buffer[start + len(text) :] == b"\xee" * 9

    def test_build_frame(self, maskings: tuple[ModuleType, ModuleType]) -> None:
        rng = random.Random(3)
        lengths = [*range(71), *range(120, 135), *range(250, 260), 65534, 65535, 65536, 65537, 200_000]
        for length in lengths:
            octets = rng.randbytes(length)
            ascii_text = "x" * length
            for payload in (octets, ascii_text, ascii_text + "é", "€" * (length // 3), "𐍈" * (length // 4)):
                for key in (None, KEY, rng.randbytes(4)):
                    first = rng.randrange(256)
                    ours, theirs = (outcome(module.build_frame, first, payload, key) for module in maskings)
                    assert ours == theirs, (length, type(payload), key)

    @pytest.mark.parametrize(
        ("name", "arguments"),
        [
            ("unmask", (bytearray(5), 0, 6, KEY, 0)),
            ("unmask", (bytearray(5), -1, 3, KEY, 0)),
            ("unmask", (bytearray(5), 3, 2, None, 0)),
            ("unmask", (bytearray(5), 6, 6, None, 0)),
            ("unmask", (bytearray(5), 0, 5, b"abc", 0)),
            ("unmask", (bytearray(5), 0, 0, b"", 0)),
            ("unmask", (bytearray(5), 0, 6, b"abcde", 0)),
            ("unmask", (bytearray(0), 0, 0, KEY, 3)),
            ("read_key", (bytearray(b"abcdefg"), 3)),
            ("read_key", (bytearray(b"abcdefg"), 4)),
            ("read_key", (bytearray(b"abcdefg"), -1)),
            ("build_header", (0x82, 125)),
            ("build_header", (0x82, 126)),
            ("build_header", (0x82, 65535)),
            ("build_header", (0x82, 65536)),
            ("build_header", (256, 0)),
            ("build_header", (0, -1)),
            ("unmask_text", (bytearray(5), 0, 6, KEY)),
            ("unmask_text", (bytearray(5), 0, 5, b"abcde")),
            ("unmask_text", (bytearray(b"\xff"), 0, 1, None)),
            ("unmask_text", (bytearray(b"ab\xed\xa0\x80"), 0, 5, None)),
            ("build_frame", (0x81, "ok\ud800", None)),
            ("build_frame", (0x81, "\ud800", KEY)),
            ("build_frame", (0x81, None, None)),
            ("build_frame", (0x81, bytearray(b"x"), None)),
            ("build_frame", (0x81, memoryview(b"x"), KEY)),
            ("build_frame", (0x81, 5, KEY)),
            ("build_frame", (0x81, b"x", b"abc")),
            ("build_frame", (0x81, "", b"abcde")),
        ],
    )
    def test_errors(self, maskings: tuple[ModuleType, ModuleType], name: str, arguments: Any) -> None:
        ours, theirs = (outcome(getattr(module, name), *arguments) for module in maskings)
        assert ours == theirs

    def test_no_buffer_is_an_error_not_a_crash(self, maskings: tuple[ModuleType, ModuleType]) -> None:
        for module in maskings:
            with pytest.raises(TypeError):
                module.unmask(None, 0, 0, None, 0)
            with pytest.raises(TypeError):
                module.unmask_text(None, 0, 0, KEY)


Pair = tuple[socket.socket, socket.socket]


@contextlib.contextmanager
def pair() -> Iterator[Pair]:
    """Two connected sockets that do not block."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        for sock in (ours, theirs):
            sock.setblocking(False)
        yield ours, theirs


@contextlib.contextmanager
def tcp_pair() -> Iterator[Pair]:
    """The same over TCP."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ours = socket.create_connection(listener.getsockname(), timeout=10)
        theirs, _ = listener.accept()
    with ours, theirs:
        for sock in (ours, theirs):
            sock.setblocking(False)
        yield ours, theirs


def converse(wire: ModuleType, seed: int) -> list[Any]:
    """Send and receive at random; returns all results. What is under way always fits the socket."""
    rng = random.Random(seed)
    results: list[Any] = []
    with pair() as (ours, theirs):
        under_way = 0
        for _ in range(30):
            which = rng.randrange(5)
            if which < 2 and under_way < 20_000:
                chunks = [
                    rng.randbytes(rng.choice((0, 1, 5, 1000)))
                    for _ in range(rng.choice((1, 2, 3, 64, 65, 80)))
                ]
                offset = rng.randint(0, len(chunks[0]))
                count = wire.send_chunks(ours.fileno(), chunks, offset)
                under_way += count
                results.append((type(count).__name__, count))
            elif which < 4:
                buffer = bytearray(rng.choice((1, 10, 1000, 100_000)))
                count = wire.receive_into(theirs.fileno(), buffer)
                under_way -= max(count, 0)
                results.append((type(count).__name__, count, bytes(buffer)))
            else:
                results.append(outcome(wire.receive_into, ours.fileno(), bytearray(9)))
        ours.close()
        for _ in range(3):
            buffer = bytearray(200_000)
            results.append((outcome(wire.receive_into, theirs.fileno(), buffer), bytes(buffer)))
        results.append(outcome(wire.send_chunks, theirs.fileno(), [b"late"], 0))
        results.append(outcome(wire.send_chunks, theirs.fileno(), [b"late", b"r"], 1))
    return results


class TestWire:
    @pytest.mark.parametrize("seed", range(40))
    def test_conversations(self, wires: tuple[ModuleType, ModuleType], seed: int) -> None:
        ours, theirs = (converse(wire, seed) for wire in wires)
        assert ours == theirs

    def test_more_than_the_socket_takes(self, wires: tuple[ModuleType, ModuleType]) -> None:
        chunks = [bytes((at,)) * 10_000 for at in range(100)]
        whole = b"".join(chunks)
        for wire in wires:
            with pair() as (ours, theirs):
                sent, got = 0, b""
                buffer = bytearray(65536)
                full = 0
                while len(got) < len(whole):
                    rest, offset = sent // 10_000, sent % 10_000
                    count = (
                        wire.send_chunks(ours.fileno(), chunks[rest:], offset) if sent < len(whole) else -1
                    )
                    if count >= 0:
                        sent += count
                        continue
                    full += 1
                    received = wire.receive_into(theirs.fileno(), buffer)
                    assert received > 0
                    got += buffer[:received]
                assert full > 1
                assert got == whole

    def test_a_reset(self, wires: tuple[ModuleType, ModuleType]) -> None:
        found = []
        for wire in wires:
            with tcp_pair() as (ours, theirs):
                theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                theirs.close()
                found.append(
                    [
                        outcome(wire.receive_into, ours.fileno(), bytearray(10)),
                        outcome(wire.send_chunks, ours.fileno(), [b"x"], 0),
                        outcome(wire.send_chunks, ours.fileno(), [b"x", b"y"], 0),
                    ]
                )
        assert found[0] == found[1]
        assert [error[0] for error in found[0]] == [
            "ConnectionResetError",
            "BrokenPipeError",
            "BrokenPipeError",
        ]

    def test_a_descriptor_that_is_closed(self, wires: tuple[ModuleType, ModuleType]) -> None:
        found = []
        for wire in wires:
            with pair() as (ours, _):
                descriptor = ours.fileno()
            found.append(
                [
                    outcome(wire.receive_into, descriptor, bytearray(10)),
                    outcome(wire.send_chunks, descriptor, [b"x"], 0),
                    outcome(wire.send_chunks, descriptor, [b"x", b"y"], 0),
                ]
            )
        assert found[0] == found[1]
        assert found[0][0][0] == "OSError"

    def test_switching(self, wires: tuple[ModuleType, ModuleType]) -> None:
        for wire in wires:
            found: list[Any] = []
            main = greenlet.getcurrent()

            def run(wire: ModuleType = wire, main: Any = main, found: list[Any] = found) -> None:
                found.append("there")
                wire.switch(main)
                found.append("again")
                raise LookupError("thrown across")

            other = greenlet.greenlet(run)
            wire.switch(other)
            found.append("back")
            with pytest.raises(LookupError, match="thrown across"):
                wire.switch(other)
            assert other.dead
            # A greenlet that is over lets the switch return at once.
            wire.switch(other)
            assert found == ["there", "back", "again"]

    def test_switching_to_the_hub(self, wires: tuple[ModuleType, ModuleType]) -> None:
        hub, waiting = gevent.get_hub(), gevent.getcurrent()
        found: list[str] = []

        def resume() -> None:
            found.append("hub")
            waiting.switch()

        for wire in wires:
            hub.loop.run_callback(resume)
            wire.switch(hub)
        assert found == ["hub", "hub"]


def test_has_unread(wires: tuple[ModuleType, ModuleType]) -> None:
    for wire in wires:
        with pair() as (ours, theirs):
            assert wire.has_unread(ours.fileno()) is False
            theirs.send(b"x" * 300)
            assert wire.has_unread(ours.fileno()) is True
            assert ours.recv(300) == b"x" * 300
            assert wire.has_unread(ours.fileno()) is False
            theirs.close()
            # The end of the stream is no byte.
            assert wire.has_unread(ours.fileno()) is False
        with pytest.raises(OSError, match="Bad file descriptor"):
            wire.has_unread(987_654)
