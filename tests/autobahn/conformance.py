#!/usr/bin/env python3
"""Run the official Autobahn|Testsuite against geventws and compare each case with expected.json.

For each hosting mode a server is started as a process of its own, the suite's fuzzing client is run
against it a group of cases at a time, and the server is stopped with SIGTERM. In the modes of the client it
is the other way round: a client of ours goes through the cases of the suite's fuzzing server. The run fails
when any verdict differs from the committed one in either direction, when a case is missing or new, and when
the server or client under test does not end with status 0 or writes a traceback.

A case that differs is run again alone, up to twice, before it counts: the suite's timers are as
short as half a second, which a busy machine can miss. The output says so.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.metadata
import importlib.util
import json
import os
import pathlib
import platform
import re
import shutil
import signal
import subprocess
import sys
import time

import run
import translate
import verdicts
from children import READY_TIMEOUT, TRACEBACK, Child, Deadline, OutOfTime, Server, ServerLost
from verdicts import Outcome, Verdict

HERE = pathlib.Path(__file__).resolve().parent
NEEDED = ("twisted", "txaio", "autobahn")

# Seconds.
MODE_TIMEOUT = 900
FULL_TIMEOUT = 3600  # with groups 12 and 13
STALL_TIMEOUT = 150  # without the end of a case; the suite's own timers end nearly all within 120
TOOL_TIMEOUT = 300

RERUNS = 2
# More differences than this are no stall of the machine.
MAX_RERUN_CASES = 20


READY = r"^listening on ws://(?P<address>\S+)$"


@dataclasses.dataclass(frozen=True)
class Mode:
    """How to start what is tested: the arguments to Python, the build it must run; for a server the line that
    gives its address, for a client that it is one."""

    command: tuple[str, ...]
    build: str
    ready: str = READY
    client: bool = False


ECHO = ("-m", "geventws", "echo", "--port", "0", "--compression")
ECHO += ("--max-message-size", "none", "--max-fragments", "none")

ECHO_CLIENT = (str(HERE / "echo_client.py"),)
GUNICORN = ("-m", "gunicorn", "-k", "gevent", "-b", "127.0.0.1:0", "--no-control-socket")
GUNICORN += ("--chdir", str(HERE), "flask_echo:app")

MODES = {
    "standalone-compiled": Mode(ECHO, "compiled"),
    "standalone-pure": Mode(ECHO, "pure"),
    "client-compiled": Mode(ECHO_CLIENT, "compiled", client=True),
    "client-pure": Mode(ECHO_CLIENT, "pure", client=True),
    "flask-pywsgi": Mode((str(HERE / "flask_echo.py"),), "compiled"),
    "flask-gunicorn": Mode(GUNICORN, "compiled", r"Listening at: http://(?P<address>\S+)"),
}


def say(*words: object) -> None:
    print(*words, flush=True)


def tool(*arguments: object) -> str:
    """Run a command to its end and return its standard output."""
    command = [sys.executable, *map(str, arguments)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=TOOL_TIMEOUT)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} ended with status {done.returncode}")
    return done.stdout


class ModeRun:
    """All the cases against one mode's server."""

    def __init__(
        self,
        name: str,
        expected: dict[str, Verdict],
        *,
        suite: pathlib.Path,
        out: pathlib.Path,
        timeout: float,
    ) -> None:
        self.name = name
        self.mode = MODES[name]
        self.suite = suite
        self.out = out
        self.deadline = Deadline(timeout)
        self.outcome = Outcome(name, expected=expected)
        self.result_files: list[pathlib.Path] = []
        self.environ = {k: v for k, v in os.environ.items() if k != "GEVENTWS_PURE_PYTHON"}
        if self.mode.build == "pure":
            self.environ["GEVENTWS_PURE_PYTHON"] = "1"

    def say(self, *words: object) -> None:
        say(f"{self.name}:", *words)

    def check_build(self) -> bool:
        """Ask geventws which build it runs; a mode whose build is not there must not count as run."""
        command = [sys.executable, "-m", "geventws", "--version"]
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=READY_TIMEOUT, env=self.environ, cwd=self.out
        )
        self.outcome.version = " ".join(done.stdout.split())
        found = re.findall(r"\b(compiled|pure)\b", done.stdout)
        if found == [self.mode.build]:
            return True
        required = os.environ.get("GEVENTWS_BUILD_EXTENSION", "").lower() == "yes"
        if self.mode.build == "compiled" and found == ["pure"] and not required:
            self.outcome.skipped = "this geventws has no compiled modules"
            return False
        told = done.stderr.strip().splitlines()[-1:] or [self.outcome.version or "nothing"]
        self.outcome.faults.append(f"geventws --version should say {self.mode.build}, but says: {told[0]}")
        return False

    def run(self) -> Outcome:
        if not self.check_build():
            return self.outcome
        self.say(self.outcome.version)
        # The output directory as working directory: `-m geventws` must find the installed package, not a
        # checkout that lies where the run was started.
        command = [sys.executable, *self.mode.command]
        log = self.out / f"server-{self.name}.log"
        with Server(command, log, ready=self.mode.ready, cwd=self.out, env=self.environ) as server:
            try:
                address = server.address()
                for chunk, cases in verdicts.chunks(self.outcome.expected).items():
                    started = time.monotonic()
                    self.cases(server, address, cases, chunk)
                    self.say(f"group {chunk}: {len(cases)} cases in {time.monotonic() - started:.1f} s")
                self.run_again(server, address)
            except (OutOfTime, ServerLost) as error:
                self.outcome.faults.append(str(error))
            finally:
                for fault in server.stop():
                    # A server lost on the way has been told already.
                    if fault not in self.outcome.faults:
                        self.outcome.faults.append(fault)
        return self.outcome

    def cases(self, server: Server, address: str, cases: list[str], label: str) -> None:
        """Run cases with the suite; what has ended is kept even when this raises.

        Raises:
            OutOfTime: the mode's deadline has passed.
            ServerLost: the server has ended.
        """
        stem = f"{self.name}-{label}"
        results = self.out / "results" / f"{stem}.pickle"
        results.touch()
        self.result_files.append(results)
        spec = {
            "outdir": str(self.out),
            "servers": [{"agent": self.name, "url": f"ws://{address}"}],
            "cases": cases,
            "exclude-cases": [],
        }
        spec_file = self.out / "results" / f"{stem}.json"
        spec_file.write_text(json.dumps(spec))
        command = [
            sys.executable,
            str(HERE / "run.py"),
            str(self.suite),
            "client",
            str(spec_file),
            str(results),
        ]
        try:
            with Child(command, self.out / "results" / f"{stem}.log") as suite:
                self.watch(suite, server, results)
                status = suite.process.poll()
        finally:
            self.outcome.results.update({result["id"]: result for result in run.read_results(results)})
        if status:
            self.outcome.faults.append(f"the suite ended with status {status} in {stem}: see {suite.log}")
        if TRACEBACK in suite.text():
            self.outcome.faults.append(f"the suite wrote a traceback in {stem}: see {suite.log}")

    def watch(self, suite: Child, server: Server, results: pathlib.Path) -> None:
        """Wait for the end of the suite, or for the reason to end it."""
        size, stall = 0, Deadline(STALL_TIMEOUT)

        def ended() -> bool:
            nonlocal size, stall
            if suite.process.poll() is not None:
                return True
            if server.process.poll() is not None:
                raise ServerLost(server.end())
            if (now := results.stat().st_size) != size:
                size, stall = now, Deadline(STALL_TIMEOUT)
            if not stall.remaining():
                self.say(f"no case ended for {STALL_TIMEOUT} s: the suite is stopped in {results.stem}")
                return True
            return False

        suite.wait_until(ended, self.deadline)

    def run_again(self, *target: object) -> None:
        """Run the cases that differ again, each alone; `target` is what `cases` takes first."""
        differences = self.outcome.differences()
        if len(differences) > MAX_RERUN_CASES:
            self.say(f"{len(differences)} cases differ: too many to be run again")
            return
        for case in differences:
            self.outcome.reruns[case] = [self.outcome.verdict(case)]
            for attempt in range(1, RERUNS + 1):
                self.outcome.results.pop(case, None)
                self.cases(*target, [case], f"{case}-again-{attempt}")
                verdict = self.outcome.verdict(case)
                self.outcome.reruns[case].append(verdict)
                if verdict == self.outcome.expected.get(case):
                    break
                if verdict == verdicts.MISSING:
                    self.say(f"case {case} does not end: no more cases are run again")
                    return
            self.say(verdicts.rerun_line(self.outcome, case))


