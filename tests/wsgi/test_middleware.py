"""The middleware: a WebSocket that is accepted late, and all that an application may do with it."""

from __future__ import annotations

import gc
import logging
import socket as std_socket
import weakref
from typing import Any

import gevent
import gevent.socket
import pytest
from gevent.pywsgi import WSGIServer
from hosting import ask, host, open_raw, plain
from support import HANDSHAKE, RawClient, close, reset, text, wait_until

from geventws import (
    ConnectionClosed,
    InvalidState,
    Response,
    Router,
    State,
    WebSocket,
    WebSocketMiddleware,
    broadcast,
)
from geventws.wsgi.late import LateWebSocket

pytestmark = pytest.mark.usefixtures("no_leaks")


def using(use: Any) -> Any:
    """An application that does this with its WebSocket, and says "200 OK" in any case."""

    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [("Content-Length", "5")])
        ws = environ.get("wsgi.websocket")
        if ws is not None:
            use(ws)
        return [b"plain"]

    return app


def echo(ws: Any) -> None:
    for message in ws:
        ws.send(message)


def finish(client: RawClient, code: int = 1000) -> None:
    client.send(close(code))
    client.expect_close(code)
    client.expect_end()


class TestFirstUseAccepts:
    @pytest.mark.parametrize(
        "use",
        [
            lambda ws: ws.send("x"),
            lambda ws: ws.send_fragments(["x", "y"]),
            lambda ws: ws.ping(b"x"),
            lambda ws: ws.discard_messages(),
            lambda ws: broadcast([ws], "x"),
            lambda ws: ws.accept(),
            lambda ws: ws.close(),
            lambda ws: ws.begin_close(1000, ""),
            lambda ws: ws.end_sending(),
            lambda ws: ws.__enter__(),
            iter,
        ],
        ids=[
            "send", "send_fragments", "ping", "discard_messages", "broadcast", "accept", "close",
            "begin_close", "end_sending", "enter", "iter",
        ],
    )  # fmt: skip
    def test_without_waiting(self, use: Any) -> None:
        with host(WebSocketMiddleware(using(use))) as server, RawClient.connect(server.address) as client:
            client.send(close(1000))
            frames = client.read_frames()
            assert frames[-1] == (0x88, b"\x03\xe8")

    @pytest.mark.parametrize(
        "use",
        [
            lambda ws: ws.receive(),
            lambda ws: ws.recv(),
            lambda ws: ws.receive(timeout=20),
            next,
            list,
            lambda ws: ws.wait_closed(20),
        ],
        ids=["receive", "recv", "timeout", "next", "list", "wait_closed"],
    )
    def test_waiting(self, use: Any) -> None:
        with host(WebSocketMiddleware(using(use))) as server, RawClient.connect(server.address) as client:
            client.send(text("message"))
            finish(client)

    def test_with_statement(self) -> None:
        def use(ws: Any) -> None:
            with ws as inside:
                assert inside is ws
                ws.send("inside")

        with host(WebSocketMiddleware(using(use))) as server, RawClient.connect(server.address) as client:
            client.expect(0x81, b"inside")
            client.expect_close(1000)

    def test_it_stays_the_same_object(self) -> None:
        seen = []

        def use(ws: Any) -> None:
            seen.append((isinstance(ws, WebSocket), ws.id))
            ws.colour = "blue"
            ws.accept()
            seen.append((isinstance(ws, WebSocket), type(ws).send is WebSocket.send, ws.colour, ws.state))
            echo(ws)

        middleware = WebSocketMiddleware(using(use))
        with host(middleware) as server, RawClient.connect(server.address) as client:
            client.send(text("x"))
            client.expect(0x81, b"x")
            assert len(middleware.connections) == 1
            finish(client)
        assert seen == [(True, None), (True, True, "blue", State.OPEN)]
        assert middleware.connections == set()


def test_a_method_looked_up_before_the_first_use_works_behind_it() -> None:
    """In `ws.send(ws.receive())` send is found first, and called when the WebSocket is of another class."""

    def use(ws: Any) -> None:
        ws.send(ws.receive())
        ws.send_fragments([ws.receive(), "!"])

    def held(ws: Any) -> None:
        receive, send, close_it = ws.receive, ws.send, ws.close
        send(receive())
        send_fragments = ws.send_fragments
        send_fragments([receive(), "!"])
        close_it()

    for handler in (use, held):
        with host(WebSocketMiddleware(using(handler))) as server:
            with RawClient.connect(server.address) as client:
                client.send(text("one"), text("two"))
                client.expect(0x81, b"one")
                client.expect(0x01, b"two")
                client.expect(0x00, b"!")
                client.expect(0x80, b"")
                client.expect_close(1000)
                client.send(close(1000))
                client.expect_end()


