"""Compile the hot modules; everything else about the package stands in pyproject.toml.

Which modules: every `x.py` with an `x.pxd` beside it is compiled as it stands, the .pxd adding the C
types, and every `x.pyx`. The result takes the module's own name and place, and wins over `x.py` at import,
because Python looks for extension modules first.

Compiling is all or nothing: compiled classes use each other's C layout, so a half-compiled package would
not import. Without a compiler, or when anything fails, the package is installed in pure Python.

Switches, all read from the environment:

* `GEVENTWS_BUILD_EXTENSION`: `yes` makes a failure fatal, `no` does not try, `auto` or nothing tries.
* `GEVENTWS_SANITIZE=1`: address and undefined behaviour sanitizers.
* `GEVENTWS_CYTHON_TRACE=1`: line tracing, for coverage of the compiled modules.

`python setup.py build_ext --inplace` compiles for work in the source tree, and fails where it cannot; add
`--force` after a change of switches.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build import build as _build
from setuptools.command.build_ext import build_ext as _build_ext

PACKAGE = "geventws"
MODE = os.environ.get("GEVENTWS_BUILD_EXTENSION", "").strip().lower() or "auto"
SANITIZE = os.environ.get("GEVENTWS_SANITIZE", "") not in ("", "0")
TRACE = os.environ.get("GEVENTWS_CYTHON_TRACE", "") not in ("", "0")

if MODE not in ("auto", "yes", "no"):
    raise SystemExit(f"GEVENTWS_BUILD_EXTENSION takes yes, no or auto, not {MODE!r}")

DIRECTIVES = {
    "language_level": "3",
    # Reading past a buffer must raise as it does in Python, whatever the peer sent.
    "boundscheck": True,
    "wraparound": True,
    # The C types stand in the .pxd files alone; annotations in the .py files are for people and mypy.
    "annotation_typing": False,
    "binding": True,
    "linetrace": TRACE,
}


def find_extensions() -> list[Extension]:
    """List the modules to compile, with paths relative to this file as setuptools wants them."""
    sources = {}
    for declarations in Path(PACKAGE).rglob("*.pxd"):
        if declarations.with_suffix(".py").exists():
            sources[declarations.with_suffix("")] = declarations.with_suffix(".py")
    for source in Path(PACKAGE).rglob("*.pyx"):
        sources[source.with_suffix("")] = source
    return [Extension(".".join(name.parts), [str(sources[name])]) for name in sorted(sources)]


class build(_build):  # noqa: N801 - the name of the command
    """Build wheels outside the source tree.

    A `build` directory left by an earlier run would put its deleted modules, or compiled modules that no
    longer compile, into the wheel; and two builds at once would mix theirs.
    """

    def finalize_options(self) -> None:
        if "bdist_wheel" in self.distribution.commands and self.build_base == "build":
            scratch = tempfile.TemporaryDirectory(prefix="geventws-build-")
            self.build_base = scratch.name
            self.scratch = scratch  # removed with this command, at the end of the process
        super().finalize_options()


class build_ext(_build_ext):  # noqa: N801 - the name of the command
    """Compile with Cython, all or nothing."""

    def finalize_options(self) -> None:
        super().finalize_options()
        self.parallel = self.parallel or os.cpu_count()

    def run(self) -> None:
        try:
            self.prepare()
            super().run()
        # Whatever a missing or broken toolchain raises: SystemExit and OSError were both seen.
        except (Exception, SystemExit) as error:
            # Who says build_ext on the command line asks for nothing else.
            if MODE == "yes" or "build_ext" in self.distribution.commands:
                raise
            self.give_up(error)

    def prepare(self) -> None:
        """Set include directories and flags, and translate the sources to C."""
        import Cython
        import greenlet
        from Cython.Build import cythonize

        # `greenlet.h` and `greenlet/greenlet.h` are both in use.
        headers = Path(greenlet.__file__).parent
        for extension in self.extensions:
            extension.include_dirs += [str(headers), str(headers.parent)]
            if TRACE:
                extension.define_macros += [("CYTHON_TRACE", "1"), ("CYTHON_USE_SYS_MONITORING", "0")]
            if SANITIZE:
                extension.extra_compile_args += [
                    "-fsanitize=address,undefined",
                    "-fno-omit-frame-pointer",
                    "-g",
                    "-O1",
                ]
                extension.extra_link_args += ["-fsanitize=address,undefined"]
                if "clang" not in os.environ.get("CC", ""):
                    # greenlet copies pieces of the C stack about, which gcc's redzones on it do not survive.
                    extension.extra_compile_args += ["--param", "asan-stack=0"]
        # The C goes where no one edits; only Cython's plugin for coverage wants it beside the sources.
        build_dir = Path(self.get_finalized_command("build").build_base, f"cython-{Cython.__version__}")
        translated = cythonize(
            self.extensions,
            build_dir=None if TRACE else str(build_dir),
            compiler_directives=DIRECTIVES,
            quiet=True,
            force=self.force,
        )
        # Not the new objects: setuptools has left its marks on ours.
        by_name = {extension.name: extension for extension in translated}
        for extension in self.extensions:
            extension.sources = by_name[extension.name].sources
            extension.depends = by_name[extension.name].depends

    def get_source_files(self) -> list[str]:
        # For the sdist, before or after the translation to C: the sources themselves.
        return [source for extension in find_extensions() for source in extension.sources]

    def give_up(self, error: BaseException) -> None:
        """Go on in pure Python: take away what was compiled, here and where an earlier build left it."""
        outputs = set(super().get_outputs())
        if self.inplace or self.editable_mode:
            outputs.update(self.get_ext_fullpath(extension.name) for extension in self.extensions)
        for name in outputs:
            Path(name).unlink(missing_ok=True)
        self.extensions[:] = []
        print(
            "\n"
            "*******************************************************************************\n"
            f"{PACKAGE}: the compiled modules could not be built, installing pure Python instead.\n"
            "It works the same and is several times slower. What went wrong:\n"
            f"    {type(error).__name__}: {error}\n"
            "GEVENTWS_BUILD_EXTENSION=yes makes this an error, =no does not try.\n"
            "*******************************************************************************\n",
            file=sys.stderr,
            flush=True,
        )


if MODE == "no":
    extensions = []
else:
    extensions = find_extensions()

setup(ext_modules=extensions, cmdclass={"build": build, "build_ext": build_ext})
