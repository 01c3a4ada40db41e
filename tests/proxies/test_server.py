"""Our servers behind nginx and haproxy as docs/deployment.md shows them.

Whether a request has got through is asked of the application: what reached it is written to a file.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from typing import Any

import gevent
import gevent.socket
import pytest
from proxies.backends import KINDS, Backend, backend
from proxies.dialing import To, finish, read_head, read_rest, unique
from proxies.documented import front
from proxies.programs import DEADLINE
from support import HANDSHAKE, RawClient, binary, close, ping, text

pytestmark = pytest.mark.deadline(90)

#: For a path that the proxies forbid, with an address that is a lie; nothing comes behind it.
SMUGGLED = b"GET /denied HTTP/1.1\r\nHost: localhost\r\nX-Forwarded-For: 6.6.6.6\r\nConnection: close\r\n\r\n"


@pytest.fixture(scope="module", params=KINDS, ids=lambda kind: kind.name)
def server(
    programs: None, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Backend]:
    with backend(request.param, tmp_path_factory.mktemp(request.param.name), ping_interval=None) as server:
        yield server


@pytest.fixture(scope="module", params=["nginx", "haproxy"])
def proxy(
    server: Backend, certificate: Any, request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[str, dict[str, int]]]:  # fmt: skip
    directory = tmp_path_factory.mktemp(request.param)
    with front(request.param, server.address, directory, certificate.path) as ports:
        yield request.param, ports


@pytest.fixture(params=["plain", "tls"])
def to(
    server: Backend, proxy: tuple[str, dict[str, int]], certificate: Any, request: pytest.FixtureRequest
) -> To:
    name, ports = proxy
    return To(name, ports[request.param], certificate.context if request.param == "tls" else None, server)


def test_echo(to: To) -> None:
    with to.open() as client:
        client.send(text("grüße"), binary(b"\0\xff"), text(""))
        client.expect(0x81, "grüße".encode())
        client.expect(0x82, b"\0\xff")
        client.expect(0x81, b"")
        client.send(ping(b"still there?"))
        client.expect(0x8A, b"still there?")
        finish(client)


def test_message_of_1_mib_both_ways(to: To) -> None:
    message = bytes(range(256)) * 4096
    with to.open() as client:
        for _ in range(3):
            sender = gevent.spawn(client.send, binary(message))
            assert client.read_frame() == (0x82, message)
            sender.get()
        finish(client)


@pytest.mark.parametrize("code", [1000, 1001, 3000, 4999])
def test_close_code_of_the_client(to: To, code: int) -> None:
    path = unique("closed")
    with to.open(path) as client:
        client.send(close(code, b"bye"))
        client.expect_close(code)
        client.expect_end()
    assert to.server.end_of(path) == code


@pytest.mark.parametrize("code", [1000, 1011, 4001])
def test_close_code_of_the_server(to: To, code: int) -> None:
    with to.open(f"/close/{code}") as client:
        assert client.expect_close(code) == "said here"
        client.send(close(code))
        client.expect_end()


def test_frames_in_one_piece_with_the_request(to: To) -> None:
    with to.open(behind=text("first") + text("second") + text("cut")[:3]) as client:
        client.expect(0x81, b"first")
        client.expect(0x81, b"second")
        client.send(text("cut")[3:])
        client.expect(0x81, b"cut")
        finish(client)


def test_whole_dialogue_in_one_piece_with_the_request(to: To) -> None:
    with to.open(behind=text("only") + close(1000)) as client:
        client.expect(0x81, b"only")
        client.expect_close(1000)
        client.expect_end()


def test_frame_right_behind_the_101(to: To) -> None:
    with to.open("/greeting") as client:
        client.expect(0x81, b"welcome")
        finish(client)


def test_request_around_the_proxy_would_be_seen(to: To) -> None:
    """The proxy forbids /denied; whatever gets there all the same, the application tells of it."""
    path = unique("denied")
    request = SMUGGLED.replace(b"/denied", path.encode())
    with to.dial() as client:
        client.send(request)
        assert read_head(client).startswith(b"HTTP/1.1 403 ")
    assert path not in to.paths()
    host, _, port = to.server.address.rpartition(":")
    with contextlib.closing(gevent.socket.create_connection((host, int(port)), DEADLINE)) as sock:
        client = RawClient(sock)
        client.send(request)
        assert read_head(client).startswith((b"HTTP/1.1 200 ", b"HTTP/1.1 426 "))
    assert path in to.paths()


@pytest.mark.parametrize(
    ("path", "version", "status"),
    [("/401", b"13", 401), ("/403", b"13", 403), ("/404", b"13", 404), ("/echo", b"12", 426)],
    ids=["401", "403", "404", "426"],
)
@pytest.mark.parametrize("when", ["with it", "behind it"])
def test_request_smuggled_behind_a_rejected_upgrade(
    to: To, path: str, version: bytes, status: int, when: str
) -> None:
    """The proxy reads it as a request of the client's, and applies its rules."""
    request = HANDSHAKE.replace(b"Version: 13", b"Version: " + version) % (path.encode(), b"")
    with to.dial() as client:
        client.send(request + SMUGGLED * (when == "with it"))
        head = read_head(client)
        assert head.startswith(b"HTTP/1.1 %d " % status), head
        if when == "behind it":
            with contextlib.suppress(OSError):
                client.send(SMUGGLED)
        rest = read_rest(client)
    # Either the end of TCP, or the proxy's own answer.
    assert b"HTTP/1.1" not in rest or b"HTTP/1.1 403 " in rest
    assert "/denied" not in to.paths()


