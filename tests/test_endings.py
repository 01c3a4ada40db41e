"""The end of each WebSocket: why, by whom, one line of the log with its facts, and counts."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import gevent
import pytest
from support import PATIENCE, RawClient, close, frame, serve, text, wait_until

from geventws import ConnectionClosed, RateLimit, broadcast
from geventws.stats import CAUSES

pytestmark = pytest.mark.usefixtures("no_leaks")


def echo(ws: Any) -> None:
    for message in ws:
        ws.send(message)


def end_close(client: RawClient, server: Any) -> None:
    client.send(close(4001, b"bye\n"))
    client.expect_close(4001)


def end_by_return(client: RawClient, server: Any) -> None:
    client.expect_close(1000)
    client.send(close(1000))


def end_shutdown(client: RawClient, server: Any) -> None:
    wait_until(lambda: server.connections)
    stopping = gevent.spawn(server.stop)
    client.expect_close(1001)
    client.send(close(1001))
    stopping.get(timeout=PATIENCE)


def end_handler_error(client: RawClient, server: Any) -> None:
    client.expect_close(1011)
    client.send(close(1011))


def end_slow(client: RawClient, server: Any) -> None:
    wait_until(lambda: server.connections)
    (ws,) = server.connections
    while not broadcast([ws], b"x" * 50_000):
        pass
    while client.read_frame()[0] != 0x88:
        pass
    client.send(close(1013))


def end_protocol(client: RawClient, server: Any) -> None:
    client.send(b"\x83\x80\0\0\0\0")
    client.expect_close(1002)


def end_payload(client: RawClient, server: Any) -> None:
    client.send(frame(0x81, b"\xff"))
    client.expect_close(1007)


def end_too_big(client: RawClient, server: Any) -> None:
    client.send(text("x" * 101))
    client.expect_close(1009)


def end_rate(client: RawClient, server: Any) -> None:
    client.send(frame(0x89) * 3)
    for _ in range(2):
        client.expect(0x8A)
    client.expect_close(1008)


def end_ping(client: RawClient, server: Any) -> None:
    assert client.read_frame()[0] == 0x89
    client.expect_close(1011)


def end_silently(client: RawClient, server: Any) -> None:
    wait_until(lambda: not server.connections)


def end_peer_ended(client: RawClient, server: Any) -> None:
    client.close()


def end_peer_reset(client: RawClient, server: Any) -> None:
    wait_until(lambda: server.connections)
    client.reset()


def raising(ws: Any) -> None:
    raise ZeroDivisionError


def flooding(ws: Any) -> None:
    try:
        while True:
            ws.send(b"x" * 65536)
    except ConnectionClosed:
        pass


#: cause, handler, options, what the peer does, who closed, code, clean, level
ENDS: list[tuple[str, Any, dict[str, Any], Callable[[Any, Any], None], str, int, bool, int]] = [
    ("close", echo, {}, end_close, "peer", 4001, True, logging.DEBUG),
    ("close", lambda ws: None, {}, end_by_return, "here", 1000, True, logging.DEBUG),
    ("shutdown", echo, {}, end_shutdown, "here", 1001, True, logging.DEBUG),
    ("handler_error", raising, {}, end_handler_error, "here", 1011, True, logging.INFO),
    ("slow_consumer", echo, {"write_limit": 1}, end_slow, "here", 1013, True, logging.INFO),
    ("protocol_error", echo, {}, end_protocol, "here", 1002, False, logging.INFO),
    ("invalid_payload", echo, {}, end_payload, "here", 1007, False, logging.INFO),
    ("too_big", echo, {"max_message_size": 100}, end_too_big, "here", 1009, False, logging.INFO),
    ("rate_limit", echo, {"rate_limit": RateLimit(controls=1, burst=2)}, end_rate, "here", 1008, False, 20),
    ("ping_timeout", echo, {"ping_interval": 0.05, "ping_timeout": 0.05}, end_ping, "here", 1011, False, 20),
    ("write_timeout", flooding, {"write_timeout": 0.1}, end_silently, "here", 1006, False, logging.INFO),
    ("close_timeout", lambda ws: None, {"close_timeout": 0.05}, end_silently, "here", 1000, False, 20),
    ("peer_ended", echo, {}, end_peer_ended, "peer", 1006, False, logging.DEBUG),
    ("peer_reset", echo, {}, end_peer_reset, "peer", 1006, False, logging.DEBUG),
    ("aborted", lambda ws: ws.abort(), {}, end_silently, "here", 1006, False, logging.DEBUG),
]


@pytest.mark.parametrize(
    ("cause", "handler", "options", "act", "by", "code", "clean", "level"),
    ENDS,
    ids=[f"{end[0]}-{end[4]}" for end in ENDS],
)
def test_p1_41_each_end_is_logged_and_counted(
    caplog: Any,
    cause: str,
    handler: Any,
    options: dict[str, Any],
    act: Callable[[Any, Any], None],
    by: str,
    code: int,
    clean: bool,
    level: int,
) -> None:
    caplog.set_level(logging.DEBUG, "geventws.close")
    with serve(handler, **options) as server:
        with RawClient.connect(server.address, b"/a%0Ab", small=cause == "write_timeout") as client:
            address = client.socket.getsockname()
            act(client, server)
        wait_until(lambda: server.stats.closed_clean + server.stats.closed_unclean)
        (record,) = [record for record in caplog.records if record.name == "geventws.close"]
        assert record.levelno == level
        assert (record.cause, record.closed_by, record.close_code, record.clean) == (cause, by, code, clean)
        assert record.path == "/a\nb"
        assert record.remote_address == address
        assert record.connection >= 1
        assert 0 <= record.duration < PATIENCE
        assert record.bytes_sent > 0 or by == "peer" or cause == "aborted"
        line = record.getMessage()
        # What the peer has chosen makes no line of its own, and no control character.
        assert line.isprintable(), line
        assert f" closed by {by}: {code} " in line
        assert cause in line
        assert server.stats.closes == {name: int(name == cause) for name in CAUSES}
        assert (server.stats.write_timeouts, server.stats.ping_timeouts) == (
            int(cause == "write_timeout"),
            int(cause == "ping_timeout"),
        )


def test_every_cause_can_be_reached() -> None:
    # A socket that fails in another way, and a fault of ours, cannot be caused from outside.
    assert {end[0] for end in ENDS} | {"network_error", "internal_error"} == set(CAUSES)


def test_a_fault_of_ours_is_told_apart(caplog: Any) -> None:
    caplog.set_level(logging.DEBUG, "geventws.close")
    with serve(echo) as server:
        with RawClient.connect(server.address) as client:
            wait_until(lambda: server.connections)
            (ws,) = server.connections
            ws.handle_error(ZeroDivisionError())
            client.expect_close(1011)
        wait_until(lambda: server.stats.closes["internal_error"] == 1)
    assert caplog.records[-1].cause == "internal_error"


def test_counts_and_facts_of_messages(caplog: Any) -> None:
    caplog.set_level(logging.DEBUG, "geventws.close")
    with serve(echo) as server:
        with RawClient.connect(server.address) as client:
            client.send(text("abc"), frame(0x82, b"xy"))
            client.expect(0x81, b"abc")
            client.expect(0x82, b"xy")
            client.send(close(1000))
            client.expect_close(1000)
        wait_until(lambda: server.stats.closed_clean)
    (record,) = caplog.records
    assert (record.messages_received, record.messages_sent) == (2, 2)
    assert (record.bytes_received, record.bytes_sent) == (9 + 8 + 8, 5 + 4 + 4)
    stats = server.stats
    assert (stats.messages_received, stats.bytes_received, stats.bytes_sent) == (2, 25, 13)


def test_it_costs_no_line_where_nobody_listens(caplog: Any) -> None:
    caplog.set_level(logging.WARNING, "geventws.close")
    with serve(echo) as server:
        with RawClient.connect(server.address) as client:
            end_protocol(client, server)
        wait_until(lambda: server.stats.closes["protocol_error"] == 1)
    assert caplog.records == []


def test_a_line_is_short_and_its_record_has_all(caplog: Any) -> None:
    caplog.set_level(logging.DEBUG, "geventws")

    def raises(ws: Any) -> None:
        raise ValueError

    with serve(raises) as server, RawClient.connect(server.address, b"/" + b"%01" * 2600) as client:
        client.expect_close(1011)
        client.send(close(1011))
        wait_until(lambda: server.stats.closes["handler_error"])
    assert max(len(record.getMessage()) for record in caplog.records) < 4000
    assert caplog.records[-1].path == "/" + "\x01" * 2600