class ClientRun(ModeRun):
    """The suite's server, and all its cases with our client."""

    def run(self) -> Outcome:
        if not self.check_build():
            return self.outcome
        self.say(self.outcome.version)
        try:
            for chunk, cases in verdicts.chunks(self.outcome.expected).items():
                started = time.monotonic()
                self.cases(cases, chunk)
                self.say(f"group {chunk}: {len(cases)} cases in {time.monotonic() - started:.1f} s")
            self.run_again()
        except (OutOfTime, ServerLost) as error:
            self.outcome.faults.append(str(error))
        return self.outcome

    def cases(self, cases: list[str], label: str) -> None:  # type: ignore[override]
        """Run cases; what has ended is kept even when this raises.

        Raises:
            OutOfTime: the mode's deadline has passed.
            ServerLost: the suite has ended.
        """
        stem = f"{self.name}-{label}"
        results = self.out / "results" / f"{stem}.pickle"
        results.touch()
        self.result_files.append(results)
        spec = {"outdir": str(self.out), "cases": cases, "exclude-cases": [], "exclude-agent-cases": {}}
        spec_file = self.out / "results" / f"{stem}.json"
        spec_file.write_text(json.dumps(spec))
        suite_command = [sys.executable, str(HERE / "run.py"), str(self.suite), "server"]
        suite_command += [str(spec_file), str(results)]
        log = self.out / "results" / f"{stem}.log"
        try:
            with Server(suite_command, log, ready=READY, cwd=self.out, env=self.environ) as suite:
                command = [sys.executable, *self.mode.command, suite.address(), self.name, str(len(cases))]
                with Child(
                    command, self.out / f"client-{stem}.log", cwd=self.out, env=self.environ
                ) as client:
                    self.watch(client, suite, results)
                    status = client.process.poll()
        finally:
            self.outcome.results.update({result["id"]: result for result in run.read_results(results)})
        if status:
            self.outcome.faults.append(f"the client ended with status {status} in {stem}: see {client.log}")
        if TRACEBACK in client.text():
            self.outcome.faults.append(f"the client wrote a traceback in {stem}: see {client.log}")
        if TRACEBACK in suite.text():
            self.outcome.faults.append(f"the suite wrote a traceback in {stem}: see {suite.log}")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--cases",
        default="quick",
        metavar="WHICH",
        help="quick: all but groups 12 and 13 (default); full: all; or cases and groups: 2.9,7,12.1",
    )
    parser.add_argument(
        "--mode",
        action="append",
        choices=MODES,
        help="what is tested, and how it is hosted; repeatable (default: all)",
    )
    parser.add_argument(
        "--full", action="append", choices=MODES, default=[], help="run all cases in this mode; repeatable"
    )
    parser.add_argument(
        "--out",
        type=pathlib.Path,
        default=pathlib.Path("build/autobahn"),
        metavar="DIR",
        help="for the HTML report, the summary and the logs; emptied first (default: %(default)s)",
    )
    parser.add_argument(
        "--suite",
        type=pathlib.Path,
        default=pathlib.Path(sys.prefix) / "autobahn-suite",
        metavar="DIR",
        help="where the translated suite is kept (default: %(default)s)",
    )
    parser.add_argument(
        "--timeout",
        type=float,
        metavar="SECONDS",
        help=f"limit for each mode (default: {MODE_TIMEOUT}, with groups 12 and 13 {FULL_TIMEOUT})",
    )
    parser.add_argument(
        "--write-summary",
        type=pathlib.Path,
        metavar="FILE",
        help="write the summary here too, if all is as expected and nothing was left out",
    )
    return parser.parse_args()