class TestLookingAtItDoesNot:
    def test_all_of_it(self) -> None:
        seen: list[Any] = []

        def use(ws: Any) -> None:
            seen.extend(
                [ws.closed, ws.state, ws.close_code, ws.close_reason, ws.close_error, ws.subprotocol,
                 ws.extensions, ws.latency, ws.bytes_sent, ws.messages_received, ws.write_timed_out,
                 ws.is_slow()]
            )  # fmt: skip
            seen.append(ws.request)
            repr(ws)

        with host(WebSocketMiddleware(using(use))) as server:
            answer = ask(server, b"/caf%C3%A9?x=1&y=%20", b"X-Test: yes\r\n")
        assert answer.startswith(b"HTTP/1.1 200 OK")
        assert answer.endswith(b"plain")
        assert seen[:-1] == [
            False, State.CONNECTING, None, None, None, None, "", None, 0, 0, False, False,
        ]  # fmt: skip
        request = seen[-1]
        assert request.path == "/café"
        assert request.query == "x=1&y=%20"
        assert request.target == "/caf%C3%A9?x=1&y=%20"
        assert request.headers["X-Test"] == "yes"
        assert request.remote_address[0] == "127.0.0.1"
        assert request.environ["PATH_INFO"] == "/caf\xc3\xa9"

    def test_nothing_of_an_open_one_is_left_uncovered(self) -> None:
        """The compiled methods of a WebSocket need its connection, which is not there yet."""
        names = {name for cls in WebSocket.__mro__[:-1] for name in vars(cls) if not name.startswith("_")}
        special = {"__enter__", "__exit__", "__iter__", "__next__", "__repr__"}
        # Plain attributes, empty until then.
        harmless = {"keepalive_slot", "on_end"}
        assert (names | special) - harmless - set(vars(LateWebSocket)) == set()

    def test_path_below_a_mount(self) -> None:
        seen = []

        def use(ws: Any) -> None:
            seen.append((ws.request.path, ws.request.target))

        inner = WebSocketMiddleware(using(use))

        def mounted(environ: Any, start_response: Any) -> Any:
            environ["SCRIPT_NAME"], environ["PATH_INFO"] = "/mount", environ["PATH_INFO"][6:]
            return inner(environ, start_response)

        with host(mounted) as server:
            ask(server, b"/mount/below")
        assert seen == [("/below", "/mount/below")]

    def test_abort_drops_tcp(self) -> None:
        with host(WebSocketMiddleware(using(lambda ws: ws.abort()))) as server:
            assert ask(server) == b""
            wait_until(lambda: server.access)
        assert server.errors == []


