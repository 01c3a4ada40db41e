"""A strict and slow reader of a server's frames, and messages that can be told from all others."""

from __future__ import annotations

import random
import zlib
from typing import Any

import gevent
from support import DEFLATE, RawClient, close, pong

__all__ = ["VARIANTS", "Reader", "check", "make", "options_of"]

VARIANTS = ["plain", "deflate", "deflate-no-context", "tls", "tls-deflate"]


def options_of(variant: str) -> dict[str, Any]:
    return {"tls": variant.startswith("tls"), "deflate": DEFLATE.get(variant.removeprefix("tls-"))}


class Reader:
    """Reads a server's frames, slowly, and keeps the messages. A violation is an AssertionError.

    Attributes:
        messages: the payloads of all messages so far, in order.
        close: the code of the Close frame, or None.
        end: "" while TCP lasts, then "end" or "reset".
    """

    def __init__(self, peer: RawClient, variant: str, rng: random.Random, pause: float) -> None:
        self._peer = peer
        self._rng = rng
        self._pause = pause
        self._compressed = "deflate" in variant
        self._keeps_context = "no-context" not in variant
        self._inflater = zlib.decompressobj(-12)
        self.messages: list[bytes] = []
        self.close: int | None = None
        self.end = ""

    def run(self) -> None:
        """Read to the end of TCP and end it too; answers Pings and the Close."""
        try:
            self._run()
            self.end = "end"
        except ConnectionError:
            self.end = "reset"
        finally:
            self._peer.close()

    def _run(self) -> None:
        first = 0
        parts: list[bytes] = []
        while True:
            if self._rng.random() < 0.1:
                gevent.sleep(0.001 + self._rng.random() * self._pause)
            try:
                head, payload = self._peer.read_frame(self._rng.choice((5000, 65_536, 500_000)))
            except EOFError:
                return
            assert self.close is None, "a frame behind the Close"
            opcode = head & 0x0F
            if opcode >= 8:
                # RFC 6455 section 5.5.
                assert head & 0xF0 == 0x80
                assert len(payload) <= 125
                self._control(opcode, payload)
                continue
            # RFC 6455 section 5.4, RFC 7692 section 6.
            assert (opcode == 0) == (first != 0), "a frame of another message among fragments"
            assert opcode in (0, 1, 2)
            assert not head & 0x40 or (self._compressed and opcode)
            first = first or head
            parts.append(payload)
            if head & 0x80:
                self._keep(first, b"".join(parts))
                first = 0
                parts = []

    def _keep(self, first: int, message: bytes) -> None:
        if first & 0x40:
            message = self._inflater.decompress(message + b"\0\0\xff\xff")
            assert not self._inflater.unconsumed_tail
            if not self._keeps_context:
                self._inflater = zlib.decompressobj(-12)
        if first & 0x0F == 1:
            message.decode()
        self.messages.append(message)

    def _control(self, opcode: int, payload: bytes) -> None:
        assert opcode in (8, 9)
        if opcode == 8:
            self.close = int.from_bytes(payload[:2], "big")
        try:
            self._peer.send(close(1000) if opcode == 8 else pong(payload))
        except OSError:
            pass


def make(sender: int, number: int, rng: random.Random, bits: int = 20) -> str | bytes:
    """A message of 1 B to 2**bits B and a head: it can be told from all others, and told whole."""
    size = int(2 ** (rng.random() * bits))
    body = rng.randbytes(min(size, 2000)).hex()
    body = (body * (size // len(body) + 1))[:size]
    message = f"{sender:04} {number:04} {zlib.crc32(body.encode()):08x} {body}"
    return message if rng.random() < 0.5 else message.encode()


def check(message: bytes) -> tuple[int, int]:
    """Return sender and number of a message that arrived whole."""
    sender, number, checksum, body = message.split(b" ", 3)
    assert int(checksum, 16) == zlib.crc32(body), "a message of parts of others"
    return int(sender), int(number)