def test_ordinary_request_behind_a_rejected_upgrade(to: To) -> None:
    """If it reaches the application then as the proxy passes requests on, with the proxy's word on it."""
    path = unique("ordinary")
    smuggled = SMUGGLED.replace(b"/denied", path.encode())
    with to.dial() as client:
        client.send(HANDSHAKE % (b"/403", b"") + smuggled)
        assert read_head(client).startswith(b"HTTP/1.1 403 ")
        read_rest(client)
    to.paths()
    assert [event["X-Forwarded-For"] for event in to.server.events(path)] in ([], ["127.0.0.1"])


@pytest.mark.parametrize("when", ["with it", "behind it"])
def test_request_smuggled_behind_a_websocket(to: To, when: str) -> None:
    """The proxy sees nothing of what is in a tunnel: only the server keeps it from being a request."""
    with to.open() as client:
        client.send(close(1000) + SMUGGLED * (when == "with it"))
        client.expect_close(1000)
        if when == "behind it":
            with contextlib.suppress(OSError):
                client.send(SMUGGLED)
        assert read_rest(client) == b""
    assert "/denied" not in to.paths()


@pytest.mark.parametrize("when", ["with it", "behind it"])
def test_request_smuggled_as_a_frame(to: To, when: str) -> None:
    with to.open(behind=SMUGGLED * (when == "with it")) as client:
        if when == "behind it":
            client.send(SMUGGLED)
        # "G" is a frame with reserved bits set.
        client.expect_close(1002)
        with contextlib.suppress(OSError):
            client.send(SMUGGLED)
        assert read_rest(client) == b""
    assert "/denied" not in to.paths()


@pytest.mark.parametrize(
    "fields",
    [b"Content-Length: %d\r\n" % len(SMUGGLED), b"Transfer-Encoding: chunked\r\n"],
    ids=["length", "chunked"],
)
def test_upgrade_with_a_body(to: To, fields: bytes) -> None:
    """A request in a body is none, and there is no WebSocket."""
    path = unique("body")
    body = SMUGGLED
    if b"chunked" in fields:
        body = b"%x\r\n%s\r\n0\r\n\r\n" % (len(SMUGGLED), SMUGGLED)
    with to.dial() as client:
        client.send(HANDSHAKE % (path.encode(), fields) + body + SMUGGLED)
        head = read_head(client)
        ordinary = head.startswith(b"HTTP/1.1 200 ")
        assert ordinary or head.startswith(b"HTTP/1.1 400 "), head
        rest = read_rest(client)
    assert b"HTTP/1.1" not in rest or b"HTTP/1.1 403 " in rest
    assert "/denied" not in to.paths()
    events = to.server.events(path)
    if ordinary:
        # haproxy takes the Upgrade off a request with a body: it is no upgrade request then.
        assert to.proxy == "haproxy"
        assert [(event["event"], event["Upgrade"]) for event in events] == [("request", None)]
    else:
        # `process_request` looks at it before it is refused; an application of WSGI is not called.
        expected = ["request"] * (to.server.kind.name == "standalone")
        assert [event["event"] for event in events] == expected