class TestOrdinaryResponseRejects:
    @pytest.mark.parametrize("status", ["401 Unauthorized", "404 Not Found", "302 Found", "200 OK", "500 Oh"])
    def test_any(self, status: str) -> None:
        kept = []

        def app(environ: Any, start_response: Any) -> Any:
            kept.append(environ["wsgi.websocket"])
            start_response(status, [("Location", "/elsewhere"), ("Content-Length", "4")])
            return [b"", b"bo", b"dy"]

        with host(WebSocketMiddleware(app)) as server:
            answer = ask(server)
            wait_until(lambda: server.access)
        assert answer.startswith(f"HTTP/1.1 {status}\r\n".encode())
        assert b"Location: /elsewhere\r\n" in answer
        assert b"Connection: close\r\n" in answer
        assert answer.endswith(b"\r\n\r\nbody")
        assert kept[0].closed
        assert kept[0].state == State.CLOSED
        for use in (
            lambda ws: ws.send("x"),
            lambda ws: ws.receive(),
            lambda ws: ws.accept(),
            lambda ws: ws.close(),
        ):
            with pytest.raises(InvalidState, match=status):
                use(kept[0])
        assert broadcast(kept, "x") == []
        assert len(server.access) == 1
        assert f'" {status[:3]} ' in server.access[0]

    def test_body_streams(self) -> None:
        more = gevent.event.Event()
        ended = []

        def app(environ: Any, start_response: Any) -> Any:
            start_response("200 OK", [("Content-Type", "text/plain")])

            def body() -> Any:
                try:
                    yield b"one"
                    more.wait()
                    yield b"two"
                finally:
                    ended.append(True)

            return body()

        with host(WebSocketMiddleware(app)) as server:
            with open_raw(server, HANDSHAKE % (b"/", b"")) as client:
                assert client.read_bytes(12) == b"HTTP/1.1 200"
                while client.read_bytes(1) != b"e":
                    pass
                more.set()
                while client.socket.recv(1000):
                    pass
            wait_until(lambda: ended)

    def test_write(self) -> None:
        def app(environ: Any, start_response: Any) -> Any:
            write = start_response("403 Forbidden", [("Content-Length", "7")])
            write(b"writ")
            with pytest.raises(InvalidState, match="403 Forbidden"):
                environ["wsgi.websocket"].send("x")
            write(b"ten")
            return []

        with host(WebSocketMiddleware(app)) as server:
            answer = ask(server)
        assert answer.startswith(b"HTTP/1.1 403 Forbidden\r\n")
        assert answer.endswith(b"\r\n\r\nwritten")

    def test_generator_that_answers_first(self) -> None:
        caught = []

        def app(environ: Any, start_response: Any) -> Any:
            start_response("200 OK", [])
            yield b"body"
            try:
                environ["wsgi.websocket"].send("x")
            except InvalidState as error:
                caught.append(str(error))

        with host(WebSocketMiddleware(app)) as server:
            assert b"body" in ask(server)
        assert caught == [
            "this WebSocket cannot be used: its request was answered with '200 OK' already",
        ]

    def test_no_answer_at_all_is_the_servers_affair(self, capfd: Any) -> None:
        with host(WebSocketMiddleware(lambda environ, start_response: [])) as server:
            assert ask(server) == b""

    def test_exception_before_it_is_used_goes_to_the_server(self, capfd: Any) -> None:
        def app(environ: Any, start_response: Any) -> Any:
            raise ZeroDivisionError

        with host(WebSocketMiddleware(app)) as server:
            assert ask(server).startswith(b"HTTP/1.1 500 ")
            wait_until(lambda: server.access)
        assert "ZeroDivisionError" in capfd.readouterr().err

    @pytest.mark.parametrize("how", ["it raises", "it says nothing"])
    @pytest.mark.parametrize("when", ["at once", "later"])
    def test_websocket_that_outlives_its_request(self, how: str, when: str, capfd: Any) -> None:
        """An application that has kept it finds it closed; a broadcast to all that it has kept goes on."""
        kept, caught = [], []

        def use() -> None:
            if when == "later":
                wait_until(lambda: kept[0].closed)
            for use in (kept[0].send, lambda message: broadcast(kept, message)):
                try:
                    use("from elsewhere")
                except InvalidState as error:
                    caught.append(str(error))

        def app(environ: Any, start_response: Any) -> Any:
            kept.append(environ["wsgi.websocket"])
            users.append(gevent.spawn(use))
            if how == "it raises":
                raise ZeroDivisionError
            return []

        users: list[Any] = []
        middleware = WebSocketMiddleware(app)
        with host(middleware) as server:
            assert b"101" not in ask(server)
            wait_until(users[0].ready)
        users[0].get()
        assert kept[0].closed
        assert caught == ["this WebSocket cannot be used: its request has ended without it"]
        assert not middleware.connections

    def test_second_start_response(self, capfd: Any) -> None:
        def app(environ: Any, start_response: Any) -> Any:
            start_response("200 OK", [])
            try:
                raise KeyError
            except KeyError:
                import sys

                start_response("404 Not Found", [("Content-Length", "0")], sys.exc_info())
            with pytest.raises(AssertionError):
                start_response("200 OK", [])
            return []

        with host(WebSocketMiddleware(app)) as server:
            assert ask(server).startswith(b"HTTP/1.1 404 ")

    def test_iterable_is_closed(self) -> None:
        closed = []

        class Body(list):  # type: ignore[type-arg]
            def close(self) -> None:
                closed.append(True)

        def app(environ: Any, start_response: Any) -> Any:
            start_response("404 Not Found", [("Content-Length", "1")])
            return Body([b"x"])

        with host(WebSocketMiddleware(app)) as server:
            ask(server)
        assert closed == [True]


