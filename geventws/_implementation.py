"""Which of the two builds of the hot modules is used: compiled or pure Python.

Both are made from the same source. Python takes the compiled file where there is one; with
GEVENTWS_PURE_PYTHON set to anything but the empty string, the finder below takes the source.
"""

from __future__ import annotations

import os
import sys
from importlib.machinery import SOURCE_SUFFIXES, FileFinder, ModuleSpec, SourceFileLoader
from importlib.util import find_spec
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["IMPLEMENTATION"]

_PACKAGE = __name__.rpartition(".")[0]


class _SourceFinder:
    """A meta path finder that sees the source files of this package and not the compiled ones."""

    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None = None, target: object = None) -> ModuleSpec | None:
        if not name.startswith(f"{_PACKAGE}."):
            return None
        specs = (
            FileFinder(entry, (SourceFileLoader, SOURCE_SUFFIXES)).find_spec(name) for entry in path or ()
        )
        return next((spec for spec in specs if spec is not None and spec.loader is not None), None)


if os.environ.get("GEVENTWS_PURE_PYTHON"):
    sys.meta_path.insert(0, _SourceFinder)


def _implementation() -> str:
    spec = find_spec(f"{_PACKAGE}.protocol.frames")
    source = spec is None or spec.origin is None or spec.origin.endswith(tuple(SOURCE_SUFFIXES))
    return "pure" if source else "compiled"


#: "compiled" or "pure": what runs in this process.
IMPLEMENTATION = _implementation()
