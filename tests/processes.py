"""Start a server as a process of its own, talk to it, and end it: for the tests of commands and examples."""

from __future__ import annotations

import os
import re
import select
import signal
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from websockets.sync.client import ClientConnection, connect, unix_connect

if TYPE_CHECKING:
    import trustme

#: Seconds that anything may take on a busy machine.
DEADLINE = 20.0


class Process:
    """A Python process whose output is read line by line; killed at the end of `with`, if it still runs.

    Args:
        arguments: those of the interpreter: a script, or "-m" and a module, and theirs.
        interpreter: another command in front of them. Default: this Python, with warnings as errors.
    """

    def __init__(
        self, *arguments: str | Path, interpreter: Sequence[str] = (sys.executable, "-W", "error")
    ) -> None:
        self._command = [*interpreter, *map(str, arguments)]
        self._buffer = b""

    def __enter__(self) -> Process:
        # Buffered output stays so: what is not flushed must not be seen here.
        environ = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
        with ExitStack() as stack:
            self._stderr = stack.enter_context(tempfile.TemporaryFile())
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=self._stderr,
                env=environ,
            )
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._process.stdout is not None
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        if error is not None:
            print(f"standard error of the process:\n{self.errors()}")
        self._process.stdout.close()
        self._stack.close()

    def read_line(self) -> str:
        """Return the next line of standard output; EOFError where there is none."""
        assert self._process.stdout is not None
        limit = time.monotonic() + DEADLINE
        while b"\n" not in self._buffer:
            readable = select.select([self._process.stdout], [], [], max(0, limit - time.monotonic()))[0]
            assert readable, (
                f"no line within {DEADLINE} seconds, only {self._buffer!r}; errors: {self.errors()}"
            )
            data = os.read(self._process.stdout.fileno(), 4096)
            if not data:
                raise EOFError(f"the process has ended its output; errors: {self.errors()}")
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line.decode()

    def url(self) -> str:
        """Wait until the server is ready, and return the URL that it announces."""
        line = self.read_line()
        assert line.startswith("listening on ")
        return line.removeprefix("listening on ")

    def errors(self) -> str:
        """Return what stands on standard error so far."""
        self._stderr.seek(0)
        return self._stderr.read().decode()

    def wait_for_error(self, pattern: str) -> re.Match[str]:
        """Wait until standard error matches."""
        limit = time.monotonic() + DEADLINE
        while not (found := re.search(pattern, self.errors())):
            assert self._process.poll() is None, self.errors()
            assert time.monotonic() < limit, f"only this within {DEADLINE} seconds: {self.errors()}"
            time.sleep(0.01)
        return found

    def signal(self, number: signal.Signals) -> None:
        """Send a signal."""
        self._process.send_signal(number)

    def is_running(self) -> bool:
        """Tell whether the process has not ended yet."""
        return self._process.poll() is None

    def wait(self) -> int:
        """Wait for the end of the process, and return its exit status."""
        return self._process.wait(DEADLINE)

    def stop(self) -> int:
        """Send SIGTERM, wait, and return the exit status."""
        self.signal(signal.SIGTERM)
        return self.wait()


def trust(authority: trustme.CA) -> ssl.SSLContext:
    """Return a context of a client for `open_client`, which trusts this authority.

    Not for TLS 1.3: websockets reads in one thread and writes in another, and before CPython 3.13 two threads
    must not use one object of OpenSSL. Where tickets come while the request is written, that is never sent:
    one connection in 300 on a busy machine.
    """
    context = ssl.create_default_context()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    authority.configure_trust(context)
    return context


def open_client(url: str, path: str = "/", **options: Any) -> ClientConnection:
    """Connect to a server by the URL that it announced."""
    options = {"open_timeout": DEADLINE, "close_timeout": DEADLINE, "max_size": None} | options
    scheme, _, rest = url.partition(":")
    if scheme.endswith("+unix"):
        return unix_connect(rest, f"{scheme.removesuffix('+unix')}://localhost{path}", **options)
    return connect(url + path, proxy=None, **options)
