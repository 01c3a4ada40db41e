"""The server under attack: started by name, or given by its process; what it costs is read in /proc."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gevent
import gevent.subprocess

HERE = Path(__file__).resolve().parent
MIB = 1 << 20

__all__ = ["KINDS", "MIB", "Bill", "Kind", "Target", "Witness", "bill", "prefer", "started"]


@dataclasses.dataclass(frozen=True)
class Kind:
    """What is known of a server, out of the box.

    Attributes:
        name: as the command line and the tables call it.
        script: below servers/, or "".
        packages: whose versions are worth telling.
        limit: bytes of a message; None where it has no limit.
        compresses: it can do permessage-deflate.
        broadcasts: a message on /broadcast goes to everyone there.
    """

    name: str
    script: str = ""
    packages: tuple[str, ...] = ()
    limit: int | None = None
    compresses: bool = True
    broadcasts: bool = False


KINDS = {
    kind.name: kind
    for kind in (
        Kind("geventws", "geventws_echo.py", ("geventws", "gevent"), MIB, broadcasts=True),
        Kind(
            "gevent-websocket",
            "gevent_websocket_echo.py",
            ("gevent-websocket", "gevent"),
            compresses=False,
        ),
        Kind("flask-sock", "flask_sock_echo.py", ("flask-sock", "simple-websocket", "gevent")),
        Kind("websockets", "websockets_echo.py", ("websockets",), MIB),
        Kind("aiohttp", "aiohttp_echo.py", ("aiohttp",), 4 * MIB),
    )
}


@dataclasses.dataclass(slots=True)
class Target:
    """A server that runs.

    Attributes:
        kind: what is known of it.
        port: where it listens.
        pid: of its process.
        beside: seconds of CPU time a second that the well-behaved client beside an attack costs it.
    """

    kind: Kind
    port: int
    pid: int
    beside: float = 0.0

    def resident(self) -> int:
        """Bytes of its resident set."""
        return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * resource.getpagesize()

    def peak(self) -> int:
        """The most that was, since `forget_peak`."""
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
        raise ProcessLookupError(f"process {self.pid} has ended")

    def forget_peak(self) -> None:
        """Let the peak begin at what is resident now."""
        Path(f"/proc/{self.pid}/clear_refs").write_text("5")

    def cpu(self) -> float:
        """Seconds of CPU time that its threads have had."""
        total = 0
        for task in os.listdir(f"/proc/{self.pid}/task"):
            with contextlib.suppress(OSError):
                total += int(Path(f"/proc/{self.pid}/task/{task}/schedstat").read_text().split()[0])
        return total / 1e9

    def descriptors(self) -> int:
        """How many are open."""
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def threads(self) -> int:
        """How many it has."""
        return len(os.listdir(f"/proc/{self.pid}/task"))

    def calm_down(self, limit: float = 30.0) -> None:
        """Wait until it does nothing any more, but for the client beside."""
        until, before, calm = time.monotonic() + limit, self.cpu(), 0
        while time.monotonic() < until and calm < 3:
            start = time.monotonic()
            gevent.sleep(0.05)
            now, passed = self.cpu(), time.monotonic() - start
            # Messages do not come evenly: twice as many are nothing else.
            calm = calm + 1 if now - before < 0.001 + 2 * self.beside * passed else 0
            before = now


@dataclasses.dataclass(slots=True)
class Bill:
    """What an attack has cost the server.

    Attributes:
        memory: bytes that its resident set was above the start, at the peak.
        cpu: seconds, without those of the client beside.
    """

    memory: int = 0
    cpu: float = 0.0


@contextlib.contextmanager
def bill(target: Target) -> Iterator[Bill]:
    """Measure what happens inside costs, with all that the server does behind it."""
    found = Bill()
    target.calm_down(5)
    target.forget_peak()
    resident, cpu, start = target.resident(), target.cpu(), time.monotonic()
    try:
        yield found
    finally:
        target.calm_down()
        found.cpu = max(0.0, target.cpu() - cpu - target.beside * (time.monotonic() - start))
        found.memory = target.peak() - resident


def prefer(pid: int, cpu: int) -> None:
    """Put a session of its own on one CPU and, where root allows, before the other programs of the machine.

    A client that waits for a CPU sees long round trips that are not the server's.
    """
    from harness.processes import raise_priority

    cpus = sorted(os.sched_getaffinity(0))
    for task in os.listdir(f"/proc/{pid}/task"):
        os.sched_setaffinity(int(task), {cpus[cpu % len(cpus)]})
    raise_priority(pid)


class Witness:
    """Well-behaved clients in a process of their own; see witness.py."""

    def __init__(self, target: Target, count: int, rate: float) -> None:
        self._popen = gevent.subprocess.Popen(
            [sys.executable, str(HERE / "witness.py"), str(target.port), str(count), str(rate)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def wait_served(self, seconds: float = 10.0) -> None:
        """Wait for the first echo.

        Raises:
            TimeoutError: if none came.
        """
        until = time.monotonic() + seconds
        while not self.take()["count"]:
            if time.monotonic() > until:
                raise TimeoutError(f"the well-behaved client was not served within {seconds:g} s")
            time.sleep(0.02)

    def take(self) -> dict[str, Any]:
        """What they have seen since the last time."""
        self._popen.stdin.write(b"\n")
        self._popen.stdin.flush()
        report: dict[str, Any] = json.loads(self._popen.stdout.readline())
        return report

    def __enter__(self) -> Witness:
        return self

    def __exit__(self, *_: object) -> None:
        self._popen.stdin.close()
        self._popen.stdout.close()
        self._popen.kill()
        self._popen.wait()


@contextlib.contextmanager
def started(
    kind: Kind, interpreter: str, *, cpu: int | None = None, tls: Path | None = None
) -> Iterator[Target]:
    """Run a server.

    Args:
        kind: which one.
        interpreter: with its packages.
        cpu: to run on.
        tls: a directory with `certificate` and `key`, to speak TLS.

    Raises:
        Absent: if it does not start.
    """
    from harness.processes import Process, free_port

    port = free_port()
    command = [interpreter, str(HERE / "servers" / kind.script), "--port", str(port)]
    if tls is not None:
        command += ["--certfile", str(tls / "certificate"), "--keyfile", str(tls / "key")]
    with Process(kind.name, command, port, environment={}, cpu=cpu, priority=False) as process:
        if tls is None:
            process.wait_ready(time.monotonic() + 30)
        else:
            _wait_listening(port)
        (pid,) = process.pids()
        yield Target(kind, port, pid)


def _wait_listening(port: int) -> None:
    until = time.monotonic() + 30
    while True:
        try:
            gevent.socket.create_connection(("127.0.0.1", port), timeout=5).close()
        except OSError:
            if time.monotonic() > until:
                raise
            gevent.sleep(0.05)
        else:
            return
