"""Load the protocol a second time, from its source alone, beside the build that is under test.

The copy is a package of another name with modules, classes and errors of its own; nothing in it is
compiled. Its source can be edited on the way, to show that a difference is noticed.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import geventws

__all__ = ["DIRECTORY", "Build", "Edit", "build_of", "compiled_modules", "pure_package"]

DIRECTORY = Path(geventws.__file__).parent


class Edit(NamedTuple):
    """One change of a source: `old`, which must stand there exactly once, becomes `new`."""

    module: str
    old: str
    new: str


class Build(NamedTuple):
    """The modules of one build that a script needs."""

    connection: Any
    deflate: Any
    shared: Any
    keys: Any
    isal: Any
    exceptions: Any


def build_of(package: str) -> Build:
    """The modules of a package, `geventws` or a copy."""
    protocol = [importlib.import_module(f"{package}.protocol.{name}") for name in Build._fields[:-1]]
    return Build(*protocol, importlib.import_module(f"{package}.exceptions"))


def compiled_modules() -> list[str]:
    """The names, behind the package's, of the modules that are compiled where there is a compiler."""
    sources = {*DIRECTORY.rglob("*.pxd"), *DIRECTORY.rglob("*.pyx")}
    names = {".".join(source.relative_to(DIRECTORY).with_suffix("").parts) for source in sources}
    return sorted(name for name in names if DIRECTORY.joinpath(*name.split(".")).with_suffix(".py").exists())


class _Loader(importlib.machinery.SourceFileLoader):
    """Compiles a source file, edited or not, and leaves no .pyc of it."""

    def __init__(self, name: str, path: str, edit: Edit | None) -> None:
        super().__init__(name, path)
        self.edit = edit

    def get_code(self, fullname: str) -> Any:
        source = self.get_data(self.path).decode()
        if self.edit is not None:
            count = source.count(self.edit.old)
            assert count == 1, f"{self.edit.old!r} stands {count} times in {self.path}"
            source = source.replace(self.edit.old, self.edit.new)
        return compile(source, self.path, "exec", dont_inherit=True)


class _Finder(importlib.abc.MetaPathFinder):
    """Finds the sources of geventws under another name."""

    def __init__(self, package: str, edit: Edit | None) -> None:
        self.package = package
        self.edit = edit

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> Any:
        if fullname == self.package:
            # Not the real one: that would import everything.
            spec = importlib.machinery.ModuleSpec(fullname, None, is_package=True)
            spec.submodule_search_locations = [str(DIRECTORY)]
            return spec
        if not fullname.startswith(f"{self.package}."):
            return None
        name = fullname[len(self.package) + 1 :]
        place = DIRECTORY.joinpath(*name.split("."))
        edit = self.edit if self.edit is not None and self.edit.module == name else None
        if place.is_dir():
            file, locations = place / "__init__.py", [str(place)]
        else:
            file, locations = place.with_suffix(".py"), None
        return importlib.util.spec_from_file_location(
            fullname,
            file,
            loader=_Loader(fullname, str(file), edit),
            submodule_search_locations=locations,
        )


@contextlib.contextmanager
def pure_package(name: str, edit: Edit | None = None) -> Iterator[str]:
    """Make `import <name>.protocol.frames` and so on possible, from source. All is forgotten afterwards."""
    finder = _Finder(name, edit)
    sys.meta_path.insert(0, finder)
    try:
        yield name
    finally:
        sys.meta_path.remove(finder)
        for module in [key for key in sys.modules if key == name or key.startswith(f"{name}.")]:
            del sys.modules[module]


def is_compiled(module: ModuleType) -> bool:
    """Whether a module came from a compiled file."""
    return not str(module.__file__).endswith(".py")
