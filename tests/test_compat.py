"""gevent-websocket's names: the server, the handler, the WebSocket and its manners."""

from __future__ import annotations

import contextlib
import logging
import socket as std_socket
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gevent
import gevent.event
import gevent.socket
import pytest
from flask import Flask, request
from gevent.pywsgi import WSGIHandler, WSGIServer
from hosting import Log, ask, host, host_threaded, open_raw, plain
from support import HANDSHAKE, RawClient, binary, close, frame, ping, reset, text, tls_contexts, wait_until
from werkzeug.debug import DebuggedApplication

import geventws
from geventws.compat import (
    CompatMiddleware,
    Resource,
    WebSocket,
    WebSocketApplication,
    WebSocketError,
    WebSocketHandler,
    WebSocketServer,
)
from geventws.compat.exceptions import FrameTooLargeException, ProtocolError
from geventws.compat.websocket import MSG_ALREADY_CLOSED, MSG_SOCKET_DEAD
from geventws.testing import Client as AppClient

pytestmark = pytest.mark.usefixtures("no_leaks")


@contextlib.contextmanager
def served(app: Any, **options: Any) -> Iterator[Any]:
    """A `WebSocketServer`, with `access` and `errors` as lists of lines."""
    access, errors = Log(), Log()
    server = WebSocketServer(
        ("127.0.0.1", 0), app, log=access, error_log=errors, spawn=1000,
        environ={"SERVER_NAME": "localhost"}, **options,
    )  # fmt: skip
    server.access, server.errors = access.lines, errors.lines
    server.start()
    try:
        yield server
    finally:
        server.stop()


def using(use: Any) -> Any:
    """An application that does this with its WebSocket; `app.result` is what came of it."""

    def app(environ: Any, start_response: Any) -> Any:
        ws = environ.get("wsgi.websocket")
        if ws is None:
            start_response("200 OK", [("Content-Length", "5")])
            return [b"plain"]
        try:
            app.result.set(use(ws))
        except BaseException as error:
            app.result.set_exception(error)
            raise
        return []

    app.result = gevent.event.AsyncResult()
    return app


def echo(ws: Any) -> None:
    """As everybody writes it."""
    while not ws.closed:
        message = ws.receive()
        if message is not None:
            ws.send(message)


def finish(client: RawClient, code: int = 1000) -> None:
    client.send(close(code))
    client.expect_close(code)
    client.expect_end()


def open_path(address: Any, path: bytes = b"/", headers: bytes = b"") -> bytes:
    """The head of the 101."""
    with RawClient.connect(address, path, headers) as client:
        finish(client)
        return client.head


#: It keeps a descriptor for the life of the process.
DEBUGGED = DebuggedApplication(using(echo))


