"""What the documents name is there: files that they link to, and names of the code."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
import sys
from pathlib import Path

import pytest

from geventws import connect, connect_forever
from geventws.client.settings import _OPTION_NAMES
from geventws.options import Options

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted(
    path
    for folder in (".", "docs", "examples", "benchmarks", "tests/autobahn")
    for path in (ROOT / folder).glob("*.md")
)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_relative_links_lead_somewhere(document: Path) -> None:
    links = re.findall(r"\]\((?!https?:|mailto:|#)([^)#]+)", document.read_text(encoding="utf-8"))
    assert [link for link in links if not (document.parent / link).exists()] == []


def names_in_the_source() -> set[str]:
    """`Class.method` and `module.function` of all that the package defines; compiled classes hide some."""
    names = set()
    for path in (ROOT / "geventws").rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for holder in (tree, *(node for node in ast.walk(tree) if isinstance(node, ast.ClassDef))):
            owner = holder.name if isinstance(holder, ast.ClassDef) else path.stem
            names |= {f"{owner}.{node.name}" for node in holder.body if isinstance(node, ast.FunctionDef)}
    return names


def test_design_names_what_is_there() -> None:
    defined = names_in_the_source()
    owners = {name.partition(".")[0] for name in defined}
    text = (ROOT / "docs/design.md").read_text(encoding="utf-8")
    names = {
        name
        for name in re.findall(r"`(\w+\.\w+)`", text)
        if name.partition(".")[0] in owners and not name.endswith((".py", ".pyx", ".pxd", ".h", ".md"))
    }
    assert names - defined == set()
    assert {"Transport._on_readable", "WebSocket.receive", "Connection.next_event"} <= names


def test_the_way_of_a_message_goes_through_four_files() -> None:
    """Function by function, in the files where they are defined."""
    text = (ROOT / "docs/design.md").read_text(encoding="utf-8")
    way = text.partition("## The way of a message")[2].partition("\n## ")[0]
    steps = [line.split("|")[2:4] for line in way.splitlines() if re.match(r"\| \d", line)]
    assert len(steps) == 10
    passed = set()
    for files, functions in steps:
        names = re.findall(r"`(\w+\.\w+)`", functions)
        assert names
        paths = re.findall(r"`([\w/]+\.py)`", files)
        sources = "".join((ROOT / "geventws" / path).read_text(encoding="utf-8") for path in paths)
        for name in names:
            owner, _, function = name.partition(".")
            assert f"class {owner}" in sources, name
            assert f"def {function}(" in sources, name
        passed.update(paths)
    assert len(passed) <= 4, passed


def test_design_lists_every_module() -> None:
    text = (ROOT / "docs/design.md").read_text(encoding="utf-8")
    package = ROOT / "geventws"
    modules = [
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        if not path.name.startswith("_") and path.name not in ("exceptions.py", "options.py")
    ]
    assert [module for module in modules if f"`{module}`" not in text] == []


def test_the_client_document_has_every_argument_and_its_default() -> None:
    text = (ROOT / "docs/client.md").read_text(encoding="utf-8")
    options = {field.name: field.default for field in dataclasses.fields(Options)}
    expected = {name: options[name] for name in _OPTION_NAMES}
    for function in (connect, connect_forever):
        expected |= {
            name: parameter.default
            for name, parameter in inspect.signature(function).parameters.items()
            if parameter.kind is parameter.KEYWORD_ONLY
        }
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| `")]
    told = {cells[0].strip("`"): cells[1:] for cells in rows}
    for name, default in expected.items():
        written = getattr(default, "__name__", None) or repr(default).replace("'", '"')
        assert any(cell.startswith(f"`{written}`") for cell in told[name]), name


def test_extras_are_installed_from_a_checkout() -> None:
    """As a user can today, in a shell that expands brackets too (zsh), and extras that there are."""
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    section = project.partition("[project.optional-dependencies]\n")[2].partition("\n[")[0]
    extras = re.findall(r"^(\w+) = \[", section, re.MULTILINE)
    assert "gunicorn" in extras
    sources = [*DOCUMENTS, *(ROOT / "geventws").rglob("*.py")]
    installed = []
    for path in sources:
        text = path.read_text(encoding="utf-8")
        assert "geventws[" not in text, path
        installed += re.findall(r"pip install ([^`\s]*\[[^`\s]*)", text)
    assert installed
    assert [what for what in installed if what not in {f"'.[{extra}]'" for extra in extras}] == []


def test_applications_are_not_named_as_modules_of_python() -> None:
    """`gunicorn site:app` finds Python's own `site`, and no app in it."""
    sources = [*DOCUMENTS, *(ROOT / "geventws").rglob("*.py"), *(ROOT / "examples").rglob("*.py")]
    named = [
        name for path in sources for name in re.findall(r"(\w+):app\b", path.read_text(encoding="utf-8"))
    ]
    assert "your_site" in named
    assert sorted(set(named) & sys.stdlib_module_names) == []
