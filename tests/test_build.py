"""The package as it is installed: its version, its two builds and the switch between them; and setup.py."""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

import geventws

ROOT = Path(__file__).resolve().parents[1]

HOT_MODULES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for path in (ROOT / "geventws").rglob("*")
    if path.suffix == ".pyx" or (path.suffix == ".pxd" and path.with_suffix(".py").exists())
)

#: A package of two modules that share a class, and one with a Python twin.
SOURCES = {
    "pyproject.toml": (
        '[project]\nname = "geventws"\nversion = "0"\n\n[tool.setuptools]\npackages = ["geventws"]\n'
    ),
    "geventws/__init__.py": "",
    "geventws/twin.py": "def twice(number):\n    return 2 * number\n",
    "geventws/twin.pxd": "cpdef long twice(long number) except? -1\n",
    "geventws/twin.pyx": "cpdef long twice(long number) except? -1:\n    return 2 * number\n",
    "geventws/inner.py": "class Inner:\n    def __init__(self, n):\n        self.n = n\n",
    "geventws/inner.pxd": "cdef class Inner:\n    cdef readonly int n\n",
    "geventws/outer.py": (
        "from .inner import Inner\nfrom .twin import twice\n\n\n"
        "class Outer(Inner):\n    def doubled(self):\n        return twice(self.n)\n"
    ),
    "geventws/outer.pxd": (
        "from .inner cimport Inner\nfrom .twin cimport twice\n\n"
        "cdef class Outer(Inner):\n    cpdef long doubled(self) except? -1\n"
    ),
    "geventws/plain.py": "X = 1\n",
}
COMPILED = ["geventws/inner", "geventws/outer", "geventws/twin"]
SUFFIX = sysconfig.get_config_var("EXT_SUFFIX")

REPORT = """
import importlib, json, sys
import geventws
files = {name: importlib.import_module(name).__file__ for name in sys.argv[1:]}
print(json.dumps([geventws.IMPLEMENTATION, files]))
"""

NAMES = """
import importlib, json, sys
print(json.dumps({name: dir(importlib.import_module(name)) for name in sys.argv[1:]}))
"""


def run_python(
    *arguments: str, cwd: Path | None = None, **environ: str | None
) -> subprocess.CompletedProcess[str]:
    """Run this Python with some variables of the environment changed, or taken out with None."""
    env = {**os.environ, **{name: value for name, value in environ.items() if value is not None}}
    for name, value in environ.items():
        if value is None:
            env.pop(name, None)
    return subprocess.run(
        [sys.executable, *arguments], env=env, cwd=cwd, capture_output=True, text=True, timeout=100
    )


def report(pure: str | None) -> tuple[str, dict[str, bool]]:
    """What a new process says that it runs, and which of its hot modules are compiled."""
    done = run_python("-c", REPORT, *dict.fromkeys(HOT_MODULES), GEVENTWS_PURE_PYTHON=pure)
    assert done.returncode == 0, done.stderr
    implementation, files = json.loads(done.stdout)
    return implementation, {name: not file.endswith(".py") for name, file in files.items()}


class TestVersion:
    def test_installed_metadata_has_the_version_of_the_source(self) -> None:
        try:
            installed = importlib.metadata.version("geventws")
        except importlib.metadata.PackageNotFoundError:
            pytest.skip("geventws is not installed, it runs from its source tree")
        assert installed == geventws.__version__

    def test_changelog_has_an_entry_for_the_version(self) -> None:
        text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
        assert re.search(rf"^## \[{re.escape(geventws.__version__)}\]", text, re.MULTILINE)


class TestImplementation:
    def test_there_are_hot_modules(self) -> None:
        assert "geventws.protocol.frames" in HOT_MODULES

    def test_pure_switch_takes_every_module_from_its_source(self) -> None:
        implementation, compiled = report(pure="1")
        assert implementation == "pure"
        assert not any(compiled.values())

    def test_empty_pure_switch_is_no_switch(self) -> None:
        empty, unset = report(pure=""), report(pure=None)
        assert empty == unset

    def test_hot_modules_are_all_of_one_build(self) -> None:
        implementation, compiled = report(pure=None)
        assert set(compiled.values()) == {implementation == "compiled"}

    def test_this_process_runs_what_it_says(self) -> None:
        frames = importlib.import_module("geventws.protocol.frames")
        compiled = not str(frames.__file__).endswith(".py")
        assert compiled == (geventws.IMPLEMENTATION == "compiled")

    def test_environment_that_asks_for_pure_gets_it(self) -> None:
        if os.environ.get("GEVENTWS_PURE_PYTHON"):
            assert geventws.IMPLEMENTATION == "pure"

    def test_both_builds_have_the_same_public_names(self) -> None:
        names = []
        for pure in ("", "1"):
            done = run_python("-c", NAMES, *HOT_MODULES, GEVENTWS_PURE_PYTHON=pure)
            assert done.returncode == 0, done.stderr
            names.append(json.loads(done.stdout))
        for module in HOT_MODULES:
            for name in getattr(importlib.import_module(module), "__all__", ()):
                assert name in names[0][module], f"{module}.{name} is missing in the compiled build"
                assert name in names[1][module], f"{module}.{name} is missing in the pure build"