class TestReceive:
    def test_types(self) -> None:
        app = using(lambda ws: [ws.receive(), ws.receive()])
        with served(app) as server, RawClient.connect(server.address) as client:
            client.send(text("ü"), binary(b"\xff"))
            assert app.result.get(timeout=10) == ["ü", b"\xff"]
            assert [type(message) for message in app.result.get()] == [str, bytearray]
            client.expect_close(1000)

    @pytest.mark.parametrize(
        ("end", "code"),
        [
            (close(1000), 1000),
            (close(4001, b"bye"), 4001),
            (close(None), 0),
            (frame(0x83), 1002),
            (frame(0x81, b"\xff"), 1007),
        ],
        ids=["close", "close with a code of its own", "close without a code", "violation", "no UTF-8"],
    )
    def test_none_once_at_the_end(self, end: bytes, code: int) -> None:
        def use(ws: Any) -> None:
            assert ws.receive() == "x"
            assert not ws.closed
            assert ws.receive() is None
            assert ws.closed
            assert ws.stream is None
            assert ws.path == "/"
            for call in (ws.receive, lambda: ws.send("x"), lambda: ws.send_frame("x", 1)):
                with pytest.raises(OSError, match=r"Socket is dead|Connection is already closed") as caught:
                    call()
                assert type(caught.value) is WebSocketError
            ws.close()

        app = using(use)
        with served(app) as server, RawClient.connect(server.address) as client:
            client.send(text("x"), end)
            client.expect_close(code)
            client.expect_end()
            app.result.get(timeout=10)

    @pytest.mark.parametrize("cut", [reset, lambda sock: sock.close()], ids=["reset", "end of TCP"])
    def test_none_when_tcp_breaks_off(self, cut: Any) -> None:
        app = using(lambda ws: [ws.receive(), ws.closed])
        with served(app) as server:
            with RawClient.connect(server.address) as client:
                cut(client.socket)
            assert app.result.get(timeout=10) == [None, True]
            wait_until(lambda: not server.clients)

    def test_messages_before_a_close_are_received_whatever_the_loop_asks(self) -> None:
        go = gevent.event.Event()
        got: list[Any] = []

        def use(ws: Any) -> None:
            go.wait()
            wait_until(lambda: ws.websocket.closed)
            while not ws.closed:
                assert not ws.closed
                got.append(ws.receive())

        app = using(use)
        with served(app) as server, RawClient.connect(server.address) as client:
            client.send(text("1"), binary(b"2"), text(""), close(1000))
            client.expect_close(1000)
            go.set()
            app.result.get(timeout=10)
        assert got == ["1", b"2", ""]

    def test_closed_in_a_loop_that_only_sends(self) -> None:
        def use(ws: Any) -> None:
            while not ws.closed:
                ws.send("x")
                gevent.sleep(0.001)

        app = using(use)
        with served(app) as server, RawClient.connect(server.address) as client:
            client.expect(0x81, b"x")
            client.send(close(1000))
            app.result.get(timeout=10)

    def test_timeout_around_it_loses_nothing(self) -> None:
        def use(ws: Any) -> Any:
            waiting.set()
            with gevent.Timeout(0.001, False):
                ws.receive()
            gone.set()
            return ws.receive()

        waiting, gone = gevent.event.Event(), gevent.event.Event()
        app = using(use)
        with served(app) as server, RawClient.connect(server.address) as client:
            message = text("whole")
            waiting.wait()
            client.send(message[:7])
            gone.wait()
            client.send(message[7:])
            assert app.result.get(timeout=10) == "whole"

    @pytest.mark.parametrize(
        ("end", "error"),
        [
            (close(1000), None),
            (frame(0x83), ProtocolError),
            (frame(0x81, b"\xff"), ProtocolError),
            (frame(0x82, b"x" * 101), FrameTooLargeException),
        ],
        ids=["close", "violation", "no UTF-8", "too big"],
    )
    def test_read_message_says_how_it_ended(self, end: bytes, error: Any) -> None:
        class Handler(WebSocketHandler):
            options = {"max_message_size": 100}  # noqa: RUF012

        def use(ws: Any) -> Any:
            assert ws.read_message() == "x"
            try:
                return ws.read_message()
            finally:
                with pytest.raises(WebSocketError, match=MSG_ALREADY_CLOSED):
                    ws.read_message()

        app = using(use)
        with host(app, handler_class=Handler) as server, RawClient.connect(server.address) as client:
            client.send(text("x"), end)
            client.read_frames()
            if error is None:
                assert app.result.get(timeout=10) is None
            else:
                with pytest.raises(WebSocketError) as caught:
                    app.result.get(timeout=10)
                assert type(caught.value) is error

    def test_read_frame_shows_messages_and_the_close(self) -> None:
        app = using(lambda ws: [ws.read_frame() for _ in range(3)])
        with served(app) as server, RawClient.connect(server.address) as client:
            client.send(frame(0x01, b"a"), ping(), frame(0x80, b"b"), binary(b"c"), close(4001, b"bye"))
            client.expect(0x8A, b"")
            client.expect_close(4001)
            frames = app.result.get(timeout=10)
        assert [payload for _, payload in frames] == [b"ab", b"c", b"\x0f\xa1bye"]
        assert [(header.fin, header.opcode, header.length) for header, _ in frames] == [
            (True, WebSocket.OPCODE_TEXT, 2),
            (True, WebSocket.OPCODE_BINARY, 1),
            (True, WebSocket.OPCODE_CLOSE, 5),
        ]


