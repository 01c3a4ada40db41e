"""Find files of the package that have grown too long to read in one sitting.

`python tests/file_length.py` prints them and fails; tests/test_layers.py asks the same question.
"""

from __future__ import annotations

import sys
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1] / "geventws"
LIMIT = 500
SUFFIXES = (".py", ".pyx", ".pxd", ".c", ".h")


def too_long(root: Path = PACKAGE, limit: int = LIMIT) -> list[str]:
    """List the source files under `root` that have more than `limit` lines."""
    found = []
    for path in sorted(root.rglob("*")):
        if path.suffix in SUFFIXES:
            lines = len(path.read_text(encoding="utf-8").splitlines())
            if lines > limit:
                found.append(f"{path.relative_to(root.parent)}: {lines} lines, {limit} are allowed")
    return found


if __name__ == "__main__":
    problems = too_long()
    print("\n".join(problems) or f"no file of {PACKAGE.name}/ has more than {LIMIT} lines")
    sys.exit(bool(problems))
