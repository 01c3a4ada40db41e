"""The peers' own virtual environment: made once, used again while the pins stay the same."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

__all__ = ["REQUIREMENTS", "find_python", "make", "pins", "versions"]

REQUIREMENTS = Path(__file__).resolve().parents[1] / "peers" / "requirements.txt"

#: The Python that all the pinned peers are known to install on.
WANTED = (3, 11)

_INSTALL_SECONDS = 600
_MARK = "benchmark-peers.json"


def find_python() -> str:
    """The interpreter for the peers: Python 3.11 where there is one, else that of this process."""
    if sys.version_info[:2] == WANTED:
        return sys.executable
    found = shutil.which(f"python{WANTED[0]}.{WANTED[1]}")
    if found is not None:
        # A shim of a version manager may be there without an interpreter behind it.
        answer = subprocess.run([found, "-c", "import venv"], capture_output=True, timeout=30, check=False)
        if answer.returncode == 0:
            return found
    return sys.executable


def pins(text: str) -> list[str]:
    """The requirements in a requirements file, without comments."""
    lines = (line.partition("#")[0].strip() for line in text.splitlines())
    return [line for line in lines if line]


def make(directory: Path, say: Callable[[str], None], requirements: Path = REQUIREMENTS) -> str:
    """Make the environment, or take it as it is; return its interpreter.

    What cannot be installed is told, and left out: its servers are found to be absent when they
    are started.
    """
    interpreter = directory / "bin" / "python"
    text = requirements.read_text(encoding="utf-8")
    key = hashlib.sha256(text.encode()).hexdigest()
    mark = directory / _MARK
    try:
        known = json.loads(mark.read_text(encoding="utf-8"))
        if known["requirements"] == key and interpreter.exists():
            for line in known["missing"]:
                say(f"NOT INSTALLED in {directory}: {line}")
            return str(interpreter)
    except (OSError, ValueError, KeyError):
        pass
    python = find_python()
    say(f"installing the peers into {directory}, with {python}")
    subprocess.run([python, "-m", "venv", "--clear", str(directory)], timeout=120, check=True)
    missing = []
    if _install(interpreter, ["-r", str(requirements)]) is not None:
        # One that does not install must not take the others with it.
        for line in pins(text):
            reason = _install(interpreter, [line])
            if reason is not None:
                missing.append(f"{line}: {reason}")
                say(f"NOT INSTALLED: {missing[-1]}")
    mark.write_text(json.dumps({"requirements": key, "missing": missing}), encoding="utf-8")
    return str(interpreter)


def _install(interpreter: Path, what: list[str]) -> str | None:
    """Install requirements; return why that failed, or None."""
    line = [str(interpreter), "-m", "pip", "install", "-q", "--disable-pip-version-check", "--prefer-binary"]
    try:
        done = subprocess.run(
            [*line, *what], capture_output=True, text=True, timeout=_INSTALL_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return f"pip took longer than {_INSTALL_SECONDS} s"
    if done.returncode == 0:
        return None
    lines = [text for text in done.stderr.splitlines() if text.strip()]
    errors = [text for text in lines if text.startswith("ERROR")] or lines or ["pip failed and said nothing"]
    return errors[-1]


def versions(interpreter: str, packages: list[str]) -> dict[str, str]:
    """The versions of distributions in an environment; those that are not installed are left out."""
    script = (
        "import importlib.metadata as m, json, platform, sys\n"
        "found = {'Python': platform.python_version()}\n"
        "for name in sys.argv[1:]:\n"
        "    try: found[name] = m.version(name)\n"
        "    except m.PackageNotFoundError: pass\n"
        "print(json.dumps(found))\n"
    )
    done = subprocess.run(
        [interpreter, "-c", script, *packages], capture_output=True, text=True, timeout=60, check=True
    )
    found: dict[str, str] = json.loads(done.stdout)
    return found