class TestSend:
    @pytest.mark.parametrize(
        ("message", "options", "first", "payload"),
        [
            ("ü", {}, 0x81, "ü".encode()),
            (b"b", {}, 0x82, b"b"),
            (bytearray(b"b"), {}, 0x82, b"b"),
            (memoryview(b"b"), {}, 0x82, b"b"),
            ([1, 2], {}, 0x82, b"\1\2"),
            ("ü", {"binary": True}, 0x82, "ü".encode()),
            ("ü".encode(), {"binary": False}, 0x81, "ü".encode()),
            (b"", {}, 0x82, b""),
        ],
    )
    def test_types(self, message: Any, options: Any, first: int, payload: bytes) -> None:
        with served(using(lambda ws: ws.send(message, **options))) as server:
            with RawClient.connect(server.address) as client:
                client.expect(first, payload)
                client.expect_close(1000)

    @pytest.mark.parametrize("message", [None, 5, 1.5, object()])
    def test_what_is_no_message(self, message: Any) -> None:
        def use(ws: Any) -> None:
            with pytest.raises(TypeError):
                ws.send(message)

        app = using(use)
        with served(app) as server, RawClient.connect(server.address) as client:
            client.expect_close(1000)
            app.result.get(timeout=10)

    def test_frames(self) -> None:
        def use(ws: Any) -> None:
            ws.send_frame("t", ws.OPCODE_TEXT)
            ws.send_frame(b"b", ws.OPCODE_BINARY)
            ws.send_frame("p", ws.OPCODE_PING)
            ws.send_frame(b"", ws.OPCODE_PONG)
            for opcode in (ws.OPCODE_CONTINUATION, 3, 11):
                with pytest.raises(ValueError, match=f"not opcode {opcode}"):
                    ws.send_frame(b"", opcode)
            for call in (ws.raw_read, ws.raw_write, ws.stream.read, ws.stream.write):
                with pytest.raises(NotImplementedError, match=r"use receive\(\) and send\(\)"):
                    call(b"x")
            ws.send_frame(b"\x0f\xa1bye", ws.OPCODE_CLOSE)

        app = using(use)
        with served(app) as server, RawClient.connect(server.address) as client:
            client.expect(0x81, b"t")
            client.expect(0x82, b"b")
            client.expect(0x89, b"p")
            assert client.expect_close(4001) == "bye"
            app.result.get(timeout=10)

    def test_many_greenlets_send_whole_messages(self) -> None:
        """gevent-websocket raises ConcurrentObjectUseError here, in the middle of a frame."""
        size = 3_000_000

        def use(ws: Any) -> None:
            senders = [gevent.spawn(ws.send, bytes((number,)) * size) for number in range(4)]
            gevent.joinall(senders, raise_error=True)

        app = using(use)
        with served(app) as server, RawClient.connect(server.address) as client:
            got = [client.read_frame() for _ in range(4)]
            app.result.get(timeout=10)
        assert sorted(got) == [(0x82, bytes((number,)) * size) for number in range(4)]


class TestClose:
    @pytest.mark.parametrize(
        ("arguments", "code", "reason"),
        [
            ((), 1000, ""),
            ((4001, b"bye"), 4001, "bye"),
            ((1001, "bye ü"), 1001, "bye ü"),
            ((1000, None), 1000, ""),
            ((1000, "ü" * 100), 1000, "ü" * 61),
            ((1005,), 1000, ""),
            ((1006, b"\xff"), 1000, "\ufffd"),
            ((99999,), 1000, ""),
            (("4001",), 1000, ""),
        ],
    )
    def test_code_and_reason(self, arguments: Any, code: int, reason: str) -> None:
        def use(ws: Any) -> None:
            ws.close(*arguments)
            assert ws.closed
            with pytest.raises(WebSocketError, match=MSG_ALREADY_CLOSED):
                ws.receive()
            with pytest.raises(WebSocketError, match=MSG_SOCKET_DEAD):
                ws.send("x")
            ws.close(4002)

        app = using(use)
        with served(app) as server, RawClient.connect(server.address) as client:
            assert client.expect_close(code) == reason
            app.result.get(timeout=10)
            client.send(close(code))
            client.expect_end()

    def test_from_another_greenlet_ends_receive(self) -> None:
        app = using(lambda ws: [gevent.spawn(ws.close, 4001), ws.receive(), ws.closed][1:])
        with served(app) as server, RawClient.connect(server.address) as client:
            client.expect_close(4001)
            client.send(close(4001))
            assert app.result.get(timeout=10) == [None, True]

    @pytest.mark.parametrize("how", ["close", "shutdown"])
    def test_closing_the_socket_of_the_handler(self, how: str) -> None:
        """Programs do so to throw somebody out. Its descriptor is the server's to close."""

        def use(ws: Any) -> Any:
            sock = ws.handler.socket
            sock.settimeout(0.001)
            sock.setblocking(False)
            assert sock.getpeername() == ws.handler.client_address
            gevent.spawn(getattr(sock, how), *([std_socket.SHUT_RDWR] if how == "shutdown" else []))
            result = ws.receive(), ws.closed
            assert sock.fileno() >= 0
            return result

        app = using(use)
        with served(app) as server:
            with RawClient.connect(server.address) as client:
                client.expect_end()
            assert app.result.get(timeout=10) == (None, True)
            assert plain(server).endswith(b"plain")

    @pytest.mark.parametrize("how", ["stop", "close"])
    def test_stopping_the_server_tells_its_clients(self, how: str) -> None:
        app = using(lambda ws: [ws.send("here"), ws.receive()])
        with served(app) as server, RawClient.connect(server.address) as client:
            client.expect(0x81, b"here")
            stopping = gevent.spawn(getattr(server, how))
            client.expect_close(1001)
            client.send(close(1001))
            client.expect_end()
            stopping.get(timeout=10)
            assert app.result.get(timeout=10) == [None, None]


