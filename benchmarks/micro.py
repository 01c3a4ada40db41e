"""Time pieces of the protocol core: decode, encode, unmask; compiled and pure, side by side.

    python benchmarks/micro.py
    python benchmarks/micro.py --only decode --json

Nanoseconds for each message, the least of several repetitions: what disturbs only ever adds.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import subprocess
import sys
import timeit

from harness.workloads import WORKLOADS

_CHILD_SECONDS = 600


def time_workloads(only: str, repeat: int, seconds: float) -> dict[str, float]:
    """Nanoseconds of each workload in this process's build."""
    found = {}
    gc.disable()
    for workload in WORKLOADS:
        if only not in workload.name:
            continue
        timer = timeit.Timer(workload.make())
        count, taken = timer.autorange()
        count = max(1, int(count * seconds / taken))
        found[workload.name] = min(timer.repeat(repeat, count)) / count / workload.per_call * 1e9
    return found


def run_build(build: str, arguments: argparse.Namespace) -> dict[str, float] | None:
    """Time one build in a process of its own; None where it is not installed."""
    environment = {**os.environ, "GEVENTWS_PURE_PYTHON": "1" if build == "pure" else ""}
    script = "import geventws; print(geventws.IMPLEMENTATION)"
    line = [sys.executable, "-c", script]
    found = subprocess.run(
        line, env=environment, stdout=subprocess.PIPE, text=True, timeout=60, check=True, cwd="/"
    )
    if found.stdout.strip() != build:
        print(f"!! ABSENT: the {build} build of geventws is not installed", flush=True)
        return None
    line = [sys.executable, __file__, "--child", "--only", arguments.only]
    line += ["--repeat", str(arguments.repeat), "--seconds", str(arguments.seconds)]
    done = subprocess.run(
        line, env=environment, stdout=subprocess.PIPE, text=True, timeout=_CHILD_SECONDS, check=True
    )
    times: dict[str, float] = json.loads(done.stdout)
    return times


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="", help="those with this in their name")
    parser.add_argument("--repeat", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=0.05, help="of each repetition")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if arguments.child:
        print(json.dumps(time_workloads(arguments.only, arguments.repeat, arguments.seconds)))
        return 0
    times = {build: run_build(build, arguments) for build in ("compiled", "pure")}
    if arguments.json:
        print(json.dumps(times, indent=1))
        return 0
    print(f"{'ns each':36}{'compiled':>12}{'pure':>12}{'ratio':>8}")
    for workload in WORKLOADS:
        if arguments.only not in workload.name:
            continue
        values = [(times[build] or {}).get(workload.name) for build in ("compiled", "pure")]
        cells = "".join(f"{'-' if value is None else format(value, ',.0f'):>12}" for value in values)
        ratio = f"{values[1] / values[0]:8.1f}" if None not in values else ""
        print(f"{workload.name:36}{cells}{ratio}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