class TestHeldBackStartResponse:
    def test_generator_view(self) -> None:
        def app(environ: Any, start_response: Any) -> Any:
            start_response("200 OK", [])
            yield b""
            echo(environ["wsgi.websocket"])
            yield b"dropped"

        with host(WebSocketMiddleware(app)) as server, RawClient.connect(server.address) as client:
            client.send(text("x"))
            client.expect(0x81, b"x")
            finish(client)

    def test_after_acceptance_all_is_dropped_and_closed(self) -> None:
        events = []

        class Body:
            def __iter__(self) -> Any:
                events.append("iterated")
                yield b"dropped"
                events.append("to the end")

            def close(self) -> None:
                events.append("closed")

        def app(environ: Any, start_response: Any) -> Any:
            environ["wsgi.websocket"].send("x")
            write = start_response("200 OK", [("X", "dropped")])
            write(b"dropped")
            return Body()

        with host(WebSocketMiddleware(app)) as server, RawClient.connect(server.address) as client:
            client.expect(0x81, b"x")
            client.expect_close(1000)
            client.send(close(1000))
            client.expect_end()
            wait_until(lambda: server.access)
        assert events == ["iterated", "to the end", "closed"]


class TestTheEndOfAnAcceptedOne:
    def run(self, app: Any, code: int, server_errors: int = 0) -> Any:
        with host(WebSocketMiddleware(app)) as server:
            with RawClient.connect(server.address) as client:
                client.send(text("go"))
                client.expect_close(code)
                client.send(close(code))
                client.expect_end()
            wait_until(lambda: server.access)
        assert len(server.access) == 1
        assert '" 101 ' in server.access[0]
        assert len(server.errors) == server_errors
        return server

    def test_exception(self, caplog: Any, capfd: Any) -> None:
        def app(environ: Any, start_response: Any) -> Any:
            environ["wsgi.websocket"].receive()
            raise ZeroDivisionError

        self.run(app, 1011)
        assert [record.exc_info[0] for record in caplog.records] == [ZeroDivisionError]
        # The server has not seen it.
        assert "ZeroDivisionError" not in capfd.readouterr().err

    def test_exception_in_the_iterable_and_its_close(self, caplog: Any) -> None:
        class Body:
            def __iter__(self) -> Any:
                raise ZeroDivisionError
                yield

            def close(self) -> None:
                raise KeyError

        def app(environ: Any, start_response: Any) -> Any:
            environ["wsgi.websocket"].receive()
            return Body()

        self.run(app, 1011)
        assert [record.exc_info[0] for record in caplog.records] == [ZeroDivisionError]

    def test_status_500(self, caplog: Any) -> None:
        def app(environ: Any, start_response: Any) -> Any:
            environ["wsgi.websocket"].receive()
            start_response("503 Some", [])
            return [b"page"]

        self.run(app, 1011)
        assert caplog.records == []

    @pytest.mark.parametrize("status", ["200 OK", "404 Not Found", ""])
    def test_other_status_or_none(self, status: str, caplog: Any) -> None:
        def app(environ: Any, start_response: Any) -> Any:
            environ["wsgi.websocket"].receive()
            if status:
                start_response(status, [])
            return []

        self.run(app, 1000)
        assert caplog.records == []

    def test_connection_closed_is_the_normal_end(self, caplog: Any) -> None:
        left = []

        def app(environ: Any, start_response: Any) -> Any:
            try:
                while True:
                    environ["wsgi.websocket"].receive()
            finally:
                left.append(True)

        with host(WebSocketMiddleware(app)) as server:
            with RawClient.connect(server.address) as client:
                reset(client.socket)
            wait_until(lambda: left)
            with RawClient.connect(server.address) as client:
                finish(client)
            wait_until(lambda: len(server.access) == 2)
        assert caplog.records == []

    def test_greenlet_killed(self) -> None:
        with (
            host(WebSocketMiddleware(using(lambda ws: ws.receive()))) as server,
            RawClient.connect(server.address) as client,
        ):
            gevent.sleep(0)
            server.pool.kill(block=False)
            client.expect_close(1001)

    def test_descriptor_is_not_touched_after_the_call(self) -> None:
        kept = []

        def use(ws: Any) -> None:
            kept.append(ws)
            ws.receive()

        with host(WebSocketMiddleware(using(use))) as server:
            with RawClient.connect(server.address) as client:
                client.send(text("go"))
                client.expect_close(1000)
                client.send(close(1000))
                client.expect_end()
            wait_until(lambda: server.access)
            # The next sockets get the number that was the WebSocket's.
            pairs = [std_socket.socketpair() for _ in range(4)]
            with pytest.raises(ConnectionClosed):
                kept[0].send("not to them")
            kept[0].abort()
            gevent.sleep(0)
            for one, other in pairs:
                one.setblocking(False)
                with pytest.raises(BlockingIOError):
                    one.recv(1)
                one.send(b"alive")
                assert other.recv(5) == b"alive"
                one.close()
                other.close()


