"""Stopping: nobody new, 1001 to all, a time to finish, and then the rest is cut."""

from __future__ import annotations

import contextlib
import socket as std_socket
import threading
from typing import Any

import gevent
import gevent.event
import gevent.pool
import pytest
from asking import UPGRADE, dial, quiet, read_answer
from support import RawClient, close, serve, text, tls_contexts, wait_until

from geventws import ConnectionClosed, WebSocketServer

__all__ = ["quiet"]

pytestmark = pytest.mark.usefixtures("no_leaks")

STOPPING = "the server is stopping"


def echo(ws: Any) -> None:
    for message in ws:
        ws.send(message)


def is_refused(address: Any) -> bool:
    """Nobody listens there."""
    try:
        dial(address).close()
    except ConnectionRefusedError:
        return True
    return False


class TestStop:
    def test_in_order(self, quiet: Any) -> None:
        ended = []

        def handler(ws: Any) -> None:
            try:
                ws.receive()
            except ConnectionClosed as error:
                ended.append(error.sent.code if error.sent else None)
                raise

        with serve(handler, stop_timeout=20) as server:
            clients = [RawClient.connect(server.address) for _ in range(5)]
            wait_until(lambda: len(server.connections) == 5)
            stopping = gevent.spawn(server.stop)
            for client in clients:
                assert client.expect_close(1001) == STOPPING
            # First of all it stopped to accept.
            assert is_refused(server.address)
            wait_until(lambda: len(ended) == 5)
            for client in clients[:-1]:
                client.send(close(1001))
                client.expect_end()
                client.close()
            gevent.sleep(0.02)
            assert not stopping.ready(), "one client has not answered yet"
            clients[-1].send(close(1001))
            clients[-1].close()
            stopping.get(timeout=20)
            assert ended == [1001] * 5
            assert server.stats.closed_clean == 5
            assert not server.connections
            # The port is free.
            other = WebSocketServer(server.address, echo)
            other.start()
            other.stop()

    def test_handler_may_still_finish_its_work(self, quiet: Any) -> None:
        done = []
        release = gevent.event.Event()

        def handler(ws: Any) -> None:
            ws.send("begun")
            release.wait()
            done.append(ws.closed)

        with serve(handler) as server, RawClient.connect(server.address) as client:
            client.expect(0x81, b"begun")
            stopping = gevent.spawn(server.stop)
            client.expect_close(1001)
            release.set()
            client.send(close(1001))
            client.close()
            stopping.get(timeout=20)
            assert done == [True]

    def test_those_left_are_cut(self, quiet: Any) -> None:
        """A client that does not answer, one that does not read, and a handler that is busy."""
        killed = []

        def handler(ws: Any) -> None:
            if ws.request.path == "/busy":
                try:
                    gevent.sleep(1000)
                except gevent.GreenletExit:
                    killed.append(ws.closed)
                    raise
            while True:
                if ws.request.path == "/flood":
                    ws.send(b"x" * 65536)
                else:
                    ws.receive()

        with serve(handler, close_timeout=None, write_timeout=None, write_limit=100_000) as server:
            busy = RawClient.connect(server.address, b"/busy")
            mute = RawClient.connect(server.address, b"/mute")
            flood = RawClient.connect(server.address, b"/flood", small=True)
            wait_until(lambda: any(ws.write_buffer_size > 100_000 for ws in server.connections))
            server.stop(0.2)
            assert killed == [True]
            assert not server.connections
            assert not server._serving
            assert len(server.pool) == 0
            for client in (busy, mute):
                client.expect_close(1001)
                client.expect_end()
                client.close()
            with contextlib.suppress(ConnectionResetError, AssertionError):
                flood.read_frames()
            flood.close()

    def test_handler_that_swallows_everything(self, quiet: Any) -> None:
        """It cannot hold up the stop for ever, and its connection is over all the same."""
        finish = gevent.event.Event()

        def handler(ws: Any) -> None:
            while not finish.is_set():
                with contextlib.suppress(gevent.GreenletExit, ConnectionClosed):
                    finish.wait()

        with serve(handler) as server:
            with RawClient.connect(server.address) as client:
                server.stop(0)
                client.expect_close(1001)
                client.expect_end()
            finish.set()
            wait_until(lambda: not server._serving)

    @pytest.mark.parametrize(
        ("sent", "tls", "status"),
        [
            (b"", False, 503),
            (b"GET / HT", False, 503),
            (UPGRADE[:-2], False, 503),
            (b"", True, 503),
            (b"GET / HT", True, 503),
            (None, True, None),
        ],
    )
    def test_requests_under_way(self, quiet: Any, sent: bytes | None, tls: bool, status: int | None) -> None:
        """They get 503, at once; where TLS is not yet up, there is nothing to answer through."""
        options: dict[str, Any] = {"ssl_context": tls_contexts()[0]} if tls else {}
        with serve(echo, stop_timeout=1000, **options) as server:
            with contextlib.closing(dial(server.address, tls=tls and sent is not None)) as sock:
                if sent:
                    sock.sendall(sent)
                wait_until(lambda: server._opening)
                gevent.sleep(0.01)
                stopping = gevent.spawn(server.stop)
                if status is None:
                    assert sock.recv(100) == b""
                else:
                    assert read_answer(sock).status == status
            stopping.get(timeout=20)
            stats = server.stats
            assert stats.refused + stats.failed_handshakes == 1

    def test_request_that_is_being_decided(self, quiet: Any) -> None:
        """It is opened, for that was decided, and closed with 1001 in the same breath."""
        go = gevent.event.Event()
        with serve(echo, process_request=lambda request: go.wait() and None) as server:
            with contextlib.closing(dial(server.address)) as sock:
                sock.sendall(UPGRADE)
                wait_until(lambda: server._serving and not server._opening)
                stopping = gevent.spawn(server.stop)
                gevent.sleep(0.01)
                go.set()
                client = RawClient(sock)
                data = b""
                while b"\r\n\r\n" not in data:
                    data += sock.recv(1)
                assert data.startswith(b"HTTP/1.1 101 ")
                client.expect_close(1001)
                client.send(close(1001))
            stopping.get(timeout=20)
            assert server.stats.closed_clean == 1

    def test_stop_from_a_handler(self, quiet: Any) -> None:
        """It does not wait for itself."""
        stopped = []

        def handler(ws: Any) -> None:
            if ws.receive() == "stop":
                try:
                    server.stop(1000)
                finally:
                    stopped.append(True)

        with serve(handler) as server:
            other = RawClient.connect(server.address)
            with RawClient.connect(server.address) as client:
                client.send(text("stop"))
                client.expect_close(1001)
                client.send(close(1001))
                other.expect_close(1001)
                other.send(close(1001))
                other.close()
                client.expect_end()
            wait_until(lambda: stopped and not server._serving)

    def test_two_at_once(self, quiet: Any) -> None:
        with serve(echo) as server, RawClient.connect(server.address) as client:
            stops = [gevent.spawn(server.stop, 20) for _ in range(2)]
            client.expect_close(1001)
            client.send(close(1001))
            client.close()
            gevent.joinall(stops, timeout=20, raise_error=True)
            assert all(stop.ready() for stop in stops)

    def test_cut(self, quiet: Any) -> None:
        with serve(echo, close_timeout=None, stop_timeout=None) as server:
            with RawClient.connect(server.address) as client:
                stopping = gevent.spawn(server.stop)
                client.expect_close(1001)
                server.cut()
                client.expect_end()
            stopping.get(timeout=20)


