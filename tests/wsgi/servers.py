"""The WSGI servers of the matrix, each as a process of its own.

gunicorn is the one that is installed; GEVENTWS_GUNICORN23 may name a folder with version 23, which is then a
second one: the tox environment `wsgi` has it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import gevent
import pytest

HERE = Path(__file__).resolve().parent

DEADLINE = 20.0


@dataclasses.dataclass(frozen=True)
class Kind:
    """One server.

    Attributes:
        name: for the test's name.
        command: arguments of the interpreter; {app} stands for the application.
        tls: it speaks TLS.
        gunicorn: it is gunicorn, which says where it listens in its log.
        tells: its clients get 1001 when it is told to stop.
        folder: where its packages are, before those that are installed.
    """

    name: str
    command: tuple[str, ...]
    tls: bool = False
    gunicorn: bool = False
    tells: bool = False
    folder: str = ""


def _own(name: str, *arguments: str, **facts: Any) -> Kind:
    return Kind(name, (str(HERE / "run_server.py"), *arguments, "--app", "{app}"), **facts)


def _gunicorn(name: str, worker: str, *arguments: str, **facts: Any) -> Kind:
    return Kind(
        name,
        ("-m", "gunicorn", "-k", worker, "-b", "127.0.0.1:0", "--access-logfile", "{access}",
         "--graceful-timeout", "2", *arguments, "{app}"),
        gunicorn=True,
        **facts,
    )  # fmt: skip


def _gunicorns(prefix: str, *arguments: str, **facts: Any) -> list[Kind]:
    own = "geventws.gunicorn.GeventWebSocketWorker"
    tls = ("--certfile", "{chain}", "--keyfile", "{key}")
    return [
        _gunicorn(f"{prefix}-gevent", "gevent", *arguments, **facts),
        _gunicorn(f"{prefix}-gevent-tls", "gevent", *arguments, *tls, tls=True, **facts),
        _gunicorn(f"{prefix}-pywsgi", "gunicorn.workers.ggevent.GeventPyWSGIWorker", *arguments, **facts),
        _gunicorn(f"{prefix}-worker", own, *arguments, tells=True, **facts),
        _gunicorn(f"{prefix}-gthread", "gthread", "--threads", "8", *arguments, **facts),
    ]


GUNICORN23 = os.environ.get("GEVENTWS_GUNICORN23", "")

KINDS = [
    _own("pywsgi", "pywsgi"),
    _own("pywsgi-patched", "pywsgi", "--patched"),
    _own("pywsgi-tls", "pywsgi", "--tls", "{chain}", "{key}", tls=True),
    _own("handler", "handler", tells=True),
    _own("handler-tls", "handler", "--tls", "{chain}", "{key}", tls=True, tells=True),
    *_gunicorns("gunicorn", "--no-control-socket"),
    *(_gunicorns("gunicorn23", folder=GUNICORN23) if GUNICORN23 else ()),
    _own("werkzeug", "werkzeug"),
    _own("werkzeug-patched", "werkzeug", "--patched"),
    _own("werkzeug-tls", "werkzeug", "--tls", "{chain}", "{key}", tls=True),
]

GUNICORNS = [kind for kind in KINDS if kind.gunicorn]

#: One that cannot.
SYNC = _gunicorn("gunicorn-sync", "sync", "--no-control-socket")


class Server:
    """A running server.

    Attributes:
        address: where it listens.
        kind: which one it is.
    """

    def __init__(
        self, kind: Kind, folder: Path, chain: Path, key: Path, app: str = "site_under_test:app", *more: str
    ) -> None:
        if kind.gunicorn and importlib.util.find_spec("gunicorn") is None:
            pytest.skip("needs gunicorn")
        self.kind = kind
        self.folder = folder
        self.address: tuple[str, int] = ("127.0.0.1", 0)
        self._calls, self._access, self._output = (folder / name for name in ("calls", "access", "output"))
        self._calls.touch()
        self._access.touch()
        names = {"app": app, "access": self._access, "chain": chain, "key": key}
        command = [part.format(**names) for part in kind.command]
        # The application stands last.
        command[-1:-1] = more if kind.gunicorn else ()
        command += () if kind.gunicorn else more
        paths = [str(HERE), *filter(None, [kind.folder, os.environ.get("PYTHONPATH")])]
        environ = {name: value for name, value in os.environ.items() if name != "GUNICORN_CMD_ARGS"}
        environ |= {
            "CALLS": str(self._calls), "ACCESS": str(self._access), "PYTHONPATH": os.pathsep.join(paths),
        }  # fmt: skip
        with self._output.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, *command], stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                env=environ, cwd=folder, start_new_session=True,
            )  # fmt: skip
        pattern = r"Listening at: \w+://127\.0\.0\.1:(\d+)" if kind.gunicorn else r"^port (\d+)"
        port = self.wait_for(pattern)
        self.address = ("127.0.0.1", int(port[1]))
        if kind.gunicorn:
            self.wait_for("Booting worker")

    def output(self) -> str:
        """All that it has printed and logged."""
        return self._output.read_text(encoding="utf-8", errors="replace")

    def wait_for(self, pattern: str) -> re.Match[str]:
        """Wait until its output matches."""
        until = time.monotonic() + DEADLINE
        while not (found := re.search(pattern, self.output(), re.MULTILINE)):
            assert self.process.poll() is None, self.output()
            assert time.monotonic() < until, self.output()
            gevent.sleep(0.01)
        return found

    def calls(self) -> list[str]:
        """The paths for which the application was called."""
        return self._calls.read_text(encoding="ascii").splitlines()

    def access(self, pattern: str) -> list[str]:
        """The lines of its access log that match, when there are any."""
        until = time.monotonic() + DEADLINE
        while True:
            lines = self._access.read_text(encoding="utf-8", errors="replace").splitlines()
            found = [line for line in lines if re.search(pattern, line)]
            if found or time.monotonic() > until:
                return found
            gevent.sleep(0.01)

    def descriptors(self) -> int:
        """How many descriptors its processes have open."""
        found = 0
        for folder in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if folder.name.isdecimal() and os.getsid(int(folder.name)) == self.process.pid:
                    found += len(os.listdir(folder / "fd"))
        return found

    def signal(self, number: signal.Signals) -> None:
        """Send a signal."""
        self.process.send_signal(number)

    def wait(self) -> int:
        """Wait for its end."""
        until = time.monotonic() + DEADLINE
        while self.process.poll() is None:
            assert time.monotonic() < until, self.output()
            gevent.sleep(0.01)
        assert self.process.returncode is not None
        return self.process.returncode

    def stop(self) -> None:
        """End it, whatever it does."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(DEADLINE)
            except subprocess.TimeoutExpired:
                pass
        try:
            # Its own session: what it has left behind goes too.
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.process.wait()