class TestEnviron:
    def test_keys(self) -> None:
        environs = []

        def app(environ: Any, start_response: Any) -> Any:
            environs.append((environ, "wsgi.websocket" in environ, environ.get("wsgi.websocket_version")))
            if "wsgi.websocket" in environ:
                ws = environ["wsgi.websocket"]
                assert isinstance(ws, WebSocket)
                assert (ws.path, ws.version, ws.origin) == ("/p", "13", "http://localhost")
                assert ws.protocol == "a, b"
                assert ws.environ is environ
                assert isinstance(ws.websocket, geventws.WebSocket)
                assert ws.handler.websocket is ws
                assert ws.stream.handler is ws.handler
                assert isinstance(ws.handler, WebSocketHandler)
                assert ws.logger is ws.handler.server.logger
                assert "WebSocket" in repr(ws)
                ws.current_app.on_close("nobody hears it")
                return []
            start_response("200 OK", [])
            return [b"page"]

        fields = b"Origin: http://localhost\r\nSec-WebSocket-Protocol: a, b\r\n"
        with served(app) as server:
            with RawClient.connect(server.address, b"/p?q", fields) as client:
                # It has chosen none: ws.protocol is what is offered.
                assert b"Sec-WebSocket-Protocol" not in client.head
                client.expect_close(1000)
                client.send(close(1000))
                client.expect_end()
            assert plain(server).endswith(b"page")
        assert [entry[1:] for entry in environs] == [(True, "13"), (False, None)]
        assert environs[0][0]["wsgi.websocket"] is None

    def test_what_the_application_answers_is_dropped(self) -> None:
        closed = []

        class Body:
            def __iter__(self) -> Iterator[bytes]:
                yield b"x"
                yield b"y"

            def close(self) -> None:
                closed.append(1)

        def app(environ: Any, start_response: Any) -> Any:
            environ["wsgi.websocket"].send("sent")
            start_response("404 Not Found", [("X", "y")])(b"written")
            return Body()

        with served(app) as server, RawClient.connect(server.address) as client:
            client.expect(0x81, b"sent")
            client.expect_close(1000)
            client.send(close(1000))
            client.expect_end()
        assert closed == [1]
        assert server.errors == []

    def test_accepted_before_the_application_has_used_it(self) -> None:
        go = gevent.event.Event()
        with served(using(lambda ws: go.wait())) as server, RawClient.connect(server.address) as client:
            go.set()
            client.expect_close(1000)

    @pytest.mark.parametrize("exception", [ValueError("x"), OSError("x"), SystemExit(1)])
    def test_exception_closes_with_1011_and_is_logged_once(self, exception: Any, caplog: Any) -> None:
        def use(ws: Any) -> None:
            raise exception

        with served(using(use)) as server, RawClient.connect(server.address) as client:
            client.expect_close(1011)
            client.send(close(1011))
            client.expect_end()
        assert len([record for record in caplog.records if record.levelno >= logging.WARNING]) == 1
        assert server.errors == []

    def test_status_500_closes_with_1011(self) -> None:
        def app(environ: Any, start_response: Any) -> Any:
            start_response("500 Internal Server Error", [])
            return [b"of a framework"]

        with served(app) as server, RawClient.connect(server.address) as client:
            client.expect_close(1011)

    def test_end_of_its_own_websocket_is_no_error(self, caplog: Any) -> None:
        def use(ws: Any) -> None:
            while True:
                ws.send(ws.receive())

        with served(using(use)) as server, RawClient.connect(server.address) as client:
            client.send(text("x"))
            client.expect(0x81, b"x")
            finish(client)
        assert caplog.records == []

    def test_end_of_another_websocket_is_one(self, caplog: Any) -> None:
        def use(ws: Any) -> None:
            raise WebSocketError(MSG_SOCKET_DEAD)

        with served(using(use)) as server, RawClient.connect(server.address) as client:
            client.expect_close(1011)
        assert "raised" in caplog.text


