"""The gunicorn worker, with an application that has no middleware of its own."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from servers import GUNICORNS, Kind, Server
from support import RawClient, close, text, wait_until

pytest.importorskip("gunicorn")

WORKERS = [kind for kind in GUNICORNS if kind.tells]

each_gunicorn = pytest.mark.parametrize("kind", WORKERS, ids=lambda kind: kind.name)

pytestmark = pytest.mark.deadline(60)


@contextlib.contextmanager
def worker(
    kind: Kind, folder: Path, *arguments: str, app: str = "site_under_test:application"
) -> Iterator[Server]:
    server = Server(kind, folder, folder, folder, app, *arguments)
    try:
        yield server
    finally:
        server.stop()


def connect(server: Server) -> Any:
    client = RawClient.connect(server.address, b"/echo")
    client.send(text("here"))
    client.expect(0x81, b"here")
    return client


@each_gunicorn
def test_application_gets_its_websockets_and_the_log_its_lines(kind: Kind, tmp_path: Path) -> None:
    with worker(kind, tmp_path) as server:
        with connect(server) as client:
            client.send(close(1000))
            client.expect_close(1000)
            client.expect_end()
        assert len(server.access(r'"GET /echo HTTP/1\.1" 101 ')) == 1


@each_gunicorn
def test_sigterm_tells_all_and_the_worker_ends_long_before_its_time(kind: Kind, tmp_path: Path) -> None:
    with worker(kind, tmp_path, "--graceful-timeout", "600") as server:
        clients = [connect(server) for _ in range(3)]
        server.signal(signal.SIGTERM)
        for client in clients:
            client.expect_close(1001)
            client.send(close(1001))
            client.expect_end()
            client.close()
        # Within the deadline of the tests, and not of graceful_timeout.
        assert server.wait() == 0
        assert "Traceback" not in server.output()


@each_gunicorn
def test_sigint_tells_all(kind: Kind, tmp_path: Path) -> None:
    with worker(kind, tmp_path) as server, connect(server) as client:
        server.signal(signal.SIGINT)
        client.expect_close(1001)


@each_gunicorn
def test_several_workers_and_a_reload(kind: Kind, tmp_path: Path) -> None:
    with worker(kind, tmp_path, "--workers", "2") as server:
        clients = [connect(server) for _ in range(6)]
        server.signal(signal.SIGHUP)
        for client in clients:
            client.expect_close(1001)
            client.send(close(1001))
            client.expect_end()
            client.close()

        def serves_again() -> bool:
            # The other old worker may be a moment behind: it answers 503, or ends TCP.
            try:
                client = RawClient.connect(server.address, b"/echo")
            except (AssertionError, OSError):
                return False
            with client:
                client.send(text("here"))
                return client.read_frame() == (0x81, b"here")

        wait_until(serves_again)
