"""geventws/locust.py, as Locust runs it: without a browser, in a process of its own.

Collected where Locust is installed (`tox -e clients`).
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import gevent
import pytest
from support import PATIENCE, serve

from geventws import WebSocket

EXAMPLE = Path(__file__).parents[2] / "examples" / "locust" / "locustfile.py"


def echo(ws: WebSocket) -> None:
    for message in ws:
        ws.send(message)


def run_locust(file: Path, host: str, *arguments: str) -> tuple[int, dict[tuple[str, str], Any], str]:
    """Run a locustfile; gives the status, the report by kind and name, and the errors."""
    command = [sys.executable, "-m", "locust", "-f", str(file), "--headless", "--host", host]
    done = gevent.get_hub().threadpool.apply(
        subprocess.run,
        ([*command, "--json", "--stop-timeout", "5", *arguments],),
        {"capture_output": True, "timeout": 4 * PATIENCE, "text": True},
    )
    rows = {(row["method"], row["name"]): row for row in json.loads(done.stdout)}
    return done.returncode, rows, done.stderr


@pytest.mark.deadline(4 * PATIENCE)
def test_example() -> None:
    with serve(echo) as server:
        host = f"http://127.0.0.1:{server.address[1]}"
        status, rows, errors = run_locust(EXAMPLE, host, "-u", "50", "-r", "50", "-t", "5s")
        assert server.stats.opened == 50
        # Each was closed in order when its user stopped.
        assert server.stats.closed_unclean == 0
    assert status == 0, errors
    assert "Traceback" not in errors
    assert rows["WSConnect", "/talk"]["num_requests"] == 50
    assert rows["WSAsk", "question"]["num_requests"] > 50
    assert rows["WSAsk", "question"]["num_failures"] == 0
    assert rows["WSBurst", "ten at once"]["num_requests"] > 0


FAILING = """
from locust import task, constant
from geventws import WebSocketError
from geventws.locust import WebSocketUser

class Unlucky(WebSocketUser):
    wait_time = constant(0.2)

    @task
    def try_it(self):
        try:
            self.connect("/no", name="refused")
        except WebSocketError:
            pass
        ws = self.connect("/yes", name="accepted", ping_interval=None)
        self.send(ws, "one way", name="one way")
        try:
            self.ask_for(ws, "anybody?", name="silence", timeout=0.05)
        except TimeoutError:
            pass
        assert self.ask_for(ws, "x", name="chosen", matches=lambda message: message == "x") == "x"
"""


@pytest.mark.deadline(4 * PATIENCE)
def test_failures_are_reported(tmp_path: Path) -> None:
    file = tmp_path / "locustfile.py"
    file.write_text(FAILING)

    def handle(ws: WebSocket) -> None:
        for message in ws:
            if message == "x":
                ws.send("another")
                ws.send("x")

    def refuse(request: Any) -> Any:
        from geventws import Response

        return Response(403) if request.path == "/no" else None

    with serve(handle, process_request=refuse) as server:
        host = f"ws://127.0.0.1:{server.address[1]}"
        status, rows, errors = run_locust(file, host, "-u", "2", "-r", "2", "-t", "3s")
    assert status == 1
    assert "Traceback" not in errors
    assert rows["WSConnect", "refused"]["num_failures"] == rows["WSConnect", "refused"]["num_requests"] > 0
    assert rows["WSConnect", "accepted"]["num_failures"] == 0
    assert rows["WSSend", "one way"]["num_failures"] == 0
    assert rows["WSAsk", "silence"]["num_failures"] == rows["WSAsk", "silence"]["num_requests"] > 0
    assert rows["WSAsk", "chosen"]["num_failures"] == 0


PECULIAR = r"""
from locust import task, constant
from geventws.locust import WebSocketUser

class Peculiar(WebSocketUser):
    wait_time = constant(0.2)

    @task
    def try_it(self):
        with self.connect("/feed?from=ws://example.com/", name="query") as ws:
            self.send(ws, "\u00fc\u20ac", name="send")
            try:
                self.ask_for(ws, "x", name="flood", timeout=0.05, matches=lambda message: False)
            except TimeoutError:
                pass
            else:
                raise AssertionError("what is never there was found")
        with self.connect("/echo", name="echo") as ws:
            assert self.ask_for(ws, "\u00fc\u20ac", name="text") == "\u00fc\u20ac"
            assert self.ask_for(ws, b"\x00\x01", name="bytes") == b"\x00\x01"
"""


@pytest.mark.deadline(4 * PATIENCE)
def test_sizes_queries_and_floods(tmp_path: Path) -> None:
    """A length is in bytes; a URI in a query is none; what always comes does not put off the time-out."""
    file = tmp_path / "locustfile.py"
    file.write_text(PECULIAR, encoding="utf-8")

    def handle(ws: WebSocket) -> None:
        if ws.request.path == "/echo":
            for message in ws:
                ws.send(message)
            return
        assert ws.request.query == "from=ws://example.com/"
        while True:
            ws.send("more")

    with serve(handle) as server:
        host = f"ws://127.0.0.1:{server.address[1]}"
        _, rows, errors = run_locust(file, host, "-u", "1", "-r", "1", "-t", "3s")
    assert "Traceback" not in errors
    assert rows["WSConnect", "query"]["num_failures"] == 0
    assert rows["WSAsk", "flood"]["num_failures"] == rows["WSAsk", "flood"]["num_requests"] > 0
    assert rows["WSAsk", "text"]["num_failures"] == 0
    for kind, name, size in (("WSSend", "send", 5), ("WSAsk", "text", 5), ("WSAsk", "bytes", 2)):
        row = rows[kind, name]
        assert row["total_content_length"] == size * row["num_requests"]


@pytest.mark.deadline(4 * PATIENCE)
def test_without_a_host(tmp_path: Path) -> None:
    file = tmp_path / "locustfile.py"
    file.write_text(FAILING)
    status, _, errors = run_locust(file, "", "-u", "1", "-r", "1", "-t", "2s")
    assert status == 1
    assert "give --host" in errors