class TestLife:
    """As gevent's BaseServer has it."""

    def test_start_stop_start(self, quiet: Any) -> None:
        server = WebSocketServer(("127.0.0.1", 0), echo)
        for _ in range(3):
            assert not server.started
            server.start()
            assert server.started
            with RawClient.connect(server.address) as client:
                client.send(text("hi"))
                client.expect(0x81, b"hi")
                stopping = gevent.spawn(server.stop)
                client.expect_close(1001)
                client.send(close(1001))
            stopping.get(timeout=20)
            assert is_refused(server.address)
        assert server.stats.opened == 3

    def test_limits_hold_after_another_start(self, quiet: Any) -> None:
        server = WebSocketServer(("127.0.0.1", 0), echo, spawn=1)
        server.start()
        server.stop()
        server.start()
        with RawClient.connect(server.address) as client, contextlib.closing(dial(server.address)) as waiting:
            waiting.sendall(UPGRADE)
            client.send(text("hi"))
            client.expect(0x81, b"hi")
            assert server.stats.accepted == 1
        server.stop(0)

    def test_stop_before_start_and_twice(self, quiet: Any) -> None:
        server = WebSocketServer(("127.0.0.1", 0), echo)
        server.stop()
        server.start()
        server.stop()
        server.stop()

    def test_close_only_ends_accepting(self, quiet: Any) -> None:
        with serve(echo) as server, RawClient.connect(server.address) as client:
            server.close()
            assert is_refused(server.address)
            client.send(text("hi"))
            client.expect(0x81, b"hi")

    def test_with(self, quiet: Any) -> None:
        with WebSocketServer(("127.0.0.1", 0), echo) as server:
            server.start()
            RawClient.connect(server.address).close()
            wait_until(lambda: not server._serving)
        assert is_refused(server.address)

    def test_shared_pool(self, quiet: Any) -> None:
        """A pool of the user's: it is used, waited for and emptied, as StreamServer does."""
        pool = gevent.pool.Pool(10)
        with serve(echo, spawn=pool) as server:
            with RawClient.connect(server.address):
                wait_until(lambda: len(pool) == 1)
                server.stop(0)
            assert len(pool) == 0

    def test_raw_greenlets(self, quiet: Any) -> None:
        """`spawn=gevent.spawn_raw`: lighter, and nothing is left to be killed; stop() still waits."""
        with serve(echo, spawn=gevent.spawn_raw) as server, RawClient.connect(server.address) as client:
            client.send(text("hi"))
            client.expect(0x81, b"hi")
            stopping = gevent.spawn(server.stop)
            client.expect_close(1001)
            client.send(close(1001))
            client.close()
            stopping.get(timeout=20)
            wait_until(lambda: not server._serving)


class TestThreads:
    def test_serves_in_a_thread(self, quiet: Any) -> None:
        """Without signals, which only the main thread gets."""
        ready = threading.Event()
        found: list[Any] = []

        def run() -> None:
            def handler(ws: Any) -> None:
                for message in ws:
                    if message == "stop":
                        gevent.spawn(server.stop)
                    else:
                        ws.send(message)

            server = WebSocketServer(("127.0.0.1", 0), handler)
            server.start()
            found.append(server)
            ready.set()
            server.serve_forever()
            gevent.get_hub().destroy(destroy_loop=True)

        thread = threading.Thread(target=run)
        thread.start()
        assert ready.wait(20)
        with RawClient.connect(found[0].address) as client:
            client.send(text("hi"))
            client.expect(0x81, b"hi")
            client.send(text("stop"))
            client.expect_close(1001)
            client.send(close(1001))
            client.expect_end()
        thread.join(20)
        assert not thread.is_alive()
        assert found[0].stats.closed_clean == 1
        with pytest.raises(ConnectionRefusedError), contextlib.closing(std_socket.socket()) as sock:
            sock.connect(found[0].address)
