"""The servers behind the proxies, each as a process of its own, and what has reached its application."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import gevent
from clients.processes import children, start
from proxies.programs import DEADLINE

__all__ = ["KINDS", "Backend", "Kind", "backend"]

HERE = Path(__file__).resolve().parent


@dataclasses.dataclass(frozen=True)
class Kind:
    """One way to serve.

    Attributes:
        name: for the tests.
        worker: gunicorn's worker; None for a server that behind.py runs.
        tells: its clients get 1001 when it is told to stop.
    """

    name: str
    worker: str | None = None
    tells: bool = False


KINDS = [
    Kind("standalone", tells=True),
    Kind("pywsgi"),
    Kind("gunicorn-gevent", "gevent"),
    Kind("gunicorn-worker", "geventws.gunicorn.GeventWebSocketWorker", tells=True),
]


class Backend:
    """A running server.

    Attributes:
        kind: which one.
        address: host:port, or the path of its Unix socket.
    """

    def __init__(self, kind: Kind, process: Any, calls: Path) -> None:
        self.kind = kind
        self.address = ""
        self.process = process
        self._calls = calls

    def events(self, path: str | None = None) -> list[dict[str, Any]]:
        """What has reached the application, for one path or for all."""
        lines = self._calls.read_text(encoding="utf-8").split("\n")[:-1]
        return [event for event in map(json.loads, lines) if path is None or event["path"] == path]

    def end_of(self, path: str) -> int:
        """Wait until the one WebSocket with this path has ended; returns its close code."""
        until = time.monotonic() + DEADLINE
        while not (found := [event for event in self.events(path) if event["event"] == "end"]):
            assert time.monotonic() < until, f"{path} has not ended: {self.events(path)}"
            gevent.sleep(0.01)
        assert len(found) == 1
        return found[0]["code"]

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the server, to gunicorn's master."""
        self.process.process.send_signal(number)

    def output(self) -> str:
        """All that it has printed."""
        return self.process.text()


@contextlib.contextmanager
def backend(
    kind: Kind,
    directory: Path,
    *,
    unix: bool = False,
    fixed: bool = False,
    arguments: Sequence[str] = (),
    **options: Any,
) -> Iterator[Backend]:
    """Run a server until the `with` block is left.

    Args:
        kind: which one.
        directory: for its files.
        unix: it listens on a Unix socket.
        fixed: with ProxyFix around the application.
        arguments: further ones for gunicorn.
        options: those of the server, or of the middleware.
    """
    calls = directory / "calls"
    calls.touch()
    # pytest's directories may be too deep for a Unix socket, which takes about a hundred bytes.
    path = f"/tmp/geventws-{os.getpid()}-{id(calls):x}.sock" if unix else None
    if kind.worker is None:
        command = [str(HERE / "behind.py"), kind.name]
        command += ["--unix", path] if path else []
        command += ["--fixed"] if fixed else []
        ready = r"^listening on (?P<address>\S+)$"
    else:
        where = f"unix:{path}" if path else "127.0.0.1:0"
        command = ["-m", "gunicorn", "-k", kind.worker, "-b", where, "--graceful-timeout", "2",
                   "--no-control-socket", *arguments, "behind:fixed" if fixed else "behind:app"]  # fmt: skip
        ready = r"Listening at: (?:http://|unix:)(?P<address>\S+)"
    environ = {name: value for name, value in os.environ.items() if name != "GUNICORN_CMD_ARGS"}
    environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(HERE), environ.get("PYTHONPATH")]))
    environ |= {"CALLS": str(calls), "OPTIONS": json.dumps(options), "PYTHONUNBUFFERED": "1"}
    try:
        process = start(
            children.Server, [sys.executable, *command], directory / "server.log",
            ready=ready, cwd=directory, env=environ,
        )  # fmt: skip
        with process:
            server = Backend(kind, process, calls)
            server.address = process.address()
            yield server
            text = server.output()
            assert "Traceback" not in text, text
    finally:
        if path:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
