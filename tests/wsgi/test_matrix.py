"""Every WSGI server, every behaviour: the same on all of them, or what docs/wsgi.md says instead.

The default run has the tests that are marked `core`. Named on the command line, the file is run whole, as by
`tox -e wsgi`.
"""

from __future__ import annotations

import contextlib
import re
import signal
import socket as std_socket
from collections.abc import Callable, Iterator
from typing import Any

import gevent
import gevent.socket
import pytest
from servers import GUNICORNS, KINDS, Kind, Server
from support import HANDSHAKE, PATIENCE, RawClient, binary, close, ping, text, wait_until

pytestmark = pytest.mark.deadline(60)

core = pytest.mark.core

#: Notes what stands in the cell of the table, where "yes" does not say it.
Says = Callable[[str], None]

SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n"

KEY_FIELDS = (
    b"Host: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)


class Dialer:
    """Connects to one server."""

    def __init__(self, server: Server, context: Any) -> None:
        self.server = server
        self._context = context

    def dial(self) -> RawClient:
        """Connect TCP, and TLS where the server speaks it."""
        sock = gevent.socket.socket()
        sock.settimeout(PATIENCE)
        sock.connect(self.server.address)
        if self.server.kind.tls:
            sock = self._context.wrap_socket(sock, server_hostname="localhost")
        return RawClient(sock)

    @contextlib.contextmanager
    def open(self, path: bytes = b"/echo", fields: bytes = b"", behind: bytes = b"") -> Iterator[RawClient]:
        """Open a WebSocket; `behind` is sent in the same piece as the request."""
        with self.dial() as client:
            client.send(HANDSHAKE % (path, fields) + behind)
            client.head = read_head(client)
            assert client.head.startswith(b"HTTP/1.1 101 "), client.head
            yield client

    def served(self) -> list[str]:
        """The paths that reached the application, looked at behind a request that certainly did."""
        with self.dial() as client:
            client.send(b"GET /marker HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            assert read_head(client).startswith(b"HTTP/1.1 200 ")
        return self.server.calls()


@pytest.fixture
def to(server: Server, certificate: Any) -> Dialer:
    return Dialer(server, certificate[2])


@pytest.fixture(params=KINDS, ids=lambda kind: kind.name)
def to_fresh(request: pytest.FixtureRequest, start: Any, certificate: Any) -> Dialer:
    """A server of its own for one test."""
    return Dialer(start(request.param), certificate[2])


def read_head(client: RawClient) -> bytes:
    """Read a response's head."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += client.read_bytes(1)
    return head


def fields_of(head: bytes) -> dict[str, list[str]]:
    """Take a head apart."""
    found: dict[str, list[str]] = {}
    for line in head.decode().split("\r\n")[1:-2]:
        name, _, value = line.partition(":")
        found.setdefault(name.lower(), []).append(value.strip())
    return found


def read_rest(client: RawClient) -> bytes:
    """Read to the end of TCP, in whatever way it comes."""
    data = b""
    try:
        while True:
            data += client.read_bytes(1)
    except TimeoutError:
        raise AssertionError(f"TCP does not end, after {data!r}") from None
    except (EOFError, OSError):
        return data


def finish(client: RawClient) -> None:
    """The closing handshake, and the end of TCP behind it."""
    client.send(close(1000))
    client.expect_close(1000)
    client.expect_end()


@core
def test_echo(to: Dialer) -> None:
    with to.open() as client:
        client.send(text("grüße"), binary(b"\0\xff"))
        client.expect(0x81, "grüße".encode())
        client.expect(0x82, b"\0\xff")
        client.send(ping(b"still there?"))
        client.expect(0x8A, b"still there?")
        finish(client)


def test_head_is_that_of_the_rfc(to: Dialer) -> None:
    with to.open() as client:
        fields = fields_of(client.head)
        # Clients that compare instead of looking for a token exist.
        assert [value.lower() for value in fields["connection"]] == ["upgrade"]
        assert fields["upgrade"] == ["websocket"]
        assert fields["sec-websocket-accept"] == ["s3pPLMBiTxaQ9kYGzzhZRbK+xOo="]
        assert not fields.keys() & {"content-length", "transfer-encoding", "content-type"}
        finish(client)


@core
def test_frames_behind_the_request_are_the_first(to: Dialer) -> None:
    with to.open(behind=text("first") + text("second") + text("cut")[:3]) as client:
        client.expect(0x81, b"first")
        client.expect(0x81, b"second")
        client.send(text("cut")[3:])
        client.expect(0x81, b"cut")
        finish(client)


def test_more_behind_the_request_than_any_buffer_holds(to: Dialer) -> None:
    message = bytes(range(256)) * 1024
    with to.dial() as client:
        request = HANDSHAKE % (b"/echo", b"") + binary(message) + text("last")
        sender = gevent.spawn(client.send, request)
        assert read_head(client).startswith(b"HTTP/1.1 101 ")
        client.expect(0x82, message)
        client.expect(0x81, b"last")
        sender.get()
        finish(client)


def test_whole_dialogue_behind_the_request(to: Dialer) -> None:
    with to.open(behind=text("only") + close(1000)) as client:
        client.expect(0x81, b"only")
        client.expect_close(1000)
        client.expect_end()


@core
@pytest.mark.parametrize("path", [b"/401", b"/plain"])
@pytest.mark.parametrize("when", ["with it", "behind it"])
def test_no_request_behind_a_rejected_upgrade_is_served(to: Dialer, path: bytes, when: str) -> None:
    with to.dial() as client:
        client.send(HANDSHAKE % (path, b"") + (SMUGGLED if when == "with it" else b""))
        head = read_head(client)
        assert head.startswith(b"HTTP/1.1 401 " if path == b"/401" else b"HTTP/1.1 200 ")
        client.read_bytes(int(fields_of(head)["content-length"][0]))
        if when == "behind it":
            with contextlib.suppress(OSError):
                client.send(SMUGGLED)
        assert read_rest(client) == b""
    assert "/smuggled" not in to.served()


@pytest.mark.parametrize("path", [b"/raise-at-once", b"/abort"])
def test_no_request_behind_an_upgrade_that_fails_is_served(to: Dialer, path: bytes) -> None:
    with to.dial() as client:
        client.send(HANDSHAKE % (path, b"") + SMUGGLED)
        rest = read_rest(client)
        assert rest.startswith(b"HTTP/1.1 500 " if path == b"/raise-at-once" else b"")
        assert rest.count(b"HTTP/1.1 ") == (path == b"/raise-at-once")
    assert "/smuggled" not in to.served()


def test_no_request_behind_a_bad_handshake_is_served(to: Dialer) -> None:
    fields = KEY_FIELDS.replace(b"Version: 13", b"Version: 12")
    with to.dial() as client:
        client.send(b"GET /echo HTTP/1.1\r\n" + fields + b"\r\n" + SMUGGLED)
        head = read_head(client)
        assert head.startswith(b"HTTP/1.1 426 ")
        client.read_bytes(int(fields_of(head)["content-length"][0]))
        assert read_rest(client) == b""
    assert "/smuggled" not in to.served()


@core
@pytest.mark.parametrize("when", ["with it", "behind it"])
def test_no_request_behind_a_websocket_is_served(to: Dialer, when: str) -> None:
    with to.open() as client:
        client.send(close(1000) + (SMUGGLED if when == "with it" else b""))
        client.expect_close(1000)
        if when == "behind it":
            with contextlib.suppress(OSError):
                client.send(SMUGGLED)
        assert read_rest(client) == b""
    assert "/smuggled" not in to.served()


def test_no_request_in_place_of_a_frame_is_served(to: Dialer) -> None:
    with to.open(behind=SMUGGLED) as client:
        # "G" is a frame with reserved bits set.
        client.expect_close(1002)
        with contextlib.suppress(OSError):
            client.send(SMUGGLED)
        assert read_rest(client) == b""
    assert "/smuggled" not in to.served()


@pytest.mark.parametrize(
    "body",
    [b"Content-Length: 5\r\n\r\nhello", b"Content-Length: 5\r\n\r\n",
     b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
     b"Transfer-Encoding: chunked\r\n\r\n5\r\nhel"],
    ids=["length", "length and nothing", "chunked", "chunked and cut"],
)  # fmt: skip
def test_upgrade_with_a_body_is_refused(to: Dialer, body: bytes) -> None:
    with to.dial() as client:
        client.send(b"GET /echo HTTP/1.1\r\n" + KEY_FIELDS + body)
        if body.endswith((b"hello", b"0\r\n\r\n")):
            client.send(SMUGGLED)
        head = read_head(client)
        assert head.startswith(b"HTTP/1.1 400 ")
        client.read_bytes(int(fields_of(head)["content-length"][0]))
        assert read_rest(client) == b""
    served = to.served()
    assert "/smuggled" not in served


@pytest.mark.parametrize(
    ("line", "change", "status", "field"),
    [
        (b"GET /echo HTTP/1.1", (b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", b""), 400, None),
        (b"GET /echo HTTP/1.1", (b"dGhlIHNhbXBsZSBub25jZQ==", b"short"), 400, None),
        (b"GET /echo HTTP/1.1", (b"Version: 13", b"Version: 8"), 426, ("sec-websocket-version", "13")),
        (b"GET /echo HTTP/1.1", (b"Sec-WebSocket-Version: 13\r\n", b""), 426, ("upgrade", "websocket")),
        (b"GET /echo HTTP/1.1", (b"Connection: Upgrade", b"Connection: keep-alive"), 426, None),
        (b"POST /echo HTTP/1.1", (b"", b""), 405, ("allow", "GET")),
        (b"GET /echo HTTP/1.0", (b"", b""), 400, None),
        (b"GET /echo HTTP/1.1", (b"Upgrade: w", b"Origin: http://evil\r\nUpgrade: w"), 403, None),
    ],
    ids=["no key", "bad key", "version 8", "no version", "no connection", "POST", "HTTP/1.0", "origin"],
)  # fmt: skip
def test_bad_handshake_is_refused_with_the_right_status(
    to: Dialer, line: bytes, change: tuple[bytes, bytes], status: int, field: tuple[str, str] | None
) -> None:
    before = to.server.calls().count("/echo")
    with to.dial() as client:
        client.send(line + b"\r\n" + KEY_FIELDS.replace(*change) + b"\r\n")
        head = read_head(client)
        assert head.split(b" ", 2)[1] == b"%d" % status, head
        if field is not None:
            assert fields_of(head)[field[0]] == [field[1]]
        client.read_bytes(int(fields_of(head)["content-length"][0]))
        assert read_rest(client) == b""
    assert to.served().count("/echo") == before
    with to.open() as client:
        finish(client)


@pytest.mark.deadline(120)
def test_message_of_16_mib_both_ways(to: Dialer) -> None:
    message = bytes(range(256)) * (64 * 1024)
    with to.open() as client:
        sender = gevent.spawn(client.send, binary(message))
        first, payload = client.read_frame()
        sender.get()
        assert first == 0x82
        assert payload == message
        finish(client)


@pytest.mark.parametrize("code", [1000, 1001, 3000, 4999])
def test_close_code_of_the_client(to: Dialer, code: int) -> None:
    with to.open() as client:
        client.send(close(code, b"bye"))
        client.expect_close(code)
        client.expect_end()


@pytest.mark.parametrize("code", [1000, 1011, 4001])
def test_close_code_of_the_server(to: Dialer, code: int) -> None:
    with to.open(b"/close/%d" % code) as client:
        assert client.expect_close(code) == "said here"
        client.send(close(code))
        client.expect_end()


@pytest.mark.parametrize("path", [b"/raise", b"/500"])
def test_handler_that_fails_closes_with_1011(to: Dialer, path: bytes) -> None:
    with to.open(path) as client:
        client.send(text("go"))
        client.expect_close(1011)
        client.send(close(1011))
        client.expect_end()
    if path == b"/raise":
        wait_until(lambda: "on purpose" in to.server.output(), "the traceback")


def test_rejection_before_the_upgrade(to: Dialer) -> None:
    with to.dial() as client:
        client.send(HANDSHAKE % (b"/401", b""))
        head = read_head(client)
        assert head.startswith(b"HTTP/1.1 401 ")
        fields = fields_of(head)
        assert fields["www-authenticate"] == ["Basic"]
        assert not fields.keys() & {"upgrade", "sec-websocket-accept"}
        assert [value.lower() for value in fields["connection"]] == ["close"]
        assert client.read_bytes(3) == b"no\n"
        assert read_rest(client) == b""


def test_cookies_and_fields_on_the_101(to: Dialer) -> None:
    with to.open(b"/cookie") as client:
        fields = fields_of(client.head)
        assert fields["set-cookie"] == ["taste=sweet; Path=/"]
        assert fields["x-answer"] == ["42"]
        client.send(text("after"))
        client.expect(0x81, b"after")
        finish(client)


def test_subprotocol_of_the_applications_choice(to: Dialer) -> None:
    with to.open(b"/subprotocol", b"Sec-WebSocket-Protocol: first, second\r\n") as client:
        assert fields_of(client.head)["sec-websocket-protocol"] == ["second"]
        finish(client)


def test_ordinary_request_before_it_on_the_same_connection(to: Dialer, says: Says) -> None:
    with to.dial() as client:
        client.send(b"GET /plain HTTP/1.1\r\nHost: localhost\r\n\r\n")
        head = read_head(client)
        assert head.startswith(b"HTTP/1.1 200 ")
        client.read_bytes(int(fields_of(head)["content-length"][0]))
        if "close" in fields_of(head).get("connection", []):
            # Werkzeug serves one request on each connection.
            says("one request each")
            assert to.server.kind.name.startswith("werkzeug")
            return
        client.send(HANDSHAKE % (b"/echo", b"") + text("early"))
        assert read_head(client).startswith(b"HTTP/1.1 101 ")
        client.expect(0x81, b"early")
        finish(client)


def test_ordinary_request_the_upgrade_and_a_frame_in_one_piece(to: Dialer, says: Says) -> None:
    kind = to.server.kind.name
    alone = kind.startswith("werkzeug")
    path = b"/smuggled" if alone else b"/echo"
    with to.dial() as client:
        request = b"GET /plain HTTP/1.1\r\nHost: localhost\r\n\r\n"
        client.send(request + HANDSHAKE % (path, b"") + text("early"))
        head = read_head(client)
        assert head.startswith(b"HTTP/1.1 200 ")
        client.read_bytes(int(fields_of(head)["content-length"][0]))
        if alone:
            says("one request each")
            client.socket.shutdown(std_socket.SHUT_WR)
            assert read_rest(client) == b""
        else:
            if kind == "gunicorn23-gthread":
                # It looks at what it has read already when something else comes.
                says("when more comes")
                client.send(text("late"))
            assert read_head(client).startswith(b"HTTP/1.1 101 ")
            client.expect(0x81, b"early")
            if kind == "gunicorn23-gthread":
                client.expect(0x81, b"late")
            finish(client)
    assert "/smuggled" not in to.served()


@core
def test_access_log_has_one_line_at_the_end(to: Dialer) -> None:
    path = "/logged-once"
    with to.open(path.encode()) as client:
        client.send(text("before the end"))
        client.expect(0x81, b"before the end")
        assert path not in "".join(to.server._access.read_text(errors="replace").splitlines())
        finish(client)
    lines = to.server.access(path)
    assert len(lines) == 1
    assert re.search(r'"(?:\x1b\[1m)?GET /logged-once HTTP/1\.1(?:\x1b\[0m)?" 101 ', lines[0]), lines
    to.served()
    assert to.server.access(path) == lines


def test_access_log_of_a_rejection(to: Dialer) -> None:
    with to.dial() as client:
        client.send(HANDSHAKE % (b"/401?only=here", b""))
        read_rest(client)
    lines = to.server.access(r"/401\?only=here")
    assert len(lines) == 1
    assert " 401 " in lines[0]


@core
def test_server_says_nothing_about_all_this(to: Dialer) -> None:
    """Behind all of the above: its own log has no tracebacks but those on purpose."""
    output = to.server.output()
    assert output.count("Traceback") == output.count("ValueError: on purpose"), output


def test_descriptors_are_given_back(to: Dialer) -> None:
    """Whatever becomes of a WebSocket. pywsgi logs it where a TLS client awaits no response."""

    def use_all_ways() -> None:
        with to.open() as client:
            finish(client)
        # In the middle of a frame.
        with to.open(behind=text("cut")[:4]):
            pass
        # Without a look at the answer, or at the end of it.
        for path in b"/echo", b"/401", b"/close/1000":
            with to.dial() as client:
                client.send(HANDSHAKE % (path, b""))
        with to.dial() as client:
            client.send(HANDSHAKE % (b"/401", b""))
            read_rest(client)
        with to.dial() as client:
            client.send(b"GET /echo HTTP/1.1\r\n" + KEY_FIELDS + b"Content-Length: 5\r\n\r\n")
            read_head(client)
        # In the middle of the head.
        with to.dial() as client:
            client.send(b"GET /echo HTTP/1.1\r\n" + KEY_FIELDS)

    use_all_ways()
    to.served()
    before = to.server.descriptors()
    for _ in range(10):
        use_all_ways()
    # A thread or two may be new, each with a hub.
    wait_until(lambda: to.server.descriptors() <= before + 5, "descriptors")


def test_stopping(to_fresh: Dialer, says: Says) -> None:
    """SIGTERM: our handler and worker tell their clients at once; the others do what docs/wsgi.md says."""
    server = to_fresh.server
    with to_fresh.open() as client:
        client.send(text("here"))
        client.expect(0x81, b"here")
        server.signal(signal.SIGTERM)
        if server.kind.tells:
            says("1001 at once")
            client.expect_close(1001)
            client.send(close(1001))
            client.expect_end()
        elif server.kind.name.startswith("pywsgi"):
            says("goes on")
            # stop() leaves the greenlets of a stock server alone.
            client.send(text("still here"))
            client.expect(0x81, b"still here")
            finish(client)
        else:
            says("cut at `graceful_timeout`" if server.kind.gunicorn else "cut at once")
            assert read_rest(client) == b""
        server.wait()


STOPPING = """
import signal, threading

def post_worker_init(worker):
    import gevent
    from site_under_test import app

    def stop(number, frame):
        if worker.cfg.worker_class_str == "gthread":
            threading.Thread(target=app.shutdown).start()
        else:
            gevent.spawn(app.shutdown)
        worker.handle_exit(number, frame)

    signal.signal(signal.SIGTERM, stop)
"""


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_stopping_with_shutdown(kind: Kind, start: Any, tmp_path: Any, certificate: Any, says: Says) -> None:
    says("1001 at once")
    arguments = ["--shutdown"]
    if kind.gunicorn:
        (tmp_path / "gunicorn.conf.py").write_text(STOPPING, encoding="ascii")
        arguments = ["--config", str(tmp_path / "gunicorn.conf.py")]
    server = start(kind, "site_under_test:app", *arguments)
    with Dialer(server, certificate[2]).open() as client:
        client.send(text("here"))
        client.expect(0x81, b"here")
        server.signal(signal.SIGTERM)
        client.expect_close(1001)
        client.send(close(1001))
        client.expect_end()
        assert server.wait() == 0
    assert "Traceback" not in server.output()


@pytest.mark.parametrize("kind", GUNICORNS, ids=lambda kind: kind.name)
def test_reload(kind: Kind, start: Any, certificate: Any, says: Says) -> None:
    """SIGHUP: new workers, and the old ones stop."""
    server = start(kind, "site_under_test:app", "--timeout", "3")
    to = Dialer(server, certificate[2])
    with to.open() as client:
        client.send(text("here"))
        client.expect(0x81, b"here")
        server.signal(signal.SIGHUP)
        if not kind.tells:
            client.send(text("still here"))
            client.expect(0x81, b"still here")
        if kind.name.endswith("gthread"):
            says("cut at `timeout`")
            client.expect_end()
        else:
            # gevent's workers kill their greenlets at graceful_timeout, which tells clients.
            says("1001 at once" if kind.tells else "1001 at `graceful_timeout`")
            client.expect_close(1001)
            client.send(close(1001))
            client.expect_end()
        with to.open() as other:
            finish(other)
