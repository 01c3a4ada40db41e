"""The environments `leaks` and `sanitize` see what they look for; they do it at length themselves."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

TESTS = Path(__file__).resolve().parent


def load(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(f"proofs_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def leaks(monkeypatch: pytest.MonkeyPatch) -> Any:
    # It imports `scenarios`, which stands beside it.
    monkeypatch.syspath_prepend(str(TESTS / "leaks"))
    return load(TESTS / "leaks" / "run.py")


@pytest.mark.parametrize(
    ("added", "word"),
    [
        ({"blocks": 700}, "700 blocks"),
        ({"blocks": 150}, "150 blocks"),
        ({"allocated": 100_000}, "100000 bytes"),
        ({"descriptors": 1}, "1 descriptors"),
    ],
)
def test_a_leak_is_named(leaks: Any, added: dict[str, int], word: str) -> None:
    (found,) = leaks.judge("reset", leaks.Usage(**added, connections=700))
    assert found == f"reset: {word}{' of malloc' if 'allocated' in added else ''} more after 700 connections"


def test_a_few_blocks_are_no_leak(leaks: Any) -> None:
    assert leaks.judge("reset", leaks.Usage(15, 50_000, 0, 700)) == []
    assert leaks.judge("reset", leaks.Usage(-15, -50_000, -1, 700)) == []
    assert leaks.judge_all(leaks.Usage(15, 0, 0, 20_000), 1 << 20) == []


def test_all_together_may_leak_less(leaks: Any) -> None:
    assert leaks.judge_all(leaks.Usage(250, 0, 0, 20_000), 0)
    assert leaks.judge_all(leaks.Usage(0, 0, 0, 20_000), 2 << 20)


@pytest.mark.deadline(100)
def test_a_short_run_finds_what_is_planted_and_nothing_else() -> None:
    if not sys.getallocatedblocks():
        pytest.skip("Python's allocator is not in use: nothing can be counted")
    done = subprocess.run(
        [sys.executable, str(TESTS / "leaks" / "run.py"), "--connections", "300", "--scenario", "compressed"],
        capture_output=True,
        text=True,
        timeout=90,
    )
    assert done.stdout.startswith("planted: "), done.stderr
    assert done.stdout.endswith("no leaks\n"), done.stdout
    assert done.returncode == 0


def test_a_module_without_sanitizers_is_refused(tmp_path: Path) -> None:
    sanitized = load(TESTS / "sanitized.py")
    module = tmp_path / "wire.so"
    module.write_bytes(b"\x7fELF __asan_init __ubsan_handle_shift_out_of_bounds")
    sanitized.check_instrumented(module)
    module.write_bytes(b"\x7fELF __asan_init")
    with pytest.raises(SystemExit, match=r"wire\.so is not instrumented"):
        sanitized.check_instrumented(module)
