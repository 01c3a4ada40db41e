"""Imports point inward: protocol <- connection <- faces; and a few other rules about the source.

The rings (docs/design.md): `protocol/` is the standard and knows no socket, clock or gevent. The
connection ring moves its bytes. Each face is a way in and knows no other face, but for those declared here.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from file_length import PACKAGE, too_long

import geventws

#: What every module may import.
CORE = {"exceptions", "_implementation"}
#: Between protocol and connection: the settings, which use words of the protocol.
SETTINGS = {"options"}
CONNECTION = {
    "addresses", "agreement", "bare", "broadcast", "channel", "deadlines", "endings", "keepalive", "pong",
    "receiver", "serving", "stacks", "stats", "tls", "tlssocket", "transport", "turn", "websocket", "wire",
}  # fmt: skip
#: Faces that are built on another, and on which. What is not named in a ring above is a face.
BUILT_ON = {
    "__main__": {"cli"},
    "cli": {"server", "client", "routing"},
    "compat": {"pywsgi", "wsgi", "server", "gunicorn", "routing"},
    "flask": {"wsgi", "routing"},
    "gunicorn": {"pywsgi", "wsgi"},
    "locust": {"client"},
    "pywsgi": {"wsgi"},
    "routing": {"converters"},
    "admission": {"accepting"},
    "opening": {"accepting", "admission", "routing"},
    "server": {"accepting", "opening", "routing"},
    "testing": {"server", "client", "wsgi", "routing"},
    "wsgi": {"routing"},
}

#: What the protocol ring may not know, by any name.
OUTSIDE_WORLD = {
    "_socket", "_thread", "asyncio", "concurrent", "gevent", "greenlet", "multiprocessing", "queue", "sched",
    "select", "selectors", "signal", "socket", "socketserver", "ssl", "subprocess", "threading", "time",
}  # fmt: skip
OUTSIDE_HEADERS = re.compile(r"socket|greenlet|time\.h|unistd|poll|ev\.h|uv\.h|pthread")
PROTOCOL_PACKAGES = {"httptools", "isal", "cython"}
CONNECTION_PACKAGES = {"gevent", "greenlet", "cython"}
#: Packages that nobody is made to install: each is imported in the module that is named after it, only.
OPTIONAL_PACKAGES = {"bottle", "django", "flask", "gunicorn", "isal", "locust", "redis"}


class Import(NamedTuple):
    """One import in one file."""

    line: int
    target: str  # dotted; our own modules begin with "geventws."
    typing_only: bool = False
    relative: bool = True


def python_imports(source: str, module: str, is_package: bool = False) -> Iterator[Import]:
    """Find the imports of a Python file, those inside functions too."""

    def visit(node: ast.AST, typing_only: bool) -> Iterator[Import]:
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(node.lineno, alias.name, typing_only, relative=False)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = module.split(".") if is_package else module.split(".")[:-1]
                parts = parts[: len(parts) - node.level + 1]
                base = ".".join([*parts, *filter(None, [node.module])])
            for alias in node.names:
                yield Import(node.lineno, f"{base}.{alias.name}", typing_only, relative=bool(node.level))
        elif isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            for child in node.body:
                yield from visit(child, True)
            for child in node.orelse:
                yield from visit(child, typing_only)
        else:
            for child in ast.iter_child_nodes(node):
                yield from visit(child, typing_only)

    yield from visit(ast.parse(source), False)


def cython_imports(source: str, module: str) -> Iterator[Import]:
    """Find the imports and cimports of a Cython file."""
    for number, line in enumerate(source.splitlines(), 1):
        found = re.match(r"\s*(?:from\s+([\w.]+)\s+c?import\s+(.*)|c?import\s+([\w., ]+))", line)
        if found is None:
            continue
        if found[3]:
            for name in found[3].split(","):
                yield Import(number, name.split()[0])
            continue
        base, level = found[1].lstrip("."), len(found[1]) - len(found[1].lstrip("."))
        if level:
            parts = module.split(".")[:-1]
            base = ".".join([*parts[: len(parts) - level + 1], *filter(None, [base])])
        for name in found[2].split("#")[0].strip("() ").split(","):
            if name.strip():
                yield Import(number, f"{base}.{name.split()[0]}")


def unit_of(module: str) -> str:
    """The part of the package that a module belongs to: "protocol", "server", "wsgi", ..."""
    return module.partition(".")[2].partition(".")[0]


def problems_of(path: str, source: str) -> list[str]:
    """List what is wrong with the imports of a file, given its path relative to the package's parent."""
    pure_path = Path(path)
    is_package = pure_path.name == "__init__.py"
    module = ".".join((pure_path.parent if is_package else pure_path.with_suffix("")).parts)
    unit = unit_of(module)
    found: list[str] = []
    if pure_path.suffix == ".py":
        imports = list(python_imports(source, module, is_package))
    else:
        imports = list(cython_imports(source, module))
        if unit == "protocol":
            for header in re.findall(r'extern\s+from\s+[<"]+([^>"]+)', source):
                if OUTSIDE_HEADERS.search(header):
                    found += [f"{path}: protocol may not know the header {header}"]
    if module == "geventws":
        return found  # the public names may come from anywhere
    for line, target, typing_only, relative in imports:
        top = target.split(".")[0]
        where = f"{path}:{line}: {target}"
        if top == "geventws":
            if not relative:
                found.append(f"{where}: import relatively inside the package")
            if not typing_only and not may_import(unit, unit_of(target)):
                found.append(f"{where}: {unit} may not import {unit_of(target) or 'the package itself'}")
            continue
        if top in OPTIONAL_PACKAGES and module.rpartition(".")[2] != top and unit != top:
            found.append(f"{where}: import {top} only in the module that is named after it")
        if unit in {"protocol"} | CORE | SETTINGS:
            if top in OUTSIDE_WORLD:
                found.append(f"{where}: {unit} may not know {top}")
                continue
            allowed = PROTOCOL_PACKAGES if unit == "protocol" else set()
        elif unit in CONNECTION:
            allowed = CONNECTION_PACKAGES
        else:
            continue
        if top not in sys.stdlib_module_names | allowed | {
            "libc",
            "cpython",
            "posix",
            "cython",
            "__future__",
        }:
            found.append(f"{where}: {unit} may not depend on {top}")
    return found


