"""The tree of errors that the module of exceptions draws is the one that its classes make."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from geventws import exceptions

ROOT = Path(__file__).parents[1]


def drawn() -> dict[str, tuple[str | None, str]]:
    """Each error of the drawing, with the one that it hangs from, and what stands beside it."""
    assert exceptions.__doc__ is not None
    tree: dict[str, tuple[str | None, str]] = {}
    above: list[str] = []
    for line in exceptions.__doc__.partition("::\n\n")[2].partition("\n\n")[0].splitlines():
        found = re.fullmatch(r"    ([│├└─ ]*)(\w+)(?: +(.+))?", line)
        assert found is not None, line
        branches, name, beside = found.groups(default="")
        del above[len(branches) // 4 :]
        assert name not in tree
        tree[name] = above[-1] if above else None, beside
        above.append(name)
    return tree


def test_the_drawn_tree_is_that_of_the_classes() -> None:
    made = {}
    for name in exceptions.__all__:
        bases = [base.__name__ for base in getattr(exceptions, name).__bases__]
        ours = [base for base in bases if base in exceptions.__all__]
        assert len(ours) <= 1
        made[name] = ours[0] if ours else None
    assert {name: parent for name, (parent, _) in drawn().items()} == made


def test_what_the_tree_says_beside_an_error() -> None:
    told = 0
    for name, (_, beside) in drawn().items():
        error = getattr(exceptions, name)
        if code := re.fullmatch(r"close code (\d{4})", beside):
            assert error.close_code == int(code[1]), name
        elif re.fullmatch(r"\d{3}", beside):
            assert error.status == int(beside), name
        elif builtin := re.search(r"\b(OSError|TimeoutError) too\b", beside):
            assert builtin[1] in {base.__name__ for base in error.__bases__}, name
        else:
            continue
        told += 1
    assert told >= 12


def test_every_error_is_raised_somewhere() -> None:
    """Or is the base of some that are; naming one in an `except` or an annotation does not count."""
    made = set()
    for path in (ROOT / "geventws").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                # The class may be chosen in the call.
                made |= {name.id for name in ast.walk(node.func) if isinstance(name, ast.Name)}
            elif isinstance(node, ast.IfExp):
                made |= {name.id for name in (node.body, node.orelse) if isinstance(name, ast.Name)}
            elif isinstance(node, ast.Raise) and isinstance(node.exc, ast.Name):
                made.add(node.exc.id)
    bases = {parent for parent, _ in drawn().values()}
    assert [name for name in exceptions.__all__ if name not in made | bases] == []
