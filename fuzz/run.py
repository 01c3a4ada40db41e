"""Fuzz targets, one after the other: `python fuzz/run.py --help`.

Two drivers. `atheris` is libFuzzer: coverage-guided, over the pure Python sources, and asks everybody. `fast`
mutates at random, asks the build under test alone, and everybody for each new kind of input and for one
of `--every`.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "tests"))

import drivers  # noqa: E402
import targets  # noqa: E402


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("targets", nargs="*", metavar="target", help=f"of {', '.join(targets.names())}")
    parser.add_argument("--driver", choices=("atheris", "fast", "both"), default="both")
    parser.add_argument("--seconds", type=float, help="for each target and driver (default 15)")
    parser.add_argument("--runs", type=int, help="executions for each target and driver, instead")
    parser.add_argument("--seed", type=int, default=1, help="of the drivers (default 1)")
    parser.add_argument(
        "--every", type=int, default=50, help="fast: everybody is asked once in so many (default 50)"
    )
    parser.add_argument("--work", type=Path, default=Path("fuzz-work"), help="where what is found goes")
    parser.add_argument("--input", type=Path, nargs="+", help="check these files and do nothing else")
    arguments = parser.parse_args()
    unknown = set(arguments.targets) - set(targets.names())
    if unknown:
        parser.error(f"no target is called {', '.join(sorted(unknown))}")
    chosen = arguments.targets or targets.names()
    if arguments.input:
        if len(chosen) != 1:
            parser.error("--input needs one target")
        from targets.both import steady_keys

        with steady_keys():
            for path in arguments.input:
                targets.target(chosen[0]).check(path.read_bytes())
        return 0
    if arguments.seconds is None and arguments.runs is None:
        arguments.seconds = 15.0
    findings = 0
    for name in chosen:
        for driver in ("fast", "atheris") if arguments.driver == "both" else (arguments.driver,):
            result = drivers.run(driver, name, arguments)
            print(result, flush=True)
            findings += result.findings
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
