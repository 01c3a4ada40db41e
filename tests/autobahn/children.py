"""Processes with deadlines: the server under test, and the suite.

Both lead a process group of their own, write into files, and are gone when their `with` block is
left, be it by an exception or by a signal to the run.
"""

from __future__ import annotations

import ctypes
import os
import pathlib
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

# Seconds.
READY_TIMEOUT = 30
STOP_TIMEOUT = 30
POLL = 0.05

TRACEBACK = "Traceback (most recent call last)"


class OutOfTime(Exception):
    """A deadline has passed."""


class ServerLost(Exception):
    """The server under test has ended, or has never listened."""


class Deadline:
    """An absolute point in time."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.end = time.monotonic() + seconds

    def remaining(self) -> float:
        return max(0.0, self.end - time.monotonic())

    def check(self) -> None:
        if not self.remaining():
            raise OutOfTime(f"time limit of {self.seconds:g} s reached")


def die_with_parent() -> None:
    """Run in a child before exec: SIGKILL for it when this process ends in whatever way."""
    pr_set_pdeathsig = 1
    LIBC.prctl(pr_set_pdeathsig, signal.SIGKILL)


LIBC = ctypes.CDLL(None)
PREEXEC = die_with_parent if sys.platform == "linux" else None


class Child:
    """A process that leads a group of its own, with its output in a file.

    Leaving the `with` block ends the whole group, whatever happened.
    """

    def __init__(self, command: list[str], log: pathlib.Path, **options: object) -> None:
        self.log = log
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=PREEXEC,
                **options,
            )

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *exc: object) -> None:
        self.kill_group()
        self.process.wait()

    def text(self) -> str:
        return self.log.read_text(errors="replace")

    def kill_group(self) -> bool:
        """Kill what is left of the group; return whether anything was."""
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            return False
        return True

    def wait_until(self, condition: Callable[[], T], deadline: Deadline) -> T:
        """Return the first true value of `condition()`.

        Raises:
            OutOfTime: the deadline has passed.
        """
        while not (value := condition()):
            deadline.check()
            time.sleep(POLL)
        return value


class Server(Child):
    """The server under test.

    `ready` finds the address in what the server prints, with a group named `address`.
    """

    def __init__(
        self, command: list[str], log: pathlib.Path, *, ready: str, cwd: pathlib.Path, env: dict[str, str]
    ) -> None:
        super().__init__(command, log, cwd=cwd, env=env)
        self.ready = re.compile(ready, re.MULTILINE)

    def address(self) -> str:
        """Wait until the server listens and return its host and port.

        Raises:
            ServerLost: it ended instead, or did not listen in time.
        """

        def listening() -> re.Match[str] | None:
            if self.process.poll() is not None:
                raise ServerLost(self.end())
            return self.ready.search(self.text())

        try:
            return self.wait_until(listening, Deadline(READY_TIMEOUT))["address"]
        except OutOfTime:
            raise ServerLost(f"the server did not listen within {READY_TIMEOUT} s") from None

    def end(self) -> str:
        """Say how the server has ended."""
        lines = self.text().split("\n")
        last = next((line for line in reversed(lines) if line.strip()), "none")
        return f"the server ended with status {self.process.returncode}, last line of its output: {last}"

    def stop(self) -> list[str]:
        """Stop the server with SIGTERM and return what was wrong with it."""
        if self.process.poll() is None:
            self.process.terminate()
        try:
            status = self.process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            return [f"the server did not end within {STOP_TIMEOUT} s of SIGTERM", *self.tracebacks()]
        faults = []
        if status:
            faults.append(self.end())
        if self.kill_group():
            faults.append("the server left processes behind")
        return faults + self.tracebacks()

    def tracebacks(self) -> list[str]:
        n = self.text().count(TRACEBACK)
        return [f"the server wrote {n} traceback(s): see {self.log}"] if n else []