class TestAccept:
    def test_headers_subprotocol_and_twice(self) -> None:
        def use(ws: Any) -> None:
            with pytest.raises(ValueError, match="'third' is none of the 2 that the client offers"):
                ws.accept("third")
            with pytest.raises(ValueError, match="belongs to the handshake"):
                ws.accept(headers={"Upgrade": "h2c"})
            with pytest.raises(ValueError, match="control characters"):
                ws.accept(headers=[("X", "a\r\nSet-Cookie: b")])
            assert ws.state == State.CONNECTING
            ws.accept("second", {"X-One": "1"})
            assert ws.subprotocol == "second"
            with pytest.raises(InvalidState, match="accepted already"):
                ws.accept()
            echo(ws)

        app = WebSocketMiddleware(using(use), subprotocols=["first"])
        with (
            host(app) as server,
            RawClient.connect(server.address, headers=b"Sec-WebSocket-Protocol: first, second\r\n") as client,
        ):
            assert b"Sec-WebSocket-Protocol: second\r\n" in client.head + b"\r\n"
            assert b"X-One: 1" in client.head
            finish(client)

    def test_subprotocol_and_compression_of_the_options(self) -> None:
        app = WebSocketMiddleware(using(echo), subprotocols=["first"], compression=True)
        offers = b"Sec-WebSocket-Protocol: second, first\r\nSec-WebSocket-Extensions: permessage-deflate\r\n"
        with host(app) as server, RawClient.connect(server.address, headers=offers) as client:
            assert b"\r\nSec-WebSocket-Protocol: first\r\n" in client.head + b"\r\n"
            assert b"\r\nSec-WebSocket-Extensions: permessage-deflate" in client.head
            finish(client)

    def test_peer_that_is_gone(self, caplog: Any) -> None:
        go, caught = gevent.event.Event(), []

        def use(ws: Any) -> None:
            go.wait()
            try:
                # The first write meets a reset.
                ws.send("x")
                while True:
                    ws.receive()
            except ConnectionClosed as error:
                caught.append(error)
                raise

        with host(WebSocketMiddleware(using(use))) as server:
            client = open_raw(server, HANDSHAKE % (b"/", b""))
            wait_until(lambda: len(server.pool) == 1)
            gevent.sleep(0.01)
            reset(client.socket)
            gevent.sleep(0.01)
            go.set()
            wait_until(lambda: caught and server.access)
        assert caught[0].code == 1006
        assert caplog.records == []
        assert server.errors == []

    def test_from_another_greenlet_while_the_application_answers(self) -> None:
        """Whoever is first decides; nothing is mixed."""

        def app(environ: Any, start_response: Any) -> Any:
            ws = environ["wsgi.websocket"]
            gevent.spawn(ws.send, "from elsewhere")
            gevent.sleep(0)
            start_response("404 Not Found", [("Content-Length", "0")])
            return []

        with host(WebSocketMiddleware(app)) as server, RawClient.connect(server.address) as client:
            client.expect(0x81, b"from elsewhere")
            client.expect_close(1000)


class TestHandler:
    def test_function_serves_all_paths(self) -> None:
        with host(WebSocketMiddleware(using(None), echo)) as server:
            with RawClient.connect(server.address, b"/any/where") as client:
                client.send(text("x"))
                client.expect(0x81, b"x")
                finish(client)
            assert plain(server).endswith(b"plain")

    def test_it_is_accepted_before_it_runs(self) -> None:
        with host(WebSocketMiddleware(using(None), lambda ws: None)) as server:
            with RawClient.connect(server.address) as client:
                client.expect_close(1000)

    def test_router_and_what_it_leaves(self) -> None:
        def room(ws: Any, room: str) -> None:
            ws.send(room)

        app = using(lambda ws: ws.send("the application's"))
        with host(WebSocketMiddleware(app, Router({"/chat/<room>": room}))) as server:
            with RawClient.connect(server.address, b"/chat/tea") as client:
                client.expect(0x81, b"tea")
            with RawClient.connect(server.address, b"/other") as client:
                client.expect(0x81, b"the application's")
            assert plain(server, b"/chat/tea").endswith(b"plain")

    def test_exception(self, caplog: Any) -> None:
        def handler(ws: Any) -> None:
            raise ZeroDivisionError

        with host(WebSocketMiddleware(using(None), handler)) as server:
            with RawClient.connect(server.address) as client:
                client.expect_close(1011)
        assert [record.exc_info[0] for record in caplog.records] == [ZeroDivisionError]

    def test_what_cannot_serve_is_refused_at_once(self) -> None:
        async def handler(ws: Any) -> None: ...

        with pytest.raises(TypeError, match="asynchronous"):
            WebSocketMiddleware(using(None), handler)
        with pytest.raises(TypeError, match="app takes a WSGI application"):
            WebSocketMiddleware(None)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match=r"has no option 'xyzzy'$"):
            WebSocketMiddleware(using(None), xyzzy=1)


