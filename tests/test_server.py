"""The standalone server before the upgrade: what is answered, what is refused, and what is logged of it."""

from __future__ import annotations

import contextlib
import logging
import socket as std_socket
from typing import Any

import gevent
import gevent.socket
import pytest
from asking import KEY_FIELDS, PLAIN, UPGRADE, ask, dial, get, header, opens, quiet, read_answer
from support import HANDSHAKE, RawClient, close, frame, serve, text, wait_until

from geventws import Response, WebSocketServer
from geventws.routing import Router

__all__ = ["quiet"]

pytestmark = pytest.mark.usefixtures("no_leaks")


def echo(ws: Any) -> None:
    for message in ws:
        ws.send(message)


def never(ws: Any) -> None:
    raise AssertionError("no handler may run")


def without(name: bytes) -> tuple[bytes, ...]:
    return tuple(field for field in KEY_FIELDS if not field.startswith(name + b":"))


def replaced(field: bytes) -> tuple[bytes, ...]:
    return *without(field.partition(b":")[0]), field


REFUSED = {
    # RFC 6455 section 4.2.1 and RFC 9110 section 15.5.22: what a browser's address bar sends.
    "plain request": (PLAIN, 426),
    "plain request, keep-alive": (get(b"Host: localhost", b"Connection: keep-alive"), 426),
    "post": (get(b"Host: localhost", b"Content-Length: 4", line=b"POST / HTTP/1.1") + b"body", 405),
    "unknown method": (get(b"Host: localhost", line=b"FROBNICATE / HTTP/1.1"), 405),
    "connect": (get(b"Host: localhost:80", line=b"CONNECT localhost:80 HTTP/1.1"), 405),
    "options *": (get(b"Host: localhost", line=b"OPTIONS * HTTP/1.1"), 405),
    "upgrade by POST": (get(*KEY_FIELDS, line=b"POST / HTTP/1.1"), 405),
    "HTTP/1.0": (get(*KEY_FIELDS, line=b"GET / HTTP/1.0"), 505),
    "HTTP/2.0": (get(*KEY_FIELDS, line=b"GET / HTTP/2.0"), 505),
    "preface of HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    "not HTTP": (b"\x05\x01\x00", 400),
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"r" * 500, 400),
    "HTTP/0.9": (b"GET /\r\n\r\n", 400),
    "bare LF": (UPGRADE.replace(b"\r\n", b"\n"), 400),
    "obs-fold": (get(*KEY_FIELDS, b"X-A: 1\r\n 2"), 400),
    "NUL": (get(*KEY_FIELDS, b"X-A: \0"), 400),
    "space before the colon": (get(*KEY_FIELDS, b"X-A : 1"), 400),
    "no Host": (get(*without(b"Host")), 400),
    "two Hosts": (get(*KEY_FIELDS, b"Host: other"), 400),
    "empty Host": (get(*replaced(b"Host: ")), 400),
    "Host with userinfo": (get(*replaced(b"Host: a@b")), 400),
    "Host with a port that is none": (get(*replaced(b"Host: a:99999")), 400),
    "no Upgrade": (get(*without(b"Upgrade")), 426),
    "other Upgrade": (get(*replaced(b"Upgrade: h2c")), 426),
    "Upgrade by substring": (get(*replaced(b"Upgrade: websockets")), 426),
    "no Connection": (get(*without(b"Connection")), 426),
    "Connection by substring": (get(*replaced(b"Connection: notupgrade")), 426),
    "no version": (get(*without(b"Sec-WebSocket-Version")), 426),
    "version 8": (get(*replaced(b"Sec-WebSocket-Version: 8")), 426),
    "version +13": (get(*replaced(b"Sec-WebSocket-Version: +13")), 426),
    "two versions": (get(*KEY_FIELDS, b"Sec-WebSocket-Version: 13"), 400),
    "no key": (get(*without(b"Sec-WebSocket-Key")), 400),
    "short key": (get(*replaced(b"Sec-WebSocket-Key: c2hvcnQ=")), 400),
    "key that is no base64": (get(*replaced(b"Sec-WebSocket-Key: !!!!!!!!!!!!!!!!!!!!!!==")), 400),
    "two keys": (get(*KEY_FIELDS, b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="), 400),
    "empty subprotocols": (get(*KEY_FIELDS, b"Sec-WebSocket-Protocol: "), 400),
    "subprotocol that is no token": (get(*KEY_FIELDS, b"Sec-WebSocket-Protocol: a b"), 400),
    "subprotocol twice": (get(*KEY_FIELDS, b"Sec-WebSocket-Protocol: a, a"), 400),
    # Smuggling: what one reads as a body, another reads as frames or as a request.
    "body with length": (get(*KEY_FIELDS, b"Content-Length: 5") + b"hello", 400),
    "body in chunks": (get(*KEY_FIELDS, b"Transfer-Encoding: chunked") + b"5\r\nhello\r\n0\r\n\r\n", 400),
    "length and chunks": (get(*KEY_FIELDS, b"Content-Length: 5", b"Transfer-Encoding: chunked"), 400),
    "two lengths": (get(*KEY_FIELDS, b"Content-Length: 0", b"Content-Length: 5"), 400),
    "odd coding": (get(*KEY_FIELDS, b"Transfer-Encoding: xchunked"), 400),
    # RFC 9110 section 10.1.1.
    "expectation": (get(*KEY_FIELDS, b"Expect: 100-continue"), 417),
    "foreign origin": (get(*KEY_FIELDS, b"Origin: https://evil.example"), 403),
}


class TestRefusals:
    """Each is answered clearly, ends TCP in order, and nothing behind it is served."""

    @pytest.mark.parametrize(("request_bytes", "status"), REFUSED.values(), ids=REFUSED)
    def test_refused(self, quiet: Any, request_bytes: bytes, status: int) -> None:
        with serve(never) as server:
            # A second request in the same segment: whoever serves it lets requests be smuggled.
            answer = ask(server.address, request_bytes + UPGRADE)
            assert answer.status == status
            assert answer.data.count(b"HTTP/1.1") == 1
            if status == 426:
                assert answer.headers["Upgrade"] == "websocket"
                assert answer.headers["Sec-WebSocket-Version"] == "13"
                assert "Upgrade" in answer.headers["Connection"].split(", ")
            if status == 405:
                assert answer.headers["Allow"] == "GET"
            wait_until(lambda: not server._serving)
            assert (server.stats.accepted, server.stats.refused) == (1, 1)
            assert (server.stats.opened, server.stats.failed_handshakes) == (0, 0)
        lines = [record for record in quiet.records if record.levelno == logging.INFO]
        assert len(lines) == 1, [record.getMessage() for record in quiet.records]
        assert f" with {status}: " in lines[0].getMessage()

    @pytest.mark.parametrize(("request_bytes", "status"), REFUSED.values(), ids=REFUSED)
    def test_refused_byte_by_byte_and_later_bytes_are_not_served(
        self, quiet: Any, request_bytes: bytes, status: int
    ) -> None:
        with serve(never) as server, contextlib.closing(dial(server.address)) as sock:
            sock.setsockopt(std_socket.IPPROTO_TCP, std_socket.TCP_NODELAY, 1)
            for i in range(len(request_bytes)):
                sock.sendall(request_bytes[i : i + 1])
                if i % 16 == 0:
                    gevent.sleep(0)
            sock.sendall(UPGRADE + PLAIN)
            assert read_answer(sock).status == status

    def test_no_answer_repeats_what_was_sent(self, quiet: Any) -> None:
        with serve(never) as server:
            for request in (
                get(*KEY_FIELDS, b"Origin: http://QXJ0.example", line=b"GET /QXJ0 HTTP/1.1"),
                get(*replaced(b"Sec-WebSocket-Key: QXJ0"), line=b"GET /QXJ0 HTTP/1.1"),
                get(b"Host: QXJ0", line=b"QXJ0 /QXJ0 HTTP/1.1"),
                get(b"Host: localhost", line=b"GET /%0d%0aQXJ0:%20x HTTP/1.1"),
            ):
                assert b"QXJ0" not in ask(server.address, request).data

    def test_head_has_no_body(self, quiet: Any) -> None:
        with serve(never, process_request=lambda request: Response(200, body="fine")) as server:
            answer = ask(server.address, get(b"Host: a", line=b"HEAD / HTTP/1.1"), head_only=True)
            assert (answer.status, answer.headers["Content-Length"]) == (200, "4")
        with serve(Router({})) as server:
            assert ask(server.address, get(b"Host: a", line=b"HEAD / HTTP/1.1"), head_only=True).status == 404
            # Refused while it is read, in two pieces.
            answer = ask(server.address, b"HE", b"AD / HTTP/1.0\r\n\r\n", head_only=True)
            assert answer.status == 505

    @pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
    def test_answer_arrives_though_much_more_was_sent(self, quiet: Any, tls: bool) -> None:
        """Unread bytes must not make the kernel reset TCP, and the reset destroy the answer."""
        options = {"ssl_context": _server_context()} if tls else {}
        with serve(never, **options) as server:
            body = get(b"Host: a", b"Content-Length: 100000", line=b"POST / HTTP/1.1") + b"x" * 100_000
            assert ask(server.address, body, tls=tls).status == 405

    def test_client_that_ends_its_side_first_gets_the_answer(self, quiet: Any) -> None:
        with serve(never) as server:
            assert ask(server.address, PLAIN, end=True).status == 426
            assert ask(server.address, UPGRADE[:-10], end=True).status == 400

    def test_client_that_does_not_read_a_big_answer_is_cut(self, quiet: Any) -> None:
        body = b"x" * 50_000_000
        with (
            serve(
                never, process_request=lambda request: Response(200, body=body), write_timeout=0.1
            ) as server,
            contextlib.closing(dial(server.address)) as sock,
        ):
            sock.sendall(PLAIN)
            wait_until(lambda: server.stats.refused == 1 and not server._serving)

    def test_big_answer_arrives_whole(self, quiet: Any) -> None:
        body = bytes(range(256)) * 20_000
        with serve(never, process_request=lambda request: Response(200, body=body)) as server:
            assert ask(server.address, PLAIN).body == body


def _server_context() -> Any:
    from support import tls_contexts

    return tls_contexts()[0]


class TestGone:
    """Peers that go away in the middle: no line above debug, no traceback, nothing left."""

    @pytest.mark.parametrize("sent", [b"", b"G", UPGRADE[:60], PLAIN, UPGRADE], ids=range(5))
    @pytest.mark.parametrize("way", ["end", "reset"])
    def test_gone(self, quiet: Any, sent: bytes, way: str) -> None:
        with serve(echo) as server:
            for _ in range(10):
                sock = dial(server.address)
                sock.sendall(sent)
                if way == "end":
                    sock.close()
                else:
                    RawClient(sock).reset()
            wait_until(lambda: server.stats.accepted == 10 and not server._serving)
            stats = server.stats
            assert stats.opened + stats.refused + stats.failed_handshakes == 10
            assert stats.closed_clean + stats.closed_unclean == stats.opened
            assert not server.connections
            if not sent:
                assert stats.failed_handshakes == 10
            with RawClient.connect(server.address) as client:
                client.send(text("still there"))
                client.expect(0x81, b"still there")


class TestLog:
    """What peers send stands in the log escaped."""

    @pytest.mark.parametrize(
        "request_bytes",
        [
            get(b"Host: localhost", line=b"GET /%1b[31m%0d%0aforged%07%e2%80%ae HTTP/1.1"),
            get(b"Host: localhost", line=b"GET /\x1b[31m HTTP/1.1"),
            get(b"Host: \x1b[31m"),
            get(*KEY_FIELDS, b"Origin: http://a\x1b[2J"),
            get(*KEY_FIELDS, b"Origin: \x85\x9b31m"),
            get(*replaced(b"Sec-WebSocket-Key: \x9b31m")),
            get(*replaced(b"Sec-WebSocket-Version: \x85")),
            get(*replaced(b"Upgrade: \x9b")),
            get(*KEY_FIELDS, b"Expect: \x85"),
            get(*KEY_FIELDS, b"Sec-WebSocket-Protocol: \x85"),
            get(*KEY_FIELDS, b"Transfer-Encoding: \x85"),
            get(*KEY_FIELDS, b"Content-Length: \x85"),
            get(b"Host: localhost", line=b"\x1bGET / HTTP/1.1"),
            get(b"Host: localhost", line=b"GET / HTTP/1.1\x1b"),
            get(b"Host: localhost", b"\x1b: 1"),
        ],
        ids=range(15),
    )
    def test_no_control_character(self, quiet: Any, request_bytes: bytes) -> None:
        with serve(never) as server:
            assert 400 <= ask(server.address, request_bytes).status < 500
            assert len([record for record in quiet.records if record.levelno == logging.INFO]) == 1

    def test_every_octet_in_every_field_is_survived(self, quiet: Any) -> None:
        """T-HS6: any octet anywhere gets an answer and harms nobody."""
        with serve(echo) as server:
            fields = [*KEY_FIELDS, b"Origin: http://localhost", b"Sec-WebSocket-Protocol: chat"]
            for octet in range(256):
                for i in range(0, len(fields), 3):
                    position = octet % len(fields)
                    field = fields[position]
                    where = (octet * 7 + i) % (len(field) + 1)
                    changed = field[:where] + bytes((octet,)) + field[where:]
                    with contextlib.closing(dial(server.address)) as sock:
                        sock.sendall(get(*fields[:position], changed, *fields[position + 1 :]))
                        sock.shutdown(std_socket.SHUT_WR)
                        assert sock.recv(65536).startswith((b"HTTP/1.1 101 ", b"HTTP/1.1 4"))
            wait_until(lambda: not server._serving)

    def test_refused_origin_names_both_values_and_the_ways_out(self, quiet: Any) -> None:
        with serve(never) as server:
            ask(server.address, get(*KEY_FIELDS, b"Origin: https://evil.example"))
            (line,) = [record.getMessage() for record in quiet.records if record.levelno == logging.INFO]
            for part in ("'https://evil.example'", "'localhost'", "origins=[...]", "origins=None"):
                assert part in line


class TestOpening:
    """Upgrades that are accepted."""

    def test_answer(self, quiet: Any) -> None:
        with serve(echo) as server, RawClient.connect(server.address) as client:
            # RFC 6455 section 1.3 has this very key.
            assert header(client, "Sec-WebSocket-Accept") == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
            # RFC 9110 section 8.6, RFC 9112 section 6.1: a 101 has no body.
            assert header(client, "Content-Length") is None
            assert header(client, "Transfer-Encoding") is None
            assert header(client, "Sec-WebSocket-Protocol") is None
            assert header(client, "Sec-WebSocket-Extensions") is None

    def test_request_is_handed_on(self, quiet: Any) -> None:
        seen = []

        def handler(ws: Any) -> None:
            seen.append(
                (ws.request.path, ws.request.query, ws.request.headers["x-a"], ws.request.remote_address)
            )

        with serve(handler) as server:
            client = RawClient.connect(server.address, b"/a%20b?c=%20d", b"X-A: \xe4\r\n")
            client.expect_close(1000)
            assert seen == [("/a b", "c=%20d", "\xe4", client.socket.getsockname())]
            client.close()

    @pytest.mark.parametrize("pieces", [1, 2, 300], ids=["one", "two", "bytes"])
    def test_frames_right_behind_the_request_are_the_first_messages(self, quiet: Any, pieces: int) -> None:
        data = UPGRADE + text("one") + frame(0x01, b"tw") + frame(0x80, b"o") + text("three") + close(1000)
        size = -(-len(data) // pieces)
        with serve(echo) as server, contextlib.closing(dial(server.address)) as sock:
            sock.setsockopt(std_socket.IPPROTO_TCP, std_socket.TCP_NODELAY, 1)
            for start in range(0, len(data), size):
                sock.sendall(data[start : start + size])
                gevent.sleep(0)
            answer = b""
            while chunk := sock.recv(65536):
                answer += chunk
            _, _, frames = answer.partition(b"\r\n\r\n")
            assert frames == b"\x81\x03one\x81\x03two\x81\x05three\x88\x02\x03\xe8"

    def test_one_empty_line_before_the_request_is_taken(self, quiet: Any) -> None:
        """RFC 9112 section 2.2."""
        with serve(echo) as server, contextlib.closing(dial(server.address)) as sock:
            sock.sendall(b"\r\n" + UPGRADE)
            assert sock.recv(4096).startswith(b"HTTP/1.1 101 ")

    def test_router(self, quiet: Any) -> None:
        def chat(ws: Any, room: str) -> None:
            ws.send(room)

        with serve(Router({"/chat/<room>": chat})) as server:
            with RawClient.connect(server.address, b"/chat/den") as client:
                client.expect(0x81, b"den")
            # The path is looked up before the upgrade is: a wrong address is 404 for everybody.
            assert ask(server.address, HANDSHAKE % (b"/chat/", b"")).status == 404
            assert ask(server.address, PLAIN).status == 404
            assert ask(server.address, get(b"Host: a", line=b"GET /chat/den HTTP/1.1")).status == 426

    def test_unix_socket(self, quiet: Any, tmp_path: Any) -> None:
        path = str(tmp_path / "socket")
        listener = gevent.socket.socket(std_socket.AF_UNIX)
        listener.bind(path)
        listener.listen()
        server = WebSocketServer(listener, echo)
        server.start()
        sock = dial(path, family=std_socket.AF_UNIX)
        with RawClient(sock) as client:
            client.send(UPGRADE)
            assert sock.recv(4096).startswith(b"HTTP/1.1 101 ")
            client.send(text("hi"))
            client.expect(0x81, b"hi")
        with contextlib.closing(dial(path, family=std_socket.AF_UNIX)) as sock:
            sock.sendall(PLAIN)
            assert read_answer(sock).status == 426
        wait_until(lambda: not server.connections)
        server.stop()
        assert any("a Unix socket" in record.getMessage() for record in quiet.records)

    def test_ipv6(self, quiet: Any) -> None:
        server = WebSocketServer(("::1", 0), echo)
        try:
            server.start()
        except OSError as error:
            pytest.skip(f"no IPv6 here: {error}")
        with contextlib.closing(dial(server.address[:2], family=std_socket.AF_INET6)) as sock:
            sock.sendall(PLAIN)
            assert read_answer(sock).status == 426
        server.stop()
        assert any(record.getMessage().startswith("[::1]:") for record in quiet.records)

    def test_compression_is_agreed_on_only_where_it_is_on(self, quiet: Any) -> None:
        offer = b"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits"
        with serve(echo) as server, opens(server.address, offer) as client:
            assert header(client, "Sec-WebSocket-Extensions") is None
        with serve(echo, compression=True) as server:
            with opens(server.address, offer) as client:
                assert (header(client, "Sec-WebSocket-Extensions") or "").startswith("permessage-deflate")
            # RFC 7692 section 5: an offer that cannot be taken is declined; one without grammar is an error.
            with opens(server.address, b"Sec-WebSocket-Extensions: permessage-deflate; x=1, foo") as client:
                assert header(client, "Sec-WebSocket-Extensions") is None
            broken = get(*KEY_FIELDS, b"Sec-WebSocket-Extensions: ;;")
            assert ask(server.address, broken).status == 400