def may_import(unit: str, target: str) -> bool:
    """Tell whether a module of `unit` may import one of `target`."""
    if target == unit or target in CORE:
        return True
    if unit in CORE or not target:
        return False
    if unit == "protocol":
        return False
    if unit in SETTINGS:
        return target == "protocol"
    reachable = {"protocol"} | SETTINGS | CONNECTION
    if unit not in CONNECTION:
        reachable |= BUILT_ON.get(unit, set())
    return target in reachable


SOURCES = sorted(path for path in PACKAGE.rglob("*") if path.suffix in (".py", ".pyx", ".pxd"))


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_inward(path: Path) -> None:
    assert problems_of(str(path.relative_to(PACKAGE.parent)), path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("path", "source", "problem"),
    [
        ("geventws/protocol/a.py", "import gevent", "protocol may not know gevent"),
        ("geventws/protocol/a.py", "def f():\n    from time import monotonic", "protocol may not know time"),
        ("geventws/protocol/a.py", "from ..websocket import WebSocket", "protocol may not import websocket"),
        ("geventws/protocol/a.py", "from ..options import Options", "protocol may not import options"),
        ("geventws/protocol/a.py", "from .. import server", "protocol may not import server"),
        ("geventws/protocol/__init__.py", "from ..server import x", "protocol may not import server"),
        ("geventws/protocol/a.py", "import werkzeug", "protocol may not depend on werkzeug"),
        ("geventws/protocol/a.py", "from geventws.exceptions import X", "import relatively"),
        ("geventws/protocol/a.pyx", "from ..transport cimport Transport", "not import transport"),
        ("geventws/protocol/a.pxd", "from geventws.transport cimport T", "protocol may not import transport"),
        ("geventws/protocol/a.pyx", "cimport gevent._gevent_cgreenlet", "protocol may not know gevent"),
        ("geventws/protocol/a.pyx", 'cdef extern from "sys/socket.h":\n    pass', "the header sys/socket.h"),
        ("geventws/protocol/a.pyx", 'cdef extern from "greenlet.h" nogil:\n    pass', "header greenlet.h"),
        ("geventws/exceptions.py", "from .protocol.closing import Close", "may not import protocol"),
        ("geventws/options.py", "from .websocket import WebSocket", "options may not import websocket"),
        ("geventws/transport.py", "from .server import WebSocketServer", "transport may not import server"),
        ("geventws/transport.py", "import httptools", "transport may not depend on httptools"),
        ("geventws/websocket.pxd", "from .wsgi.middleware cimport M", "websocket may not import wsgi"),
        ("geventws/server.py", "from .wsgi.middleware import M", "server may not import wsgi"),
        ("geventws/wsgi/takeover.py", "from ..pywsgi import M", "wsgi may not import pywsgi"),
        ("geventws/wsgi/takeover.py", "import gunicorn", "import gunicorn only in the module"),
        ("geventws/server.py", "from . import WebSocketServer", None),
        ("geventws/brand_new.py", "from .server import WebSocketServer", "brand_new may not import server"),
        ("geventws/server.py", "from .brand_new import X", "server may not import brand_new"),
    ],
)  # fmt: skip
def test_arrow_outward_is_found(path: str, source: str, problem: str | None) -> None:
    found = problems_of(path, source)
    assert len(found) == 1
    assert problem is None or problem in found[0]


