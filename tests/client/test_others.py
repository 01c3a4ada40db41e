"""The client against servers that others wrote, each as a process of its own.

websockets is always there; of the others those that are installed (`tox -e clients` installs them).
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme
from clients.processes import NodeMissing, install_node_modules
from foreign_servers import INSTALLED, run_server
from support import PATIENCE

from geventws import Compression, ConnectionClosedError, ConnectionClosedOK, InvalidStatus, connect

pytestmark = pytest.mark.usefixtures("no_leaks")


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module", params=INSTALLED)
def servers(
    request: pytest.FixtureRequest, authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, dict[bool, str]]]:
    """One server, plain and with TLS: its name, and its URIs by whether it is the latter."""
    if request.param == "Node ws":
        try:
            install_node_modules(Path(os.environ["GEVENTWS_NODE_DIR"]))
        except NodeMissing as missing:
            if os.environ.get("GEVENTWS_REQUIRE_NODE") == "yes":
                pytest.fail(f"GEVENTWS_REQUIRE_NODE is yes: Node's ws, {missing}")
            pytest.skip(f"Node's ws, {missing}")
    directory = tmp_path_factory.mktemp("server")
    certificate = directory / "certificate.pem"
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(str(certificate))
    with (
        run_server(request.param, directory) as plain,
        run_server(request.param, directory, certificate) as encrypted,
    ):
        yield request.param, {False: plain.url(), True: encrypted.url().replace("ws:", "wss:")}


class Server:
    """Connects to a server.

    Attributes:
        garbles_close: it writes a Close frame's reason without a code before it.
    """

    def __init__(self, name: str, uri: str, context: ssl.SSLContext) -> None:
        self.garbles_close = name == "gevent-websocket"
        self._uri = uri
        self._context = context

    def __call__(self, path: str = "/", **options: Any) -> Any:
        # One that all of them know: some refuse who offers none.
        options.setdefault("subprotocols", ["b"])
        return connect(self._uri + path, ssl_context=self._context, **options)


@pytest.fixture(params=[False, True], ids=["plain", "tls"])
def server(
    request: pytest.FixtureRequest, servers: tuple[str, dict[bool, str]], authority: trustme.CA
) -> Server:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return Server(servers[0], servers[1][request.param], context)


@pytest.mark.parametrize("window_bits", [None, 12, 15])
def test_echo(server: Server, window_bits: int | None) -> None:
    compression = None if window_bits is None else Compression(window_bits=window_bits)
    with server(compression=compression, max_message_size=None, subprotocols=["a", "b"]) as ws:
        assert ws.subprotocol == "b"
        assert compression is not None or ws.extensions == ""
        for message in ("", "text", "größer" * 100, b"\x00\xff", "x" * 70_000, bytes(range(256)) * 8192):
            ws.send(message)
            assert ws.receive(timeout=PATIENCE) == message
        for number in range(200):
            ws.send(str(number))
        assert [ws.receive(timeout=PATIENCE) for _ in range(200)] == [str(number) for number in range(200)]
        ws.send_fragments(["a", "b", "c"])
        assert ws.receive(timeout=PATIENCE) == "abc"
        assert ws.ping(b"x").wait(PATIENCE) >= 0
        ws.send("ping")
        assert ws.receive(timeout=PATIENCE) == "pong"
    assert isinstance(ws.close_error, ConnectionClosedOK)


def test_server_closes(server: Server) -> None:
    ws = server()
    ws.send("close")
    with pytest.raises(ConnectionClosedError) as caught:
        ws.receive(timeout=PATIENCE)
    if server.garbles_close:
        assert_failed_for_the_close_code(caught.value, int.from_bytes(b"by", "big"))
    else:
        assert (caught.value.code, caught.value.reason) == (4001, "bye")
    assert ws.wait_closed(PATIENCE)
    # Not by our own deadline: the server has ended TCP when it had our answer.
    assert "close_timeout" not in str(ws.close_error)


def test_closing_waits_for_nothing_but_the_server(server: Server) -> None:
    ws = server(close_timeout=PATIENCE)
    ws.close(1000, "" if server.garbles_close else "done")
    # Some answer with no code instead of ours.
    assert ws.close_code == (1005 if server.garbles_close else 1000)
    assert isinstance(ws.close_error, ConnectionClosedOK)


def test_answer_to_a_close_is_garbled(server: Server) -> None:
    if not server.garbles_close:
        return
    ws = server(close_timeout=PATIENCE)
    ws.close(1000, "done")
    # "bytearray(b'done')".
    assert_failed_for_the_close_code(ws.close_error, int.from_bytes(b"by", "big"))


def assert_failed_for_the_close_code(error: Any, code: int) -> None:
    """It ended with our 1002, and the message names the code that is none."""
    assert error.code == 1006
    assert str(code) in str(error), error


def test_refused(server: Server) -> None:
    with pytest.raises(InvalidStatus) as caught:
        server("/refused")
    assert caught.value.response.status == 403
    assert b"not you" in caught.value.response.body