class TestDecisions:
    def test_plain_requests_are_untouched(self) -> None:
        seen = []

        def app(environ: Any, start_response: Any) -> Any:
            seen.append((environ, start_response))
            return body

        body = [b"x"]
        environ = {"PATH_INFO": "/", "wsgi.input": object()}
        before = dict(environ)
        middleware = WebSocketMiddleware(app)
        assert middleware(environ, middleware) is body  # type: ignore[arg-type]
        assert seen == [(before, middleware)]
        assert seen[0][0] is environ
        environ = {"HTTP_UPGRADE": "h2c", "PATH_INFO": "/"}
        assert middleware(environ, middleware) is body  # type: ignore[arg-type]
        assert environ.keys() == {"HTTP_UPGRADE", "PATH_INFO"}

    def test_upgrade_to_one_of_several(self) -> None:
        with host(WebSocketMiddleware(using(echo))) as server:
            request = (HANDSHAKE % (b"/", b"")).replace(b"Upgrade: websocket", b"Upgrade: h2c, WebSocket")
            request = request.replace(b"Connection: Upgrade", b"Connection: keep-alive, Upgrade")
            with open_raw(server, request + text("early")) as client:
                while b"\r\n\r\n" not in client.head:
                    client.head += client.read_bytes(1)
                assert client.head.startswith(b"HTTP/1.1 101 ")
                client.expect(0x81, b"early")
                finish(client)

    def test_process_request(self) -> None:
        def decide(request: Any) -> Any:
            return Response(418, [("X-Tea", "pot")], "short") if request.path == "/tea" else None

        with host(WebSocketMiddleware(using(echo), process_request=decide)) as server:
            answer = ask(server, b"/tea")
            assert answer.startswith(b"HTTP/1.1 418 ")
            assert b"X-Tea: pot\r\n" in answer
            assert answer.endswith(b"short")
            with RawClient.connect(server.address) as client:
                finish(client)

    def test_origin(self, caplog: Any) -> None:
        caplog.set_level(logging.INFO, "geventws")
        with host(WebSocketMiddleware(using(echo))) as server:
            assert ask(server, fields=b"Origin: http://evil.example\r\n").startswith(b"HTTP/1.1 403 ")
            with RawClient.connect(server.address, headers=b"Origin: https://localhost\r\n") as client:
                finish(client)
        assert "evil.example" in caplog.text
        assert "origins=None" in caplog.text

    def test_max_connections_counts_those_not_accepted_yet(self, caplog: Any) -> None:
        go = gevent.event.Event()

        def use(ws: Any) -> None:
            go.wait()
            echo(ws)

        with host(WebSocketMiddleware(using(use), max_connections=1)) as server:
            with open_raw(server, HANDSHAKE % (b"/", b"")) as client:
                wait_until(lambda: server.pool)
                gevent.sleep(0)
                assert ask(server).startswith(b"HTTP/1.1 503 ")
                go.set()
                while b"\r\n\r\n" not in client.head:
                    client.head += client.read_bytes(1)
                assert ask(server).startswith(b"HTTP/1.1 503 ")
                finish(client)
            with RawClient.connect(server.address) as client:
                finish(client)

    def test_max_connections_counts_each_once(self) -> None:
        with host(WebSocketMiddleware(using(echo), max_connections=2)) as server:
            clients = [RawClient.connect(server.address) for _ in range(2)]
            assert ask(server).startswith(b"HTTP/1.1 503 ")
            for client in clients:
                finish(client)
                client.close()

    def test_limits_are_those_of_the_options(self) -> None:
        with host(WebSocketMiddleware(using(echo), max_message_size=10)) as server:
            with RawClient.connect(server.address) as client:
                client.send(text("12345678901"))
                client.expect_close(1009)

    def test_nothing_to_read_in_wsgi_input(self) -> None:
        read = []

        def app(environ: Any, start_response: Any) -> Any:
            read.append(environ["wsgi.input"].read())
            start_response("404 Not Found", [("Content-Length", "0")])
            return []

        with host(WebSocketMiddleware(app)) as server:
            ask(server)
        assert read == [b""]

    def test_cookie_that_comes_too_late_is_warned_of_once(self, caplog: Any) -> None:
        def app(environ: Any, start_response: Any) -> Any:
            environ["wsgi.websocket"].accept()
            start_response("200 OK", [("Set-Cookie", "session=x")])
            return []

        with host(WebSocketMiddleware(app)) as server:
            for _ in range(2):
                with RawClient.connect(server.address) as client:
                    client.expect_close(1000)
                    client.send(close())
                    client.expect_end()
        assert len(caplog.records) == 1
        assert "ws.accept(headers=" in caplog.text