@pytest.mark.parametrize(
    ("path", "source"),
    [
        (
            "geventws/protocol/a.py",
            "from ..exceptions import X\nfrom .frames import F\nimport httptools, struct",
        ),
        (
            "geventws/protocol/a.pyx",
            "from libc.string cimport memcpy\nfrom cpython.bytes cimport X\ncimport cython",
        ),
        ("geventws/exceptions.py", "if TYPE_CHECKING:\n    from .protocol.closing import Close"),
        ("geventws/options.py", "from .protocol.headers import is_token"),
        (
            "geventws/transport.py",
            "import gevent, socket\nfrom .protocol.connection import C\nfrom .options import O",
        ),
        ("geventws/cli.py", "from .server import WebSocketServer"),
        ("geventws/gunicorn.py", "import gunicorn.workers.base\nfrom .pywsgi import WebSocketHandler"),
        (
            "geventws/client/connect.py",
            "from .proxy import P\nfrom ..websocket import W\nfrom . import reconnect",
        ),
        ("geventws/__init__.py", "from .server import WebSocketServer"),
    ],
)
def test_arrow_inward_is_allowed(path: str, source: str) -> None:
    assert problems_of(path, source) == []


def test_no_file_is_too_long() -> None:
    assert too_long() == []


def test_file_that_is_too_long_is_found(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("x = 1\n" * 501)
    (tmp_path / "b.py").write_text("x = 1\n" * 500)
    assert too_long(tmp_path) == [f"{tmp_path.name}/a.py: 501 lines, 500 are allowed"]


def test_public_names_exist_and_are_sorted_out() -> None:
    assert len(set(geventws.__all__)) == len(geventws.__all__)
    missing = [name for name in geventws.__all__ if not hasattr(geventws, name)]
    assert missing == []


def test_every_exception_is_public() -> None:
    from geventws import exceptions

    assert set(exceptions.__all__) <= set(geventws.__all__)
