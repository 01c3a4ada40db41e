"""Run pytest on an extension that was built with the sanitizers; `tox -e sanitize` builds and calls this.

    python tests/sanitized.py [arguments of pytest]

The status is that of pytest, and 1 where a sanitizer has reported anything, in this process or in any
that a test has started. Before the tests it is shown that the sanitizers see something: every compiled
module must be instrumented, and a library made for that must be caught reading behind a bytes object
and shifting too far.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

#: Deliberate errors, one for each sanitizer.
CANARY = """
int read_behind(const unsigned char *data, long length) { return data[length]; }
int shift(int by) { return 1 << by; }
"""

#: A bytes object ends with a NUL: the first octet that nobody owns is the second one behind it.
READ_BEHIND = "import ctypes, sys; ctypes.CDLL(sys.argv[1]).read_behind(b'x' * 1000, ctypes.c_long(1001))"
SHIFT = "import ctypes, sys; ctypes.CDLL(sys.argv[1]).shift(40)"
#: What the tests will run, and the files of its compiled modules.
LIST_MODULES = """
import importlib.util, os, pkgutil, geventws
assert geventws.IMPLEMENTATION == "compiled", geventws.IMPLEMENTATION
for module in pkgutil.walk_packages(geventws.__path__, "geventws."):
    origin = importlib.util.find_spec(module.name).origin or ""
    if origin.endswith(".so"):
        print(origin)
"""
_SECONDS = 120


def find_modules() -> list[Path]:
    """The compiled modules of the installed package, all of which must be instrumented."""
    # From elsewhere than the source tree, whose modules would win over the installed ones.
    listed = subprocess.run(
        [sys.executable, "-P" if sys.version_info >= (3, 11) else "-s", "-c", LIST_MODULES],
        cwd="/",
        # Only here: without the runtime in front of all libraries, the modules refuse to be loaded.
        env={**os.environ, "ASAN_OPTIONS": "detect_leaks=0:verify_asan_link_order=0"},
        stdout=subprocess.PIPE,
        text=True,
        timeout=_SECONDS,
    )
    modules = [Path(line) for line in listed.stdout.splitlines()]
    if listed.returncode or not modules:
        sys.exit("sanitize: the compiled build of geventws is not installed, or cannot be loaded")
    for module in modules:
        check_instrumented(module)
    return modules


def check_instrumented(module: Path) -> None:
    """End unless both sanitizers have their calls in a module."""
    contents = module.read_bytes()
    for function in (b"__asan_init", b"__ubsan_handle_"):
        if function not in contents:
            sys.exit(f"sanitize: {module} is not instrumented: build with GEVENTWS_SANITIZE=1")


def find_runtimes(module: Path) -> str:
    """The libraries to be loaded before all others: AddressSanitizer's, and C++'s for its sake.

    It looks for the function that throws when it starts; greenlet throws, and Python links no C++.
    """
    linked = subprocess.run(["ldd", str(module)], stdout=subprocess.PIPE, text=True, timeout=_SECONDS).stdout
    paths = []
    for name in ("libasan", r"libstdc\+\+"):
        found = re.search(rf"{name}\.so\S* => (/\S+)", linked)
        if found is None:
            sys.exit(f"sanitize: {module} is not linked with gcc's libasan and libubsan; build with CC=gcc")
        paths.append(found[1])
    return ":".join(paths)


def check_canary(directory: Path, environment: dict[str, str]) -> None:
    """End unless both sanitizers catch an error that is there."""
    library = directory / "canary.so"
    (directory / "canary.c").write_text(CANARY, encoding="utf-8")
    compiler = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "gcc")
    options = ["-g", "-O0", "-shared", "-fPIC", "-fsanitize=address,undefined"]
    line = [*compiler, *options, "-o", str(library), str(directory / "canary.c")]
    subprocess.run(line, check=True, timeout=_SECONDS)
    logs = directory / "canary-logs"
    logs.mkdir()
    for script, sight in ((READ_BEHIND, "heap-buffer-overflow"), (SHIFT, "in shift ")):
        done = subprocess.run(
            [sys.executable, "-c", script, str(library)],
            env={**environment, **log_options(logs)},
            capture_output=True,
            text=True,
            timeout=_SECONDS,
        )
        if not done.returncode or sight not in "".join(read_reports(logs)):
            sys.exit(f"sanitize: a deliberate error was not reported as {sight!r}:\n{done.stderr}")


def log_options(directory: Path) -> dict[str, str]:
    """Where reports go: into files, since a test may throw away what its processes print.

    An undefined behaviour is printed and ends the process with SIGABRT: gcc's libubsan writes into no
    file. Its stack, from SIGABRT on, is in the report of AddressSanitizer, whose signal handlers
    stay when Python's faulthandler wants to set its own.
    """
    signals = ":".join(f"handle_{name}=2" for name in ("abort", "segv", "sigbus", "sigill", "sigfpe"))
    return {
        # Python keeps what it has made for ever in many places; leaks are looked for by `tox -e leaks`.
        "ASAN_OPTIONS": "detect_leaks=0:allocator_may_return_null=1:abort_on_error=1:"
        f"{signals}:log_path={directory}/report",
        "UBSAN_OPTIONS": f"halt_on_error=1:abort_on_error=1:print_stacktrace=1:log_path={directory}/report",
    }


def read_reports(directory: Path) -> list[str]:
    return [report.read_text(encoding="utf-8", errors="replace") for report in sorted(directory.iterdir())]


def main(arguments: list[str]) -> int:
    modules = find_modules()
    # Objects come from malloc, so that the end of each one is guarded; Python's own allocator has none.
    environment = {**os.environ, "LD_PRELOAD": find_runtimes(modules[0]), "PYTHONMALLOC": "malloc"}
    with tempfile.TemporaryDirectory(prefix="geventws-sanitize-") as name:
        directory = Path(name)
        check_canary(directory, environment)
        print(f"sanitize: {len(modules)} modules are instrumented, deliberate errors are seen", flush=True)
        logs = directory / "logs"
        logs.mkdir()
        # Not `python -m pytest`: the source tree, where it is called, would win over the installed package.
        line = [sys.executable, str(Path(sys.executable).with_name("pytest")), *arguments]
        status = subprocess.run(line, env={**environment, **log_options(logs)}).returncode
        reports = read_reports(logs)
        for report in reports:
            print(report)
        print(f"sanitize: {len(reports)} processes with a report, pytest ended with {status}")
        return 1 if reports else status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
