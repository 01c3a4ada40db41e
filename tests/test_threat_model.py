"""docs/threat-model.md: each threat has its row, and each test that is named there exists."""

from __future__ import annotations

import ast
import configparser
import functools
import re
import warnings
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "docs/threat-model.md").read_text(encoding="utf-8")
ROWS = [
    [cell.strip() for cell in line.strip("|").split(" | ")]
    for line in TEXT.splitlines()
    if re.match(r"\| P\d-\d", line)
]


@functools.cache
def names_in(path: Path) -> set[str]:
    """The names of the tests in a file; a state machine is one that is assigned."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    functions = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    assigned = {
        target.id
        for node in tree.body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    return {name for name in functions if name.startswith("test_")} | {
        name for name in assigned if name.startswith("Test")
    }


@pytest.mark.parametrize("row", ROWS, ids=[row[0] for row in ROWS])
def test_each_test_that_is_named_exists(row: list[str]) -> None:
    assert len(row) == 4
    identifier, threat, mitigation, tests = row
    assert threat
    assert mitigation
    named = re.findall(r"`([^`]+)`", tests)
    assert named, f"{identifier} has no test"
    # Nothing stands beside them.
    assert re.sub(r"`[^`]+`", "", tests).strip() == ""
    missing = []
    for name in named:
        file, separator, test = name.partition("::")
        path = ROOT / file
        if not separator or not path.is_file() or test not in names_in(path):
            missing.append(name)
    assert missing == []


def test_all_that_must_be_before_a_release_is_there() -> None:
    identifiers = [row[0] for row in ROWS]
    assert [name for name in identifiers if name.startswith("P0")] == [f"P0-{n:02}" for n in range(1, 26)]
    assert len(set(identifiers)) == len(identifiers)


def test_what_has_no_row_is_said_to_be_left_to_others() -> None:
    named = {name for row in ROWS for name in re.findall(r"P\d-\d\d", row[0])}
    _, _, others = TEXT.partition("\n## What is left to others\n")
    left = re.findall(r"P\d-\d\d", others)
    assert not named & set(left)
    numbers = sorted(named | set(left))
    assert numbers == [f"P0-{n:02}" for n in range(1, 26)] + [f"P1-{n}" for n in range(26, 46)]


def test_warnings_are_errors(pytestconfig: pytest.Config) -> None:
    assert pytestconfig.getini("filterwarnings") == ["error"]
    with pytest.raises(ResourceWarning, match="left open"):
        warnings.warn("left open", ResourceWarning, stacklevel=1)


def test_environments_that_are_named_exist() -> None:
    tox = configparser.ConfigParser(interpolation=None)
    tox.read(ROOT / "tox.ini", encoding="utf-8")
    sections = " ".join(tox.sections())
    for name in re.findall(r"tox -e ([\w-]+)", TEXT):
        assert re.search(rf"testenv:{name}\b", sections), name
