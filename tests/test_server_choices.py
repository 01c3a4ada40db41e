"""What the application decides of an upgrade: origins, subprotocols, `process_request`."""

from __future__ import annotations

import logging
from typing import Any

import gevent
import gevent.event
import pytest
from asking import KEY_FIELDS, PLAIN, UPGRADE, ask, dial, get, header, opens, quiet
from support import RawClient, serve, wait_until

from geventws import InvalidOrigin, Response, WebSocketServer

__all__ = ["quiet"]

pytestmark = pytest.mark.usefixtures("no_leaks")


def echo(ws: Any) -> None:
    for message in ws:
        ws.send(message)


def never(ws: Any) -> None:
    raise AssertionError("no handler may run")


class TestOrigins:
    @pytest.mark.parametrize(
        ("origins", "fields", "allowed"),
        [
            ("same-host", (), True),
            ("same-host", (b"Origin: http://localhost",), True),
            ("same-host", (b"Origin: https://LOCALHOST",), True),
            ("same-host", (b"Origin: http://localhost:81",), False),
            ("same-host", (b"Origin: http://localhost.evil.example",), False),
            ("same-host", (b"Origin: http://evil-localhost",), False),
            ("same-host", (b"Origin: null",), False),
            ("same-host", (b"Origin: ",), False),
            ("same-host", (b"Origin: http://localhost@evil.example",), False),
            ("same-host", (b"Origin: http://localhost", b"Origin: http://localhost"), False),
            (["https://app.example"], (b"Origin: https://app.example",), True),
            (["https://app.example"], (b"Origin: http://app.example",), False),
            (["https://app.example"], (b"Origin: https://app.example:444",), False),
            (["https://app.example"], (b"Origin: http://localhost",), False),
            (["https://app.example"], (), True),
            ([], (b"Origin: http://localhost",), False),
            (None, (b"Origin: null",), True),
            (
                lambda request, origin: request.path == "/" and origin == "http://a",
                (b"Origin: http://a",),
                True,
            ),
            (lambda request, origin: False, (b"Origin: http://a",), False),
        ],
        ids=range(19),
    )
    def test_origins(self, quiet: Any, origins: Any, fields: tuple[bytes, ...], allowed: bool) -> None:
        with serve(echo, origins=origins) as server:
            if allowed:
                opens(server.address, *fields).close()
                wait_until(lambda: not server._serving)
            else:
                assert ask(server.address, get(*KEY_FIELDS, *fields)).status == 403


class TestSubprotocols:
    @pytest.mark.parametrize(
        ("subprotocols", "offer", "chosen"),
        [
            ((), b"a, b", None),
            (("b", "a"), b"a, b", "b"),
            (["c"], b"a, b", None),
            (("a",), None, None),
            (lambda request, offered: offered[-1], b"a, b", "b"),
            (lambda request, offered: None, b"a, b", None),
        ],
        ids=range(6),
    )
    def test_subprotocols(
        self, quiet: Any, subprotocols: Any, offer: bytes | None, chosen: str | None
    ) -> None:
        seen = []
        fields = () if offer is None else (b"Sec-WebSocket-Protocol: " + offer,)
        with serve(lambda ws: seen.append(ws.subprotocol), subprotocols=subprotocols) as server:
            with opens(server.address, *fields) as client:
                assert header(client, "Sec-WebSocket-Protocol") == chosen
                client.expect_close(1000)
            assert seen == [chosen]


def raise_(error: BaseException) -> Any:
    raise error


def refused_with_500(server: WebSocketServer, caplog: Any, *fields: bytes) -> str:
    """Ask for a WebSocket where the application fails; returns the one traceback's last line."""
    answer = ask(server.address, get(*KEY_FIELDS, *fields))
    assert (answer.status, answer.body) == (500, b"500 Internal Server Error\n")
    (record,) = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert record.exc_info
    caplog.clear()
    # The server lives.
    ask(server.address, PLAIN)
    return f"{type(record.exc_info[1]).__name__}: {record.exc_info[1]}"