class TestShutdown:
    def test_tells_waits_and_refuses(self) -> None:
        middleware = WebSocketMiddleware(using(echo))
        with host(middleware) as server:
            with RawClient.connect(server.address) as client:
                client.send(text("x"))
                client.expect(0x81, b"x")
                stopping = gevent.spawn(middleware.shutdown)
                client.expect_close(1001)
                assert not stopping.ready()
                client.send(close(1001))
                client.expect_end()
                stopping.get(timeout=10)
            assert middleware.connections == set()
            assert ask(server).startswith(b"HTTP/1.1 503 ")
            assert plain(server).endswith(b"plain")

    def test_cuts_what_does_not_answer(self) -> None:
        middleware = WebSocketMiddleware(using(echo), stop_timeout=0.05)
        with host(middleware) as server, RawClient.connect(server.address) as client:
            wait_until(lambda: middleware.connections)
            middleware.shutdown()
            assert middleware.connections == set()
            client.expect_close(1001)
            client.expect_end()

    def test_in_the_event_loop_it_tells_and_does_not_wait(self) -> None:
        middleware = WebSocketMiddleware(using(echo))
        with host(middleware) as server, RawClient.connect(server.address) as client:
            wait_until(lambda: middleware.connections)
            gevent.get_hub().loop.run_callback(middleware.shutdown)
            finish(client, 1001)

    def test_timeout_is_checked(self) -> None:
        with pytest.raises(ValueError, match="0 or more"):
            WebSocketMiddleware(using(echo)).shutdown(-1)


class TestNested:
    def test_options_of_the_inner_one_count(self) -> None:
        inner = WebSocketMiddleware(using(echo), max_message_size=10)
        outer = WebSocketMiddleware(inner, max_message_size=100)
        with host(outer) as server:
            with RawClient.connect(server.address) as client:
                client.send(text("12345678901"))
                client.expect_close(1009)
            wait_until(lambda: server.access)
        assert len(server.access) == 1
        assert server.errors == []

    def test_inner_handler(self) -> None:
        outer = WebSocketMiddleware(WebSocketMiddleware(using(None), echo))
        with host(outer) as server, RawClient.connect(server.address) as client:
            client.send(text("x"))
            client.expect(0x81, b"x")
            finish(client)

    def test_inner_one_refuses(self) -> None:
        inner = WebSocketMiddleware(using(echo), origins=["https://only.example"])
        with host(WebSocketMiddleware(inner, origins=None)) as server:
            answer = ask(server, fields=b"Origin: https://other.example\r\n")
            assert answer.startswith(b"HTTP/1.1 403 ")

    def test_inner_application_answers(self) -> None:
        nested = WebSocketMiddleware(WebSocketMiddleware(using(lambda ws: None)))
        with host(nested) as server:
            assert ask(server).endswith(b"plain")

    def test_the_websocket_of_the_outer_one_after_the_inner_has_accepted(self) -> None:
        caught = []
        inner = WebSocketMiddleware(using(None), echo)

        def between(environ: Any, start_response: Any) -> Any:
            outer_websocket = environ["wsgi.websocket"]
            result = inner(environ, start_response)
            try:
                outer_websocket.send("too late")
            except InvalidState as error:
                caught.append(str(error))
            return result

        with host(WebSocketMiddleware(between)) as server, RawClient.connect(server.address) as client:
            finish(client)
            wait_until(lambda: server.access)
        assert caught == ["this WebSocket was accepted already"]

    @pytest.mark.parametrize("raised", [RuntimeError("between"), gevent.GreenletExit()], ids=repr)
    def test_what_raises_between_two_is_logged(
        self, raised: BaseException, caplog: pytest.LogCaptureFixture
    ) -> None:
        inner = WebSocketMiddleware(using(None), lambda ws: ws.send("served"))

        def between(environ: Any, start_response: Any) -> Any:
            inner(environ, start_response)
            raise raised

        with host(WebSocketMiddleware(between)) as server, RawClient.connect(server.address) as client:
            client.expect(0x81, b"served")
            client.expect_close(1000)
            client.send(close(1000))
            client.expect_end()
            wait_until(lambda: server.access)
        logged = [record for record in caplog.records if record.levelno >= logging.ERROR]
        if isinstance(raised, RuntimeError):
            (record,) = logged
            assert record.exc_info is not None
            assert record.exc_info[1] is raised
            assert record.getMessage() == "'/': the application raised behind its WebSocket"
        else:
            assert logged == []


