"""Our servers behind nginx and haproxy: silence, stopping, Unix sockets, and advice that is not taken."""

from __future__ import annotations

import contextlib
import json
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from proxies.backends import KINDS, Kind, backend
from proxies.dialing import To, finish, read_head, read_rest, unique
from proxies.documented import front
from proxies.programs import DEADLINE
from support import HANDSHAKE, RawClient, close, pong, text

from geventws import OpenTimeout, connect

pytestmark = pytest.mark.deadline(90)

PROXIES = ["nginx", "haproxy"]

#: Seconds: what the proxies allow instead of 60, and the server's pings, in about the documented ratio.
PROXY_SECONDS = 4
PINGS = {"ping_interval": 1.3, "ping_timeout": 30}


@pytest.fixture
def start(certificate: Any, stack: contextlib.ExitStack, tmp_path: Path) -> Iterator[Any]:
    """Start a server and a proxy in front of it; gives what connects, in TLS."""

    def start(kind: Kind, proxy: str, *, front_options: Any = (), **options: Any) -> To:
        server = stack.enter_context(backend(kind, tmp_path, **options))
        ports = stack.enter_context(
            front(proxy, server.address, tmp_path, certificate.path, **dict(front_options))
        )
        return To(proxy, ports["tls"], certificate.context, server)

    return start


def read_until_silence_is_broken(client: RawClient, seconds: float) -> None:
    """Answer Pings for so many seconds, and do nothing else."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        first, payload = client.read_frame()
        assert first == 0x89
        client.send(pong(payload))


@pytest.mark.parametrize("proxy", PROXIES)
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_idle_websocket_outlives_the_proxys_timeouts(kind: Kind, proxy: str, start: Any) -> None:
    to = start(kind, proxy, front_options={"seconds": PROXY_SECONDS}, **PINGS)
    with to.open() as client:
        read_until_silence_is_broken(client, 2 * PROXY_SECONDS)
        client.send(text("alive"))
        while (found := client.read_frame()) != (0x81, b"alive"):
            assert found[0] == 0x89
        finish(client)


@pytest.mark.parametrize("proxy", PROXIES)
@pytest.mark.parametrize("kind", KINDS[:2], ids=lambda kind: kind.name)
def test_without_pings_the_proxy_cuts_an_idle_websocket(kind: Kind, proxy: str, start: Any) -> None:
    to = start(kind, proxy, front_options={"seconds": 1}, ping_interval=None)
    path = unique("idle")
    with to.open(path) as client:
        assert read_rest(client) == b""
    assert to.server.end_of(path) == 1006


@pytest.mark.parametrize("proxy", PROXIES)
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_client_that_answers_no_ping(kind: Kind, proxy: str, start: Any) -> None:
    """Its TCP lives, in the proxy's hands: only the keepalive finds out."""
    to = start(kind, proxy, ping_interval=0.2, ping_timeout=0.2, close_timeout=0.5)
    path = unique("dead")
    with to.open(path) as client:
        while (found := client.read_frame())[0] == 0x89:
            pass
        assert found[0] == 0x88
        assert found[1][:2] == (1011).to_bytes(2, "big")
        assert read_rest(client) == b""
    assert to.server.end_of(path) == 1006


@pytest.mark.parametrize("proxy", PROXIES)
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind.tells], ids=lambda kind: kind.name)
def test_server_that_stops_tells_its_clients(kind: Kind, proxy: str, start: Any) -> None:
    to = start(kind, proxy)
    with to.open() as client:
        client.send(text("here"))
        client.expect(0x81, b"here")
        to.server.signal(signal.SIGTERM)
        client.expect_close(1001)
        client.send(close(1001))
        client.expect_end()
    assert to.server.process.process.wait(60) == 0


@pytest.mark.parametrize("proxy", PROXIES)
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_server_that_is_killed(kind: Kind, proxy: str, start: Any) -> None:
    to = start(kind, proxy)
    with to.open() as client:
        client.send(text("here"))
        client.expect(0x81, b"here")
        to.server.process.kill_group()
        assert read_rest(client) == b""
    with to.dial() as client:
        client.send(HANDSHAKE % (b"/echo", b""))
        assert read_head(client).split(b" ")[1] in (b"502", b"503")


@pytest.mark.parametrize("proxy", PROXIES)
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_unix_socket(kind: Kind, proxy: str, start: Any) -> None:
    to = start(kind, proxy, unix=True)
    with to.open("/who", source="127.0.0.2") as client:
        first, payload = client.read_frame()
        assert first == 0x81
        assert json.loads(payload)["X-Forwarded-For"] == "127.0.0.2"
        client.send(text("x" * 70_000))
        client.expect(0x81, b"x" * 70_000)
        finish(client)


@pytest.mark.parametrize("proxy", PROXIES)
@pytest.mark.parametrize(
    "kind", [kind for kind in KINDS if kind.name != "standalone"], ids=lambda kind: kind.name
)
def test_proxy_fix(kind: Kind, proxy: str, start: Any) -> None:
    """Around the middleware, it gives the WebSocket the client's address."""
    to = start(kind, proxy, fixed=True)
    with to.open("/who", b"X-Forwarded-For: 6.6.6.6\r\n", source="127.0.0.2") as client:
        assert json.loads(client.read_frame()[1])["remote"][0] == "127.0.0.2"
        finish(client)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind.worker], ids=lambda kind: kind.name)
def test_workers_connections_are_websockets(kind: Kind, tmp_path: Path) -> None:
    """`--worker-connections` is how many there can be; the next one waits until one of them has gone."""
    with backend(kind, tmp_path, arguments=["--worker-connections", "2"]) as server:
        uri = f"ws://{server.address}/echo"
        with connect(uri, open_timeout=DEADLINE), connect(uri, open_timeout=DEADLINE) as second:
            with pytest.raises(OpenTimeout):
                connect(uri, open_timeout=1)
            second.close()
            with connect(uri, open_timeout=DEADLINE) as third:
                third.send("x")
                assert third.receive(timeout=DEADLINE) == "x"


def test_host_that_nginx_does_not_pass_on(start: Any) -> None:
    """Every browser gets 403, and the log says why."""
    changes = {"        proxy_set_header Host $http_host;\n": ""}
    to = start(KINDS[0], "nginx", front_options={"changes": changes})
    with to.dial() as client:
        client.send(HANDSHAKE % (b"/echo", b"Origin: https://localhost\r\n"))
        assert read_head(client).startswith(b"HTTP/1.1 403 ")
    output = to.server.output()
    assert "https://localhost" in output
    assert "'chat'" in output


def test_upgrade_that_nginx_does_not_pass_on(start: Any) -> None:
    changes = {"        proxy_set_header Upgrade $chat_upgrade;\n": ""}
    to = start(KINDS[0], "nginx", front_options={"changes": changes})
    with to.dial() as client:
        client.send(HANDSHAKE % (b"/echo", b""))
        assert read_head(client).startswith(b"HTTP/1.1 426 ")
