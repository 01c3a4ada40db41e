"""A TCP proxy that does what networks do: pieces of any size, cuts, resets, half-closes, stalls.

Nothing in it sleeps: a delay is turns of the loop, a stall lasts until one of the ends gives up or the test
ends it. A `Fault` happens behind an exact number of bytes in one direction.
"""

from __future__ import annotations

import contextlib
import itertools
import random
import socket as std_socket
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import gevent
import gevent.event
import gevent.pool
import gevent.socket
from support import PATIENCE, reset

__all__ = ["FAULTS", "Fault", "Proxy", "chaotic", "pieces_of", "random_pieces"]

#: What may happen to a connection.
FAULTS = ("reset", "end", "half-close", "stall")

Pieces = Callable[[], Iterator[int]]


def pieces_of(size: int) -> Pieces:
    """Pieces of the same size."""
    return lambda: itertools.repeat(size)


def random_pieces(seed: int) -> Pieces:
    """Pieces of 1 to 1400 bytes, small ones more often; the same for each connection."""

    def sizes() -> Iterator[int]:
        rng = random.Random(seed)
        while True:
            yield rng.choice((1, 1, 2, 3, 7, 50, 1400))

    return sizes


class Fault(NamedTuple):
    """What happens, once.

    Attributes:
        direction: "up", to the server, or "down".
        after: bytes that pass in this direction before.
        how: one of `FAULTS`.
    """

    direction: str
    after: int
    how: str


class _Link:
    """One connection through the proxy."""

    def __init__(self, client: Any, server: Any, pieces: dict[str, Pieces], fault: Fault | None) -> None:
        self.passed = {"up": 0, "down": 0}
        self._sockets = client, server
        self._fault = fault
        #: How it ends: "" while it does not, "end" or "reset".
        self._end = ""
        self._changed = gevent.event.Event()
        self._open = {"up", "down"}
        self._pumps = [
            gevent.spawn(self._pump, "up", client, server, pieces["up"]()),
            gevent.spawn(self._pump, "down", server, client, pieces["down"]()),
        ]

    def run(self) -> None:
        """Until both directions have ended, or something has ended both."""
        try:
            while self._open and not self._end:
                self._changed.wait()
                self._changed.clear()
        finally:
            gevent.killall(self._pumps)
            for sock in self._sockets:
                if self._end == "reset":
                    reset(sock)
                else:
                    sock.close()

    def _pump(self, direction: str, source: Any, sink: Any, pieces: Iterator[int]) -> None:
        fault = self._fault if self._fault is not None and self._fault.direction == direction else None
        try:
            self._pass_on(direction, source, sink, pieces, fault)
            if fault is not None and self.passed[direction] == fault.after:
                self._strike(fault, source, sink)
            else:
                sink.shutdown(std_socket.SHUT_WR)
        except OSError:
            # One end is gone: so is the other, and not in order.
            self._end = self._end or "reset"
        self._open.discard(direction)
        self._changed.set()

    def _pass_on(
        self, direction: str, source: Any, sink: Any, pieces: Iterator[int], fault: Fault | None
    ) -> None:
        """Pass bytes on to the end of them, or up to the fault."""
        while fault is None or self.passed[direction] < fault.after:
            data = source.recv(65536)
            if not data:
                return
            while data:
                size = min(next(pieces), len(data))
                if fault is not None:
                    size = min(size, fault.after - self.passed[direction])
                    if not size:
                        return
                sink.sendall(data[:size])
                self.passed[direction] += size
                data = data[size:]
                # A turn of the loop: the other side has read this piece alone.
                gevent.sleep(0)

    def _strike(self, fault: Fault, source: Any, sink: Any) -> None:
        if fault.how in ("reset", "end"):
            self._end = fault.how
        elif fault.how == "half-close":
            sink.shutdown(std_socket.SHUT_WR)
        else:
            # Nothing arrives any more, until an end has enough of it.
            while source.recv(65536):
                pass
            self._end = "end"


class Proxy:
    """Passes connections on to a server.

    Args:
        address: of the server.
        up, down: in which pieces bytes pass, to the server and back; default: as they come.
        fault: what happens to each connection; None: nothing.

    Attributes:
        address: where it listens.
        passed: bytes of the last connection, "up" and "down".
    """

    def __init__(
        self,
        address: Any,
        *,
        up: Pieces | None = None,
        down: Pieces | None = None,
        fault: Fault | None = None,
    ) -> None:
        self._target = address
        self._pieces = {"up": up or pieces_of(1 << 16), "down": down or pieces_of(1 << 16)}
        self.fault = fault
        self.passed = {"up": 0, "down": 0}
        self._links = gevent.pool.Group()
        self._listener = gevent.socket.socket()
        self._listener.bind(("127.0.0.1", 0))
        self._listener.listen(256)
        self.address = self._listener.getsockname()
        self._accepting = gevent.spawn(self._accept)

    def _accept(self) -> None:
        while True:
            client, _ = self._listener.accept()
            self._links.spawn(self._serve, client)

    def _serve(self, client: Any) -> None:
        with client:
            server = gevent.socket.socket()
            server.settimeout(PATIENCE)
            try:
                server.connect(self._target)
            except OSError:
                server.close()
                reset(client)
                return
            for sock in (client, server):
                sock.settimeout(None)
                sock.setsockopt(std_socket.IPPROTO_TCP, std_socket.TCP_NODELAY, 1)
            link = _Link(client, server, self._pieces, self.fault)
            self.passed = link.passed
            link.run()

    def stop(self) -> None:
        """End all connections."""
        self._accepting.kill()
        self._listener.close()
        self._links.kill()


@contextlib.contextmanager
def chaotic(address: Any, **options: Any) -> Iterator[Proxy]:
    """A proxy in front of a server."""
    proxy = Proxy(address, **options)
    try:
        yield proxy
    finally:
        proxy.stop()