class TestApplicationErrors:
    """What the application's own callables do wrong is 500 and one traceback."""

    @pytest.mark.parametrize(
        "error", [ValueError("mine"), SystemExit(3), gevent.Timeout(1), TimeoutError("t")]
    )
    def test_process_request_raises(self, caplog: Any, capfd: Any, error: BaseException) -> None:
        calls = []

        def process(request: Any) -> None:
            if not calls:
                calls.append(request)
                raise error

        with serve(echo, process_request=process) as server:
            assert refused_with_500(server, caplog).startswith(type(error).__name__)
            assert server.stats.refused >= 1
        assert capfd.readouterr().err == ""

    @pytest.mark.parametrize("answer", [200, "text", (200, "OK"), b"", False, Response(101)])
    def test_process_request_returns_something_else(self, caplog: Any, answer: Any) -> None:
        with serve(never, process_request=lambda request: answer) as server:
            assert "process_request returned" in refused_with_500(server, caplog)

    def test_process_request_returns_what_cannot_be_sent(self, caplog: Any) -> None:
        response = Response(200, body="x")
        response.headers.add("X-A", "1\r\nX-B: 2")
        with serve(never, process_request=lambda request: response) as server:
            assert "ValueError" in refused_with_500(server, caplog)

    @pytest.mark.parametrize(
        "choose",
        [
            lambda request, offered: "other",
            lambda request, offered: 5,
            lambda request, offered: raise_(KeyError("k")),
        ],
    )
    def test_subprotocols_choose_nonsense(self, caplog: Any, choose: Any) -> None:
        with serve(never, subprotocols=choose) as server:
            refused_with_500(server, caplog, b"Sec-WebSocket-Protocol: a")

    def test_origins_raise(self, caplog: Any) -> None:
        with serve(never, origins=lambda request, origin: raise_(KeyError("k"))) as server:
            assert "KeyError" in refused_with_500(server, caplog, b"Origin: http://a")


class TestProcessRequest:
    def test_health_check_beside_websockets(self, quiet: Any) -> None:
        def process(request: Any) -> Response | None:
            return Response(200, body="fine\n") if request.path == "/health" else None

        with serve(echo, process_request=process) as server:
            answer = ask(server.address, get(b"Host: a", line=b"GET /health HTTP/1.1"))
            assert (answer.status, answer.body) == (200, b"fine\n")
            opens(server.address).close()
            wait_until(lambda: not server._serving)

    def test_response_with_headers_and_cookies(self, quiet: Any) -> None:
        response = Response(
            401, [("WWW-Authenticate", "Basic"), ("Set-Cookie", "a=1; HttpOnly")], b"\xff\x00"
        )
        with serve(never, process_request=lambda request: response) as server:
            answer = ask(server.address, UPGRADE)
            assert (answer.status, answer.body) == (401, b"\xff\x00")
            assert answer.headers["WWW-Authenticate"] == "Basic"
            assert answer.headers["Set-Cookie"] == "a=1; HttpOnly"
            # Each has its own serialization: nothing is left of the first in the second.
            assert ask(server.address, UPGRADE).data == answer.data

    def test_raises_one_of_our_errors(self, quiet: Any) -> None:
        with serve(never, process_request=lambda request: raise_(InvalidOrigin("no"))) as server:
            assert ask(server.address, UPGRADE).status == 403

    def test_may_take_longer_than_open_timeout(self, quiet: Any) -> None:
        """The peer has done its part; a slow look-up of ours is not held against it."""
        with (
            serve(
                lambda ws: ws.send("open"),
                process_request=lambda request: gevent.sleep(0.3),
                open_timeout=0.1,
            ) as server,
            opens(server.address) as client,
        ):
            client.expect(0x81, b"open")

    def test_peer_that_leaves_meanwhile(self, quiet: Any) -> None:
        go = gevent.event.Event()
        with serve(echo, process_request=lambda request: go.wait() and None) as server:
            sock = dial(server.address)
            sock.sendall(UPGRADE)
            wait_until(lambda: server._serving and not server._opening)
            RawClient(sock).reset()
            gevent.sleep(0.01)
            go.set()
            wait_until(lambda: not server._serving)
            assert server.stats.failed_handshakes == 1
