"""Server processes: pinned to a CPU, ready when they answer a handshake, always ended.

Linux only: it reads /proc.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

__all__ = ["Absent", "Process", "free_port", "pinned", "raise_priority", "session_pids"]

_START_SECONDS = 30.0
_STOP_SECONDS = 5.0

_REQUEST = (
    b"GET / HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


class Absent(Exception):
    """A server that could not be started, and why."""


@contextlib.contextmanager
def pinned(cpu: int | None) -> Iterator[None]:
    """What is started inside runs on this CPU only (children inherit it); None for any."""
    if cpu is None:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {cpu})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def raise_priority(pid: int) -> None:
    """Put a session of its own before others, where root allows; `nice` does not reach across sessions."""
    with contextlib.suppress(OSError):
        Path(f"/proc/{pid}/autogroup").write_text("-20", encoding="ascii")


def free_port() -> int:
    """A port that nobody listens on, outside of the range that outgoing connections take theirs from."""
    for _ in range(200):
        port = random.randrange(15000, 32000)
        with socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):
                sock.bind(("127.0.0.1", port))
                return port
    raise Absent("no free port was found")


def session_pids(leader: int) -> list[int]:
    """The processes of a session: a server and its children."""
    found = []
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            stat = Path(f"/proc/{name}/stat").read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue
        # proc(5): state, parent, process group, session behind the name in parentheses.
        fields = stat.rpartition(")")[2].split()
        if int(fields[3]) == leader and fields[0] != "Z":
            found.append(int(name))
    return sorted(found)


class Process:
    """A server that runs; leave the `with` block to end it.

    Attributes:
        name: of the server.
        port: where it listens.
    """

    def __init__(
        self,
        name: str,
        command: list[str],
        port: int,
        *,
        environment: Mapping[str, str],
        cpu: int | None,
        priority: bool,
    ) -> None:
        self.name = name
        self.port = port
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed in stop()
        try:
            with pinned(cpu):
                # A session of its own: its children are found and ended with it.
                self._popen = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=self._log,
                    stderr=subprocess.STDOUT,
                    env={**os.environ, **environment},
                    start_new_session=True,
                )
        except OSError as error:
            self._log.close()
            raise Absent(str(error)) from error
        if priority:
            raise_priority(self._popen.pid)

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def wait_ready(self, deadline: float) -> None:
        """Wait until it answers a handshake with 101.

        Args:
            deadline: on `time.monotonic()`'s clock.

        Raises:
            Absent: if it ends or the deadline passes before.
        """
        problem = "no answer"
        while time.monotonic() < deadline:
            if self._popen.poll() is not None:
                raise Absent(f"ended with status {self._popen.returncode}: {self.last_words()}")
            try:
                with socket.create_connection(("127.0.0.1", self.port), timeout=2) as sock:
                    sock.sendall(_REQUEST % self.port)
                    head = sock.recv(4096)
            except OSError as error:
                problem = str(error)
            else:
                if head.startswith(b"HTTP/1.1 101"):
                    return
                problem = f"answered {head[:40]!r}"
            time.sleep(0.05)
        raise Absent(f"not ready in time: {problem}; {self.last_words()}")

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self._popen.poll() is None

    def pids(self) -> list[int]:
        """It and its children."""
        return session_pids(self._popen.pid)

    def last_words(self) -> str:
        """What it printed last: the last line with an error, or the last line."""
        # Without seeking: the process writes through the same file offset.
        size = os.fstat(self._log.fileno()).st_size
        lines = os.pread(self._log.fileno(), 4000, max(0, size - 4000)).decode(errors="replace").splitlines()
        lines = [line for line in lines if line.strip()]
        errors = [line.strip() for line in lines if "error" in line.lower()]
        return (errors or lines or ["it printed nothing"])[-1]

    def stop(self) -> None:
        """End it and its children: SIGTERM, and SIGKILL for what is left."""
        pid = self._popen.pid
        self._signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._popen.wait(_STOP_SECONDS)
        # The leader may be gone and a child not.
        if self._popen.poll() is None or session_pids(pid):
            self._signal(signal.SIGKILL)
            self._popen.wait(_STOP_SECONDS)
        self._log.close()

    def _signal(self, number: int) -> None:
        for pid in self.pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