def prepare_out(out: pathlib.Path) -> None:
    """Make the output directory, empty; one that holds other things is left alone."""
    marker = out / "autobahn-report"
    if out.exists() and any(out.iterdir()) and not marker.exists():
        raise SystemExit(f"{out} is not empty and not the report of an earlier run: give another --out")
    shutil.rmtree(out, ignore_errors=True)
    (out / "results").mkdir(parents=True)
    marker.touch()


def own_command() -> str:
    environment = os.environ.get("TOX_ENV_NAME")
    return (
        f"tox -e {environment}"
        if environment
        else f"python tests/autobahn/conformance.py {' '.join(sys.argv[1:])}"
    )


def main() -> int:
    options = arguments()
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise SystemExit(f"not installed: {', '.join(missing)}: pip install -r {HERE / 'requirements.txt'}")
    expected = {case: tuple(pair) for case, pair in json.loads((HERE / "expected.json").read_text()).items()}
    try:
        chosen = verdicts.select(expected, options.cases)
    except ValueError as error:
        raise SystemExit(str(error)) from None
    # Resolved: the server runs in the output directory.
    out, suite = options.out.resolve(), options.suite.resolve()
    prepare_out(out)

    if translate.build_once(suite):
        say(f"translated Autobahn|Testsuite {translate.VERSION} into {suite}")
    catalogue = json.loads(tool(HERE / "run.py", suite, "list"))
    errors = verdicts.catalogue_errors(expected, catalogue["cases"])
    for error in errors:
        say(error)

    outcomes, result_files = [], []
    for name in options.mode or MODES:
        cases = expected if name in options.full else chosen
        timeout = options.timeout or (FULL_TIMEOUT if verdicts.slow(cases) else MODE_TIMEOUT)
        kind = ClientRun if MODES[name].client else ModeRun
        mode_run = kind(name, cases, suite=suite, out=out, timeout=timeout)
        outcomes.append(mode_run.run())
        result_files += mode_run.result_files
    tool(HERE / "run.py", suite, "report", out, *result_files)

    failed = len(errors) + sum(outcome.failed() for outcome in outcomes if not outcome.skipped)
    passed = sum(outcome.passed() for outcome in outcomes if not outcome.skipped)
    versions = {
        "Autobahn|Testsuite": catalogue["suite"],
        platform.python_implementation(): platform.python_version(),
        "gevent": importlib.metadata.version("gevent"),
    }
    text = verdicts.summary(outcomes, versions=versions, groups=catalogue["groups"], command=own_command())
    (out / "summary.md").write_text(text)
    if not passed:
        failed += 1
        say("nothing has run")
    for outcome in outcomes:
        if outcome.skipped:
            say(f"{'*' * 79}\nautobahn {outcome.mode}: SKIPPED: {outcome.skipped}\n{'*' * 79}")
            continue
        for line in [*verdicts.difference_lines(outcome), *outcome.faults]:
            say(f"{outcome.mode}: {line}")
        say(verdicts.closing_line(outcome))
    say(f"report: {out / 'index.html'}, summary: {out / 'summary.md'}")
    if options.write_summary:
        partial = options.cases not in ("quick", "full") or any(outcome.skipped for outcome in outcomes)
        if failed or partial:
            say(f"{options.write_summary} is left as it was")
        else:
            options.write_summary.parent.mkdir(exist_ok=True)
            options.write_summary.write_text(text)
    say(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


def on_signal(number: int, frame: object) -> None:
    raise SystemExit(128 + number)


if __name__ == "__main__":
    # An exception unwinds the `with` blocks that end the children.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, on_signal)
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("interrupted")
    except subprocess.SubprocessError as error:
        sys.exit(str(error))
