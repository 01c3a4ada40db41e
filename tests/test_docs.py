"""What the documents name is there: files that they link to, and names of the code."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted(
    path
    for folder in (".", "docs", "examples", "benchmarks", "tests/autobahn")
    for path in (ROOT / folder).glob("*.md")
)

#: Where docs/design.md's names of classes and functions live.
MODULES = (
    "channel", "keepalive", "pong", "serving", "server", "tls", "transport", "turn", "websocket", "wire",
    "protocol.connection", "protocol.frames", "protocol.messages", "protocol.closing", "protocol.masking",
)  # fmt: skip


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_relative_links_lead_somewhere(document: Path) -> None:
    links = re.findall(r"\]\((?!https?:|mailto:|#)([^)#]+)", document.read_text(encoding="utf-8"))
    assert [link for link in links if not (document.parent / link).exists()] == []


def test_design_names_what_is_there() -> None:
    """`Class.method` and `module.function` in docs/design.md exist in the code."""
    modules = {name.rpartition(".")[2]: importlib.import_module(f"geventws.{name}") for name in MODULES}
    text = (ROOT / "docs/design.md").read_text(encoding="utf-8")
    names = {
        name
        for name in re.findall(r"`(\w+\.\w+)`", text)
        if not name.endswith((".py", ".pyx", ".pxd", ".h", ".md"))
    }
    missing = []
    for name in sorted(names):
        owner, _, member = name.partition(".")
        holders = [modules[owner]] if owner in modules else []
        holders += [getattr(module, owner) for module in modules.values() if hasattr(module, owner)]
        if holders and not any(hasattr(holder, member) for holder in holders):
            missing.append(name)
    assert missing == []
    assert {"Transport._on_readable", "WebSocket.receive", "Connection.next_event"} <= names


def test_design_lists_every_module() -> None:
    text = (ROOT / "docs/design.md").read_text(encoding="utf-8")
    package = ROOT / "geventws"
    modules = [
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        if not path.name.startswith("_") and path.name not in ("exceptions.py", "options.py")
    ]
    assert [module for module in modules if f"`{module}`" not in text] == []
