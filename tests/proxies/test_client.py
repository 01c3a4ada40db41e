"""The client to servers that others wrote, behind nginx and haproxy as docs/deployment.md shows them."""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from foreign_servers import run_server
from proxies.documented import front
from proxies.programs import DEADLINE

from geventws import (
    Compression,
    ConnectionClosedError,
    ConnectionClosedOK,
    InvalidMessage,
    InvalidStatus,
    TLSError,
    connect,
)

pytestmark = [pytest.mark.usefixtures("no_leaks"), pytest.mark.deadline(90)]

PROXIES = ["nginx", "haproxy"]


class Front:
    """Connects to a server through a proxy."""

    def __init__(self, ports: dict[str, int], certificate: Any) -> None:
        self.ports = ports
        self._context = certificate.context

    def connect(self, scheme: str, path: str = "/", **options: Any) -> Any:
        """Open a WebSocket."""
        # The servers refuse who offers none.
        options = {"subprotocols": ["b"], "ssl_context": self._context, "open_timeout": DEADLINE} | options
        port = self.ports["tls" if scheme == "wss" else "plain"]
        return connect(f"{scheme}://127.0.0.1:{port}{path}", **options)


@pytest.fixture(scope="module", params=["websockets", "aiohttp"])
def backend(
    programs: None, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """Where a server listens."""
    with run_server(request.param, tmp_path_factory.mktemp("server")) as server:
        yield server.url().removeprefix("ws://")


@pytest.fixture(scope="module", params=PROXIES)
def through(
    backend: str, certificate: Any, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Front]:
    """A proxy in front of it."""
    directory = tmp_path_factory.mktemp(request.param)
    with front(request.param, backend, directory, certificate.path) as ports:
        yield Front(ports, certificate)


@pytest.fixture(params=["ws", "wss"])
def scheme(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.mark.parametrize("compression", [None, Compression(window_bits=12)], ids=["plain", "deflate"])
def test_echo(through: Front, scheme: str, compression: Compression | None) -> None:
    with through.connect(scheme, compression=compression, subprotocols=["a", "b"]) as ws:
        assert ws.subprotocol == "b"
        assert ("permessage-deflate" in ws.extensions) == (compression is not None)
        for message in ("", "größer" * 100, "x" * 70_000, bytes(range(256)) * 4096):
            ws.send(message)
            assert ws.receive(timeout=DEADLINE) == message
        for number in range(200):
            ws.send(str(number))
        assert [ws.receive(timeout=DEADLINE) for _ in range(200)] == [str(number) for number in range(200)]
        ws.send_fragments(["a", "b", "c"])
        assert ws.receive(timeout=DEADLINE) == "abc"
        assert ws.ping(b"x").wait(DEADLINE) >= 0
        ws.send("ping")
        assert ws.receive(timeout=DEADLINE) == "pong"
    assert isinstance(ws.close_error, ConnectionClosedOK)


def test_server_closes(through: Front, scheme: str) -> None:
    ws = through.connect(scheme)
    ws.send("close")
    with pytest.raises(ConnectionClosedError) as caught:
        ws.receive(timeout=DEADLINE)
    assert (caught.value.code, caught.value.reason) == (4001, "bye")
    assert ws.wait_closed(DEADLINE)
    assert "close_timeout" not in str(ws.close_error)


def test_client_closes(through: Front, scheme: str) -> None:
    ws = through.connect(scheme, close_timeout=DEADLINE)
    ws.close(1000, "done")
    assert ws.close_code == 1000
    assert isinstance(ws.close_error, ConnectionClosedOK)


@pytest.mark.parametrize(("path", "body"), [("/refused", b"not you"), ("/denied", b"403")])
def test_refused(through: Front, scheme: str, path: str, body: bytes) -> None:
    """By the server, and by the proxy."""
    with pytest.raises(InvalidStatus) as caught:
        through.connect(scheme, path)
    assert caught.value.response.status == 403
    assert body in caught.value.response.body


def test_redirect_to_tls(through: Front) -> None:
    with pytest.raises(InvalidStatus, match="answered 301") as caught:
        connect(
            f"ws://127.0.0.1:{through.ports['redirect']}/chat?a=b", max_redirects=0, open_timeout=DEADLINE
        )
    target = caught.value.response.headers["Location"]
    # The documents have the usual ports, which no URL names.
    assert target.replace(f":{through.ports['redirect']}", "") == "https://127.0.0.1/chat?a=b"


def test_certificate_that_nobody_trusts(through: Front) -> None:
    with pytest.raises(TLSError, match="certificate") as caught:
        through.connect("wss", ssl_context=ssl.create_default_context())
    assert caught.value.unverified


def test_tls_on_the_port_without(through: Front) -> None:
    with pytest.raises(TLSError, match="does not speak TLS"):
        connect(f"wss://127.0.0.1:{through.ports['plain']}", open_timeout=DEADLINE)


def test_no_tls_on_the_port_with(through: Front) -> None:
    # nginx answers 400, haproxy ends the connection.
    with pytest.raises((InvalidStatus, InvalidMessage)) as caught:
        connect(f"ws://127.0.0.1:{through.ports['tls']}", open_timeout=DEADLINE)
    assert "400" in str(caught.value) or "wss://" in str(caught.value)


@pytest.mark.parametrize("proxy", PROXIES)
def test_server_vanishes(proxy: str, scheme: str, certificate: Any, tmp_path: Path) -> None:
    """Under an open WebSocket, and before the next one."""
    with contextlib.ExitStack() as server, contextlib.ExitStack() as stack:
        address = server.enter_context(run_server("websockets", tmp_path)).url().removeprefix("ws://")
        through = Front(stack.enter_context(front(proxy, address, tmp_path, certificate.path)), certificate)
        ws = through.connect(scheme)
        ws.send("here")
        assert ws.receive(timeout=DEADLINE) == "here"
        # Killed.
        server.close()
        with pytest.raises(ConnectionClosedError) as caught:
            ws.receive(timeout=DEADLINE)
        assert caught.value.code == 1006
        with pytest.raises(InvalidStatus) as refused:
            through.connect(scheme)
        assert refused.value.response.status in (502, 503)
        assert "proxy in front of it cannot reach it" in str(refused.value) or "too much" in str(
            refused.value
        )


@pytest.mark.parametrize("proxy", PROXIES)
def test_proxy_vanishes(proxy: str, scheme: str, certificate: Any, tmp_path: Path) -> None:
    with run_server("websockets", tmp_path) as server:
        with contextlib.ExitStack() as stack:
            address = server.url().removeprefix("ws://")
            through = Front(
                stack.enter_context(front(proxy, address, tmp_path, certificate.path)), certificate
            )
            ws = through.connect(scheme)
        with pytest.raises(ConnectionClosedError) as caught:
            ws.receive(timeout=DEADLINE)
        assert caught.value.code == 1006
