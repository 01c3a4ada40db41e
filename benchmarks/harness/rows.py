"""The rows: under which load servers are measured, which of them, and what geventws has to reach.

Nothing here starts or measures anything.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

__all__ = ["BEST_PYTHON", "QUICK_ROWS", "ROWS", "Goal", "Load", "Row", "choose"]

#: One of these is the fastest Python server beside geventws, whatever the row.
BEST_PYTHON = ("picows", "picows.websockets", "socketify", "aiohttp", "granian", "websockets")

_USUAL = ("geventws", "geventws-pure", *BEST_PYTHON, "uvicorn", "gevent-websocket")
#: Those of them that can do permessage-deflate.
_BEST_DEFLATE = ("picows.websockets", "socketify", "aiohttp", "websockets")
_DEFLATE = ("geventws", "geventws-pure", *_BEST_DEFLATE, "uvicorn")

Metric = Literal["rate", "memory"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Load:
    """What the load generator does; the names are those of its options (benchmarks/README.md)."""

    mode: Literal["echo", "handshake", "idle", "broadcast-receive"] = "echo"
    connections: int
    size: int = 32
    window: int = 1
    binary: bool = False
    compress: bool = False
    prime: int = 0
    path: str = "/"

    def arguments(self) -> list[str]:
        """The command line of the load generator."""
        line = ["--mode", self.mode, "--path", self.path, "--connections", str(self.connections)]
        line += ["--size", str(self.size), "--window", str(self.window)]
        line.append("--binary" if self.binary else "--text")
        if self.compress:
            line += ["--compress", "--payload", "json"]
        if self.prime:
            line += ["--prime", str(self.prime)]
        return line


@dataclasses.dataclass(frozen=True, kw_only=True)
class Goal:
    """What has to be reached in a row.

    Attributes:
        what: `speed`: rate and CPU per message, both at least `value` times as good as the best of
            `against`; `memory`: KiB a connection, at most `value`; `fairness`: messages of the
            connection served least over those of the one served most, at least `value`.
        value: see there.
        subject: the server it is about.
        against: the servers it is compared with; the best of them counts.
    """

    what: Literal["speed", "memory", "fairness"]
    value: float
    subject: str = "geventws"
    against: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """One row of the table.

    Attributes:
        name: for the command line and file names.
        title: for people.
        load: what is done.
        servers: who takes part, unless the command line says otherwise.
        quick_servers: who takes part with --quick.
        goals: what geventws has to reach.
        metric: what the chart shows: messages a second, or memory.
        unit: what is counted.
        fresh: start each server anew for each round, one at a time: memory that was used before is
            not given back, and would not be counted again.
    """

    name: str
    title: str
    load: Load
    servers: tuple[str, ...] = _USUAL
    quick_servers: tuple[str, ...] = ()
    goals: tuple[Goal, ...]
    metric: Metric = "rate"
    unit: str = "messages"
    fresh: bool = False


def _best(value: float) -> Goal:
    return Goal(what="speed", value=value, against=BEST_PYTHON)


ROWS = (
    Row(
        name="small",
        title="100 connections, 32 B text, ping-pong",
        load=Load(connections=100),
        quick_servers=("geventws", "geventws-pure", "picows", "aiohttp", "gevent-websocket"),
        goals=(
            _best(1.10),
            Goal(what="speed", value=1.5, subject="geventws-pure", against=("gevent-websocket",)),
        ),
    ),
    Row(
        name="latency",
        title="1 connection, 32 B text, ping-pong",
        load=Load(connections=1),
        goals=(Goal(what="speed", value=1.0, against=("picows",)),),
    ),
    Row(
        name="thousand",
        title="1000 connections, 32 B text, ping-pong",
        load=Load(connections=1000),
        goals=(_best(1.10),),
    ),
    Row(
        name="window",
        title="100 connections, 32 B text, 16 outstanding on each",
        load=Load(connections=100, window=16),
        quick_servers=("geventws", "picows", "socketify"),
        goals=(_best(6.0), Goal(what="fairness", value=0.85)),
    ),
    Row(
        name="kilobyte",
        title="100 connections, 1 KiB text, ping-pong",
        load=Load(connections=100, size=1024),
        goals=(_best(1.15),),
    ),
    Row(
        name="64k-binary",
        title="10 connections, 64 KiB binary, ping-pong",
        load=Load(connections=10, size=64 * 1024, binary=True),
        quick_servers=("geventws", "picows.websockets", "aiohttp"),
        goals=(_best(1.10),),
    ),
    Row(
        name="64k-text",
        title="10 connections, 64 KiB text, ping-pong",
        load=Load(connections=10, size=64 * 1024),
        goals=(_best(1.10),),
    ),
    Row(
        name="megabyte",
        title="4 connections, 1 MiB binary, ping-pong",
        load=Load(connections=4, size=1024 * 1024, binary=True),
        goals=(_best(1.3),),
    ),
    Row(
        name="deflate",
        title="100 connections, 1 KiB JSON, permessage-deflate, ping-pong",
        load=Load(connections=100, size=1024, compress=True),
        servers=_DEFLATE,
        quick_servers=("geventws", "aiohttp", "websockets"),
        goals=(Goal(what="speed", value=1.5, against=_BEST_DEFLATE),),
    ),
    Row(
        name="handshakes",
        title="opening and closing handshakes, 100 at a time",
        load=Load(mode="handshake", connections=100),
        quick_servers=("geventws", "aiohttp", "granian"),
        goals=(_best(1.0),),
        unit="handshakes",
    ),
    Row(
        name="broadcast",
        title="broadcast of 32 B text from 1 to 1000 connections",
        load=Load(mode="broadcast-receive", connections=1000, path="/broadcast"),
        goals=(_best(1.10),),
        unit="deliveries",
    ),
    Row(
        name="memory",
        title="memory of an idle connection",
        load=Load(mode="idle", connections=5000),
        quick_servers=("geventws", "aiohttp"),
        goals=(Goal(what="memory", value=10.0),),
        metric="memory",
        fresh=True,
    ),
    Row(
        name="memory-deflate",
        title="memory of an idle connection with permessage-deflate, used once",
        load=Load(mode="idle", connections=5000, size=1024, compress=True, prime=1),
        servers=_DEFLATE,
        goals=(Goal(what="memory", value=28.0),),
        metric="memory",
        fresh=True,
    ),
)

#: Rows of --quick, the first ones first where the time does not do for all.
QUICK_ROWS = tuple(row.name for row in ROWS if row.quick_servers)


def choose(names: list[str] | None, *, quick: bool) -> list[Row]:
    """The rows of a run, in the order of the table.

    Raises:
        ValueError: for a name that no row has.
    """
    if names is None:
        names = list(QUICK_ROWS if quick else (row.name for row in ROWS))
    unknown = set(names) - {row.name for row in ROWS}
    if unknown:
        known = ", ".join(row.name for row in ROWS)
        raise ValueError(f"no row is named {', '.join(sorted(unknown))}; there are {known}")
    return [row for row in ROWS if row.name in names]