class TestClients:
    def test_broadcast_as_everybody_does(self) -> None:
        def use(ws: Any) -> None:
            ws.handler.active_client.name = ws.path[1:]
            while True:
                message = ws.receive()
                if message is None:
                    return
                for client in ws.handler.server.clients.values():
                    client.ws.send(f"{ws.handler.active_client.name}: {message}")

        with served(using(use)) as server:
            with RawClient.connect(server.address, b"/a") as a, RawClient.connect(server.address, b"/b") as b:
                wait_until(lambda: len(server.clients) == 2)
                assert set(server.clients) == {a.socket.getsockname(), b.socket.getsockname()}
                assert {client.address for client in server.clients.values()} == set(server.clients)
                a.send(text("x"))
                for client in (a, b):
                    client.expect(0x81, b"a: x")
                finish(a)
                wait_until(lambda: len(server.clients) == 1)
                b.send(text("y"))
                b.expect(0x81, b"b: y")
                finish(b)
        assert server.clients == {}

    def test_loops_do_not_mind_those_that_come_and_go(self) -> None:
        with served(using(echo)) as server:
            clients = [RawClient.connect(server.address) for _ in range(3)]
            wait_until(lambda: len(server.clients) == 3)
            for loop in (
                server.clients,
                server.clients.keys(),
                server.clients.items(),
                server.clients.values(),
            ):
                seen = []
                for thing in loop:
                    seen.append(thing)
                    if len(seen) == 1:
                        with clients.pop() as gone:
                            finish(gone)
                        clients.append(RawClient.connect(server.address))
                        wait_until(lambda: len(server.clients) == 3)
                assert len(seen) == 3
            for client in clients:
                finish(client)
                client.close()

    def test_on_a_server_that_has_none(self) -> None:
        app = using(lambda ws: [list(ws.handler.server.clients), ws.handler.active_client.ws is ws])
        with host(app, handler_class=WebSocketHandler) as server:
            with RawClient.connect(server.address) as client:
                assert app.result.get(timeout=10) == [[client.socket.getsockname()], True]
                client.expect_close(1000)
        assert server.clients == {}

    def test_dict_of_the_program_is_used(self) -> None:
        app = using(lambda ws: dict(ws.handler.server.clients))
        with host(app, handler_class=WebSocketHandler) as server:
            server.clients = {}
            with RawClient.connect(server.address) as client:
                assert list(app.result.get(timeout=10)) == [client.socket.getsockname()]
                client.expect_close(1000)
            assert server.clients == {}

    def test_unix_socket_has_as_many_as_there_are(self, tmp_path: Path) -> None:
        listener = gevent.socket.socket(std_socket.AF_UNIX)
        listener.bind(str(tmp_path / "socket"))
        listener.listen(5)
        server = WebSocketServer(listener, using(echo), log=None, environ={"SERVER_NAME": "localhost"})
        server.start()
        try:
            clients = []
            for _ in range(2):
                sock = gevent.socket.socket(std_socket.AF_UNIX)
                sock.connect(str(tmp_path / "socket"))
                clients.append(RawClient(sock))
                clients[-1].send(HANDSHAKE % (b"/", b""))
            wait_until(lambda: len(server.clients) == 2)
            assert all(client.ws.handler.active_client is client for client in server.clients.values())
            for client in clients:
                head = b""
                while not head.endswith(b"\r\n\r\n"):
                    head += client.read_bytes(1)
                finish(client)
                client.close()
            wait_until(lambda: not server.clients)
        finally:
            server.stop()


class Chat(WebSocketApplication):
    """Keeps what happens."""

    events: list[Any] = []  # noqa: RUF012

    def on_open(self) -> None:
        self.events.append("open")

    def on_message(self, message: Any) -> None:
        self.events.append(message)
        if message is not None:
            self.ws.send(message)

    def on_close(self, reason: Any) -> None:
        self.events.append(("close", reason))


def page(environ: Any, start_response: Any) -> Any:
    start_response("200 OK", [])
    return [b"page"]


