"""Measure the client of geventws beside others: every row of harness/clients.py, or some.

    python benchmarks/run_clients.py                 everything; a quarter of an hour
    python benchmarks/run_clients.py --quick         a glance; a minute once all is installed
    python benchmarks/run_clients.py --report FILE   write the report of an earlier run again

Needs Linux and npm, for the server. README.md beside this file says how it measures.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from harness import clients, environment, generator, machine, report
from harness.clients import CLIENTS
from harness.processes import Absent, Process, free_port
from harness.results import judge
from harness.rows import Row
from run import ROOT, cpus, raise_descriptor_limit, save, say, stop_on_sigterm

_START_SECONDS = 30.0
#: Seconds for a client to start, open what it needs and end, besides its times.
_SPARE_SECONDS = 90.0
_SPARE_DESCRIPTORS = 200


class Run:
    """One run: its rows one after the other, its results so far.

    Attributes:
        results: what is written to results.json.
    """

    def __init__(self, arguments: argparse.Namespace, server: Process, python: dict[str, str]) -> None:
        self._arguments = arguments
        self._server = server
        self._python = python
        self._server_cpu, self._client_cpu = cpus()
        self._watched = {cpu for cpu in (self._server_cpu, self._client_cpu) if cpu is not None}
        self.results: dict[str, Any] = {
            "format": 1,
            "date": dt.datetime.now(dt.timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
            "machine": machine.describe(),
            "settings": {
                "rounds": arguments.rounds,
                "seconds": arguments.seconds,
                "warmup": arguments.warmup,
                "quick": arguments.quick,
                "priority": arguments.priority,
                "server_cpu": self._server_cpu,
                "client_cpu": self._client_cpu,
            },
            "server": server.name,
            "versions": {},
            "absent": {},
            "rows": {},
        }

    def row(self, row: Row, names: list[str]) -> None:
        """Measure a row and print its table."""
        say(f"\n== {row.name}: {row.title}")
        samples: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
        self.results["rows"][row.name] = samples
        for number in range(self._arguments.rounds):
            # Another one begins each round, so that none always follows the same neighbour's heat.
            for name in names[number % len(names) :] + names[: number % len(names)]:
                self._measure(row, name, samples[name])
        say(report.text_table(table(row, self.results)))

    def _measure(self, row: Row, name: str, samples: list[dict[str, Any]]) -> None:
        if samples and samples[-1]["errors"]:
            return  # the cell is an error already
        client, arguments, pids = CLIENTS[name], self._arguments, self._server.pids()
        line = client.command(self._python[client.runs_on], row.load, port=self._server.port, pids=pids)
        line += ["--seconds", str(arguments.seconds), "--warmup", str(arguments.warmup)]
        printed = generator.run(
            line,
            limit=arguments.seconds + arguments.warmup + _SPARE_SECONDS,
            pids=pids,
            cpu=self._client_cpu,
            watched=self._watched or os.sched_getaffinity(0),
            priority=arguments.priority,
            name=name,
            environment=dict(client.environment),
        )
        samples.append(clients.sample_of(printed, row))
        if samples[-1]["errors"]:
            say(f"!! ERROR: {row.name}, {name}: {samples[-1]['first_error']}")

    def versions(self, names: list[str]) -> None:
        """Note the versions of all clients that take part."""
        for name in names:
            client = CLIENTS[name]
            found = environment.versions(self._python[client.runs_on], list(client.packages))
            self.results["versions"][name] = ", ".join(f"{key} {version}" for key, version in found.items())


def measured_rows(results: dict[str, Any]) -> list[Row]:
    """The rows that a run has something of."""
    return [row for row in clients.ROWS if row.name in results["rows"]]


def table(row: Row, results: dict[str, Any]) -> list[list[str]]:
    """A row as a table."""
    head, *body = report.row_table(row, report.cells_of(results, row).values())
    names = {"server": "client", "generator": "of a CPU for the server"}
    lines = [[names.get(cell, cell) for cell in head], *body]
    # Latency is not measured: the clock would be a part of each round trip.
    used = [column for column in range(len(head)) if any(line[column] for line in body)]
    return [[line[column] for column in used] for line in lines]


def goals(results: dict[str, Any]) -> list[list[str]]:
    """What became of the goals, as a table."""
    found = [
        judge(row, goal, report.cells_of(results, row))
        for row in measured_rows(results)
        for goal in row.goals
    ]
    head, *body = report.goals_table(found)
    # Notes speak of the load generator, and here stands a server.
    return [[cell.replace("server", "client") for cell in head], *(
        [cell.replace("load generator", "server").replace("best Python server", "best of the others")
         for cell in line] for line in body
    )]  # fmt: skip


def markdown(results: dict[str, Any]) -> str:
    """The whole report."""
    settings = results["settings"]
    how = (
        f"Written by `benchmarks/run_clients.py` on {results['date']}. One server, {results['server']}, "
        f"on CPU {settings['server_cpu']}; the clients on CPU {settings['client_cpu']}, one at a time and "
        f"taken in turn, each time a process of its own; medians of {settings['rounds']} rounds of "
        f"{settings['seconds']:g} s behind a warm-up of {settings['warmup']:g} s. CPU is the client's time "
        "for each round trip or connection: where the server has no CPU left (the last column) it is what "
        "counts, and the rates say nothing. Ratios hold from machine to machine, the figures do not."
    )
    parts = ["# Clients, measured side by side", how]
    if settings["quick"]:
        parts.append("**A quick run: few rows, rounds and clients. Not for comparing releases.**")
    parts += ["## Goals", report.markdown_table(goals(results))]
    for row in measured_rows(results):
        parts += [f"## {row.title}", f"![{row.title}]({row.name}.svg)"]
        parts.append(report.markdown_table(table(row, results)))
    parts += ["## Machine", report.markdown_table([["", ""], *map(list, results["machine"].items())])]
    versions = [["client", "versions"], *map(list, results["versions"].items())]
    parts += ["## Versions", report.markdown_table(versions)]
    return "\n\n".join(parts) + "\n"


def write(results: dict[str, Any], directory: Path) -> list[Path]:
    """Write `clients.md` and the charts; return their paths."""
    directory.mkdir(parents=True, exist_ok=True)
    written = [directory / "clients.md"]
    written[0].write_text(markdown(results), encoding="utf-8")
    for row in measured_rows(results):
        cells = report.cells_of(results, row)
        written += [report.write_chart(row, cells, directory)]
    return written


def read_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="fewer rows, rounds and clients; 1 s each")
    parser.add_argument("--rows", help="names, with commas between (default: all)")
    parser.add_argument("--clients", help="names, with commas between (default: all, or those of --quick)")
    parser.add_argument("--rounds", type=int, help="of each row (default 5; --quick: 2)")
    parser.add_argument("--seconds", type=float, default=1.0, help="measured in each round (default 1)")
    parser.add_argument("--warmup", type=float, default=0.3, help="seconds before that (default 0.3)")
    parser.add_argument(
        "--work",
        type=Path,
        default=ROOT / "build" / "benchmarks",
        help="directory for the server and the peers' environment (default: build/benchmarks)",
    )
    parser.add_argument("--out", type=Path, help="directory for what is written (default: results in --work)")
    parser.add_argument("--python", default=sys.executable, help="an interpreter that has geventws")
    parser.add_argument(
        "--priority", action="store_true", help="before all else on this machine; for root, and rude"
    )
    parser.add_argument("--report", type=Path, help="a results.json: measure nothing, write its report")
    parser.add_argument("--list", action="store_true", help="list rows and clients")
    arguments = parser.parse_args(argv)
    if arguments.rounds is None:
        arguments.rounds = 2 if arguments.quick else 5
    if arguments.rounds < 1 or arguments.seconds <= 0 or arguments.warmup < 0:
        parser.error("--rounds and --seconds must be positive, --warmup not negative")
    arguments.names = arguments.clients.split(",") if arguments.clients else None
    unknown = set(arguments.names or ()) - CLIENTS.keys()
    if unknown:
        parser.error(f"no client is named {', '.join(sorted(unknown))}; there are {', '.join(CLIENTS)}")
    try:
        arguments.chosen = clients.choose(
            arguments.rows.split(",") if arguments.rows else None, quick=arguments.quick
        )
    except ValueError as error:
        parser.error(str(error))
    return arguments


def clients_of(row: Row, arguments: argparse.Namespace) -> list[str]:
    """Who takes part in a row."""
    usual = row.quick_servers or row.servers if arguments.quick else row.servers
    return [name for name in CLIENTS if name in (arguments.names or usual)]


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Do a run and return its results."""
    command, version = clients.install_server(arguments.work / "bun")
    rows: list[Row] = arguments.chosen
    wanted = {name for row in rows for name in clients_of(row, arguments)}
    python = {"ours": arguments.python}
    if any(CLIENTS[name].runs_on == "peers" for name in wanted):
        python["peers"] = environment.make(arguments.work / "peers", say)
    # The connections of a row, of those that are ended without a Close and of those that come next.
    raise_descriptor_limit(3 * max(row.load.connections for row in rows) + _SPARE_DESCRIPTORS)
    port = free_port()
    cpu = cpus(say_problem=False)[0]
    with Process(
        version, [*command, str(port)], port, environment={}, cpu=cpu, priority=arguments.priority
    ) as server:
        server.wait_ready(time.monotonic() + _START_SECONDS)
        run = Run(arguments, server, python)
        run.versions([name for name in CLIENTS if name in wanted])
        for row in rows:
            run.row(row, clients_of(row, arguments))
            # After each row: a run that is interrupted leaves what it has.
            save(run.results, arguments.out)
    return run.results


