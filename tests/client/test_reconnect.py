"""client/reconnect.py: one WebSocket after the other, when to try again, and when not."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

import gevent
import pytest
from scripted import Connection, Scripted, scripted, server_frame
from support import PATIENCE, serve, wait_until

from geventws import (
    Close,
    ConcurrencyError,
    ConnectError,
    ConnectionClosedError,
    InvalidHeader,
    InvalidMessage,
    InvalidRedirect,
    InvalidStatus,
    InvalidUpgrade,
    InvalidURI,
    NegotiationError,
    OpenTimeout,
    ProxyError,
    ResolveError,
    Response,
    State,
    TLSError,
    WebSocket,
    WebSocketError,
    connect_forever,
)
from geventws.client import is_final_error

pytestmark = pytest.mark.usefixtures("no_leaks")

#: For those who do not test delays.
AT_ONCE: dict[str, Any] = {"first_delay": 0, "max_delay": 0}


def drain(ws: WebSocket) -> None:
    for _ in ws:
        pass


def receive_from(row: Any) -> None:
    """A loop whose body lets out what `receive` raises."""
    for ws in row:
        ws.receive(timeout=PATIENCE)


def divide(row: Any) -> None:
    for _ in row:
        raise ZeroDivisionError


def wait_for_ends(row: Any) -> None:
    for ws in row:
        ws.wait_closed(PATIENCE)


def numbered(connection: Connection, server: Scripted) -> None:
    """Say which connection this is, and close."""
    connection.open()
    connection.send(server_frame(0x81, b"%d" % len(server.connections)), server_frame(0x88, b"\x03\xe8"))
    connection.read_frame()


def script_of(*steps: Callable[[Connection], Any]) -> Callable[[Connection], Any]:
    """A script that does another thing for each connection, and the last one for ever."""
    left = list(steps)

    def script(connection: Connection) -> None:
        step = left.pop(0) if len(left) > 1 else left[0]
        step(connection)

    return script


class TestRow:
    def test_one_after_the_other(self) -> None:
        got: list[str] = []
        websockets: list[WebSocket] = []
        with scripted(lambda connection: numbered(connection, server)) as server:
            row = connect_forever(server.uri, **AT_ONCE)
            for ws in row:
                assert ws is row.websocket
                assert ws.state is not State.CLOSED
                assert all(other.state is State.CLOSED for other in websockets)
                websockets.append(ws)
                got += ws
                if len(got) == 4:
                    break
            assert got == ["1", "2", "3", "4"]
            assert row.last_error is not None
            assert "1000" in str(row.last_error)

    def test_end_of_the_body_closes(self) -> None:
        with serve(drain) as server:
            seen: list[WebSocket] = []
            for ws in connect_forever(f"ws://127.0.0.1:{server.address[1]}", **AT_ONCE):
                seen.append(ws)
                if len(seen) == 2:
                    break
            assert seen[0].close_code == 1000
            # `break` closes without waiting.
            assert seen[1].closed
            assert seen[1].wait_closed(PATIENCE)
            assert seen[1].close_code == 1000

    def test_exceptions_of_the_body_leave_the_loop(self) -> None:
        with scripted(lambda connection: connection.open()) as server:
            row = connect_forever(server.uri, **AT_ONCE)
            with pytest.raises(ConnectionClosedError):
                receive_from(row)
            assert row.websocket is not None
            assert row.websocket.closed
            with pytest.raises(ZeroDivisionError):
                divide(row)
            gc.collect()
            assert row.websocket.wait_closed(PATIENCE)

    def test_failed_attempts_in_between(self) -> None:
        retries: list[tuple[str, float]] = []
        steps = script_of(
            lambda connection: connection.answer(b"503 Busy"),
            lambda connection: connection.reset(),
            lambda connection: connection.read_head(),
            lambda connection: numbered(connection, server),
        )
        with scripted(steps) as server:
            for ws in connect_forever(
                server.uri,
                on_retry=lambda error, delay: retries.append((type(error).__name__, delay)),
                **AT_ONCE,
            ):
                assert list(ws) == ["4"]
                break
        assert retries == [("InvalidStatus", 0), ("ConnectError", 0), ("InvalidMessage", 0)]

    def test_server_that_comes_back(self) -> None:
        with scripted(lambda connection: numbered(connection, server)) as server:
            uri = server.uri
            for _ in connect_forever(uri, **AT_ONCE):
                break
        failed: list[WebSocketError] = []

        def is_final(error: WebSocketError) -> bool:
            failed.append(error)
            return len(failed) == 3

        with pytest.raises(ConnectError) as caught:
            list(connect_forever(uri, is_final=is_final, **AT_ONCE))
        assert caught.value is failed[-1]
        assert len(failed) == 3

    def test_final_error_is_raised(self) -> None:
        with scripted(lambda connection: connection.answer(b"401 Unauthorized")) as server:
            row = connect_forever(server.uri, **AT_ONCE)
            with pytest.raises(InvalidStatus) as caught:
                next(iter(row))
            assert row.last_error is caught.value
            assert len(server.connections) == 1

    def test_limit(self) -> None:
        with scripted(lambda connection: connection.answer(b"500 No")) as server:
            row = connect_forever(server.uri, max_retries=3, **AT_ONCE)
            with pytest.raises(InvalidStatus):
                list(row)
            assert row.retries == 3
            assert len(server.connections) == 4

    @pytest.mark.parametrize("stable_after", [0, 1000])
    def test_what_counts_towards_the_limit(self, stable_after: float) -> None:
        with scripted(lambda connection: numbered(connection, server)) as server:
            row = connect_forever(server.uri, max_retries=3, stable_after=stable_after, **AT_ONCE)
            count = 0
            raised = None
            try:
                for ws in row:
                    list(ws)
                    count += 1
                    if count == 10:
                        break
            except WebSocketError as error:
                raised = error
            assert raised is (None if stable_after == 0 else row.last_error)
            # A server that accepts and closes at once is no better than one that does not accept.
            assert count == (10 if stable_after == 0 else 4)

    def test_only_once_at_a_time(self) -> None:
        with serve(drain) as server:
            row = connect_forever(f"ws://127.0.0.1:{server.address[1]}", **AT_ONCE)
            for _ in row:
                with pytest.raises(ConcurrencyError):
                    next(iter(row))
                break


class TestStop:
    def test_in_a_delay(self) -> None:
        with scripted(lambda connection: connection.answer(b"500 No")) as server:
            row = connect_forever(server.uri, first_delay=1000, max_delay=1000)
            iterating = gevent.spawn(list, row)
            wait_until(lambda: row.retries == 1)
            row.stop()
            assert iterating.get(timeout=PATIENCE) == []

    def test_while_one_is_open(self) -> None:
        with serve(drain) as server:
            row = connect_forever(f"ws://127.0.0.1:{server.address[1]}")
            count = 0
            for ws in row:
                count += 1
                gevent.spawn(row.stop)
                assert list(ws) == []
                assert ws.wait_closed(PATIENCE)
                assert ws.close_code == 1000
            assert count == 1
            assert list(row) == []

    def test_while_one_is_being_opened(self) -> None:
        def script(connection: Connection) -> None:
            connection.read_head()
            row.stop()
            connection.send(
                b"HTTP/1.1 101 X\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "
                + connection.accept_value()
                + b"\r\n\r\n"
            )
            assert connection.read_frame()[0] == 0x88
            connection.send(server_frame(0x88, b"\x03\xe8"))

        with scripted(script) as server:
            row = connect_forever(server.uri)
            assert list(row) == []
            assert row.websocket is not None
            assert row.websocket.close_code == 1000


class TestDelays:
    def delays(self, count: int, error: WebSocketError | None = None, **options: Any) -> list[list[float]]:
        row = connect_forever("ws://192.0.2.1/", **options)
        found = []
        for retries in range(1, count + 1):
            row.retries = retries
            found.append([row.next_delay(error or ConnectError("x")) for _ in range(400)])
        return found

    def test_first_is_within_five_seconds_and_the_others_grow(self) -> None:
        spans = [(0, 5), (5, 10), (10, 20), (20, 40), (30, 60), (30, 60)]
        for (low, high), delays in zip(spans, self.delays(6), strict=True):
            assert low <= min(delays) < low + (high - low) * 0.2
            assert high - (high - low) * 0.2 < max(delays) <= high

    def test_options(self) -> None:
        first, second, third = self.delays(3, first_delay=1, max_delay=3)
        assert max(first) <= 1
        assert 1 <= min(second) <= max(second) <= 2
        assert 1.5 <= min(third) <= max(third) <= 3

    def test_many_retries(self) -> None:
        row = connect_forever("ws://192.0.2.1/")
        row.retries = 10**9
        assert 30 <= row.next_delay(ConnectError("x")) <= 60

    @pytest.mark.parametrize(
        ("value", "least", "most"),
        [
            ("7", 7, 12),
            ("9999999", 60, 65),
            ("9" * 30, 0, 5),
            ("-1", 0, 5),
            ("Fri, 31 Dec 1999", 0, 5),
            ("٣", 0, 5),
        ],
    )
    def test_retry_after(self, value: str, least: float, most: float) -> None:
        response = Response._received(503, "", type(Response(200).headers)([("Retry-After", value)]), b"")
        (delays,) = self.delays(1, InvalidStatus("x", response))
        assert least <= min(delays) <= max(delays) <= most

    def test_they_are_waited_for(self) -> None:
        with scripted(lambda connection: connection.answer(b"500 No")) as server:
            row = connect_forever(server.uri, first_delay=1000, max_delay=1000)
            iterating = gevent.spawn(list, row)
            wait_until(lambda: row.retries == 1)
            gevent.sleep(0.02)
            assert len(server.connections) == 1
            row.stop()
            iterating.get(timeout=PATIENCE)


class TestFinal:
    @pytest.mark.parametrize(
        ("error", "final"),
        [
            (InvalidURI("x"), True),
            (TLSError("x", unverified=True), True),
            (TLSError("x"), False),
            (ProxyError("x", refused=True), True),
            (ProxyError("x"), False),
            (ResolveError("x"), False),
            (ConnectError("x"), False),
            (OpenTimeout("x"), False),
            (InvalidMessage("x"), False),
            (InvalidHeader("x"), True),
            (InvalidUpgrade("x"), True),
            (NegotiationError("x"), True),
            (InvalidRedirect("x", Response(302)), True),
            (ConnectionClosedError(Close(1008)), False),
            *(
                (InvalidStatus("x", Response(status)), True)
                for status in (200, 301, 400, 401, 403, 404, 501, 505)
            ),
            *(
                (InvalidStatus("x", Response(status)), False)
                for status in (408, 425, 429, 500, 502, 503, 504)
            ),
        ],
    )
    def test_default(self, error: WebSocketError, final: bool) -> None:
        assert is_final_error(error) == final

    def test_end_of_a_websocket_can_be_final(self) -> None:
        def script(connection: Connection) -> None:
            connection.open()
            connection.send(server_frame(0x88, b"\x0f\xa0go away"))
            connection.read_frame()

        with scripted(script) as server, pytest.raises(ConnectionClosedError) as caught:
            wait_for_ends(
                connect_forever(
                    server.uri, is_final=lambda error: getattr(error, "code", 0) == 4000, **AT_ONCE
                )
            )
        assert caught.value.reason == "go away"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"first_delay": -1}, "first_delay"),
        ({"first_delay": "1"}, "first_delay"),
        ({"max_delay": float("nan")}, "max_delay"),
        ({"stable_after": None}, "stable_after"),
        ({"max_retries": 0}, "max_retries"),
        ({"max_retries": 1.5}, "max_retries"),
        ({"is_final": 5}, "is_final"),
        ({"on_retry": 5}, "on_retry"),
        ({"max_message_size": 0}, "max_message_size"),
        ({"auth": 5}, "auth"),
        ({"nonsense": 5}, "no option"),
    ],
)
def test_what_is_not_possible_is_refused_at_once(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        connect_forever("ws://192.0.2.1/", **arguments)


def test_uri_is_checked_at_once() -> None:
    with pytest.raises(InvalidURI):
        connect_forever("http://example.com")