class TestResource:
    def test_application_lives_from_open_to_close(self) -> None:
        Chat.events = []
        with served(Resource([("/", page), ("^/chat", Chat)])) as server:
            with RawClient.connect(server.address, b"/chat/room") as client:
                client.send(text("x"))
                client.expect(0x81, b"x")
                finish(client)
            assert plain(server).endswith(b"page")
        assert Chat.events == ["open", "x", None, ("close", None)]

    def test_default_application_echoes_and_is_told_of_the_end(self, caplog: Any) -> None:
        closed = []

        class Echo(WebSocketApplication):
            def on_close(self, reason: Any) -> None:
                closed.append(reason)

        with served(Resource({"/": Echo})) as server, RawClient.connect(server.address) as client:
            client.send(binary(b"x"))
            client.expect(0x82, b"x")
            finish(client)
        assert closed == [None]
        assert caplog.records == []

    def test_first_that_matches_wins_among_its_kind(self) -> None:
        def other(environ: Any, start_response: Any) -> Any:
            start_response("200 OK", [])
            return [b"other"]

        class First(WebSocketApplication):
            def on_open(self) -> None:
                self.ws.close(4001)

        class Second(First):
            def on_open(self) -> None:
                self.ws.close(4002)

        apps = OrderedDict([("^/a", page), ("^/.*", other), ("/a", First), ("/", Second)])
        with served(Resource(apps)) as server:
            assert plain(server, b"/a").endswith(b"page")
            assert plain(server, b"/b").endswith(b"other")
            for path, code in ((b"/ab", 4001), (b"/b", 4002)):
                with RawClient.connect(server.address, path) as client:
                    client.expect_close(code)

    def test_path_of_nobody(self) -> None:
        resource = Resource([("^/chat", Chat)])
        with pytest.raises(Exception, match="No apps defined"):
            resource({"PATH_INFO": "/"}, None)
        with pytest.raises(Exception, match="No apps defined"):
            Resource()({"PATH_INFO": "/"}, None)
        with served(resource) as server:
            # In gevent-websocket it is accepted, and then the handler raises.
            assert ask(server).startswith(b"HTTP/1.1 404 ")

    def test_subclass_that_serves_other_paths_itself(self) -> None:
        class Site(Resource):
            def __call__(self, environ: Any, start_response: Any) -> Any:
                ws = environ.get("wsgi.websocket")
                if environ["PATH_INFO"] == "/own" and ws is not None:
                    ws.send("own")
                    return []
                return super().__call__(environ, start_response)

        with served(Site([("^/chat", Chat)])) as server, RawClient.connect(server.address, b"/own") as client:
            client.expect(0x81, b"own")

    @pytest.mark.parametrize(
        ("offer", "chosen"),
        [
            (b"chat", b"chat"),
            (b"other, chat", b"chat"),
            (b"chat2", None),
            (b"xchat, chat.y", None),
            (None, None),
        ],
    )
    def test_subprotocol_of_the_application(self, offer: bytes | None, chosen: bytes | None) -> None:
        class Protocol(Chat.protocol_class):  # type: ignore[name-defined, misc]
            PROTOCOL_NAME = "chat"

            def on_message(self, message: Any) -> None:
                if message is not None:
                    assert (self.server, self.handler) == (server, self.app.ws.handler)
                    self.app.ws.send(f"seen: {message}")

        class Spoken(Chat):
            protocol_class = Protocol

        with served(Resource([("/", Spoken)])) as server:
            fields = b"" if offer is None else b"Sec-WebSocket-Protocol: %s\r\n" % offer
            with RawClient.connect(server.address, b"/", fields) as client:
                line = b"\r\nSec-WebSocket-Protocol: "
                assert (line in client.head) == (chosen is not None)
                assert chosen is None or line + chosen + b"\r\n" in client.head + b"\r\n"
                client.send(text("x"))
                client.expect(0x81, b"seen: x")
                finish(client)


