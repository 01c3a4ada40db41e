"""What the middleware counts, and that its limits on a connection are those of the server."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from hosting import ask, host, open_raw
from support import HANDSHAKE, RawClient, close, text, wait_until

from geventws import RateLimit, WebSocketMiddleware

pytestmark = pytest.mark.usefixtures("no_leaks")


def plain(environ: Any, start_response: Any) -> Any:
    start_response("404 Not Found", [("Content-Length", "0")])
    return []


def echo(ws: Any) -> None:
    for message in ws:
        ws.send(message)


def test_p1_41_ends_are_counted_and_logged(caplog: Any) -> None:
    caplog.set_level(logging.DEBUG, "geventws.close")
    app = WebSocketMiddleware(plain, echo)
    with host(app) as server:
        with RawClient.connect(server.address) as client:
            client.send(text("hi"))
            client.expect(0x81, b"hi")
            client.send(close(1000))
            client.expect_close(1000)
        with RawClient.connect(server.address) as client:
            client.send(b"\x83\x80\0\0\0\0")
            client.expect_close(1002)
        wait_until(lambda: app.stats.closed_clean + app.stats.closed_unclean == 2)
    stats = app.stats
    assert (stats.opened, stats.closes["close"], stats.closes["protocol_error"]) == (2, 1, 1)
    assert (stats.messages_received, stats.messages_sent) == (1, 1)
    assert [record.cause for record in caplog.records] == ["close", "protocol_error"]


def test_p1_41_refusals_are_counted() -> None:
    app = WebSocketMiddleware(plain, echo, max_connections=1)
    with host(app) as server:
        evil = b"Origin: http://evil.example\r\n"
        assert b" 403 " in ask(server, fields=evil)
        with RawClient.connect(server.address):
            assert b" 503 " in ask(server)
    assert app.stats.refusals == {403: 1, 503: 1}
    assert (app.stats.refused, app.stats.refused_full) == (2, 1)


def test_p0_11_a_flood_of_refusals_is_not_one_of_log_lines(caplog: Any) -> None:
    """T-LOG2."""
    caplog.set_level(logging.INFO, "geventws")
    app = WebSocketMiddleware(plain, echo)
    with host(app) as server:
        for number in range(200):
            path = b"/" + b"%01" * (2000 if number == 0 else 1)
            assert b" 403 " in ask(server, path, b"Origin: http://evil.example\r\n")
    assert app.stats.refusals == {403: 200}
    seconds = {int(record.created) for record in caplog.records}
    # Fifty in each second of another clock.
    assert 1 <= len(caplog.records) <= 50 * (len(seconds) + 1)
    assert max(len(record.getMessage()) for record in caplog.records) < 4000


def test_p1_37_rates() -> None:
    app = WebSocketMiddleware(plain, echo, rate_limit=RateLimit(messages=1, burst=2))
    with host(app) as server, open_raw(server, HANDSHAKE % (b"/", b"")) as client:
        assert client.read_bytes(12) == b"HTTP/1.1 101"
        while b"\r\n\r\n" not in client._buffer:
            client._fill()
        del client._buffer[: client._buffer.index(b"\r\n\r\n") + 4]
        client.send(text("a") * 3)
        client.expect(0x81, b"a")
        client.expect(0x81, b"a")
        client.expect_close(1008)
