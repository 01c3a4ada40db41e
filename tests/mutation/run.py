"""Mutation testing of frames, messages and the handshake: `tox -e mutation`.

mutmut changes one thing at a time (a comparison, a number, a word, a call), and the tests of that module
run: a change that no test notices has survived. What is changed are the modules in pure Python. mutmut
makes the mutants; mutation_plugin.py runs them, a thousand in minutes.

survivors.txt, beside this file, has those that are known, by the lines they change, each with the reason why
no test can or need notice; those that only write the name of a field or a codec in other letters are known
by that. Another survivor fails the run, and so does less than 90 % killed.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
#: The modules, and the tests that have to notice.
MODULES = {
    "frames": ("frames", "direct"),
    "messages": ("messages", "direct", "limit_values"),
    "handshake": ("handshake",),
}
LEAST = 0.90

#: mutmut wants to know where the sources are, though it is told.
_CONFIGURATION = '[tool.mutmut]\nsource_paths = ["."]\n'


def run(module: str, work: Path, children: int, word: str) -> list[tuple[str, str, str]]:
    """Return for each mutant of a module its name, its verdict and what it changes."""
    work.mkdir(parents=True, exist_ok=True)
    (work / "pyproject.toml").write_text(_CONFIGURATION)
    verdicts = work / f"{module}.json"
    verdicts.unlink(missing_ok=True)
    path = os.pathsep.join(filter(None, [str(HERE), os.environ.get("PYTHONPATH")]))
    command = [sys.executable, "-m", "pytest", "-q", "-p", "mutation_plugin", "-p", "no:cacheprovider"]
    # A failure is all that is asked for, and a thread beside each test would be forked with it.
    command += ["--tb=no", "--show-capture=no", "-o", "timeout=0"]
    command += ["-c", str(ROOT / "pyproject.toml"), "--rootdir", str(ROOT), "--mutate", module]
    command += ["--verdicts", str(verdicts), "--children", str(children), "--mutants", word]
    command += [str(ROOT / f"tests/protocol/test_{name}.py") for name in MODULES[module]]
    environment = dict(os.environ, GEVENTWS_PURE_PYTHON="1", PYTHONPATH=path)
    ended = subprocess.run(command, cwd=work, env=environment, capture_output=True, text=True, check=False)
    if ended.returncode != 0 or not verdicts.exists():
        raise SystemExit(f"!! FAILED: {module}: {ended.stdout}{ended.stderr}")
    return [tuple(each) for each in json.loads(verdicts.read_text(encoding="utf-8"))]


def changes_case_only(change: str) -> bool:
    """Whether it writes the name of a field or a codec in other letters: neither Headers nor codecs care."""
    before, _, after = change.partition(": ")[2].removeprefix("- ").partition("  + ")
    says = re.search(r"\b(headers|get_all|_single|encode|decode|check_field)\b", before)
    return bool(says) and before != after and before.lower() == after.lower()


def known() -> list[str]:
    """The survivors that are explained."""
    path = HERE / "survivors.txt"
    return [line for line in path.read_text().splitlines() if line and not line.startswith("#")]


def report(found: list[tuple[str, str, str]], *, whole: bool) -> bool:
    """Print what came of it; return whether that is well."""
    counts = Counter(verdict for _, verdict, _ in found)
    # Without an end, or with one by the limit of memory, no test passes either.
    killed = counts["killed"] + counts["hung"]
    share = killed / len(found) if found else 0.0
    print(f"{len(found)} mutants: {dict(counts)}; killed: {killed} of {len(found)}, {share:.1%}")
    explained = Counter(known())
    strangers = []
    in_case = 0
    for name, verdict, change in found:
        if verdict in ("killed", "hung"):
            continue
        if changes_case_only(change):
            in_case += 1
        elif explained[change] > 0:
            explained[change] -= 1
        else:
            strangers.append((name, change))
    print(f"{in_case} survivors write a name in other letters, where that means nothing")
    for name, change in strangers:
        print(f"survived, and is not explained: {change}    ({name})")
    if whole:
        for change in sorted((+explained).elements()):
            print(f"explained, and did not survive: {change}")
    return not strangers and share >= LEAST


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("modules", nargs="*", metavar="module", help=f"of {', '.join(MODULES)}")
    parser.add_argument("--work", type=Path, required=True, help="a directory for verdicts")
    parser.add_argument("--children", type=int, default=os.cpu_count(), help="mutants at a time")
    parser.add_argument("--mutants", default="", help="only those with this in their name or change")
    arguments = parser.parse_args()
    unknown = set(arguments.modules) - set(MODULES)
    if unknown:
        parser.error(f"no module is called {', '.join(sorted(unknown))}")
    found = []
    for module in arguments.modules or MODULES:
        begun = time.monotonic()
        verdicts = run(module, arguments.work.absolute(), arguments.children, arguments.mutants)
        counts = Counter(verdict for _, verdict, _ in verdicts)
        print(f"{module:12}{dict(counts)}, {time.monotonic() - begun:.0f} s", flush=True)
        found += verdicts
    return 0 if report(found, whole=not (arguments.modules or arguments.mutants)) else 1


if __name__ == "__main__":
    sys.exit(main())
