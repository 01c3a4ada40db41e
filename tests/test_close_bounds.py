"""How long a peer can prolong the end of a connection, and that the end arrives whatever it sends."""

from __future__ import annotations

import contextlib
from typing import Any

import gevent
import pytest
from asking import quiet
from support import RawClient, close, serve, tls_contexts, wait_until

from geventws.transport import LINGER_BYTES

__all__ = ["quiet"]

pytestmark = pytest.mark.usefixtures("no_leaks")


def send_much(ws: Any) -> None:
    for _ in range(20):
        ws.send(b"x" * 50_000)


def test_p0_14_a_reader_that_drips_is_cut_in_the_end(quiet: Any) -> None:
    """Each write makes progress, and so `write_timeout` sees nothing wrong; the Close stays behind them."""
    with serve(send_much, close_timeout=0.1, write_timeout=10, write_limit=None) as server:
        with RawClient.connect(server.address, small=True) as client:
            read = 0
            while not server.stats.closes["close_timeout"]:
                try:
                    count = len(client.socket.recv(500))
                except ConnectionResetError:
                    break
                assert count, "the server has closed in order"
                read += count
                gevent.sleep(0.01)
            wait_until(lambda: server.stats.closes["close_timeout"])
        assert read < 1_000_000
        wait_until(lambda: not server._serving)


def test_our_close_arrives_though_much_came_behind_the_peers(quiet: Any) -> None:
    """RFC 6455 section 5.5.1 forbids that; a reset for it would destroy our answer on its way."""
    with serve(lambda ws: ws.receive()) as server, RawClient.connect(server.address) as client:
        sending = gevent.spawn(client.send, close(1000), b"x" * 1_000_000)
        wait_until(lambda: not server.connections or server.stats.closes["close"])
        sending.join()
        client.expect_close(1000)
        client.expect_end()


def test_a_clean_close_is_waited_for_by_nobody(quiet: Any) -> None:
    """Where nothing came behind the peer's Close, TCP is over in the same turn."""
    ended = []

    def handler(ws: Any) -> None:
        ended.append(ws)
        for _ in ws:
            pass

    with serve(handler, close_timeout=20) as server, RawClient.connect(server.address) as client:
        client.send(close(1000))
        client.expect_close(1000)
        client.expect_end()
        # The client has not ended its side.
        wait_until(lambda: not server._serving)


@pytest.mark.parametrize("violation", [close(1000), b"\x83\x80\0\0\0\0"], ids=["close", "violation"])
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_p0_14_a_flood_behind_the_end_of_a_reader_that_drips(quiet: Any, violation: bytes, tls: bool) -> None:
    """What waits for it, and our Close behind that, has a minute; what it sends has LINGER_BYTES."""
    options = {"ssl_context": tls_contexts()[0]} if tls else {}

    def handler(ws: Any) -> None:
        # More than the system takes.
        ws.send(bytes(20_000_000))
        ws.wait_closed()

    with serve(handler, write_limit=None, **options) as server:
        with RawClient.connect(server.address, tls=tls, small=True) as client:
            wait_until(lambda: server.connections)
            (ws,) = server.connections
            wait_until(lambda: ws.messages_sent)
            client.send(violation)
            wait_until(lambda: ws.closed)
            sent = 0
            with contextlib.suppress(OSError):
                while sent < 4 * LINGER_BYTES:
                    client.send(bytes(1024 * 1024))
                    sent += 1024 * 1024
            assert LINGER_BYTES / 2 < sent < 2 * LINGER_BYTES
        wait_until(lambda: not server._serving)
