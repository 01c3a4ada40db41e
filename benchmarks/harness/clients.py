"""The clients that are measured, under which load, and what geventws has to reach among them.

Rows, goals, cells and verdicts are those of servers, with the roles exchanged: what is measured is the
client, and the "load generator" at its other side the server.
"""

from __future__ import annotations

import dataclasses
import platform
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from .rows import Goal, Load, Row

__all__ = ["CLIENTS", "ROWS", "Client", "ServerMissing", "choose", "install_server", "sample_of"]

BENCHMARKS = Path(__file__).resolve().parents[1]

#: The server's package on npm: Bun, whose WebSockets are those of uWebSockets, in C++.
_BUN = "1.4.4"
_INSTALL_SECONDS = 600


class ServerMissing(Exception):
    """There is nothing to connect to; the message says what to do."""


@dataclasses.dataclass(frozen=True)
class Client:
    """One client.

    Attributes:
        name: as the tables and the command line call it.
        script: below benchmarks/clients/.
        runs_on: the interpreter: the one with geventws, or the peers'.
        packages: distributions whose versions are worth telling.
        environment: variables for it.
    """

    name: str
    script: str
    runs_on: Literal["ours", "peers"] = "peers"
    packages: tuple[str, ...] = ()
    environment: tuple[tuple[str, str], ...] = ()

    def command(self, interpreter: str, load: Load, *, port: int, pids: list[int]) -> list[str]:
        """The command line that measures it, without the times."""
        line = [interpreter, str(BENCHMARKS / "clients" / self.script), "--port", str(port)]
        line += ["--mode", load.mode, "--connections", str(load.connections), "--size", str(load.size)]
        for pid in pids:
            line += ["--server-pid", str(pid)]
        return [*line, "--binary"] if load.binary else line


_OURS = ("geventws", "gevent", "greenlet", "httptools")
_PYTHON = ("websocket-client", "websockets.sync", "aiohttp")
_PEERS = (*_PYTHON, "picows")

CLIENTS = {
    client.name: client
    for client in (
        Client("geventws", "geventws_client.py", "ours", _OURS, (("GEVENTWS_PURE_PYTHON", ""),)),
        Client("geventws-pure", "geventws_client.py", "ours", _OURS, (("GEVENTWS_PURE_PYTHON", "1"),)),
        Client("picows", "picows_client.py", packages=("picows", "uvloop")),
        Client("aiohttp", "aiohttp_client.py", packages=("aiohttp", "uvloop")),
        Client("websockets.sync", "websockets_sync.py", packages=("websockets", "gevent")),
        Client("websocket-client", "websocket_client.py", packages=("websocket-client", "wsaccel", "gevent")),
    )
}


def _row(name: str, title: str, load: Load, **more: Any) -> Row:
    """A row of all clients, with the goals of all rows: level with picows, ahead of the others."""
    goals = (
        Goal(what="speed", value=1.0, against=("picows",)),
        Goal(what="speed", value=1.01, against=_PYTHON),
    )
    return Row(
        name=name,
        title=title,
        load=load,
        servers=tuple(CLIENTS),
        **{"goals": goals, "quick_servers": (), **more},
    )


_QUICK = ("geventws", "picows", "aiohttp")

ROWS = (
    _row("client-latency", "client: 1 connection, 32 B text, round trips", Load(connections=1)),
    _row(
        "client-small",
        "client: 100 connections, 32 B text, round trips",
        Load(connections=100),
        quick_servers=tuple(CLIENTS),
    ),
    _row(
        "client-64k",
        "client: 10 connections, 64 KiB binary, round trips",
        Load(connections=10, size=64 * 1024, binary=True),
        quick_servers=_QUICK,
    ),
    _row(
        "client-megabyte",
        "client: 4 connections, 1 MiB binary, round trips",
        Load(connections=4, size=1024 * 1024, binary=True),
    ),
    _row(
        "client-connect",
        "client: connections opened and closed, 100 at a time",
        Load(mode="handshake", connections=100),
        quick_servers=_QUICK,
        unit="connections",
    ),
    _row(
        "client-memory",
        "client: memory of an idle connection on which something waits",
        Load(mode="idle", connections=2000),
        metric="memory",
        # What it has to be: less than the thriftiest of those that wait in a greenlet or task.
        goals=(Goal(what="memory", value=10.0),),
    ),
)


def choose(names: list[str] | None, *, quick: bool) -> list[Row]:
    """The rows of a run, in the order of the table.

    Raises:
        ValueError: for a name that no row has.
    """
    known = [row.name for row in ROWS]
    if names is None:
        return [row for row in ROWS if row.quick_servers or not quick]
    unknown = set(names) - set(known)
    if unknown:
        raise ValueError(f"no row is named {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    return [row for row in ROWS if row.name in names]


def sample_of(printed: Mapping[str, Any], row: Row) -> dict[str, Any]:
    """Make a sample, as results.py takes it, of what a client printed."""
    sample: dict[str, Any] = dict(printed)
    if not sample["errors"]:
        if not sample["count"]:
            sample |= {"errors": 1, "first_error": "nothing was counted"}
        elif sample["mode"] == "idle" and sample["open"] < row.load.connections:
            sample |= {"errors": 1, "first_error": f"{sample['open']} connections were open at the end"}
    if sample["errors"]:
        return sample
    rss = {"open": sample["rss_kib"], "end": sample["rss_kib"]}
    if sample["mode"] == "idle":
        return sample | {"server_rss_kib": rss, "client_cpu_share": 0.0}
    rate = "messages_per_s" if sample["mode"] == "echo" else "handshakes_per_s"
    return sample | {
        rate: sample["count"] / sample["seconds"],
        "server_rss_kib": rss,
        # The one that is measured, and the one at its other side.
        "server_cpu_s": sample["cpu_s"],
        "client_cpu_share": sample["server_cpu_s"] / sample["seconds"],
    }


def install_server(directory: Path) -> tuple[list[str], str]:
    """Install the server, unless it is there.

    Returns:
        Its command line, to which the port is added, and its version.

    Raises:
        ServerMissing: if that is not possible.
    """
    kinds = {"x86_64": "x64-baseline", "aarch64": "aarch64"}
    if platform.machine() not in kinds or platform.libc_ver()[0] != "glibc":
        raise ServerMissing("the server, Bun, is taken from npm for x86_64 and aarch64 with glibc, not here")
    package = f"@oven/bun-linux-{kinds[platform.machine()]}"
    program = directory / "node_modules" / package / "bin" / "bun"
    command = [str(program), str(BENCHMARKS / "clients" / "echo.js")]
    if not program.exists() or _version(program) != _BUN:
        npm = shutil.which("npm")
        if npm is None:
            raise ServerMissing("the server, Bun, comes from npm, which is not here: apt-get install npm")
        line = [npm, "install", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix", str(directory)]
        directory.mkdir(parents=True, exist_ok=True)
        try:
            done = subprocess.run(
                [*line, f"{package}@{_BUN}"],
                capture_output=True,
                text=True,
                timeout=_INSTALL_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise ServerMissing(f"npm took longer than {_INSTALL_SECONDS} s to install {package}") from error
        if done.returncode:
            raise ServerMissing(f"npm cannot install {package}@{_BUN}: {done.stderr.strip()[-500:]}")
    return command, f"Bun {_version(program)}"


def _version(program: Path) -> str:
    done = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=60, check=False)
    return done.stdout.strip()
