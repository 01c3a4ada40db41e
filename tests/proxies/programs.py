"""The proxies as child processes: found, started on ports that are free, and ended whatever happens."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from clients.processes import children, start

__all__ = ["DEADLINE", "PACKAGES", "ProgramMissing", "check_programs", "running"]

#: Seconds that anything may take on a busy machine.
DEADLINE = 60.0

#: Each program, and its package in Debian.
PACKAGES = {
    "nginx": "nginx",
    "haproxy": "haproxy",
    "tinyproxy": "tinyproxy-bin",
    "microsocks": "microsocks",
}

_PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])


class ProgramMissing(Exception):
    """A program is not installed."""


def find(program: str) -> str:
    """Return the path of a program; Debian keeps some where only root looks.

    Raises:
        ProgramMissing: if there is none; the message says what to install.
    """
    path = shutil.which(program, path=_PATH)
    if path is None:
        raise ProgramMissing(f"no {program} (Debian: apt-get install {PACKAGES[program]})")
    return path


def check_programs() -> None:
    """Raise ProgramMissing unless all are there."""
    missing = [program for program in PACKAGES if shutil.which(program, path=_PATH) is None]
    if missing:
        packages = " ".join(PACKAGES[program] for program in missing)
        raise ProgramMissing(f"no {', '.join(missing)} (Debian: apt-get install {packages})")


def free_ports(count: int) -> list[int]:
    """Return ports that are free now; somebody may take one before the program does."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for sock in sockets:
            sock.bind(("127.0.0.1", 0))
        return [sock.getsockname()[1] for sock in sockets]


@contextlib.contextmanager
def running(
    program: str, directory: Path, count: int, prepare: Callable[[list[int]], list[str]]
) -> Iterator[list[int]]:
    """Run a program until the `with` block is left; gives the ports that it listens on.

    Args:
        program: one of `PACKAGES`.
        directory: its working directory, for its files and its log.
        count: how many ports it listens on.
        prepare: writes its configuration for these ports, and returns its arguments.
    """
    path = find(program)
    for number in range(5):
        ports = free_ports(count)
        log = directory / f"{program}-{number}.log"
        child = start(children.Child, [path, *prepare(ports)], log, cwd=directory)
        with child:
            if not _listens(child, ports):
                continue
            yield ports
            assert child.process.poll() is None, f"{program} has ended:\n{child.text()}"
            return
    raise AssertionError(f"{program} found its ports taken five times")


def _listens(child: Any, ports: list[int]) -> bool:
    """Wait until a program listens on all ports; False if somebody else has one of them."""
    until = time.monotonic() + DEADLINE
    while True:
        text = child.text()
        if "in use" in text or "cannot bind" in text:
            return False
        assert child.process.poll() is None, f"{child.process.args} has ended:\n{text}"
        assert time.monotonic() < until, f"{child.process.args} does not listen:\n{text}"
        try:
            for port in ports:
                socket.create_connection(("127.0.0.1", port), DEADLINE).close()
        except ConnectionRefusedError:
            time.sleep(0.02)
        else:
            # Once more: it may have been another program that accepted.
            if child.process.poll() is None and "in use" not in child.text():
                return True
