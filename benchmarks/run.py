"""Measure geventws beside other servers: every row of harness/rows.py, or some.

    python benchmarks/run.py                 everything; half an hour to an hour
    python benchmarks/run.py --quick         a glance; less than two minutes once the peers are installed
    python benchmarks/run.py --report FILE   write the report of an earlier run again

Needs Linux, a C compiler and zlib's header. README.md beside this file says how it measures.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import datetime as dt
import json
import os
import resource
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import Any

from harness import environment, generator, machine, report
from harness.processes import Absent, Process, free_port
from harness.results import summarize
from harness.rows import Row, choose
from harness.servers import SERVERS, Server, check_names

ROOT = Path(__file__).resolve().parents[1]

#: With --quick: seconds for everything but making the peers' environment. A row that is not begun
#: by then is left out, and that is told.
QUICK_SECONDS = 105.0
QUICK_IDLE = 1000

_START_SECONDS = 30.0
#: Connections beside those of the load: listener, log, what libraries open.
_SPARE_DESCRIPTORS = 200


def say(text: str) -> None:
    print(text, flush=True)


class Interrupted(SystemExit):
    """SIGTERM came: end the servers on the way out."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """How a run measures; all of it is written beside the results."""

    rounds: int
    seconds: float
    warmup: float
    quick: bool
    server_cpu: int | None
    client_cpu: int | None
    priority: bool


class Run:
    """One run: its rows one after the other, its results so far.

    Attributes:
        results: what is written to results.json.
    """

    def __init__(self, settings: Settings, program: Path, interpreters: dict[str, str | None]) -> None:
        self._settings = settings
        self._program = program
        self._interpreters = interpreters
        self._watched = {cpu for cpu in (settings.server_cpu, settings.client_cpu) if cpu is not None}
        self.results: dict[str, Any] = {
            "format": 1,
            "date": dt.datetime.now(dt.timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
            "machine": machine.describe(),
            "settings": dataclasses.asdict(settings),
            "versions": {},
            "absent": {},
            "rows": {},
        }

    def row(self, row: Row, servers: list[Server]) -> None:
        """Measure a row and print its table."""
        say(f"\n== {row.name}: {row.title}")
        samples: dict[str, list[dict[str, Any]]] = {}
        absent: dict[str, str] = {}
        self.results["rows"][row.name] = samples
        self.results["absent"][row.name] = absent
        if row.load.compress:
            for server in [server for server in servers if not server.compresses]:
                say(f"   without {server.name}, which has no permessage-deflate")
                servers = [other for other in servers if other is not server]
        if row.fresh:
            self._measure_fresh(row, servers, samples, absent)
        else:
            self._measure_together(row, servers, samples, absent)
        for name, reason in absent.items():
            say(f"!! ABSENT: {name}: {reason}")
        cells = report.cells_of(self.results, row)
        say(report.text_table(report.row_table(row, cells.values())))

    def _measure_together(
        self, row: Row, servers: list[Server], samples: dict[str, Any], absent: dict[str, str]
    ) -> None:
        """All servers up at once, taken in turn: what disturbs the machine disturbs them all alike."""
        with contextlib.ExitStack() as stack:
            started = {}
            for server in servers:
                try:
                    started[server.name] = stack.enter_context(self._start(server, row))
                except Absent as reason:
                    absent[server.name] = str(reason)
            processes = {}
            deadline = time.monotonic() + _START_SECONDS
            for name, process in started.items():
                try:
                    process.wait_ready(deadline)
                except Absent as reason:
                    absent[name] = str(reason)
                    process.stop()
                else:
                    processes[name] = process
                    samples[name] = []
            for number in range(self._settings.rounds):
                # Another one begins each round, so that none always follows the same neighbour's heat.
                names = list(processes)
                for name in names[number % max(1, len(names)) :] + names[: number % max(1, len(names))]:
                    self._measure(row, processes[name], samples[name])

    def _measure_fresh(
        self, row: Row, servers: list[Server], samples: dict[str, Any], absent: dict[str, str]
    ) -> None:
        """Each server anew for each round, alone."""
        for _ in range(self._settings.rounds):
            for server in servers:
                if server.name in absent:
                    continue
                try:
                    with self._start(server, row) as process:
                        process.wait_ready(time.monotonic() + _START_SECONDS)
                        self._measure(row, process, samples.setdefault(server.name, []))
                except Absent as reason:
                    absent[server.name] = str(reason)

    def _start(self, server: Server, row: Row) -> Process:
        interpreter = self._interpreters[server.runs_on]
        if interpreter is None:
            raise Absent(f"there is no {server.runs_on}")
        port = free_port()
        return Process(
            server.name,
            server.command(interpreter, port, compress=row.load.compress),
            port,
            environment=dict(server.environment),
            cpu=self._settings.server_cpu,
            priority=self._settings.priority,
        )

    def _measure(self, row: Row, process: Process, samples: list[dict[str, Any]]) -> None:
        if samples and samples[-1]["errors"]:
            return  # the cell is an error already
        if not process.alive:
            samples.append({"errors": 1, "first_error": f"the server ended: {process.last_words()}"})
            return
        sample = generator.measure(
            self._program,
            row.load,
            port=process.port,
            pids=process.pids(),
            seconds=self._settings.seconds,
            warmup=self._settings.warmup,
            cpu=self._settings.client_cpu,
            watched=self._watched or os.sched_getaffinity(0),
            priority=self._settings.priority,
        )
        samples.append(sample)
        if sample["errors"]:
            say(f"!! ERROR: {row.name}, {process.name}: {sample['first_error']}")

    def versions(self, servers: list[Server]) -> None:
        """Note the versions of all servers that take part."""
        for runs_on in ("ours", "peers"):
            interpreter = self._interpreters[runs_on]
            mine = [server for server in servers if server.runs_on == runs_on]
            if interpreter is None or not mine:
                continue
            packages = sorted({package for server in mine for package in server.packages})
            found = environment.versions(interpreter, packages)
            for server in mine:
                names = ("Python", *server.packages)
                self.results["versions"][server.name] = ", ".join(
                    f"{name} {found[name]}" for name in names if name in found
                )


def cpus(say_problem: bool = True) -> tuple[int | None, int | None]:
    """The CPUs for servers and for the load generator: the first two, or None where there is one."""
    usable = sorted(os.sched_getaffinity(0))
    if len(usable) >= 2:
        return usable[0], usable[1]
    if say_problem:
        say("!! only one CPU: servers and load generator share it, and the rates mean little")
    return None, None


def raise_descriptor_limit(wanted: int) -> None:
    """Let children open enough connections."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    if most < wanted:
        say(f"!! {most} descriptors a process are allowed and {wanted} wanted: large rows will be errors")


