"""The table of WSGI servers and behaviours, which the tests of the matrix fill in."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
import sys
from typing import Any

from servers import GUNICORN23, KINDS

__all__ = ["CELL", "Table"]

#: The property of a test that holds what its cell says.
CELL = "cell"

#: Behaviours that other servers than gunicorn do not have.
_ONLY_GUNICORN = {"test_reload"}

_ABOUT = """\
# WSGI servers, behaviour by behaviour

Each cell is what tests in `tests/wsgi/test_matrix.py` have found, on a real server in a process of its own.
"yes": it does what the row says. Other words say what it does instead; a test asserts that. What it means for
users is in [wsgi.md](wsgi.md).

| column | |
|---|---|
| `pywsgi` | a stock `gevent.pywsgi.WSGIServer` |
| `handler` | the same with `geventws.pywsgi.WebSocketHandler` |
| `gunicorn-gevent`, `-pywsgi`, `-gthread` | gunicorn: `gevent`, `GeventPyWSGIWorker`, `gthread` |
| `gunicorn-worker` | gunicorn with `geventws.gunicorn.GeventWebSocketWorker` |
| `gunicorn23-...` | the same with gunicorn 23 |
| `werkzeug` | Werkzeug's development server, in threads, as `flask run` starts it |
| `...-tls`, `...-patched` | over TLS; monkey-patched by gevent |
"""


class Table:
    """Rows are behaviours, columns are servers."""

    def __init__(self) -> None:
        self._rows: dict[str, dict[str, list[str]]] = {}

    def add(self, test: str, kind: str, passed: bool, properties: dict[str, Any]) -> None:
        """Note what became of one test."""
        words = properties.get(CELL, "yes") if passed else "FAILED"
        self._rows.setdefault(test, {}).setdefault(kind, []).append(words)

    def page(self) -> str:
        """Return it as a page of Markdown.

        Raises:
            ValueError: a cell was not tested, or its tests say different things.
        """
        names = [kind.name for kind in KINDS]
        lines = [f"| | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
        if not self._rows:
            raise ValueError("nothing was tested")
        for test, cells in self._rows.items():
            title = test.removeprefix("test_").replace("_", " ").replace("mib", "MiB").replace("rfc", "RFC")
            row = []
            for name in names:
                told = set(cells.get(name, ()))
                if test in _ONLY_GUNICORN and not name.startswith("gunicorn"):
                    told = {"has none"}
                if len(told) != 1:
                    raise ValueError(f"{title!r} on {name}: {told or 'not tested'}")
                row.append(told.pop())
            lines.append(f"| {title} | {' | '.join(row)} |")
        command = os.environ.get("TOX_ENV_NAME")
        made = f"Made by `tox -e {command}` with " if command else "Made with "
        return "\n".join([_ABOUT, made + ", ".join(_versions()) + ".", "", *lines]) + "\n"


def _versions() -> list[str]:
    versions = [f"Python {platform.python_version()}"]
    versions += [f"{name} {importlib.metadata.version(name)}" for name in ("gevent", "gunicorn", "Werkzeug")]
    if GUNICORN23:
        asked = [sys.executable, "-c", "import gunicorn; print(gunicorn.__version__)"]
        told = subprocess.run(
            asked, env=os.environ | {"PYTHONPATH": GUNICORN23}, capture_output=True, text=True, check=True
        )
        versions.append(f"gunicorn {told.stdout.strip()}")
    return versions