class TestSetup:
    """setup.py, tried on the package of SOURCES."""

    @pytest.fixture
    def tree(self, tmp_path: Path) -> Path:
        """A source tree with our setup.py."""
        (tmp_path / "geventws").mkdir()
        for name, text in SOURCES.items():
            (tmp_path / name).write_text(text)
        shutil.copy(ROOT / "setup.py", tmp_path)
        return tmp_path

    @pytest.fixture
    def compiler(self) -> None:
        """A C compiler and Python's header are needed."""
        compiler = (os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc").split()[0]
        header = Path(sysconfig.get_path("include"), "Python.h")
        if compiler == "false" or shutil.which(compiler) is None or not header.exists():
            pytest.skip("no C compiler")

    def build(self, tree: Path, *command: str, **environ: str | None) -> subprocess.CompletedProcess[str]:
        settings = {
            "GEVENTWS_BUILD_EXTENSION": None,
            "GEVENTWS_SANITIZE": None,
            "GEVENTWS_CYTHON_TRACE": None,
        }
        return run_python("setup.py", "-q", *command, cwd=tree, **{**settings, **environ})

    def wheel(self, tree: Path) -> list[str]:
        (path,) = (tree / "dist").glob("*.whl")
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
        path.unlink()
        # "geventws-0.data/purelib/geventws/x.py" is installed where "geventws/x.py" is.
        return sorted(name.rpartition("purelib/")[2] for name in names if "dist-info" not in name)

    @pytest.mark.usefixtures("compiler")
    def test_modules_with_a_pxd_or_pyx_are_compiled_in_place(self, tree: Path) -> None:
        done = self.build(tree, "build_ext", "--inplace")
        assert done.returncode == 0, done.stderr
        found = sorted(str(path.relative_to(tree)) for path in (tree / "geventws").glob("*.so"))
        assert found == [f"{name}{SUFFIX}" for name in COMPILED]
        assert not list((tree / "geventws").glob("*.c"))
        script = "from geventws.outer import Outer; print(Outer(21).doubled())"
        assert run_python("-c", script, cwd=tree, PYTHONPATH=str(tree)).stdout == "42\n"

    @pytest.mark.usefixtures("compiler")
    def test_wheel_has_the_compiled_modules_and_leaves_the_tree_clean(self, tree: Path) -> None:
        done = self.build(tree, "bdist_wheel")
        assert done.returncode == 0, done.stderr
        names = self.wheel(tree)
        assert [name for name in names if name.endswith(".so")] == [f"{name}{SUFFIX}" for name in COMPILED]
        assert "geventws/outer.py" in names
        assert not list(tree.rglob("*.c"))
        assert not list(tree.rglob("*.so"))

    @pytest.mark.usefixtures("compiler")
    def test_wheel_without_compiler_takes_nothing_from_an_earlier_build(self, tree: Path) -> None:
        assert self.build(tree, "build_ext", "--inplace").returncode == 0
        done = self.build(tree, "bdist_wheel", CC="false")
        assert done.returncode == 0, done.stderr
        assert not [name for name in self.wheel(tree) if name.endswith(".so")]

    def test_without_compiler_pure_python_is_installed_with_a_warning(self, tree: Path) -> None:
        done = self.build(tree, "bdist_wheel", CC="false")
        assert done.returncode == 0, done.stderr
        assert "could not be built, installing pure Python instead" in done.stderr
        names = self.wheel(tree)
        assert not [name for name in names if name.endswith(".so")]
        assert {"geventws/inner.py", "geventws/outer.py", "geventws/twin.py"} <= set(names)

    def test_source_that_does_not_compile_is_a_warning_too(self, tree: Path) -> None:
        (tree / "geventws" / "outer.pxd").write_text("cdef class Outer:\n    cdef Unknown x\n")
        done = self.build(tree, "bdist_wheel")
        assert done.returncode == 0, done.stderr
        assert not [name for name in self.wheel(tree) if name.endswith(".so")]

    def test_without_compiler_but_required_fails(self, tree: Path) -> None:
        done = self.build(tree, "bdist_wheel", CC="false", GEVENTWS_BUILD_EXTENSION="yes")
        assert done.returncode != 0
        assert not list(tree.glob("dist/*.whl"))

    def test_asked_for_on_the_command_line_fails_too(self, tree: Path) -> None:
        assert self.build(tree, "build_ext", "--inplace", CC="false").returncode != 0

    def test_switched_off_does_not_try(self, tree: Path) -> None:
        done = self.build(tree, "bdist_wheel", GEVENTWS_BUILD_EXTENSION="no")
        assert done.returncode == 0, done.stderr
        (path,) = (tree / "dist").glob("*.whl")
        assert path.name.endswith("-py3-none-any.whl")

    def test_unknown_value_of_the_switch_is_an_error(self, tree: Path) -> None:
        done = self.build(tree, "bdist_wheel", GEVENTWS_BUILD_EXTENSION="perhaps")
        assert done.returncode != 0
        assert "takes yes, no or auto, not 'perhaps'" in done.stderr