def read_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="fewer rows, rounds and servers; 1 s each")
    parser.add_argument("--rows", help="names, with commas between (default: all)")
    parser.add_argument("--servers", help="names, with commas between, or `all` (default: by row)")
    parser.add_argument("--rounds", type=int, help="of each row (default 5; --quick: 2)")
    parser.add_argument("--seconds", type=float, help="measured in each round (default 2; --quick: 1)")
    parser.add_argument("--warmup", type=float, help="seconds before that (default 0.5; --quick: 0.3)")
    parser.add_argument(
        "--work",
        type=Path,
        default=ROOT / "build" / "benchmarks",
        help="directory for the load generator and the peers' environment (default: build/benchmarks)",
    )
    parser.add_argument("--out", type=Path, help="directory for what is written (default: results in --work)")
    parser.add_argument("--python", default=sys.executable, help="an interpreter that has geventws")
    parser.add_argument(
        "--priority", action="store_true", help="before all else on this machine; for root, and rude"
    )
    parser.add_argument("--report", type=Path, help="a results.json: measure nothing, write its report")
    parser.add_argument("--list", action="store_true", help="list rows and servers")
    arguments = parser.parse_args(argv)
    quick = arguments.quick
    try:
        arguments.chosen = choose(arguments.rows.split(",") if arguments.rows else None, quick=quick)
        names = list(SERVERS) if arguments.servers == "all" else (arguments.servers or "").split(",")
        arguments.names = check_names([name for name in names if name])
    except ValueError as error:
        parser.error(str(error))
    for name, usual, hasty in (("rounds", 5, 2), ("seconds", 2.0, 1.0), ("warmup", 0.5, 0.3)):
        if getattr(arguments, name) is None:
            setattr(arguments, name, hasty if quick else usual)
    if arguments.rounds < 1 or arguments.seconds <= 0 or arguments.warmup < 0:
        parser.error("--rounds and --seconds must be positive, --warmup not negative")
    return arguments


