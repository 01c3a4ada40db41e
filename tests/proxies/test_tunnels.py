"""The client through real proxies: CONNECT through tinyproxy, SOCKS5 through microsocks."""

from __future__ import annotations

import contextlib
import socket
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gevent.socket
import pytest
from foreign_servers import run_server
from proxies.programs import DEADLINE, running

from geventws import ConnectionClosedOK, OpenTimeout, ProxyError, connect

pytestmark = [pytest.mark.usefixtures("resolver", "no_leaks"), pytest.mark.deadline(90)]

SCHEMES = ["http", "socks5", "socks5h"]

#: tinyproxy's configuration takes nothing that a URL would have to write differently.
PASSWORDS = {"http": "s.cret", "socks5": "s:/@cret", "socks5h": "s:/@cret"}


def with_credentials(scheme: str) -> str:
    """What stands in front of the proxy's host."""
    return f"me:{urllib.parse.quote(PASSWORDS[scheme], safe='')}@"


@pytest.fixture
def resolver() -> None:
    """The thread that asks for names is there before a test looks; idle, it ends after some seconds."""
    gevent.socket.getaddrinfo("localhost", None)


@contextlib.contextmanager
def tinyproxy(directory: Path, *lines: str) -> Iterator[int]:
    """Run tinyproxy; gives its port."""

    def prepare(ports: list[int]) -> list[str]:
        text = [f"Port {ports[0]}", "Listen 127.0.0.1", "Timeout 600", "MaxClients 50", "LogLevel Error"]
        (directory / "tinyproxy.conf").write_text("\n".join([*text, *lines, ""]), encoding="ascii")
        return ["-d", "-c", str(directory / "tinyproxy.conf")]

    with running("tinyproxy", directory, 1, prepare) as ports:
        yield ports[0]


@contextlib.contextmanager
def microsocks(directory: Path, *arguments: str) -> Iterator[int]:
    """Run microsocks; gives its port."""
    with running(
        "microsocks", directory, 1, lambda ports: ["-i", "127.0.0.1", "-p", str(ports[0]), *arguments]
    ) as ports:
        yield ports[0]


@pytest.fixture(scope="module")
def ports(programs: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[tuple[str, bool], int]]:
    """The proxies: ports by kind and by whether credentials are wanted."""
    with contextlib.ExitStack() as stack:
        found = {}
        for known in (False, True):
            directory = tmp_path_factory.mktemp("tinyproxy")
            lines = [f"BasicAuth me {PASSWORDS['http']}"] if known else []
            found["http", known] = stack.enter_context(tinyproxy(directory, *lines))
            directory = tmp_path_factory.mktemp("microsocks")
            arguments = ["-u", "me", "-P", PASSWORDS["socks5"]] if known else []
            found["socks5", known] = stack.enter_context(microsocks(directory, *arguments))
            found["socks5h", known] = found["socks5", known]
        yield found