def outcome(results: dict[str, Any]) -> list[str]:
    """What makes a run fail: geventws with an error, or nothing measured at all."""
    problems = [
        f"{row.name}, {name}: {cell.error}"
        for row in measured_rows(results)
        for name, cell in report.cells_of(results, row).items()
        if name.startswith("geventws") and cell.error is not None
    ]
    if not any(samples for found in results["rows"].values() for samples in found.values()):
        problems.append("nothing was measured")
    return problems


def main(argv: list[str] | None = None) -> int:
    arguments = read_arguments(argv)
    if arguments.list:
        say("rows\n" + "\n".join(f"  {row.name:16} {row.title}" for row in clients.ROWS))
        say("clients\n" + "\n".join(f"  {name}" for name in CLIENTS))
        return 0
    stop_on_sigterm()
    arguments.work = arguments.work.absolute()
    arguments.out = (arguments.out or arguments.work / "clients").absolute()
    if arguments.report is not None:
        results = json.loads(arguments.report.read_text(encoding="utf-8"))
    else:
        try:
            results = measure(arguments)
        except (clients.ServerMissing, Absent) as error:
            say(f"!! {error}")
            return 2
    say("\n== goals")
    say(report.text_table(goals(results)))
    say("\nwritten: " + ", ".join(str(path) for path in write(results, arguments.out)))
    problems = outcome(results)
    for problem in problems:
        say(f"!! {problem}")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