def test_nothing_is_left_in_a_cycle() -> None:
    """Thousands of connections that end are not to wait for the garbage collector."""
    kept: list[Any] = []

    def use(ws: Any) -> None:
        kept.append(weakref.ref(ws))
        echo(ws)

    gc.disable()
    try:
        with host(WebSocketMiddleware(using(use))) as server:
            for _ in range(2):
                with RawClient.connect(server.address) as client:
                    finish(client)
            wait_until(lambda: len(server.access) == 2 and not server.pool)
            assert kept[0]() is None
    finally:
        gc.enable()


def test_application_called_again_after_it_was_accepted() -> None:
    """As internal redirects do."""
    seen = []
    middleware = WebSocketMiddleware(using(echo))

    def twice(environ: Any, start_response: Any) -> Any:
        middleware(environ, start_response)
        seen.append(environ["wsgi.websocket"])
        return middleware(environ, lambda *_: lambda data: None)

    with host(WebSocketMiddleware(twice)) as server, RawClient.connect(server.address) as client:
        finish(client)
        wait_until(lambda: server.access)
    assert seen == [None]
    assert server.errors == []


def test_killed_while_the_101_is_sent(monkeypatch: Any) -> None:
    """Half a head may have left: no other response follows it."""
    from geventws.wsgi import takeover

    def stuck(self: Any, start_response: Any, agreement: Any, headers: Any, timeout: Any) -> None:
        self.socket.sendall(b"HTTP/1.1 10")
        gevent.sleep(3600)

    monkeypatch.setattr(takeover.PyWSGITakeover, "send_head", stuck)

    def app(environ: Any, start_response: Any) -> Any:
        with gevent.Timeout(0.01, False):
            environ["wsgi.websocket"].accept()
        assert environ["wsgi.websocket"].closed
        with pytest.raises(ConnectionClosed, match="killed while it sent the 101"):
            environ["wsgi.websocket"].send("x")
        start_response("404 Not Found", [("Content-Length", "4")])
        return [b"page"]

    with host(WebSocketMiddleware(app)) as server:
        assert ask(server) == b"HTTP/1.1 10"


def test_one_that_cannot_be_opened_after_all(monkeypatch: Any, capfd: Any) -> None:
    from geventws.wsgi import takeover

    def broken(self: Any) -> Any:
        raise ZeroDivisionError

    monkeypatch.setattr(takeover.Takeover, "borrow", broken)
    kept = []

    def app(environ: Any, start_response: Any) -> Any:
        kept.append(environ["wsgi.websocket"])
        kept[0].send("x")

    with host(WebSocketMiddleware(app)) as server:
        assert ask(server).endswith(b"\r\n\r\n")
        wait_until(lambda: server.access)
    assert "ZeroDivisionError" in capfd.readouterr().err
    assert kept[0].closed
    with pytest.raises(ConnectionClosed, match="internal error"):
        kept[0].receive()


def test_unix_socket(tmp_path: Any) -> None:
    seen = []

    def app(environ: Any, start_response: Any) -> Any:
        seen.append(environ["wsgi.websocket"].request.remote_address)
        return using(echo)(environ, start_response)

    listener = gevent.socket.socket(std_socket.AF_UNIX)
    listener.bind(str(tmp_path / "socket"))
    listener.listen(1)
    server = WSGIServer(listener, WebSocketMiddleware(app), log=None)
    server.start()
    try:
        sock = gevent.socket.socket(std_socket.AF_UNIX)
        sock.settimeout(20)
        sock.connect(str(tmp_path / "socket"))
        with RawClient(sock) as client:
            client.send(HANDSHAKE % (b"/", b"") + text("early"))
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                head += client.read_bytes(1)
            client.expect(0x81, b"early")
            finish(client)
    finally:
        server.stop()
    assert seen == [""]
