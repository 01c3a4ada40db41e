"""The choice of what compresses."""

from __future__ import annotations

import importlib.util
import runpy
import subprocess
import sys

import pytest

import geventws
from geventws.protocol import isal

REPORT = """
import geventws
from geventws.protocol.contexts import Deflater, Inflater
data = Deflater(6, 12, 5, no_context_takeover=True).deflate(b"Hello" * 20)
inflater = Inflater(12, no_context_takeover=True)
assert inflater.inflate(data, None) == b"Hello" * 20
inflater.finish()
print(geventws.DEFLATE)
"""


def run(program: str) -> str:
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_isal_is_used_where_it_is_installed() -> None:
    expected = "zlib" if importlib.util.find_spec("isal") is None else "isal"
    assert run(REPORT) == geventws.DEFLATE == expected


@pytest.mark.parametrize("broken", ["isal", "isal.isal_zlib"])
def test_zlib_is_used_where_isal_cannot_be_imported(broken: str) -> None:
    assert run(f"import sys; sys.modules[{broken!r}] = None\n{REPORT}") == "zlib"


def test_without_the_package_it_is_zlib(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "isal", None)
    found = runpy.run_path(isal.__file__)
    assert found["DEFLATE"] == "zlib"
    assert found["isal_zlib"] is None