@pytest.mark.parametrize("upgrade", [b"h2c", b"h2c, websocket", b"TLS/1.0"])
def test_other_upgrades_are_not_passed_on(to: To, upgrade: bytes) -> None:
    path = unique("upgrade")
    request = (
        b"GET %s HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: %s\r\n"
        b"HTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA\r\n\r\n"
    )
    with to.dial() as client:
        client.send(request % (path.encode(), upgrade) + SMUGGLED)
        assert not read_head(client).startswith(b"HTTP/1.1 101")
        read_rest(client)
    assert "/denied" not in to.paths()
    events = to.server.events(path)
    assert [event["Upgrade"] for event in events] == [None] * len(events)
    # haproxy refuses the list itself.
    assert events or (to.proxy == "haproxy" and b"," in upgrade)


def test_what_a_proxy_says_of_the_client_is_not_what_the_client_says(to: To) -> None:
    lies = (
        b"X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-Proto: gopher\r\nX-Forwarded-Host: evil.example\r\n"
        b"Forwarded: for=6.6.6.6;host=evil.example\r\n"
    )
    with to.open("/who", lies, source="127.0.0.2") as client:
        first, payload = client.read_frame()
        assert first == 0x81
        who = json.loads(payload)
        # The proxy is who asks; nothing changes that of its own accord.
        remote = who.pop("remote")
        assert remote[0] == "127.0.0.1"
        assert who == {
            "Host": "localhost",
            "X-Forwarded-For": "127.0.0.2",
            "X-Forwarded-Proto": "https" if to.tls else "http",
            "X-Forwarded-Host": None,
            "Forwarded": None,
            "Upgrade": "websocket",
        }
        finish(client)


@pytest.mark.parametrize(
    ("origin", "fields", "status"),
    [
        ("{scheme}://{authority}", "", 101),
        # It is TLS's end that has the scheme; the port counts.
        ("https://{authority}", "", 101),
        ("{scheme}://127.0.0.1:1", "", 403),
        ("{scheme}://evil.example", "", 403),
        (
            "{scheme}://evil.example",
            "X-Forwarded-Host: evil.example\r\nForwarded: host=evil.example\r\n",
            403,
        ),
        ("null", "", 403),
    ],
)
def test_origin(to: To, origin: str, fields: str, status: int) -> None:
    path = unique("origin")
    names = {"scheme": "https" if to.tls else "http", "authority": to.authority}
    request = HANDSHAKE.replace(b"Host: localhost", b"Host: " + to.authority.encode())
    with to.dial() as client:
        field = f"Origin: {origin.format(**names)}\r\n{fields}"
        client.send(request % (path.encode(), field.encode()))
        head = read_head(client)
        assert head.startswith(b"HTTP/1.1 %d " % status), head
        if status == 101:
            finish(client)
    opened = [event for event in to.server.events(path) if event["event"] == "open"]
    assert len(opened) == (status == 101)


def test_ordinary_request_before_it_on_the_same_connection(to: To) -> None:
    with to.dial() as client:
        client.send(b"GET /403 HTTP/1.1\r\nHost: localhost\r\n\r\n")
        head = read_head(client)
        # The standalone server's 426, the applications' 403.
        assert head.startswith((b"HTTP/1.1 403 ", b"HTTP/1.1 426 "))
        length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        client.read_bytes(int(length.partition(b":")[2]))
        client.send(HANDSHAKE % (b"/echo", b"") + text("early"))
        assert read_head(client).startswith(b"HTTP/1.1 101 ")
        client.expect(0x81, b"early")
        finish(client)


@pytest.mark.parametrize("how", ["reset", "end"])
def test_client_vanishes(to: To, how: str) -> None:
    path = unique("vanished")
    with to.open(path) as client:
        client.send(text("here"))
        client.expect(0x81, b"here")
        if how == "reset":
            client.reset()
        else:
            client.close()
    assert to.server.end_of(path) == 1006
