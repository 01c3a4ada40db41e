"""Count the instructions of pieces of the protocol core, and compare with those committed.

    python benchmarks/instructions.py             compare; status 1 where one needs more than before
    python benchmarks/instructions.py --update    write what was counted into instructions.json

Counted by valgrind's callgrind: the same on a busy machine as on a quiet one, and unlike time it can
be compared from one week to the next. It depends on Python and processor, so that the committed
file has a section for each; a machine that has none, or no valgrind, is told so and skipped. Two
builds of one Python version differ as well: beside counts of another build nothing fails.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from harness.workloads import WORKLOADS

COMMITTED = Path(__file__).with_name("instructions.json")

#: What a build or a libc of another day may do without anybody having changed anything.
TOLERANCE = 0.05

#: Callgrind writes its counts so far, and starts at 0, before each call of this function of libc.
#: Nothing here calls it but `count`, through `os.getpgrp`.
_MARK = "getpgrp"
_WARM_UP = 20
_CHILD_SECONDS = 600


class CannotCount(Exception):
    """Why nothing can be counted here."""


def section() -> str:
    """The part of the committed file that is about this Python on this processor."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    return f"{sys.implementation.name}-{version}-{platform.machine()}"


def run_workloads() -> None:
    """Under callgrind: each workload between two marks."""
    gc.disable()
    for workload in WORKLOADS:
        step = workload.make()
        for _ in range(_WARM_UP):
            step()
        os.getpgrp()
        for _ in range(workload.calls):
            step()
        os.getpgrp()


def count(build: str) -> dict[str, int] | None:
    """Instructions of each workload for each message; None where the build is not installed.

    Raises:
        CannotCount: if there is no valgrind, or it did not work.
    """
    valgrind = shutil.which("valgrind")
    if valgrind is None:
        raise CannotCount("there is no valgrind; on Debian: apt-get install valgrind")
    environment = {
        **os.environ,
        "GEVENTWS_PURE_PYTHON": "1" if build == "pure" else "",
        "PYTHONHASHSEED": "0",
    }
    script = "import geventws; print(geventws.IMPLEMENTATION)"
    line = [sys.executable, "-c", script]
    found = subprocess.run(
        line, env=environment, stdout=subprocess.PIPE, text=True, timeout=60, check=True, cwd="/"
    )
    if found.stdout.strip() != build:
        return None
    with tempfile.TemporaryDirectory() as directory:
        out = Path(directory) / "out"
        line = [valgrind, "--tool=callgrind", f"--dump-before={_MARK}", f"--callgrind-out-file={out}"]
        line += [sys.executable, "-s", __file__, "--child"]
        done = subprocess.run(
            line, env=environment, capture_output=True, text=True, timeout=_CHILD_SECONDS, check=False
        )
        if done.returncode:
            raise CannotCount(f"valgrind failed:\n{done.stderr[-1000:]}")
        # out.1 is all before the first mark, out.2 the first workload, out.3 the way to the second one.
        totals = [
            read_total(Path(f"{out}.{2 * number + 2}").read_text(encoding="utf-8", errors="replace"))
            for number in range(len(WORKLOADS))
        ]
    return {
        workload.name: round(total / workload.calls / workload.per_call)
        for workload, total in zip(WORKLOADS, totals, strict=True)
    }


def read_total(dump: str) -> int:
    """The sum of all instructions in one dump of callgrind.

    Raises:
        CannotCount: if it holds none.
    """
    found = re.search(r"^totals: (\d+)$", dump, re.MULTILINE)
    if found is None:
        raise CannotCount("a dump of callgrind without totals")
    return int(found[1])


def compare(counted: dict[str, int], committed: dict[str, int], tolerance: float) -> list[tuple[str, str]]:
    """Pair each name with `as before`, `more`, `less`, `new`, or `gone` where it was not counted."""
    found = []
    for name, value in counted.items():
        before = committed.get(name)
        if before is None:
            status = "new"
        elif value > before * (1 + tolerance):
            status = "more"
        elif value < before * (1 - tolerance):
            status = "less"
        else:
            status = "as before"
        found.append((name, status))
    return found + [(name, "gone") for name in committed if name not in counted]


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--update", action="store_true", help="write what was counted")
    parser.add_argument("--tolerance", type=float, default=TOLERANCE, help="default %(default)s")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if arguments.child:
        run_workloads()
        return 0
    everything = json.loads(COMMITTED.read_text(encoding="utf-8")) if COMMITTED.exists() else {}
    committed = everything.get(section(), {})
    if not committed and not arguments.update:
        print(f"!! SKIPPED: {COMMITTED.name} has no counts for {section()}; --update adds them")
        return 0
    same = committed.get("python") == sys.version
    if committed and not same:
        print(f"!! NOT COMPARABLE, nothing fails: counted with Python {committed.get('python')}")
        print(f"!! and this is Python {sys.version}")
    failed = False
    for build in ("compiled", "pure"):
        try:
            counted = count(build)
        except CannotCount as reason:
            print(f"!! SKIPPED: {reason}")
            return int(arguments.update)
        if counted is None:
            print(f"!! SKIPPED: the {build} build of geventws is not installed")
            continue
        before = committed.get(build, {})
        print(f"{build + ', instructions each':36}{'committed':>12}{'now':>12}")
        for name, status in compare(counted, before, arguments.tolerance):
            old, new = before.get(name, "-"), counted.get(name, "-")
            print(f"{name:36}{old:>12}{new:>12}  {'' if status == 'as before' else status}")
            failed |= status in ("more", "gone", "new")
        everything.setdefault(section(), {})[build] = counted
    everything.setdefault(section(), {})["python"] = sys.version
    if arguments.update:
        COMMITTED.write_text(json.dumps(everything, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        return 0
    failed = failed and same
    if failed:
        print("!! FAILED: if that is meant, run it with --update and say why in the commit")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
