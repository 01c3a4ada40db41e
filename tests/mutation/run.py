"""Mutation testing of frames, messages and the handshake with mutmut: `tox -e mutation`.

mutmut changes one thing at a time in a copy of the sources (a comparison, a number, a word, a call) and runs
the tests of that function: a change that no test notices has survived. It works on pure Python, in a
directory of its own.

survivors.txt, beside this file, has those that are known, by the lines they change, each with the reason why
no test can or need notice; those that only write the name of a field or a codec in other letters are known
by that. Another survivor fails the run, and so does less than 90 % killed.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
MODULES = ("frames", "messages", "handshake")
#: The tests of these modules, and those of the connection that puts them together.
TESTS = (*MODULES, "connection", "direct")
LEAST = 0.90

CONFIGURATION = """\
[tool.mutmut]
source_paths = ["geventws"]
only_mutate = [{modules}]
also_copy = ["geventws", "tests"]
pytest_add_cli_args_test_selection = [{tests}]

[tool.pytest.ini_options]
addopts = ["--import-mode=importlib", "-p", "no:cacheprovider", "-p", "mutation_profile"]
pythonpath = ["tests"]
markers = ["deadline(seconds): as in pyproject.toml", "slow: likewise"]
"""

#: mutmut's exit codes: tests failed, or hung, or the process died of it.
KILLED = {1, 3, -24, 24, 36, 152, -9, -11, 255}
SURVIVED = {0}
NO_TESTS = {5, 33}


def prepare(work: Path) -> None:
    """Copy the sources and the tests."""
    work.mkdir(parents=True, exist_ok=True)
    for name in ("geventws", "tests"):
        shutil.rmtree(work / name, ignore_errors=True)
        shutil.copytree(
            ROOT / name,
            work / name,
            # Nothing compiled: what is mutated has to be what runs.
            ignore=shutil.ignore_patterns("*.so", "*.pyx", "*.pxd", "__pycache__"),
        )
    modules = ", ".join(f'"geventws/protocol/{name}.py"' for name in MODULES)
    tests = ", ".join(f'"tests/protocol/test_{name}.py"' for name in TESTS)
    (work / "pyproject.toml").write_text(CONFIGURATION.format(modules=modules, tests=tests))


def mutmut(work: Path, *arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
    environment = dict(os.environ, GEVENTWS_PURE_PYTHON="1", PYTHONPATH=str(HERE))
    command = [sys.executable, "-m", "mutmut", *arguments]
    return subprocess.run(command, cwd=work, env=environment, text=True, **options)  # type: ignore[call-overload]


def verdicts(work: Path) -> dict[str, int | None]:
    """Exit codes, by the names of the mutants."""
    found: dict[str, int | None] = {}
    for name in MODULES:
        meta = json.loads((work / f"mutants/geventws/protocol/{name}.py.meta").read_text())
        found |= meta["exit_code_by_key"]
    return found


def change(work: Path, name: str) -> str:
    """What a mutant changes, on one line: the module, what was there, and what is."""
    diff = mutmut(work, "show", name, capture_output=True).stdout
    lines = [line for line in diff.splitlines() if re.match(r"[-+](?![-+])", line)]
    parts = [f"{line[0]} {line[1:].strip()}" for line in lines]
    return f"{name.split('.')[2]}: {'  '.join(parts)}"


def changes_case_only(text: str) -> bool:
    """Whether it writes the name of a field or a codec in other letters: neither Headers nor codecs care."""
    before, _, after = text.partition(": ")[2].removeprefix("- ").partition("  + ")
    says = re.search(r"\b(headers|get_all|_single|encode|decode|check_field)\b", before)
    return bool(says) and before != after and before.lower() == after.lower()


def known() -> list[str]:
    """The survivors that are explained."""
    path = HERE / "survivors.txt"
    return [line for line in path.read_text().splitlines() if line and not line.startswith("#")]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, required=True, help="a directory for the copies")
    parser.add_argument("--children", type=int, default=os.cpu_count(), help="mutants at a time")
    parser.add_argument("--report", action="store_true", help="run nothing; read what an earlier run left")
    arguments = parser.parse_args()
    work = arguments.work.absolute()
    if not arguments.report:
        prepare(work)
        mutmut(work, "run", "--max-children", str(arguments.children), check=True)
    found = verdicts(work)
    counts = Counter(
        "killed" if code in KILLED else "survived" if code in SURVIVED | NO_TESTS else f"not run ({code})"
        for code in found.values()
    )
    tried = counts["killed"] + counts["survived"]
    share = counts["killed"] / tried if tried else 0.0
    print(f"{len(found)} mutants: {dict(counts)}; killed: {share:.1%}")
    explained = Counter(known())
    strangers = []
    in_case = 0
    for name, code in found.items():
        if code in SURVIVED | NO_TESTS:
            text = change(work, name)
            if changes_case_only(text):
                in_case += 1
            elif explained[text] > 0:
                explained[text] -= 1
            else:
                strangers.append(text)
    print(f"{in_case} survivors write a name in other letters, where that means nothing")
    for text in strangers:
        print(f"survived, and is not explained: {text}")
    for text in sorted((+explained).elements()):
        print(f"explained, and did not survive: {text}")
    not_run = len(found) - tried
    return 1 if strangers or not_run or share < LEAST else 0


if __name__ == "__main__":
    sys.exit(main())