@pytest.fixture(scope="module")
def servers(certificate: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A server of others, plain and with TLS: URIs by scheme."""
    directory = tmp_path_factory.mktemp("server")
    with (
        run_server("websockets", directory) as plain,
        run_server("websockets", directory, certificate.path) as encrypted,
    ):
        yield {"ws": plain.url(), "wss": encrypted.url().replace("ws:", "wss:")}


@pytest.fixture
def dead_port() -> Iterator[int]:
    """A port that nobody listens on, and nobody can take."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        yield sock.getsockname()[1]


def talk(uri: str, certificate: Any, port: int | None, **options: Any) -> None:
    """Open a WebSocket, through a proxy on this port or through none, and use it."""
    options |= {"ssl_context": certificate.context, "max_message_size": None, "open_timeout": DEADLINE}
    # The server refuses who offers none.
    with connect(uri, subprotocols=["b"], **options) as ws:
        # TCP ends at the proxy.
        assert (ws.request.remote_address[1] == port) == (port is not None)
        for message in ("", "größer" * 100, bytes(range(256)) * 4096):
            ws.send(message)
            assert ws.receive(timeout=DEADLINE) == message
    assert isinstance(ws.close_error, ConnectionClosedOK)


def refusal(uri: str, certificate: Any, **options: Any) -> ProxyError:
    """The ProxyError with which a WebSocket does not open; without the password in it."""
    options = {"ssl_context": certificate.context, "open_timeout": DEADLINE} | options
    with pytest.raises(ProxyError) as caught:
        connect(uri, **options)
    for scheme, password in PASSWORDS.items():
        assert password not in str(caught.value)
        assert with_credentials(scheme) not in str(caught.value)
    return caught.value


@pytest.mark.parametrize("tls", ["ws", "wss"])
@pytest.mark.parametrize("known", [False, True], ids=["open", "credentials"])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_argument(
    scheme: str, known: bool, tls: str, ports: Any, servers: dict[str, str], certificate: Any
) -> None:
    port = ports[scheme, known]
    talk(
        servers[tls],
        certificate,
        port,
        proxy=f"{scheme}://{with_credentials(scheme) * known}127.0.0.1:{port}",
    )


@pytest.mark.parametrize(
    ("variable", "tls"),
    [("http_proxy", "ws"), ("https_proxy", "wss"), ("all_proxy", "ws"), ("ALL_PROXY", "wss")],
)
@pytest.mark.parametrize("known", [False, True], ids=["open", "credentials"])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_environment(
    scheme: str, known: bool, variable: str, tls: str, ports: Any, servers: dict[str, str],
    certificate: Any, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    port = ports[scheme, known]
    monkeypatch.setenv(variable, f"{scheme}://{with_credentials(scheme) * known}127.0.0.1:{port}")
    talk(servers[tls], certificate, port)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_name_of_the_server(scheme: str, ports: Any, servers: dict[str, str], certificate: Any) -> None:
    """A name instead of an address: "socks5" asks for it here, the others have the proxy ask."""
    port = ports[scheme, False]
    uri = servers["wss"].replace("127.0.0.1", "localhost")
    talk(uri, certificate, port, proxy=f"{scheme}://127.0.0.1:{port}")


@pytest.mark.parametrize("no_proxy", ["127.0.0.1", "example.org, 127.0.0.0/8", "*"])
def test_no_proxy(
    no_proxy: str, servers: dict[str, str], certificate: Any, dead_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("all_proxy", f"http://127.0.0.1:{dead_port}")
    monkeypatch.setenv("no_proxy", no_proxy)
    talk(servers["ws"], certificate, None)
    monkeypatch.setenv("no_proxy", "10.0.0.0/8")
    error = refusal(servers["ws"], certificate)
    assert f"the proxy http://127.0.0.1:{dead_port} cannot be reached" in str(error)
    assert not error.refused


@pytest.mark.parametrize("tls", ["ws", "wss"])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_no_credentials(scheme: str, tls: str, ports: Any, servers: dict[str, str], certificate: Any) -> None:
    error = refusal(servers[tls], certificate, proxy=f"{scheme}://127.0.0.1:{ports[scheme, True]}")
    assert "wants a user name and password" in str(error)
    assert error.refused
    assert (error.response is not None and error.response.status == 407) == (scheme == "http")


@pytest.mark.parametrize("userinfo", ["me:wrong", "you:s.cret", "me"])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_wrong_credentials(
    scheme: str, userinfo: str, ports: Any, servers: dict[str, str], certificate: Any
) -> None:
    error = refusal(
        servers["ws"], certificate, proxy=f"{scheme}://{userinfo}@127.0.0.1:{ports[scheme, True]}"
    )
    assert "does not know this user name and password" in str(error)
    assert error.refused


@pytest.mark.parametrize("tls", ["ws", "wss"])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_server_refuses_the_proxy(
    scheme: str, tls: str, ports: Any, dead_port: int, certificate: Any
) -> None:
    error = refusal(
        f"{tls}://127.0.0.1:{dead_port}", certificate, proxy=f"{scheme}://127.0.0.1:{ports[scheme, False]}"
    )
    # Trying again may help.
    assert not error.refused
    if scheme == "http":
        assert error.response.status >= 500
        assert f"answered {error.response.status}" in str(error)
    else:
        assert f"cannot connect to 127.0.0.1:{dead_port}: the server refuses the connection" in str(error)


def test_port_that_the_proxy_forbids(servers: dict[str, str], certificate: Any, tmp_path: Path) -> None:
    with tinyproxy(tmp_path, "ConnectPort 443") as port:
        error = refusal(servers["ws"], certificate, proxy=f"http://127.0.0.1:{port}")
        assert error.response.status == 403
        assert error.refused
        assert "its rules do not allow this server or port" in str(error)


def test_proxy_of_another_kind(ports: Any, servers: dict[str, str], certificate: Any) -> None:
    # tinyproxy waits for the end of a line.
    with pytest.raises(OpenTimeout, match=r"no answer from the proxy .* does it speak socks5"):
        connect(servers["ws"], proxy=f"socks5://127.0.0.1:{ports['http', False]}", open_timeout=1)
    error = refusal(servers["ws"], certificate, proxy=f"http://127.0.0.1:{ports['socks5', False]}")
    assert "ended the connection" in str(error) or "does not speak HTTP" in str(error)


@pytest.mark.parametrize("scheme", ["http", "socks5"])
def test_proxy_vanishes(scheme: str, servers: dict[str, str], certificate: Any, tmp_path: Path) -> None:
    """The tunnel ends under an open WebSocket."""
    run = tinyproxy if scheme == "http" else microsocks
    with contextlib.ExitStack() as stack:
        port = stack.enter_context(run(tmp_path))
        ws = connect(
            servers["ws"], subprotocols=["b"], proxy=f"{scheme}://127.0.0.1:{port}", open_timeout=DEADLINE
        )
        stack.close()
        assert ws.wait_closed(DEADLINE)
        assert ws.close_code == 1006