def servers_of(row: Row, names: list[str], *, quick: bool) -> list[Server]:
    """Who takes part in a row."""
    usual = row.quick_servers or row.servers if quick else row.servers
    return [SERVERS[name] for name in SERVERS if name in (names or usual)]


def for_quick(row: Row) -> Row:
    """The row as --quick measures it."""
    if row.load.mode != "idle":
        return row
    load = dataclasses.replace(row.load, connections=QUICK_IDLE)
    return dataclasses.replace(row, load=load)


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Do a run and return its results."""
    rows: list[Row] = arguments.chosen
    servers = {row.name: servers_of(row, arguments.names, quick=arguments.quick) for row in rows}
    all_servers = [server for server in SERVERS.values() if any(server in some for some in servers.values())]
    program = generator.build(arguments.work)
    interpreters: dict[str, str | None] = {"ours": arguments.python, "node": shutil.which("node")}
    interpreters["peers"] = None
    if any(server.runs_on == "peers" for server in all_servers):
        interpreters["peers"] = environment.make(arguments.work / "peers", say)
    server_cpu, client_cpu = cpus()
    settings = Settings(
        rounds=arguments.rounds,
        seconds=arguments.seconds,
        warmup=arguments.warmup,
        quick=arguments.quick,
        server_cpu=server_cpu,
        client_cpu=client_cpu,
        priority=arguments.priority,
    )
    raise_descriptor_limit(max(row.load.connections for row in rows) + _SPARE_DESCRIPTORS)
    run = Run(settings, program, interpreters)
    run.versions(all_servers)
    start = time.monotonic()
    for row in rows:
        if arguments.quick and time.monotonic() - start > QUICK_SECONDS:
            say(f"!! NOT MEASURED: {row.name}: the {QUICK_SECONDS:g} s of --quick are over")
            continue
        run.row(for_quick(row) if arguments.quick else row, servers[row.name])
        # After each row: a run that is interrupted leaves what it has.
        save(run.results, arguments.out)
    return run.results


def save(results: dict[str, Any], directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "results.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


def outcome(results: dict[str, Any]) -> list[str]:
    """What makes a run fail: geventws with an error, or nothing measured at all."""
    problems = []
    for row in report.measured_rows(results):
        found = results["rows"].get(row.name, {})
        for name in [name for name in found if name.startswith("geventws")]:
            cell = summarize(name, found[name])
            if cell.error is not None:
                problems.append(f"{row.name}, {name}: {cell.error}")
        for name, reason in results["absent"].get(row.name, {}).items():
            if name.startswith("geventws"):
                problems.append(f"{row.name}, {name}: {reason}")
    if not any(samples for found in results["rows"].values() for samples in found.values()):
        problems.append("nothing was measured")
    return problems


def stop_on_sigterm() -> None:
    def stop(number: int, frame: object) -> None:
        raise Interrupted(128 + number)

    signal.signal(signal.SIGTERM, stop)


def main(argv: list[str] | None = None) -> int:
    arguments = read_arguments(argv)
    if arguments.list:
        say("rows\n" + "\n".join(f"  {row.name:16} {row.title}" for row in choose(None, quick=False)))
        say("servers\n" + "\n".join(f"  {name}" for name in SERVERS))
        return 0
    stop_on_sigterm()
    arguments.work = arguments.work.absolute()
    arguments.out = (arguments.out or arguments.work / "results").absolute()
    if arguments.report is not None:
        results = json.loads(arguments.report.read_text(encoding="utf-8"))
    else:
        try:
            results = measure(arguments)
        except generator.BuildError as error:
            say(f"!! {error}")
            return 2
    written = report.write(results, arguments.out)
    say("\n== goals")
    say(report.text_table(report.goals_table(report.verdicts(results))))
    say(f"\nwritten: {written[0]}, results.json and {len(written) - 1} charts beside it")
    problems = outcome(results)
    for problem in problems:
        say(f"!! FAILED: {problem}")
    return int(bool(problems))


if __name__ == "__main__":
    sys.exit(main())