class TestHandler:
    def test_methods_are_called_one_by_the_other(self) -> None:
        calls = []

        class Handler(WebSocketHandler):
            def run_application(self) -> None:
                calls.append("run_application")
                super().run_application()

            def upgrade_websocket(self) -> Any:
                calls.append("upgrade_websocket")
                return super().upgrade_websocket()

            def upgrade_connection(self) -> Any:
                calls.append("upgrade_connection")
                return super().upgrade_connection()

            def run_websocket(self) -> None:
                calls.append("run_websocket")
                super().run_websocket()
                calls.append("over")

            def log_request(self) -> None:
                calls.append("log_request")
                super().log_request()

        with host(using(echo), handler_class=Handler) as server:
            open_path(server.address)
            assert plain(server).endswith(b"plain")
            wait_until(lambda: len(server.access) == 2)
        assert calls == [
            "run_application", "upgrade_websocket", "upgrade_connection", "run_websocket", "over",
            "log_request", "run_application", "upgrade_websocket", "log_request",
        ]  # fmt: skip
        assert ['" 101 ' in line for line in server.access] == [True, False]

    def test_subclass_refuses(self) -> None:
        class Handler(WebSocketHandler):
            def upgrade_websocket(self) -> Any:
                if self.environ["PATH_INFO"] == "/secret":
                    self.start_response("401 Unauthorized", [("Connection", "close")])
                    return [b"no"]
                if self.environ["PATH_INFO"] == "/plain":
                    return None
                return super().upgrade_websocket()

        with host(using(echo), handler_class=Handler) as server:
            assert ask(server, b"/secret").startswith(b"HTTP/1.1 401 ")
            assert open_path(server.address)

    def test_pre_start_hook_makes_it_an_ordinary_request(self) -> None:
        seen = []

        def hook(handler: Any) -> bool:
            seen.append(handler.environ["PATH_INFO"])
            return handler.environ["PATH_INFO"] == "/plain"

        with served(using(echo), pre_start_hook=hook) as server:
            with open_raw(server, HANDSHAKE % (b"/plain", b"")) as client:
                assert client.read_bytes(15) == b"HTTP/1.1 200 OK"
            assert open_path(server.address, b"/ws")
        assert seen == ["/plain", "/ws"]

    def test_negotiate_only(self) -> None:
        """`prevent_wsgi_call`: whoever has set it uses the WebSocket when run_application() is done."""

        class Handler(WebSocketHandler):
            prevent_wsgi_call = True

            def handle_one_response(self) -> None:
                super().handle_one_response()
                if self.websocket is not None:
                    self.websocket.send(f"hello {self.websocket.receive()}")

        with host(using(echo), handler_class=Handler) as server:
            with RawClient.connect(server.address) as client:
                client.send(text("x"))
                client.expect(0x81, b"hello x")
                client.expect_close(1000)
                client.send(close(1000))
                client.expect_end()
            assert plain(server).endswith(b"plain")

    def test_handler_of_another_class_becomes_one(self) -> None:
        """As gevent-socketio does, to answer the handshake only."""

        class Handler(WSGIHandler):
            def handle_one_response(self) -> None:
                self.__class__ = WebSocketHandler
                self.prevent_wsgi_call = True
                self.handle_one_response()
                self.websocket.send(f"hello {self.environ['wsgi.websocket'].receive()}")

        with host(using(echo), handler_class=Handler) as server, RawClient.connect(server.address) as client:
            client.send(text("x"))
            client.expect(0x81, b"hello x")
            client.send(close(1000))
            client.expect_close(1000)
            client.expect_end()

    @pytest.mark.parametrize(("wrong", "code"), [("class", 1011), ("run", 1000), ("nothing", 1000)], ids=str)
    def test_subclass_that_does_it_wrong_leaves_nothing_open(self, wrong: str, code: int) -> None:
        class Wrong(WebSocket):
            def __init__(self, *arguments: Any) -> None:
                raise ValueError("wrong")

        class Handler(WebSocketHandler):
            websocket_class = Wrong if wrong == "class" else WebSocket

            def run_websocket(self) -> None:
                if wrong == "run":
                    raise ValueError("wrong")

        with host(using(echo), handler_class=Handler) as server:
            with RawClient.connect(server.address) as client:
                client.expect_close(code)
                client.send(close(code))
                client.expect_end()
            assert plain(server).endswith(b"plain")

    def test_under_a_debugger(self) -> None:
        with served(DEBUGGED) as server, RawClient.connect(server.address) as client:
            client.send(text("x"))
            client.expect(0x81, b"x")
            finish(client)

    def test_view_of_flask_with_the_websocket_in_its_environ(self) -> None:
        app = Flask("app_under_test")

        @app.route("/api", websocket=True)
        def api() -> str:
            echo(request.environ["wsgi.websocket"])
            return ""

        with served(Resource([("/page", page), ("/api", app)])) as server:
            # A Resource has none for it: as before.
            assert ask(server, b"/api").startswith(b"HTTP/1.1 404 ")
        with served(app) as server, RawClient.connect(server.address, b"/api") as client:
            client.send(text("x"))
            client.expect(0x81, b"x")
            finish(client)

    def test_websocket_class(self) -> None:
        class Shouting(WebSocket):
            def send(self, message: Any, binary: bool | None = None) -> None:
                super().send(message.upper(), binary)

        class Handler(WebSocketHandler):
            websocket_class = Shouting

        with host(using(echo), handler_class=Handler) as server, RawClient.connect(server.address) as client:
            client.send(text("x"))
            client.expect(0x81, b"X")
            finish(client)

    def test_application_with_websockets_of_its_own_is_left_alone(self) -> None:
        def handler(ws: Any) -> None:
            assert type(ws).__module__ != "geventws.compat.websocket"
            for message in ws:
                ws.send(message)

        app = geventws.WebSocketMiddleware(using(echo), handler)
        with host(app, handler_class=WebSocketHandler) as server, RawClient.connect(server.address) as client:
            client.send(text("x"))
            client.expect(0x81, b"x")
            finish(client)

    def test_over_tls(self) -> None:
        def use(ws: Any) -> None:
            ws.handler.socket.settimeout(0.01)
            echo(ws)

        with served(using(use), ssl_context=tls_contexts()[0]) as server:
            with RawClient.connect(server.address, tls=True) as client:
                client.send(text("x"))
                client.expect(0x81, b"x")
                finish(client)

    @pytest.mark.parametrize(
        ("request_", "status"),
        [
            (HANDSHAKE.replace(b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", b"") % (b"/", b""), 400),
            (HANDSHAKE.replace(b"dGhlIHNhbXBsZSBub25jZQ==", b"x") % (b"/", b""), 400),
            (HANDSHAKE.replace(b"n: 13", b"n: 8") % (b"/", b""), 426),
            (HANDSHAKE.replace(b"GET", b"POST") % (b"/", b""), 405),
            (HANDSHAKE.replace(b"HTTP/1.1", b"HTTP/1.0") % (b"/", b""), 400),
            (HANDSHAKE % (b"/", b"Content-Length: 3\r\n") + b"abc", 400),
            (HANDSHAKE % (b"/", b"Origin: http://other.example\r\n"), 403),
        ],
        ids=["no key", "bad key", "version", "method", "HTTP/1.0", "body", "origin"],
    )
    def test_bad_handshake(self, request_: bytes, status: int) -> None:
        called = []

        def app(environ: Any, start_response: Any) -> Any:
            called.append(environ["PATH_INFO"])
            return page(environ, start_response)

        with served(app) as server:
            # A request behind it is nobody's.
            with open_raw(server, request_ + b"GET /smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n") as client:
                data = b""
                while chunk := client.socket.recv(65536):
                    data += chunk
            assert data.startswith(b"HTTP/1.1 %d " % status)
            assert data.count(b"HTTP/1.1") == 1
            assert plain(server).endswith(b"page")
        assert called == ["/"]

    def test_request_behind_an_accepted_one_is_nobodys(self) -> None:
        with served(using(lambda ws: ws.receive())) as server:
            smuggled = b"GET /smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n"
            with open_raw(server, HANDSHAKE % (b"/", b"") + close(1000) + smuggled) as client:
                data = b""
                while chunk := client.socket.recv(65536):
                    data += chunk
            assert data.count(b"HTTP/1.1") == 1
            wait_until(lambda: server.access)
        assert len(server.access) == 1

    def test_frames_in_the_segment_of_the_request(self) -> None:
        with served(using(echo)) as server:
            with open_raw(server, HANDSHAKE % (b"/", b"") + text("early") + close(1000)) as client:
                data = b""
                while chunk := client.socket.recv(65536):
                    data += chunk
        assert data.endswith(b"\x81\x05early\x88\x02\x03\xe8")

    def test_idle_connections_end_with_their_server_object(self) -> None:
        server = WSGIServer(
            ("127.0.0.1", 0), using(echo), log=None, handler_class=WebSocketHandler,
            environ={"SERVER_NAME": "localhost"},
        )  # fmt: skip
        server.start()
        with RawClient.connect(server.address) as client:
            wait_until(lambda: len(server.clients) == 1)
            server.stop()
            client.expect_close(1001)
            client.send(close(1001))
            client.expect_end()
        wait_until(lambda: not server.clients)


class TestMiddleware:
    @pytest.mark.parametrize("hosted", [host, host_threaded], ids=["pywsgi", "werkzeug"])
    def test_on_a_server_without_our_handler(self, hosted: Any) -> None:
        def use(ws: Any) -> None:
            handler = ws.handler
            assert handler.server.application is app
            assert handler.active_client.ws is ws
            assert handler.environ["wsgi.websocket_version"] == "13"
            assert handler.socket.getpeername() == handler.client_address
            assert ws.logger is handler.server.logger
            while (message := ws.receive()) is not None:
                for other in handler.server.clients.values():
                    other.ws.send(message)

        app = using(use)
        middleware = CompatMiddleware(app, max_message_size=10)
        with hosted(middleware) as server:
            with RawClient.connect(server.address) as one, RawClient.connect(server.address) as two:
                wait_until(lambda: len(middleware.server.clients) == 2)
                one.send(text("x"))
                one.expect(0x81, b"x")
                two.expect(0x81, b"x")
                one.send(text("x" * 11))
                one.expect_close(1009)
                one.expect_end()
                finish(two)
            assert plain(server).endswith(b"plain")
        wait_until(lambda: not middleware.server.clients)

    def test_under_the_handler_it_has_its_server(self) -> None:
        app = using(lambda ws: [ws.handler.server, type(ws.handler), len(ws.handler.server.clients)])
        with served(CompatMiddleware(app)) as server, RawClient.connect(server.address) as client:
            assert app.result.get(timeout=10) == [server, WebSocketHandler, 1]
            client.expect_close(1000)

    def test_under_a_test_client(self) -> None:
        with AppClient(CompatMiddleware(using(echo))) as client:
            ws = client.connect("/")
            ws.send("x")
            assert ws.receive(timeout=10) == "x"

    def test_inside_another_middleware(self) -> None:
        app = geventws.WebSocketMiddleware(CompatMiddleware(using(echo)))
        with host(app) as server, RawClient.connect(server.address) as client:
            client.send(text("x"))
            client.expect(0x81, b"x")
            finish(client)
